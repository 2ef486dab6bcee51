//! The units of the agent, and the services that need its volumes.

use super::systemctl::Units;
use super::waiting::{MountPoints, not_waiting};
use crate::config::Config;
use crate::report::Check;
use crate::state::State;

/// What has to be enabled for the node to come back by itself.
const OURS: [&str; 2] = ["luks-agent.target", "luks-agent.service"];
/// How many services a row names.
const NAMED: usize = 10;

pub(super) async fn checks(config: &Config, recorded: Option<&State>) -> Vec<Check> {
    let units = Units::ask(&OURS).await;
    let points = MountPoints::of(config, recorded);
    match units {
        Ok(units) => vec![enabled(&units), waiting(&units, &points)],
        Err(why) => vec![
            Check::not_made("units", &why)
                .with_remedy("without the units, run 'luks-agent boot' at each boot and 'luks-agent daemon' meanwhile"),
            Check::not_made("waiting", &why),
        ],
    }
}

fn enabled(units: &Units) -> Check {
    const NAME: &str = "units";
    let state = |unit: &str| match (units.property(unit, "LoadState"), units.property(unit, "UnitFileState")) {
        ("not-found" | "", _) => "not installed".to_owned(),
        ("masked", _) => "masked".to_owned(),
        (_, state) => state.to_owned(),
    };
    let told: Vec<String> = OURS.iter().map(|unit| format!("{unit} is {}", state(unit))).collect();
    let evidence = told.join(", ");
    if OURS.iter().all(|unit| state(unit) == "enabled") {
        return Check::ok(NAME, evidence);
    }
    let remedy = if OURS.iter().any(|unit| state(unit) == "not installed") {
        "install the package of luks-agent, or its units as docs/service.md describes"
    } else {
        "systemctl enable luks-agent.target luks-agent.service"
    };
    Check::warning(NAME, format!("{evidence}; without them, no boot opens the volumes")).with_remedy(remedy)
}

fn waiting(units: &Units, points: &MountPoints) -> Check {
    const NAME: &str = "waiting";
    let services = not_waiting(units, points);
    if services.is_empty() {
        return Check::ok(NAME, format!("every service that names a path below {points} waits for luks-agent.target"));
    }
    let told: Vec<String> = services.iter().take(NAMED).map(|(unit, path)| format!("{unit} ({path})")).collect();
    let more = match services.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let quoted: Vec<String> = services.iter().map(|(unit, _)| format!("'{unit}'")).collect();
    let evidence =
        format!("not ordered after luks-agent.target, but naming paths of its volumes: {}{more}", told.join(", "));
    Check::warning(NAME, evidence).with_remedy(format!(
        r"for unit in {}; do mkdir -p /etc/systemd/system/$unit.d && printf '[Unit]\nRequires=luks-agent.target\nAfter=luks-agent.target\n' >/etc/systemd/system/$unit.d/luks-agent.conf; done; systemctl daemon-reload; systemctl add-wants luks-agent.target {}",
        quoted.join(" "),
        quoted.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CheckResult;

    #[test]
    fn units_that_no_boot_starts_are_told() {
        let check = |target: &str, daemon: &str| {
            let unit = |name: &str, state: &str| format!("Id={name}\nLoadState=loaded\nUnitFileState={state}\n\n");
            enabled(&Units::parse(&(unit(OURS[0], target) + &unit(OURS[1], daemon))))
        };
        assert_eq!(check("enabled", "enabled").result, CheckResult::Ok);
        let disabled = check("disabled", "enabled");
        assert_eq!(disabled.result, CheckResult::Warning);
        assert!(disabled.evidence.starts_with("luks-agent.target is disabled, luks-agent.service is enabled;"));
        assert_eq!(disabled.remedy.as_deref(), Some("systemctl enable luks-agent.target luks-agent.service"));
        let absent = enabled(&Units::parse("Id=luks-agent.target\nLoadState=not-found\nUnitFileState=\n"));
        assert!(absent.evidence.contains("luks-agent.target is not installed"), "{}", absent.evidence);
        assert!(absent.remedy.unwrap().starts_with("install the package"));
    }
}
