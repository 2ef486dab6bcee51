//! The result of `emr check`.

use std::sync::OnceLock;

use serde::Serialize;

use super::control::{CONTROLS, ControlVerdict, Verdict};
use super::document::Document;
use super::judgement::Judgement;
use super::lines::Lines;
use super::local_disks::{DiskEncryption, LocalDisks};
use super::pointer::Pointer;
use super::problem::{Problem, ProblemKind};
use super::text::without_mark;
use crate::certificates::{CheckedBundle, Weight};

/// Name of the JSON schema.
const SCHEMA: &str = "luks-agent/emr-check";
/// Version of the schema. It grows when a field changes its meaning or is removed.
const SCHEMA_VERSION: u32 = 1;

/// The files that were checked.
#[derive(Debug, Serialize)]
pub struct Checked {
    schema: &'static str,
    schema_version: u32,
    agent_version: &'static str,
    exit_code: u8,
    /// Why it could not begin.
    error: Option<String>,
    /// What a document must satisfy.
    #[serde(flatten)]
    pub(super) demands: Demands,
    /// The files.
    pub(super) files: Vec<CheckedFile>,
    /// The bundles of certificates.
    pub(super) certificates: Vec<CheckedBundle>,
}

/// What a document must satisfy besides being valid.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Demands {
    /// The controls that must pass.
    pub required: Vec<String>,
    /// Whether luks-agent encrypts local disks, so that EMR need not.
    pub local_disks_by_agent: bool,
}

impl Demands {
    /// Returns whether a document fails because of its local disks.
    fn fails(&self, disks: &LocalDisks) -> bool {
        match disks.encryption {
            DiskEncryption::None => !self.local_disks_by_agent,
            DiskEncryption::Invalid | DiskEncryption::Unknown => true,
            DiskEncryption::Luks | DiskEncryption::EbsEncryption | DiskEncryption::CustomProvider => false,
        }
    }
}

/// One file.
#[derive(Debug, Serialize)]
pub struct CheckedFile {
    /// Its name.
    pub file: String,
    /// What is to be said about each document in it.
    pub documents: Vec<Judgement>,
    #[serde(skip)]
    read: Vec<Document>,
    #[serde(skip)]
    text: String,
    /// The lines of its values, which are read when one is asked for.
    #[serde(skip)]
    lines: OnceLock<Lines>,
}

/// What makes a document fail, or should be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The rule: one of this program, or a control.
    pub(super) rule: &'static str,
    /// How grave it is.
    pub(super) level: Level,
    /// The place.
    pub(super) at: Pointer,
    /// What tells it from others of the same rule at the same place.
    pub(super) about: String,
    /// What is so.
    pub(super) message: String,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// The check fails.
    Error,
    /// Somebody should look at it.
    Warning,
    /// For the record.
    Note,
}

impl CheckedFile {
    /// Judges the documents of a file, whose text is `text`.
    pub fn new(file: String, text: String, documents: Vec<Document>) -> Self {
        let judgements = documents.iter().map(Judgement::of).collect();
        Self { file, documents: judgements, read: documents, text, lines: OnceLock::new() }
    }

    /// Returns the line of a place in the document of that number.
    pub(super) fn line(&self, document: usize, at: &Pointer) -> usize {
        let lines = self.lines.get_or_init(|| Lines::of(without_mark(&self.text)));
        self.read.get(document).map_or(1, |document| lines.line(&document.place(at)))
    }

    /// Returns how the document of that number is called in messages.
    pub(super) fn title(&self, document: usize) -> String {
        self.read.get(document).map_or_else(String::new, Document::title)
    }
}

impl Checked {
    /// Returns the result for these files and bundles.
    pub fn new(files: Vec<CheckedFile>, certificates: Vec<CheckedBundle>, demands: Demands) -> Self {
        let mut checked = Self::empty();
        (checked.files, checked.certificates, checked.demands) = (files, certificates, demands);
        let judgements = || checked.files.iter().flat_map(|file| &file.documents);
        let is_invalid = judgements().any(|judgement| judgement.has(ProblemKind::Invalid));
        let fails = judgements().any(|judgement| {
            checked.demands.fails(&judgement.local_disks)
                || judgement.has(ProblemKind::Rejected)
                || judgement.failed(&checked.demands.required).next().is_some()
        });
        let fails = fails || checked.certificates.iter().any(CheckedBundle::fails);
        checked.exit_code = match (is_invalid, fails) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        };
        checked
    }

    /// Returns the result if not all files could be read.
    pub fn of_failure(error: String) -> Self {
        Self { exit_code: 2, error: Some(error), ..Self::empty() }
    }

    fn empty() -> Self {
        Self {
            schema: SCHEMA,
            schema_version: SCHEMA_VERSION,
            agent_version: env!("CARGO_PKG_VERSION"),
            exit_code: 0,
            error: None,
            demands: Demands::default(),
            files: Vec::new(),
            certificates: Vec::new(),
        }
    }

    /// Returns the exit code: 0, 1 if a document or a bundle fails, 2 if a document is invalid, or a file could not be read.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// Returns what makes it fail, one line each.
    pub fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for file in &self.files {
            for (number, judgement) in file.documents.iter().enumerate() {
                let errors = findings(judgement, &self.demands).into_iter().filter(|f| f.level == Level::Error);
                let what = judgement.name.as_ref().map_or_else(String::new, |name| format!(" '{name}'"));
                lines.extend(errors.map(|finding| {
                    let line = file.line(number, &finding.at);
                    format!("{}:{line}{what}: {} (at {})", file.file, finding.message, finding.at)
                }));
            }
        }
        for bundle in &self.certificates {
            let wrong = bundle.findings.iter().filter(|finding| finding.weight == Weight::Wrong);
            lines.extend(wrong.map(|finding| format!("{}: {}: {}", bundle.file, finding.member, finding.message)));
        }
        lines
    }
}

/// The rule that a document with local disks in clear breaks.
pub(super) const LOCAL_DISKS_IN_CLEAR: &str = "local-disks-in-clear";
/// The rule that a document with data in clear behind a passing control breaks.
pub(super) const HIDDEN: &str = "hidden-clear-data";

/// Returns what is to be said about a document, the gravest first.
pub(super) fn findings(judgement: &Judgement, demands: &Demands) -> Vec<Finding> {
    let required = demands.required.as_slice();
    let mut found: Vec<Finding> =
        judgement.problems.iter().filter(|p| p.kind != ProblemKind::Doubtful).map(of_problem).collect();
    if !judgement.local_disks.encryption.is_encrypted() {
        found.push(Finding {
            rule: LOCAL_DISKS_IN_CLEAR,
            level: if demands.fails(&judgement.local_disks) { Level::Error } else { Level::Warning },
            at: judgement.local_disks.at.clone(),
            about: String::new(),
            message: match judgement.local_disks.encryption {
                DiskEncryption::Unknown => {
                    format!("whether local disks are encrypted is not known: {}", judgement.local_disks.reason)
                }
                DiskEncryption::Luks
                | DiskEncryption::EbsEncryption
                | DiskEncryption::CustomProvider
                | DiskEncryption::None
                | DiskEncryption::Invalid => format!("local disks are in clear: {}", judgement.local_disks.reason),
            },
        });
    }
    let control = |verdict: &ControlVerdict, level, what: &str| Finding {
        rule: verdict.id,
        level,
        at: verdict.at.clone(),
        about: String::new(),
        message: format!("{what}{} of {} {}: {}", verdict.id, verdict.checker, ended(verdict.verdict), verdict.reason),
    };
    found.extend(judgement.failed(required).map(|verdict| control(verdict, Level::Error, "required control ")));
    found.extend(judgement.hidden.iter().map(|hidden| Finding {
        rule: HIDDEN,
        level: Level::Warning,
        at: hidden.at.clone(),
        about: hidden.place.to_string(),
        message: hidden.message.clone(),
    }));
    found.extend(judgement.problems.iter().filter(|p| p.kind == ProblemKind::Doubtful).map(of_problem));
    let others: Vec<String> =
        CONTROLS.iter().map(|control| control.id.to_owned()).filter(|id| !required.contains(id)).collect();
    found.extend(judgement.failed(&others).map(|verdict| control(verdict, Level::Note, "")));
    found
}

/// Says how a control ended that is no pass.
fn ended(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "passes",
        Verdict::Fail => "fails",
        Verdict::Unknown => "is unknown",
    }
}

fn of_problem(problem: &Problem) -> Finding {
    let level = if problem.kind == ProblemKind::Doubtful { Level::Warning } else { Level::Error };
    Finding { rule: problem.id, level, at: problem.at.clone(), about: String::new(), message: problem.message.clone() }
}
