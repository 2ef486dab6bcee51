//! The report as a program or a file gets it: JSON, in a signed envelope if the configuration names a key for that.

use super::super::error::CommandError;
use crate::audit::{AuditReport, PAYLOAD_TYPE};
use crate::config::Config;
use crate::dsse::{Envelope, Signature, encode};
use crate::kms::{AwsKms, KmsError, KmsSignature};

/// Returns the report as JSON, signed if `audit.signing_key` is set. Only then it calls the key service.
///
/// # Errors
/// [`CommandError::NotJson`] if a mount point is not UTF-8; [`CommandError::NotSigned`] if the report cannot be signed.
pub async fn audit_text(config: &Config, report: &AuditReport) -> Result<String, CommandError> {
    let text = format!("{}\n", serde_json::to_string_pretty(report).map_err(CommandError::NotJson)?);
    match &config.audit.signing_key {
        Some(key) => sign(config, key, text).await.map_err(CommandError::NotSigned),
        None => Ok(text),
    }
}

async fn sign(config: &Config, key: &str, text: String) -> Result<String, KmsError> {
    let payload = text.into_bytes();
    let kms = AwsKms::connect_for_signing(&config.kms, key, config.imds).await?;
    let KmsSignature { key_arn, bytes } = kms.sign(&encode(PAYLOAD_TYPE, &payload)).await?;
    let signature = Signature { key_id: Some(key_arn), bytes };
    let envelope = Envelope { payload, payload_type: PAYLOAD_TYPE.to_owned(), signature };
    Ok(format!("{}\n", envelope.to_json()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn a_report_that_json_cannot_have_is_an_error_and_not_an_empty_text() {
        let config = Config::from_text(Path::new("config.toml"), "[kms]\nkey_id = \"alias/x\"\n").unwrap();
        let mut report = AuditReport::read(include_bytes!("../../../fuzz/seeds/audit/in-clear.json")).unwrap();
        assert!(audit_text(&config, &report).await.unwrap().starts_with("{\n"));
        report.disks[0].mounts = vec![Path::new(OsStr::from_bytes(b"/mnt/\xff")).to_owned()];
        let refused = audit_text(&config, &report).await.unwrap_err();
        assert!(matches!(refused, CommandError::NotJson(_)), "{refused}");
    }
}
