//! `[[volumes.match]]` rules: give a disk a role by its path, serial number or model.

use globset::{Glob, GlobMatcher};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::facts::DeviceFacts;
use super::role::{MODEL_EBS, Role};

/// One `[[volumes.match]]` rule. Those of `path`, `serial` and `model` that it has must all match.
#[derive(Debug, Clone)]
pub struct MatchRule {
    path: Option<GlobMatcher>,
    serial: Option<GlobMatcher>,
    model: Option<GlobMatcher>,
    /// The role of disks that match.
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

impl Serialize for MatchRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pattern = |glob: &Option<GlobMatcher>| glob.as_ref().map(|glob| glob.glob().glob().to_owned());
        let mut rule = serializer.serialize_struct("MatchRule", 4)?;
        rule.serialize_field("path", &pattern(&self.path))?;
        rule.serialize_field("serial", &pattern(&self.serial))?;
        rule.serialize_field("model", &pattern(&self.model))?;
        rule.serialize_field("role", &self.role)?;
        rule.end()
    }
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
    /// Returns whether all patterns of the rule match the disk. `path` may match the device node or any link to it.
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

    /// Returns the last rule, which `volumes.require_rule` adds: it ignores all other disks.
    pub(crate) fn ignores_the_rest() -> Self {
        Self { path: None, serial: None, model: None, role: RuleRole::Ignore }
    }

    /// Returns whether this is the rule that `volumes.require_rule` adds. No configured rule names the disks that it matches.
    pub fn is_the_rest(&self) -> bool {
        self.path.is_none() && self.serial.is_none() && self.model.is_none()
    }

    /// Returns the path pattern of this rule if the rule may mean a disk that it does not match.
    ///
    /// udev may not have made the links to the disk yet, or this system makes no link with the EC2 name of an EBS volume. Links that
    /// depend on the content of a disk do not count, because a blank disk has none.
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
                .map_err(|e| de::Error::custom(format!("invalid glob pattern: {e}")))
        };
        Ok(Self { path: glob(raw.path)?, serial: glob(raw.serial)?, model: glob(raw.model)?, role: raw.role })
    }
}
