//! The customer's own key service.

use std::time::Duration;

use crate::config::{self, Config};
use crate::error::chain;
use crate::key::{KeySource, Provider};
use crate::kms::{ExecProvider, Fault, KeyService, KmsError, Limits};
use crate::report::{Check, ExitCode};

const NAME: &str = "exec";

/// Has the program make a data key and unwrap it again; nothing keeps the key. `None` if no program is configured.
pub(super) async fn check(config: &Config, patience: Duration) -> Option<Check> {
    let exec = config.exec.as_ref()?;
    let brief =
        config::Exec { deadline: exec.deadline.min(patience), timeout: exec.timeout.min(patience), ..exec.clone() };
    let program = exec.program.display();
    Some(match try_key(&brief).await {
        Ok(true) => Check::ok(NAME, format!("{program} wraps and unwraps data keys with {}", exec.key_id)),
        Ok(false) => Check::failure(
            NAME,
            ExitCode::KeyService,
            format!("{program} unwraps another data key than it has wrapped, with {}", exec.key_id),
        ),
        Err(e) => {
            let code = match e.fault() {
                Fault::Configuration => ExitCode::Configuration,
                Fault::Unavailable | Fault::Data => ExitCode::KeyService,
            };
            Check::failure(NAME, code, chain(e))
        }
    })
}

/// Returns whether the program unwraps what it has wrapped.
async fn try_key(config: &config::Exec) -> Result<bool, KmsError> {
    let limits = Limits { patience: Duration::ZERO, few: 1, ..Limits::default() };
    let program = ExecProvider::with_limits(Some(config), limits)?;
    let made = program.generate().await?;
    let source = KeySource { provider: Provider::Exec, wrapped_key: made.wrapped_key, key_arn: made.key_arn };
    Ok(program.unwrap(&source).await?.same_as(&made.data_key))
}
