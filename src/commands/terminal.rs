//! The terminal of the user, for what must not go anywhere else.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc::O_NOCTTY;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// No answer is longer.
const ANSWER_BYTES: usize = 256;

/// The controlling terminal, whatever standard input and output are.
#[derive(Debug)]
pub(super) struct Terminal(File);

impl Terminal {
    /// Opens it.
    ///
    /// # Errors
    /// If the process has none.
    pub(super) fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY).open("/dev/tty").map(Self)
    }

    /// Shows text.
    pub(super) fn show(&self, parts: &[&[u8]]) -> io::Result<()> {
        let mut terminal = &self.0;
        parts.iter().try_for_each(|part| terminal.write_all(part))?;
        terminal.flush()
    }

    /// Asks for one line, and does not echo it.
    ///
    /// # Errors
    /// If the terminal is gone, or the user gave up with Ctrl-C or Ctrl-D.
    pub(super) fn ask(&self, prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
        let quiet = Quiet::new(&self.0)?;
        self.show(&[prompt.as_bytes()])?;
        let answer = self.line();
        drop(quiet);
        self.show(&[b"\n"])?;
        answer
    }

    fn line(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        // never grows, which would leave copies behind
        let mut line = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES));
        loop {
            let mut byte = Zeroizing::new([0]);
            if (&self.0).read(&mut byte[..])? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the terminal was closed"));
            }
            match byte[0] {
                b'\n' | b'\r' => return Ok(line),
                // Ctrl-C, Ctrl-D
                3 | 4 => return Err(io::Error::new(io::ErrorKind::Interrupted, "nothing was entered")),
                // backspace
                8 | 127 => drop(line.pop()),
                // Ctrl-U
                21 => line.clear(),
                _ if line.len() == ANSWER_BYTES => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
                }
                byte => line.push(byte),
            }
        }
    }
}

/// A terminal that echoes nothing and handles no keys, for as long as this lives.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        // keys too, because a signal would leave the terminal without echo
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // the terminal may be gone
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}
