//! Shows, backs up and restores the header of a volume.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc::O_EXCL;
use tempfile::NamedTempFile;

use super::check::read_checked_header;
use super::claim::{check_same_disk, claim};
use super::error::WorkerError;
use super::stage::Stage;
use crate::error::{IoError, chain};
use crate::job::{self, Answer, InspectedBackup, Target};
use crate::key::Passphrase;
use crate::luks2::{
    BackupError, DATA_OFFSET, HeaderError, HeaderFacts, Luks2Header, PolicyViolation, VolumeKeyId, check_file,
    forget_cached, note_about, read_backup,
};
use crate::storage::{cryptsetup, dm};

pub(super) fn show(target: &Target, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let disk = claim(target, stage)?;
    stage.enter("reading the header");
    forget_cached(&disk, &(0..DATA_OFFSET));
    let header = HeaderFacts::read(&disk)?.ok_or(HeaderError::Gone)?;
    Ok(Answer::HeaderShown { header: Box::new(header) })
}

pub(super) fn back_up(job: &job::BackUpHeader, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::BackUpHeader { target, expected, keyslot, mapper, file, origin } = job;
    let disk = claim(target, stage)?;
    stage.enter("backing up the header");
    let dir = file.parent().unwrap_or(Path::new("/"));
    if let Some(mapper) = mapper
        && is_on(dir, &dm::node(mapper)?)?
    {
        return Err(WorkerError::OnTheVolume(file.clone()));
    }
    let metadata = read_checked_header(&disk, expected)?;
    keyslot.as_ref().map_or(Ok(()), |keyslot| keyslot.check(&disk, &metadata))?;
    forget_cached(&disk, &(0..DATA_OFFSET));
    let mut area =
        vec![0; usize::try_from(DATA_OFFSET).map_err(io::Error::other).map_err(IoError::when("read", &target.path))?];
    disk.read_exact_at(&mut area, 0).map_err(IoError::when("read", &target.path))?;

    // complete under another name first: a file with the right name is a whole backup
    let mut temporary = NamedTempFile::new_in(dir).map_err(IoError::when("create a file in", dir))?;
    temporary.write_all(&area).map_err(IoError::when("write", file))?;
    let note = note_about(temporary.as_file(), origin.clone(), target.size)?;
    temporary.write_all(&note).map_err(IoError::when("write", file))?;
    temporary.as_file().sync_all().map_err(IoError::when("sync", file))?;
    let (note, _) = read_backup(temporary.as_file())?;
    temporary.persist_noclobber(file).map_err(|e| {
        if e.error.kind() == io::ErrorKind::AlreadyExists {
            WorkerError::FileExists(file.clone())
        } else {
            IoError::when("create", file)(e.error).into()
        }
    })?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(IoError::when("sync", dir))?;
    Ok(Answer::HeaderBackedUp { seqid: note.seqid })
}

/// Whether a directory is on the file system of a device.
fn is_on(dir: &Path, device: &Path) -> Result<bool, IoError> {
    let of_dir = fs::metadata(dir).map_err(IoError::when("examine", dir))?.dev();
    let of_device = fs::metadata(device).map_err(IoError::when("examine", device))?.rdev();
    Ok(of_dir == of_device)
}

pub(super) fn inspect(job: &job::InspectBackup, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    let job::InspectBackup { target, file, expected } = job;
    let disk = claim(target, stage)?;
    stage.enter("reading the backup");
    let backup = open(file)?;
    let (note, header) = match read_backup(&backup) {
        Ok(found) => found,
        Err(e @ BackupError::Read(_)) => return Err(e.into()),
        Err(e) => return Ok(Answer::BackupRefused { why: chain(e) }),
    };
    let violation = check_file(&backup, expected).err();
    let other_volume_key = violation == Some(PolicyViolation::OtherVolumeKey);
    let violation = violation.map(chain);
    let present = present(&disk)?;
    let on_disk = Luks2Header::read(&disk)?.and_then(|header| VolumeKeyId::of(&header.metadata?));
    let replaces_volume_key = on_disk.zip(expected.volume_key.clone()).is_some_and(|(found, known)| found != known);
    Ok(Answer::BackupInspected(Box::new(InspectedBackup {
        note,
        header,
        violation,
        other_volume_key,
        replaces_volume_key,
        present,
    })))
}

pub(super) fn restore(
    job: &job::RestoreHeader,
    key: Option<Passphrase>,
    stage: &mut Stage<'_>,
) -> Result<Answer, WorkerError> {
    let job::RestoreHeader { target, file, sha256, present: decided_on, expected } = job;
    let key = key.ok_or(WorkerError::NoPassphrase)?;
    let disk = claim(target, stage)?;
    stage.enter("restoring the header");
    // fails if the volume is open, or anything else uses the disk
    let writable = OpenOptions::new().read(true).write(true).custom_flags(O_EXCL).open(&target.path);
    let writable = writable.map_err(IoError::when("open exclusively", &target.path))?;
    check_same_disk(target, &writable)?;
    let backup = open(file)?;
    let (note, _) = read_backup(&backup)?;
    if note.sha256 != *sha256 || present(&disk)? != *decided_on {
        return Err(WorkerError::ChangedMeanwhile);
    }
    let keyslot = cryptsetup::restore(&target.path, &writable, &backup, expected, &key)?;
    Ok(Answer::HeaderRestored { keyslot })
}

fn open(file: &Path) -> Result<File, IoError> {
    File::open(file).map_err(IoError::when("open", file))
}

fn present(disk: &File) -> Result<Option<HeaderFacts>, HeaderError> {
    forget_cached(disk, &(0..DATA_OFFSET));
    HeaderFacts::read(disk)
}
