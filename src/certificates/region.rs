//! AWS Regions, and the names that EC2 gives to nodes in them.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A Region, such as `eu-central-1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Region(String);

impl Region {
    /// Returns the domain of the private host names of nodes there.
    pub(super) fn domain(&self) -> String {
        match self.0.as_str() {
            "us-east-1" => "ec2.internal".to_owned(),
            region => format!("{region}.compute.internal"),
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not the name of a Region.
#[derive(Debug, thiserror::Error)]
#[error("not the name of a Region; expected one like us-east-1")]
pub struct NotARegion;

impl FromStr for Region {
    type Err = NotARegion;

    fn from_str(text: &str) -> Result<Self, NotARegion> {
        // a Region that is made tomorrow is one too
        let parts: Vec<&str> = text.split('-').collect();
        let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        match parts.as_slice() {
            [words @ .., number]
                if (2..=4).contains(&words.len())
                    && words.iter().all(|word| is_word(word) && word.len() <= 10)
                    && (1..=2).contains(&number.len())
                    && number.bytes().all(|b| b.is_ascii_digit()) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(NotARegion),
        }
    }
}

/// Returns whether a name in a certificate is that of each host in a domain.
pub(super) fn covers(name: &str, domain: &str) -> bool {
    name.strip_prefix("*.").is_some_and(|rest| rest.eq_ignore_ascii_case(domain))
}

/// Returns whether a name in a certificate is that of each node in some Region.
pub(super) fn covers_any(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("*.") {
        Some("ec2.internal") => true,
        Some(rest) => rest.strip_suffix(".compute.internal").is_some_and(|region| Region::from_str(region).is_ok()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn us_east_1_has_a_domain_of_its_own() {
        let domain = |region: &str| Region::from_str(region).unwrap().domain();
        assert_eq!(domain("us-east-1"), "ec2.internal");
        assert_eq!(domain("us-gov-west-1"), "us-gov-west-1.compute.internal");
        for text in ["", "us-east", "us-east-1a", "US-EAST-1", "1", "us--1", "*.compute.internal"] {
            assert!(Region::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wildcard_covers_the_hosts_of_its_domain_only() {
        assert!(covers("*.EC2.internal", "ec2.internal") && covers_any("*.eu-west-3.compute.internal"));
        for name in ["*.compute.internal", "ip-10-0-0-1.ec2.internal", "ec2.internal", "*", "*.x.ec2.internal"] {
            assert!(!covers(name, "ec2.internal") && !covers_any(name), "{name}");
        }
    }
}
