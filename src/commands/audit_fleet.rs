//! `audit fleet`: summarizes the reports of many nodes. Needs neither a node nor AWS.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::audit::{check_output, write_reports};
use super::audit_reports::read_reports;
use super::error::CommandError;
use super::input::{json_files, name_of, read_bytes, read_each, standard_input_twice};
use super::printed::Printed;
use crate::emr::{Document, MAX_BYTES};
use crate::error::chain;
use crate::fleet::{AnswerError, Cluster, Ec2, Fleet, MAX_ANSWER_BYTES, NamedDocument, Surroundings};
use crate::report::ExitCode;

/// What `audit fleet` reads.
#[derive(Debug)]
pub struct FleetFiles<'a> {
    /// Reports, and directories with reports.
    pub reports: &'a [PathBuf],
    /// Answers of `aws ec2 describe-volumes`.
    pub volumes: &'a [PathBuf],
    /// Answers of `aws ec2 describe-instances`.
    pub instances: &'a [PathBuf],
    /// Answers of `aws emr describe-cluster`, and directories with them.
    pub clusters: &'a [PathBuf],
    /// Security configurations, and directories with them.
    pub security_configurations: &'a [PathBuf],
}

/// What `audit fleet` writes besides what it prints.
#[derive(Debug, Clone, Copy)]
pub struct FleetOutputs<'a> {
    /// The page.
    pub html: Option<&'a Path>,
    /// The summary as JSON.
    pub json: Option<&'a Path>,
}

/// `audit fleet`: summarizes the newest report of each node.
///
/// If one file cannot be read, nothing is written: a node that is left out would look like one that passes.
pub fn audit_fleet(files: &FleetFiles<'_>, outputs: FleetOutputs<'_>) -> Printed {
    let summarized = outputs.check().map_err(|complaint| (ExitCode::Configuration, vec![complaint])).and_then(|()| {
        let fleet = summarize(files).map_err(|complaints| (ExitCode::Configuration, complaints))?;
        outputs.write(&fleet).map_err(|(code, complaint)| (code, vec![complaint]))?;
        Ok(fleet)
    });
    match summarized {
        Ok(fleet) => {
            let exit_code = if fleet.verdict.is_fine() { ExitCode::Done } else { ExitCode::Failed };
            Printed { stdout: fleet.to_string(), complaints: Vec::new(), exit_code }
        }
        Err((exit_code, complaints)) => Printed { stdout: String::new(), complaints, exit_code },
    }
}

impl FleetOutputs<'_> {
    /// Checks what can be checked before anything is read.
    fn check(self) -> Result<(), String> {
        if self.html.is_some() && self.html == self.json {
            return Err("--html and --json name the same file; give each its own".to_owned());
        }
        [self.html, self.json].into_iter().flatten().try_for_each(|path| check_output(path).map_err(chain))
    }

    /// Writes both files or none.
    fn write(self, fleet: &Fleet) -> Result<(), (ExitCode, String)> {
        let mut texts = Vec::new();
        if let Some(path) = self.html {
            texts.push((path, fleet.to_html()));
        }
        if let Some(path) = self.json {
            texts.push((path, fleet.to_json().map_err(|e| (ExitCode::Failed, chain(e)))?));
        }
        write_reports(&texts).map_err(|e: CommandError| (e.exit_code(), chain(e)))
    }
}

/// Reads everything and summarizes it, or says of each file that cannot be read why.
fn summarize(files: &FleetFiles<'_>) -> Result<Fleet, Vec<String>> {
    let reports = json_files(files.reports)?;
    let (clusters, documents) = (json_files(files.clusters)?, json_files(files.security_configurations)?);
    let all = [&reports, files.volumes, files.instances, &clusters, &documents];
    if let Some(complaint) = standard_input_twice(all.into_iter().flatten()) {
        return Err(vec![complaint]);
    }
    let mut ec2 = Ec2::default();
    let (_, mut complaints) = read_each(files.volumes, |file| read_answer(file, |text| ec2.add_volumes(text)));
    let (_, more) = read_each(files.instances, |file| read_answer(file, |text| ec2.add_instances(text)));
    complaints.extend(more);
    let (clusters, more) = read_each(&clusters, |file| read_answer(file, Cluster::read));
    complaints.extend(more);
    let (documents, more) = read_each(&documents, read_documents);
    complaints.extend(more);
    match (read_reports(&reports), complaints.is_empty()) {
        (Ok(newest), true) => {
            let around = Surroundings { ec2, clusters, documents: documents.into_iter().flatten().collect() };
            let now = Timestamp::now();
            // nobody reads the rest
            Ok(Fleet::of(&newest, &around, Timestamp::from_second(now.as_second()).unwrap_or(now)))
        }
        (reports, _) => {
            complaints.splice(0..0, reports.err().unwrap_or_default());
            Err(complaints)
        }
    }
}

/// Reads an answer of AWS with `take`.
fn read_answer<T>(file: &Path, take: impl FnOnce(&[u8]) -> Result<T, AnswerError>) -> Result<T, String> {
    let mut text = Vec::new();
    read_bytes(file, MAX_ANSWER_BYTES, &mut text)?;
    take(&text).map_err(|e| format!("{}: {}", name_of(file), chain(e)))
}

/// Reads the security configurations of a file.
fn read_documents(file: &Path) -> Result<Vec<NamedDocument>, String> {
    let mut text = Vec::new();
    read_bytes(file, MAX_BYTES, &mut text)?;
    let file = name_of(file);
    let documents = Document::read_all(&text).map_err(|e| format!("{file}: {}", chain(e)))?;
    Ok(documents.into_iter().map(|document| NamedDocument { file: file.clone(), document }).collect())
}
