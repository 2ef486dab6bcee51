//! `emr`: checks EMR security configurations, or turns one into configuration of the agent. Needs neither a node nor AWS.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::input::{name_of, read_bytes, read_each, standard_input_twice};
use super::printed::{Printed, pretty};
use crate::certificates::{Bundle, CheckedBundle, MAX_BUNDLE_BYTES, Region};
use crate::emr::{Checked, CheckedFile, Demands, Document, Import, MAX_BYTES, sarif};
use crate::error::chain;
use crate::report::ExitCode;

/// How many names an error lists.
const LISTED: usize = 20;

/// How `emr check` prints its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmrFormat {
    /// Tables.
    Table,
    /// One JSON object.
    Json,
    /// A SARIF log.
    Sarif,
}

/// A file that was read.
struct Input {
    name: String,
    text: String,
    documents: Vec<Document>,
}

/// What `emr check` reads.
#[derive(Debug)]
pub struct EmrFiles<'a> {
    /// Files with security configurations.
    pub documents: &'a [PathBuf],
    /// Zip files with certificates.
    pub certificates: &'a [PathBuf],
    /// The Regions whose nodes the certificates should be for.
    pub regions: &'a [Region],
}

/// `emr check`: checks the documents and certificates in files.
///
/// If one file cannot be read, no other is checked either.
pub fn emr_check(files: &EmrFiles<'_>, demands: Demands, format: EmrFormat) -> Printed {
    let twice = standard_input_twice(files.documents.iter().chain(files.certificates));
    let (inputs, bundles, complaints) = match twice {
        Some(complaint) => (Vec::new(), Vec::new(), vec![complaint]),
        None => {
            let (inputs, mut complaints) = read_each(files.documents, read);
            let (bundles, more) = read_each(files.certificates, |file| read_bundle(file, files.regions));
            complaints.extend(more);
            (inputs, bundles, complaints)
        }
    };
    if !complaints.is_empty() {
        let stdout = match format {
            EmrFormat::Json => pretty(&json!(Checked::of_failure(complaints.join("\n")))),
            EmrFormat::Table | EmrFormat::Sarif => String::new(),
        };
        return Printed { stdout, complaints, exit_code: ExitCode::Configuration };
    }
    let checked = inputs.into_iter().map(|input| CheckedFile::new(input.name, input.text, input.documents));
    let checked = Checked::new(checked.collect(), bundles, demands);
    let stdout = match format {
        EmrFormat::Table => checked.to_string(),
        EmrFormat::Json => pretty(&json!(checked)),
        EmrFormat::Sarif => pretty(&sarif(&checked)),
    };
    let exit_code = match checked.exit_code() {
        0 => ExitCode::Done,
        1 => ExitCode::Failed,
        _ => ExitCode::Configuration,
    };
    Printed { stdout, complaints: checked.complaints(), exit_code }
}

/// `emr import`: turns the document in a file, or the one of that name, into a drop-in for the agent's configuration.
pub fn emr_import(file: &Path, name: Option<&str>, json: bool) -> Printed {
    let imported = read(file).map_err(|complaint| (ExitCode::Configuration, complaint)).and_then(|input| {
        let document = choose(&input, name).map_err(|complaint| (ExitCode::Configuration, complaint))?;
        Import::of(document, &input.name).map_err(|e| {
            let code = if e.is_about_nothing() { ExitCode::Failed } else { ExitCode::Configuration };
            (code, format!("{}: cannot import the {}: {}", input.name, document.title(), chain(e)))
        })
    });
    match imported {
        Ok(import) => {
            let drop_in = import.to_string();
            let stdout = if json { pretty(&as_json(ExitCode::Done, &json!(import), &json!(drop_in))) } else { drop_in };
            Printed { stdout, complaints: Vec::new(), exit_code: ExitCode::Done }
        }
        Err((exit_code, complaint)) => {
            let failure = Import::failure(&complaint);
            let stdout = if json { pretty(&as_json(exit_code, &failure, &Value::Null)) } else { String::new() };
            Printed { stdout, complaints: vec![complaint], exit_code }
        }
    }
}

/// Adds the exit code and the drop-in to the fields of an import.
fn as_json(exit_code: ExitCode, import: &Value, drop_in: &Value) -> Value {
    let mut fields = import.clone();
    fields["exit_code"] = json!(exit_code);
    fields["toml"] = drop_in.clone();
    fields
}

fn choose<'a>(input: &'a Input, name: Option<&str>) -> Result<&'a Document, String> {
    let named = |document: &Document| document.name.clone().unwrap_or_else(|| "without a name".to_owned());
    let names = || listed(input.documents.iter().map(named));
    let file = &input.name;
    let Some(name) = name else {
        return match input.documents.as_slice() {
            [document] => Ok(document),
            _ => Err(format!("{file} has several security configurations: {}; choose one with --name", names())),
        };
    };
    let found: Vec<&Document> =
        input.documents.iter().filter(|document| document.name.as_deref() == Some(name)).collect();
    match found.as_slice() {
        [document] => Ok(document),
        [] => Err(format!("{file} has no security configuration '{name}'; it has: {}", names())),
        _ => {
            let places = listed(found.iter().map(|document| document.at.to_string()));
            Err(format!(
                "{file} has several security configurations '{name}': at {places}; import from a file with one of them"
            ))
        }
    }
}

/// Lists the first few items, and says how many there are more.
fn listed(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(LISTED);
    items.truncate(LISTED);
    let all = items.join(", ");
    if more > 0 { format!("{all} and {more} more") } else { all }
}

/// Reads and checks a bundle of certificates.
fn read_bundle(file: &Path, regions: &[Region]) -> Result<CheckedBundle, String> {
    // it holds a private key; with room for all that is read, no copy is left behind by a larger allocation
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BUNDLE_BYTES + 64));
    read_bytes(file, MAX_BUNDLE_BYTES, &mut bytes)?;
    let name = name_of(file);
    let bundle = Bundle::read(&bytes).map_err(|e| format!("{name}: {}", chain(e)))?;
    Ok(CheckedBundle::new(name, &bundle, regions, Timestamp::now()))
}

/// Reads a file, but no more than a document may have.
fn read(file: &Path) -> Result<Input, String> {
    let name = name_of(file);
    let mut bytes = Vec::new();
    read_bytes(file, MAX_BYTES, &mut bytes)?;
    let documents = Document::read_all(&bytes).map_err(|e| format!("{name}: {}", chain(e)))?;
    // it was valid UTF-8 to be read as JSON
    let text = String::from_utf8(bytes).unwrap_or_default();
    Ok(Input { name, text, documents })
}
