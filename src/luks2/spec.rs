//! The specification of a new volume.

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::policy::Expected;
use super::token::Token;

/// The specification of a new volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FormatSpec {
    /// The header that it must have afterwards: its UUID, and the key for its token.
    pub expected: Expected,
    /// The encryption of its sectors.
    pub layout: Layout,
    /// The instance that formats it, for the token.
    pub instance_id: Option<String>,
}

impl FormatSpec {
    /// Returns the token of the new volume, not assigned to a keyslot yet.
    pub(crate) fn token(&self) -> Token {
        Token::new(self.expected.key.clone(), self.instance_id.clone())
    }
}
