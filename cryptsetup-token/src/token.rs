//! What the plug-in reads in a token. The rest is the agent's.

use serde::Deserialize;

use crate::text::{escape_controls, shortened};

/// Token type of a key that AWS KMS unwraps, and of one that the customer's own program unwraps, each with the name of the key service.
const TYPES: [(&str, &str); 2] = [("luks-agent-awskms", "aws-kms"), ("luks-agent-exec", "exec")];
/// How much of a value is shown. The longest key ARN is shorter.
const SHOWN: usize = 256;

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

impl Kind {
    /// Returns the name of the key service, if it is a token of luks-agent.
    fn provider(&self) -> Option<&'static str> {
        TYPES.iter().find(|(kind, _)| *kind == self.kind).map(|(_, provider)| *provider)
    }
}

#[derive(Deserialize)]
struct Named {
    key_arn: String,
    #[serde(default)]
    instance_id: Option<String>,
}

fn provider(json: &[u8]) -> Option<&'static str> {
    // not any JSON that serde takes for a struct, which an array is as well
    let is_object = json.trim_ascii_start().starts_with(b"{");
    let kind = serde_json::from_slice::<Kind>(json).ok().filter(|_| is_object)?;
    kind.provider()
}

/// Whether it is a token of luks-agent, of whatever release. An earlier plug-in must not keep a later agent from writing its tokens.
pub(crate) fn is_ours(json: &[u8]) -> bool {
    provider(json).is_some()
}

/// Returns what `luksDump` says of a token, in lines.
pub(crate) fn describe(json: &[u8]) -> Vec<String> {
    let Some(provider) = provider(json) else { return Vec::new() };
    let mut lines = vec![line("Provider:", provider)];
    match serde_json::from_slice::<Named>(json) {
        Ok(named) => {
            lines.push(line("Key:", &named.key_arn));
            let region = named.key_arn.split(':').nth(3).filter(|region| provider == "aws-kms" && !region.is_empty());
            lines.extend(region.map(|region| line("Region:", region)));
            lines.extend(named.instance_id.map(|instance| line("Instance:", &instance)));
        }
        Err(_) => lines.push(line("Key:", "(not readable by this release)")),
    }
    lines
}

/// Returns a line like those that cryptsetup prints of keyslots.
fn line(name: &str, value: &str) -> String {
    format!("\t{name:<11} {}", escape_controls(&shortened(value, SHOWN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn accepts_what_later_releases_write() {
        for json in [
            r#"{"type":"luks-agent-awskms"}"#,
            r#"{"type":"luks-agent-exec","keyslots":["0"]}"#,
            r#" {"keyslots":[],"version":{"of":9},"key_arn":[1],"type":"luks-agent-awskms","more":null}"#,
        ] {
            assert!(is_ours(json.as_bytes()), "{json}");
        }
        let deep = format!(r#"{{"x":{}{},"type":"luks-agent-awskms"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(is_ours(deep.as_bytes()));
        let huge = format!(r#"{{"type":"luks-agent-awskms","x":"{}"}}"#, "a".repeat(4 << 20));
        assert!(is_ours(huge.as_bytes()));
    }

    #[test]
    fn rejects_only_what_is_no_token_of_this_type() {
        for json in [
            "",
            "{",
            "null",
            r#"["luks-agent-awskms"]"#,
            r#""luks-agent-awskms""#,
            "{}",
            r#"{"type":5}"#,
            r#"{"type":"systemd-tpm2"}"#,
            r#"{"type":"luks-agent-awskms\u0000"}"#,
            r#"{"type":"luks-agent-recovery"}"#,
            r#"{"type":"luks-agent-awskms"} more"#,
        ] {
            assert!(!is_ours(json.as_bytes()), "{json}");
            assert_eq!(describe(json.as_bytes()), [""; 0], "{json}");
        }
        assert!(!is_ours("[".repeat(1 << 20).as_bytes()));
        assert!(!is_ours(&[0xff; 64]));
    }

    #[test]
    fn luks_dump_shows_the_key_and_where_it_is() {
        let json = format!(r#"{{"type":"luks-agent-awskms","key_arn":"{ARN}","instance_id":"i-0123456789abcdef0"}}"#);
        assert_eq!(
            describe(json.as_bytes()),
            [
                "\tProvider:   aws-kms".to_owned(),
                format!("\tKey:        {ARN}"),
                "\tRegion:     us-east-1".to_owned(),
                "\tInstance:   i-0123456789abcdef0".to_owned(),
            ]
        );
        let json = r#"{"type":"luks-agent-exec","key_arn":"a:b:c:d","instance_id":null}"#;
        assert_eq!(describe(json.as_bytes()), ["\tProvider:   exec", "\tKey:        a:b:c:d"]);
        let later = r#"{"type":"luks-agent-awskms","key_arn":["a","b"]}"#;
        assert_eq!(describe(later.as_bytes())[1], "\tKey:        (not readable by this release)");
    }

    #[test]
    fn luks_dump_shows_nothing_that_a_terminal_obeys() {
        let json = format!(r#"{{"type":"luks-agent-awskms","key_arn":"\u001b[2J\u0000\n{}"}}"#, "b".repeat(1 << 20));
        let [_, key] = &describe(json.as_bytes())[..] else { panic!() };
        assert!(key.starts_with("\tKey:        \\u{1b}[2J\\u{0}\\nbbb") && key.ends_with("..."), "{key}");
        assert!(key.len() < 400);
    }
}
