//! One check of `doctor`.

use std::fmt;

use serde::Serialize;

use super::exit_code::ExitCode;

/// A check: what was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub check: &'static str,
    /// How it ended.
    pub result: CheckResult,
    /// What was found.
    pub evidence: String,
    /// What to do about it, ready to paste where that is possible.
    pub remedy: Option<String>,
    /// The exit code that this failure stands for.
    pub exit_code: ExitCode,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckResult {
    /// As it must be.
    Ok,
    /// The agent works, but something should be looked at, or could not be checked.
    Warning,
    /// The agent cannot do its work.
    Failure,
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        })
    }
}

impl Check {
    /// Returns a check that succeeded.
    pub fn ok(check: &'static str, evidence: impl Into<String>) -> Self {
        Self { check, result: CheckResult::Ok, evidence: evidence.into(), remedy: None, exit_code: ExitCode::Done }
    }

    /// Returns a check of something that should be looked at, or that could not be checked.
    pub fn warning(check: &'static str, evidence: impl Into<String>) -> Self {
        Self { result: CheckResult::Warning, ..Self::ok(check, evidence) }
    }

    /// Returns a check that was not made.
    pub fn not_made(check: &'static str, why: impl fmt::Display) -> Self {
        Self::warning(check, format!("not checked: {why}"))
    }

    /// Returns a check that failed, and the exit code that this stands for.
    pub fn failure(check: &'static str, exit_code: ExitCode, evidence: impl Into<String>) -> Self {
        Self { result: CheckResult::Failure, exit_code, ..Self::ok(check, evidence) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    #[test]
    fn the_exit_code_is_that_of_the_failures_if_they_agree() {
        let code = |codes: &[ExitCode]| {
            let failures = codes.iter().map(|code| Check::failure("x", *code, ""));
            let others = [Check::ok("fine", ""), Check::warning("odd", "")];
            Report::of_checks("doctor", others.into_iter().chain(failures).collect()).exit_code()
        };
        use ExitCode::{Configuration, Failed, KeyService};
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[KeyService, KeyService]), 4);
        assert_eq!(code(&[Configuration]), 2);
        assert_eq!(code(&[KeyService, Failed]), 1);
        assert_eq!(code(&[Configuration, KeyService]), 1);
    }

    #[test]
    fn checks_are_printed_one_a_line_with_the_remedy_below() {
        let checks = vec![
            Check::ok("root", "runs as root"),
            Check::failure("kms", ExitCode::KeyService, "cannot\nreach it").with_remedy("open the route"),
        ];
        let report = Report::of_checks("doctor", checks);
        assert_eq!(
            report.to_string(),
            "CHECK  RESULT   EVIDENCE\nroot   ok       runs as root\nkms    failure  cannot\\nreach it\n    -> open the route\n\
             doctor: 1 ok, 0 to look at, 1 failed\n"
        );
        assert_eq!(report.error(), Some("this node cannot do its work yet: kms"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["exit_code"], &json["checks"][1]["exit_code"]), (&4.into(), &4.into()));
        assert_eq!(json["checks"][1]["result"], "failure");
    }
}
