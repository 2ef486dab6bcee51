//! Runs programs of the distribution. The only place that does.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program of the distribution that could not be run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The tool is not installed.
    #[error("'{tool}' is not installed: install package {package}")]
    NotInstalled {
        /// The program.
        tool: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The tool could not be started.
    #[error("cannot start '{tool}'")]
    Start {
        /// The program.
        tool: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tool failed.
    #[error("'{tool}' failed, {status}: {output}")]
    Failed {
        /// The program.
        tool: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it printed.
        output: String,
    },
}

/// Where to look for tools, regardless of the environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program of the distribution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    /// Its name.
    pub(super) name: &'static str,
    /// The package that has it.
    pub(super) package: &'static str,
}

/// Checks that all of these tools are installed.
pub(super) fn require(tools: impl IntoIterator<Item = Tool>) -> Result<(), ToolError> {
    match tools.into_iter().find(|tool| find(tool.name).is_none()) {
        Some(Tool { name, package }) => Err(ToolError::NotInstalled { tool: name, package }),
        None => Ok(()),
    }
}

/// A program that the agent runs, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTool {
    /// Its name.
    pub name: &'static str,
    /// The package that has it.
    pub package: &'static str,
    /// Its path; `None` if it is not installed.
    pub path: Option<PathBuf>,
}

impl From<Tool> for FoundTool {
    fn from(Tool { name, package }: Tool) -> Self {
        Self { name, package, path: find(name) }
    }
}

/// Returns the path of a tool.
fn find(tool: &str) -> Option<PathBuf> {
    std::env::split_paths(PATH).map(|dir| dir.join(tool)).find(|path| path.is_file())
}

/// Runs a tool and returns its standard output.
pub(super) fn run(tool: &str, args: &[&OsStr]) -> Result<String, ToolError> {
    // start it by its path: for a name and a changed PATH, the standard library forks the whole process, and this one has all its
    // memory locked
    let output = Command::new(find(tool).unwrap_or_else(|| tool.into()))
        .args(args)
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ToolError::Start { tool: tool.to_owned(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stderr, output.stdout].concat();
    let lines =
        String::from_utf8_lossy(&text).lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    Err(ToolError::Failed { tool: tool.to_owned(), status: output.status, output: lines })
}
