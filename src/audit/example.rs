//! A report for tests: a node with a boot volume, an encrypted EBS volume, and an EBS volume with data in clear.

use super::disk::{Disk, Encryption, Proof, Proven, Standing};
use super::evidence::Evidence;
use super::key::Key;
use super::node::{IdentityDocument, Node};
use super::report::{AuditReport, Configuration, SCHEMA, SCHEMA_VERSION};

const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

pub(crate) fn example() -> AuditReport {
    let made = "2026-01-02T03:04:05Z".parse().unwrap();
    let document = r#"{"accountId":"111122223333","instanceId":"i-1234567890abcdef0","region":"us-east-1"}"#;
    AuditReport {
        schema: SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        agent_version: "0.1.0".to_owned(),
        made,
        verdict: Standing::NotEncrypted,
        reasons: vec!["nvme2n1 has an xfs file system in clear".to_owned()],
        node: Node {
            host_name: "ip-10-0-0-1".to_owned(),
            instance_id: Some("i-1234567890abcdef0".to_owned()),
            instance_type: Some("m7gd.2xlarge".to_owned()),
            account: Some("111122223333".to_owned()),
            region: Some("us-east-1".to_owned()),
            availability_zone: Some("us-east-1a".to_owned()),
            ami: Some("ami-0123456789abcdef0".to_owned()),
            kernel: "6.12.0".to_owned(),
            identity_document: Some(IdentityDocument { document: document.to_owned(), rsa2048: None }),
        },
        configuration: Configuration { sha256: "ab".repeat(32), security_configuration_sha256: Some("cd".repeat(32)) },
        keys: vec![Key {
            key_arn: KEY.to_owned(),
            provider: "aws-kms".to_owned(),
            wrapped: made,
            state: Some("Enabled".to_owned()),
            looked: Some(made),
            error: None,
        }],
        disks: vec![
            disk(0, "boot", 8 << 30, Standing::Excepted, "the boot volume is not encrypted by the agent"),
            Disk {
                encryption: Some(Encryption {
                    luks_uuid: "5d0f4ff1-9f5c-4a55-8f5d-2b9d8a1c7e10".to_owned(),
                    mapper: Some("luks-5d0f4ff1-9f5c-4a55-8f5d-2b9d8a1c7e10".to_owned()),
                    cipher: "aes-xts-plain64".to_owned(),
                    key_size: 512,
                    sector_size: 4096,
                    violation: None,
                }),
                key_arn: Some(KEY.to_owned()),
                formatted: Some(made),
                opened: Some(made),
                proven: Some(Proven { at: made, by: Proof::Verify }),
                mounts: vec!["/mnt".into()],
                evidence: Some(Evidence { read: made, block_size: 4096, blocks: 64, differ: 64, unwritten: 8 }),
                ..disk(1, "ebs", 64 << 30, Standing::Encrypted, "a volume of luks-agent")
            },
            disk(2, "ebs", 16 << 30, Standing::NotEncrypted, "it has an xfs file system in clear"),
        ],
    }
}

fn disk(number: u8, role: &str, size: u64, verdict: Standing, reason: &str) -> Disk {
    Disk {
        device: Some(format!("nvme{number}n1")),
        serial: Some(format!("vol0123456789abcdef{number}")),
        volume_id: Some(format!("vol-0123456789abcdef{number}")),
        ..Disk::new(role.to_owned(), size, "an xfs file system".to_owned(), verdict, vec![reason.to_owned()])
    }
}
