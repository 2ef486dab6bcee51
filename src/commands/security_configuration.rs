//! Tells that the EMR security configuration of `[emr]` is another one than before. EMR's own cannot be changed.

use crate::config::Config;
use crate::state::{State, StateDir, StateError};

/// Returns what to tell if the document is not the one that this node was provisioned with.
pub(super) fn change(config: &Config, state: &State) -> Option<String> {
    let (emr, recorded) = (config.emr.as_ref()?, state.security_configuration.as_ref()?);
    let file = emr.security_configuration.display();
    (*recorded != emr.digest).then(|| {
        format!(
            "the security configuration {file} has changed since this node was provisioned with it, and EMR never changes one; put the former one back, or accept it with 'luks-agent provision', which changes no volume that there is"
        )
    })
}

/// Records the document that this node is provisioned with, and tells a change. Only with `accept` the changed one is recorded.
pub(super) fn record(config: &Config, state: &mut State, store: &StateDir, accept: bool) -> Result<(), StateError> {
    if let Some(change) = change(config, state) {
        tracing::warn!("{change}");
        if !accept {
            return Ok(());
        }
    }
    let Some(emr) = &config.emr else { return Ok(()) };
    if state.security_configuration.as_ref() != Some(&emr.digest) {
        state.security_configuration = Some(emr.digest.clone());
        // without a key there is no state file yet, and the write that makes it has this too
        if !state.keys.is_empty() {
            store.save(state)?;
        }
    }
    Ok(())
}
