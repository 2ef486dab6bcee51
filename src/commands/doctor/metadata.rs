//! The instance metadata service (IMDS).

use std::time::Duration;

use super::super::instance::imds;
use crate::config::{Config, EndpointMode};
use crate::error::chain;
use crate::kms::imds::{Imds, ImdsError, is_disabled};
use crate::report::Check;

const NAME: &str = "imds";

/// What IMDS says.
#[derive(Debug)]
pub(super) struct Metadata {
    instance_id: Result<Option<String>, ImdsError>,
    /// The role of the instance.
    pub(super) role: Option<String>,
    /// Whether it is reached over IPv6, which instances do not have by default.
    is_ipv6: bool,
}

impl Metadata {
    /// Asks IMDS, on EC2 until it answers or `patience` is over.
    pub(super) async fn ask(config: &Config, patience: Duration) -> Self {
        let instance_id = imds(config, patience).instance_id().await;
        let config = config.imds;
        let role = match &instance_id {
            // once: an instance without a role gives the same answer as one that is not ready
            Ok(Some(_)) => Imds::new(config).role().await.ok().flatten(),
            Ok(None) | Err(_) => None,
        };
        Self { instance_id, role, is_ipv6: config.endpoint_mode == Some(EndpointMode::Ipv6) }
    }

    /// A node can work without IMDS, so its absence alone is no failure.
    pub(super) fn row(&self) -> Check {
        match &self.instance_id {
            Ok(Some(id)) => {
                let role = self.role.as_ref().map_or("without a role".to_owned(), |role| format!("role {role}"));
                Check::ok(NAME, format!("instance {id}, {role}"))
            }
            Ok(None) if is_disabled() => Check::warning(NAME, "AWS_EC2_METADATA_DISABLED is true, so nobody asks it"),
            Ok(None) => Check::warning(NAME, "no answer from the instance metadata service").with_remedy(self.enable()),
            Err(e) => Check::warning(NAME, chain(e)),
        }
    }

    fn enable(&self) -> String {
        let (ipv6, otherwise) = match self.is_ipv6 {
            true => (" --http-protocol-ipv6 enabled", ""),
            false => ("", " on a node without IPv4, set imds.endpoint_mode = \"ipv6\";"),
        };
        format!(
            "aws ec2 modify-instance-metadata-options --http-endpoint enabled{ipv6} --instance-id INSTANCE;{otherwise} ignore this where \
             region and credentials come from elsewhere"
        )
    }
}
