//! Opens and mounts a volume.

use super::claim::claim;
use super::error::WorkerError;
use super::stage::Stage;
use crate::error::chain;
use crate::job::{self, Answer, Target};
use crate::key::Passphrase;
use crate::luks2::{Expected, Opened};
use crate::storage::cryptsetup::{self, Mapping};
use crate::storage::{dm, filesystem, mount};

pub(super) fn unlock(job: &job::Unlock, key: Option<Passphrase>, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Unlock { target, expected, mapper, open, mount } = job;
    let _lock = claim(target, stage)?;
    let mut opened = None;
    if !open {
        stage.enter("unlocking");
        // consumes the key, because mounting can take minutes
        opened = open_volume(target, mapper, expected, &key.ok_or(WorkerError::NoPassphrase)?)?;
    }
    let mapping = dm::node(mapper)?;
    let (mut filesystem_errors, mut warning) = (false, None);
    if let Some(mount) = mount {
        stage.enter("mounting");
        warning = mount::mount(&mapping, mount)?;
        // the volume is mounted even if this check fails
        filesystem_errors = filesystem::has_errors(mount.filesystem, &mapping).unwrap_or_else(|e| {
            tracing::warn!("cannot tell whether the file system has errors: {}", chain(e));
            false
        });
    }
    Ok(Answer::Unlocked { opened, filesystem_errors, warning })
}

/// Opens a volume. Returns `None` if another program has opened it since the plan was made, such as systemd-cryptsetup for a line of
/// `/etc/crypttab`, under the name that the agent uses and as recorded.
fn open_volume(
    target: &Target,
    mapper: &str,
    expected: &Expected,
    key: &Passphrase,
) -> Result<Option<Opened>, WorkerError> {
    let is_open = |mapping| mapping == Mapping::Open && dm::check(mapper, target.devno, expected.header).is_ok();
    if is_open(free_name(mapper)?) {
        return Ok(None);
    }
    match cryptsetup::open(&target.path, mapper, expected, key) {
        Err(_) if is_open(cryptsetup::mapping(mapper)?) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// Removes a mapping without an active table, which a process left that was killed while it opened a volume. It is not open, but it
/// occupies the name, and may hold the disk. Returns what there was.
pub(super) fn free_name(mapper: &str) -> Result<Mapping, WorkerError> {
    let mapping = cryptsetup::mapping(mapper)?;
    if mapping == Mapping::Empty {
        dm::remove(mapper)?;
    }
    Ok(mapping)
}
