//! FIPS mode: what the kernel says, what is built into the agent, and what the calls to KMS do.

use crate::config::Config;
use crate::fips;
use crate::report::Check;

const NAME: &str = "fips";

/// Judges the endpoint of KMS on a kernel in FIPS mode. `uses_fips_endpoint` is `None` if there is no connection with KMS.
pub(super) fn check(config: &Config, uses_fips_endpoint: Option<bool>) -> Check {
    let mode = mode(fips::module().as_deref());
    if config.kms.key_id.is_none() {
        return Check::ok(NAME, format!("{mode}; exec.command wraps the data keys, and no KMS key"));
    }
    match uses_fips_endpoint {
        Some(true) if config.kms.fips == Some(true) || config.kms.endpoint_url.is_some() => {
            Check::ok(NAME, format!("{mode}, and KMS is called at a FIPS endpoint"))
        }
        Some(true) => Check::warning(
            NAME,
            format!("{mode}; this command calls KMS at a FIPS endpoint because of its environment or profile, which the units may not have"),
        )
        .with_remedy("set kms.fips = true, or kms.endpoint_url to the FIPS endpoint"),
        Some(false) => Check::warning(NAME, format!("{mode}, but KMS is not called at a FIPS endpoint"))
            .with_remedy(remedy(config)),
        None => Check::warning(NAME, format!("{mode}; there is no connection with KMS, so its endpoint is not known")),
    }
}

fn mode(module: Option<&str>) -> String {
    let tls = module.map(|module| format!(", TLS in the agent uses {module}"));
    format!("the kernel is in FIPS mode{}", tls.unwrap_or_default())
}

fn remedy(config: &Config) -> &'static str {
    if config.kms.endpoint_url.is_some() {
        "set kms.endpoint_url to a VPC endpoint for kms-fips, or remove it and set kms.fips = true"
    } else {
        "set kms.fips = true; no variable and no profile may name another endpoint then"
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report::CheckResult;

    #[test]
    fn an_endpoint_that_is_not_for_fips_is_told_with_what_to_set() {
        let own = "[kms]\nkey_id = \"k\"\nendpoint_url = \"https://kms.example\"\n";
        let exec = "[keys]\nprovider = \"exec\"\n[exec]\ncommand = [\"/x\"]\nkey_id = \"k\"\n";
        for (text, uses_fips_endpoint, result, remedy) in [
            ("[kms]\nkey_id = \"k\"\nfips = true\n", Some(true), CheckResult::Ok, None),
            (
                "[kms]\nkey_id = \"k\"\n",
                Some(true),
                CheckResult::Warning,
                Some("set kms.fips = true, or kms.endpoint_url"),
            ),
            ("[kms]\nkey_id = \"k\"\n", Some(false), CheckResult::Warning, Some("set kms.fips = true")),
            (own, Some(true), CheckResult::Ok, None),
            (own, Some(false), CheckResult::Warning, Some("a VPC endpoint for kms-fips")),
            ("[kms]\nkey_id = \"k\"\n", None, CheckResult::Warning, None),
            (exec, None, CheckResult::Ok, None),
        ] {
            let check = check(&Config::from_text(Path::new("x"), text).unwrap(), uses_fips_endpoint);
            assert_eq!(check.result, result, "{text} {}", check.evidence);
            assert!(remedy.is_none_or(|part| check.remedy.unwrap().contains(part)), "{text}");
        }
    }

    #[test]
    fn a_build_with_a_fips_module_names_it() {
        assert_eq!(mode(None), "the kernel is in FIPS mode");
        assert_eq!(mode(Some("M 4")), "the kernel is in FIPS mode, TLS in the agent uses M 4");
    }
}
