//! Reports as people and programs get them, and exit codes.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::*;
use crate::apply::{KeyError, Outcome, StepResult};
use crate::disk::{Content, DeviceFacts, Evidence};
use crate::job::Basis;
use crate::key::Provider;
use crate::kms::{Class, KmsError};
use crate::luks2::HeaderPolicy;
use crate::plan::{Action, Finding, Format, Grow, Left, Plan, Refusal, Severity, Step, Subject, Unlock};
use crate::state::{Phase, StateError, VolumeRecord, VolumeRole};
use crate::storage::FilesystemKind;

fn id(n: u32) -> Uuid {
    Uuid::from_u128(u128::from(n))
}

fn disk(n: u32) -> DeviceFacts {
    let serial = Some(format!("vol0{n}"));
    DeviceFacts { size: u64::from(n) << 30, serial, ..DeviceFacts::sample(&format!("nvme{n}n1"), n) }
}

fn at(n: u32) -> Option<PathBuf> {
    Some(PathBuf::from(format!("/mnt{n}")))
}

fn blank() -> Basis {
    Basis::Blank { evidence: Evidence { read: 512 << 20, of: 4 << 30 }, replaces: None }
}

fn format(n: u32, basis: Basis) -> Step {
    let content = match &basis {
        Basis::Blank { evidence, .. } => Content::Blank { evidence: *evidence },
        Basis::Noise { evidence, .. } => Content::Noise { offset: 0, evidence: *evidence },
        Basis::Unfinished { .. } => Content::Unfinished,
        Basis::Wipe { .. } => Content::Unrecognised { offset: 4096 },
    };
    let action = Action::Format(Format { resume: None, basis, mount_point: at(n), filesystem: FilesystemKind::Xfs });
    Step { device: DeviceFacts { content: Some(content), ..disk(n) }, role: VolumeRole::Ebs, action }
}

fn unlock(n: u32, is_open: bool) -> Step {
    let action = Action::Unlock(Unlock {
        luks_uuid: id(n),
        key: 1,
        mount_point: at(n),
        filesystem: FilesystemKind::Xfs,
        is_open,
    });
    let content = Some(Content::Luks2 { luks_uuid: id(n), token: None });
    Step { device: DeviceFacts { content, ..disk(n) }, role: VolumeRole::InstanceStore, action }
}

fn grow(n: u32, from: u64) -> Step {
    let action = Action::Grow(Grow {
        luks_uuid: id(n),
        key: 1,
        mount_point: at(n),
        filesystem: FilesystemKind::Xfs,
        from,
        grows_mapping: true,
    });
    Step { device: disk(n), role: VolumeRole::Ebs, action }
}

fn subject(n: u32) -> Subject {
    let disk = disk(n);
    Subject {
        device: Some(disk.name),
        role: "ebs".to_owned(),
        serial: disk.serial,
        size: disk.size,
        content: disk.content,
    }
}

fn refusal(n: u32, severity: Severity) -> Refusal {
    let (evidence, remedy) = ("not blank: ext4 at byte 1080".to_owned(), "wipe it".to_owned());
    let finding = Finding { severity, evidence, remedy };
    let content = Some(Content::Foreign { signatures: vec!["ext4 at byte 1080".to_owned()] });
    Refusal { subject: Subject { content, ..subject(n) }, finding, is_stranger: false }
}

fn unchanged(n: u32) -> Left {
    let volume = VolumeRecord {
        luks_uuid: id(n),
        key: 1,
        key_change: None,
        volume_key_change: None,
        serial: None,
        device: String::new(),
        role: VolumeRole::Ebs,
        size: 0,
        mount_point: at(n),
        filesystem: FilesystemKind::Xfs,
        header: HeaderPolicy::Possible,
        phase: Phase::Committed,
        keyslot: None,
        volume_key: None,
        made: None,
        former_serials: Vec::new(),
    };
    Left { subject: subject(n), because: format!("open, mounted at /mnt{n}"), volume: Some(volume) }
}

fn left(n: u32) -> Left {
    let subject = Subject { role: "boot".to_owned(), ..subject(n) };
    Left { subject, because: "carries / through nvme0n1p1".to_owned(), volume: None }
}

fn plan() -> Plan {
    let lost = Subject { device: None, content: None, ..subject(8) };
    let absent = Refusal { subject: lost, ..refusal(8, Severity::Wrong) };
    Plan {
        steps: vec![
            format(1, blank()),
            format(2, Basis::Unfinished { luks_uuid: id(2) }),
            format(3, Basis::Wipe { found: Content::Unrecognised { offset: 4096 }, replaces: None }),
            unlock(4, false),
            unlock(5, true),
        ],
        refusals: vec![refusal(7, Severity::Refused), absent],
        left: vec![unchanged(6), left(9)],
        ..Plan::default()
    }
}

fn outcome(results: Vec<StepResult>, key_error: Option<KeyError>) -> Outcome {
    Outcome { results, key_error }
}

/// Both forms of a report, without what changes with every release.
fn both(report: &Report) -> String {
    let json = serde_json::to_string_pretty(report).unwrap();
    format!("{report}\n{json}\n").replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn a_plan_as_it_is_printed() {
    insta::assert_snapshot!("plan", both(&Report::of_plan(&plan())));
}

#[test]
fn an_outcome_as_it_is_printed() {
    let results = vec![
        StepResult::Formatted { luks_uuid: id(1), warning: None },
        StepResult::Changed { content: Content::Foreign { signatures: vec!["xfs at byte 0".to_owned()] } },
        StepResult::Failed { message: "'mkfs.xfs' failed, exit status: 1: too small".to_owned() },
        StepResult::Unlocked { luks_uuid: id(4), filesystem_errors: false, warning: None },
        StepResult::Hung { message: "no answer within 60 s (volumes.deadline)".to_owned() },
    ];
    insta::assert_snapshot!("outcome", both(&Report::of_outcome("provision", &plan(), &outcome(results, None))));
}

#[test]
fn an_outcome_without_a_key_as_it_is_printed() {
    let plan = Plan { steps: vec![unlock(4, false)], refusals: vec![], left: vec![left(9)], ..Plan::default() };
    let error = KeyError::Service(KmsError::of_class(Class::Denied));
    let report = Report::of_outcome("unlock", &plan, &outcome(vec![StepResult::NoKey], Some(error)));
    assert_eq!(report.error(), Some("Denied"));
    insta::assert_snapshot!("without_a_key", both(&report));
}

#[test]
fn what_grows_as_it_is_printed() {
    let plan = Plan {
        steps: vec![grow(2, 1 << 30), grow(3, 3 << 30), grow(4, 4 << 30)],
        refusals: vec![],
        left: vec![left(9)],
        ..Plan::default()
    };
    let results = vec![StepResult::Grown, StepResult::Grown, StepResult::Unchanged];
    let reports = [Report::of_plan(&plan), Report::of_outcome("grow", &plan, &outcome(results, None))];
    insta::assert_snapshot!(reports.map(|report| report.to_string()).join("\n"));
    let plan = Plan { steps: vec![grow(4, 4 << 30)], refusals: vec![], left: vec![], ..Plan::default() };
    let report = Report::of_outcome("grow", &plan, &outcome(vec![StepResult::Unchanged], None));
    assert_eq!(report.summary, "nothing changed: 1 unchanged");
}

#[test]
fn no_debug_output_reaches_people() {
    let results = vec![StepResult::Changed { content: Content::Unrecognised { offset: 4096 } }];
    let plan = Plan { steps: vec![format(1, blank())], refusals: vec![], left: vec![], ..Plan::default() };
    let text = both(&Report::of_outcome("provision", &plan, &outcome(results, None)));
    assert!(text.contains("made: data without a known signature, first seen at byte 4096"), "{text}");
    assert!(!text.contains("Unrecognised {"), "{text}");
}

#[test]
fn programs_can_tell_the_schema() {
    let report = Report::new("status", vec![], "nothing".to_owned());
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema"], "luks-agent/report");
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["agent_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["command"], "status");
    assert_eq!(json["exit_code"], 0);
    assert_eq!(json["error"], serde_json::Value::Null);
    assert_eq!(json["rows"], serde_json::json!([]));
}

#[test]
fn exit_codes_of_outcomes() {
    let good = || StepResult::Unlocked { luks_uuid: id(4), filesystem_errors: false, warning: None };
    let failed = || StepResult::Failed { message: String::new() };
    let hung = || StepResult::Hung { message: String::new() };
    let changed = || StepResult::Changed { content: Content::Unfinished };
    let service = |class| Some(KeyError::Service(KmsError::of_class(class)));
    let state = StateError::InMemory { path: Path::new("/run").into(), on: "the tmpfs on /run".to_owned() };
    let (none, safety, known) = (vec![], vec![refusal(7, Severity::Refused)], vec![refusal(7, Severity::Wrong)]);
    for (what, results, key_error, refusals, code) in [
        ("nothing to do", vec![], None, &none, 0),
        ("done", vec![good()], None, &none, 0),
        ("failed", vec![good(), failed()], None, &none, 1),
        ("hung", vec![good(), hung()], None, &none, 1),
        ("changed", vec![good(), changed()], None, &none, 3),
        ("refused", vec![good()], None, &safety, 3),
        ("known and wrong", vec![good()], None, &known, 1),
        ("failed and refused", vec![failed()], None, &safety, 1),
        ("no key", vec![StepResult::NoKey], service(Class::Denied), &none, 4),
        ("no key, and some failed", vec![StepResult::NoKey, failed()], service(Class::Transient), &known, 4),
        ("wrong key id", vec![StepResult::NoKey], service(Class::Configuration), &none, 2),
        ("damaged wrapped key", vec![StepResult::NoKey], service(Class::WrappedKey), &none, 1),
        (
            "key not proven",
            vec![StepResult::NoKey],
            Some(KeyError::NotProven { provider: Provider::AwsKms, key_arn: "k".into() }),
            &none,
            1,
        ),
        ("key not recorded", vec![StepResult::NoKey], Some(KeyError::Unrecorded(1)), &none, 1),
        ("key not stored", vec![StepResult::NoKey], Some(KeyError::State(state)), &none, 1),
        ("key missing in silence", vec![StepResult::NoKey], None, &none, 4),
    ] {
        let steps = results.iter().map(|_| unlock(4, false)).collect();
        let plan = Plan { steps, refusals: refusals.clone(), left: vec![left(9)], ..Plan::default() };
        let report = Report::of_outcome("provision", &plan, &outcome(results, key_error));
        assert_eq!(report.exit_code(), code, "{what}");
        assert_eq!(serde_json::to_value(&report).unwrap()["exit_code"], code, "{what}");
    }
}

#[test]
fn exit_codes_of_plans() {
    let plan = |refusals| Plan { steps: vec![format(1, blank())], refusals, left: vec![], ..Plan::default() };
    for (refusals, code) in [
        (vec![], 0),
        (vec![refusal(7, Severity::Refused)], 3),
        (vec![refusal(7, Severity::Wrong)], 1),
        (vec![refusal(7, Severity::Refused), refusal(8, Severity::Wrong)], 1),
    ] {
        assert_eq!(Report::of_plan(&plan(refusals)).exit_code(), code);
    }
}

#[test]
fn a_second_run_says_that_nothing_changed() {
    let say = |plan: Plan| Report::of_outcome("provision", &plan, &outcome(vec![], None)).summary;
    let left = |left| Plan { steps: vec![], refusals: vec![], left, ..Plan::default() };
    assert_eq!(say(left(vec![unchanged(1), unchanged(2)])), "nothing changed: 2 unchanged");
    assert_eq!(say(left(vec![])), "no volume needs work, nothing changed");
    let refused = Plan {
        steps: vec![],
        refusals: vec![refusal(1, Severity::Refused)],
        left: vec![unchanged(2)],
        ..Plan::default()
    };
    assert_eq!(say(refused), "nothing changed: 1 unchanged, 1 refused");
}
