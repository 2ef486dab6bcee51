//! What the instance metadata service (IMDS) knows about this instance.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::chain;
use crate::kms::InstanceIdentity;
use crate::kms::imds::Imds;

/// This instance. Its id is read from IMDS once, when first needed.
#[derive(Debug)]
pub(super) struct Instance<'a> {
    config: &'a Config,
    id: OnceCell<Option<String>>,
}

impl<'a> Instance<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, id: OnceCell::new() }
    }

    /// Returns the instance id. Waits at most a minute for it: it only tells a clone from its original, which is not worth a slow boot.
    pub(super) async fn id(&self) -> Option<String> {
        let patience = self.config.kms.deadline.min(Duration::from_secs(60));
        let ask = || async {
            imds(self.config, patience).instance_id().await.unwrap_or_else(|e| {
                tracing::warn!("cannot read the instance id from IMDS: {}", chain(e));
                None
            })
        };
        self.id.get_or_init(ask).await.clone()
    }
}

/// Returns the block device mapping; `None` if IMDS does not return it within `patience`.
pub(super) async fn block_device_mapping(config: &Config, patience: Duration) -> Option<BTreeMap<String, String>> {
    match imds(config, patience).block_device_mapping().await {
        Ok(Some(mapping)) => Some(mapping),
        Ok(None) => {
            tracing::warn!("cannot tell which Xen disk is which: there is no instance metadata service (IMDS)");
            None
        }
        Err(e) => {
            tracing::warn!(
                "cannot tell which Xen disk is which: cannot read the block device mapping from IMDS: {}",
                chain(e)
            );
            None
        }
    }
}

/// Returns the identity document; `None` if IMDS does not return it within `patience`.
pub(super) async fn identity(config: &Config, patience: Duration) -> Option<InstanceIdentity> {
    imds(config, patience).identity_document().await.unwrap_or_else(|e| {
        tracing::warn!("cannot read the instance identity document from IMDS: {}", chain(e));
        None
    })
}

/// Returns the client for IMDS. It retries for `patience` on EC2, where IMDS works once the network does, and tries once elsewhere.
pub(super) fn imds(config: &Config, patience: Duration) -> Imds {
    let vendor = fs::read_to_string("/sys/class/dmi/id/sys_vendor").unwrap_or_default();
    let xen = fs::read_to_string("/sys/hypervisor/uuid").unwrap_or_default();
    let ec2 = vendor.trim() == "Amazon EC2" || xen.starts_with("ec2");
    let imds = Imds::new(config.imds);
    if ec2 { imds.wait_until(Instant::now() + patience) } else { imds }
}
