//! A report as entries of the journal: one for each disk on which something was done or is wrong, and one for the outcome as a
//! whole. `docs/journal.md` lists them.

use super::check::{Check, CheckResult};
use super::exit_code::ExitCode;
use super::report::Report;
use super::row::Row;
use super::verdict::Verdict;

/// Kinds of entries, by their `MESSAGE_ID` (`systemd.journal-fields(7)`). They never change.
pub const MESSAGE_IDS: [(&str, &str); 19] = [
    ("formatted", "5d7635bb74b544489d44fba8941532f7"),
    ("unlocked", "13ff651c4a334029ba1aba2150b187ad"),
    ("grown", "146481638a854fea858309bb5adec5f1"),
    ("closed", "d5ed024768db48d8b890d239722d86e8"),
    ("refused", "32bfc571aa7243bdafeb1b0854ff2026"),
    ("wrong", "7767c19b0bb342dc93434e25eb9243bd"),
    ("failed", "4574bdeac4aa492bae6a4fb1e5fc1b92"),
    ("hung", "77948640204e43e4b3e76c7761e1faa1"),
    ("no key", "61168bb8edad437f85aa33a508f3b975"),
    ("command failed", "1dd72d8902a4463d848222778ff4c085"),
    ("would not survive a reboot", "5eca565bae244f68843ae4b6ca1166bb"),
    ("unsound", "d1a9b0c6a9d94e0e8f0b64d6a2c7f35b"),
    ("backed up", "db81b5f0ff1940449ed842a100e0e145"),
    ("restored", "c8d24b61ebaf4ac68349a055ac541be9"),
    ("enrolled", "70b6325e4e9d44d9b56b8a7bc2f3b930"),
    ("removed", "b5cd40e912304fbaac440e19909a7c42"),
    ("adopted", "f6b22e3ba6f440ba9a8f13d01c04f677"),
    ("forgotten", "752c19b8074b408587dd513a3f960e77"),
    ("erased", "5e398fb64a2f4817ae2cd8c7e9c6cfcd"),
];

/// What the error of `health` begins with if, and only if, the next boot would fail.
pub(crate) const WOULD_NOT_SURVIVE: &str = "this node would not survive a reboot, because ";

fn message_id(kind: &str) -> Option<&'static str> {
    MESSAGE_IDS.iter().find(|(name, _)| *name == kind).map(|(_, id)| *id)
}

impl Report {
    /// Writes the entries. Call it only if the log goes to the journal: on a terminal the table says the same.
    pub fn log(&self) {
        for row in &self.rows {
            if let Some(message_id) = message_id(&row.result.to_string()) {
                row.log(message_id);
            }
        }
        for Check { check, result, evidence, remedy, .. } in &self.checks {
            let remedy = remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
            match result {
                CheckResult::Ok => tracing::info!("{check}: {evidence}{remedy}"),
                CheckResult::Warning => tracing::warn!("{check}: {evidence}{remedy}"),
                CheckResult::Failure => tracing::error!("{check}: {evidence}{remedy}"),
            }
        }
        tracing::info!("{}: {}", self.command, self.summary);
        let Some(error) = &self.error else { return };
        let kind = match self.command {
            "health" | "verify" if error.starts_with(WOULD_NOT_SURVIVE) => "would not survive a reboot",
            "health" | "verify" => "unsound",
            _ => "command failed",
        };
        let failing = self.keys.iter().find(|key| key.error.is_some());
        tracing::error!(
            message_id = message_id(kind),
            kms_key = failing.map(|key| key.key_arn.as_str()),
            error_class = self.error_class(),
            exit_code = self.exit_code,
            "{error}"
        );
    }

    /// Returns the kind of the error, in a word.
    fn error_class(&self) -> &'static str {
        let is = |code: ExitCode| self.exit_code == code as u8;
        match () {
            () if is(ExitCode::KeyService) => "key-service",
            () if is(ExitCode::Configuration) => "configuration",
            () if is(ExitCode::Refused) => "refused",
            () => "failed",
        }
    }
}

impl Row {
    fn log(&self, message_id: &str) {
        let device = self.device.as_deref();
        let volume_serial = self.serial.as_deref();
        let luks_uuid = self.luks_uuid.map(|luks_uuid| luks_uuid.to_string());
        let mount_point = self.mount_point.as_ref().map(|at| at.display().to_string());
        let mut text = format!("{}: {}", device.or(volume_serial).unwrap_or("a volume"), self.result);
        for (before, part) in [(" at ", &mount_point), (": ", &self.reason), ("; ", &self.remedy)] {
            if let Some(part) = part {
                text.push_str(before);
                text.push_str(part);
            }
        }
        macro_rules! entry {
            ($level:ident) => {
                tracing::$level!(message_id, device, volume_serial, luks_uuid, mount_point, role = self.role, "{text}")
            };
        }
        if self.result == Verdict::Refused {
            entry!(warn);
        } else if self.result.exit_code() == ExitCode::Done {
            entry!(info);
        } else {
            entry!(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_of_entry_has_an_id_of_its_own_and_is_documented() {
        let ids: BTreeSet<&str> = MESSAGE_IDS.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), MESSAGE_IDS.len());
        let documented = include_str!("../../docs/journal.md");
        for (kind, id) in MESSAGE_IDS {
            assert!(uuid::Uuid::parse_str(id).is_ok() && id.len() == 32, "{id}");
            assert!(documented.contains(&format!("| `{id}` | {kind} |")), "{kind} is not in docs/journal.md");
        }
    }
}
