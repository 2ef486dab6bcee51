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
    /// Held while ciphers are tried, so that a second caller waits for the result instead of trying them again.
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
    /// A cipher that cannot be checked counts as supported; opening the volume will show. Waits for a running trial even if nothing is
    /// wanted: a command that exits during a trial kills its worker, and the devices of the trial stay.
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join;

    use super::*;
    use crate::job::HostError;
    use crate::key::Passphrase;
    use crate::luks2::Cipher;

    /// Has every cipher, and counts the trials.
    #[derive(Default)]
    struct Counting(Cell<u32>);

    impl Host for Counting {
        async fn run(&self, _: &str, _: Job, _: &[&Passphrase]) -> Result<Answer, HostError> {
            self.0.set(self.0.get() + 1);
            tokio::task::yield_now().await;
            Ok(Answer::Cipher { missing: None })
        }
    }

    #[tokio::test]
    async fn two_who_ask_at_once_share_a_trial() {
        let host = Counting::default();
        let ciphers = Ciphers::new(&host);
        let encryption = Encryption { cipher: Cipher::AesXtsPlain64, key_size: 512 };
        let found = join(ciphers.missing([encryption]), ciphers.missing([encryption])).await;
        assert_eq!((found, host.0.get()), ((vec![], vec![]), 1));
    }
}
