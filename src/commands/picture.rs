//! The node as the daemon sees it.

use super::error::CommandError;
use super::node::is_known;
use crate::config::Config;
use crate::discover::{Roots, discover, orphans};
use crate::disk::DeviceFacts;
use crate::state::{self, State};

/// What the daemon sees of the node: sysfs and the state file. It opens no device, and does not ask IMDS what Xen disks are.
#[derive(Debug)]
pub struct Picture {
    /// The state file.
    pub state: State,
    /// The disks that are there.
    pub disks: Vec<DeviceFacts>,
    /// Whether a known volume is still open although its disk is gone.
    pub orphans: bool,
}

/// Takes a picture of the node.
///
/// # Errors
/// When the disks or the state file cannot be read.
pub fn picture(config: &Config) -> Result<Picture, CommandError> {
    let roots = Roots::host();
    let state = state::read(&config.state.dir)?.unwrap_or_default();
    let disks = discover(&roots, &config.state.dir, None)?.devices;
    let orphans = orphans(&roots)?.iter().any(|mapping| is_known(&state, mapping));
    Ok(Picture { state, disks, orphans })
}
