//! What `apply` works with.

use crate::config::Config;
use crate::state::StateDir;

/// What `apply` needs besides the plan.
#[derive(Debug)]
pub struct Apply<'a, K, H> {
    /// The configuration.
    pub config: &'a Config,
    /// The state directory, locked. `None` if the run must not write the state file.
    pub store: Option<&'a StateDir>,
    /// The key service.
    pub keys: &'a K,
    /// The machine.
    pub host: &'a H,
    /// This instance, if known.
    pub instance_id: Option<String>,
}
