//! The clock: AWS accepts a signature if its time is within five minutes.

use std::path::Path;

use jiff::SignedDuration;

use crate::report::{Check, ExitCode};

const NAME: &str = "clock";
/// What AWS tolerates, in seconds.
const TOLERATED: u64 = 300;
/// More than a synchronized clock and a slow response explain, in seconds.
const ODD: u64 = 30;
/// systemd-timesyncd touches it when it has set the clock.
const SYNCHRONIZED: &str = "/run/systemd/timesync/synchronized";
const REMEDY: &str = "timedatectl set-ntp true, or start chronyd with 'server 169.254.169.123 prefer iburst' (without IPv4: fd00:ec2::123)";

/// Judges how far the clock is ahead of the key service; `None` if that did not answer.
pub(super) fn check(lead: Option<SignedDuration>) -> Check {
    match lead {
        Some(lead) => compared(lead),
        None if Path::new(SYNCHRONIZED).exists() => Check::ok(NAME, "systemd-timesyncd has synchronized it"),
        None => Check::not_made(NAME, "there is no answer to compare it with").with_remedy(REMEDY),
    }
}

fn compared(lead: SignedDuration) -> Check {
    let seconds = lead.as_secs().unsigned_abs();
    let direction = if lead.is_negative() { "behind" } else { "ahead of" };
    let evidence = format!("{seconds} s {direction} the key service");
    if seconds >= TOLERATED {
        Check::failure(NAME, ExitCode::KeyService, format!("{evidence}; AWS tolerates 5 minutes")).with_remedy(REMEDY)
    } else if seconds >= ODD {
        Check::warning(NAME, format!("{evidence}; AWS tolerates 5 minutes")).with_remedy(REMEDY)
    } else {
        Check::ok(NAME, evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CheckResult;

    #[test]
    fn a_clock_that_aws_would_not_accept_fails_and_an_odd_one_is_told() {
        for (lead, result, evidence) in [
            (0, CheckResult::Ok, "0 s ahead of the key service"),
            (-2, CheckResult::Ok, "2 s behind the key service"),
            (-60, CheckResult::Warning, "60 s behind"),
            (299, CheckResult::Warning, "299 s ahead"),
            (300, CheckResult::Failure, "300 s ahead"),
            (-86_400, CheckResult::Failure, "86400 s behind"),
        ] {
            let check = check(Some(SignedDuration::from_secs(lead)));
            assert_eq!(check.result, result, "{lead}");
            assert!(check.evidence.starts_with(evidence), "{}", check.evidence);
        }
    }
}
