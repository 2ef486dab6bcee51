//! Checks which KMS keys may be used: customer managed, symmetric, for encryption, enabled.

use aws_sdk_kms::primitives::{DateTime, DateTimeFormat};
use aws_sdk_kms::types::{KeyManagerType, KeyMetadata, KeySpec, KeyState as State, KeyUsageType};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::class::Class;
use super::failure::Failure;

const WANTED: &str = "set kms.key_id to a customer managed, symmetric key (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT)";

const AWS_MANAGED: &str = "this is an AWS managed key, whose policy and deletion you do not control";

/// Refuses a name that only AWS managed keys have.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    let alias = name.rsplit_once(':').map_or(name, |(_, alias)| alias);
    if alias.starts_with("alias/aws/") { Err(refuse(AWS_MANAGED)) } else { Ok(()) }
}

/// Refuses a key that may not be used, and returns its ARN otherwise.
///
/// A property that KMS does not report counts against the key.
pub(super) fn check(key: &KeyMetadata) -> Result<String, Failure> {
    check_kind(key)?;
    check_state(key)?;
    key.arn().map(str::to_owned).ok_or_else(|| Failure::new(Class::Unexpected, "DescribeKey returned no ARN"))
}

/// Refuses a key that is not customer managed, symmetric and for encryption.
pub(super) fn check_kind(key: &KeyMetadata) -> Result<(), Failure> {
    match key.key_manager() {
        Some(KeyManagerType::Customer) => {}
        Some(KeyManagerType::Aws) => return Err(refuse(AWS_MANAGED)),
        Some(_) | None => return Err(refuse("KMS does not report this key as customer managed")),
    }
    match (key.key_spec(), key.key_usage()) {
        (Some(KeySpec::SymmetricDefault), Some(KeyUsageType::EncryptDecrypt)) => {}
        (spec, Some(KeyUsageType::GenerateVerifyMac)) => {
            return Err(refuse(&format!("this is an HMAC key{}", named(spec))));
        }
        (Some(spec), _) if *spec != KeySpec::SymmetricDefault => {
            return Err(refuse(&format!("this is an asymmetric key{}", named(Some(spec)))));
        }
        _ => return Err(refuse("KMS does not report this key as symmetric and for encryption")),
    }
    Ok(())
}

/// The state of a KMS key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// Its name in KMS, such as `Enabled`.
    pub name: String,
    /// When the key will be deleted, if it will.
    pub deletion: Option<Timestamp>,
}

/// Returns the state in a response of KMS.
pub(super) fn key_state(key: &KeyMetadata) -> KeyState {
    KeyState {
        name: key.key_state().map_or("unknown", State::as_str).to_owned(),
        deletion: key.deletion_date().and_then(|date| Timestamp::from_second(date.secs()).ok()),
    }
}

/// Refuses a key whose state does not allow its use.
pub(super) fn check_state(key: &KeyMetadata) -> Result<(), Failure> {
    let id = key.arn().unwrap_or(key.key_id());
    match key.key_state() {
        Some(State::Enabled) => Ok(()),
        Some(State::Disabled) => Err(state("the KMS key is disabled".to_owned())
            .with_remedy(format!("enable it: `aws kms enable-key --key-id {id}`"))),
        Some(State::PendingDeletion | State::PendingReplicaDeletion) => {
            let when = key.deletion_date().and_then(day).map(|d| format!(" on {d}")).unwrap_or_default();
            Err(state(format!("the KMS key is scheduled for deletion{when}")).with_remedy(format!(
                "cancel the deletion: `aws kms cancel-key-deletion --key-id {id}` and `aws kms enable-key --key-id {id}`; \
                 once the key is deleted, everything encrypted under it is lost"
            )))
        }
        Some(State::PendingImport) => {
            Err(state("the KMS key has no key material, or its key material expired".to_owned())
                .with_remedy("import its key material: `aws kms import-key-material`"))
        }
        Some(State::Unavailable) => {
            Err(Failure::new(Class::KeyNotReady, "the KMS key's custom key store is unavailable"))
        }
        Some(changing @ (State::Creating | State::Updating)) => {
            Err(Failure::new(Class::KeyNotReady, format!("the KMS key is {}", changing.as_str().to_lowercase())))
        }
        Some(other) => Err(state(format!("the KMS key is in state {}", other.as_str()))),
        None => Err(Failure::new(Class::Unexpected, "DescribeKey returned no key state")),
    }
}

fn refuse(what: &str) -> Failure {
    Failure::new(Class::Configuration, what).with_remedy(WANTED)
}

fn state(what: String) -> Failure {
    Failure::new(Class::KeyState, what)
}

fn named(spec: Option<&KeySpec>) -> String {
    spec.map(|s| format!(" ({})", s.as_str())).unwrap_or_default()
}

fn day(time: &DateTime) -> Option<String> {
    let text = time.fmt(DateTimeFormat::DateTime).ok()?;
    text.split_once('T').map(|(day, _)| day.to_owned())
}

/// Returns whether `answered` is the key `asked` for: the same ARN, or a replica of the same multi-Region key in
/// another Region.
pub(super) fn is_same_key(asked: &str, answered: &str) -> bool {
    if asked == answered {
        return true;
    }
    // arn:PARTITION:kms:REGION:ACCOUNT:key/mrk-...
    let fields = |arn: &str| -> Option<[String; 3]> {
        let [_, partition, "kms", _, account, resource] = arn.splitn(6, ':').collect::<Vec<_>>()[..] else {
            return None;
        };
        resource.starts_with("key/mrk-").then(|| [partition, account, resource].map(str::to_owned))
    };
    fields(asked).is_some_and(|asked| Some(asked) == fields(answered))
}

/// Returns whether a key with this ARN may be what a key ID, alias name or alias ARN names.
///
/// An alias names any key of its Region and account.
pub(super) fn may_be_named(arn: &str, name: &str) -> bool {
    let Some(id) = key_id_of(arn) else { return false };
    match name.rsplit_once(':') {
        None => name == id || name.starts_with("alias/"),
        Some((place, alias)) => alias.starts_with("alias/") && Some(place) == arn.strip_suffix(&format!(":key/{id}")),
    }
}

/// Returns the key ID in a key ARN; `None` if it is none.
pub(super) fn key_id_of(arn: &str) -> Option<&str> {
    let ["arn", partition, "kms", region, account, resource] = arn.splitn(6, ':').collect::<Vec<_>>()[..] else {
        return None;
    };
    let id = resource.strip_prefix("key/")?;
    let is_whole = [partition, region, account, id].iter().all(|part| !part.is_empty());
    (is_whole && !id.contains(':')).then_some(id)
}

/// Returns the Region of a key ARN or alias ARN.
pub(super) fn region_of(key_id: &str) -> Option<&str> {
    let fields: Vec<&str> = key_id.splitn(6, ':').collect();
    match fields[..] {
        ["arn", _, "kms", region, _, _] if !region.is_empty() => Some(region),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd";

    fn good() -> aws_sdk_kms::types::builders::KeyMetadataBuilder {
        KeyMetadata::builder()
            .key_id("1234abcd")
            .arn(ARN)
            .key_manager(KeyManagerType::Customer)
            .key_spec(KeySpec::SymmetricDefault)
            .key_usage(KeyUsageType::EncryptDecrypt)
            .key_state(State::Enabled)
    }

    #[test]
    fn only_a_customer_managed_symmetric_enabled_key_passes() {
        assert_eq!(check(&good().build().unwrap()).unwrap(), ARN);
        let refused = |key: aws_sdk_kms::types::builders::KeyMetadataBuilder| {
            let failure = check(&key.build().unwrap()).unwrap_err();
            (failure.class, failure.to_string())
        };
        let (class, text) = refused(good().key_manager(KeyManagerType::Aws));
        assert!(class == Class::Configuration && text.contains("AWS managed key"), "{text}");
        let (class, text) = refused(good().key_spec(KeySpec::Rsa2048));
        assert!(class == Class::Configuration && text.contains("asymmetric key (RSA_2048)"), "{text}");
        let (class, text) = refused(good().key_spec(KeySpec::Hmac256).key_usage(KeyUsageType::GenerateVerifyMac));
        assert!(class == Class::Configuration && text.contains("HMAC key (HMAC_256)"), "{text}");
        let (class, text) = refused(good().key_state(State::Disabled));
        assert!(class == Class::KeyState && text.contains("disabled"), "{text}");
        let deletion = DateTime::from_secs(1_900_000_000);
        let (class, text) = refused(good().key_state(State::PendingDeletion).deletion_date(deletion));
        assert!(class == Class::KeyState && text.contains("scheduled for deletion on 2030-03-17"), "{text}");
        assert_eq!(refused(good().key_state(State::PendingImport)).0, Class::KeyState);
        assert_eq!(refused(good().key_state(State::Unavailable)).0, Class::KeyNotReady);
        assert_eq!(refused(good().key_state(State::Creating)).0, Class::KeyNotReady);
        assert_eq!(refused(good().key_state(State::from("Molten"))).0, Class::KeyState);
        // silence is not consent
        assert_eq!(refused(good().set_key_manager(None)).0, Class::Configuration);
        assert_eq!(refused(good().set_key_spec(None)).0, Class::Configuration);
        assert_eq!(refused(good().set_key_usage(None)).0, Class::Configuration);
        assert_eq!(refused(good().set_key_state(None)).0, Class::Unexpected);
    }

    #[test]
    fn replicas_of_a_multi_region_key_are_the_same_key() {
        let mrk = |region: &str, account: &str, id: &str| format!("arn:aws:kms:{region}:{account}:key/{id}");
        let asked = mrk("us-east-1", "111122223333", "mrk-1");
        assert!(is_same_key(&asked, &asked));
        assert!(is_same_key(&asked, &mrk("eu-west-1", "111122223333", "mrk-1")));
        assert!(!is_same_key(&asked, &mrk("eu-west-1", "111122223333", "mrk-2")));
        assert!(!is_same_key(&asked, &mrk("eu-west-1", "444455556666", "mrk-1")));
        assert!(!is_same_key(ARN, &ARN.replace("us-east-1", "eu-west-1")));
        assert!(!is_same_key("alias/x", "alias/y"));
    }

    #[test]
    fn an_alias_names_any_key_of_its_place_and_a_key_id_one() {
        let alias_arn = "arn:aws:kms:us-east-1:111122223333:alias/nodes";
        for name in ["alias/nodes", alias_arn, "1234abcd"] {
            assert!(may_be_named(ARN, name), "{name}");
        }
        for (arn, name) in [
            (ARN, "1234abce"),
            (ARN, ""),
            (&ARN.replace("1234abcd", "1234abce"), ARN),
            (&ARN.replace("us-east-1", "eu-west-1"), alias_arn),
            (&ARN.replace("111122223333", "444455556666"), alias_arn),
            (alias_arn, "alias/nodes"),
            (alias_arn, alias_arn),
            ("1234abcd", "1234abcd"),
            ("arn:aws:kms:us-east-1:111122223333:key/", "alias/nodes"),
            (&ARN.replace(":kms:", ":s3:"), "alias/nodes"),
            ("", "alias/nodes"),
        ] {
            assert!(!may_be_named(arn, name), "{arn} {name}");
        }
    }

    #[test]
    fn the_region_is_in_the_arn() {
        assert_eq!(region_of(ARN), Some("us-east-1"));
        assert_eq!(region_of("arn:aws-cn:kms:cn-north-1:111122223333:alias/nodes"), Some("cn-north-1"));
        for other in ["alias/nodes", "1234abcd", "arn:aws:kms::1:key/x", "arn:aws:iam:us-east-1:1:role/x"] {
            assert_eq!(region_of(other), None, "{other}");
        }
    }
}
