//! How the daemon comes by its configuration.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tokio::time::{Interval, sleep};

use super::systemd::tell;
use crate::config::Config;
use crate::error::chain;

/// How often the daemon tries whether there is a configuration. It uses one that was valid twice, so that what is written in several
/// files is complete.
const CONFIGURATION: Duration = Duration::from_secs(10);

/// Waits for a valid configuration: user data may write it long after the boot. Told once is what keeps it from being valid.
pub(super) async fn wait_for_configuration(path: &Path, hang_up: &mut Signal, watchdog: &mut Interval) -> Config {
    let mut told = String::new();
    let mut valid = false;
    loop {
        match Config::load(path) {
            // nothing was ever wrong, or it was valid a while ago
            Ok(config) if valid || told.is_empty() => return config,
            Ok(_) => valid = true,
            Err(e) => {
                valid = false;
                let error = chain(e);
                if error != told {
                    tracing::error!("waiting for a valid configuration: {error}");
                    tell(&[
                        NotifyState::Ready,
                        NotifyState::Status(&format!("waiting for a valid configuration: {error}")),
                    ]);
                    told = error;
                }
            }
        }
        let again = sleep(CONFIGURATION);
        let mut again = pin!(again);
        loop {
            tokio::select! {
                () = &mut again => break,
                _ = watchdog.tick() => tell(&[NotifyState::Watchdog]),
                // somebody says that it is complete
                _ = hang_up.recv() => {
                    tell(&[NotifyState::Reloading, NotifyState::Ready]);
                    valid = true;
                    break;
                }
            }
        }
    }
}
