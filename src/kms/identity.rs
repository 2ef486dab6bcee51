//! The instance identity document, which AWS signs.

use serde::Deserialize;

use super::imds::{Imds, ImdsError};

/// No document or signature is longer, in bytes: either has about 1 KiB.
const LONGEST: usize = 16 << 10;
const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
const SIGNATURE: &str = "/latest/dynamic/instance-identity/rsa2048";

/// The instance identity document and its signature. The agent does not verify the signature: whoever reads a report does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceIdentity {
    /// The document, byte for byte.
    pub document: String,
    /// Its RSA-2048 signature: PKCS #7 in base64, without header and footer; `None` if IMDS has none.
    pub rsa2048: Option<String>,
    /// What the document says.
    pub identity: Identity,
}

/// What an instance identity document says, as far as reports have it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Instance ID.
    pub instance_id: String,
    /// Instance type.
    pub instance_type: String,
    /// Region.
    pub region: String,
    /// Availability Zone.
    pub availability_zone: String,
    /// The AMI that it was launched from.
    pub image_id: String,
    /// AWS account.
    pub account_id: String,
}

impl Imds {
    /// Returns the instance identity document; `None` if there is no IMDS, or it has none.
    ///
    /// # Errors
    /// [`ImdsError`] if IMDS returns an error, or a response that is neither document nor signature.
    pub async fn identity_document(&self) -> Result<Option<InstanceIdentity>, ImdsError> {
        let garbled = |path: &str| ImdsError::Garbled { path: path.to_owned() };
        let Some(document) = self.get_as_is(DOCUMENT).await? else { return Ok(None) };
        let identity = read_identity(&document).ok_or_else(|| garbled(DOCUMENT))?;
        let rsa2048 = self.get_as_is(SIGNATURE).await?;
        if rsa2048.as_ref().is_some_and(|text| !is_signature(text)) {
            return Err(garbled(SIGNATURE));
        }
        Ok(Some(InstanceIdentity { document, rsa2048, identity }))
    }
}

fn read_identity(document: &str) -> Option<Identity> {
    let identity: Identity = serde_json::from_str(document).ok().filter(|_| document.len() <= LONGEST)?;
    let Identity { instance_id, instance_type, region, availability_zone, image_id, account_id } = &identity;
    let is_word =
        |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let words = [instance_id, instance_type, region, availability_zone, image_id, account_id];
    let are_words = words.into_iter().all(is_word);
    are_words.then_some(identity)
}

/// Whether a text is base64, in lines.
fn is_signature(text: &str) -> bool {
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b) || b.is_ascii_whitespace();
    text.len() <= LONGEST && !text.trim().is_empty() && text.bytes().all(is_base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
  "accountId" : "123456789012", "availabilityZone" : "us-east-1a", "imageId" : "ami-1", "instanceId" : "i-1",
  "instanceType" : "m7gd.2xlarge", "region" : "us-east-1", "kernelId" : null
}"#;

    #[test]
    fn a_document_has_all_fields_and_no_control_characters() {
        assert_eq!(read_identity(GOOD).unwrap().instance_type, "m7gd.2xlarge");
        for (from, to) in [
            ("\"i-1\"", "null"),
            ("\"i-1\"", "\"\""),
            ("\"i-1\"", "\"i-1\\u001b[2J\""),
            ("instanceId", "instance"),
            ("{", "["),
            ("}", &format!("{}}}", " ".repeat(LONGEST))),
        ] {
            assert_eq!(read_identity(&GOOD.replace(from, to)), None, "{from} -> {to:.20}");
        }
    }

    #[test]
    fn a_signature_is_base64() {
        assert!(is_signature("MIAGCSqGSIb3DQ\nEHAqCAMIACAQExDzANBglghkgBZQMEAgEFADCABgkqhk=\n"));
        for invalid in ["", "\n", "<html>", "-----BEGIN PKCS7-----", &"A".repeat(LONGEST + 1)] {
            assert!(!is_signature(invalid), "{invalid:.20}");
        }
    }
}
