//! How a boot waits for the volumes that `[volumes.expect]` asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::CommandError;
use super::planning::Planning;
use crate::config::Config;
use crate::discover::{Roots, discover};
use crate::disk::Inventory;
use crate::job::Host;
use crate::plan::{Mode, Plan};

/// How often a boot that waits looks for disks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often it plans again although the disks are the same, since one may have become readable, and says what it waits for.
const PROGRESS: Duration = Duration::from_secs(15);

/// Plans until the plan has all volumes that `[volumes.expect]` asks for, or the time for that is up.
///
/// Plans again each time that disks came, went or changed their size, and every [`PROGRESS`].
pub(super) async fn plan_until_complete(
    planning: &Planning<'_, impl Host>,
    mut seen: Option<Inventory>,
) -> Result<Plan, CommandError> {
    let config = planning.config;
    let until = Instant::now() + config.volumes.expect.within;
    loop {
        let found = match seen.take() {
            Some(found) => found,
            None => discover(&Roots::host(), &config.state.dir, None)?,
        };
        // read the clock before looking, so that the last look comes after the whole wait
        let is_last = Instant::now() >= until;
        let plan = planning.plan(Mode::Provision, Some(found.clone())).await?;
        if plan.shortfalls.is_empty() || is_last {
            return Ok(plan);
        }
        let missing = plan.shortfalls.iter().map(|short| short.finding().evidence).collect::<Vec<_>>().join(", ");
        let left = until.saturating_duration_since(Instant::now());
        tracing::warn!("{missing}; waiting for more, {} s at most", left.as_secs());
        seen = wait_for_other_disks(config, &found, left.min(PROGRESS)).await?;
    }
}

/// Waits until the disks differ from those that were `found`. Returns `None` if they do not within `patience`; a disk that could
/// not be read before may be readable by then.
async fn wait_for_other_disks(
    config: &Config,
    found: &Inventory,
    patience: Duration,
) -> Result<Option<Inventory>, CommandError> {
    let disks = |inventory: &Inventory| -> BTreeSet<_> {
        inventory.devices.iter().map(|facts| (facts.name.clone(), facts.devno, facts.diskseq, facts.size)).collect()
    };
    let until = Instant::now() + patience;
    while Instant::now() < until {
        sleep(LOOK_AGAIN.min(until.saturating_duration_since(Instant::now()))).await;
        let now = discover(&Roots::host(), &config.state.dir, None)?;
        if disks(&now) != disks(found) {
            return Ok(Some(now));
        }
    }
    Ok(None)
}
