//! `/etc/luks-agent/config.toml` and its drop-ins, read, merged and validated.
//!
//! Each file is read on its own into a fragment, so that an error names file and line; the fragments are merged in
//! order, later ones win, and defaults fill the rest.
//!
//! May import: `disk`, `luks2`, `permissions`, `storage`.
//! Never: what is done with a value.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::disk::{BlankScan, MatchRule, Scan};
use crate::luks2::Cipher;
use crate::permissions::objection;
use crate::storage::FilesystemKind;

/// Where the configuration is unless `--config` says otherwise; drop-ins are in `config.d` beside it.
pub const DEFAULT_PATH: &str = "/etc/luks-agent/config.toml";

/// A configuration that cannot be used; nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is there but cannot be read.
    #[error("cannot read configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may write to it.
    #[error(
        "configuration {path} {reason}; expected owner {owner} and no write permission for others: check who changed it, then 'chown {owner}' and 'chmod go-w' it"
    )]
    Permissions {
        /// File or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// User id expected.
        owner: u32,
    },
    /// Neither the file nor a drop-in exists.
    #[error(
        "no configuration: {path} does not exist; create it with a [kms] section and key_id = \"<ARN of a customer managed symmetric KMS key>\""
    )]
    Missing {
        /// The file looked for.
        path: PathBuf,
    },
    /// A file with a mistake.
    #[error("{path}:{line}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong and what was expected.
        message: String,
    },
    /// An endpoint that the data key would cross the network to in clear.
    #[error(
        "{path}: kms.endpoint_url: the data key would cross the network to '{url}' in clear; expected https:// (or a loopback or link-local address); if that network is trusted, set kms.allow_http = true"
    )]
    InClear {
        /// The main file.
        path: PathBuf,
        /// The endpoint.
        url: String,
    },
    /// A required value that no file gives.
    #[error("{path}: {key} is missing: {expected}")]
    Required {
        /// The main file.
        path: PathBuf,
        /// The dotted key.
        key: &'static str,
        /// What to write.
        expected: &'static str,
    },
}

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The key service.
    pub kms: Kms,
    /// Where the state file is.
    pub state: State,
    /// Which volumes are taken care of.
    pub volumes: Volumes,
    /// How new volumes are encrypted.
    pub luks: Luks,
    /// What is made on them and where it is mounted.
    pub filesystem: Filesystem,
    /// What the daemon looks at.
    pub health: Health,
    /// Where metrics go.
    pub metrics: Metrics,
}

/// `[kms]`
#[derive(Debug, Clone)]
pub struct Kms {
    /// Key ARN, key id, alias name or alias ARN, as configured.
    pub key_id: String,
    /// Region, when it is not taken from the ARN, the environment or IMDS.
    pub region: Option<String>,
    /// Endpoint, when it is not the region's.
    pub endpoint_url: Option<String>,
    /// Whether an endpoint may be `http://` that is neither on this machine nor on its own link.
    pub allow_http: bool,
    /// How long KMS and IMDS are tried in all.
    pub deadline: Duration,
}

/// `[state]`
#[derive(Debug, Clone)]
pub struct State {
    /// The state directory, on the boot volume.
    pub dir: PathBuf,
}

/// `[volumes]`
#[derive(Debug, Clone)]
pub struct Volumes {
    /// What to do with instance store volumes.
    pub instance_store: Policy,
    /// What to do with EBS volumes.
    pub ebs: Policy,
    /// What to do with a volume that holds something.
    pub when_not_blank: WhenNotBlank,
    /// What to do with a volume on which nothing but noise is found.
    pub noise: Noise,
    /// How much of a volume is read before it counts as blank.
    pub blank_scan: BlankScan,
    /// How long the work on one volume may go without progress, and how long a sampled look at it may take in all.
    pub deadline: Duration,
    /// Whether provision grows volumes whose disk has grown.
    pub grow: bool,
    /// `[volumes.expect]`
    pub expect: Expect,
    /// `[[volumes.match]]`, in order; behind them one that ignores the rest, where `require_rule` is set.
    pub rules: Vec<MatchRule>,
}

impl Volumes {
    /// How a disk is read before it counts as blank.
    pub fn scan(&self) -> Scan {
        Scan { how: self.blank_scan, within: self.deadline }
    }
}

/// `[volumes.expect]`: how many volumes of a role there must be at least before the node is ready. Without a number, those
/// that it had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// EBS volumes, the boot volume not counted.
    pub ebs: Option<u32>,
    /// Instance store volumes; fewer than the node had before are fine then.
    pub instance_store: Option<u32>,
    /// How long the boot waits for them.
    pub within: Duration,
}

/// Whether volumes of one role are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Encrypt, open and mount them.
    Encrypt,
    /// Leave them alone.
    Ignore,
}

/// What to do with a volume that is not blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenNotBlank {
    /// Refuse it.
    Refuse,
    /// Format instance store volumes all the same, unless mounted, held or known; refuse EBS volumes.
    WipeInstanceStore,
}

/// What to do with a volume on which nothing but noise is found: uniformly random blocks, with zeros among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// Refuse it.
    Refuse,
    /// Take it for blocks that were never written where it is an EBS volume that is not known; refuse others.
    FormatEbs,
}

/// `[luks]`
#[derive(Debug, Clone)]
pub struct Luks {
    /// Cipher and mode, as dm-crypt names them.
    pub cipher: Cipher,
    /// Volume key size in bits: 256 or 512.
    pub key_size: u32,
    /// Encryption sector size in bytes; unset: 4096 where the disk writes that atomically, else 512.
    pub sector_size: Option<u32>,
    /// Let discards through.
    pub discards: bool,
    /// dm-crypt's `no_read_workqueue`.
    pub no_read_workqueue: bool,
    /// dm-crypt's `no_write_workqueue`.
    pub no_write_workqueue: bool,
}

/// `[filesystem]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// What is made on a new volume.
    pub kind: FilesystemKind,
    /// The first mount point; the others have a number appended.
    pub mount_base: PathBuf,
    /// Mount options.
    pub options: Vec<String>,
}

/// `[health]`
#[derive(Debug, Clone)]
pub struct Health {
    /// How often key and volumes are looked at.
    pub interval: Duration,
}

/// Where metrics go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// The file for node_exporter's textfile collector, if any.
    pub textfile: Option<PathBuf>,
}

// --- as written in a file: everything optional, unknown keys are errors

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragment {
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

/// Values that are checked while they are read, so that the error has the line.
macro_rules! checked {
    ($name:ident($inner:ty) from $raw:ty, $check:expr) => {
        #[derive(Debug)]
        struct $name($inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let check: fn($raw) -> Result<$inner, String> = $check;
                check(<$raw>::deserialize(deserializer)?).map(Self).map_err(de::Error::custom)
            }
        }
    };
}

checked!(NonEmpty(String) from String, |text| match text.trim() {
    "" => Err("must not be empty".to_owned()),
    trimmed => Ok(trimmed.to_owned()),
});
checked!(Url(String) from String, |text| {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => Ok(text),
        Some(_) | None => Err(format!("'{text}' is not an endpoint: expected http:// or https:// and a host")),
    }
});
checked!(Span(Duration) from String, |text| {
    let problem = || format!("'{text}' is not a duration: expected a positive time such as \"90s\", \"10m\" or \"1h\"");
    let span: jiff::SignedDuration = text.parse().map_err(|_| problem())?;
    let span = Duration::try_from(span).map_err(|_| problem())?;
    if span.is_zero() { Err(problem()) } else { Ok(span) }
});
checked!(AbsolutePath(PathBuf) from PathBuf, |path| {
    let parent = path.components().any(|c| c == std::path::Component::ParentDir);
    if path.is_absolute() && !parent {
        Ok(normalised(&path))
    } else {
        Err(format!("'{}' is not an absolute path without '..'", path.display()))
    }
});
checked!(MountBase(PathBuf) from PathBuf, |path| {
    if path.is_absolute() && path.file_name().is_some() && !path.components().any(|c| c == std::path::Component::ParentDir) {
        Ok(normalised(&path))
    } else {
        Err(format!("'{}' cannot be a mount point: expected an absolute path below / such as \"/mnt\"", path.display()))
    }
});
checked!(MountOption(String) from String, |text| {
    if text.is_empty() || text.contains(|c: char| c == ',' || c.is_whitespace()) {
        Err(format!("'{text}' is not a mount option: expected one option a string, such as \"noatime\""))
    } else {
        Ok(text)
    }
});
checked!(KeySize(u32) from u32, |bits| match bits {
    256 | 512 => Ok(bits),
    _ => Err(format!("{bits} is not a key size: expected 256 or 512 (bits)")),
});
checked!(SectorSize(u32) from u32, |bytes| match bytes {
    512 | 1024 | 2048 | 4096 => Ok(bytes),
    _ => Err(format!("{bytes} is not a sector size: expected 512, 1024, 2048 or 4096 (bytes)")),
});

/// Whether what is sent to an endpoint can be read on the way: it is not `https://`, and neither loopback nor link-local, which no
/// router passes on. A name can lead anywhere, save `localhost`.
pub fn crosses_in_clear(url: &str) -> bool {
    let Ok(url) = url.parse::<hyper::Uri>() else { return true };
    if url.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return false;
    }
    let host = url.host().unwrap_or_default();
    let is_near = match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    !is_near
}

/// Without `.`, double slashes and one at the end: paths are compared as text elsewhere, and have numbers appended.
fn normalised(path: &Path) -> PathBuf {
    path.components().collect()
}

impl Config {
    /// Reads `path` and the `*.toml` files in `config.d` beside it, in order of their names. Neither they nor their directories
    /// may be writable for others: who can write here chooses key, disks and mount points.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and, for a mistake in it, the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let drop_in_dir = path.with_file_name("config.d");
        let mut files = Vec::new();
        if path.try_exists().map_err(|source| ConfigError::Read { path: path.to_owned(), source })? {
            files.push(path.to_owned());
        }
        files.extend(drop_ins(&drop_in_dir)?);
        if files.is_empty() {
            return Err(ConfigError::Missing { path: path.to_owned() });
        }
        for dir in [path.parent(), Some(drop_in_dir.as_path())].into_iter().flatten() {
            check_dir(if dir == Path::new("") { Path::new(".") } else { dir })?;
        }
        let mut merged = Fragment::default();
        for file in files {
            merged.merge(parse(&file, &read(&file)?)?);
        }
        merged.validate(path)
    }

    /// Reads one text as [`Config::load`] reads a file; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        parse(path, text)?.validate(path)
    }
}

/// Reads a file that nobody else can write to.
fn read(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    check(path, &file.metadata().map_err(read)?)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(read)?;
    Ok(text)
}

/// Where others may make files but not take away or replace those of root, as in `/tmp`, each file is checked by itself.
fn check_dir(dir: &Path) -> Result<(), ConfigError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.mode() & 0o1000 != 0 => Ok(()),
        Ok(metadata) => check(dir, &metadata),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ConfigError::Read { path: dir.to_owned(), source }),
    }
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
    let owner = nix::unistd::geteuid().as_raw();
    match objection(metadata, owner) {
        Some(reason) => Err(ConfigError::Permissions { path: path.to_owned(), reason, owner }),
        None => Ok(()),
    }
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let read = |source| ConfigError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(read(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(read)?.path();
        if file.extension().is_some_and(|e| e == "toml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(path: &Path, text: &str) -> Result<Fragment, ConfigError> {
    toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start.min(text.len()));
        let mut message = e.message().trim().to_owned();
        if let Some(near) = nearest_known_key(&message) {
            message = format!("{message}; did you mean `{near}`?");
        }
        let line = text[..at].matches('\n').count();
        if let Some((key, _)) = text.lines().nth(line).and_then(|l| l.split_once('=')) {
            message = format!("{}: {message}", key.trim());
        }
        ConfigError::Invalid { path: path.to_owned(), line: line + 1, message }
    })
}

/// serde names the unknown key first and the known ones after it, all in backticks.
fn nearest_known_key(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    names
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(2))
        .map(|(_, known)| known.to_owned())
}

impl Fragment {
    /// Lets what `later` gives win; match rules are appended.
    fn merge(&mut self, later: Self) {
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

    fn validate(self, path: &Path) -> Result<Config, ConfigError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::FilesystemKind;

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::from_text(Path::new("config.toml"), text)
    }

    fn error(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    #[test]
    fn the_key_id_is_enough() {
        let config = load("[kms]\nkey_id = \"alias/nodes\"\n").unwrap();
        assert_eq!(config.kms.key_id, "alias/nodes");
        assert_eq!(config.kms.deadline, Duration::from_secs(600));
        assert_eq!(config.state.dir, Path::new("/etc/luks-agent/state"));
        assert_eq!(config.volumes.ebs, Policy::Encrypt);
        assert_eq!(config.volumes.when_not_blank, WhenNotBlank::Refuse);
        assert_eq!(config.volumes.noise, Noise::Refuse);
        assert_eq!(config.luks.cipher.parts(), ("aes", "xts-plain64"));
        assert_eq!(config.luks.key_size, 512);
        assert_eq!(config.filesystem.kind, FilesystemKind::Xfs);
        assert_eq!(config.filesystem.mount_base, Path::new("/mnt"));
        assert_eq!(config.filesystem.options, ["noatime"]);
    }

    #[test]
    fn paths_are_normalised() {
        let config =
            load("[kms]\nkey_id = \"x\"\n[state]\ndir = \"/a//b/\"\n[filesystem]\nmount_base = \"/data/./\"\n");
        let config = config.unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        assert_eq!((text(&config.state.dir), text(&config.filesystem.mount_base)), ("/a/b".into(), "/data".into()));
    }

    #[test]
    fn drop_ins_can_give_a_part_of_what_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("config.toml");
        fs::create_dir(dir.path().join("config.d")).unwrap();
        fs::write(&main, "[kms]\nkey_id = \"a\"\n[volumes.expect]\nebs = 1\nwithin = \"9m\"\n").unwrap();
        fs::write(dir.path().join("config.d/1.toml"), "[volumes.expect]\nebs = 2\ninstance_store = 0\n").unwrap();
        let expected = Expect { ebs: Some(2), instance_store: Some(0), within: Duration::from_secs(540) };
        assert_eq!(Config::load(&main).unwrap().volumes.expect, expected);
        assert_eq!(load("[kms]\nkey_id = \"k\"\n").unwrap().volumes.expect.ebs, None);
    }

    #[test]
    fn mistakes_name_file_line_and_what_was_expected() {
        insta::assert_snapshot!(
            [
                "",
                "[kms]\nkey_id = \"\"\n",
                "[kms]\nkey_idd = \"alias/x\"\n",
                "[kms]\nkey_id = 7\n",
                "[kms]\nkey_id = \"alias/x\"\ndeadline = \"soon\"\n",
                "[kms]\nkey_id = \"alias/x\"\ndeadline = \"0s\"\n",
                "[kms]\nkey_id = \"alias/x\"\nendpoint_url = \"kms\"\n",
                "[volume]\nebs = \"encrypt\"\n",
                "[volumes]\nebs = \"encrpyt\"\n",
                "[luks]\ncipher = \"aes-cbc-plain\"\n",
                "[luks]\nkey_size = 128\n",
                "[luks]\nsector_size = 8192\n",
                "[filesystem]\nmount_base = \"mnt\"\n",
                "[filesystem]\nmount_base = \"/\"\n",
                "[filesystem]\noptions = [\"noatime,nodev\"]\n",
                "[state]\ndir = \"state\"\n",
                "[[volumes.match]]\nrole = \"ebs\"\n",
                "[[volumes.match]]\npath = \"/dev/[\"\nrole = \"ebs\"\n",
                "[kms\n",
            ]
            .map(error)
            .join("\n")
        );
    }

    #[test]
    fn a_data_key_crosses_no_network_in_clear_unless_that_is_allowed() {
        let with = |url: &str, more: &str| load(&format!("[kms]\nkey_id = \"k\"\nendpoint_url = \"{url}\"\n{more}"));
        for url in [
            "https://kms.example",
            "http://127.0.0.1:4566",
            "http://127.9.9.9/x",
            "http://localhost:4566",
            "http://[::1]:4566",
            "http://169.254.169.254",
            "http://[fe80::1]",
        ] {
            assert_eq!(with(url, "").unwrap().kms.endpoint_url.as_deref(), Some(url));
        }
        for url in [
            "http://kms.example",
            "http://localhost.example",
            "http://10.0.0.1:4566",
            "http://192.168.56.10:4566",
            "http://[2001:db8::1]",
            "http://127.0.0.1@kms.example",
            "http://kms.example/127.0.0.1",
            "http://0.0.0.0:4566",
            // not what every resolver makes of it
            "http://2130706433",
            "http://[::1",
        ] {
            let message = with(url, "").unwrap_err().to_string();
            let says = [url, "kms.endpoint_url", "in clear", "expected https://", "kms.allow_http = true"];
            assert!(says.iter().all(|part| message.contains(part)), "{message}");
            assert!(with(url, "allow_http = false").is_err());
            assert!(with(url, "allow_http = true").unwrap().kms.allow_http);
        }
    }

    #[test]
    fn a_drop_in_can_allow_http_for_the_endpoint_of_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("config.toml");
        fs::create_dir(dir.path().join("config.d")).unwrap();
        fs::write(&main, "[kms]\nkey_id = \"k\"\nendpoint_url = \"http://kms.example\"\n").unwrap();
        assert!(Config::load(&main).unwrap_err().to_string().contains("in clear"));
        fs::write(dir.path().join("config.d/1.toml"), "[kms]\nallow_http = true\n").unwrap();
        assert!(Config::load(&main).unwrap().kms.allow_http);
    }

    #[test]
    fn drop_ins_win_in_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("config.toml");
        fs::create_dir(dir.path().join("config.d")).unwrap();
        fs::write(&main, "[kms]\nkey_id = \"a\"\nregion = \"r\"\n").unwrap();
        let drop_in = |name: &str, text: &str| fs::write(dir.path().join("config.d").join(name), text).unwrap();
        drop_in("20-b.toml", "[kms]\nkey_id = \"c\"\n");
        drop_in("10-a.toml", "[kms]\nkey_id = \"b\"\n[[volumes.match]]\nserial = \"x*\"\nrole = \"ignore\"\n");
        drop_in("30-c.conf", "not toml");
        let config = Config::load(&main).unwrap();
        assert_eq!((config.kms.key_id.as_str(), config.kms.region.as_deref()), ("c", Some("r")));
        assert_eq!(config.volumes.rules.len(), 1);

        drop_in("40-d.toml", "\n\n[kms]\nkey = \"c\"\n");
        let message = Config::load(&main).unwrap_err().to_string();
        assert!(message.contains("40-d.toml:4: key: unknown field `key`"), "{message}");
    }

    #[test]
    fn a_missing_or_unreadable_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert!(Config::load(&path).unwrap_err().to_string().contains("config.toml does not exist; create it"));
        fs::create_dir(&path).unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("cannot read configuration file"));
    }
}
