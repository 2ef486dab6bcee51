//! Whether the header of a volume may be replaced by that in a backup, and what that changes.

use super::finding::Finding;
use crate::disk::DeviceFacts;
use crate::job::InspectedBackup;
use crate::luks2::{HeaderFacts, KeyslotFacts};
use crate::state::VolumeRecord;

/// What the user allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowed {
    /// The restored header may have other keyslots than the present one.
    pub other_keyslots: bool,
    /// The present header may have another volume key than the state file records, and so be the only one that fits the data.
    pub other_volume_key: bool,
    /// The volume may be on another disk than when the backup was made.
    pub other_disk: bool,
}

/// Returns what restoring a backup changes on the disk of a volume.
///
/// # Errors
/// Says why it is refused.
pub fn restore_changes(
    volume: &VolumeRecord,
    facts: &DeviceFacts,
    backup: &InspectedBackup,
    allowed: Allowed,
) -> Result<Vec<String>, Finding> {
    let InspectedBackup { note, header, violation, other_volume_key, replaces_volume_key, present } = backup;
    let refused = |evidence: String, remedy: &str| Err(Finding::refused(evidence, remedy));
    if facts.mapping_of(volume.luks_uuid).is_some() {
        return refused(
            "it is open".to_owned(),
            "run 'luks-agent close' first; 'luks-agent verify' says whether it needs to be restored",
        );
    }
    if !facts.holders.is_empty() || !facts.mounts.is_empty() || facts.system.is_some() {
        return refused("its disk is in use".to_owned(), "find out what uses it with 'lsblk'");
    }
    if note.luks_uuid != volume.luks_uuid {
        let evidence = format!("the backup is of volume {}, not of {}", note.luks_uuid, volume.luks_uuid);
        return refused(evidence, "choose the backup of this volume");
    }
    if let Some(other) = present.as_ref().filter(|present| present.luks_uuid != volume.luks_uuid) {
        let evidence = format!("the disk has a header of volume {}", other.luks_uuid);
        return refused(evidence, "check that the right disk is attached; its volume would be lost");
    }
    let other_disk = other_disk(facts, backup);
    if let (Some(evidence), false) = (&other_disk, allowed.other_disk) {
        return refused(evidence.clone(), "if the volume was moved or has grown since, add --other-disk");
    }
    if *other_volume_key {
        return Err(former_volume_key());
    }
    if let Some(violation) = violation {
        return refused(
            format!("the header in the backup is not that of the volume in the state file: {violation}"),
            "use a backup from after the last change of the key",
        );
    }
    if *replaces_volume_key && !allowed.other_volume_key {
        return Err(perhaps_the_only_volume_key());
    }
    let keyslots = match present.as_ref().filter(|present| present.is_usable()) {
        Some(present) => compared(present, header),
        None => recorded(volume, header),
    };
    if !keyslots.is_empty() && !allowed.other_keyslots {
        return refused(
            format!("it would change the keyslots: {}", keyslots.join(", ")),
            "use a later backup, or add --replace-keyslots if that is what you want",
        );
    }
    let mut changes: Vec<String> = other_disk.into_iter().collect();
    changes.push(match present {
        Some(present) if present.is_usable() => format!("sequence id {} becomes {}", present.seqid, header.seqid),
        Some(_) => format!("both copies were damaged, sequence id becomes {}", header.seqid),
        None => format!("the disk had no header, sequence id becomes {}", header.seqid),
    });
    if *replaces_volume_key {
        changes.push("destroys the header on the disk, which has another volume key".to_owned());
    }
    changes.extend(keyslots);
    if let Some(present) = present {
        changes.extend(repaired(present, header));
    }
    Ok(changes)
}

/// Returns why a header with a former volume key is not restored.
fn former_volume_key() -> Finding {
    Finding::refused(
        "the header in the backup has a former volume key: the data on the disk is encrypted with another, and would read as noise whatever key opens the header",
        "no option makes this backup usable: use one from after the last 'luks-agent rotate --volume-key'",
    )
}

/// Returns why a header on a disk is not replaced that has another volume key than the state file records.
fn perhaps_the_only_volume_key() -> Finding {
    Finding::refused(
        "the header on the disk has another volume key than the state file records and the backup has: only one of the two makes the data readable",
        "save the header on the disk first, with 'cryptsetup luksHeaderBackup'; if it is the older one, add --replace-volume-key; if cryptsetup re-encrypted the volume or the state file is an older copy, leave it, and run 'luks-agent forget --even-if-attached', then 'luks-agent adopt'",
    )
}

/// Says in what the disk is another one than in the note of the backup.
fn other_disk(facts: &DeviceFacts, backup: &InspectedBackup) -> Option<String> {
    let (serial, size) = (&backup.note.origin.serial, backup.note.disk_size);
    let name = |serial: &Option<String>| serial.clone().unwrap_or_else(|| "none".to_owned());
    if *serial != facts.serial {
        let (was, is) = (name(serial), name(&facts.serial));
        return Some(format!("the backup was made on a disk with serial number {was}, this one has {is}"));
    }
    (size != facts.size).then(|| format!("the disk had {size} bytes when the backup was made, now {}", facts.size))
}

/// Compares the keyslots of two headers, wherever they lie.
fn compared(present: &HeaderFacts, restored: &HeaderFacts) -> Vec<String> {
    let lacks =
        |header: &HeaderFacts, keyslot: &KeyslotFacts| !header.keyslots.iter().any(|other| same(other, keyslot));
    let back = restored.keyslots.iter().filter(|keyslot| lacks(present, keyslot));
    let back = back.map(|keyslot| format!("brings back keyslot {}", described(restored, keyslot)));
    let lost = present.keyslots.iter().filter(|keyslot| lacks(restored, keyslot));
    let lost = lost.map(|keyslot| format!("loses keyslot {}", described(present, keyslot)));
    back.chain(lost).collect()
}

/// Without a header on the disk, the state file says which keyslot there must be.
fn recorded(volume: &VolumeRecord, restored: &HeaderFacts) -> Vec<String> {
    let Some(recorded) = &volume.keyslot else { return Vec::new() };
    let has = restored.keyslots.iter().any(|keyslot| keyslot.sha256.as_deref() == Some(recorded.sha256.as_str()));
    if has { Vec::new() } else { vec![format!("loses keyslot {}, which the state file records", recorded.number)] }
}

/// Returns the keyslots whose areas are damaged on the disk.
fn repaired(present: &HeaderFacts, restored: &HeaderFacts) -> impl Iterator<Item = String> {
    let damaged = |keyslot: &&KeyslotFacts| {
        present.keyslots.iter().any(|other| same(other, keyslot) && other.sha256 != keyslot.sha256)
    };
    restored.keyslots.iter().filter(damaged).map(|keyslot| format!("repairs keyslot {}", keyslot.number))
}

fn same(one: &KeyslotFacts, other: &KeyslotFacts) -> bool {
    (one.number, &one.made) == (other.number, &other.made)
}

pub(super) fn described(header: &HeaderFacts, keyslot: &KeyslotFacts) -> String {
    let tokens = header.tokens.iter().filter(|token| keyslot.tokens.contains(&token.number));
    let kinds: Vec<&str> = tokens.map(|token| token.kind.as_str()).collect();
    let of = if kinds.is_empty() { "of no token".to_owned() } else { format!("of {}", kinds.join(" and ")) };
    format!("{} ({}, {of})", keyslot.number, keyslot.kdf)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::luks2::{BackupNote, BackupOrigin, ProvenKeyslot};
    use crate::state::State;

    const RECORDED: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn keyslot(number: u32, made: &str) -> KeyslotFacts {
        let sha256 = Some(if number == 0 { RECORDED.to_owned() } else { made.to_owned() });
        KeyslotFacts { number, kdf: "pbkdf2".into(), preferred: false, tokens: vec![], made: made.into(), sha256 }
    }

    fn header(keyslots: &[KeyslotFacts]) -> HeaderFacts {
        HeaderFacts { keyslots: keyslots.to_vec(), ..HeaderFacts::sample() }
    }

    fn backup(keyslots: &[KeyslotFacts]) -> InspectedBackup {
        let origin = BackupOrigin {
            serial: Some("vol0".into()),
            role: "ebs".into(),
            mount_point: None,
            instance_id: None,
            created: Timestamp::UNIX_EPOCH,
        };
        let keyslots: Vec<_> = keyslots.to_vec();
        let note = BackupNote {
            version: 1,
            luks_uuid: Uuid::from_u128(7),
            origin,
            disk_size: 1 << 30,
            seqid: 3,
            keyslots: vec![ProvenKeyslot { number: 0, sha256: RECORDED.into() }],
            sha256: String::new(),
        };
        InspectedBackup {
            note,
            header: header(&keyslots),
            violation: None,
            other_volume_key: false,
            replaces_volume_key: false,
            present: Some(header(&keyslots)),
        }
    }

    fn disk() -> DeviceFacts {
        DeviceFacts { serial: Some("vol0".into()), ..DeviceFacts::sample("nvme1n1", 1) }
    }

    fn changes(backup: &InspectedBackup, allowed: Allowed) -> Result<Vec<String>, String> {
        let volume = State::sample().volumes.remove(0);
        restore_changes(&volume, &disk(), backup, allowed).map_err(|finding| finding.evidence)
    }

    #[test]
    fn a_backup_of_another_volume_or_disk_is_refused() {
        let fine = backup(&[keyslot(0, "a")]);
        let no = Allowed::default();
        assert_eq!(changes(&fine, no), Ok(vec!["sequence id 3 becomes 3".to_owned()]));
        let other = |change: fn(&mut InspectedBackup)| {
            let mut backup = fine.clone();
            change(&mut backup);
            backup
        };
        let every = Allowed { other_keyslots: true, other_volume_key: true, other_disk: true };
        for wrong in [
            other(|b| b.note.luks_uuid = Uuid::from_u128(8)),
            other(|b| b.present.as_mut().unwrap().luks_uuid = Uuid::from_u128(8)),
            other(|b| b.violation = Some("no".into())),
            other(|b| b.other_volume_key = true),
        ] {
            assert!(changes(&wrong, every).is_err(), "{wrong:?}");
        }
        for moved in [other(|b| b.note.origin.serial = None), other(|b| b.note.disk_size = 1)] {
            assert!(changes(&moved, no).is_err() && changes(&moved, every).is_ok(), "{moved:?}");
        }
        let newer = other(|b| b.replaces_volume_key = true);
        assert!(changes(&newer, Allowed { other_volume_key: false, ..every }).is_err());
        assert!(changes(&newer, every).unwrap().iter().any(|change| change.contains("destroys")));
        let volume = State::sample().volumes.remove(0);
        let used = DeviceFacts { mounts: vec!["/x".into()], ..disk() };
        assert!(restore_changes(&volume, &used, &fine, every).is_err());
    }

    #[test]
    fn keyslots_are_brought_back_or_lost_only_where_that_is_allowed() {
        let (own, other, new) = (keyslot(0, "a"), keyslot(1, "b"), keyslot(1, "c"));
        let with = |present: Option<HeaderFacts>| InspectedBackup { present, ..backup(&[own.clone(), other.clone()]) };
        let every = Allowed { other_keyslots: true, ..Allowed::default() };
        for (present, said) in [
            (
                Some(header(std::slice::from_ref(&own))),
                "it would change the keyslots: brings back keyslot 1 (pbkdf2, of no token)",
            ),
            (
                Some(header(&[own.clone(), new])),
                "it would change the keyslots: brings back keyslot 1 (pbkdf2, of no token), loses keyslot 1 (pbkdf2, of no token)",
            ),
        ] {
            let backup = with(present);
            assert_eq!(changes(&backup, Allowed::default()), Err(said.to_owned()));
            assert!(changes(&backup, every).is_ok());
        }
        // a damaged area is no other keyslot
        let damaged = KeyslotFacts { sha256: None, ..own.clone() };
        let repairs = changes(&with(Some(header(&[damaged, other.clone()]))), Allowed::default()).unwrap();
        assert_eq!(repairs, ["sequence id 3 becomes 3", "repairs keyslot 0"]);
        // without a header on the disk, the record counts
        assert!(changes(&with(None), Allowed::default()).is_ok());
        let older = InspectedBackup { present: None, ..backup(std::slice::from_ref(&other)) };
        assert!(changes(&older, Allowed::default()).is_err() && changes(&older, every).is_ok());
    }
}
