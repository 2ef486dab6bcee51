//! What apply works with.

use crate::config::Config;
use crate::state::StateDir;

/// What apply needs beside the plan.
#[derive(Debug)]
pub struct Apply<'a, K, H> {
    /// The configuration.
    pub config: &'a Config,
    /// The state directory, locked. `None` where the state must not be written.
    pub store: Option<&'a StateDir>,
    /// The key service.
    pub keys: &'a K,
    /// The machine.
    pub host: &'a H,
    /// This instance, where that is known.
    pub instance_id: Option<String>,
}
