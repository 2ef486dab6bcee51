//! What is found of a volume of the node.

use jiff::Timestamp;

use super::super::error::unexpected;
use super::look::Look;
use super::mounts::Mounted;
use crate::audit::{Encryption, Evidence, Mapping, Unfinished, Volume};
use crate::disk::{Content, DeviceFacts};
use crate::error::chain;
use crate::job::{self, Answer, Audited, AuditedMapping, Compared, Host, Job, Target};
use crate::state::{Phase, VolumeRecord};

/// What was found of a volume, and how it is encrypted.
#[derive(Debug, Default)]
pub(super) struct Examined {
    pub(super) volume: Volume,
    pub(super) encryption: Option<Encryption>,
}

impl Examined {
    /// Returns the comparison of its blocks.
    pub(super) fn evidence(&self) -> Option<Evidence> {
        self.volume.mapping.as_ref()?.evidence.clone().ok()
    }
}

/// Has a worker examine a volume on a disk, and looks where it is mounted.
pub(super) async fn examine(look: &Look<'_>, record: &VolumeRecord, facts: &DeviceFacts) -> Examined {
    let unfinished = match record.phase {
        Phase::Committed => None,
        Phase::Intent => Some(Unfinished::Formatting),
        Phase::Erasing => Some(Unfinished::Erasing),
    };
    let Mounted { around, beside, is_in_place } = look.mounts.of(record, facts);
    let foreign = match &facts.content {
        Some(content @ (Content::Foreign { .. } | Content::Unrecognised { .. } | Content::Written)) => {
            Some(content.to_string())
        }
        _ => None,
    };
    let mapping = facts.mapping_of(record.luks_uuid);
    // a volume that is used as swap is not mounted
    let is_missing = mapping.is_some() && !is_in_place && facts.system.is_none();
    let not_mounted_at = record.mount_point.as_ref().filter(|_| is_missing).map(|at| at.display().to_string());
    let found = Volume { unfinished, around, beside, foreign, not_mounted_at, ..Volume::default() };
    if unfinished.is_some() {
        return Examined { volume: found, encryption: None };
    }
    let failed = |failure| Examined { volume: Volume { failure: Some(failure), ..found.clone() }, encryption: None };
    let Some(expected) = look.node.state.expected(record.luks_uuid) else {
        return failed("the state file does not say how it was made".to_owned());
    };
    let mapper = mapping.map(|_| facts.mapper_of(record.luks_uuid));
    let job = job::Audit { target: Target::from(facts), expected, mapper: mapper.clone(), blocks: look.blocks };
    let audited = match look.host.run(&facts.name, Job::Audit(job), &[]).await {
        Ok(Answer::Audited(audited)) => *audited,
        Ok(Answer::Failed { message }) => return failed(format!("it could not be examined: {message}")),
        Ok(other) => return failed(unexpected(&other)),
        Err(e) => return failed(format!("it could not be examined: {}", chain(e))),
    };
    let Audited { header, crypt, mapping, reencrypted } = audited;
    let encryption = crypt.map(|crypt| Encryption {
        luks_uuid: record.luks_uuid.to_string(),
        mapper,
        cipher: crypt.cipher,
        key_size: crypt.key_size,
        sector_size: crypt.sector_size,
        violation: header.clone().or_else(|| mapping.as_ref()?.violation.clone()),
    });
    Examined { volume: Volume { header, mapping: mapping.map(read_now), reencrypted, ..found }, encryption }
}

fn read_now(AuditedMapping { is_crypt, violation, compared }: AuditedMapping) -> Mapping {
    let evidence = compared.map(|Compared { block_size, blocks, differ, unwritten }| Evidence {
        read: Timestamp::now(),
        block_size,
        blocks,
        differ,
        unwritten,
    });
    Mapping { is_crypt, violation, evidence }
}
