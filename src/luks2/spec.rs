//! What a new volume is made from.

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::policy::Expected;
use super::token::Token;

/// How a new volume is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FormatSpec {
    /// What its header must be in the end: its UUID, and the wrapped key for its token.
    pub expected: Expected,
    /// How its sectors are encrypted.
    pub layout: Layout,
    /// The instance that makes it, for the token.
    pub instance_id: Option<String>,
}

impl FormatSpec {
    /// The token of the new volume, not assigned to a keyslot yet.
    pub(crate) fn token(&self) -> Token {
        let Expected { wrapped_key, key_arn, .. } = &self.expected;
        Token::new(wrapped_key.clone(), key_arn.clone(), self.instance_id.clone())
    }
}
