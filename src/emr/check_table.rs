//! The result of `emr check` as tables for people.

use std::fmt;

use super::checked::{Checked, CheckedFile, Demands};
use super::judgement::Judgement;
use super::local_disks::DiskEncryption;
use super::problem::ProblemKind;
use crate::text::escape_controls;

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            for (number, judgement) in file.documents.iter().enumerate() {
                print_document(f, file, number, judgement, &self.demands)?;
                writeln!(f)?;
            }
        }
        for bundle in &self.certificates {
            writeln!(f, "{bundle}")?;
        }
        writeln!(f, "emr check: {}", self.summary())
    }
}

impl Checked {
    /// Counts what there is, in one line.
    fn summary(&self) -> String {
        let all: Vec<&Judgement> = self.files.iter().flat_map(|file| &file.documents).collect();
        let count = |is: &dyn Fn(&Judgement) -> bool| all.iter().filter(|judgement| is(judgement)).count();
        let is_in_clear =
            |j: &Judgement| matches!(j.local_disks.encryption, DiskEncryption::None | DiskEncryption::Invalid);
        let parts = [
            (all.len(), "checked"),
            (count(&|j| j.local_disks.encryption.is_encrypted()), "with local disks encrypted"),
            (count(&is_in_clear), "with local disks in clear"),
            (count(&|j| j.local_disks.encryption == DiskEncryption::Unknown), "with local disks unknown"),
            (count(&|j| !j.hidden.is_empty()), "with data in clear behind a passing control"),
            (count(&|j| j.has(ProblemKind::Rejected)), "that EMR would reject"),
            (count(&|j| j.has(ProblemKind::Invalid)), "invalid"),
            (count(&|j| j.failed(&self.demands.required).next().is_some()), "that fail a required control"),
            (
                self.certificates.len(),
                if self.certificates.len() == 1 { "bundle of certificates" } else { "bundles of certificates" },
            ),
            (self.certificates.iter().filter(|bundle| bundle.fails()).count(), "that nodes cannot use"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

fn print_document(
    f: &mut fmt::Formatter<'_>,
    file: &CheckedFile,
    number: usize,
    judgement: &Judgement,
    demands: &Demands,
) -> fmt::Result {
    let at = match judgement.document_at.as_str() {
        "" => String::new(),
        at => format!(" at {}", escape_controls(at)),
    };
    writeln!(f, "{}: {}{at}", escape_controls(&file.file), escape_controls(&file.title(number)))?;
    let encryption = judgement.local_disks.encryption;
    let is_left = demands.local_disks_by_agent && encryption == DiskEncryption::None;
    writeln!(f, "local disks: {encryption}{}", if is_left { ", left to luks-agent" } else { "" })?;
    writeln!(f)?;
    print_encrypted(f, judgement)?;
    let hidden: Vec<String> = judgement.hidden.iter().map(|hidden| hidden.message.clone()).collect();
    print_list(f, "Data in clear behind a control that passes:", &hidden)?;
    for (kind, title) in [
        (ProblemKind::Invalid, "Invalid:"),
        (ProblemKind::Rejected, "EMR would reject:"),
        (ProblemKind::Doubtful, "To look at:"),
    ] {
        let of_kind = judgement.problems.iter().filter(|problem| problem.kind == kind);
        print_list(f, title, &of_kind.map(ToString::to_string).collect::<Vec<_>>())?;
    }
    print_controls(f, judgement, &demands.required)
}

fn print_encrypted(f: &mut fmt::Formatter<'_>, judgement: &Judgement) -> fmt::Result {
    let titles: Vec<String> = judgement.encrypted.iter().map(|s| escape_controls(&s.title()).into_owned()).collect();
    let width = titles.iter().map(String::len).max().unwrap_or(0);
    writeln!(f, "{:width$}  {:10}  BY", "DATA", "STATE")?;
    for (title, surface) in titles.iter().zip(&judgement.encrypted) {
        let key = surface.key.as_ref().map_or_else(String::new, |key| format!(", {key}"));
        writeln!(f, "{title:width$}  {:10}  {}{}", surface.protection, surface.by, escape_controls(&key))?;
        writeln!(f, "    {}", escape_controls(&surface.reason))?;
    }
    Ok(())
}

fn print_controls(f: &mut fmt::Formatter<'_>, judgement: &Judgement, required: &[String]) -> fmt::Result {
    let width = judgement.controls.iter().map(|found| found.id.len()).max().unwrap_or(0);
    writeln!(f)?;
    writeln!(f, "{:width$}  {:13}  VERDICT  WHY", "CONTROL", "CHECKER")?;
    for found in &judgement.controls {
        let mark = if required.iter().any(|id| id == found.id) { " (required)" } else { "" };
        let reason = escape_controls(&found.reason);
        writeln!(f, "{:width$}  {:13}  {:7}  {reason}{mark}", found.id, found.checker, found.verdict)?;
    }
    Ok(())
}

fn print_list(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(f, "    {}", escape_controls(line)))
}
