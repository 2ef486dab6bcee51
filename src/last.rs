//! What the last run of a command said, kept in memory for the daemon and for `status`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::report::{ExitCode, Report};

/// Where reports are kept; gone at a reboot, as is what they tell of.
const DIR: &str = "/run/luks-agent";

/// As much of a report as others want to know later.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Last {
    /// Which command.
    pub command: String,
    /// Its exit code.
    pub exit_code: u8,
    /// What went wrong as a whole.
    pub error: Option<String>,
    /// What came of it.
    pub summary: String,
}

impl Last {
    /// One line.
    pub fn text(&self) -> &str {
        self.error.as_deref().unwrap_or(&self.summary)
    }

    /// Whether only the key service kept it from being done.
    pub fn no_key_service(&self) -> bool {
        self.exit_code == ExitCode::KeyService as u8
    }
}

fn file(dir: &Path, command: &str) -> PathBuf {
    dir.join(command).with_extension("json")
}

/// Keeps a report. It is no key material, but where volumes are is root's business. Not being able to is no failure of the
/// command: who wants to know asks again.
pub fn keep(report: &Report) {
    if let Err(e) = keep_in(Path::new(DIR), report) {
        tracing::debug!("the report cannot be kept in {DIR}: {e}");
    }
}

fn keep_in(dir: &Path, report: &Report) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut file_in_the_making = tempfile::NamedTempFile::new_in(dir)?;
    file_in_the_making.write_all(&serde_json::to_vec(report)?)?;
    file_in_the_making.persist(file(dir, report.command()))?;
    Ok(())
}

/// The last report of a command since boot.
pub fn read(command: &str) -> Option<Last> {
    read_in(Path::new(DIR), command)
}

fn read_in(dir: &Path, command: &str) -> Option<Last> {
    serde_json::from_slice(&fs::read(file(dir, command)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/as/needed");
        assert_eq!(read_in(&dir, "provision"), None);
        for code in [ExitCode::KeyService, ExitCode::Failed] {
            keep_in(&dir, &Report::of_failure("provision", code, "no answer".to_owned())).unwrap();
            let last = read_in(&dir, "provision").unwrap();
            assert_eq!((last.text(), last.no_key_service()), ("no answer", code == ExitCode::KeyService));
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left there");
    }
}
