//! The configuration as written in one file: everything is optional, and unknown keys are errors.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::checked::{
    AbsolutePath, KeySize, MountBase, MountOption, NonEmpty, SectorSize, Span, Url, crosses_in_clear,
};
use super::error::ConfigError;
use super::values::{
    Config, Expect, Filesystem, Health, Kms, Luks, Metrics, Noise, Policy, State, Volumes, WhenNotBlank,
};
use crate::disk::{BlankScan, MatchRule};
use crate::luks2::Cipher;
use crate::storage::FilesystemKind;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fragment {
    #[serde(default)]
    kms: KmsFragment,
    #[serde(default)]
    state: StateFragment,
    #[serde(default)]
    volumes: VolumesFragment,
    #[serde(default)]
    luks: LuksFragment,
    #[serde(default)]
    filesystem: FilesystemFragment,
    #[serde(default)]
    health: HealthFragment,
    #[serde(default)]
    metrics: MetricsFragment,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KmsFragment {
    key_id: Option<NonEmpty>,
    region: Option<NonEmpty>,
    endpoint_url: Option<Url>,
    allow_http: Option<bool>,
    deadline: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFragment {
    dir: Option<AbsolutePath>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumesFragment {
    instance_store: Option<Policy>,
    ebs: Option<Policy>,
    when_not_blank: Option<WhenNotBlank>,
    noise: Option<Noise>,
    blank_scan: Option<BlankScan>,
    deadline: Option<Span>,
    grow: Option<bool>,
    require_rule: Option<bool>,
    #[serde(default)]
    expect: ExpectFragment,
    #[serde(default, rename = "match")]
    rules: Vec<MatchRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectFragment {
    ebs: Option<u32>,
    instance_store: Option<u32>,
    within: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LuksFragment {
    cipher: Option<Cipher>,
    key_size: Option<KeySize>,
    sector_size: Option<SectorSize>,
    discards: Option<bool>,
    no_read_workqueue: Option<bool>,
    no_write_workqueue: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilesystemFragment {
    #[serde(rename = "type")]
    kind: Option<FilesystemKind>,
    mount_base: Option<MountBase>,
    options: Option<Vec<MountOption>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthFragment {
    interval: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsFragment {
    textfile: Option<AbsolutePath>,
}

impl Fragment {
    /// Lets what `later` gives win; match rules are appended.
    pub(super) fn merge(&mut self, later: Self) {
        macro_rules! take {
            ($($section:ident: $($field:ident)*;)*) => {
                $($(if later.$section.$field.is_some() { self.$section.$field = later.$section.$field; })*)*
            };
        }
        take! {
            kms: key_id region endpoint_url allow_http deadline;
            state: dir;
            volumes: instance_store ebs when_not_blank noise blank_scan deadline grow require_rule;
            luks: cipher key_size sector_size discards no_read_workqueue no_write_workqueue;
            filesystem: kind mount_base options;
            health: interval;
            metrics: textfile;
        }
        let (before, later_expect) = (std::mem::take(&mut self.volumes.expect), later.volumes.expect);
        self.volumes.expect = ExpectFragment {
            ebs: later_expect.ebs.or(before.ebs),
            instance_store: later_expect.instance_store.or(before.instance_store),
            within: later_expect.within.or(before.within),
        };
        self.volumes.rules.extend(later.volumes.rules);
    }

    pub(super) fn validate(self, path: &Path) -> Result<Config, ConfigError> {
        let Self { kms, state, mut volumes, luks, filesystem, health, metrics } = self;
        if volumes.require_rule.unwrap_or(false) {
            volumes.rules.push(MatchRule::ignores_the_rest());
        }
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let allow_http = kms.allow_http.unwrap_or(false);
        let in_clear = kms.endpoint_url.iter().find(|url| !allow_http && crosses_in_clear(&url.0));
        if let Some(Url(url)) = in_clear {
            return Err(ConfigError::InClear { path: path.to_owned(), url: url.clone() });
        }
        Ok(Config {
            kms: Kms {
                key_id: kms.key_id.map(|v| v.0).ok_or_else(|| ConfigError::Required {
                    path: path.to_owned(),
                    key: "kms.key_id",
                    expected: "give the ARN, the key id or the alias of a customer managed symmetric KMS key",
                })?,
                region: kms.region.map(|v| v.0),
                endpoint_url: kms.endpoint_url.map(|v| v.0),
                allow_http,
                deadline: kms.deadline.map_or(minutes(10), |v| v.0),
            },
            state: State { dir: state.dir.map_or_else(|| PathBuf::from("/etc/luks-agent/state"), |v| v.0) },
            volumes: Volumes {
                instance_store: volumes.instance_store.unwrap_or(Policy::Encrypt),
                ebs: volumes.ebs.unwrap_or(Policy::Encrypt),
                when_not_blank: volumes.when_not_blank.unwrap_or(WhenNotBlank::Refuse),
                noise: volumes.noise.unwrap_or(Noise::Refuse),
                blank_scan: volumes.blank_scan.unwrap_or(BlankScan::Sampled),
                deadline: volumes.deadline.map_or(minutes(5), |v| v.0),
                grow: volumes.grow.unwrap_or(false),
                expect: Expect {
                    ebs: volumes.expect.ebs,
                    instance_store: volumes.expect.instance_store,
                    within: volumes.expect.within.map_or(minutes(5), |v| v.0),
                },
                rules: volumes.rules,
            },
            luks: Luks {
                cipher: luks.cipher.unwrap_or(Cipher::AesXtsPlain64),
                key_size: luks.key_size.map_or(512, |v| v.0),
                sector_size: luks.sector_size.map(|v| v.0),
                discards: luks.discards.unwrap_or(false),
                no_read_workqueue: luks.no_read_workqueue.unwrap_or(false),
                no_write_workqueue: luks.no_write_workqueue.unwrap_or(false),
            },
            filesystem: Filesystem {
                kind: filesystem.kind.unwrap_or(FilesystemKind::Xfs),
                mount_base: filesystem.mount_base.map_or_else(|| PathBuf::from("/mnt"), |v| v.0),
                options: filesystem
                    .options
                    .map_or_else(|| vec!["noatime".to_owned()], |list| list.into_iter().map(|v| v.0).collect()),
            },
            health: Health { interval: health.interval.map_or(minutes(15), |v| v.0) },
            metrics: Metrics { textfile: metrics.textfile.map(|v| v.0) },
        })
    }
}
