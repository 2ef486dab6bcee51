//! Reads the lines of a worker's input. Some of them are passphrases.

use std::io::{self, Read};

use zeroize::{Zeroize as _, Zeroizing};

/// The longest line in bytes. The wrapped key in a job takes up to 8 KiB in base64.
pub(super) const LINE_BYTES: usize = 64 << 10;

/// How many bytes to read at once.
const CHUNK: usize = 4096;

/// The lines of an input. Every buffer is wiped, because some lines are passphrases.
pub(super) struct Input<R> {
    from: R,
    /// Bytes that were read but not returned yet. Allocated once, because growing would leave copies behind.
    buffer: Zeroizing<Vec<u8>>,
}

impl<R: Read> Input<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, buffer: Zeroizing::new(Vec::with_capacity(LINE_BYTES + CHUNK)) }
    }

    /// Returns the next line without its line feed, or `None` at the end of the input.
    pub(super) fn line(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut chunk = Zeroizing::new([0; CHUNK]);
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                return Ok(Some(self.take(end, end + 1)));
            }
            if self.buffer.len() > LINE_BYTES {
                return Err(io::Error::other(format!("a line is longer than {LINE_BYTES} bytes")));
            }
            match self.from.read(&mut chunk[..]) {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Ok(Some(self.take(self.buffer.len(), self.buffer.len()))),
                Ok(read) => self.buffer.extend_from_slice(&chunk[..read]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Removes the bytes up to `next` from the buffer and returns those before `end`. Wipes the places that the rest is moved from,
    /// because the process may live for minutes.
    fn take(&mut self, end: usize, next: usize) -> Zeroizing<Vec<u8>> {
        let line = Zeroizing::new(self.buffer[..end].to_vec());
        let left = self.buffer.len() - next;
        self.buffer.copy_within(next.., 0);
        self.buffer[left..].zeroize();
        self.buffer.truncate(left);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that returns its bytes in pieces of a given size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let (now, later) = self.0.split_at(self.1.min(self.0.len()).min(buffer.len()));
            buffer[..now.len()].copy_from_slice(now);
            self.0 = later;
            Ok(now.len())
        }
    }

    #[test]
    fn lines_come_in_pieces() {
        for size in [1, 2, 3, 100] {
            let mut input = Input::new(Pieces(b"one\n\nthree", size));
            let mut lines = Vec::new();
            while let Some(line) = input.line().unwrap() {
                lines.push(line.to_vec());
            }
            assert_eq!(lines, [&b"one"[..], b"", b"three"], "in pieces of {size}");
        }
    }
}
