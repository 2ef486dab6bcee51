//! The configuration as written in one file: every value is optional, and unknown keys are errors.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::checked::{
    AbsolutePath, AuditInterval, CommandLine, KeySize, MountBase, MountOption, NonEmpty, SectorSize, Span, Url,
    Variable, crosses_in_clear,
};
use super::error::ConfigError;
use super::values::{
    Audit, Config, EndpointMode, Exec, Expect, Filesystem, Health, Imds, Keys, Kms, Luks, Metrics, Noise, Policy,
    State, Volumes, WhenNotBlank,
};
use crate::disk::{BlankScan, MatchRule};
use crate::emr::Import;
use crate::key::Provider;
use crate::luks2::Cipher;
use crate::storage::FilesystemKind;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fragment {
    #[serde(default)]
    keys: KeysFragment,
    #[serde(default)]
    kms: KmsFragment,
    #[serde(default)]
    imds: ImdsFragment,
    #[serde(default)]
    exec: ExecFragment,
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
    #[serde(default)]
    audit: AuditFragment,
    #[serde(default)]
    emr: EmrFragment,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFragment {
    provider: Option<Provider>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecFragment {
    command: Option<CommandLine>,
    key_id: Option<NonEmpty>,
    deadline: Option<Span>,
    timeout: Option<Span>,
    pass_environment: Option<Vec<Variable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KmsFragment {
    key_id: Option<NonEmpty>,
    region: Option<NonEmpty>,
    endpoint_url: Option<Url>,
    fips: Option<bool>,
    dual_stack: Option<bool>,
    allow_http: Option<bool>,
    deadline: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImdsFragment {
    endpoint_mode: Option<EndpointMode>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditFragment {
    signing_key: Option<NonEmpty>,
    interval: Option<AuditInterval>,
    report: Option<AbsolutePath>,
    ssm_inventory: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmrFragment {
    security_configuration: Option<AbsolutePath>,
}

impl Fragment {
    /// Returns the file of the security configuration.
    pub(super) fn security_configuration(&self) -> Option<PathBuf> {
        self.emr.security_configuration.as_ref().map(|path| path.0.clone())
    }

    /// Takes over what a security configuration says, if no value contradicts it. Otherwise it returns the contradiction.
    pub(super) fn take_over(&mut self, import: &Import) -> Result<(), String> {
        let differs = |key: &str, set: &str, said: &str| {
            Err(format!(
                "it says {key} = \"{said}\", and the configuration says \"{set}\"; remove {key} from the configuration"
            ))
        };
        if self.keys.provider.is_some_and(|provider| provider != Provider::AwsKms) {
            return differs("keys.provider", "exec", "aws-kms");
        }
        match &self.kms.key_id {
            Some(NonEmpty(set)) if *set != import.key_id => return differs("kms.key_id", set, &import.key_id),
            Some(_) => {}
            None => self.kms.key_id = Some(NonEmpty(import.key_id.clone())),
        }
        match (self.volumes.ebs, import.ebs_encryption) {
            (Some(Policy::Encrypt), true) => return differs("volumes.ebs", "encrypt", "ignore"),
            (Some(Policy::Ignore), false) => return differs("volumes.ebs", "ignore", "encrypt"),
            (_, true) => self.volumes.ebs = Some(Policy::Ignore),
            (_, false) => self.volumes.ebs = Some(Policy::Encrypt),
        }
        Ok(())
    }

    /// Merges a later fragment: its values override, and its match rules are appended.
    pub(super) fn merge(&mut self, later: Self) {
        macro_rules! take {
            ($($section:ident: $($field:ident)*;)*) => {
                $($(if later.$section.$field.is_some() { self.$section.$field = later.$section.$field; })*)*
            };
        }
        take! {
            keys: provider;
            kms: key_id region endpoint_url fips dual_stack allow_http deadline;
            imds: endpoint_mode;
            exec: command key_id deadline timeout pass_environment;
            state: dir;
            volumes: instance_store ebs when_not_blank noise blank_scan deadline grow require_rule;
            luks: cipher key_size sector_size discards no_read_workqueue no_write_workqueue;
            filesystem: kind mount_base options;
            health: interval;
            metrics: textfile;
            audit: signing_key interval report ssm_inventory;
            emr: security_configuration;
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
        let Self { keys, kms, imds, exec, state, volumes, luks, filesystem, health, metrics, audit, emr: _ } = self;
        let (kms, exec) = (kms.validate(path)?, exec.validate(path)?);
        Ok(Config {
            keys: keys.validate(path, &kms, exec.as_ref())?,
            kms,
            imds: Imds { endpoint_mode: imds.endpoint_mode },
            exec,
            state: State { dir: state.dir.map_or_else(|| PathBuf::from("/etc/luks-agent/state"), |v| v.0) },
            volumes: volumes.validate(),
            luks: luks.validate(),
            filesystem: filesystem.validate(),
            health: Health { interval: health.interval.map_or(minutes(15), |v| v.0) },
            metrics: Metrics { textfile: metrics.textfile.map(|v| v.0) },
            audit: audit.validate(path)?,
            emr: None,
        })
    }
}

impl KmsFragment {
    fn validate(self, path: &Path) -> Result<Kms, ConfigError> {
        let allow_http = self.allow_http.unwrap_or(false);
        if let Some(Url(url)) = &self.endpoint_url
            && !allow_http
            && crosses_in_clear(url)
        {
            return Err(ConfigError::InClear { path: path.to_owned(), url: url.clone() });
        }
        // the SDK resolves neither together with an endpoint of one's own
        let choices = [("kms.fips", self.fips), ("kms.dual_stack", self.dual_stack)];
        let choice = choices.into_iter().find(|(_, value)| *value == Some(true));
        if let (Some(_), Some((key, _))) = (&self.endpoint_url, choice) {
            return Err(ConfigError::TwoEndpoints { path: path.to_owned(), key });
        }
        Ok(Kms {
            key_id: self.key_id.map(|v| v.0),
            region: self.region.map(|v| v.0),
            endpoint_url: self.endpoint_url.map(|v| v.0),
            fips: self.fips,
            dual_stack: self.dual_stack,
            allow_http,
            deadline: self.deadline.map_or(minutes(10), |v| v.0),
        })
    }
}

impl KeysFragment {
    fn validate(self, path: &Path, kms: &Kms, exec: Option<&Exec>) -> Result<Keys, ConfigError> {
        let provider = self.provider.unwrap_or_default();
        let (key_id, key, expected) = match provider {
            Provider::AwsKms => (
                kms.key_id.as_ref(),
                "kms.key_id",
                "set it to the ARN, key ID or alias of a customer managed symmetric KMS key",
            ),
            Provider::Exec => (
                exec.map(|exec| &exec.key_id),
                "exec.command",
                "keys.provider is \"exec\", so set it to the program that talks to your key service",
            ),
        };
        match key_id {
            Some(key_id) => Ok(Keys { provider, key_id: key_id.clone() }),
            None => Err(ConfigError::Required { path: path.to_owned(), key, expected }),
        }
    }
}

impl ExecFragment {
    fn validate(self, path: &Path) -> Result<Option<Exec>, ConfigError> {
        let Self { command, key_id, deadline, timeout, pass_environment } = self;
        let required = |key, expected| ConfigError::Required { path: path.to_owned(), key, expected };
        let Some(CommandLine(command)) = command else {
            let expected = "set it to the program that talks to your key service, or remove the [exec] section";
            let is_unused = key_id.is_none() && pass_environment.is_none();
            return if is_unused { Ok(None) } else { Err(required("exec.command", expected)) };
        };
        let mut words = command.into_iter();
        Ok(Some(Exec {
            program: words.next().map(|path| Path::new(&path).components().collect()).unwrap_or_default(),
            arguments: words.collect(),
            key_id: key_id
                .map(|v| v.0)
                .ok_or_else(|| required("exec.key_id", "set it to the name of a key that exec.command knows"))?,
            deadline: deadline.map_or(minutes(10), |v| v.0),
            timeout: timeout.map_or(Duration::from_secs(30), |v| v.0),
            pass_environment: pass_environment.unwrap_or_default().into_iter().map(|v| v.0).collect(),
        }))
    }
}

impl VolumesFragment {
    fn validate(mut self) -> Volumes {
        if self.require_rule.unwrap_or(false) {
            self.rules.push(MatchRule::ignores_the_rest());
        }
        Volumes {
            instance_store: self.instance_store.unwrap_or(Policy::Encrypt),
            ebs: self.ebs.unwrap_or(Policy::Encrypt),
            when_not_blank: self.when_not_blank.unwrap_or(WhenNotBlank::Refuse),
            noise: self.noise.unwrap_or(Noise::Refuse),
            blank_scan: self.blank_scan.unwrap_or(BlankScan::Sampled),
            deadline: self.deadline.map_or(minutes(5), |v| v.0),
            grow: self.grow.unwrap_or(false),
            expect: Expect {
                ebs: self.expect.ebs,
                instance_store: self.expect.instance_store,
                within: self.expect.within.map_or(minutes(5), |v| v.0),
            },
            rules: self.rules,
        }
    }
}

impl LuksFragment {
    fn validate(self) -> Luks {
        Luks {
            cipher: self.cipher.unwrap_or(Cipher::AesXtsPlain64),
            key_size: self.key_size.map_or(512, |v| v.0),
            sector_size: self.sector_size.map(|v| v.0),
            discards: self.discards.unwrap_or(false),
            no_read_workqueue: self.no_read_workqueue.unwrap_or(false),
            no_write_workqueue: self.no_write_workqueue.unwrap_or(false),
        }
    }
}

impl AuditFragment {
    fn validate(self, path: &Path) -> Result<Audit, ConfigError> {
        let audit = Audit {
            signing_key: self.signing_key.map(|v| v.0),
            interval: self.interval.map(|v| v.0),
            report: self.report.map_or_else(|| PathBuf::from("/run/luks-agent/audit.json"), |v| v.0),
            ssm_inventory: self.ssm_inventory.unwrap_or(false),
        };
        if audit.ssm_inventory && audit.interval.is_none() {
            return Err(ConfigError::Required {
                path: path.to_owned(),
                key: "audit.interval",
                expected: "audit.ssm_inventory is true, so set it to how often the daemon audits the node, such as \"24h\"",
            });
        }
        Ok(audit)
    }
}

impl FilesystemFragment {
    fn validate(self) -> Filesystem {
        Filesystem {
            kind: self.kind.unwrap_or(FilesystemKind::Xfs),
            mount_base: self.mount_base.map_or_else(|| PathBuf::from("/mnt"), |v| v.0),
            options: self
                .options
                .map_or_else(|| vec!["noatime".to_owned()], |list| list.into_iter().map(|v| v.0).collect()),
        }
    }
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}
