//! Formats errors, and defines the error of a system call on a path.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// Returns an error and its causes as one line.
pub fn chain(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    text
}

/// A system call on a path that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct IoError {
    /// The action: a verb such as `open`.
    pub action: &'static str,
    /// The path.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// Returns a function that wraps an I/O error: `.map_err(IoError::when("open", path))`.
    pub(crate) fn when(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_causes_after_the_error_and_each_once() {
        let cause = io::Error::from(io::ErrorKind::NotFound);
        let error = IoError::when("open", Path::new("/x"))(cause);
        assert_eq!(error.to_string(), "cannot open /x");
        assert_eq!(chain(error), "cannot open /x: entity not found");
    }
}
