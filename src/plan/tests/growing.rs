//! Disks that have grown, and disks that have shrunk.

use super::Mode::{Grow, Provision, Unlock};
use super::*;

type Row<'a> = (&'a str, Mode, &'a Config, Vec<VolumeRecord>, DeviceFacts, &'a str);

fn growing() -> Config {
    config("[volumes]\ngrow = true")
}

/// A disk of this size, with volume 1 open on it in a mapping that leaves `slack` bytes of it unused.
fn disk(size: u64, slack: u64, mounts: &[&str]) -> DeviceFacts {
    let facts = open(1, mounts, ebs(1));
    let holders = vec![Holder { size: size - DATA_OFFSET - slack, ..mapping(1, mounts) }];
    DeviceFacts { size, holders, ..facts }
}

/// The volume was made when the disk had 1 GiB.
fn made() -> Vec<VolumeRecord> {
    vec![known(1, "/mnt", &ebs(1))]
}

fn without_filesystem(volumes: Vec<VolumeRecord>) -> Vec<VolumeRecord> {
    let bare = |v| VolumeRecord { filesystem: FilesystemKind::None, mount_point: None, ..v };
    volumes.into_iter().map(bare).collect()
}

#[test]
fn what_is_grown_and_what_is_not() {
    let grown = || disk(2 * GIB, GIB, &["/mnt"]);
    let sized = |size, volumes: Vec<VolumeRecord>| volumes.into_iter().map(|v| VolumeRecord { size, ..v }).collect();
    let system = |facts| DeviceFacts { system: Some("carries /srv".to_owned()), ..facts };
    let open_at = "left #1 at /mnt: open, mounted at /mnt";
    let both = "grow #1 at /mnt from 1 GiB to 2 GiB";
    let unmounted = "wrong: volume #1 is open, but not mounted -> a file system can only grow while it is mounted; mount it with 'luks-agent unlock', then try again";
    let (off, on) = (&config(""), &growing());
    let ignoring = &config("[volumes]\nebs = \"ignore\"");
    let rows: Vec<Row<'_>> = vec![
        ("by itself", Provision, on, made(), grown(), both),
        ("not unless configured", Provision, off, made(), grown(), open_at),
        ("not by unlock", Unlock, on, made(), grown(), open_at),
        ("asked for", Grow, off, made(), grown(), both),
        ("nothing to do", Provision, on, made(), disk(GIB, 0, &["/mnt"]), open_at),
        (
            "looked at all the same",
            Grow,
            off,
            made(),
            disk(GIB, 0, &["/mnt"]),
            "grow file system of #1 at /mnt from 1 GiB to 1 GiB",
        ),
        (
            "opened after its disk grew, or a run that was cut",
            Provision,
            on,
            made(),
            disk(2 * GIB, 0, &["/mnt"]),
            "grow file system of #1 at /mnt from 1 GiB to 2 GiB",
        ),
        ("grown and recorded", Provision, on, sized(2 * GIB, made()), disk(2 * GIB, 0, &["/mnt"]), open_at),
        (
            "recorded, yet the mapping is small",
            Provision,
            on,
            sized(2 * GIB, made()),
            grown(),
            "grow #1 at /mnt from 2 GiB to 2 GiB",
        ),
        (
            "less than a sector of 4096 bytes",
            Provision,
            on,
            sized(GIB + 4095, made()),
            disk(GIB + 4095, 4095, &["/mnt"]),
            open_at,
        ),
        (
            "a sector of 4096 bytes",
            Provision,
            on,
            sized(GIB + 4096, made()),
            disk(GIB + 4096, 4096, &["/mnt"]),
            "grow #1 at /mnt from 1 GiB to 1 GiB",
        ),
        ("a bind mount as well", Grow, off, made(), disk(2 * GIB, GIB, &["/srv", "/mnt"]), both),
        ("mounted elsewhere", Grow, off, made(), disk(2 * GIB, GIB, &["/srv"]), "grow #1 at /srv from 1 GiB to 2 GiB"),
        ("mounted elsewhere", Provision, on, made(), disk(2 * GIB, GIB, &["/srv"]), "mount #1 at /mnt"),
        ("not mounted", Grow, off, made(), disk(2 * GIB, GIB, &[]), unmounted),
        ("mounted first", Provision, on, made(), disk(2 * GIB, GIB, &[]), "mount #1 at /mnt"),
        (
            "no file system",
            Grow,
            off,
            without_filesystem(made()),
            disk(2 * GIB, GIB, &[]),
            "grow #1 at nowhere from 1 GiB to 2 GiB",
        ),
        ("carries the system", Provision, on, made(), system(grown()), open_at),
        (
            "carries the system",
            Grow,
            off,
            made(),
            system(grown()),
            "refused: it carries /srv -> the agent does not grow a volume that carries the system; grow it with 'cryptsetup resize' and the file system's own tool",
        ),
        (
            "not open",
            Grow,
            off,
            made(),
            DeviceFacts { size: 2 * GIB, content: None, ..ebs(1) },
            "wrong: known volume, LUKS UUID #1, is not open -> open it with 'luks-agent unlock', then try again",
        ),
        ("not ours", Grow, on, vec![], ebs(1), "left: no known volume is open on it"),
        (
            "never finished",
            Grow,
            on,
            vec![intent(1, "/mnt", &ebs(1))],
            disk(2 * GIB, GIB, &[]),
            "left: no known volume is open on it",
        ),
        ("ignored", Grow, ignoring, made(), grown(), "left: the configuration says ignore"),
    ];
    for (what, mode, config, volumes, facts, expected) in rows {
        check(what, mode, config, volumes, vec![facts], &[&format!("nvme1n1: {expected}")]);
    }
}

#[test]
fn a_disk_that_has_shrunk_is_told_and_not_touched() {
    let facts = || {
        let holders = vec![Holder { size: GIB - DATA_OFFSET + 512, ..mapping(1, &["/mnt"]) }];
        DeviceFacts { holders, ..open(1, &["/mnt"], ebs(1)) }
    };
    let expected = "nvme1n1: wrong: the disk is smaller than its open volume: it has 1073741824 bytes, 1073742336 are in use -> check that the right disk is attached, and restore the volume from a snapshot if it is; data past the end of the disk cannot be read, and nothing was changed";
    for mode in [Provision, Unlock, Grow] {
        check("shrunk", mode, &growing(), made(), vec![facts()], &[expected]);
    }
}

/// What is grown is known all the same: by what is open on it and by its header, and where there is no serial number by the
/// recorded size, which follows.
#[test]
fn a_disk_that_has_grown_is_still_known() {
    let named = |facts: DeviceFacts| DeviceFacts { serial: None, ..facts };
    for facts in [ebs(1), named(ebs(1)), xen("nvme1n1", "ebs1")] {
        let record = vec![known(1, "/mnt", &facts)];
        let grown = DeviceFacts { size: 2 * GIB, content: Some(header(1)), ..facts.clone() };
        for mode in [Provision, Unlock] {
            check("locked", mode, &growing(), record.clone(), vec![grown.clone()], &["nvme1n1: unlock #1 at /mnt"]);
        }
        let opened = open(1, &["/mnt"], grown.clone());
        let expected = "nvme1n1: grow #1 at /mnt from 1 GiB to 2 GiB";
        check("open", Provision, &growing(), record.clone(), vec![opened], &[expected]);
        let closed = DeviceFacts { content: None, ..grown.clone() };
        let plan_of = |mode| plan(mode, &growing(), &state(record.clone()), &inventory(vec![closed.clone()]));
        let lines = lines(&plan_of(Grow));
        assert!(lines.iter().any(|line| line.contains("LUKS UUID #1, is not open -> open it with")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("attach")), "{lines:?}");
        let recorded = VolumeRecord { size: 2 * GIB, ..record[0].clone() };
        let blank = with(blank(), grown);
        let plan = plan(Provision, &growing(), &state(vec![recorded]), &inventory(vec![blank]));
        assert!(
            plan.steps.is_empty() && plan.refusals[0].finding.severity == Severity::Wrong,
            "came back blank: {:?}",
            plan.refusals
        );
    }
}
