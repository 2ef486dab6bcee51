//! Which ciphers the kernel supports. The commands check this before they call KMS, and before they write anything.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::error::unexpected;
use crate::disk::MissingCipher;
use crate::error::chain;
use crate::job::{Answer, Host, Job};
use crate::luks2::Encryption;
use crate::state::VolumeRecord;

/// The ciphers that were checked; each is checked once.
#[derive(Debug)]
pub(super) struct Ciphers<'a, H> {
    host: &'a H,
    /// Locked while ciphers are tried, so that who asks meanwhile does not try them again.
    tried: Mutex<BTreeMap<Encryption, Option<MissingCipher>>>,
}

impl<'a, H: Host> Ciphers<'a, H> {
    pub(super) fn new(host: &'a H) -> Self {
        Self { host, tried: Mutex::default() }
    }

    pub(super) fn host(&self) -> &'a H {
        self.host
    }

    /// Returns those of the `wanted` ciphers that the kernel lacks.
    ///
    /// A cipher that cannot be checked counts as supported; opening the volume will show.
    pub(super) async fn missing(&self, wanted: impl IntoIterator<Item = Encryption>) -> Vec<MissingCipher> {
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort();
        wanted.dedup();
        let mut tried = self.tried.lock().await;
        let new = wanted.iter().copied().filter(|encryption| !tried.contains_key(encryption));
        let found = join_all(new.collect::<Vec<_>>().into_iter().map(async |encryption| {
            let missing = match self.host.run("kernel", Job::Cipher { encryption }, &[]).await {
                Ok(Answer::Cipher { missing }) => missing,
                Ok(Answer::Failed { message }) => unknown(encryption, &message),
                Ok(other) => unknown(encryption, &unexpected(&other)),
                Err(e) => unknown(encryption, &chain(e)),
            };
            (encryption, missing)
        }));
        tried.extend(found.await);
        wanted.iter().filter_map(|encryption| tried.get(encryption)?.clone()).collect()
    }

    /// Returns the volumes whose cipher the kernel supports, or may support.
    pub(super) async fn usable<'v>(&self, volumes: Vec<&'v VolumeRecord>) -> Vec<&'v VolumeRecord> {
        let missing = self.missing(volumes.iter().map(|volume| volume.header.encryption())).await;
        let can_open = |volume: &&VolumeRecord| {
            let encryption = volume.header.encryption();
            !missing.iter().any(|missing| missing.encryption == encryption)
        };
        volumes.into_iter().filter(can_open).collect()
    }
}

fn unknown(encryption: Encryption, why: &str) -> Option<MissingCipher> {
    tracing::warn!("cannot check whether this kernel supports {encryption}: {why}");
    None
}
