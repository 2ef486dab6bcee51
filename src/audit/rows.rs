//! A report as rows, one for each disk, for engines that take tables: a line of JSON each.

use jiff::Timestamp;
use serde::Serialize;

use super::disk::{Disk, Proof, Standing};
use super::report::AuditReport;

/// A disk and its node in one row. `packaging/athena/table.sql` has the same columns.
#[derive(Debug, Serialize)]
struct Row<'r> {
    made: Timestamp,
    agent_version: &'r str,
    node: &'r str,
    instance_id: Option<&'r str>,
    instance_type: Option<&'r str>,
    host_name: &'r str,
    account: Option<&'r str>,
    region: Option<&'r str>,
    availability_zone: Option<&'r str>,
    ami: Option<&'r str>,
    node_verdict: Standing,
    node_reasons: String,
    device: Option<&'r str>,
    serial: Option<&'r str>,
    volume_id: Option<&'r str>,
    role: &'r str,
    role_because: Option<&'r str>,
    size: u64,
    content: &'r str,
    verdict: Standing,
    reasons: String,
    luks_uuid: Option<&'r str>,
    cipher: Option<&'r str>,
    key_size: Option<u32>,
    key_arn: Option<&'r str>,
    key_state: Option<&'r str>,
    formatted: Option<Timestamp>,
    opened: Option<Timestamp>,
    proven: Option<Timestamp>,
    proven_by: Option<Proof>,
    mounts: String,
    blocks_read: Option<u64>,
    blocks_differ: Option<u64>,
}

impl AuditReport {
    /// Returns a line of JSON for each disk. All lines have the same fields, none of which is a list or an object.
    pub fn to_rows(&self) -> String {
        let line = |disk| format!("{}\n", serde_json::json!(self.row(disk)));
        self.disks.iter().map(line).collect()
    }

    fn row<'r>(&'r self, disk: &'r Disk) -> Row<'r> {
        let (node, encryption) = (&self.node, disk.encryption.as_ref());
        let key = self.keys.iter().find(|key| disk.key_arn.as_ref() == Some(&key.key_arn));
        Row {
            made: self.made,
            agent_version: &self.agent_version,
            node: node.title(),
            instance_id: node.instance_id.as_deref(),
            instance_type: node.instance_type.as_deref(),
            host_name: &node.host_name,
            account: node.account.as_deref(),
            region: node.region.as_deref(),
            availability_zone: node.availability_zone.as_deref(),
            ami: node.ami.as_deref(),
            node_verdict: self.verdict,
            node_reasons: self.reasons.join("; "),
            device: disk.device.as_deref(),
            serial: disk.serial.as_deref(),
            volume_id: disk.volume_id.as_deref(),
            role: &disk.role,
            role_because: disk.role_because.as_deref(),
            size: disk.size,
            content: &disk.content,
            verdict: disk.verdict,
            reasons: disk.reasons.join("; "),
            luks_uuid: encryption.map(|encryption| encryption.luks_uuid.as_str()),
            cipher: encryption.map(|encryption| encryption.cipher.as_str()),
            key_size: encryption.map(|encryption| encryption.key_size),
            key_arn: disk.key_arn.as_deref(),
            key_state: key.and_then(|key| key.state.as_deref()),
            formatted: disk.formatted,
            opened: disk.opened,
            proven: disk.proven.map(|proven| proven.at),
            proven_by: disk.proven.map(|proven| proven.by),
            mounts: disk.mount_points(", "),
            blocks_read: disk.evidence.as_ref().map(|evidence| evidence.blocks),
            blocks_differ: disk.evidence.as_ref().map(|evidence| evidence.differ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::audit::example::example;

    #[test]
    fn a_row_has_a_disk_with_its_node_and_the_state_of_its_key() {
        let lines = example().to_rows();
        let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1]["node"], "i-1234567890abcdef0");
        assert_eq!(rows[1]["node_verdict"], "not-encrypted");
        assert_eq!(rows[1]["verdict"], "encrypted");
        assert_eq!(rows[1]["key_state"], "Enabled");
        assert_eq!(rows[1]["proven_by"], "verify");
        assert_eq!(rows[2]["reasons"], "it has an xfs file system in clear");
        assert!(rows[2]["cipher"].is_null());
        for row in &rows {
            assert!(row.as_object().unwrap().values().all(|value| !value.is_array() && !value.is_object()), "{row}");
        }
    }

    #[test]
    fn the_columns_are_those_of_the_table_for_athena() {
        let table = include_str!("../../packaging/athena/table.sql");
        let columns = table.lines().filter_map(|line| {
            let (name, kind) = line.strip_prefix("  ")?.trim_end_matches(',').split_once(' ')?;
            ["string", "int", "bigint"].contains(&kind).then_some(name)
        });
        let report = example();
        // in the order of the fields, which a map has not
        let text = serde_json::to_string(&report.row(&report.disks[1])).unwrap();
        let mut at = 0;
        let columns: Vec<&str> = columns.collect();
        for column in &columns {
            let found =
                text[at..].find(&format!("\"{column}\":")).unwrap_or_else(|| panic!("{column} is not in {text}"));
            at += found;
        }
        let row: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(columns.len(), row.as_object().unwrap().len());
    }
}
