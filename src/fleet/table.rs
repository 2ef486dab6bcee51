//! The summary as text for people.

use std::fmt;

use super::summary::Fleet;
use crate::audit::Standing;
use crate::columns::in_columns;
use crate::disk::Bytes;
use crate::text::escape_controls;

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coverage = &self.coverage;
        let heading = ["", "ENCRYPTED", "EXCEPTED", "UNKNOWN", "NOT ENCRYPTED", "TOTAL"].map(str::to_owned);
        print(
            f,
            &[
                heading,
                counts("nodes", coverage.nodes.columns().map(|n| n.to_string())),
                counts("volumes", coverage.volumes.columns().map(|n| n.to_string())),
                counts("bytes", coverage.bytes.columns().map(|n| Bytes(n).to_string())),
            ],
        )?;
        writeln!(f)?;
        let mut lines = vec![["KEY", "STATE", "NODES", "VOLUMES", "BYTES"].map(str::to_owned)];
        lines.extend(self.keys.iter().map(|key| {
            let state = key.state.clone().unwrap_or_else(|| "-".to_owned());
            let (nodes, volumes) = (key.nodes.len().to_string(), key.volumes.to_string());
            [key.key_arn.clone(), state, nodes, volumes, Bytes(key.bytes).to_string()]
        }));
        print(f, &lines)?;
        writeln!(f)?;
        let mut facts = vec![];
        if let Some(oldest) = &self.proofs.oldest {
            facts.push(format!("oldest proof: {} ({} of {})", oldest.at, oldest.device, oldest.node));
        }
        facts.push(format!("volumes without a proof since boot: {}", self.proofs.unproven));
        facts.push(format!("exceptions: {} disks", coverage.volumes.excepted));
        if let Some(oldest) = self.reports.oldest {
            facts.push(format!("oldest report: {oldest}"));
        }
        if self.reports.without_instance_id > 0 {
            let count = self.reports.without_instance_id;
            facts.push(format!("reports without an instance ID, of which EC2 says nothing: {count}"));
        }
        if !self.configurations.is_empty() {
            facts.push(format!("nodes without one of these security configurations: {}", self.without_configuration));
        }
        match &self.silent {
            Some(silent) => facts.push(format!("silent nodes: {}", silent.len())),
            None => facts.push("silent nodes: not known without --volumes or --instances".to_owned()),
        }
        if let Some(sides) = &self.volumes {
            let (resolved, open) = (sides.resolved, sides.open);
            facts.push(format!("volumes that EC2 calls unencrypted: LUKS encrypts {resolved}, open are {open}"));
        }
        for fact in facts {
            writeln!(f, "{}", escape_controls(&fact))?;
        }
        writeln!(f, "audit fleet: {}", self.sentence())?;
        for reason in &self.reasons {
            writeln!(f, "    {}", escape_controls(reason))?;
        }
        Ok(())
    }
}

impl Fleet {
    /// Returns the verdict as a sentence.
    pub(super) fn sentence(&self) -> &'static str {
        match self.verdict {
            Standing::Encrypted | Standing::Excepted => "every disk of these nodes is encrypted or excepted",
            Standing::Unknown => "it could not be shown that every disk of this fleet is encrypted or excepted",
            Standing::NotEncrypted => "this fleet is not encrypted",
        }
    }
}

fn counts(name: &str, [encrypted, excepted, unknown, not_encrypted, total]: [String; 5]) -> [String; 6] {
    [name.to_owned(), encrypted, excepted, unknown, not_encrypted, total]
}

fn print<const N: usize>(f: &mut fmt::Formatter<'_>, lines: &[[String; N]]) -> fmt::Result {
    let lines: Vec<[String; N]> =
        lines.iter().map(|line| line.clone().map(|cell| escape_controls(&cell).into_owned())).collect();
    in_columns(&lines).iter().try_for_each(|line| writeln!(f, "{line}"))
}
