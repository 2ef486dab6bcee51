//! How much of a volume to close.

use serde::{Deserialize, Serialize};

use crate::storage::MountSpec;

/// How much of a volume to close while something holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "extent", rename_all = "kebab-case")]
pub enum Extent {
    /// All or nothing: a volume in use stays as it is, as far as its use shows beforehand. If closing fails anyway, the
    /// worker mounts the volume again.
    Whole {
        /// How the agent mounts it; `None` if others do.
        mount: Option<MountSpec>,
    },
    /// As much as possible: every mount of the volume, and its mapping. For a shutdown, during which nothing may be
    /// mounted again, and for a mapping whose disk is gone.
    AsFarAsPossible,
}
