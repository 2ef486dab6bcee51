//! Why the agent does not do something, and what to do about it.

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The agent refuses to act, for safety.
    Refused,
    /// A known volume is not what it should be.
    Wrong,
}

/// Evidence and remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How serious it is.
    pub severity: Severity,
    /// What the agent found.
    pub evidence: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// Returns the reason to refuse something for safety.
    pub fn refused(evidence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Refused, evidence: evidence.into(), remedy: remedy.into() }
    }

    /// Returns what is wrong with a known volume.
    pub fn wrong(evidence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Wrong, evidence: evidence.into(), remedy: remedy.into() }
    }
}
