//! What is wrong or odd about a security configuration.

use std::fmt;

use serde::Serialize;

use super::pointer::Pointer;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// It cannot be understood: bad input.
    Invalid,
    /// EMR rejects it, or documents that it does.
    Rejected,
    /// EMR takes it or may take it, but it is hardly what was meant.
    Doubtful,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Doubtful => "doubtful",
        })
    }
}

/// What is wrong or odd, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub kind: ProblemKind,
    /// Its name, which stays the same.
    pub id: &'static str,
    /// The place.
    pub at: Pointer,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    pub(super) fn invalid(id: &'static str, at: Pointer, message: impl Into<String>) -> Self {
        Self { kind: ProblemKind::Invalid, id, at, message: message.into() }
    }

    pub(super) fn rejected(id: &'static str, at: Pointer, message: impl Into<String>) -> Self {
        Self { kind: ProblemKind::Rejected, id, at, message: message.into() }
    }

    pub(super) fn doubtful(id: &'static str, at: Pointer, message: impl Into<String>) -> Self {
        Self { kind: ProblemKind::Doubtful, id, at, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}
