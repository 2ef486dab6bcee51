//! Opens and mounts a volume.

use std::fs::File;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::check::read_checked_header;
use super::claim::claim;
use super::error::WorkerError;
use super::stage::Stage;
use crate::error::chain;
use crate::job::{self, Answer, Target};
use crate::key::Passphrase;
use crate::luks2::{Expected, Opened};
use crate::storage::cryptsetup::{self, Mapping};
use crate::storage::{dm, filesystem, mount};

/// How long a mapping may be without a table while another program opens a volume.
const BEING_MADE: Duration = Duration::from_secs(1);

pub(super) fn unlock(job: &job::Unlock, key: Option<Passphrase>, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::Unlock { target, expected, mapper, open, mount } = job;
    let disk = claim(target, stage)?;
    let mut opened = None;
    if *open {
        check_open(target, &disk, mapper, expected)?;
    } else {
        stage.enter("unlocking");
        // consumes the key, because mounting can take minutes
        opened = open_volume(target, &disk, mapper, expected, &key.ok_or(WorkerError::NoPassphrase)?)?;
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

/// Opens a volume. Returns `None` if another program, such as systemd-cryptsetup for a line of `/etc/crypttab`, has opened it since the
/// plan was made.
fn open_volume(
    target: &Target,
    disk: &File,
    mapper: &str,
    expected: &Expected,
    key: &Passphrase,
) -> Result<Option<Opened>, WorkerError> {
    if free_name(mapper)? != Mapping::Open {
        match cryptsetup::open(&target.path, mapper, expected, key) {
            Err(e) if e.name_is_taken() && settled(mapper)? == Mapping::Open => {}
            opened => return Ok(Some(opened?)),
        }
    }
    check_open(target, disk, mapper, expected)?;
    Ok(None)
}

/// Checks a volume that the agent has not opened just now, before it is mounted: systemd-cryptsetup, for one, opens what is on the disk,
/// whoever wrote it, and with a header of theirs they could read what the node writes. The lock on the disk keeps a re-encryption of the
/// agent's from changing the header meanwhile.
fn check_open(target: &Target, disk: &File, mapper: &str, expected: &Expected) -> Result<(), WorkerError> {
    if dm::luks_uuid(mapper)? != Some(expected.luks_uuid) {
        return Err(WorkerError::NameTaken { mapper: mapper.to_owned() });
    }
    let checked = read_checked_header(disk, expected).and_then(|_| {
        // re-encryption has mappings of its own
        if expected.reencrypting { Ok(()) } else { Ok(dm::check(mapper, target.devno, expected.header)?) }
    });
    checked.map_err(|e| WorkerError::OpenOtherwise { mapper: mapper.to_owned(), source: Box::new(e) })
}

/// Removes a mapping without an active table, which a process left that was killed while it opened a volume. It is not open, but it
/// occupies the name, and may hold the disk. Returns what there was.
pub(super) fn free_name(mapper: &str) -> Result<Mapping, WorkerError> {
    let mapping = settled(mapper)?;
    if mapping == Mapping::Empty {
        dm::remove(mapper)?;
    }
    Ok(mapping)
}

/// Returns the state of a mapping. Waits if it has no table: another program may be about to load it.
fn settled(mapper: &str) -> Result<Mapping, WorkerError> {
    let since = Instant::now();
    loop {
        let mapping = cryptsetup::mapping(mapper)?;
        if mapping != Mapping::Empty || since.elapsed() >= BEING_MADE {
            return Ok(mapping);
        }
        sleep(Duration::from_millis(50));
    }
}
