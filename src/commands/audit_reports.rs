//! The audit reports that a command without a node reads.

use std::path::{Path, PathBuf};

use super::input::{name_of, read_bytes, read_each, standard_input_twice};
use crate::audit::{AuditReport, MAX_BYTES, Newest};
use crate::error::chain;

/// Reads all files, or says of each that cannot be read why.
pub(super) fn read_reports(files: &[PathBuf]) -> Result<Newest, Vec<String>> {
    let (reports, complaints) = match standard_input_twice(files.iter()) {
        Some(complaint) => (Vec::new(), vec![complaint]),
        None => read_each(files, read),
    };
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let mut newest = Newest::default();
    reports.into_iter().for_each(|report| newest.add(report));
    Ok(newest)
}

/// Reads a report, but no more than one may have.
fn read(file: &Path) -> Result<AuditReport, String> {
    let mut text = Vec::new();
    read_bytes(file, MAX_BYTES, &mut text)?;
    AuditReport::read(&text).map_err(|e| format!("{}: {}", name_of(file), chain(e)))
}
