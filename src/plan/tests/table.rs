//! One row for each combination of mode, role, record, content and use that is decided differently.

use super::super::words::{CHECK_READABLE, CHECK_VOLUME, wipe_or_ignore};
use super::Mode::{Provision, Unlock};
use super::*;
use crate::job::Basis;

const WIPE: &str = "if it holds nothing you need, make it blank with 'wipefs --all /dev/nvme1n1' and 'blkdiscard --zeroout /dev/nvme1n1'; otherwise add a [[volumes.match]] rule with role = \"ignore\"";
const BLANK: &str = "no signature, all 1 GiB read as zero";
const DETACH: &str = "detach one of them, or add a [[volumes.match]] rule with path and role = \"ignore\" for one";
const RELEASE: &str = "if it holds nothing you need, unmount and release it; otherwise add a [[volumes.match]] rule with role = \"ignore\"";

const STRANGER: &str = "left: not one of this node's volumes, left alone: ";

type Row = (&'static str, Mode, Vec<VolumeRecord>, DeviceFacts, String);

/// Each row: one disk and what becomes of it. What is said of volumes that are not there has its own test.
fn one_disk(config: &Config, rows: Vec<Row>) {
    for (what, mode, volumes, facts, expected) in rows {
        let expected = format!("{}: {expected}", facts.name);
        check(what, mode, config, volumes, vec![facts], &[&expected]);
    }
}

fn system(carries: &str, facts: DeviceFacts) -> DeviceFacts {
    DeviceFacts { system: Some(format!("carries {carries}")), ..facts }
}

#[test]
fn disks_that_are_not_known() {
    let unknown = || Content::Unknown { reason: "i/o error".to_owned() };
    let luks = || Content::Luks2 { luks_uuid: id(7), token: None };
    let mounted = || DeviceFacts { mounts: vec!["/data".into()], content: None, ..ebs(1) };
    let held = || DeviceFacts {
        holders: vec![Holder { dm_name: Some("vg-data".into()), dm_uuid: None, ..mapping(9, &["/data"]) }],
        content: None,
        ..ebs(1)
    };
    let parts = || DeviceFacts { partitions: vec!["nvme1n1p1".into()], ..ebs(1) };
    let rows = vec![
        ("blank", Provision, vec![], ebs(1), format!("format at /mnt: {BLANK}")),
        ("blank", Unlock, vec![], ebs(1), "left: blank and new; 'luks-agent provision' encrypts it".into()),
        ("boot", Provision, vec![], system("/ through nvme1n1p1", ebs(1)), "left: carries / through nvme1n1p1".into()),
        ("foreign", Provision, vec![], with(foreign(), ebs(1)), format!("refused: not blank: ext4 at byte 1080 -> {WIPE}")),
        ("foreign", Unlock, vec![], with(foreign(), ebs(1)), format!("{STRANGER}not blank: ext4 at byte 1080")),
        (
            "data",
            Provision,
            vec![],
            with(Content::Unrecognised { offset: 8 }, store(1)),
            format!("refused: not blank: data without a known signature, first seen at byte 8 -> {WIPE}"),
        ),
        (
            "not readable",
            Provision,
            vec![],
            with(unknown(), ebs(1)),
            "wrong: it could not be examined: i/o error -> check the volume, then try again; the agent does not touch a disk that it cannot read".into(),
        ),
        ("LUKS", Provision, vec![], with(luks(), ebs(1)), format!("refused: not blank: LUKS2 volume #7 -> {WIPE}")),
        (
            "another node's",
            Provision,
            vec![],
            with(header(7), store(1)),
            "refused: LUKS2 volume #7, which luks-agent made on i-1 and this node's state file does not list; its key is wrapped by arn:key -> it is not formatted; 'luks-agent adopt nvme1n1' takes it over, if KMS lets this node use its key".into(),
        ),
        (
            "torn header of nobody",
            Provision,
            vec![],
            with(Content::Unfinished, ebs(1)),
            format!("refused: not blank: the beginning of a LUKS2 header of luks-agent -> {WIPE}"),
        ),
        ("mounted", Provision, vec![], mounted(), format!("refused: it is mounted at /data -> {RELEASE}")),
        ("held", Provision, vec![], held(), format!("refused: it is held by vg-data and mounted at /data -> {RELEASE}")),
        (
            // its header is looked at all the same, for whose volume it is
            "held, a stranger's LUKS2",
            Provision,
            vec![],
            DeviceFacts { content: Some(Content::Luks2 { luks_uuid: id(8), token: None }), ..held() },
            format!("refused: it is held by vg-data and mounted at /data -> {RELEASE}"),
        ),
        (
            "held, its header unreadable",
            Provision,
            vec![],
            DeviceFacts { content: Some(Content::Unknown { reason: "cannot be read".into() }), ..held() },
            format!("refused: it is held by vg-data and mounted at /data -> {RELEASE}"),
        ),
        (
            "not examined",
            Provision,
            vec![],
            DeviceFacts { content: None, ..ebs(1) },
            format!("refused: it was not examined -> {RELEASE}"),
        ),
        ("partitions", Provision, vec![], parts(), format!("refused: it has partitions: nvme1n1p1 -> {WIPE}")),
        (
            "blank, mounted since",
            Provision,
            vec![],
            DeviceFacts { mounts: vec!["/data".into()], ..ebs(1) },
            "refused: it is mounted at /data -> unmount and release it".into(),
        ),
        (
            "blank, held since",
            Provision,
            vec![],
            DeviceFacts { holders: vec![Holder { dm_name: None, dm_uuid: None, ..mapping(9, &[]) }], ..ebs(1) },
            "refused: it is held by dm-9 -> unmount and release it".into(),
        ),
        (
            "blank, held by multipathd",
            Provision,
            vec![],
            DeviceFacts {
                content: None,
                holders: vec![Holder { dm_name: Some("mpatha".into()), dm_uuid: Some("mpath-nvme.1d0f-1".into()), ..mapping(9, &[]) }],
                ..ebs(1)
            },
            "refused: it is held by mpatha, a map of dm-multipath -> put the disks of EC2 on the blacklist in /etc/multipath.conf, and run 'multipathd reconfigure'".into(),
        ),
    ];
    one_disk(&config(""), rows);
}

#[test]
fn a_xen_disk_that_nothing_names_is_told_and_never_formatted() {
    let unnamed = |name: &str| DeviceFacts { mapping: None, ..xen(name, "ebs1") };
    let why =
        "xen disk that the block device mapping of IMDS does not list: it may be an EBS volume that was attached later";
    let remedy = |name: &str| {
        format!(
            "add a [[volumes.match]] rule with path = \"/dev/{name}\" and role = \"ebs\" to have it encrypted if it is blank, or role = \"ignore\" to leave it as it is"
        )
    };
    let refused = format!("refused: {why} -> {}", remedy("xvdf"));
    let ours = "refused: LUKS2 volume #7, which luks-agent made on i-1 and this node's state file does not list; its key is wrapped by arn:key -> it is not formatted; 'luks-agent adopt xvdf' takes it over, if KMS lets this node use its key";
    let rows = vec![
        ("not named", Provision, vec![], unnamed("xvdf"), refused.clone()),
        (
            "of another size than a known one",
            Provision,
            vec![VolumeRecord { size: 3 * GIB, ..known(1, "/mnt", &unnamed("xvdf")) }],
            unnamed("xvdf"),
            refused.clone(),
        ),
        (
            "mounted",
            Provision,
            vec![],
            DeviceFacts { mounts: vec!["/data".into()], content: None, ..unnamed("xvdf") },
            refused,
        ),
        ("not named", Unlock, vec![], unnamed("xvdf"), format!("{STRANGER}{why}")),
        ("not named", Mode::Grow, vec![], unnamed("xvdf"), format!("left: {why}")),
        ("our volume", Provision, vec![], with(header(7), unnamed("xvdf")), ours.into()),
        (
            "known and open",
            Unlock,
            vec![known(1, "/mnt", &xen("xvdf", "ebs1"))],
            open(1, &["/mnt"], unnamed("xvdf")),
            "left #1 at /mnt: open, mounted at /mnt".into(),
        ),
    ];
    one_disk(&config(""), rows);
    let ruled = "[[volumes.match]]\npath = \"/dev/xvdf\"\nrole = \"ignore\"";
    for (text, expected) in [
        ("[volumes]\nebs = \"ignore\"", format!("left: {why}")),
        (
            "[volumes]\nrequire_rule = true",
            "left: volumes.require_rule is set, and no [[volumes.match]] rule names it".into(),
        ),
        (ruled, "left: a [[volumes.match]] rule says ignore".into()),
        (&ruled.replace("ignore", "ebs"), format!("format at /mnt: {BLANK}")),
    ] {
        one_disk(&config(text), vec![("ruled", Provision, vec![], unnamed("xvdf"), expected)]);
    }
    // a node that has its volumes boots all the same
    let mut plan = plan(Provision, &config(""), &state(vec![]), &inventory(vec![unnamed("xvdf")]));
    plan.leave_strangers();
    assert_eq!((plan.refusals.len(), plan.steps.len()), (0, 0));
}

#[test]
fn noise_is_taken_for_never_written_only_on_unknown_ebs_volumes_and_where_that_is_configured() {
    let found = "no signature and no structure in 1 GiB of 1 GiB: 512 MiB uniformly random, 512 MiB zero";
    let cause = "unwritten blocks of a volume with EBS encryption look like this, and so does encrypted data without a header; if the volume is new, set volumes.noise = \"format-ebs\" (docs/configuration.md describes the risk); or ";
    let refused = || format!("refused: not blank: {found}, first seen at byte 0 -> {cause}{WIPE}");
    let format = || format!("format at /mnt: volumes.noise is format-ebs; {found}");
    let on = |facts| with(noise(), facts);
    let nameless = DeviceFacts { serial: None, ..on(ebs(1)) };
    let wipe_alone =
        |facts: &DeviceFacts| format!("refused: not blank: {found}, first seen at byte 0 -> {}", wipe_or_ignore(facts));
    let lost = format!(
        "wrong: expected known volume, LUKS UUID #1, but found: {found}, first seen at byte 0 -> check that the right volume is attached; nothing was changed"
    );
    one_disk(&config(""), vec![("noise, by default", Provision, vec![], on(ebs(1)), refused())]);
    let parts = DeviceFacts { partitions: vec!["nvme1n1p1".into()], ..on(ebs(1)) };
    let rows = vec![
        ("noise", Provision, vec![], on(ebs(1)), format()),
        ("noise", Unlock, vec![], on(ebs(1)), format!("{STRANGER}not blank: {found}, first seen at byte 0")),
        ("instance store", Provision, vec![], on(store(1)), wipe_alone(&on(store(1)))),
        ("without a serial number", Provision, vec![], nameless.clone(), wipe_alone(&nameless)),
        ("known", Provision, vec![known(1, "/mnt", &ebs(1))], on(ebs(1)), lost.clone()),
        ("known as instance store", Provision, vec![known(1, "/mnt", &store(1))], on(ebs(1)), lost),
        ("with partitions", Provision, vec![], parts, format!("refused: it has partitions: nvme1n1p1 -> {WIPE}")),
        (
            "begun",
            Provision,
            vec![intent(1, "/mnt3", &ebs(1))],
            on(ebs(1)),
            format().replace("format at /mnt", "format as #1 at /mnt3"),
        ),
        (
            "data",
            Provision,
            vec![],
            with(Content::Unrecognised { offset: 8 }, ebs(1)),
            format!("refused: not blank: data without a known signature, first seen at byte 8 -> {WIPE}"),
        ),
        (
            "a signature",
            Provision,
            vec![],
            with(foreign(), ebs(1)),
            format!("refused: not blank: ext4 at byte 1080 -> {WIPE}"),
        ),
    ];
    one_disk(&config("[volumes]\nnoise = \"format-ebs\""), rows);
    // begun by a run that was allowed to, and not any more
    one_disk(&config(""), vec![("begun", Provision, vec![intent(1, "/mnt3", &ebs(1))], on(ebs(1)), refused())]);
}

#[test]
fn instance_store_that_may_be_wiped() {
    let luks = |n| Content::Luks2 { luks_uuid: id(n), token: None };
    let wiped = |what: &str| format!("format at /mnt: wipe-instance-store is configured; overwrites {what}");
    let mounted = DeviceFacts { mounts: vec!["/data".into()], content: None, ..store(1) };
    let not_examined = DeviceFacts { content: None, ..store(1) };
    let partitioned = DeviceFacts { partitions: vec!["nvme1n1p1".into()], ..with(foreign(), store(1)) };
    let expected = "expected known volume, LUKS UUID #1, but found: ext4 at byte 1080";
    let rows = vec![
        ("foreign", Provision, vec![], with(foreign(), store(1)), wiped("ext4 at byte 1080")),
        ("partitions", Provision, vec![], partitioned, wiped("ext4 at byte 1080")),
        ("LUKS", Provision, vec![], with(luks(7), store(1)), wiped("LUKS2 volume #7")),
        (
            "data",
            Provision,
            vec![],
            with(Content::Unrecognised { offset: 8 }, store(1)),
            wiped("data without a known signature, first seen at byte 8"),
        ),
        (
            "not readable",
            Provision,
            vec![],
            with(Content::Unknown { reason: "i/o error".to_owned() }, store(1)),
            format!("wrong: it could not be examined: i/o error -> {CHECK_READABLE}"),
        ),
        (
            "half a header of nobody's",
            Provision,
            vec![],
            with(Content::Unfinished, store(1)),
            format!("refused: not blank: {} -> {WIPE}", Content::Unfinished),
        ),
        ("unlock", Unlock, vec![], with(foreign(), store(1)), format!("{STRANGER}not blank: ext4 at byte 1080")),
        ("EBS", Provision, vec![], with(foreign(), ebs(1)), format!("refused: not blank: ext4 at byte 1080 -> {WIPE}")),
        ("mounted", Provision, vec![], mounted, format!("refused: it is mounted at /data -> {RELEASE}")),
        ("not examined", Provision, vec![], not_examined, format!("refused: it was not examined -> {RELEASE}")),
        (
            "known",
            Provision,
            vec![known(1, "/mnt", &store(1))],
            with(foreign(), store(1)),
            format!("wrong: {expected} -> {CHECK_VOLUME}"),
        ),
        (
            "known once, another begun on it since",
            Provision,
            vec![known(1, "/mnt", &store(1)), intent(2, "/mnt1", &store(1))],
            with(foreign(), store(1)),
            format!("refused: not blank: ext4 at byte 1080 -> {WIPE}"),
        ),
        (
            "begun on, then overwritten",
            Provision,
            vec![intent(1, "/mnt", &store(1))],
            with(foreign(), store(1)),
            "format at /mnt: wipe-instance-store is configured; overwrites ext4 at byte 1080".into(),
        ),
    ];
    one_disk(&wiping(), rows);
}

#[test]
fn known_volumes() {
    let k = || vec![known(1, "/mnt3", &ebs(1))];
    let ks = || vec![known(1, "/mnt3", &store(1))];
    let in_use = DeviceFacts { content: None, mounts: vec!["/data".into()], ..ebs(1) };
    let back = "known EBS volume, LUKS UUID #1, came back blank (no signature, all 1 GiB read as zero) -> restore it from a snapshot; the agent does not format it while the state file lists it";
    let read_only = DeviceFacts { read_only: true, content: None, ..ebs(1) };
    let put_right = "if it is the right disk, change what excludes it; otherwise add a [[volumes.match]] rule with role = \"ignore\"";
    let rows = vec![
        ("closed", Provision, k(), with(header(1), ebs(1)), "unlock #1 at /mnt3".into()),
        ("closed", Unlock, k(), with(header(1), ebs(1)), "unlock #1 at /mnt3".into()),
        ("other serial number", Unlock, k(), with(header(1), ebs(7)), "unlock #1 at /mnt3".into()),
        ("open", Unlock, k(), open(1, &[], ebs(1)), "mount #1 at /mnt3".into()),
        ("mounted elsewhere", Unlock, k(), open(1, &["/data"], ebs(1)), "mount #1 at /mnt3".into()),
        ("mounted", Provision, k(), open(1, &["/mnt3"], ebs(1)), "left #1 at /mnt3: open, mounted at /mnt3".into()),
        ("no file system, open", Unlock, vec![known(1, "", &ebs(1))], open(1, &[], ebs(1)), "left #1 at nowhere: open".into()),
        ("no file system", Unlock, vec![known(1, "", &ebs(1))], with(header(1), ebs(1)), "unlock #1 at nowhere".into()),
        ("blank", Provision, k(), ebs(1), format!("wrong: {back}")),
        ("blank", Unlock, k(), ebs(1), format!("wrong: {back}")),
        ("blank, by a rule instance store now", Provision, k(), store(1), format!("wrong: {back}")),
        ("blank, by a rule EBS now", Provision, ks(), ebs(1), format!("wrong: {back}")),
        (
            "blank instance store",
            Provision,
            ks(),
            store(1),
            format!("format at /mnt3: {BLANK}; replaces #1, lost with the instance store"),
        ),
        (
            "blank instance store",
            Unlock,
            ks(),
            store(1),
            "wrong: known instance store volume, LUKS UUID #1, came back blank -> instance store does not survive a stop; run 'luks-agent provision' to format it again".into(),
        ),
        (
            "another header",
            Provision,
            k(),
            with(header(9), ebs(1)),
            format!("wrong: expected known volume, LUKS UUID #1, but found: LUKS2 volume #9 of luks-agent -> {CHECK_VOLUME}"),
        ),
        (
            "torn",
            Provision,
            ks(),
            with(Content::Unfinished, store(1)),
            format!("wrong: expected known volume, LUKS UUID #1, but found: the beginning of a LUKS2 header of luks-agent -> {CHECK_VOLUME}"),
        ),
        (
            "not readable",
            Provision,
            ks(),
            with(Content::Unknown { reason: "no answer".into() }, store(1)),
            format!("wrong: expected known volume, LUKS UUID #1, but it could not be examined: no answer -> {CHECK_READABLE}"),
        ),
        (
            "in use",
            Provision,
            k(),
            in_use,
            "wrong: expected known volume, LUKS UUID #1, but it is mounted at /data -> release it, then try again".into(),
        ),
        (
            "swap, /usr or the state directory on it",
            Provision,
            k(),
            system("the state directory through dm-1", open(1, &["/mnt3"], ebs(1))),
            "left #1 at /mnt3: open, mounted at /mnt3".into(),
        ),
        (
            "swap instead of a file system",
            Provision,
            k(),
            system("swap through dm-1", open(1, &[], ebs(1))),
            "left #1 at nowhere: open, but not mounted at /mnt3: it carries swap through dm-1".into(),
        ),
        (
            "swap on an unfinished one",
            Provision,
            vec![intent(1, "/mnt", &ebs(1))],
            system("swap through dm-1", open(1, &[], ebs(1))),
            "left: carries swap through dm-1".into(),
        ),
        (
            "the system on the disk itself",
            Provision,
            k(),
            system("swap", DeviceFacts { content: None, ..ebs(1) }),
            format!("wrong: known volume, LUKS UUID #1, is on a disk that the agent does not use: carries swap -> {put_right}"),
        ),
        (
            "read-only",
            Unlock,
            k(),
            read_only,
            format!("wrong: known volume, LUKS UUID #1, is on a disk that the agent does not use: read-only disk -> {put_right}"),
        ),
    ];
    one_disk(&config(""), rows);
}

#[test]
fn ignore_beats_everything() {
    let k = vec![known(1, "/mnt3", &ebs(1))];
    let ignore = config("[volumes]\nebs = \"ignore\"");
    let rule = config("[[volumes.match]]\nserial = \"vol1\"\nrole = \"ignore\"");
    let says = "left: the configuration says ignore";
    for facts in [ebs(1), with(header(1), ebs(1)), with(foreign(), ebs(1)), open(1, &["/mnt3"], ebs(1))] {
        one_disk(&ignore, vec![("policy", Provision, k.clone(), facts.clone(), says.into())]);
        let because = "left: a [[volumes.match]] rule says ignore".to_owned();
        one_disk(&rule, vec![("rule", Provision, k.clone(), facts.clone(), because)]);
        let swap = system("swap through dm-1", facts);
        one_disk(&ignore, vec![("policy", Provision, k.clone(), swap, "left: carries swap through dm-1".into())]);
    }
    check("absent", Unlock, &ignore, k, vec![], &["nobody: left: not attached; the configuration says ignore"]);
}

#[test]
fn unfinished_volumes() {
    let i = || vec![intent(1, "/mnt3", &ebs(1))];
    let ends = || "format as #1 at /mnt3: finishes formatting #1, which holds no data".to_owned();
    let two = DeviceFacts {
        holders: vec![mapping(1, &[]), Holder { dm_name: None, dm_uuid: None, ..mapping(9, &[]) }],
        ..open(1, &[], ebs(1))
    };
    let held = DeviceFacts { holders: vec![Holder { held: true, ..mapping(1, &[]) }], ..open(1, &[], ebs(1)) };
    let also = DeviceFacts { mounts: vec!["/data".into()], ..open(1, &[], ebs(1)) };
    let parts = DeviceFacts { partitions: vec!["nvme1n1p1".into()], ..with(header(1), ebs(1)) };
    let release = "if it holds nothing you need, unmount and release it, then run 'luks-agent provision'";
    let yet = |uses: &str| {
        format!("refused: the state file does not record its formatting as finished, but {uses} -> {release}")
    };
    let mapper = format!("luks-{}", id(1)).replace(&id(1).to_string(), "#1");
    let left = "left: formatting was interrupted, so it holds no data; 'luks-agent provision' finishes it";
    let grown = DeviceFacts { size: 2 * GIB, ..with(header(1), ebs(1)) };
    let rows = vec![
        ("whole header", Provision, i(), with(header(1), ebs(1)), ends()),
        ("torn header", Provision, i(), with(Content::Unfinished, ebs(1)), ends()),
        ("nothing yet", Provision, i(), ebs(1), format!("format as #1 at /mnt3: {BLANK}")),
        ("open", Provision, i(), open(1, &[], ebs(1)), ends()),
        ("grown", Provision, i(), grown, ends()),
        (
            "mounted by hand",
            Provision,
            i(),
            open(1, &["/x"], ebs(1)),
            yet(&format!("it is held by {mapper} and mounted at /x")),
        ),
        ("held", Provision, i(), held, yet(&format!("it is held by {mapper}"))),
        ("held by another too", Provision, i(), two, yet(&format!("it is held by {mapper}, dm-9"))),
        ("mounted itself", Provision, i(), also, yet(&format!("it is held by {mapper} and mounted at /data"))),
        ("partitions", Provision, i(), parts, format!("refused: it has partitions: nvme1n1p1 -> {WIPE}")),
        (
            "overwritten",
            Provision,
            i(),
            with(foreign(), ebs(1)),
            format!("refused: not blank: ext4 at byte 1080 -> {WIPE}"),
        ),
        (
            "overwritten with another volume",
            Provision,
            i(),
            with(Content::Luks2 { luks_uuid: id(7), token: None }, ebs(1)),
            format!("refused: not blank: LUKS2 volume #7 -> {WIPE}"),
        ),
        ("unlock", Unlock, i(), with(header(1), ebs(1)), left.into()),
        ("unlock", Unlock, i(), ebs(1), left.into()),
        (
            "its header on a disk with another serial number",
            Provision,
            vec![intent(1, "/mnt3", &ebs(9))],
            with(header(1), ebs(1)),
            format!(
                "refused: its header is a copy: the formatting of #1 began on another disk, serial number vol9 -> {WIPE}"
            ),
        ),
        (
            "on a disk whose serial number was not known, of another size",
            Provision,
            vec![VolumeRecord { size: 3 * GIB, ..intent(1, "/mnt3", &xen("xvdb", "ebs1")) }],
            with(header(1), ebs(1)),
            format!("refused: its header is a copy: the formatting of #1 began on another disk, xvdb, 3 GiB -> {WIPE}"),
        ),
        (
            "on a disk whose serial number was not known",
            Provision,
            vec![intent(1, "/mnt3", &xen("xvdb", "ebs1"))],
            with(header(1), ebs(1)),
            ends(),
        ),
        (
            "its header on the disk of a known volume",
            Provision,
            vec![intent(2, "/mnt", &xen("xvdb", "ebs1")), known(1, "/mnt3", &ebs(1))],
            with(header(2), ebs(1)),
            format!(
                "refused: expected known volume, LUKS UUID #1, but found #2, whose formatting was interrupted -> {CHECK_VOLUME}"
            ),
        ),
    ];
    one_disk(&config(""), rows);
}

#[test]
fn what_a_header_says_reaches_no_terminal_as_it_is() {
    let token =
        Token::new(KeySource::aws_kms(WrappedKey::new(vec![9]).unwrap(), "arn\u{1b}[2J\nkey"), Some("i-\r1".into()));
    let forged = Content::Luks2 { luks_uuid: id(7), token: Some(Box::new(token)) };
    let [line] = lines(&plan(Provision, &config(""), &state(vec![]), &inventory(vec![with(forged, ebs(1))])))
        .try_into()
        .unwrap();
    assert!(!line.contains(char::is_control), "{line}");
    assert!(line.contains(r"on i-\r1 and ") && line.contains(r"wrapped by arn\u{1b}[2J\nkey"), "{line}");
}

#[test]
fn where_there_is_no_state_file_no_key_is_made_beside_a_volume_of_luks_agent() {
    let restore = "nothing is formatted; restore /etc/luks-agent/state/state.json from a backup of the boot volume, or run 'luks-agent adopt nvme4n1' ('--all' for all such volumes)";
    let lost = "refused: this node's state file may be lost: nvme4n1 holds a volume of luks-agent";
    let ignore = format!(
        "{restore}; to continue without that volume, add a [[volumes.match]] rule with role = \"ignore\" for it"
    );
    let on = |instance: Option<&str>, volume: DeviceFacts, state: &State| {
        let devices = vec![ebs(1), with(foreign(), store(2)), volume];
        let inventory = Inventory { instance_id: instance.map(str::to_owned), ..inventory(devices) };
        lines(&plan(Provision, &wiping(), state, &inventory))
    };
    let made_on = |instance: Option<&str>| {
        let token = Token::new(
            KeySource::aws_kms(WrappedKey::new(vec![9]).unwrap(), "arn:key".to_owned()),
            instance.map(str::to_owned),
        );
        Content::Luks2 { luks_uuid: id(4), token: Some(Box::new(token)) }
    };
    // whoever made it, whoever this is, and whether it is open
    for (here, by, said) in [
        (Some("i-1"), Some("i-1"), "this instance"),
        (Some("i-2"), Some("i-1"), "i-1"),
        (None, Some("i-1"), "i-1"),
        (Some("i-1"), None, "an unknown instance"),
        (None, None, "an unknown instance"),
    ] {
        let made = format!(
            "nvme4n1: refused: LUKS2 volume #4, which luks-agent made on {said}, and there is no state file; its key is wrapped by arn:key ->"
        );
        let others = [format!("nvme1n1: {lost} -> {ignore}"), format!("nvme2n1: {lost} -> {ignore}")];
        let closed = on(here, with(made_on(by), ebs(4)), &State::default());
        assert_eq!(closed, [&others[..], &[format!("{made} {restore}")]].concat());
        let opened = on(here, with(made_on(by), open(4, &["/mnt"], ebs(4))), &State::default());
        let save = "back up its data now, while it is open; ";
        assert_eq!(opened, [&others[..], &[format!("{made} {save}{restore}")]].concat());
    }
    // what cannot be read is known by the name of its mapping
    let unread = with(Content::Unknown { reason: "x".to_owned() }, open(4, &[], ebs(4)));
    assert_eq!(
        on(None, unread, &State::default())[..2],
        [format!("nvme1n1: {lost} -> {ignore}"), format!("nvme2n1: {lost} -> {ignore}")]
    );
    // where there is a state file, neither another node's volume nor one that it does not know keeps a disk waiting
    for (here, by, said) in [
        ("i-2", "i-1", "which luks-agent made on i-1 and this node's state file does not list"),
        ("i-1", "i-1", "which luks-agent made on this node and the state file does not list"),
    ] {
        let plan = on(Some(here), with(made_on(Some(by)), ebs(4)), &state(vec![]));
        assert_eq!(plan.iter().filter(|line| line.contains(": format at")).count(), 2, "{plan:?}");
        assert!(plan[2].contains(&format!("refused: LUKS2 volume #4, {said}")), "{plan:?}");
    }
}

#[test]
fn the_headers_of_open_volumes_are_read_where_the_state_file_does_not_know_them() {
    let plain = config("");
    let ignored = config("[[volumes.match]]\nserial = \"vol1\"\nrole = \"ignore\"");
    let opened = open(1, &["/mnt"], ebs(1));
    let swap = DeviceFacts { system: Some("carries swap".to_owned()), ..opened.clone() };
    let parts = DeviceFacts { partitions: vec!["nvme1n1p1".to_owned()], ..opened.clone() };
    for (config, state, facts, expected) in [
        (&plain, State::default(), &opened, true),
        (&plain, state(vec![known(2, "/mnt", &ebs(2))]), &opened, true),
        (&plain, State::default(), &swap, true),
        (&plain, state(vec![known(1, "/mnt", &ebs(1))]), &opened, false),
        (&plain, State::default(), &ebs(1), false),
        (&plain, State::default(), &parts, false),
        (&ignored, State::default(), &opened, false),
        (&ignored, State::default(), &swap, false),
    ] {
        assert_eq!(wants_header(config, &state, facts), expected, "{facts:?}");
    }
}

#[test]
fn nothing_is_formatted_when_the_boot_disk_is_not_known() {
    let devices =
        vec![ebs(1), with(foreign(), store(2)), with(Content::Unfinished, ebs(3)), with(header(4), ebs(4)), store(5)];
    let volumes = vec![intent(3, "/mnt3", &ebs(3)), known(4, "/mnt4", &ebs(4)), known(5, "/mnt5", &store(5))];
    let boot_unresolved = Some("what carries / is not known: x".into());
    let inventory = Inventory { boot_unresolved, ..inventory(devices) };
    let plan = plan(Provision, &wiping(), &state(volumes), &inventory);
    let refused = "refused: the boot disk could not be resolved: what carries / is not known: x -> the agent formats nothing while any disk might be the boot disk; 'luks-agent status' shows what it found";
    let expected = ["nvme1n1", "nvme2n1", "nvme3n1"].map(|name| format!("{name}: {refused}"));
    let mut expected = expected.to_vec();
    expected.push("nvme4n1: unlock #4 at /mnt4".into());
    expected.push(format!("nvme5n1: {refused}"));
    assert_eq!(lines(&plan), expected);
}

#[test]
fn where_a_reboot_empties_the_state_directory_known_volumes_are_opened_and_nothing_is_formatted() {
    let devices = vec![ebs(1), with(Content::Unfinished, ebs(3)), with(header(4), ebs(4)), store(5)];
    let volumes = vec![intent(3, "/mnt3", &ebs(3)), known(4, "/mnt4", &ebs(4)), known(5, "/mnt5", &store(5))];
    let state_in_memory = Some("the tmpfs on /etc".into());
    let inventory = Inventory { state_in_memory, ..inventory(devices) };
    let plan = plan(Provision, &config(""), &state(volumes), &inventory);
    let refused = "refused: a reboot would lose the record of a new volume: the state directory is on the tmpfs on /etc -> move /etc/luks-agent/state to the boot volume, or set state.dir to a directory there";
    let mut expected = ["nvme1n1", "nvme3n1"].map(|name| format!("{name}: {refused}")).to_vec();
    expected.push("nvme4n1: unlock #4 at /mnt4".into());
    expected.push(format!("nvme5n1: {refused}"));
    assert_eq!(lines(&plan), expected);
}

#[test]
fn disks_that_cannot_be_told_apart() {
    let twin =
        |n: u32, facts: DeviceFacts| DeviceFacts { serial: Some("vol1".into()), name: format!("nvme{n}n1"), ..facts };
    let same = |n: u32, other: &str| {
        format!(
            "nvme{n}n1: refused: it has the same serial number as {other}, vol1: they may be the same disk -> {DETACH}"
        )
    };
    let plain = config("");
    let rule = config("[[volumes.match]]\npath = \"/dev/nvme2n1\"\nrole = \"ignore\"");
    check("new", Provision, &plain, vec![], vec![ebs(1), twin(2, ebs(2))], &[&same(1, "nvme2n1"), &same(2, "nvme1n1")]);
    check(
        "one of them ignored",
        Provision,
        &rule,
        vec![],
        vec![ebs(1), twin(2, ebs(2))],
        &[&format!("nvme1n1: format at /mnt: {BLANK}"), "nvme2n1: left: a [[volumes.match]] rule says ignore"],
    );
    let boot = system("/", twin(2, ebs(2)));
    check(
        "the boot disk",
        Provision,
        &rule,
        vec![],
        vec![ebs(1), boot],
        &[&same(1, "nvme2n1"), "nvme2n1: left: carries /"],
    );
    check(
        "unfinished",
        Provision,
        &plain,
        vec![intent(1, "/mnt", &ebs(1))],
        vec![with(Content::Unfinished, ebs(1)), twin(2, ebs(2))],
        &[&same(1, "nvme2n1"), &same(2, "nvme1n1")],
    );
    let expected = |n: u32, other: &str| {
        format!(
            "nvme{n}n1: wrong: expected known volume, LUKS UUID #1, but it has the same serial number as {other}, vol1: they may be the same disk -> {DETACH}"
        )
    };
    check(
        "known, gone from both",
        Provision,
        &plain,
        vec![known(1, "/mnt", &store(1))],
        vec![store(1), twin(2, store(2))],
        &[&expected(1, "nvme2n1"), &expected(2, "nvme1n1")],
    );
    // the header tells what the serial number does not
    check(
        "known, on one",
        Provision,
        &plain,
        vec![known(1, "/mnt", &ebs(1))],
        vec![ebs(1), twin(2, with(header(1), ebs(2)))],
        &[&expected(1, "nvme2n1"), "nvme2n1: unlock #1 at /mnt"],
    );
    check(
        "known instance store, on one",
        Provision,
        &plain,
        vec![known(1, "/mnt", &store(1))],
        vec![store(1), twin(2, with(header(1), store(2)))],
        &[&same(1, "nvme2n1"), "nvme2n1: unlock #1 at /mnt"],
    );
    check(
        "known, on one, and the other does not answer",
        Unlock,
        &plain,
        vec![known(1, "/mnt", &ebs(1))],
        vec![with(Content::Unknown { reason: "no answer".into() }, ebs(1)), twin(2, with(header(1), ebs(2)))],
        &[&expected(1, "nvme2n1"), "nvme2n1: unlock #1 at /mnt"],
    );
    let both = |n: u32, other: &str| {
        format!(
            "nvme{n}n1: wrong: LUKS UUID #1 is also on {other}, and the agent cannot tell which of them is the volume -> detach all except the one to use"
        )
    };
    check(
        "two ways to one disk",
        Provision,
        &plain,
        vec![known(1, "/mnt", &ebs(1))],
        vec![with(header(1), ebs(1)), twin(2, with(header(1), ebs(2)))],
        &[&both(1, "nvme2n1"), &both(2, "nvme1n1")],
    );
}

#[test]
fn copies_of_a_known_volume() {
    let plain = config("");
    let k = || vec![known(1, "/mnt", &ebs(1))];
    let on = |n| with(header(1), ebs(n));
    check(
        "beside the original",
        Unlock,
        &plain,
        k(),
        vec![on(1), on(2)],
        &[
            "nvme1n1: unlock #1 at /mnt",
            "nvme2n1: refused: its header is a copy: LUKS UUID #1 is on nvme1n1, where it was last used -> detach the copy; or detach nvme1n1 to use the copy",
        ],
    );
    check(
        "beside the open original",
        Unlock,
        &plain,
        k(),
        vec![open(1, &["/mnt"], ebs(1)), on(2)],
        &[
            "nvme1n1: left #1 at /mnt: open, mounted at /mnt",
            "nvme2n1: refused: its header is a copy: LUKS UUID #1 is open on nvme1n1 -> detach the copy",
        ],
    );
    check(
        "open, the original beside it",
        Unlock,
        &plain,
        k(),
        vec![on(1), open(1, &["/mnt"], ebs(2))],
        &[
            "nvme1n1: refused: its header is a copy: LUKS UUID #1 is open on nvme2n1 -> detach the copy",
            "nvme2n1: left #1 at /mnt: open, mounted at /mnt",
        ],
    );
    check(
        "two, without the original",
        Unlock,
        &plain,
        k(),
        vec![on(2), on(3)],
        &[
            "nvme2n1: wrong: LUKS UUID #1 is also on nvme3n1, and the agent cannot tell which of them is the volume -> detach all except the one to use",
            "nvme3n1: wrong: LUKS UUID #1 is also on nvme2n1, and the agent cannot tell which of them is the volume -> detach all except the one to use",
        ],
    );
    check(
        "beside the original, which does not answer",
        Unlock,
        &plain,
        k(),
        vec![with(Content::Unknown { reason: "no answer".into() }, ebs(1)), on(2)],
        &[
            "nvme1n1: wrong: expected known volume, LUKS UUID #1, but it could not be examined: no answer -> check the volume, then try again; the agent does not touch a disk that it cannot read",
            "nvme2n1: wrong: its header may be a copy: LUKS UUID #1 was last used on nvme1n1, which could not be examined -> release or repair nvme1n1; or detach nvme1n1 to use this copy",
        ],
    );
    check(
        "beside the original, which came back blank",
        Provision,
        &plain,
        k(),
        vec![ebs(1), on(2)],
        &[
            "nvme1n1: wrong: known EBS volume, LUKS UUID #1, came back blank (no signature, all 1 GiB read as zero) -> restore it from a snapshot; the agent does not format it while the state file lists it",
            "nvme2n1: unlock #1 at /mnt",
        ],
    );
    check(
        "of an instance store volume that is blank now",
        Provision,
        &plain,
        vec![known(1, "/mnt", &store(1))],
        vec![store(1), on(2)],
        &[&format!("nvme1n1: format at /mnt1: {BLANK}"), "nvme2n1: unlock #1 at /mnt"],
    );
    let also = |n: u32, other: &str| {
        format!(
            "nvme{n}n1: refused: LUKS UUID #1, whose formatting was interrupted, is also on {other} -> detach or wipe all but one; it holds no data"
        )
    };
    check(
        "of an unfinished volume",
        Provision,
        &plain,
        vec![intent(1, "/mnt", &ebs(1))],
        vec![on(1), on(2)],
        &[&also(1, "nvme2n1"), &also(2, "nvme1n1")],
    );
    check(
        "of an unfinished volume, open",
        Provision,
        &plain,
        vec![intent(1, "/mnt", &ebs(1))],
        vec![on(1), open(1, &[], ebs(2))],
        &[&also(1, "nvme2n1"), &also(2, "nvme1n1")],
    );
    check(
        "over another known volume",
        Unlock,
        &plain,
        vec![known(1, "/mnt", &ebs(1)), known(2, "/mnt1", &ebs(2))],
        vec![on(2)],
        &[
            "nobody: wrong: known EBS volume, LUKS UUID #2, is no longer on nvme2n1, which was its disk -> attach vol2 again",
            "nvme2n1: unlock #1 at /mnt",
        ],
    );
}

#[test]
fn names_that_moved() {
    let plain = config("");
    let (b, c) = (xen("xvdb", "ephemeral0"), xen("xvdc", "ephemeral0"));
    check(
        "two volumes changed places",
        Provision,
        &plain,
        vec![known(1, "/mnt", &b), known(2, "/mnt1", &c)],
        vec![with(header(2), b.clone()), with(header(1), c.clone())],
        &["xvdb: unlock #2 at /mnt1", "xvdc: unlock #1 at /mnt"],
    );
    check(
        "a new disk has the name of a known volume, which is elsewhere",
        Provision,
        &plain,
        vec![known(1, "/mnt", &b)],
        vec![b.clone(), with(header(1), c.clone())],
        &[&format!("xvdb: format at /mnt1: {BLANK}"), "xvdc: unlock #1 at /mnt"],
    );
    check(
        "the same with EBS",
        Provision,
        &plain,
        vec![known(1, "/mnt", &xen("xvdb", "ebs1"))],
        vec![xen("xvdb", "ebs1"), open(1, &["/mnt"], xen("xvdc", "ebs2"))],
        &[&format!("xvdb: format at /mnt1: {BLANK}"), "xvdc: left #1 at /mnt: open, mounted at /mnt"],
    );
    check(
        "the volume may be on a disk that does not answer: its record stays",
        Provision,
        &plain,
        vec![known(1, "/mnt", &b)],
        vec![b.clone(), with(Content::Unknown { reason: "no answer".into() }, c.clone())],
        &[
            &format!("xvdb: format at /mnt1: {BLANK}"),
            "xvdc: wrong: it could not be examined: no answer -> check the volume, then try again; the agent does not touch a disk that it cannot read",
        ],
    );
    check(
        "the volume moved, and the disk that has its name now does not answer",
        Unlock,
        &plain,
        vec![known(1, "/mnt", &b)],
        vec![with(Content::Unknown { reason: "no answer".into() }, b.clone()), with(header(1), c.clone())],
        &[&format!("xvdb: {STRANGER}it could not be examined: no answer"), "xvdc: unlock #1 at /mnt"],
    );
    check(
        "blank, and nowhere else",
        Provision,
        &plain,
        vec![known(1, "/mnt", &b)],
        vec![b.clone(), c.clone()],
        &[
            &format!("xvdb: format at /mnt: {BLANK}; replaces #1, lost with the instance store"),
            &format!("xvdc: format at /mnt1: {BLANK}"),
        ],
    );
    check(
        "EBS by its name",
        Provision,
        &plain,
        vec![known(1, "/mnt", &xen("xvdb", "ebs1"))],
        vec![xen("xvdb", "ebs1")],
        &[
            "xvdb: wrong: known EBS volume, LUKS UUID #1, came back blank (no signature, all 1 GiB read as zero) -> restore it from a snapshot; the agent does not format it while the state file lists it",
        ],
    );
    check(
        "a disk of another size has the name",
        Provision,
        &plain,
        vec![VolumeRecord { size: 2 * GIB, ..intent(1, "/mnt3", &b) }],
        vec![with(Content::Unfinished, b.clone())],
        &[
            "nobody: wrong: known instance store volume, LUKS UUID #1, 2 GiB, is gone, and no blank instance store takes its place -> instance store is lost when the instance stops; if this instance has fewer instance store volumes now, set volumes.expect.instance_store to the minimum that it must have",
            &format!(
                "xvdb: refused: not blank: the beginning of a LUKS2 header of luks-agent -> {}",
                WIPE.replace("nvme1n1", "xvdb")
            ),
        ],
    );
}

#[test]
fn the_agents_own_mappings_are_no_disks() {
    let rule = "[volumes]\nwhen_not_blank = \"wipe-instance-store\"\n[[volumes.match]]\npath = \"/dev/dm-*\"\nrole = \"instance-store\"";
    let dm = DeviceFacts {
        kind: DiskKind::DeviceMapper,
        serial: None,
        name: "dm-1".into(),
        path: "/dev/dm-1".into(),
        ..with(Content::Unrecognised { offset: 0 }, store(0))
    };
    check(
        "a rule that names them",
        Provision,
        &config(rule),
        vec![known(1, "", &ebs(1))],
        vec![open(1, &[], ebs(1)), dm],
        &["dm-1: left: the open mapping of volume #1", "nvme1n1: left #1 at nowhere: open"],
    );
}

#[test]
fn volumes_that_are_not_there() {
    let volumes = vec![known(1, "/mnt", &ebs(1)), known(2, "/mnt1", &store(2)), intent(3, "/mnt2", &ebs(3))];
    for mode in [Provision, Unlock] {
        check(
            "absent",
            mode,
            &config(""),
            volumes.clone(),
            vec![],
            &[
                "nobody: wrong: known EBS volume, LUKS UUID #1, is not attached -> attach vol1 again",
                "nobody: wrong: known instance store volume, LUKS UUID #2, 1 GiB, is gone, and no blank instance store takes its place -> instance store is lost when the instance stops; if this instance has fewer instance store volumes now, set volumes.expect.instance_store to the minimum that it must have",
            ],
        );
    }
    check(
        "absent, without a serial number",
        Unlock,
        &config(""),
        vec![known(1, "/mnt", &xen("xvdb", "ebs1"))],
        vec![],
        &["nobody: wrong: known EBS volume, LUKS UUID #1, is not attached -> attach it again, as xvdb"],
    );
}

#[test]
fn mount_points() {
    let points = |config: &Config, volumes, devices| {
        let plan = plan(Provision, config, &state(volumes), &inventory(devices));
        let steps = plan.steps.iter().map(|step| {
            let at = step.action.mount_point().map_or("-".to_owned(), |at| at.display().to_string());
            format!("{}={at}", step.device.serial.as_deref().unwrap_or_default())
        });
        steps.collect::<Vec<_>>().join(" ")
    };
    let plain = config("");
    let three = || vec![ebs(3), ebs(1), store(2)];
    assert_eq!(points(&plain, vec![], three()), "vol1=/mnt vol2=/mnt1 vol3=/mnt2", "by serial number");
    assert_eq!(points(&config("[filesystem]\ntype = \"none\""), vec![], three()), "vol1=- vol2=- vol3=-");
    let base = config("[filesystem]\nmount_base = \"/data\"");
    assert_eq!(points(&base, vec![], three()), "vol1=/data vol2=/data1 vol3=/data2");
    let k = vec![known(3, "/mnt", &ebs(3))];
    let known_last = vec![with(header(3), ebs(3)), ebs(1), store(2)];
    assert_eq!(points(&plain, k.clone(), known_last), "vol1=/mnt1 vol2=/mnt2 vol3=/mnt", "known ones keep theirs");
    assert_eq!(points(&plain, k, vec![ebs(1)]), "vol1=/mnt1", "a detached EBS volume keeps its own");
    let gone = vec![known(3, "/mnt", &store(3))];
    assert_eq!(points(&plain, gone.clone(), vec![ebs(1)]), "vol1=/mnt1", "and so does instance store that is gone");
    let both = [gone, vec![known(1, "/mnt", &ebs(1))]].concat();
    let back = vec![with(header(1), ebs(1)), with(header(3), store(3)), ebs(4)];
    assert_eq!(points(&plain, both.clone(), back), "vol1=/mnt vol3=/mnt1 vol4=/mnt2", "back again, the newer keeps it");
    let mounted = vec![with(header(1), ebs(1)), open(3, &["/mnt"], store(3)), ebs(4)];
    assert_eq!(points(&plain, both.clone(), mounted), "vol1=/mnt1 vol4=/mnt2", "who is mounted there stays");
    let moved = vec![open(1, &["/mnt"], ebs(1)), open(3, &["/mnt1"], store(3))];
    assert_eq!(points(&plain, both, moved), "", "and then all is as it should be");
    let begun = vec![intent(2, "/mnt5", &store(2))];
    assert_eq!(points(&plain, begun, three()), "vol1=/mnt vol2=/mnt5 vol3=/mnt1", "an unfinished one keeps its own");
}

#[test]
fn only_what_may_be_a_target_and_is_free_is_looked_at() {
    let wants = |facts: &DeviceFacts| wants_probe(&config("[volumes]\ninstance_store = \"ignore\""), facts);
    assert!(wants(&ebs(1)));
    assert!(!wants(&store(1)));
    assert!(!wants(&system("/", ebs(1))));
    assert!(!wants(&open(1, &[], ebs(1))));
    assert!(!wants(&DeviceFacts { mounts: vec!["/data".into()], ..ebs(1) }));
    assert!(!wants(&DeviceFacts { read_only: true, ..ebs(1) }));
}

fn expecting(more: &str) -> Config {
    config(&format!("[volumes.expect]\n{more}"))
}

/// What a plan would format, and where.
fn formats(config: &Config, volumes: Vec<VolumeRecord>, devices: Vec<DeviceFacts>) -> String {
    let plan = plan(Provision, config, &state(volumes), &inventory(devices));
    let formats = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Format(Format { basis, mount_point, .. }) => {
            let at = mount_point.as_ref().map_or("-".to_owned(), |at| at.display().to_string());
            let replaces = match basis {
                Basis::Blank { replaces: Some(gone), .. } | Basis::Wipe { replaces: Some(gone), .. } => {
                    format!(" for #{}", gone.as_u128())
                }
                Basis::Blank { replaces: None, .. }
                | Basis::Noise { .. }
                | Basis::Unfinished { .. }
                | Basis::Wipe { replaces: None, .. } => String::new(),
            };
            Some(format!("{}={at}{replaces}", step.device.serial.as_deref().unwrap_or(&step.device.name)))
        }
        Action::Unlock(_) | Action::Grow(_) | Action::Rekey(_) => None,
    });
    formats.collect::<Vec<_>>().join(" ")
}

#[test]
fn new_instance_store_takes_the_place_of_what_a_stop_took() {
    let plain = config("");
    let large = |n: u32| DeviceFacts { size: 2 * GIB, ..store(n) };
    let known_large = |n: u32, at: &str| VolumeRecord { size: 2 * GIB, ..known(n, at, &store(n)) };
    let two = || vec![known_large(1, "/mnt1"), known(2, "/mnt2", &store(2))];
    assert_eq!(formats(&plain, two(), vec![store(7), large(8)]), "vol7=/mnt2 for #2 vol8=/mnt1 for #1", "by size");
    assert_eq!(formats(&plain, two(), vec![large(7), large(8)]), "vol7=/mnt1 for #1 vol8=/mnt2 for #2", "other sizes");
    assert_eq!(formats(&plain, two(), vec![store(7)]), "vol7=/mnt2 for #2", "fewer");
    let more = vec![store(7), large(8), store(9)];
    assert_eq!(formats(&plain, two(), more), "vol7=/mnt2 for #2 vol8=/mnt1 for #1 vol9=/mnt", "more");
    let one_stays = vec![with(header(1), large(1)), store(7)];
    assert_eq!(formats(&plain, two(), one_stays), "vol7=/mnt2 for #2", "a volume that is there keeps its place");
    let ebs_gone = vec![known(1, "/mnt1", &ebs(1))];
    assert_eq!(formats(&plain, ebs_gone.clone(), vec![store(7)]), "vol7=/mnt", "EBS is never replaced");
    assert_eq!(formats(&plain, ebs_gone, vec![ebs(7)]), "vol7=/mnt", "EBS is never replaced, by EBS neither");
    assert_eq!(formats(&plain, vec![known(2, "/mnt2", &store(2))], vec![ebs(7)]), "vol7=/mnt", "nor replaces");
    let begun = vec![intent(2, "/mnt2", &store(2))];
    assert_eq!(formats(&plain, begun, vec![store(7)]), "vol7=/mnt2 for #2", "one that was never finished");
    let xvdb = xen("xvdb", "ephemeral0");
    let hidden = vec![xen("xvdc", "ephemeral1"), with(Content::Unknown { reason: "no answer".into() }, xvdb.clone())];
    let named = vec![VolumeRecord { device: "xvdd".into(), ..known(2, "/mnt2", &xvdb) }];
    assert_eq!(formats(&plain, named.clone(), hidden), "xvdc=/mnt", "it may be on the disk that does not answer");
    assert_eq!(formats(&plain, named, vec![xen("xvdc", "ephemeral1")]), "xvdc=/mnt2 for #2");

    let foreign_one = vec![with(foreign(), store(7))];
    let lost = known(2, "/mnt2", &store(2));
    assert_eq!(formats(&plain, vec![lost.clone()], foreign_one.clone()), "", "what is not blank takes no place");
    assert_eq!(
        formats(&wiping(), vec![lost.clone()], foreign_one.clone()),
        "vol7=/mnt2 for #2",
        "unless it may be wiped"
    );
    let wiped = plan(Provision, &wiping(), &state(vec![lost.clone()]), &inventory(foreign_one));
    assert_eq!((wiped.changes, wiped.refusals), (vec![], vec![]), "its record goes when that is recorded");
    check(
        "unlock says what to do",
        Unlock,
        &plain,
        vec![lost],
        vec![store(7)],
        &[
            "nvme7n1: wrong: blank, and known instance store volume, LUKS UUID #2, is gone -> instance store does not survive a stop; run 'luks-agent provision' to format it again",
        ],
    );
}

#[test]
fn instance_store_that_is_gone_is_expected_until_it_is_replaced_or_fewer_are_fine() {
    let gone = |config: &Config, volumes: Vec<VolumeRecord>, devices: Vec<DeviceFacts>| {
        let plan = plan(Provision, config, &state(volumes), &inventory(devices));
        let refusals = plan.refusals.iter().filter(|refusal| refusal.finding.severity == Severity::Wrong).count();
        let forgotten = plan.changes.iter().map(|change| match change {
            Change::Forget { luks_uuid } => luks_uuid.as_u128(),
            Change::Moved { .. } => 0,
        });
        (refusals, forgotten.collect::<Vec<_>>())
    };
    let two = || vec![known(1, "/mnt", &store(1)), known(2, "/mnt1", &store(2))];
    let one = || vec![with(header(1), store(1))];
    assert_eq!(gone(&config(""), two(), one()), (1, vec![]));
    assert_eq!(gone(&expecting("instance_store = 2"), two(), one()), (1, vec![]));
    assert_eq!(gone(&expecting("instance_store = 1"), two(), one()), (0, vec![]), "it may be a disk that comes late");
    assert_eq!(gone(&expecting("instance_store = 0"), two(), vec![]), (0, vec![]));
    assert_eq!(gone(&config("[volumes]\ninstance_store = \"ignore\""), two(), vec![]), (0, vec![]));
    // as earlier releases left it
    let replaced = vec![known(1, "/mnt", &store(1)), known(2, "/mnt", &store(2))];
    assert_eq!(gone(&config(""), replaced, vec![with(header(2), store(2))]), (0, vec![1]));
    let on_the_same_disk = vec![known(1, "/mnt", &store(1)), known(2, "/mnt1", &store(1))];
    assert_eq!(gone(&config(""), on_the_same_disk, vec![with(header(2), store(1))]), (0, vec![1]));
    // what may not be formatted takes no place
    assert_eq!(gone(&config(""), vec![known(1, "/mnt", &store(1))], vec![with(foreign(), store(2))]), (1, vec![]));
    assert_eq!(gone(&wiping(), vec![known(1, "/mnt", &store(1))], vec![with(foreign(), store(2))]), (0, vec![]));
    // the same name, and another size: it is another disk
    let xvdb = || xen("xvdb", "ephemeral0");
    let larger = VolumeRecord { size: 3 * GIB, ..known(1, "/mnt", &xvdb()) };
    assert_eq!(formats(&config(""), vec![larger], vec![xvdb()]), "xvdb=/mnt for #1");
    // nothing is dropped of EBS
    let detached = vec![known(1, "/mnt", &ebs(1)), known(2, "/mnt", &ebs(2))];
    assert_eq!(gone(&expecting("ebs = 1"), detached, vec![with(header(2), ebs(2))]), (1, vec![]));
}

#[test]
fn instance_store_may_be_gone_if_fewer_are_fine_or_a_newer_one_has_its_place() {
    let may_be_gone =
        |config: &Config, volumes: Vec<VolumeRecord>| may_be_gone(config, &state(volumes.clone()), &volumes[0]);
    let one = || vec![known(1, "/mnt", &store(1))];
    let beside = vec![known(1, "/mnt", &store(1)), known(2, "/mnt1", &store(2))];
    let replaced = || vec![known(1, "/mnt", &store(1)), known(2, "/mnt", &store(2))];
    assert!(!may_be_gone(&config(""), one()));
    assert!(!may_be_gone(&config(""), beside));
    assert!(may_be_gone(&config(""), replaced()));
    assert!(may_be_gone(&expecting("instance_store = 1"), one()));
    assert!(may_be_gone(&expecting("instance_store = 1"), replaced()));
    assert!(!may_be_gone(&expecting("ebs = 1"), one()));
    // grow reports it, and that is no failure
    let plan = plan(Mode::Grow, &config(""), &state(one()), &inventory(vec![]));
    assert_eq!(lines(&plan), ["nobody: left: gone: instance store is lost when the instance stops"]);
}

#[test]
fn disks_that_may_hold_a_volume_of_ours_and_those_that_no_boot_opens() {
    let rule = |rest: &str| config(&format!("[[volumes.match]]\npath = \"/dev/nvme1n1\"\n{rest}"));
    let (ignoring, requiring) = (rule("role = \"ignore\""), config("[volumes]\nrequire_rule = true"));
    let no_ebs = config("[volumes]\nebs = \"ignore\"");
    let no_store = config("[volumes]\ninstance_store = \"ignore\"");
    let (boot, parts) = (system("/", ebs(1)), DeviceFacts { partitions: vec!["nvme1n1p1".into()], ..ebs(1) });
    let swap = DeviceFacts { holders: vec![mapping(1, &[])], ..system("swap", ebs(1)) };
    // a configuration and a disk; whether it may hold ours; whether a rule ignores it; whether no boot opens a volume on it
    for (what, config, facts, holds, ignored, locked) in [
        ("EBS", &config(""), ebs(1), true, false, false),
        ("instance store", &config(""), store(1), true, false, false),
        ("EBS ignored", &no_ebs, ebs(1), false, false, false),
        ("instance store, EBS ignored", &no_ebs, store(1), true, false, false),
        ("instance store ignored", &no_store, store(1), false, false, false),
        ("EBS, instance store ignored", &no_store, ebs(1), true, false, false),
        ("ignored by a rule", &ignoring, ebs(1), false, true, false),
        ("beside it", &ignoring, ebs(2), true, false, false),
        ("without a rule that is required", &requiring, ebs(1), false, false, true),
        ("boot", &config(""), boot, false, false, false),
        ("swap on an open volume", &config(""), swap, true, false, false),
        ("partitions", &config(""), parts, false, false, false),
    ] {
        assert_eq!(may_hold_ours(config, &facts), holds, "{what}");
        assert_eq!(is_ignored(config, &facts), ignored, "{what}");
        assert_eq!(locked_out(config, &facts).is_some(), locked, "{what}");
    }
}

#[test]
fn what_is_expected_is_counted_and_told() {
    let short = |config: &Config, mode, devices: Vec<DeviceFacts>| {
        let plan = plan(mode, config, &state(vec![known(1, "/mnt", &ebs(1))]), &inventory(devices));
        plan.shortfalls.iter().map(|short| short.finding().evidence).collect::<Vec<_>>().join(", ")
    };
    let one = || vec![with(header(1), ebs(1))];
    let opened = vec![open(1, &["/mnt"], ebs(1)), ebs(2)];
    assert_eq!(short(&config(""), Provision, one()), "");
    assert_eq!(short(&expecting("ebs = 2"), Provision, one()), "found 1 of at least 2 ebs volumes");
    assert_eq!(short(&expecting("ebs = 2"), Provision, opened.clone()), "", "one to be formatted counts");
    assert_eq!(short(&expecting("ebs = 2"), Unlock, opened), "found 1 of at least 2 ebs volumes", "not by unlock");
    let refused = vec![with(header(1), ebs(1)), with(foreign(), ebs(2))];
    assert_eq!(short(&expecting("ebs = 2"), Provision, refused), "found 1 of at least 2 ebs volumes");
    let both = expecting("ebs = 1\ninstance_store = 1");
    assert_eq!(short(&both, Provision, one()), "found 0 of at least 1 instance-store volumes");
    let ignored = config("[volumes]\nebs = \"ignore\"\n[volumes.expect]\nebs = 2");
    assert_eq!(short(&ignored, Provision, one()), "", "what is ignored is not expected");
    assert_eq!(short(&expecting("ebs = 2"), Mode::Grow, one()), "");
    check(
        "told",
        Provision,
        &expecting("ebs = 1"),
        vec![],
        vec![],
        &[
            "nobody: wrong: found 0 of at least 1 ebs volumes -> attach the missing volumes, or lower volumes.expect.ebs",
        ],
    );
}

#[test]
fn a_disk_that_comes_late_finds_its_record() {
    let changes = |config: &Config, volumes: Vec<VolumeRecord>, devices: Vec<DeviceFacts>| {
        let plan = plan(Unlock, config, &state(volumes), &inventory(devices));
        (plan.changes, plan.refusals.len())
    };
    // where fewer are fine
    let two = vec![known(1, "/mnt", &store(1)), known(2, "/mnt1", &store(2))];
    assert_eq!(changes(&expecting("instance_store = 1"), two, vec![with(header(1), store(1))]), (vec![], 0));
    // where names moved, and it cannot be read now
    let xvdb = || xen("xvdb", "ephemeral0");
    let hidden = with(Content::Unknown { reason: "no answer".into() }, xen("xvdc", "ephemeral1"));
    let same_name = vec![known(1, "/mnt", &xvdb()), known(2, "/mnt1", &xvdb())];
    let (changes, refusals) = changes(&config(""), same_name, vec![with(header(2), xvdb()), hidden]);
    assert_eq!((changes, refusals), (vec![], 1));
}

#[test]
fn instance_store_whose_formatting_was_interrupted_is_missed_as_well() {
    let volumes = || vec![known(1, "/mnt", &ebs(1)), intent(2, "/mnt1", &store(2))];
    let there = || vec![with(header(1), ebs(1))];
    for mode in [Provision, Unlock] {
        let plan = plan(mode, &config(""), &state(volumes()), &inventory(there()));
        assert_eq!(plan.refusals.len(), 1, "{mode:?}");
        assert!(plan.refusals[0].finding.evidence.contains("is gone"), "{}", plan.refusals[0].finding.evidence);
    }
    let two = vec![intent(1, "/mnt1", &store(1)), intent(2, "/mnt2", &store(2))];
    assert_eq!(formats(&config(""), two, vec![store(7), store(8)]), "vol7=/mnt1 for #1 vol8=/mnt2 for #2");
}

#[test]
fn the_first_rule_that_matches_a_disk_decides_whatever_later_ones_may_mean() {
    let rules = config(
        "[[volumes.match]]\nserial = \"vol1\"\nrole = \"ebs\"\n[[volumes.match]]\npath = \"/dev/sdf\"\nrole = \"ignore\"",
    );
    assert_eq!(formats(&rules, vec![], vec![ebs(1)]), "vol1=/mnt");
}

#[test]
fn strangers_are_told_from_what_is_connected_with_this_node() {
    let token = |key: u8, instance: Option<&str>| {
        let key = WrappedKey::new(vec![key]).unwrap();
        let token = Token::new(KeySource::aws_kms(key, "arn:key".to_owned()), instance.map(str::to_owned));
        Content::Luks2 { luks_uuid: id(9), token: Some(Box::new(token)) }
    };
    let unreadable = Content::Unknown { reason: "i/o error".to_owned() };
    let state = State { instance_id: Some("i-here".to_owned()), ..state(vec![known(1, "/mnt", &ebs(1))]) };
    for (content, is_stranger) in [
        (foreign(), true),
        (unreadable, true),
        (token(9, Some("i-other")), true),
        // nobody knows where it was made: it may be this node's, from before the state file was restored
        (token(9, None), false),
        (token(1, Some("i-other")), false),
        (token(9, Some("i-here")), false),
    ] {
        let what = content.to_string();
        let devices = vec![with(header(1), ebs(1)), with(content, ebs(2))];
        let mut plan = plan(Provision, &config(""), &state, &inventory(devices.clone()));
        assert_eq!(
            plan.refusals.iter().map(|refusal| refusal.is_stranger).collect::<Vec<_>>(),
            [is_stranger],
            "{what}"
        );
        plan.leave_strangers();
        assert_eq!(plan.refusals.is_empty(), is_stranger, "{what}");
        let unlock = super::plan(Unlock, &config(""), &state, &inventory(devices));
        assert_eq!((unlock.refusals.is_empty(), unlock.steps.len()), (is_stranger, 1), "{what}");
    }
    // a known volume that is not as it should be is none
    let unlock = plan(Unlock, &config(""), &state, &inventory(vec![with(foreign(), ebs(1))]));
    assert!(unlock.refusals[0].finding.severity == Severity::Wrong && !unlock.refusals[0].is_stranger);
}

#[test]
fn a_disk_that_a_known_volume_was_on_before_is_never_formatted() {
    let moved = || vec![VolumeRecord { former_serials: vec!["vol1".to_owned()], ..known(7, "/mnt", &ebs(2)) }];
    let taken = config("[volumes]\nnoise = \"format-ebs\"");
    for (config, former) in [(config(""), ebs(1)), (taken.clone(), ebs(1)), (taken, with(noise(), ebs(1)))] {
        let plan = plan(Provision, &config, &state(moved()), &inventory(vec![with(header(7), ebs(2)), former]));
        assert_eq!((plan.steps.len(), plan.refusals.len()), (1, 1));
        assert!(
            plan.refusals[0].finding.evidence.contains("was on this disk before"),
            "{}",
            plan.refusals[0].finding.evidence
        );
    }
}

#[test]
fn a_volume_belongs_to_the_disk_that_it_was_used_on_last() {
    let changes = |mode, volumes: Vec<VolumeRecord>, devices: Vec<DeviceFacts>| {
        plan(mode, &config(""), &state(volumes), &inventory(devices)).changes
    };
    let follow = |n: u32| Change::Moved { luks_uuid: id(1), serial: format!("vol{n}"), device: format!("nvme{n}n1") };
    let k = || vec![known(1, "/mnt", &ebs(1))];
    for mode in [Provision, Unlock] {
        assert_eq!(changes(mode, k(), vec![with(header(1), ebs(2))]), [follow(2)]);
        assert_eq!(changes(mode, k(), vec![open(1, &["/mnt"], ebs(2))]), [follow(2)], "open since an older release");
        assert_eq!(changes(mode, k(), vec![open(1, &[], ebs(2))]), [follow(2)]);
        assert_eq!(changes(mode, k(), vec![with(header(1), ebs(1))]), [], "nothing new");
        let back = vec![with(header(1), ebs(2)), with(header(1), ebs(1))];
        assert_eq!(changes(mode, k(), back), [], "the copy is refused");
    }
    assert_eq!(changes(Mode::Grow, k(), vec![open(1, &["/mnt"], ebs(2))]), []);
    let xvdb = || vec![known(1, "/mnt", &xen("xvdb", "ebs1"))];
    assert_eq!(changes(Unlock, xvdb(), vec![with(header(1), xen("xvdc", "ebs2"))]), [], "names move at each boot");
    assert_eq!(changes(Unlock, xvdb(), vec![with(header(1), ebs(2))]), [follow(2)], "a serial number is better");
    let two = vec![known(1, "/mnt", &ebs(1)), known(2, "/mnt1", &ebs(2))];
    assert_eq!(changes(Unlock, two, vec![with(header(1), ebs(2))]), [], "the disk of another volume");
    assert_eq!(changes(Unlock, k(), vec![with(header(1), store(2))]), [], "of another role");
}

#[test]
fn what_does_not_fit_a_disk_is_found_before_anything_is_done() {
    let sectors = config("[luks]\nsector_size = 4096");
    let odd = DeviceFacts { size: GIB + 512, ..ebs(1) };
    let or = "or add a [[volumes.match]] rule with role = \"ignore\"";
    let rule = format!("remove luks.sector_size from the configuration, so that each disk gets a size that fits, {or}");
    let says = format!("refused: its size, 1073742336 bytes, is not a multiple of luks.sector_size, 4096 -> {rule}");
    one_disk(&sectors, vec![("odd", Provision, vec![], odd.clone(), says)]);
    assert_eq!(formats(&sectors, vec![], vec![ebs(1)]), "vol1=/mnt");
    assert_eq!(formats(&config(""), vec![], vec![odd.clone()]), "vol1=/mnt");
    // what is begun is begun with a size of its own
    assert_eq!(formats(&sectors, vec![intent(1, "/mnt", &odd)], vec![with(header(1), odd)]), "vol1=/mnt");
    let small = DeviceFacts { size: 2 * DATA_OFFSET - 512, ..ebs(1) };
    let says = format!(
        "refused: it has 31.9 MiB, but the LUKS2 header alone takes 16 MiB -> attach a disk of at least 32 MiB, {or}"
    );
    one_disk(&config(""), vec![("small", Provision, vec![], small, says)]);
    let smallest = DeviceFacts { size: 2 * DATA_OFFSET, ..ebs(1) };
    assert_eq!(formats(&config(""), vec![], vec![smallest]), "vol1=/mnt");
}

#[test]
fn a_mapping_whose_header_cannot_be_read_is_a_volume_only_where_the_state_file_is_lost() {
    let unreadable = || Some(Content::Unknown { reason: "i/o error".to_owned() });
    let ours = DeviceFacts { content: unreadable(), ..open(9, &["/data"], ebs(1)) };
    let others_name = Holder { dm_name: Some("secrets".to_owned()), ..mapping(9, &["/data"]) };
    let others = DeviceFacts { content: unreadable(), holders: vec![others_name], ..ebs(1) };
    let is_ours = |state: &State, facts: &DeviceFacts| {
        unknown_volume(&config(""), state, &inventory(vec![facts.clone()]), facts).is_some()
    };
    assert!(is_ours(&State::default(), &ours));
    assert!(!is_ours(&State::default(), &others), "under a name that the agent does not give");
    assert!(!is_ours(&state(vec![known(1, "/mnt", &ebs(2))]), &ours), "there is a state file");
    let header = with(header(9), ebs(1));
    assert!(is_ours(&state(vec![known(1, "/mnt", &ebs(2))]), &header));
    assert!(!is_ours(&state(vec![known(9, "/mnt", &ebs(1))]), &header), "it is known");
}

#[test]
fn a_new_volume_is_not_nested_with_another_whichever_would_be_inside() {
    for (base, at) in [("/mnt", "/mnt/a"), ("/mnt/a/b", "/mnt/a")] {
        let config = config(&format!("[filesystem]\nmount_base = \"{base}\""));
        let plan = plan(
            Provision,
            &config,
            &state(vec![known(1, at, &ebs(1))]),
            &inventory(vec![with(header(1), ebs(1)), ebs(2)]),
        );
        let lines = lines(&plan);
        assert_eq!(lines[0], format!("nvme1n1: unlock #1 at {at}"));
        let says = format!(
            "nvme2n1: refused: mount point {base} would be nested with {at}, the mount point of another volume"
        );
        assert!(lines[1].starts_with(&says), "{lines:?}");
    }
}

#[test]
fn a_change_of_keys_concerns_the_volumes_that_are_behind_and_nothing_else() {
    let replaced = |volumes: Vec<VolumeRecord>| {
        let mut state = state(volumes);
        let new = KeyRecord { id: 2, ..state.keys[0].clone() };
        state.keys[0].replaced_by = Some(2);
        state.keys.push(new);
        state
    };
    let has_new = |record| VolumeRecord { key: 2, ..record };
    let keyslot = ProvenKeyslot { number: 0, sha256: String::new() };
    let loses_old = |record| VolumeRecord {
        key_change: Some(KeyChange::Removing { key: 1, keyslot: keyslot.clone() }),
        ..has_new(record)
    };
    let begun = |record| VolumeRecord { key_change: Some(KeyChange::Adding { key: 2 }), ..record };
    let k = |n| known(n, "/mnt", &ebs(n));
    let current = "left: has the current key";
    let copy = "refused: its header is a copy: LUKS UUID #1 is on nvme1n1, where it was last used -> detach the copy; or detach nvme1n1 to use the copy";
    let not_found = "wrong: expected known volume, LUKS UUID #1, but its header was not found -> run 'luks-agent plan' to see what is on the disk";
    let away = "nobody: left: not attached; it gets its new key when it comes back, and its former key stays recorded";
    for (what, volumes, disks, expected) in [
        ("open", vec![k(1)], vec![open(1, &["/mnt"], ebs(1))], vec!["nvme1n1: change key of #1 from 1 to 2"]),
        ("closed", vec![k(1)], vec![with(header(1), ebs(1))], vec!["nvme1n1: change key of #1 from 1 to 2"]),
        ("begun", vec![begun(k(1))], vec![with(header(1), ebs(1))], vec!["nvme1n1: change key of #1 from 1 to 2"]),
        ("half", vec![loses_old(k(1))], vec![with(header(1), ebs(1))], vec!["nvme1n1: change key of #1 from 2 to 2"]),
        ("done", vec![has_new(k(1))], vec![open(1, &["/mnt"], ebs(1))], vec![&*format!("nvme1n1: {current}")]),
        ("away", vec![k(1)], vec![], vec![away]),
        ("away, and done", vec![has_new(k(1))], vec![], vec![]),
        ("blank", vec![k(1)], vec![ebs(1)], vec![&*format!("nvme1n1: {not_found}")]),
        (
            "stranger",
            vec![k(1)],
            vec![with(header(1), ebs(1)), ebs(2)],
            vec!["nvme1n1: change key of #1 from 1 to 2", "nvme2n1: left: not a volume of this node"],
        ),
        (
            "copy",
            vec![k(1)],
            vec![with(header(1), ebs(1)), with(header(1), ebs(2))],
            vec!["nvme1n1: change key of #1 from 1 to 2", &*format!("nvme2n1: {copy}")],
        ),
        (
            "not committed",
            vec![intent(1, "/mnt", &ebs(1))],
            vec![ebs(1)],
            vec!["nvme1n1: left: not a volume of this node"],
        ),
    ] {
        let plan = plan(Mode::Rekey, &config(""), &replaced(volumes), &inventory(disks));
        assert_eq!(lines(&plan), expected, "{what}");
        assert!(plan.changes.is_empty() && plan.shortfalls.is_empty(), "{what}");
    }
    // provision catches up with open volumes; those that it opens are left to the next run
    for (what, disk, expected) in [
        ("open", open(1, &["/mnt"], ebs(1)), "nvme1n1: change key of #1 from 1 to 2"),
        ("not mounted", open(1, &[], ebs(1)), "nvme1n1: mount #1 at /mnt"),
        ("closed", with(header(1), ebs(1)), "nvme1n1: unlock #1 at /mnt"),
    ] {
        let inventory = inventory(vec![disk]);
        assert_eq!(lines(&plan(Provision, &config(""), &replaced(vec![k(1)]), &inventory)), [expected], "{what}");
    }
    let inventory = inventory(vec![open(1, &["/mnt"], ebs(1))]);
    let unlock = plan(Unlock, &config(""), &replaced(vec![k(1)]), &inventory);
    assert_eq!(lines(&unlock), ["nvme1n1: left #1 at /mnt: open, mounted at /mnt"]);
}

#[test]
fn a_volume_that_is_being_erased_is_neither_opened_nor_formatted() {
    let erasing = || vec![VolumeRecord { phase: Phase::Erasing, ..known(1, "/mnt", &ebs(1)) }];
    let says =
        "wrong: erasing volume #1 was interrupted: no key may open it any more -> run 'luks-agent erase' for it again";
    for mode in [Provision, Unlock] {
        for disk in [ebs(1), with(header(1), ebs(1)), with(Content::Unfinished, ebs(1)), open(1, &[], ebs(1))] {
            one_disk(&config(""), vec![("erasing", mode, erasing(), disk, says.to_owned())]);
        }
    }
}

#[test]
fn a_cipher_that_the_kernel_lacks_is_held_against_those_that_need_it_alone() {
    let serpent = config("[luks]\ncipher = \"serpent-xts-plain64\"");
    let encryption = Encryption { cipher: Cipher::SerpentXtsPlain64, key_size: 512 };
    let missing = MissingCipher { encryption, reason: "no such cipher".into(), modules: vec!["serpent".into()] };
    let remedy = "load the missing modules with 'modprobe -a serpent', or install the kernel package that contains them, then try again";
    let says =
        format!("this kernel cannot encrypt with serpent-xts-plain64 and keys of 512 bits: no such cipher -> {remedy}");
    let flags = Flags::default();
    let layout = Layout { cipher: encryption.cipher, key_size: 512, sector_size: 512, flags };
    let with_serpent = |record| VolumeRecord { header: HeaderPolicy::Recorded(layout), ..record };
    // a new volume, one of each cipher, one that is begun, and one that is open
    let state = state(vec![
        known(2, "/mnt2", &ebs(2)),
        with_serpent(known(3, "/mnt3", &ebs(3))),
        with_serpent(intent(4, "/mnt4", &ebs(4))),
        with_serpent(known(5, "/mnt5", &ebs(5))),
    ]);
    let devices = vec![
        ebs(1),
        with(header(2), ebs(2)),
        with(header(3), ebs(3)),
        with(Content::Unfinished, ebs(4)),
        open(5, &[], ebs(5)),
    ];
    let mut inventory = inventory(devices);
    let needs = |config: &Config, inventory: &Inventory| {
        needed_ciphers(config, &state, &plan(Provision, config, &state, inventory)).into_iter().collect::<Vec<_>>()
    };
    let aes = HeaderPolicy::Possible.encryption();
    assert_eq!(needs(&serpent, &inventory), [aes, encryption]);
    inventory.missing_ciphers = vec![missing];
    assert_eq!(needs(&serpent, &inventory), [aes]);
    let expected = [
        format!("nvme1n1: refused: {says}"),
        "nvme2n1: unlock #2 at /mnt2".to_owned(),
        format!("nvme3n1: wrong: {says}"),
        format!("nvme4n1: refused: {says}"),
        "nvme5n1: mount #5 at /mnt5".to_owned(),
    ];
    let found = lines(&plan(Provision, &serpent, &state, &inventory));
    assert_eq!(found, expected);
    let aes_is_configured = lines(&plan(Provision, &config(""), &state, &inventory));
    assert!(aes_is_configured[0].starts_with("nvme1n1: format at "), "{aes_is_configured:?}");
}

#[test]
fn an_ignored_link_that_is_not_there_holds_the_disks_that_it_may_mean() {
    let rule =
        |path: &str, more: &str| config(&format!("[[volumes.match]]\npath = \"{path}\"\n{more}role = \"ignore\""));
    let linked = |n: u32, links: &[&str]| DeviceFacts { links: links.iter().map(PathBuf::from).collect(), ..ebs(n) };
    let plain = "/dev/disk/by-path/x";
    let held = |path: &str, facts: DeviceFacts| formats(&rule(path, ""), vec![], vec![facts]).is_empty();
    for path in ["/dev/disk/by-id/data", "/dev/disk/by-path/pci-*", "/dev/disk/*/data", "/dev/sdf", "/dev/xvd*"] {
        assert!(held(path, ebs(1)), "{path}: without any link");
    }
    for path in ["/dev/disk/by-uuid/x", "/dev/disk/by-label/data", "/dev/nvme7n1", "/dev/mapper/vg-data"] {
        assert!(!held(path, ebs(1)), "{path} means no blank disk without links");
    }
    assert!(!held("/dev/disk/by-id/data", linked(1, &[plain])), "udev has made its links, and that is none of them");
    assert!(held("/dev/sdf", linked(1, &[plain])), "this system has no such names");
    assert!(!held("/dev/sdf", linked(1, &[plain, "/dev/sdb"])), "it has, and this is another");
    assert!(!held("/dev/sdf", DeviceFacts { links: vec![plain.into()], ..store(1) }), "instance store has none");
    let there = vec![ebs(1), linked(2, &["/dev/disk/by-id/data"])];
    assert_eq!(formats(&rule("/dev/disk/by-id/data", ""), vec![], there), "vol1=/mnt", "the link is there");
    let other = rule("/dev/disk/by-id/data", "serial = \"vol9\"\n");
    assert_eq!(formats(&other, vec![], vec![ebs(1)]), "vol1=/mnt", "another serial number is meant");
    let takes = config("[[volumes.match]]\npath = \"/dev/disk/by-id/data\"\nrole = \"ebs\"");
    assert_eq!(formats(&takes, vec![], vec![ebs(1)]), "vol1=/mnt", "a rule that ignores nothing");
    check(
        "told",
        Provision,
        &rule("/dev/disk/by-id/data", ""),
        vec![],
        vec![ebs(1)],
        &[
            "nvme1n1: refused: a [[volumes.match]] rule ignores /dev/disk/by-id/data, which does not exist and may be this disk -> check whether 'udevadm settle' creates the link, or match the disk by its serial number in the rule",
        ],
    );
}

#[test]
fn with_require_rule_only_what_a_rule_names_is_taken() {
    let named = config("[volumes]\nrequire_rule = true\n[[volumes.match]]\nserial = \"vol1\"\nrole = \"ebs\"");
    let because = "left: volumes.require_rule is set, and no [[volumes.match]] rule names it";
    let devices = vec![ebs(1), ebs(2), store(3), with(foreign(), ebs(4))];
    let others = ["nvme2n1", "nvme3n1", "nvme4n1"].map(|name| format!("{name}: {because}"));
    let format = format!("nvme1n1: format at /mnt: {BLANK}");
    let expected: Vec<&str> = [&format].into_iter().chain(&others).map(String::as_str).collect();
    check("one of four", Provision, &named, vec![], devices, &expected);
    assert!(!wants_probe(&named, &ebs(2)), "it is not even opened");
    // a volume that is known is not passed over because of it
    let plan = plan(Provision, &named, &state(vec![known(2, "/mnt", &ebs(2))]), &inventory(vec![ebs(2)]));
    assert!(plan.refusals[0].finding.severity == Severity::Wrong, "{:?}", plan.refusals);
    let opened = vec![open(2, &["/mnt"], ebs(2))];
    check(
        "open",
        Unlock,
        &named,
        vec![known(2, "/mnt", &ebs(2))],
        opened,
        &["nvme2n1: left #2 at /mnt: open, mounted at /mnt"],
    );
}
