//! Orphans: mappings of known volumes whose disk is gone.

use futures_util::future::join_all;

use super::error::CommandError;
use super::node::is_known;
use crate::config::Config;
use crate::discover::{Roots, discover, orphans};
use crate::disk::{Holder, Inventory};
use crate::error::chain;
use crate::job::{Answer, Extent, Host, Job};
use crate::state::State;

/// Closes the mappings of known volumes whose disk is gone. Returns the disks that are there, unless there were such mappings.
///
/// Either the disk was detached, or a worker was killed while it opened the volume. The mapping would keep the volume from being
/// opened again.
pub(super) async fn remove_orphans(
    config: &Config,
    state: &State,
    host: &impl Host,
) -> Result<Option<Inventory>, CommandError> {
    let roots = Roots::host();
    let found = discover(&roots, &config.state.dir, None)?;
    let mut orphans = orphans(&roots)?;
    orphans.retain(|mapping| is_known(state, mapping));
    let unchanged = orphans.is_empty();
    let removals = orphans.into_iter().map(async |mapping| {
        let Holder { dm_name: Some(mapper), .. } = mapping else { return };
        // without a disk there is nothing to mount again
        let job = Job::Close { mapper: mapper.clone(), extent: Extent::AsFarAsPossible };
        let why = match host.run(&mapper, job, &[]).await {
            Ok(Answer::Failed { message }) => message,
            Ok(_) => return tracing::warn!(mapper, "closed {mapper}, whose disk is gone"),
            Err(e) => chain(e),
        };
        tracing::error!(mapper, "cannot close {mapper}, whose disk is gone: {why}");
    });
    join_all(removals).await;
    Ok(unchanged.then_some(found))
}
