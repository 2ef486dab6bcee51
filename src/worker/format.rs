//! Formats a disk: LUKS2 header, mapping and file system.

use super::claim::{check_same_disk, claim, open};
use super::error::WorkerError;
use super::first_look::{FirstLook, examine_content};
use super::sample::Look;
use super::stage::Stage;
use crate::disk::Content;
use crate::job::{self, Answer, Basis};
use crate::key::Passphrase;
use crate::luks2::mapper_name;
use crate::storage::cryptsetup::{self, Mapping};
use crate::storage::{dm, filesystem, mount};

/// Formats a disk. `first` is the look at it that came right before, if that found it blank.
pub(super) fn format(
    job: &job::Format,
    key: Option<Passphrase>,
    first: Option<FirstLook>,
    stage: &mut Stage<'_>,
) -> Result<Answer, WorkerError> {
    let job::Format { target, basis, scan, spec, filesystem, first_mount } = job;
    if let Some(at) = first_mount {
        mount::prepare_first_mount(at).map_err(WorkerError::NothingDone)?;
    }
    let key = key.ok_or(WorkerError::NoPassphrase)?;
    let disk = claim(target, stage)?;
    let name = mapper_name(spec.expected.luks_uuid);
    let intent = match basis {
        Basis::Unfinished { luks_uuid } => {
            remove_mapping(&name)?;
            Some(*luks_uuid)
        }
        Basis::Noise { begun, .. } => *begun,
        Basis::Blank { .. } | Basis::Wipe { .. } => None,
    };
    // the plan may be minutes old, so examine the disk again
    // unfinished work and noise have a first look that was not for a blank disk
    let again = first.filter(|_| intent.is_none()).and_then(|first| first.look_again(target, &disk, *scan, stage));
    let found =
        again.unwrap_or_else(|| examine_content("examining once more", &disk, intent, *scan, Look::First, stage));
    if !still_allowed(basis, &found) {
        return Ok(Answer::Changed { content: found });
    }
    // the steps below open the disk by its name
    check_same_disk(target, &open(target)?)?;
    // never format over a complete header: an agent that has lost its record, for example because its boot volume was
    // restored from an old snapshot, would destroy data otherwise
    let complete = matches!((basis, &found), (Basis::Unfinished { .. }, Content::Luks2 { .. }))
        && cryptsetup::resume(&target.path, &spec.expected, &key)?;
    if !complete {
        stage.enter("formatting");
        if matches!(basis, Basis::Wipe { .. }) {
            filesystem::wipe_signatures(&target.path)?;
        }
        cryptsetup::format(&target.path, target.size, spec, &key)?;
    }
    let opened = cryptsetup::open(&target.path, &name, &spec.expected, &key)?;
    // mkfs can take minutes
    drop(key);
    let mapping = dm::node(&name)?;
    if !(complete && filesystem::has_filesystem(*filesystem, &mapping)?) {
        stage.enter("making the file system");
        filesystem::make_filesystem(*filesystem, &mapping)?;
    }
    Ok(Answer::Formatted { opened })
}

/// Returns whether the content of the disk still justifies formatting it.
fn still_allowed(basis: &Basis, found: &Content) -> bool {
    match (basis, found) {
        (_, Content::Blank { .. }) => true,
        (Basis::Unfinished { .. }, Content::Unfinished) => true,
        (Basis::Unfinished { luks_uuid }, Content::Luks2 { luks_uuid: found, .. }) => luks_uuid == found,
        (Basis::Noise { .. }, Content::Noise { .. }) => true,
        // the samples start at random, so the first byte that is not zero may be another one
        (
            Basis::Wipe { found: Content::Noise { .. } | Content::Unrecognised { .. }, .. },
            Content::Noise { .. } | Content::Unrecognised { .. },
        ) => true,
        // only the content that the plan was to wipe, nothing that was written since
        (Basis::Wipe { found: planned, .. }, Content::Foreign { .. } | Content::Luks2 { token: None, .. }) => {
            planned == found
        }
        _ => false,
    }
}

fn remove_mapping(name: &str) -> Result<(), WorkerError> {
    match cryptsetup::mapping(name)? {
        Mapping::Absent => Ok(()),
        // libcryptsetup does not close a mapping without a table
        Mapping::Empty => Ok(dm::remove(name)?),
        Mapping::Open => Ok(cryptsetup::close(name)?),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::disk::{Evidence, NoiseEvidence};
    use crate::key::{KeySource, WrappedKey};
    use crate::luks2::Token;

    const EVIDENCE: Evidence = Evidence { read: 1, of: 1 };

    #[test]
    fn formatting_needs_the_basis_to_hold_still() {
        let ours = Uuid::from_u128(1);
        let token = Token::new(KeySource::aws_kms(WrappedKey::new(vec![1]).unwrap(), String::new()), None);
        let luks = |luks_uuid, token: Option<&Token>| Content::Luks2 { luks_uuid, token: token.cloned().map(Box::new) };
        let blank = Basis::Blank { evidence: EVIDENCE, replaces: None };
        let unfinished = Basis::Unfinished { luks_uuid: ours };
        let wipe = Basis::Wipe { found: Content::Foreign { signatures: vec!["ext4".into()] }, replaces: None };
        let wipe_luks = Basis::Wipe { found: luks(ours, None), replaces: None };
        let wipe_data = Basis::Wipe { found: Content::Unrecognised { offset: 9 }, replaces: None };
        let xfs = Content::Foreign { signatures: vec!["xfs".into()] };
        let foreign = Content::Foreign { signatures: vec!["ext4".into()] };
        let data = Content::Unrecognised { offset: 0 };
        let noise = NoiseEvidence { read: 1, random: 1, of: 1 };
        let taken = Basis::Noise { evidence: noise, begun: None };
        let noise = Content::Noise { offset: 0, evidence: noise };
        let unknown = Content::Unknown { reason: String::new() };
        let nothing = Content::Blank { evidence: EVIDENCE };
        // for each content: allowed on the basis of blank, unfinished, wipe of ext4, of a LUKS2 volume, of data; of noise
        let table = [
            (nothing, [true, true, true, true, true, true]),
            (Content::Unfinished, [false, true, false, false, false, false]),
            (luks(ours, Some(&token)), [false, true, false, false, false, false]),
            (luks(ours, None), [false, true, false, true, false, false]),
            (luks(Uuid::nil(), None), [false, false, false, false, false, false]),
            (luks(Uuid::nil(), Some(&token)), [false, false, false, false, false, false]),
            (foreign, [false, false, true, false, false, false]),
            (xfs, [false, false, false, false, false, false]),
            (data, [false, false, false, false, true, false]),
            (noise, [false, false, false, false, true, true]),
            (unknown, [false, false, false, false, false, false]),
        ];
        for (content, allowed) in table {
            let found = [&blank, &unfinished, &wipe, &wipe_luks, &wipe_data, &taken]
                .map(|basis| still_allowed(basis, &content));
            assert_eq!(found, allowed, "{content:?}");
        }
    }
}
