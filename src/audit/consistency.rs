//! What must agree within a report, whoever judges the disks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::disk::{Disk, Standing};
use super::node::Node;
use super::report::{AuditReport, SCHEMA_VERSION};

/// Two places of a report that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at {at})")]
pub struct Inconsistency {
    /// JSON pointer of the place.
    pub at: String,
    /// What disagrees.
    pub message: String,
}

impl Inconsistency {
    fn at(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at: at.into(), message: message.into() }
    }
}

impl Standing {
    /// Returns whether nothing has to be done: the disk is encrypted, or not the agent's to encrypt.
    pub fn is_fine(self) -> bool {
        self <= Self::Excepted
    }
}

impl AuditReport {
    /// Returns the first contradiction in a report. The agent makes none; somebody who edits a report by hand does.
    ///
    /// It shows carelessness, not forgery: whoever can write the report can write one that agrees with itself.
    pub fn inconsistency(&self) -> Option<Inconsistency> {
        self.about_the_whole().or_else(|| self.node.inconsistency()).or_else(|| self.about_disks())
    }

    fn about_the_whole(&self) -> Option<Inconsistency> {
        if self.schema_version != SCHEMA_VERSION {
            let message = format!("schema_version is {}, expected {SCHEMA_VERSION}", self.schema_version);
            return Some(Inconsistency::at("/schema_version", message));
        }
        let attached = self.disks.iter().filter(|disk| disk.device.is_some());
        let worst = attached.map(|disk| disk.verdict).max().filter(|worst| !worst.is_fine());
        match worst {
            Some(worst) if self.verdict < worst => {
                let message = format!("the verdict is '{}', and that of an attached disk '{worst}'", self.verdict);
                Some(Inconsistency::at("/verdict", message))
            }
            _ if !self.verdict.is_fine() && self.reasons.is_empty() => {
                Some(Inconsistency::at("/reasons", format!("the verdict is '{}' without a reason", self.verdict)))
            }
            _ => None,
        }
    }

    fn about_disks(&self) -> Option<Inconsistency> {
        let mut names = BTreeSet::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let at = |field: &str| format!("/disks/{index}/{field}");
            if let Some((field, message)) = disk.contradiction() {
                return Some(Inconsistency::at(at(field), message));
            }
            // a volume that is not attached can have been on a disk that is used otherwise now
            let Some(device) = &disk.device else { continue };
            if !names.insert(device) {
                return Some(Inconsistency::at(at("device"), format!("two disks are '{device}'")));
            }
        }
        None
    }
}

impl Disk {
    /// Returns the field that disagrees with another one, and how.
    fn contradiction(&self) -> Option<(&'static str, String)> {
        if let Some(id) = &self.volume_id
            && self.serial.as_deref().map(|serial| serial.replacen('-', "", 1)) != Some(id.replacen('-', "", 1))
        {
            return Some(("volume_id", format!("it is '{id}', and the serial number is another")));
        }
        if let Some(evidence) = &self.evidence {
            let (differ, blocks) = (evidence.differ, evidence.blocks);
            if differ > blocks {
                return Some(("evidence/differ", format!("{differ} of {blocks} blocks differ")));
            }
            if differ < blocks && self.verdict == Standing::Encrypted {
                return Some(("verdict", format!("it is 'encrypted', and only {differ} of {blocks} blocks differ")));
            }
        }
        match (&self.encryption, self.verdict) {
            (None, Standing::Encrypted) => {
                Some(("encryption", "it is missing, and the verdict 'encrypted'".to_owned()))
            }
            (Some(encryption), Standing::Encrypted) if encryption.violation.is_some() => {
                Some(("encryption/violation", "there is one, and the verdict is 'encrypted'".to_owned()))
            }
            (_, verdict) if verdict != Standing::Encrypted && self.reasons.is_empty() => {
                Some(("reasons", format!("the verdict is '{verdict}' without a reason")))
            }
            _ => None,
        }
    }
}

impl Node {
    /// Compares what was copied from the identity document with what it says. Its signature is not checked here.
    fn inconsistency(&self) -> Option<Inconsistency> {
        let document: Value = serde_json::from_str(&self.identity_document.as_ref()?.document).ok()?;
        let fields = [
            ("instance_id", "instanceId", &self.instance_id),
            ("account", "accountId", &self.account),
            ("region", "region", &self.region),
        ];
        fields.into_iter().find_map(|(field, name, value)| {
            let signed = document.get(name)?.as_str()?;
            let message = format!("it is not the {name} '{signed}' of the identity document");
            (value.as_deref() != Some(signed)).then(|| Inconsistency::at(format!("/node/{field}"), message))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::example::example;

    fn place(edit: impl FnOnce(&mut AuditReport)) -> Option<String> {
        let mut report = example();
        edit(&mut report);
        report.inconsistency().map(|found| found.at)
    }

    #[test]
    fn a_report_as_it_was_made_is_consistent() {
        assert_eq!(place(|_| ()), None);
    }

    #[test]
    fn the_verdict_is_not_better_than_the_disks() {
        assert_eq!(place(|report| report.verdict = Standing::Unknown).as_deref(), Some("/verdict"));
        assert_eq!(place(|report| report.reasons.clear()).as_deref(), Some("/reasons"));
        // worse than the disks is possible: something can be wrong with the node as a whole
        assert_eq!(place(|report| report.disks.truncate(2)), None);
        // and a volume that is away has nothing in clear here
        let away = |report: &mut AuditReport| {
            report.disks[2].device = None;
            report.verdict = Standing::Encrypted;
        };
        assert_eq!(place(away), None);
    }

    #[test]
    fn an_encrypted_disk_has_what_shows_it() {
        let encrypted = |report: &AuditReport| report.disks[1].verdict == Standing::Encrypted;
        assert!(encrypted(&example()));
        assert_eq!(place(|report| report.disks[1].encryption = None).as_deref(), Some("/disks/1/encryption"));
        let violation = |report: &mut AuditReport| {
            report.disks[1].encryption.as_mut().unwrap().violation = Some("null cipher".to_owned());
        };
        assert_eq!(place(violation).as_deref(), Some("/disks/1/encryption/violation"));
        let differ =
            |differ| move |report: &mut AuditReport| report.disks[1].evidence.as_mut().unwrap().differ = differ;
        assert_eq!(place(differ(63)).as_deref(), Some("/disks/1/verdict"));
        assert_eq!(place(differ(65)).as_deref(), Some("/disks/1/evidence/differ"));
        assert_eq!(place(|report| report.disks[2].reasons.clear()).as_deref(), Some("/disks/2/reasons"));
    }

    #[test]
    fn disks_are_different_disks() {
        // two paths to a disk, and a cloned disk, have the serial number of another one
        let serial = |report: &mut AuditReport| {
            report.disks[2].serial = report.disks[1].serial.clone();
            report.disks[2].volume_id = None;
        };
        assert_eq!(place(serial), None);
        let dash = |report: &mut AuditReport| {
            let disk = &mut report.disks[1];
            disk.serial = disk.volume_id.clone();
        };
        assert_eq!(place(dash), None);
        let device = |report: &mut AuditReport| report.disks[2].device = report.disks[1].device.clone();
        assert_eq!(place(device).as_deref(), Some("/disks/2/device"));
        let volume = |report: &mut AuditReport| report.disks[1].volume_id = Some("vol-0".to_owned());
        assert_eq!(place(volume).as_deref(), Some("/disks/1/volume_id"));
    }

    #[test]
    fn the_node_is_that_of_its_identity_document() {
        let account = |report: &mut AuditReport| report.node.account = Some("444455556666".to_owned());
        assert_eq!(place(account).as_deref(), Some("/node/account"));
        assert_eq!(place(|report| report.node.region = None).as_deref(), Some("/node/region"));
    }
}
