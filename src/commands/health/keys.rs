//! Checks of the KMS keys that volumes depend on.

use super::super::lazy_kms::LazyKms;
use crate::error::chain;
use crate::report::KeyFinding;
use crate::state::KeyRecord;

/// Checks the state of a KMS key, and whether it would unwrap the data key.
pub(super) async fn check_key(kms: &LazyKms<'_>, key: &KeyRecord) -> KeyFinding {
    let mut state = None;
    let ask = async {
        let kms = kms.get().await?;
        state = kms.key_state(&key.key_arn).await?;
        kms.try_unwrap(&key.wrapped_key, &key.key_arn).await
    };
    let error = ask.await.err().map(chain);
    KeyFinding { key_arn: key.key_arn.clone(), state, error }
}
