//! How much of a volume is closed.

use serde::{Deserialize, Serialize};

use crate::storage::MountSpec;

/// How much of a volume is closed that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "extent", rename_all = "kebab-case")]
pub enum Extent {
    /// Nothing, as far as that can be known beforehand; and if it cannot be closed all the same, it is mounted again.
    Whole {
        /// How the agent mounts it; `None` where others do.
        mount: Option<MountSpec>,
    },
    /// Whatever can be: every mount of it, and its mapping. For a shutdown, in the middle of which nothing may be mounted again, and
    /// for a mapping whose disk is gone.
    AsFarAsPossible,
}
