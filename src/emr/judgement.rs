//! Everything that is to be said about one document.

use serde::Serialize;

use super::control::{CONTROLS, ControlVerdict, Verdict};
use super::document::{Document, Form};
use super::hidden::Hidden;
use super::local_disks::LocalDisks;
use super::pointer::Pointer;
use super::problem::{Problem, ProblemKind};
use super::rules;
use super::shape;
use super::surface::Surface;

/// What is to be said about a document.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    /// How the document was handed over.
    pub form: Form,
    /// Its name, if what is around it has one.
    pub name: Option<String>,
    /// Where it is in the file.
    pub document_at: Pointer,
    /// What EMR would do with local disks.
    pub local_disks: LocalDisks,
    /// What EMR would encrypt.
    pub encrypted: Vec<Surface>,
    /// Where a control passes and data is in clear.
    pub hidden: Vec<Hidden>,
    /// What is wrong or odd.
    pub problems: Vec<Problem>,
    /// The verdicts of the checkers, in the order of [`CONTROLS`].
    pub controls: Vec<ControlVerdict>,
}

impl Judgement {
    /// Judges a document.
    pub fn of(document: &Document) -> Self {
        let view = document.view();
        let local_disks = LocalDisks::of(view);
        let encrypted = Surface::all(view, &local_disks);
        let controls: Vec<ControlVerdict> = CONTROLS.iter().map(|control| control.judge(document)).collect();
        Self {
            form: document.form,
            name: document.name.clone(),
            document_at: document.at.clone(),
            hidden: Hidden::all(&encrypted, &controls),
            problems: problems(document),
            local_disks,
            encrypted,
            controls,
        }
    }

    /// Returns whether there is a problem of this kind.
    pub fn has(&self, kind: ProblemKind) -> bool {
        self.problems.iter().any(|problem| problem.kind == kind)
    }

    /// Returns the verdicts of the controls of these names that are not passes.
    pub fn failed(&self, required: &[String]) -> impl Iterator<Item = &ControlVerdict> {
        let is_required = |id: &str| required.iter().any(|name| name == id);
        self.controls.iter().filter(move |found| found.verdict != Verdict::Pass && is_required(found.id))
    }
}

/// Returns all problems of a document, the gravest first.
pub(super) fn problems(document: &Document) -> Vec<Problem> {
    let mut found = shape::problems(document.view());
    for problem in rules::problems(document.view()) {
        found.add(problem.kind, || problem);
    }
    if let [first, more @ ..] = document.unchecked.as_slice() {
        found.add(ProblemKind::Doubtful, || other_product(first, more.len()));
    }
    found.into_list()
}

fn other_product(first: &Pointer, more: usize) -> Problem {
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message =
        format!("{first}{more} beside it is a security configuration of EMR on EKS, which is not checked here");
    Problem::doubtful("other-product", Pointer::default(), message)
}
