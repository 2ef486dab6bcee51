//! Reads what AWS says of the fleet: answers that the AWS CLI printed as JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::audit::Mistake;

/// How large an answer may be, in bytes. That about 10,000 nodes with 6 volumes each has about 60 MiB.
pub const MAX_ANSWER_BYTES: usize = 512 << 20;
/// The tag that EMR puts on the instances of a cluster.
const CLUSTER_TAG: &str = "aws:elasticmapreduce:job-flow-id";

/// Why a file is not the answer that was expected.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// More than any answer has.
    #[error("larger than {} MiB; expected the answer of '{expected}'", MAX_ANSWER_BYTES >> 20)]
    TooLarge {
        /// The command.
        expected: &'static str,
    },
    /// Not JSON, or the answer of something else.
    #[error("not the answer of '{expected}': {mistake}")]
    Invalid {
        /// The command.
        expected: &'static str,
        /// What is wrong, and where.
        mistake: Mistake,
    },
    /// One page of several.
    #[error("only a part of the answer of '{expected}': it has a NextToken; run the command without --max-items")]
    Partial {
        /// The command.
        expected: &'static str,
    },
}

/// What EC2 says of volumes and instances.
#[derive(Debug, Default)]
pub struct Ec2 {
    /// The volumes by ID; `None` without an answer about volumes.
    pub(super) volumes: Option<BTreeMap<String, Volume>>,
    /// The instances by ID; `None` without an answer about instances.
    pub(super) instances: Option<BTreeMap<String, Instance>>,
}

impl Ec2 {
    /// Adds the answer of `aws ec2 describe-volumes`.
    ///
    /// # Errors
    /// If it is not such an answer, or not all of it.
    pub fn add_volumes(&mut self, text: &[u8]) -> Result<(), AnswerError> {
        const EXPECTED: &str = "aws ec2 describe-volumes";
        let answer: Volumes = parse(text, EXPECTED)?;
        if answer.next_token.is_some() {
            return Err(AnswerError::Partial { expected: EXPECTED });
        }
        let volumes = answer.volumes.into_iter().map(|volume| (volume.volume_id.clone(), volume));
        self.volumes.get_or_insert_default().extend(volumes);
        Ok(())
    }

    /// Adds the answer of `aws ec2 describe-instances`.
    ///
    /// # Errors
    /// If it is not such an answer, or not all of it.
    pub fn add_instances(&mut self, text: &[u8]) -> Result<(), AnswerError> {
        const EXPECTED: &str = "aws ec2 describe-instances";
        let answer: Reservations = parse(text, EXPECTED)?;
        if answer.next_token.is_some() {
            return Err(AnswerError::Partial { expected: EXPECTED });
        }
        let instances = answer.reservations.into_iter().flat_map(|reservation| reservation.instances);
        let instances = instances.map(|instance| (instance.instance_id.clone(), instance));
        self.instances.get_or_insert_default().extend(instances);
        Ok(())
    }

    /// Returns whether EC2 calls a volume encrypted; `None` if it does not say.
    pub(super) fn encrypts(&self, volume_id: &str) -> Option<bool> {
        self.volumes.as_ref()?.get(volume_id).map(|volume| volume.encrypted)
    }

    /// Returns an instance, if an answer of `describe-instances` has it.
    pub(super) fn instance(&self, instance_id: &str) -> Option<&Instance> {
        self.instances.as_ref()?.get(instance_id)
    }

    /// Returns the cluster that an instance belongs to.
    pub(super) fn cluster_of(&self, instance_id: &str) -> Option<&str> {
        let tag = self.instance(instance_id)?.tags.iter().flatten().find(|tag| tag.key == CLUSTER_TAG)?;
        Some(&tag.value)
    }
}

/// An EMR cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    /// Its ID, `j-...`.
    pub(super) id: String,
    /// Its name.
    pub(super) name: String,
    /// The name of its security configuration, if it has one.
    pub(super) security_configuration: Option<String>,
}

impl Cluster {
    /// Reads the answer of `aws emr describe-cluster`.
    ///
    /// # Errors
    /// If it is not such an answer.
    pub fn read(text: &[u8]) -> Result<Self, AnswerError> {
        let answer: ClusterAnswer = parse(text, "aws emr describe-cluster")?;
        Ok(answer.cluster)
    }
}

fn parse<T: DeserializeOwned>(text: &[u8], expected: &'static str) -> Result<T, AnswerError> {
    if text.len() > MAX_ANSWER_BYTES {
        return Err(AnswerError::TooLarge { expected });
    }
    serde_json::from_slice(text).map_err(|e| AnswerError::Invalid { expected, mistake: e.into() })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ClusterAnswer {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    volumes: Vec<Volume>,
    next_token: Option<String>,
}

/// An EBS volume.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Volume {
    pub(super) volume_id: String,
    /// In GiB.
    size: u64,
    pub(super) encrypted: bool,
    attachments: Option<Vec<Attachment>>,
}

impl Volume {
    /// Returns its size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.size.saturating_mul(1 << 30)
    }

    /// Returns the instances that it is attached to, or is being attached to or detached from.
    pub(super) fn instances(&self) -> impl Iterator<Item = &str> {
        let attachments = self.attachments.iter().flatten();
        let attached = attachments.filter(|attachment| attachment.state.as_deref() != Some("detached"));
        attached.filter_map(|attachment| attachment.instance_id.as_deref())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attachment {
    // a volume of a service of AWS has none
    instance_id: Option<String>,
    state: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reservations {
    reservations: Vec<Reservation>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reservation {
    instances: Vec<Instance>,
}

/// An EC2 instance.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instance {
    instance_id: String,
    state: InstanceState,
    tags: Option<Vec<Tag>>,
}

impl Instance {
    /// Returns its state, such as `running`.
    pub(super) fn state(&self) -> &str {
        &self.state.name
    }

    /// Returns whether it is gone, or going.
    pub(super) fn is_terminated(&self) -> bool {
        ["terminated", "shutting-down"].contains(&self.state())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceState {
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(text: &str) -> String {
        Ec2::default().add_volumes(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn refuses_what_is_not_the_answer_and_names_the_place() {
        for (text, expected) in [
            ("", "not the answer of 'aws ec2 describe-volumes': EOF while parsing a value at line 1 column 0"),
            ("{}", "missing field `Volumes` at line 1 column 2"),
            ("{\"Volumes\": [\n{\"VolumeId\": \"vol-1\", \"Size\": 1}]}", "missing field `Encrypted` at line 2"),
            ("{\"Volumes\": [], \"NextToken\": \"x\"}", "only a part of the answer"),
        ] {
            assert!(volumes(text).contains(expected), "{}", volumes(text));
        }
        let cluster = Cluster::read(b"{\"Reservations\": []}").unwrap_err().to_string();
        assert!(cluster.contains("not the answer of 'aws emr describe-cluster'"), "{cluster}");
    }

    #[test]
    fn several_answers_add_up() {
        let mut ec2 = Ec2::default();
        for id in ["vol-1", "vol-2"] {
            let volume = format!("{{\"VolumeId\": \"{id}\", \"Size\": 1, \"Encrypted\": true, \"New\": 1}}");
            ec2.add_volumes(format!("{{\"Volumes\": [{volume}]}}").as_bytes()).unwrap();
        }
        assert_eq!(["vol-1", "vol-2", "vol-3"].map(|id| ec2.encrypts(id)), [Some(true), Some(true), None]);
    }
}
