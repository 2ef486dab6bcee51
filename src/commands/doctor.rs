//! `doctor`: says whether this node can do its work, before anything is formatted.
//!
//! It makes every check, also after one has failed, and writes nothing. No check waits longer than half a minute.

mod allow;
mod clock;
mod fips;
mod io_timeout;
mod key_rows;
mod key_service;
mod machine;
mod metadata;
mod permissions;
mod places;
mod program;
mod systemctl;
mod units;
mod waiting;

use crate::config::Config;
use crate::report::{Check, Report};
use crate::state;

/// `doctor`: checks everything that `provision` and the boot depend on.
pub async fn doctor(config: &Config) -> Report {
    let state = state::read(&config.state.dir);
    let recorded = state.as_ref().ok().and_then(Option::as_ref);
    let (machine, places, (key_service, clock), units) = tokio::join!(
        machine::checks(config),
        places::checks(config, &state),
        key_service::checks(config, recorded),
        units::checks(config, recorded),
    );
    let all: Vec<Check> = [machine, places, key_service, vec![clock], units].concat();
    Report::of_checks("doctor", all)
}
