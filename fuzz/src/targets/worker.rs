//! A worker's standard input. Nothing that it names may be touched: whatever is a job is pointed at a plain file first, and
//! at a mapping that does not exist.

use std::cell::LazyCell;
use std::fs;
use std::path::PathBuf;

use luks_agent::job::{self, Answer, Extent, Job, Target};
use luks_agent::worker::serve;
use serde_json::Value;
use tempfile::TempDir;

const CONTENT: &[u8] = b"not a block device";

thread_local! {
    static DIR: LazyCell<TempDir> = LazyCell::new(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("disk"), CONTENT).expect("a file");
        dir
    });
}

pub(crate) fn run(data: &[u8]) -> String {
    if data.is_empty() {
        // no job, no answer
        return String::new();
    }
    DIR.with(|dir| {
        let file = dir.path().join("disk");
        let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
        let (line, rest) = data.split_at(end);
        let answer = match serde_json::from_slice::<Job>(line) {
            Ok(job) => {
                let job = harmless(job, file.clone());
                let line = serde_json::to_vec(&job).expect("JSON");
                // the job means the same once it has gone from the parent to the worker
                let back: Job = serde_json::from_slice(&line).expect("a job");
                assert_eq!(format!("{back:?}"), format!("{job:?}"));
                // what comes behind would be the next job, and nobody has made that harmless
                let key_lines = 1 + job.passphrases();
                let rest: Vec<u8> = rest.split_inclusive(|b| *b == b'\n').take(key_lines).flatten().copied().collect();
                let answer = answer(&[&line, &rest[..]].concat(), &rest);
                let nothing_to_close = matches!(job, Job::Close { .. }) && answer == Answer::Closed;
                let nothing_to_erase = matches!((&job, &answer), (Job::Erase(_), Answer::Untouched { .. }));
                let failed = matches!(answer, Answer::Failed { .. });
                assert!(nothing_to_close || nothing_to_erase || failed, "{answer:?}");
                answer
            }
            Err(_) => {
                let answer = answer(data, rest);
                let Answer::Failed { message } = &answer else { panic!("{answer:?}") };
                assert!(
                    message.starts_with("invalid job: ") || message.starts_with("cannot read the job: "),
                    "{message}"
                );
                answer
            }
        };
        assert_eq!(fs::read(file).expect("the file"), CONTENT);
        format!("{answer:?}")
    })
}

/// The same job for what is not a block device.
fn harmless(mut job: Job, file: PathBuf) -> Job {
    let point = |target: &mut Target| target.path = file;
    match &mut job {
        Job::Probe { target, .. } | Job::Header { target } | Job::Format(job::Format { target, .. }) => point(target),
        Job::Verify(job::Verify { target, .. })
        | Job::EnrollRecovery(job::Verify { target, .. })
        | Job::RemoveRecovery(job::Verify { target, .. })
        | Job::ShowHeader { target }
        | Job::BackUpHeader(job::BackUpHeader { target, .. })
        | Job::InspectBackup(job::InspectBackup { target, .. })
        | Job::RestoreHeader(job::RestoreHeader { target, .. }) => point(target),
        Job::Check(job::Check { target, mapper, .. }) => {
            point(target);
            mapper.clone_from(&NO_MAPPING.to_owned());
        }
        Job::Grow(job::Grow { target, mapper, mount_point, .. }) => {
            point(target);
            mapper.clone_from(&NO_MAPPING.to_owned());
            *mount_point = None;
        }
        Job::Unlock(job::Unlock { target, mapper, mount, .. }) => {
            point(target);
            mapper.clone_from(&NO_MAPPING.to_owned());
            *mount = None;
        }
        Job::Reencrypt(job::Reencrypt { target, mapper, .. }) => {
            point(target);
            mapper.clone_from(&NO_MAPPING.to_owned());
        }
        Job::AddKey(job::AddKey { target, .. }) | Job::RemoveKey(job::RemoveKey { target, .. }) => point(target),
        Job::Erase(job::Erase { target, .. }) => point(target),
        Job::Audit(job::Audit { target, mapper, .. }) => {
            point(target);
            *mapper = mapper.as_ref().map(|_| NO_MAPPING.to_owned());
        }
        Job::Adopt(job::Adopt { target, mapper, .. }) => {
            point(target);
            mapper.clone_from(&NO_MAPPING.to_owned());
        }
        Job::Cipher { .. } => job = nothing_to_close(),
        Job::Close { mapper, .. } => mapper.clone_from(&NO_MAPPING.to_owned()),
    }
    job
}

/// For a job that is about no disk: it would make mappings.
fn nothing_to_close() -> Job {
    Job::Close { mapper: NO_MAPPING.to_owned(), extent: Extent::AsFarAsPossible }
}

const NO_MAPPING: &str = "luks-agent-fuzz-has-no-mapping";

/// The outcome; checks the form of all that was said, and that the passphrase is not in it.
fn answer(input: &[u8], passphrase: &[u8]) -> Answer {
    let mut output = Vec::new();
    serve(input, &mut output).expect("answers can be written");
    let text = String::from_utf8(output).expect("UTF-8");
    assert!(text.ends_with('\n'));
    let mut answers: Vec<Answer> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    let last = answers.pop().expect("an answer");
    assert!(!matches!(last, Answer::Progress { .. }));
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Progress { .. })), "{text}");

    let secret = String::from_utf8_lossy(passphrase.strip_prefix(b"\n").unwrap_or_default());
    let quoted = Value::from(secret.trim()).to_string();
    let (job, _) = input.split_at(input.len() - passphrase.len());
    if secret.trim().len() >= 16 && !String::from_utf8_lossy(job).contains(secret.trim()) {
        assert!(
            !text.contains(secret.trim()) && !text.contains(quoted.trim_matches('"')),
            "the passphrase is in {text}"
        );
    }
    last
}
