//! What is wrong or odd about a security configuration.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::pointer::Pointer;

/// How many problems of one document are listed. Nobody reads more, and a hostile document could have millions.
const MAX_PROBLEMS: usize = 100;

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

/// Problems of a document. Of each kind it keeps as many as are listed, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Problems {
    kept: Vec<Problem>,
    seen: BTreeMap<ProblemKind, usize>,
}

impl Problems {
    /// Adds a problem. It is only made if it may be listed.
    pub(super) fn add(&mut self, kind: ProblemKind, problem: impl FnOnce() -> Problem) {
        let seen = self.seen.entry(kind).or_default();
        *seen += 1;
        if *seen <= MAX_PROBLEMS {
            self.kept.push(problem());
        }
    }

    /// Returns the gravest, and last how many there are more.
    pub(super) fn into_list(mut self) -> Vec<Problem> {
        self.kept.sort_by_key(|problem| problem.kind);
        let more = self.seen.values().sum::<usize>().saturating_sub(MAX_PROBLEMS);
        if more > 0 {
            let counted = self.seen.iter().scan(0, |sum, (kind, seen)| {
                *sum += seen;
                Some((*kind, *sum))
            });
            // the kind of the gravest that is not listed
            let kind = counted
                .into_iter()
                .find(|(_, sum)| *sum > MAX_PROBLEMS)
                .map_or(ProblemKind::Doubtful, |(kind, _)| kind);
            self.kept.truncate(MAX_PROBLEMS);
            self.kept.push(Problem { kind, id: "more", at: Pointer::default(), message: format!("and {more} more") });
        }
        self.kept
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_no_more_problems_than_it_lists() {
        let mut found = Problems::default();
        let mut made = 0;
        for _ in 0..1_000 {
            found.add(ProblemKind::Rejected, || {
                made += 1;
                Problem::rejected("x", Pointer::default(), "x")
            });
        }
        found.add(ProblemKind::Invalid, || Problem::invalid("y", Pointer::default(), "y"));
        assert_eq!(made, MAX_PROBLEMS);
        let list = found.into_list();
        assert_eq!((list.len(), list[0].id), (MAX_PROBLEMS + 1, "y"));
        assert_eq!(
            (list[MAX_PROBLEMS].kind, list[MAX_PROBLEMS].message.as_str()),
            (ProblemKind::Rejected, "and 901 more")
        );
    }

    #[test]
    fn lists_all_if_they_are_few() {
        let mut found = Problems::default();
        for _ in 0..MAX_PROBLEMS {
            found.add(ProblemKind::Doubtful, || Problem::doubtful("x", Pointer::default(), "x"));
        }
        assert_eq!(found.into_list().len(), MAX_PROBLEMS);
    }
}
