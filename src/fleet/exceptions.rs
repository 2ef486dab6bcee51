//! What the agent is not to encrypt, and why.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::audit::{AuditReport, Standing};

/// The disks that are excepted for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Exception {
    /// The role of these disks.
    pub role: String,
    /// The rule or setting.
    pub reason: String,
    /// The nodes that have such a disk.
    pub nodes: Vec<String>,
    /// How many attached disks there are.
    pub volumes: u64,
    /// Their sizes.
    pub bytes: u64,
}

/// Exceptions by role and reason.
#[derive(Debug, Default)]
pub(super) struct Exceptions(BTreeMap<(String, String), Exception>);

impl Exceptions {
    /// Adds the excepted disks of a node.
    pub(super) fn add(&mut self, report: &AuditReport) {
        let mut counted: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for disk in &report.disks {
            if disk.device.is_some() && disk.verdict == Standing::Excepted {
                let (volumes, bytes) = counted.entry((disk.role.clone(), disk.reasons.join("; "))).or_default();
                *volumes += 1;
                *bytes = bytes.saturating_add(disk.size);
            }
        }
        for (group, (volumes, bytes)) in counted {
            let known = self.0.entry(group).or_default();
            known.nodes.push(report.node.title().to_owned());
            known.volumes += volumes;
            known.bytes = known.bytes.saturating_add(bytes);
        }
    }

    /// Returns the exceptions: those with the most disks first.
    pub(super) fn into_list(self) -> Vec<Exception> {
        let named = |((role, reason), exception)| Exception { role, reason, ..exception };
        let mut exceptions: Vec<Exception> = self.0.into_iter().map(named).collect();
        exceptions.sort_by_key(|exception| std::cmp::Reverse(exception.volumes));
        exceptions
    }
}
