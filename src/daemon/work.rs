//! The work of the daemon.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::compare::Seen;
use super::schedule::Work;
use super::systemd::{run_unit, start_target};
use crate::commands;
use crate::config::Config;
use crate::error::chain;
use crate::report::last;
use crate::state::closed;

/// The result of work.
pub(super) enum Ended {
    /// What a look at the node found; `None` if it failed.
    Looked(Option<Seen>),
    /// Anything else.
    Done {
        /// What ended.
        work: Work,
        /// Whether it succeeded.
        succeeded: bool,
    },
}

/// Does the work, and waits until it is done.
pub(super) async fn perform(work: Work, config: Arc<Config>) -> Ended {
    let succeeded = match work {
        // in a thread of its own, because a disk that hangs may block it
        Work::Look => return Ended::Looked(spawn_blocking(move || look(&config)).await.ok().flatten()),
        Work::Provision => run_unit("luks-agent-provision.service").await,
        Work::Health => run_unit("luks-agent-health.service").await,
        Work::Audit => run_unit("luks-agent-audit.service").await,
        Work::Target => start_target().await,
    };
    Ended::Done { work, succeeded }
}

/// Compares the node with what it should be.
fn look(config: &Config) -> Option<Seen> {
    match commands::picture(config) {
        Ok(picture) => {
            let (last, boot) = (last::read("provision"), last::read("boot"));
            Some(Seen::of(config, &picture, &closed::read(), last.as_ref(), boot.as_ref()))
        }
        Err(e) => {
            tracing::warn!("cannot check the state of the volumes: {}", chain(e));
            None
        }
    }
}
