//! The newest report of each node.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::node::Node;
use super::report::AuditReport;

impl Node {
    /// Returns how it is called: its instance ID, or its host name without one.
    pub fn title(&self) -> &str {
        self.instance_id.as_deref().unwrap_or(&self.host_name)
    }

    /// Returns its name together with what tells it from another node of that name.
    fn identity(&self) -> (Option<String>, String, Option<String>) {
        match &self.instance_id {
            // unique in AWS
            Some(id) => (None, id.clone(), None),
            None => (self.account.clone(), self.host_name.clone(), self.region.clone()),
        }
    }
}

/// The newest report of each node.
#[derive(Debug, Default)]
pub struct Newest {
    reports: BTreeMap<(Option<String>, String, Option<String>), AuditReport>,
    older: usize,
}

impl Newest {
    /// Adds a report. Of two that were made at the same time, the worse one counts.
    pub fn add(&mut self, report: AuditReport) {
        match self.reports.entry(report.node.identity()) {
            Entry::Vacant(entry) => {
                entry.insert(report);
            }
            Entry::Occupied(mut entry) => {
                self.older += 1;
                let known = entry.get();
                if (report.made, report.verdict) > (known.made, known.verdict) {
                    entry.insert(report);
                }
            }
        }
    }

    /// Returns how many reports do not count, because there is a newer one of their node.
    pub fn older(&self) -> usize {
        self.older
    }

    /// Returns the reports, sorted by node.
    pub fn reports(&self) -> impl Iterator<Item = &AuditReport> {
        self.reports.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Standing;
    use crate::audit::example::example;

    #[test]
    fn the_newest_report_of_a_node_counts_whatever_the_order() {
        let (mut old, mut new, mut other) = (example(), example(), example());
        old.made = "2025-01-02T03:04:05Z".parse().unwrap();
        new.verdict = Standing::Unknown;
        other.node.instance_id = None;
        let orders = [[&old, &new, &other], [&new, &other, &old]];
        for order in orders {
            let mut newest = Newest::default();
            order.into_iter().cloned().for_each(|report| newest.add(report));
            assert_eq!(newest.older(), 1);
            assert_eq!(newest.reports().collect::<Vec<_>>(), [&new, &other]);
        }
    }

    #[test]
    fn of_two_reports_of_one_moment_the_worse_counts() {
        let (mut good, bad) = (example(), example());
        good.verdict = Standing::Encrypted;
        for order in [[&good, &bad], [&bad, &good]] {
            let mut newest = Newest::default();
            order.into_iter().cloned().for_each(|report| newest.add(report));
            assert_eq!(newest.reports().next().unwrap().verdict, Standing::NotEncrypted);
        }
    }
}
