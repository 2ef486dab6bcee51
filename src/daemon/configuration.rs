//! How the daemon waits for its configuration.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tokio::time::{Interval, sleep};

use super::systemd::tell;
use crate::config::Config;
use crate::error::chain;

/// How often the daemon looks for a configuration. It uses one that was valid twice, so that one written as several files is
/// complete.
const CONFIGURATION: Duration = Duration::from_secs(10);

/// Waits for a valid configuration, which user data may write long after the boot. Logs each mistake once.
pub(super) async fn wait_for_configuration(path: &Path, hang_up: &mut Signal, watchdog: &mut Interval) -> Config {
    let mut told = String::new();
    let mut valid = false;
    loop {
        match Config::load(path) {
            // it was valid at once, or for the second time
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
                // somebody says that the configuration is complete
                _ = hang_up.recv() => {
                    tell(&[NotifyState::Reloading, NotifyState::Ready]);
                    valid = true;
                    break;
                }
            }
        }
    }
}
