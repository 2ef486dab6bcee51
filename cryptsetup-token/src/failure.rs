//! Why there is no passphrase, and what libcryptsetup makes of it.

use std::ffi::c_int;

/// Why there is no passphrase.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The token or its wrapped key: nothing but another token can help.
    Token(Vec<String>),
    /// The agent, the key service or the credentials: it may work later.
    Unavailable(Vec<String>),
    /// No memory for the passphrase.
    NoMemory,
}

impl Failure {
    pub(crate) fn token(why: &str) -> Self {
        Self::Token(vec![format!("luks-agent: {why}")])
    }

    pub(crate) fn unavailable(why: &str) -> Self {
        Self::Unavailable(vec![format!("luks-agent: {why}")])
    }

    /// Returns what to tell the user.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        let lines = match self {
            Self::Token(lines) | Self::Unavailable(lines) => lines.as_slice(),
            Self::NoMemory => &[],
        };
        lines.iter().map(String::as_str)
    }

    /// Returns what the plug-in returns.
    ///
    /// After EINVAL and EAGAIN libcryptsetup tries the other tokens, and then the user may be asked for a passphrase. After most
    /// other errors it gives up. ENOANO would ask for a PIN.
    pub(crate) fn errno(&self) -> c_int {
        match self {
            Self::Token(_) => -libc::EINVAL,
            Self::Unavailable(_) => -libc::EAGAIN,
            Self::NoMemory => -libc::ENOMEM,
        }
    }
}
