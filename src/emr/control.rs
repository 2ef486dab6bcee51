//! The verdicts of the checkers, each by the rule of its checker and nothing else.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::document::{Document, Form};
use super::pointer::Pointer;
use super::surface::Place;
use super::view::{AT_REST, AT_REST_FLAG, ENCRYPTION, Flag, IN_TRANSIT_FLAG, LOCAL, S3, TLS, View, as_boolean, shown};

/// A control.
#[derive(Debug)]
pub struct Control {
    /// Its name, as its checker prints it.
    pub id: &'static str,
    /// The checker.
    pub checker: &'static str,
    /// What people take a pass for.
    pub title: &'static str,
    /// Where one would think that data is encrypted if it passes.
    pub covers: &'static [Place],
    rule: fn(View<'_>) -> Outcome,
    /// Whether it fails on a document that a template holds as a string.
    needs_object: bool,
}

/// How a control ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The checker passes it.
    Pass,
    /// The checker fails it.
    Fail,
    /// A function of a template decides, so nobody knows before the deployment.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        })
    }
}

/// The verdict of a control on a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ControlVerdict {
    /// The control.
    pub id: &'static str,
    /// The checker.
    pub checker: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// The place that decides.
    pub at: Pointer,
    /// What stands there.
    pub reason: String,
}

/// What a rule found.
struct Outcome {
    verdict: Verdict,
    at: Pointer,
    reason: String,
}

const DISKS: &[Place] = &[Place::BootVolume, Place::EbsVolumes, Place::InstanceStoreOther];
const EVERYTHING: &[Place] = &[Place::BootVolume, Place::EbsVolumes, Place::InstanceStoreOther, Place::InTransit];
const NETWORK: &[Place] = &[Place::InTransit];

/// All controls, in the order of reports.
pub static CONTROLS: [Control; 11] = [
    control("EMR.3", "Security Hub", "encrypted at rest", DISKS, emr_3, false),
    control("EMR.4", "Security Hub", "encrypted in transit", NETWORK, emr_4, false),
    control("CT.EMR.PR.1", "Control Tower", "encrypted at rest in S3", &[], ct_1, true),
    control("CT.EMR.PR.2", "Control Tower", "encrypted in S3 with a KMS key", &[], ct_2, true),
    control("CT.EMR.PR.3", "Control Tower", "EBS encryption of local disks", DISKS, ct_3, true),
    control("CT.EMR.PR.4", "Control Tower", "encrypted in transit", NETWORK, ct_4, true),
    control("CKV_AWS_171", "checkov", "encryption with SSE-KMS", &[], ckv_171, false),
    control("CKV_AWS_349", "checkov", "local disks encrypted", DISKS, ckv_349, false),
    control("CKV_AWS_350", "checkov", "EBS volumes encrypted", &[Place::BootVolume, Place::EbsVolumes], ckv_350, false),
    control("CKV_AWS_351", "checkov", "encrypted in transit", NETWORK, ckv_351, false),
    control("5b033ec8-f079-4323-b5c8-99d4620433a9", "KICS", "encrypted at rest and in transit", EVERYTHING, kics, true),
];

const fn control(
    id: &'static str,
    checker: &'static str,
    title: &'static str,
    covers: &'static [Place],
    rule: fn(View<'_>) -> Outcome,
    needs_object: bool,
) -> Control {
    Control { id, checker, title, covers, rule, needs_object }
}

impl Control {
    /// Returns its verdict on a document.
    pub fn judge(&self, document: &Document) -> ControlVerdict {
        let Outcome { verdict, at, reason } = match document.form {
            Form::CloudFormation if document.is_text && self.needs_object => Outcome {
                verdict: Verdict::Fail,
                at: Pointer::default(),
                reason: "the template has the document as a string, and this checker expects an object".to_owned(),
            },
            Form::CloudFormation
            | Form::Document
            | Form::EncryptionConfiguration
            | Form::DescribeAnswer
            | Form::CreateInput
            | Form::Terraform
            | Form::ConfigItem => (self.rule)(document.view()),
        };
        ControlVerdict { id: self.id, checker: self.checker, verdict, at, reason }
    }
}

/// Decides by one place.
fn decide(passes: bool, view: View<'_>, pointer: &str) -> Outcome {
    match (view.function(pointer), passes) {
        (Some(_), _) => outcome(Verdict::Unknown, view, pointer),
        (None, true) => outcome(Verdict::Pass, view, pointer),
        (None, false) => outcome(Verdict::Fail, view, pointer),
    }
}

/// Says what stands at the place that decides.
fn outcome(verdict: Verdict, view: View<'_>, pointer: &str) -> Outcome {
    let at = Pointer::new(pointer);
    let name = pointer.rsplit('/').next().unwrap_or_default();
    let reason = match view.get(pointer) {
        Some(Value::Object(_) | Value::Array(_)) if verdict == Verdict::Pass => format!("there is {name}"),
        _ => format!("{name} {}", view.says(pointer)),
    };
    Outcome { verdict, at, reason }
}

/// Decides by the first of several conditions that does not hold, or that nobody knows yet, or else by the last.
fn all_of(view: View<'_>, conditions: &[(&str, bool)]) -> Outcome {
    let is_known = |pointer: &str| view.function(pointer).is_none();
    let failed = conditions.iter().find(|(pointer, holds)| !holds && is_known(pointer));
    let unknown = || conditions.iter().find(|(pointer, _)| !is_known(pointer));
    let (pointer, passes) = failed.or_else(unknown).or(conditions.last()).copied().unwrap_or((ENCRYPTION, true));
    decide(passes, view, pointer)
}

fn is_true(view: View<'_>, pointer: &str) -> bool {
    view.get(pointer) == Some(&Value::Bool(true))
}

/// Whether Python takes a value for true.
fn is_truthy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(on)) => *on,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(object)) => !object.is_empty(),
    }
}

/// AWS Config's rule `emr-security-configuration-encryption-rest`: the flag, and nothing else. AWS's own examples have the string.
fn emr_3(view: View<'_>) -> Outcome {
    decide(view.flag(AT_REST_FLAG) == Flag::On, view, AT_REST_FLAG)
}

/// AWS Config's rule `emr-security-configuration-encryption-transit`.
fn emr_4(view: View<'_>) -> Outcome {
    decide(view.flag(IN_TRANSIT_FLAG) == Flag::On, view, IN_TRANSIT_FLAG)
}

fn ct_1(view: View<'_>) -> Outcome {
    let mode = format!("{S3}/EncryptionMode");
    all_of(
        view,
        &[
            (AT_REST_FLAG, is_true(view, AT_REST_FLAG)),
            (AT_REST, view.object(AT_REST).is_some()),
            (&mode, view.text(&mode).is_some()),
        ],
    )
}

fn ct_2(view: View<'_>) -> Outcome {
    let first = ct_1(view);
    if first.verdict != Verdict::Pass {
        return first;
    }
    let mode = Pointer::new(S3).child("EncryptionMode");
    let modes = std::iter::once(mode).chain(view.overrides().map(|(at, _)| at.child("EncryptionMode")));
    let with_kms = |at: &Pointer| matches!(view.text(at.as_str()), Some("SSE-KMS" | "CSE-KMS"));
    // a function may make any list of buckets
    let buckets = (Pointer::new(S3).child("Overrides"), true);
    let places: Vec<(Pointer, bool)> =
        std::iter::once(buckets).chain(modes.map(|at| (at.clone(), with_kms(&at)))).collect();
    let conditions: Vec<(&str, bool)> = places.iter().map(|(at, holds)| (at.as_str(), *holds)).collect();
    all_of(view, &conditions)
}

fn ct_3(view: View<'_>) -> Outcome {
    let ebs = format!("{LOCAL}/EnableEbsEncryption");
    all_of(view, &[(AT_REST_FLAG, is_true(view, AT_REST_FLAG)), (&ebs, is_true(view, &ebs))])
}

fn ct_4(view: View<'_>) -> Outcome {
    let kind = format!("{TLS}/CertificateProviderType");
    all_of(view, &[(IN_TRANSIT_FLAG, is_true(view, IN_TRANSIT_FLAG)), (&kind, view.text(&kind).is_some())])
}

/// It searches the whole text.
fn ckv_171(view: View<'_>) -> Outcome {
    match find_text(view.value, "SSE-KMS") {
        // in a function too
        Some(at) => outcome(Verdict::Pass, view, at.as_str()),
        None => Outcome {
            verdict: Verdict::Fail,
            at: Pointer::new(S3).child("EncryptionMode"),
            reason: "the text SSE-KMS is nowhere in the document".to_owned(),
        },
    }
}

/// Returns where below a value a text is. The place is put together on the way back, as most ways lead nowhere.
fn find_text(value: &Value, text: &str) -> Option<Pointer> {
    let here = Pointer::default();
    match value {
        Value::String(found) => found.contains(text).then_some(here),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            let below = find_text(item, text)?;
            Some(here.item(index).join(below.as_str()))
        }),
        Value::Object(object) => object.iter().find_map(|(key, value)| {
            let below = if key.contains(text) { Pointer::default() } else { find_text(value, text)? };
            Some(here.child(key).join(below.as_str()))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn ckv_349(view: View<'_>) -> Outcome {
    all_of(view, &[(AT_REST_FLAG, is_true(view, AT_REST_FLAG)), (LOCAL, is_truthy(view.get(LOCAL)))])
}

fn ckv_350(view: View<'_>) -> Outcome {
    let ebs = format!("{LOCAL}/EnableEbsEncryption");
    all_of(view, &[(AT_REST_FLAG, is_true(view, AT_REST_FLAG)), (&ebs, is_truthy(view.get(&ebs)))])
}

/// It takes the string "false" for true.
fn ckv_351(view: View<'_>) -> Outcome {
    decide(is_truthy(view.get(IN_TRANSIT_FLAG)), view, IN_TRANSIT_FLAG)
}

/// It fails a flag that is there and false, and passes one that is missing.
fn kics(view: View<'_>) -> Outcome {
    let ebs = format!("{LOCAL}/EnableEbsEncryption");
    let provider = format!("{LOCAL}/EncryptionKeyProviderType");
    let is_no = |value: &Value| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("no"));
    let is_false = |value: &Value| as_boolean(value) == Some(false) || is_no(value);
    let not_false = |pointer: &str| !view.get(pointer).is_some_and(is_false);
    let is_there = |pointer: &str| view.get(pointer).is_some_and(|value| !value.is_null());
    all_of(
        view,
        &[
            (ENCRYPTION, is_there(ENCRYPTION)),
            (&ebs, not_false(&ebs)),
            (IN_TRANSIT_FLAG, not_false(IN_TRANSIT_FLAG)),
            (AT_REST_FLAG, not_false(AT_REST_FLAG)),
            (&provider, !view.has(LOCAL) || is_there(&provider)),
        ],
    )
    .said_of_flags(view)
}

impl Outcome {
    /// Says of a pass of KICS that it is one because no flag is false.
    fn said_of_flags(self, view: View<'_>) -> Self {
        match self.verdict {
            Verdict::Fail | Verdict::Unknown => self,
            Verdict::Pass => Self {
                at: Pointer::new(ENCRYPTION),
                reason: format!(
                    "EnableAtRestEncryption {}, EnableInTransitEncryption {}; a flag that is missing passes",
                    flag_said(view, AT_REST_FLAG),
                    flag_said(view, IN_TRANSIT_FLAG)
                ),
                ..self
            },
        }
    }
}

fn flag_said(view: View<'_>, pointer: &str) -> String {
    view.get(pointer).map_or_else(|| "is missing".to_owned(), |value| format!("is {}", shown(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(id: &str, value: &Value) -> Verdict {
        let control = CONTROLS.iter().find(|control| control.id == id).unwrap();
        (control.rule)(View { value, has_functions: true }).verdict
    }

    #[test]
    fn checkers_differ_over_strings_and_missing_flags() {
        let strings = json!({"EncryptionConfiguration": {"EnableAtRestEncryption": "true", "EnableInTransitEncryption": "false"}});
        assert_eq!(verdict("EMR.3", &strings), Verdict::Pass);
        assert_eq!(verdict("EMR.4", &strings), Verdict::Fail);
        assert_eq!(verdict("CKV_AWS_349", &strings), Verdict::Fail);
        assert_eq!(verdict("CKV_AWS_351", &strings), Verdict::Pass);
        let kics = CONTROLS[10].id;
        assert_eq!(verdict(kics, &strings), Verdict::Fail);
        assert_eq!(verdict(kics, &json!({"EncryptionConfiguration": {}})), Verdict::Pass);
        assert_eq!(verdict(kics, &json!({})), Verdict::Fail);
        assert_eq!(verdict(kics, &json!({"EncryptionConfiguration": {"EnableAtRestEncryption": "No"}})), Verdict::Fail);
    }

    #[test]
    fn sse_kms_anywhere_satisfies_checkov() {
        let bucket = json!({"EncryptionConfiguration": {"AtRestEncryptionConfiguration": {"S3EncryptionConfiguration": {
            "EncryptionMode": "SSE-S3", "Overrides": [{"BucketName": "b", "EncryptionMode": "SSE-KMS"}]}}}});
        assert_eq!(verdict("CKV_AWS_171", &bucket), Verdict::Pass);
        assert_eq!(verdict("CKV_AWS_171", &json!({"A": "SSE-S3"})), Verdict::Fail);
    }

    #[test]
    fn a_bucket_without_a_kms_key_fails_control_tower() {
        let with = |mode: &str| {
            json!({"EncryptionConfiguration": {"EnableAtRestEncryption": true, "AtRestEncryptionConfiguration": {
                "S3EncryptionConfiguration": {"EncryptionMode": "SSE-KMS", "Overrides": [{"EncryptionMode": mode}]}}}})
        };
        assert_eq!(verdict("CT.EMR.PR.2", &with("CSE-KMS")), Verdict::Pass);
        assert_eq!(verdict("CT.EMR.PR.2", &with("SSE-S3")), Verdict::Fail);
        assert_eq!(verdict("CT.EMR.PR.1", &with("SSE-S3")), Verdict::Pass);
    }

    #[test]
    fn a_function_above_what_a_control_looks_at_is_no_pass_and_no_fail() {
        let function = json!({"Fn::If": ["A", {}, {"Ref": "AWS::NoValue"}]});
        let verdicts = |document: &Value| {
            CONTROLS.iter().map(|control| (control.id, verdict(control.id, document))).collect::<Vec<_>>()
        };
        for (id, found) in verdicts(&json!({ "EncryptionConfiguration": function })) {
            let expected = if id == "CKV_AWS_171" { Verdict::Fail } else { Verdict::Unknown };
            assert_eq!(found, expected, "{id}");
        }
        let encryption = |at_rest: Value, s3: Value| {
            json!({"EncryptionConfiguration": {"EnableAtRestEncryption": at_rest, "EnableInTransitEncryption": false,
                "AtRestEncryptionConfiguration": s3}})
        };
        // a flag that fails decides, whatever the function makes
        assert_eq!(verdict("CT.EMR.PR.1", &encryption(json!(false), function.clone())), Verdict::Fail);
        assert_eq!(verdict("CT.EMR.PR.1", &encryption(json!(true), function.clone())), Verdict::Unknown);
        assert_eq!(verdict("EMR.3", &encryption(json!(true), function.clone())), Verdict::Pass);
        let buckets = json!({"S3EncryptionConfiguration": {"EncryptionMode": "SSE-KMS", "Overrides": function}});
        assert_eq!(verdict("CT.EMR.PR.2", &encryption(json!(true), buckets)), Verdict::Unknown);
    }

    #[test]
    fn control_tower_and_kics_fail_a_document_that_is_a_string_in_a_template() {
        let inner = json!({"EncryptionConfiguration": {"EnableAtRestEncryption": true, "AtRestEncryptionConfiguration": {
            "LocalDiskEncryptionConfiguration": {"EnableEbsEncryption": true, "EncryptionKeyProviderType": "AwsKms"}}}});
        let template = json!({"Resources": {"S": {"Type": "AWS::EMR::SecurityConfiguration",
            "Properties": {"SecurityConfiguration": inner.to_string()}}}});
        let documents = Document::read_all(template.to_string().as_bytes()).unwrap();
        let verdicts = CONTROLS.iter().map(|control| control.judge(&documents[0]));
        let passed: Vec<&str> = verdicts.filter(|v| v.verdict == Verdict::Pass).map(|v| v.id).collect();
        assert_eq!(passed, ["EMR.3", "CKV_AWS_349", "CKV_AWS_350"]);
    }
}
