//! `[[volumes.match]]` rules: what a disk is, by its path, serial number or model.

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::facts::DeviceFacts;
use super::role::{MODEL_EBS, Role};

/// One `[[volumes.match]]` rule: the first of `path`, `serial` and `model` that are given must all match.
#[derive(Debug, Clone)]
pub struct MatchRule {
    path: Option<GlobMatcher>,
    serial: Option<GlobMatcher>,
    model: Option<GlobMatcher>,
    /// The role it gives.
    pub role: RuleRole,
}

/// The role a rule can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleRole {
    /// Treat as an EBS volume.
    Ebs,
    /// Treat as an instance store volume.
    InstanceStore,
    /// Leave alone.
    Ignore,
}

impl From<RuleRole> for Role {
    fn from(role: RuleRole) -> Self {
        match role {
            RuleRole::Ebs => Self::Ebs,
            RuleRole::InstanceStore => Self::InstanceStore,
            RuleRole::Ignore => Self::Ignored { because: "a [[volumes.match]] rule says ignore".to_owned() },
        }
    }
}

impl MatchRule {
    /// Whether all that the rule gives matches the disk; `path` is compared with the device node and every link to it.
    pub fn matches(&self, facts: &DeviceFacts) -> bool {
        let text = |glob: &Option<GlobMatcher>, value: &Option<String>| match (glob, value) {
            (None, _) => true,
            (Some(glob), Some(value)) => glob.is_match(value),
            (Some(_), None) => false,
        };
        let path = self
            .path
            .as_ref()
            .is_none_or(|glob| glob.is_match(&facts.path) || facts.links.iter().any(|link| glob.is_match(link)));
        path && text(&self.serial, &facts.serial) && text(&self.model, &facts.model)
    }

    /// The rule behind all others that `volumes.require_rule` adds.
    pub(crate) fn ignores_the_rest() -> Self {
        Self { path: None, serial: None, model: None, role: RuleRole::Ignore }
    }

    /// Whether it is the one that `volumes.require_rule` adds, so that no rule names what it matches.
    pub fn is_the_rest(&self) -> bool {
        self.path.is_none() && self.serial.is_none() && self.model.is_none()
    }

    /// The link of udev's by which this rule may mean a disk, although nothing matches it: udev has made no link to the disk
    /// yet, or on this system none by the name that EC2 has for an EBS volume. Links by what is on a disk mean no blank one.
    pub fn may_mean(&self, facts: &DeviceFacts) -> Option<&str> {
        const BY_CONTENT: [&str; 4] = ["by-label/", "by-partlabel/", "by-partuuid/", "by-uuid/"];
        let pattern = self.path.as_ref()?.glob().glob();
        let without_path = Self { path: None, ..self.clone() };
        if !without_path.matches(facts) {
            return None;
        }
        let is_ec2_name = |name: &str| name.starts_with("sd") || name.starts_with("xvd");
        let has_ec2_name = || {
            let names = facts.links.iter().filter_map(|link| link.to_str()?.strip_prefix("/dev/"));
            names.into_iter().any(is_ec2_name)
        };
        let name = pattern.strip_prefix("/dev/")?;
        let may_be = match name.strip_prefix("disk/") {
            Some(link) => facts.links.is_empty() && !BY_CONTENT.iter().any(|by| link.starts_with(by)),
            None => is_ec2_name(name) && facts.model.as_deref() == Some(MODEL_EBS) && !has_ec2_name(),
        };
        may_be.then_some(pattern)
    }
}

impl<'de> Deserialize<'de> for MatchRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            path: Option<String>,
            serial: Option<String>,
            model: Option<String>,
            role: RuleRole,
        }
        let raw = Raw::deserialize(deserializer)?;
        if raw.path.is_none() && raw.serial.is_none() && raw.model.is_none() {
            return Err(de::Error::custom("a [[volumes.match]] rule needs path, serial or model"));
        }
        let glob = |pattern: Option<String>| {
            pattern
                .map(|p| Glob::new(&p).map(|g| g.compile_matcher()))
                .transpose()
                .map_err(|e| de::Error::custom(format!("not a glob pattern: {e}")))
        };
        Ok(Self { path: glob(raw.path)?, serial: glob(raw.serial)?, model: glob(raw.model)?, role: raw.role })
    }
}
