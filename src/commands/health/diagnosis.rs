//! The summary and the error of `health`.

use crate::report::{ExitCode, KeyFinding, Report, Row, Verdict, WOULD_NOT_SURVIVE};

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnosis {
    exit_code: ExitCode,
    error: String,
}

impl Diagnosis {
    /// Returns the diagnosis that the next boot would fail.
    pub(super) fn fatal(why: &str) -> Self {
        Self { exit_code: ExitCode::Failed, error: fatal(why) }
    }
}

/// Adds a diagnosis, if there is one, to a report.
pub(super) fn diagnosed(report: Report, wrong: Option<Diagnosis>) -> Report {
    match wrong {
        Some(Diagnosis { exit_code, error }) => report.failed(exit_code, error),
        None => report,
    }
}

/// Returns the summary: whether the key can be used, and how many volumes are sound.
pub(super) fn summary(keys: &[KeyFinding], rows: &[Row]) -> String {
    let key = if keys.iter().all(|key| key.error.is_none()) { "can" } else { "cannot" };
    let count = |is: fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
    let new = match count(|row| row.result == Verdict::New) {
        0 => String::new(),
        new => format!(", {new} not encrypted by luks-agent"),
    };
    match (count(|row| row.result == Verdict::Sound), count(|row| row.result != Verdict::New)) {
        (_, 0) => format!("there are no volumes yet{new}"),
        (sound, all) if sound == all => format!("the key {key} be used, {sound} sound{new}"),
        (sound, all) => format!("the key {key} be used, {sound} of {all} sound{new}"),
    }
}

fn fatal(why: &str) -> String {
    format!("{WOULD_NOT_SURVIVE}{why}")
}

/// Returns the gravest problem: one that would fail the next boot, or else one that is there now.
pub(super) fn diagnosis(keys: &[KeyFinding], rows: &[Row]) -> Option<Diagnosis> {
    if let Some(why) = keys.iter().find_map(|key| key.error.clone()) {
        return Some(Diagnosis { exit_code: ExitCode::KeyService, error: fatal(&why) });
    }
    let of_volume = |row: &Row| {
        let volume = row.serial.as_ref().or(row.device.as_ref()).unwrap_or(&row.role);
        format!("{volume}: {}", row.reason.as_deref().unwrap_or_default())
    };
    let is = |verdict: Verdict| rows.iter().find(|row| row.result == verdict).map(of_volume);
    let broken = is(Verdict::Wrong).map(|why| fatal(&why));
    // these do not fail the next boot for certain, and yet they are wrong
    let others = [
        Verdict::Failed,
        Verdict::Hung,
        Verdict::Unsound,
        Verdict::Missing,
        Verdict::Locked,
        Verdict::NotMounted,
        Verdict::Unfinished,
        Verdict::Refused,
    ];
    let broken = broken.or_else(|| others.into_iter().find_map(is));
    broken.map(|error| Diagnosis { exit_code: ExitCode::Failed, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Subject;

    fn row(result: Verdict, serial: &str) -> Row {
        let serial = Some(serial.to_owned());
        let subject = Subject { device: None, role: "ebs".to_owned(), serial, size: 0, content: None };
        Row::new(&subject, result).because("this is why")
    }

    fn key(error: Option<&str>) -> KeyFinding {
        KeyFinding { key_arn: "arn".to_owned(), state: None, error: error.map(str::to_owned) }
    }

    #[test]
    fn a_summary_does_not_call_a_key_usable_that_is_not() {
        let all = [row(Verdict::Sound, "a"), row(Verdict::Locked, "b")];
        assert_eq!(summary(&[key(None)], &all[..1]), "the key can be used, 1 sound");
        assert_eq!(summary(&[key(None), key(Some("no"))], &all[..1]), "the key cannot be used, 1 sound");
        assert_eq!(summary(&[key(Some("no"))], &all), "the key cannot be used, 1 of 2 sound");
        assert_eq!(summary(&[key(None)], &all), "the key can be used, 1 of 2 sound");
        assert_eq!(summary(&[], &[]), "there are no volumes yet");
        let stranger = || row(Verdict::New, "c");
        assert_eq!(summary(&[], &[stranger()]), "there are no volumes yet, 1 not encrypted by luks-agent");
        let one = [row(Verdict::Sound, "a"), stranger()];
        assert_eq!(summary(&[key(None)], &one), "the key can be used, 1 sound, 1 not encrypted by luks-agent");
    }

    #[test]
    fn a_diagnosis_names_the_gravest_first_and_what_is_merely_closed_is_not_called_lost() {
        let all =
            [row(Verdict::Sound, "a"), row(Verdict::Locked, "b"), row(Verdict::Missing, "c"), row(Verdict::Wrong, "d")];
        let said = |keys: &[KeyFinding], rows: &[Row]| {
            let Diagnosis { exit_code, error } = diagnosis(keys, rows).unwrap();
            (exit_code, error)
        };
        let lost = |why: &str| format!("this node would not survive a reboot, because {why}");
        assert_eq!(said(&[key(None), key(Some("no"))], &all), (ExitCode::KeyService, lost("no")));
        assert_eq!(said(&[key(None)], &all), (ExitCode::Failed, lost("d: this is why")));
        let unsound = [row(Verdict::Unsound, "e"), row(Verdict::Missing, "c")];
        assert_eq!(said(&[], &unsound), (ExitCode::Failed, "e: this is why".to_owned()));
        assert_eq!(said(&[], &all[..3]), (ExitCode::Failed, "c: this is why".to_owned()));
        assert_eq!(said(&[], &all[..2]), (ExitCode::Failed, "b: this is why".to_owned()));
        assert_eq!(diagnosis(&[key(None)], &all[..1]), None);
        assert_eq!(said(&[], &[row(Verdict::NotMounted, "e")]), (ExitCode::Failed, "e: this is why".to_owned()));
        let unclear = [row(Verdict::Sound, "a"), row(Verdict::Refused, "xvdf")];
        assert_eq!(said(&[key(None)], &unclear), (ExitCode::Failed, "xvdf: this is why".to_owned()));
        assert_eq!(diagnosis(&[], &[row(Verdict::New, "f")]), None, "a stranger makes no node unhealthy");
    }
}
