//! What the program prints on standard error.

use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Maximum length of a line in the log, in bytes.
const LINE_MAX: usize = 512;
/// Maximum number of lines in the log for one call.
const LINES_MAX: usize = 50;

/// Logs each line, and returns the last one that is not empty.
///
/// Long lines are cut and lines over the maximum number are only counted, so that a program cannot fill memory or the journal.
pub(super) async fn log(mut stderr: impl AsyncRead + Unpin, program: &Path) -> String {
    let mut lines = Lines::default();
    let mut chunk = [0; 4096];
    // whoever cannot read the messages still gets the answer
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        for line in lines.take(chunk.get(..length).unwrap_or_default()) {
            tracing::warn!("{}: {line}", program.display());
        }
    }
    if let Some(line) = lines.end() {
        tracing::warn!("{}: {line}", program.display());
    }
    if lines.count > LINES_MAX {
        tracing::warn!("{}: {} more lines", program.display(), lines.count - LINES_MAX);
    }
    lines.last
}

#[derive(Default)]
struct Lines {
    /// The line that has begun.
    line: Vec<u8>,
    count: usize,
    last: String,
}

impl Lines {
    /// Takes the next bytes, and returns the lines for the log that they end.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut ended = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => ended.extend(self.end()),
                _ if self.line.len() < LINE_MAX => self.line.push(*byte),
                _ => {}
            }
        }
        ended
    }

    /// Ends the line, and returns it if it is to be logged.
    fn end(&mut self) -> Option<String> {
        let line = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.line.clear();
        if line.is_empty() {
            return None;
        }
        self.count += 1;
        self.last.clone_from(&line);
        (self.count <= LINES_MAX).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_line_by_line_and_fill_no_memory() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"one\n\n tw"), ["one"]);
        assert_eq!(lines.take(b"o\r\nthree"), ["two"]);
        assert_eq!(lines.end().as_deref(), Some("three"));
        assert_eq!(
            lines.take(&[[b'x'; 9000].as_slice(), b"\n\xff\n"].concat()),
            ["x".repeat(LINE_MAX), "\u{fffd}".to_owned()]
        );
        assert_eq!(lines.take(&b"again\n".repeat(1000)).len(), LINES_MAX - 5);
        assert_eq!((lines.count, lines.last.as_str()), (1005, "again"));
    }
}
