//! Nodes of which EC2 knows and that did not report.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::answers::{Ec2, Instance};

/// An instance without a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SilentNode {
    /// Its instance ID.
    pub instance_id: String,
    /// The EMR cluster that it belongs to, if the answer of `describe-instances` says it.
    pub cluster_id: Option<String>,
    /// Its state, such as `running`, if the answer of `describe-instances` says it.
    pub state: Option<String>,
    /// How many EBS volumes are attached to it.
    pub volumes: u64,
    /// Their sizes.
    pub bytes: u64,
    /// How many of them EC2 calls unencrypted.
    pub unencrypted: u64,
}

/// Returns the instances that EC2 knows and that are not in `reported`. One that is terminated has nothing to report.
pub(super) fn silent_nodes(ec2: &Ec2, reported: &BTreeSet<String>) -> Vec<SilentNode> {
    let silent = listed(ec2).into_iter().filter(|id| !reported.contains(*id));
    let node = |id: &str| SilentNode {
        instance_id: id.to_owned(),
        cluster_id: ec2.cluster_of(id).map(str::to_owned),
        state: ec2.instance(id).map(|instance| instance.state().to_owned()),
        ..SilentNode::default()
    };
    let mut nodes: BTreeMap<&str, SilentNode> = silent.map(|id| (id, node(id))).collect();
    for volume in ec2.volumes.iter().flatten().map(|(_, volume)| volume) {
        for id in volume.instances() {
            let Some(node) = nodes.get_mut(id) else { continue };
            node.volumes += 1;
            node.bytes = node.bytes.saturating_add(volume.bytes());
            node.unencrypted += u64::from(!volume.encrypted);
        }
    }
    nodes.into_values().collect()
}

/// Returns the instances that reported and that EC2 does not know, or calls terminated.
pub(super) fn unlisted_nodes(ec2: &Ec2, reported: &BTreeSet<String>) -> Vec<String> {
    let listed = listed(ec2);
    reported.iter().filter(|id| !listed.contains(id.as_str())).cloned().collect()
}

/// Returns the instances that EC2 knows and does not call terminated.
fn listed(ec2: &Ec2) -> BTreeSet<&str> {
    let with_volumes = ec2.volumes.iter().flatten().flat_map(|(_, volume)| volume.instances());
    let instances = ec2.instances.iter().flatten().map(|(id, _)| id.as_str());
    let is_terminated = |id: &str| ec2.instance(id).is_some_and(Instance::is_terminated);
    with_volumes.chain(instances).filter(|id| !is_terminated(id)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ec2() -> Ec2 {
        let volume = |id: &str, encrypted: bool, attachments: serde_json::Value| json!({"VolumeId": id, "Size": 8, "Encrypted": encrypted, "Attachments": attachments});
        let at = |instance: &str, state: &str| json!({"InstanceId": instance, "State": state});
        let volumes = json!({"Volumes": [
            volume("vol-1", false, json!([at("i-reports", "attached")])),
            volume("vol-2", false, json!([at("i-silent", "attached")])),
            volume("vol-3", true, json!([at("i-silent", "attaching"), at("i-shared", "attached")])),
            volume("vol-4", false, json!([])),
            volume("vol-5", false, json!([at("i-detached", "detached")])),
            volume("vol-6", false, json!([{"State": "attached"}])),
        ]});
        let instance = |id: &str, state: &str, tags: serde_json::Value| json!({"InstanceId": id, "State": {"Name": state}, "Tags": tags});
        let tag = json!([{"Key": "aws:elasticmapreduce:job-flow-id", "Value": "j-1"}]);
        let instances = json!({"Reservations": [{"Instances": [
            instance("i-silent", "running", tag),
            instance("i-diskless", "stopped", serde_json::Value::Null),
            instance("i-gone", "terminated", json!([])),
            instance("i-going", "shutting-down", json!([])),
        ]}]});
        let mut ec2 = Ec2::default();
        ec2.add_volumes(volumes.to_string().as_bytes()).unwrap();
        ec2.add_instances(instances.to_string().as_bytes()).unwrap();
        ec2
    }

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn silent_is_who_has_a_volume_or_runs_and_did_not_report() {
        let cases: [(&[&str], &[&str]); 3] = [
            (&[], &["i-diskless", "i-reports", "i-shared", "i-silent"]),
            (&["i-reports"], &["i-diskless", "i-shared", "i-silent"]),
            (&["i-reports", "i-shared", "i-silent", "i-diskless"], &[]),
        ];
        for (reported, expected) in cases {
            let silent = silent_nodes(&ec2(), &set(reported));
            let ids: Vec<&str> = silent.iter().map(|node| node.instance_id.as_str()).collect();
            assert_eq!(ids, expected, "{reported:?}");
        }
    }

    #[test]
    fn a_silent_node_has_its_volumes_and_its_cluster() {
        let silent = silent_nodes(&ec2(), &set(&[]));
        let node = silent.iter().find(|node| node.instance_id == "i-silent").unwrap();
        let expected = SilentNode {
            instance_id: "i-silent".to_owned(),
            cluster_id: Some("j-1".to_owned()),
            state: Some("running".to_owned()),
            volumes: 2,
            bytes: 16 << 30,
            unencrypted: 1,
        };
        assert_eq!(*node, expected);
    }

    #[test]
    fn unlisted_is_who_reported_and_is_not_in_ec2() {
        assert_eq!(unlisted_nodes(&ec2(), &set(&["i-reports", "i-diskless"])), Vec::<String>::new());
        assert_eq!(unlisted_nodes(&ec2(), &set(&["i-gone", "i-other", "i-silent"])), ["i-gone", "i-other"]);
    }
}
