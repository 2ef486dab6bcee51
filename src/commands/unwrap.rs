//! `unwrap`: a LUKS2 token in, its passphrase out. The token plug-in of cryptsetup runs it, wherever somebody opens a volume with stock
//! tools: on the node, on an operator's machine, or on a node of another cluster.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use crate::config::{self, Config, ConfigError};
use crate::key::{DataKey, KeySource, Provider};
use crate::kms::{AwsKms, ExecProvider, KeyService, KmsError, Limits, Options};
use crate::luks2::{EXEC_TOKEN_TYPE, TOKEN_TYPE, Token};
use crate::report::{ExitCode, service_exit_code};

/// How long the key service is tried. Somebody waits for the volume, and the plug-in does not wait much longer.
const DEADLINE: Duration = Duration::from_secs(20);
/// How much the JSON of a token may have. A wrapped key has no more than 8 KiB in base64.
const MOST_JSON: u64 = 32 << 10;

/// Why `unwrap` has no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum UnwrapError {
    /// Somebody typed it, or sent the passphrase to a file.
    #[error(
        "'luks-agent unwrap' writes a passphrase to a pipe only, and standard output is not a pipe; run 'cryptsetup open --token-only' instead"
    )]
    NotAPipe,
    /// Standard input or output.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// More than a token can have.
    #[error("the token on standard input is longer than {MOST_JSON} bytes")]
    TooLong,
    /// JSON, but not a token of this release or an earlier one.
    #[error(
        "the token on standard input cannot be read; if a later release of luks-agent wrote it, install that release"
    )]
    Token(#[source] serde_json::Error),
    /// A token of another program.
    #[error("the token on standard input is not of type {TOKEN_TYPE} or {EXEC_TOKEN_TYPE}")]
    OtherType,
    /// An ARN that names something else, and could name an endpoint that is not that of KMS.
    #[error(
        "the token names no KMS key: its key_arn is {0:?}; \
         expected 'arn:PARTITION:kms:REGION:ACCOUNT:key/ID' with a Region of that partition"
    )]
    NoKmsKey(String),
    /// The configuration of this machine, which names the endpoint and the customer's own program.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key service.
    #[error(transparent)]
    Service(#[from] KmsError),
}

impl UnwrapError {
    /// Returns the exit code. The plug-in tells by it whether another token could help.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            // no other token could help where standard input or output fails
            Self::NotAPipe | Self::Io(..) | Self::Config(_) => ExitCode::Configuration,
            Self::Service(e) => service_exit_code(e),
            Self::TooLong | Self::Token(_) | Self::OtherType | Self::NoKmsKey(_) => ExitCode::Failed,
        }
    }
}

/// Reads a token from `input` and writes its passphrase to `output`, which must be a pipe.
///
/// It needs no state file, and no configuration: without one, AWS KMS is reached as every AWS tool reaches it. A configuration says how
/// this machine reaches KMS, and names the program that unwraps a key of another key service. The token names the key, never the
/// program or the endpoint: anybody who can write to the disk can write the token.
///
/// # Errors
/// [`UnwrapError`]; nothing was written then.
pub async fn unwrap(config: &Path, input: impl Read, mut output: File) -> Result<(), UnwrapError> {
    let kind = output.metadata().map_err(|e| UnwrapError::Io("examine standard output", e))?.file_type();
    if !kind.is_fifo() {
        return Err(UnwrapError::NotAPipe);
    }
    let source = read_token(input)?;
    let config = match Config::load(config) {
        Ok(config) => Some(config),
        Err(ConfigError::Missing { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    let passphrase = ask(config.as_ref(), &source).await?.passphrase();
    output.write_all(passphrase.expose()).map_err(|e| UnwrapError::Io("write the passphrase to standard output", e))
}

fn read_token(input: impl Read) -> Result<KeySource, UnwrapError> {
    let mut json = Vec::new();
    let read = input.take(MOST_JSON + 1).read_to_end(&mut json);
    read.map_err(|e| UnwrapError::Io("read the token from standard input", e))?;
    if json.len() as u64 > MOST_JSON {
        return Err(UnwrapError::TooLong);
    }
    let token: Token = serde_json::from_slice(&json).map_err(UnwrapError::Token)?;
    if ![TOKEN_TYPE, EXEC_TOKEN_TYPE].contains(&token.kind.as_str()) {
        return Err(UnwrapError::OtherType);
    }
    if token.provider() == Provider::AwsKms && !token.names_a_kms_key() {
        return Err(UnwrapError::NoKmsKey(token.key_arn));
    }
    Ok(token.source())
}

async fn ask(config: Option<&Config>, source: &KeySource) -> Result<DataKey, KmsError> {
    // at boot, a denied call may be one that IAM does not know yet; here somebody waits for the reason
    let limits = Limits { patience: Duration::ZERO, few: 2, ..Limits::default() };
    match source.provider {
        Provider::AwsKms => {
            let options = Options { limits, imds: config.map(|c| c.imds).unwrap_or_default(), credentials: None };
            AwsKms::connect_with(&kms_config(config, source), options).await?.unwrap(source).await
        }
        Provider::Exec => {
            let exec = config.and_then(|config| config.exec.as_ref());
            let exec = exec.map(|exec| config::Exec { deadline: exec.deadline.min(DEADLINE), ..exec.clone() });
            ExecProvider::with_limits(exec.as_ref(), limits)?.unwrap(source).await
        }
    }
}

/// Returns how KMS is reached for a key: in the Region of its ARN, and otherwise as this machine is configured.
fn kms_config(config: Option<&Config>, source: &KeySource) -> config::Kms {
    let kms = config.map(|config| &config.kms);
    config::Kms {
        key_id: Some(source.key_arn.clone()),
        region: None,
        endpoint_url: kms.and_then(|kms| kms.endpoint_url.clone()),
        fips: kms.and_then(|kms| kms.fips),
        dual_stack: kms.and_then(|kms| kms.dual_stack),
        allow_http: kms.is_some_and(|kms| kms.allow_http),
        deadline: DEADLINE,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn token() -> Value {
        json!({"type": TOKEN_TYPE, "keyslots": ["0"], "version": 1, "wrapped_key": "AQID", "key_arn": ARN, "instance_id": null})
    }

    fn read(token: &Value) -> Result<KeySource, UnwrapError> {
        read_token(token.to_string().as_bytes())
    }

    /// Returns the token with another value.
    fn with(name: &str, value: Value) -> Value {
        let mut token = token();
        token[name] = value;
        token
    }

    #[test]
    fn reads_tokens_of_later_releases_if_they_say_what_it_needs() {
        assert_eq!(read(&token()).unwrap().key_arn, ARN);
        let mut later = with("version", json!(9));
        later["more"] = json!({"of": ["it"]});
        assert_eq!(read(&later).unwrap().provider, Provider::AwsKms);
        let error = read(&with("wrapped_key", json!({"v2": "AQID"}))).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Failed);
        assert!(error.to_string().contains("if a later release"), "{error}");
    }

    #[test]
    fn refuses_tokens_of_an_enemy() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        for json in ["", "{}", "null", "\0", "[]", &deep, &deep[..9000], r#"{"type":"luks-agent-awskms"}"#] {
            assert!(matches!(read_token(json.as_bytes()), Err(UnwrapError::Token(_))), "{json:.20}");
        }
        assert!(matches!(read_token(io::repeat(b' ')), Err(UnwrapError::TooLong)));
        assert!(matches!(read(&with("type", json!("systemd-tpm2"))), Err(UnwrapError::OtherType)));
        for arn in [
            "",
            "alias/mine",
            "http://evil.example/",
            "arn:aws:kms:evil.example/:111122223333:key/1",
            "arn:aws:kms:s3:111122223333:key/1",
            "arn:aws:kms:cn-north-1:111122223333:key/1",
            "\u{0}\u{1b}[2J",
        ] {
            let error = read(&with("key_arn", json!(arn))).unwrap_err();
            assert!(matches!(error, UnwrapError::NoKmsKey(_)), "{arn}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }

    #[test]
    fn the_token_names_the_key_and_the_machine_how_to_reach_it() {
        let source = read(&token()).unwrap();
        let alone = kms_config(None, &source);
        assert_eq!((alone.key_id.as_deref(), alone.endpoint_url, alone.allow_http), (Some(ARN), None, false));
        let text = "[kms]\nkey_id = \"alias/other\"\nregion = \"eu-west-1\"\nendpoint_url = \"https://vpce.example\"\nfips = false";
        let config = Config::from_text(Path::new("c.toml"), text).unwrap();
        let kms = kms_config(Some(&config), &source);
        assert_eq!((kms.key_id.as_deref(), kms.region), (Some(ARN), None));
        assert_eq!((kms.endpoint_url.as_deref(), kms.fips), (Some("https://vpce.example"), Some(false)));
    }

    #[tokio::test]
    async fn a_program_that_the_token_names_is_never_run() {
        let mut token = with("type", json!(EXEC_TOKEN_TYPE));
        token["key_arn"] = json!("/bin/true");
        token["command"] = json!(["/bin/true"]);
        let error = UnwrapError::from(ask(None, &read(&token).unwrap()).await.unwrap_err());
        assert_eq!(error.exit_code(), ExitCode::Configuration);
    }
}
