//! The summary of a fleet.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::answers::{Cluster, Ec2};
use super::configured::{Agreement, ClusterRow, Comparison, Configured, NamedDocument};
use super::exceptions::{Exception, Exceptions};
use super::keys::{KeyUse, Keys};
use super::node::NodeRow;
use super::proofs::Proofs;
use super::side_by_side::{Shown, SideBySide, Sides};
use super::silent::{SilentNode, silent_nodes, unlisted_nodes};
use crate::audit::{Coverage, Newest, Standing};
use crate::emr::Protection;

/// Name of the summary's form.
const SCHEMA: &str = "luks-agent/fleet";
/// Version of the form. It grows when a field changes its meaning or is removed.
const SCHEMA_VERSION: u32 = 1;

/// How old a report may be to say how a node is.
const STALE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How much later than the summary a report may be, because clocks differ.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// What is known of a fleet beside the reports of its nodes.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// What EC2 says.
    pub ec2: Ec2,
    /// The EMR clusters.
    pub clusters: Vec<Cluster>,
    /// The EMR security configurations.
    pub documents: Vec<NamedDocument>,
}

/// The summary of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// `luks-agent/fleet`.
    pub schema: &'static str,
    /// Version of that form.
    pub schema_version: u32,
    /// Version of the program that made it.
    pub agent_version: &'static str,
    /// When it was made.
    pub made: Timestamp,
    /// The verdict: the worst of the nodes', and no better than `unknown` if a node is silent.
    pub verdict: Standing,
    /// Why, one sentence each.
    pub reasons: Vec<String>,
    /// The reports that it is made from.
    pub reports: Reports,
    /// How much is encrypted.
    pub coverage: Coverage,
    /// The keys, and what depends on each. The one with the most volumes comes first.
    pub keys: Vec<KeyUse>,
    /// Proofs that volumes open.
    pub proofs: Proofs,
    /// What is excepted, and why.
    pub exceptions: Vec<Exception>,
    /// Instances that EC2 lists and that have no report; `None` without an answer of EC2.
    pub silent: Option<Vec<SilentNode>>,
    /// Instances with a report that EC2 does not list, or calls terminated; `None` without an answer of EC2.
    pub unlisted: Option<Vec<String>>,
    /// Volumes as EC2 calls them, beside what reports show; `None` without an answer about volumes.
    pub volumes: Option<SideBySide>,
    /// The EMR clusters.
    pub clusters: Vec<ClusterRow>,
    /// EMR security configurations, against the nodes that have them.
    pub configurations: Vec<Configured>,
    /// Nodes with a report for which there is no security configuration among these.
    pub without_configuration: u64,
    /// The nodes, by name.
    pub nodes: Vec<NodeRow>,
}

/// The reports of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reports {
    /// The newest report of each node.
    pub counted: u64,
    /// Reports of which there is a newer one.
    pub older: u64,
    /// Reports without an instance ID, which cannot be found in EC2's answers.
    pub without_instance_id: u64,
    /// Reports that count and were made more than [`STALE`] before the summary.
    pub stale: u64,
    /// Reports that count and were made after the summary: a clock is wrong, and they hide later ones.
    pub from_the_future: u64,
    /// When the oldest of those that count was made.
    pub oldest: Option<Timestamp>,
    /// When the newest was made.
    pub newest: Option<Timestamp>,
}

impl Fleet {
    /// Summarizes the newest reports. `made` is the time of the summary.
    pub fn of(newest: &Newest, around: &Surroundings, made: Timestamp) -> Self {
        let ec2 = &around.ec2;
        let (mut coverage, mut keys, mut proofs, mut exceptions) =
            (Coverage::default(), Keys::default(), Proofs::default(), Exceptions::default());
        let mut comparison = Comparison::new(ec2, &around.clusters, &around.documents);
        let mut sides = Sides::new(ec2);
        let (mut nodes, mut reported) = (Vec::new(), BTreeSet::new());
        for report in newest.reports() {
            coverage.add(report);
            keys.add(report);
            proofs.add(report);
            exceptions.add(report);
            if let Some(sides) = &mut sides {
                sides.add(report);
            }
            let instance_id = report.node.instance_id.as_deref();
            reported.extend(instance_id.map(str::to_owned));
            let cluster_id = instance_id.and_then(|id| ec2.cluster_of(id)).map(str::to_owned);
            nodes.push(NodeRow::of(report, cluster_id, comparison.add(report)));
        }
        comparison.finish();
        let is_listed = ec2.volumes.is_some() || ec2.instances.is_some();
        let mut fleet = Self {
            schema: SCHEMA,
            schema_version: SCHEMA_VERSION,
            agent_version: env!("CARGO_PKG_VERSION"),
            made,
            verdict: Standing::Encrypted,
            reasons: Vec::new(),
            reports: Reports::of(&nodes, newest.older(), reported.len(), made),
            coverage,
            keys: keys.into_list(),
            proofs,
            exceptions: exceptions.into_list(),
            silent: is_listed.then(|| silent_nodes(ec2, &reported)),
            unlisted: is_listed.then(|| unlisted_nodes(ec2, &reported)),
            volumes: sides.map(|sides| sides.finish(&reported)),
            clusters: comparison.clusters,
            configurations: comparison.configurations,
            without_configuration: comparison.unmatched,
            nodes,
        };
        fleet.judge();
        fleet
    }

    /// Sets the verdict and its reasons.
    fn judge(&mut self) {
        let nodes = self.coverage.nodes;
        let unreported = self.volumes.iter().flat_map(|sides| &sides.unencrypted_by_ec2);
        let unreported = unreported.filter(|volume| volume.shown == Shown::NotInReport).count();
        let silent = self.silent.as_ref().map_or(0, Vec::len);
        let mut found = vec![
            (Standing::NotEncrypted, nodes.not_encrypted, "nodes with a disk that is not encrypted"),
            (Standing::Unknown, nodes.unknown, "nodes of which it is not known whether every disk is encrypted"),
            (Standing::Unknown, silent as u64, "instances in EC2 without a report"),
            (Standing::Unknown, self.reports.stale, "nodes whose newest report is more than 7 days old"),
            (Standing::Unknown, self.reports.from_the_future, "nodes whose newest report is from the future"),
            (
                Standing::Unknown,
                unreported as u64,
                "volumes that EC2 calls unencrypted and the report of their node does not have",
            ),
        ];
        found.retain(|(_, count, _)| *count > 0);
        let mut verdicts: Vec<(Standing, String)> =
            found.into_iter().map(|(verdict, count, what)| (verdict, format!("{what}: {count}"))).collect();
        for configured in &self.configurations {
            for row in configured.places.iter().filter(|row| row.configured == Protection::Encrypted) {
                let (name, place) = (&configured.name, row.place);
                let says = format!("that the security configuration '{name}' says are encrypted");
                match row.agreement {
                    Agreement::Contradicted => verdicts
                        .push((Standing::NotEncrypted, format!("disks in clear {says} ({place}): {}", row.in_clear))),
                    Agreement::NotShown => verdicts.push((
                        Standing::Unknown,
                        format!("disks {says} and nothing shows it ({place}): {}", row.unknown),
                    )),
                    Agreement::NoDisks | Agreement::Agrees | Agreement::Stronger => {}
                }
            }
        }
        // the worst first
        verdicts.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
        let verdict = verdicts.first().map(|(verdict, _)| *verdict);
        self.reasons = verdicts.into_iter().map(|(_, reason)| reason).collect();
        let best = if nodes.encrypted == 0 { Standing::Excepted } else { Standing::Encrypted };
        self.verdict = verdict.unwrap_or(best);
    }

    /// Returns the summary as JSON.
    ///
    /// # Errors
    /// None that a summary could cause.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(format!("{}\n", serde_json::to_string_pretty(self)?))
    }
}

impl Reports {
    fn of(nodes: &[NodeRow], older: usize, with_instance_id: usize, now: Timestamp) -> Self {
        let aged = |is_wrong: fn(SignedDuration) -> bool| {
            nodes.iter().filter(|node| is_wrong(now.duration_since(node.made))).count() as u64
        };
        Self {
            stale: aged(|age| age > STALE),
            from_the_future: aged(|age| age < -AHEAD),
            counted: nodes.len() as u64,
            older: older as u64,
            without_instance_id: (nodes.len() - with_instance_id) as u64,
            oldest: nodes.iter().map(|node| node.made).min(),
            newest: nodes.iter().map(|node| node.made).max(),
        }
    }
}
