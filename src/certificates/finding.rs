//! What is wrong or odd about a bundle.

use serde::Serialize;

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// EMR or its nodes cannot use the bundle.
    Wrong,
    /// It may work, but it is hardly what was meant, or does not work for much longer.
    Doubtful,
}

/// What is wrong or odd, and in which file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateFinding {
    /// How grave it is.
    pub weight: Weight,
    /// Its name, which stays the same.
    pub id: &'static str,
    /// The file in the bundle.
    pub member: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl CertificateFinding {
    pub(super) fn wrong(id: &'static str, member: &'static str, message: impl Into<String>) -> Self {
        Self { weight: Weight::Wrong, id, member, message: message.into() }
    }

    pub(super) fn doubtful(id: &'static str, member: &'static str, message: impl Into<String>) -> Self {
        Self { weight: Weight::Doubtful, id, member, message: message.into() }
    }
}
