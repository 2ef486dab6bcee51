//! A report as text for people.

use std::fmt;

use super::disk::{Disk, Encryption, Standing};
use super::report::AuditReport;
use crate::columns::in_columns;
use crate::disk::Bytes;
use crate::text::escape_controls;

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = ["DEVICE", "ROLE", "SIZE", "SERIAL", "VERDICT", "MOUNT", "EVIDENCE"].map(str::to_owned);
        let lines: Vec<_> = std::iter::once(heading).chain(self.disks.iter().map(cells)).collect();
        for (number, line) in in_columns(&lines).iter().enumerate() {
            writeln!(f, "{line}")?;
            let Some(disk) = number.checked_sub(1).and_then(|number| self.disks.get(number)) else { continue };
            for text in disk.reasons.iter().cloned().chain(encryption(disk)) {
                writeln!(f, "    {}", escape_controls(&text))?;
            }
        }
        writeln!(f, "audit: {}", verdict(self.verdict))?;
        for reason in &self.reasons {
            writeln!(f, "    {}", escape_controls(reason))?;
        }
        Ok(())
    }
}

fn cells(disk: &Disk) -> [String; 7] {
    let dash = || "-".to_owned();
    let mounts = disk.mount_points(",");
    let evidence = disk.evidence.as_ref();
    [
        disk.device.clone().unwrap_or_else(dash),
        disk.role.clone(),
        Bytes(disk.size).to_string(),
        disk.serial.clone().unwrap_or_else(dash),
        disk.verdict.to_string(),
        if mounts.is_empty() { dash() } else { mounts },
        evidence.map_or_else(dash, |evidence| format!("{} of {} blocks differ", evidence.differ, evidence.blocks)),
    ]
    .map(|cell| escape_controls(&cell).into_owned())
}

/// Returns how a volume is encrypted, under which key.
fn encryption(disk: &Disk) -> Option<String> {
    let Encryption { cipher, key_size, sector_size, .. } = disk.encryption.as_ref()?;
    let key = disk.key_arn.as_ref().map(|key| format!(", under {key}")).unwrap_or_default();
    Some(format!("{cipher}, {key_size} bits, sectors of {sector_size} bytes{key}"))
}

fn verdict(node: Standing) -> &'static str {
    match node {
        Standing::Encrypted | Standing::Excepted => "every disk of this node is encrypted or excepted",
        Standing::Unknown => "it could not be shown that every disk of this node is encrypted or excepted",
        Standing::NotEncrypted => "this node is not encrypted",
    }
}
