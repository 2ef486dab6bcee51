//! Checks of the keys that volumes depend on.

use super::super::lazy_kms::LazyKms;
use crate::error::chain;
use crate::key::Provider;
use crate::report::KeyFinding;
use crate::state::KeyRecord;

/// Checks the state of a key in its key service, and whether it would unwrap the data key.
pub(super) async fn check_key(kms: &LazyKms<'_>, key: &KeyRecord) -> KeyFinding {
    let mut state = None;
    let ask = async {
        match key.provider {
            Provider::AwsKms => {
                let kms = kms.get().await?;
                state = kms.key_state(&key.key_arn).await?;
                kms.try_unwrap(&key.wrapped_key, &key.key_arn).await
            }
            Provider::Exec => {
                let checked = kms.exec()?.check(&key.source()).await;
                state = checked.state;
                checked.usable
            }
        }
    };
    let error = ask.await.err().map(chain);
    KeyFinding { key_arn: key.key_arn.clone(), state, error }
}
