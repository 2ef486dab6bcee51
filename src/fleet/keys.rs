//! The keys of the fleet, and what depends on each.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::AuditReport;

/// A key, and what does not open any more once the key is disabled. What is open stays open until it is closed or the node reboots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeyUse {
    /// Its ARN, or what an exec provider calls it.
    pub key_arn: String,
    /// Who unwraps with it: `aws-kms` or `exec`. `None` if no report lists the key.
    pub provider: Option<String>,
    /// Its state at the last look of any node.
    pub state: Option<String>,
    /// When that look was.
    pub looked: Option<Timestamp>,
    /// The nodes whose last look found that it would not unwrap.
    pub failing_nodes: Vec<String>,
    /// The nodes with a volume that depends on it.
    pub nodes: Vec<String>,
    /// The volumes that depend on it, those that are not attached included.
    pub volumes: u64,
    /// The sizes of these volumes.
    pub bytes: u64,
}

/// Keys by their names.
#[derive(Debug, Default)]
pub(super) struct Keys(BTreeMap<String, KeyUse>);

impl Keys {
    /// Adds the keys of a node, and its volumes to those that depend on them.
    pub(super) fn add(&mut self, report: &AuditReport) {
        let node = report.node.title();
        for key in &report.keys {
            let known = self.of(&key.key_arn);
            if known.provider.is_none() || key.looked > known.looked {
                known.provider = Some(key.provider.clone());
                (known.state, known.looked) = (key.state.clone(), key.looked);
            }
            if key.error.is_some() {
                known.failing_nodes.push(node.to_owned());
            }
        }
        let mut used = BTreeSet::new();
        for disk in &report.disks {
            let Some(key_arn) = &disk.key_arn else { continue };
            let known = self.of(key_arn);
            known.volumes += 1;
            known.bytes = known.bytes.saturating_add(disk.size);
            if used.insert(key_arn) {
                known.nodes.push(node.to_owned());
            }
        }
    }

    fn of(&mut self, key_arn: &str) -> &mut KeyUse {
        let new = || KeyUse { key_arn: key_arn.to_owned(), ..KeyUse::default() };
        self.0.entry(key_arn.to_owned()).or_insert_with(new)
    }

    /// Returns the keys: those with the most volumes first.
    pub(super) fn into_list(self) -> Vec<KeyUse> {
        let mut keys: Vec<KeyUse> = self.0.into_values().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.volumes));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Key;
    use crate::audit::example::example;

    const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn node(id: &str, change: impl FnOnce(&mut AuditReport)) -> AuditReport {
        let mut report = example();
        report.node.instance_id = Some(id.to_owned());
        change(&mut report);
        report
    }

    fn keys(reports: &[AuditReport]) -> Vec<KeyUse> {
        let mut keys = Keys::default();
        reports.iter().for_each(|report| keys.add(report));
        keys.into_list()
    }

    #[test]
    fn a_key_has_the_nodes_and_volumes_that_depend_on_it() {
        let two = node("i-2", |report| {
            let mut disk = report.disks[1].clone();
            (disk.device, disk.size) = (None, 1 << 30);
            report.disks.push(disk);
        });
        let none = node("i-3", |report| report.disks.truncate(1));
        let [key] = &keys(&[node("i-1", |_| {}), two, none])[..] else { panic!("one key") };
        assert_eq!((key.key_arn.as_str(), key.volumes, key.bytes), (KEY, 3, (64 + 64 + 1) << 30));
        assert_eq!(key.nodes, ["i-1", "i-2"]);
    }

    #[test]
    fn the_state_of_a_key_is_that_of_the_last_look_whatever_the_order() {
        let later = node("i-2", |report| {
            let key: &mut Key = &mut report.keys[0];
            key.state = Some("PendingDeletion".to_owned());
            key.looked = Some("2026-01-03T00:00:00Z".parse().unwrap());
            key.error = Some("it is to be deleted".to_owned());
        });
        let never = node("i-3", |report| (report.keys[0].state, report.keys[0].looked) = (None, None));
        let early = node("i-1", |_| {});
        for order in [[&early, &later, &never], [&never, &later, &early]] {
            let order: Vec<AuditReport> = order.into_iter().cloned().collect();
            let found = keys(&order);
            assert_eq!(found[0].state.as_deref(), Some("PendingDeletion"));
            assert_eq!(found[0].failing_nodes, ["i-2"]);
        }
    }

    #[test]
    fn a_key_that_only_a_disk_names_is_listed() {
        let unlisted = node("i-1", |report| report.keys.clear());
        let found = keys(&[unlisted]);
        assert_eq!((found[0].volumes, &found[0].provider), (1, &None));
    }
}
