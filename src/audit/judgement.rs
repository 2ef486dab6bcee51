//! The verdict on a disk and on the node.
//!
//! It follows from what was found alone, so that a table of tests can have every case. What could not be shown is never called encrypted.

use super::disk::{Disk, Standing};
use super::evidence::Evidence;
use crate::disk::Content;

/// What was found of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It carries the system.
    Boot {
        /// What it carries.
        because: String,
    },
    /// The agent leaves it alone.
    Excepted {
        /// The rule or the setting that says so.
        rule: String,
    },
    /// It should be encrypted, and it is not a volume of the node.
    Stranger(Stranger),
    /// A volume of the node.
    Volume(Volume),
    /// A volume of the node whose disk is not attached.
    Away,
}

/// A disk that should be encrypted and is not a volume of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Why its role is not clear, if it is not.
    pub unclear: Option<String>,
    /// What uses it, in words.
    pub in_use: Option<String>,
    /// What a worker found on it; `None` if it was not examined.
    pub content: Option<Content>,
}

/// A volume of the node whose disk is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// What is left to do with it.
    pub unfinished: Option<Unfinished>,
    /// Each way past its mapping on which its disk, or its mount point, is mounted; in words.
    pub around: Vec<String>,
    /// Other devices than its mapping that are stacked on its disk; in words.
    pub beside: Vec<String>,
    /// Why it could not be examined.
    pub failure: Option<String>,
    /// What is on the disk in place of its header.
    pub foreign: Option<String>,
    /// Why its header is not as recorded.
    pub header: Option<String>,
    /// Its mapping, if it is open.
    pub mapping: Option<Mapping>,
    /// Whether it is mounted where it should be. Not a matter of encryption, but of where its data goes meanwhile.
    pub not_mounted_at: Option<String>,
    /// How much of it has its new volume key, in percent, if it is being re-encrypted.
    pub reencrypted: Option<u64>,
}

/// Work on a volume that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Its formatting: it holds no data.
    Formatting,
    /// Its erasing: part of it may still be there.
    Erasing,
}

/// The mapping of an open volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Whether the kernel encrypts what goes through it.
    pub is_crypt: bool,
    /// Why it is not as the agent made it.
    pub violation: Option<String>,
    /// The comparison with the disk, or why there is none.
    pub evidence: Result<Evidence, String>,
}

/// A verdict, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Standing,
    /// Why; what made the verdict comes first.
    pub reasons: Vec<String>,
}

impl Judgement {
    /// Returns the worst of the findings as the verdict.
    fn of(mut findings: Vec<(Standing, String)>) -> Self {
        findings.sort_by_key(|(standing, _)| std::cmp::Reverse(*standing));
        let verdict = findings.first().map_or(Standing::Encrypted, |(standing, _)| *standing);
        Self { verdict, reasons: findings.into_iter().map(|(_, reason)| reason).collect() }
    }
}

/// Judges a disk.
pub fn judge(found: &Found) -> Judgement {
    Judgement::of(match found {
        Found::Boot { because } => {
            let reason = format!(
                "boot volume: {because}; luks-agent never encrypts it, and EBS encryption does not show on the node"
            );
            vec![(Standing::Excepted, reason)]
        }
        Found::Excepted { rule } => vec![(Standing::Excepted, rule.clone())],
        Found::Stranger(stranger) => of_stranger(stranger),
        Found::Volume(volume) => of_volume(volume),
        Found::Away => vec![(Standing::Unknown, "its disk is not attached; it does not count for the node".to_owned())],
    })
}

/// Judges the node: the worst of its disks. An excepted disk is no worse than an encrypted one.
///
/// A volume that is not attached does not count: it is no disk of the node now, and a node must not fail for each volume that was ever
/// detached from it. `wrong` has what is wrong with the node as a whole: nothing shows that all its disks were seen and have their role.
pub fn judge_node(disks: &[Disk], wrong: Vec<String>) -> Judgement {
    let counts = |disk: &&Disk| disk.device.is_some() && disk.verdict > Standing::Excepted;
    let of_disk = |disk: &Disk| {
        let name = disk.device.as_deref().unwrap_or_default();
        (disk.verdict, format!("{name}: {}", disk.reasons.first().map_or("", String::as_str)))
    };
    let wrong = wrong.into_iter().map(|reason| (Standing::Unknown, reason));
    Judgement::of(disks.iter().filter(counts).map(of_disk).chain(wrong).collect())
}

fn of_stranger(stranger: &Stranger) -> Vec<(Standing, String)> {
    let Stranger { unclear, in_use, content } = stranger;
    let in_clear = |why: String| (Standing::NotEncrypted, format!("not a volume of luks-agent on this node: {why}"));
    let unknown = |why: String| (Standing::Unknown, format!("not a volume of luks-agent on this node: {why}"));
    let mut findings = vec![match (in_use, content) {
        // a worker reads the header of a disk in use if a LUKS2 volume is open on it
        (Some(in_use), Some(content @ Content::Luks2 { .. })) => unknown(format!("{content}; {in_use}")),
        (Some(in_use), _) => in_clear(in_use.clone()),
        (None, None) => unknown("it was not examined".to_owned()),
        // nothing keeps data in clear from being written to it
        (None, Some(Content::Blank { .. })) => in_clear("blank, and not formatted yet".to_owned()),
        (None, Some(content @ (Content::Unfinished | Content::Unrecognised { .. } | Content::Written))) => {
            in_clear(content.to_string())
        }
        (None, Some(content @ Content::Foreign { signatures })) => match is_luks1(signatures) {
            true => unknown(content.to_string()),
            false => in_clear(content.to_string()),
        },
        // without its key, nobody can tell how the data behind a header is encrypted
        (None, Some(content @ Content::Luks2 { .. })) => unknown(content.to_string()),
        // encrypted data without a header looks like this, and so do blocks of EBS that were never written
        (None, Some(content @ (Content::Noise { .. } | Content::Unknown { .. }))) => unknown(content.to_string()),
    }];
    findings.extend(unclear.iter().map(|why| (Standing::Unknown, why.clone())));
    findings
}

fn is_luks1(signatures: &[String]) -> bool {
    !signatures.is_empty() && signatures.iter().all(|signature| signature.starts_with("crypto_LUKS"))
}

fn of_volume(volume: &Volume) -> Vec<(Standing, String)> {
    let in_clear = |why: &String| (Standing::NotEncrypted, why.clone());
    let unknown = |why: &String| (Standing::Unknown, why.clone());
    let mut findings: Vec<_> = volume.around.iter().map(in_clear).collect();
    match volume.unfinished {
        Some(Unfinished::Formatting) => {
            let why = "it is being formatted, or that was interrupted, so it holds no data yet; 'luks-agent provision' finishes it";
            findings.push((Standing::NotEncrypted, why.to_owned()));
            return findings;
        }
        Some(Unfinished::Erasing) => {
            let why =
                "its erasing was interrupted: part of its header may still be there; run 'luks-agent erase' again";
            findings.push((Standing::Unknown, why.to_owned()));
            return findings;
        }
        None => {}
    }
    findings.extend(volume.foreign.iter().map(in_clear));
    findings.extend(volume.beside.iter().map(unknown));
    findings.extend(volume.failure.iter().map(unknown));
    findings.extend(volume.header.iter().map(unknown));
    match &volume.mapping {
        Some(mapping) => findings.extend(of_mapping(mapping)),
        None if volume.failure.is_none() => {
            findings.push((Standing::Encrypted, "locked, so no blocks were compared".to_owned()));
        }
        None => {}
    }
    if let Some(percent) = volume.reencrypted {
        findings.push((Standing::Encrypted, format!("being re-encrypted: {percent} % has the new volume key")));
    }
    if let Some(at) = &volume.not_mounted_at {
        findings.push((Standing::Encrypted, format!("not mounted at {at}, so what is written there goes elsewhere")));
    }
    findings
}

fn of_mapping(mapping: &Mapping) -> Vec<(Standing, String)> {
    let mut findings = Vec::new();
    if let Some(violation) = &mapping.violation {
        let standing = if mapping.is_crypt { Standing::Unknown } else { Standing::NotEncrypted };
        findings.push((standing, violation.clone()));
    } else if !mapping.is_crypt {
        findings.push((Standing::NotEncrypted, "its mapping does not encrypt".to_owned()));
    }
    findings.push(match &mapping.evidence {
        Err(why) => (Standing::Unknown, format!("its blocks could not be compared: {why}")),
        // its mapping encrypts, and there is nothing in clear
        Ok(Evidence { blocks: 0, unwritten, .. }) => {
            (Standing::Encrypted, format!("no block was compared: the {unwritten} that were read are zero on the disk"))
        }
        Ok(Evidence { blocks, differ, .. }) if differ < blocks => {
            let same = blocks - differ;
            (
                Standing::NotEncrypted,
                format!("{same} of {blocks} blocks are the same on the disk, so they are in clear"),
            )
        }
        Ok(_) => return findings,
    });
    findings
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn text(word: &str) -> String {
        word.to_owned()
    }

    fn evidence(blocks: u64, differ: u64) -> Evidence {
        Evidence { read: "2026-01-02T03:04:05Z".parse().unwrap(), block_size: 4096, blocks, differ, unwritten: 9 }
    }

    fn mapping(blocks: u64, differ: u64) -> Mapping {
        Mapping { is_crypt: true, violation: None, evidence: Ok(evidence(blocks, differ)) }
    }

    fn open(mapping: Mapping) -> Volume {
        Volume { mapping: Some(mapping), ..Volume::default() }
    }

    fn stranger(in_use: Option<&str>, content: Option<Content>) -> Found {
        Found::Stranger(Stranger { unclear: None, in_use: in_use.map(text), content })
    }

    #[test]
    fn each_disk_has_the_verdict_that_was_shown_and_says_why() {
        use Standing::{Encrypted, Excepted, NotEncrypted, Unknown};
        let signatures = |name: &str| Some(Content::Foreign { signatures: vec![text(name)] });
        let luks2 = || Some(Content::Luks2 { luks_uuid: Uuid::nil(), token: None });
        let blank = Content::Blank { evidence: crate::disk::Evidence { read: 1, of: 1 } };
        let noise = crate::disk::NoiseEvidence { read: 1, random: 1, of: 1 };
        let volume = Found::Volume;
        let sound = || open(mapping(64, 64));
        let linear = |violation| Mapping { is_crypt: false, violation, ..mapping(3, 3) };
        let table = [
            (Found::Boot { because: text("carries /") }, Excepted, "boot volume: carries /; luks-agent never"),
            (Found::Excepted { rule: text("volumes.ebs is ignore") }, Excepted, "volumes.ebs is ignore"),
            (Found::Away, Unknown, "not attached"),
            (stranger(None, Some(blank)), NotEncrypted, "blank, and not formatted yet"),
            (stranger(None, signatures("ext4 at 1080")), NotEncrypted, "ext4 at 1080"),
            (stranger(None, Some(Content::Unrecognised { offset: 5 })), NotEncrypted, "data without a known"),
            (stranger(None, signatures("crypto_LUKS at 0")), Unknown, "crypto_LUKS at 0"),
            (stranger(None, luks2()), Unknown, "LUKS2 volume"),
            (stranger(None, Some(Content::Noise { offset: 0, evidence: noise })), Unknown, "no signature"),
            (stranger(None, Some(Content::Unknown { reason: text("I/O error") })), Unknown, "I/O error"),
            (stranger(None, None), Unknown, "not examined"),
            (stranger(Some("mounted at /x"), None), NotEncrypted, "mounted at /x"),
            (stranger(Some("held by luks-x"), luks2()), Unknown, "held by luks-x"),
            (volume(sound()), Encrypted, ""),
            (volume(Volume::default()), Encrypted, "locked, so no blocks"),
            (volume(open(mapping(0, 0))), Encrypted, "the 9 that were read are zero"),
            (volume(open(mapping(64, 63))), NotEncrypted, "1 of 64 blocks are the same"),
            (volume(open(linear(None))), NotEncrypted, "does not encrypt"),
            (volume(open(linear(Some(text("not a crypt target"))))), NotEncrypted, "not a crypt target"),
            (volume(open(Mapping { violation: Some(text("other cipher")), ..mapping(9, 9) })), Unknown, "other cipher"),
            (volume(open(Mapping { evidence: Err(text("I/O")), ..mapping(0, 0) })), Unknown, "not be compared: I/O"),
            (volume(Volume { header: Some(text("violated")), ..sound() }), Unknown, "violated"),
            (volume(Volume { header: Some(text("gone")), ..Volume::default() }), Unknown, "gone"),
            (volume(Volume { failure: Some(text("hung")), ..Volume::default() }), Unknown, "hung"),
            (
                volume(Volume { foreign: Some(text("ext4")), header: Some(text("gone")), ..Volume::default() }),
                NotEncrypted,
                "ext4",
            ),
            (volume(Volume { around: vec![text("mounted raw")], ..sound() }), NotEncrypted, "mounted raw"),
            (volume(Volume { beside: vec![text("md0")], ..sound() }), Unknown, "md0"),
            (volume(Volume { not_mounted_at: Some(text("/data")), ..sound() }), Encrypted, "not mounted at /data"),
            (volume(Volume { reencrypted: Some(40), ..sound() }), Encrypted, "40 %"),
            (
                volume(Volume { unfinished: Some(Unfinished::Formatting), ..Volume::default() }),
                NotEncrypted,
                "holds no data",
            ),
            (volume(Volume { unfinished: Some(Unfinished::Erasing), ..Volume::default() }), Unknown, "erasing"),
        ];
        for (found, verdict, reason) in table {
            let judgement = judge(&found);
            assert_eq!(judgement.verdict, verdict, "{found:?}: {judgement:?}");
            let first = judgement.reasons.first().map_or("", String::as_str);
            assert!(first.contains(reason), "{found:?}: {judgement:?}");
        }
    }

    #[test]
    fn the_worst_finding_makes_the_verdict_and_all_are_said() {
        let volume = Volume {
            header: Some(text("violated")),
            around: vec![text("mounted raw")],
            reencrypted: Some(1),
            ..open(mapping(64, 60))
        };
        let Judgement { verdict, reasons } = judge(&Found::Volume(volume));
        assert_eq!((verdict, reasons.len()), (Standing::NotEncrypted, 4));
        assert_eq!((reasons[0].as_str(), reasons[2].as_str()), ("mounted raw", "violated"));
    }

    #[test]
    fn the_node_is_as_good_as_its_worst_disk_that_is_attached() {
        let disk = |device: Option<&str>, verdict| Disk {
            device: device.map(text),
            ..Disk::new(text("ebs"), 0, String::new(), verdict, vec![text("why")])
        };
        let fine = || vec![disk(Some("a"), Standing::Encrypted), disk(Some("b"), Standing::Excepted)];
        let away = disk(None, Standing::Unknown);
        let node = |disks: Vec<Disk>, wrong: Vec<String>| judge_node(&disks, wrong);
        let good = Judgement { verdict: Standing::Encrypted, reasons: Vec::new() };
        assert_eq!(node(Vec::new(), Vec::new()), good);
        assert_eq!(node([fine(), vec![away]].concat(), Vec::new()), good);
        let unknown = node([fine(), vec![disk(Some("c"), Standing::Unknown)]].concat(), Vec::new());
        assert_eq!(unknown, Judgement { verdict: Standing::Unknown, reasons: vec![text("c: why")] });
        let both = vec![disk(Some("c"), Standing::Unknown), disk(Some("d"), Standing::NotEncrypted)];
        let worst = node(both, vec![text("the boot disk is not known")]);
        assert_eq!(worst.verdict, Standing::NotEncrypted);
        assert_eq!(worst.reasons, ["d: why", "c: why", "the boot disk is not known"]);
        assert_eq!(node(fine(), vec![text("no")]).verdict, Standing::Unknown);
    }
}
