//! The main loop of a worker: does one job after the other until its input ends.

use std::io::{self, Read, Write};
use std::time::Instant;

use super::adopt::adopt;
use super::audit::audit;
use super::check::check;
use super::close;
use super::erase::erase;
use super::error::WorkerError;
use super::examine::{examine, read_header};
use super::first_look::FirstLook;
use super::format::format;
use super::grow::grow;
use super::header;
use super::input::Input;
use super::recovery;
use super::reencrypt::reencrypt;
use super::rekey::{add_key, remove_key};
use super::stage::Stage;
use super::unlock::unlock;
use super::verify::verify;
use crate::error::chain;
use crate::job::{Answer, Job};
use crate::key::Passphrase;
use crate::luks2::Encryption;
use crate::storage::cryptsetup::without_plugins;
use crate::storage::dm;

/// Reads jobs from `input` until it ends, does them, and writes the answers to `output`. The last answer to a job is its outcome.
///
/// # Errors
/// If an answer cannot be written.
pub fn serve(input: impl Read, output: &mut impl Write) -> io::Result<()> {
    without_plugins();
    let mut input = Input::new(input);
    // for the next job
    let mut first = None;
    loop {
        let answer = match receive(&mut input) {
            Ok(Some(Request { job, keys })) => perform(job, keys, &mut first, &mut |answer| send(output, &answer)),
            Ok(None) => return Ok(()),
            // nobody knows where the next job would begin
            Err(error) => return send(output, &answer_failure(error)),
        };
        send(output, &answer)?;
    }
}

fn send(output: &mut impl Write, answer: &Answer) -> io::Result<()> {
    serde_json::to_writer(&mut *output, answer)?;
    output.write_all(b"\n")?;
    output.flush()
}

/// A job with the passphrases that it needs.
struct Request {
    job: Job,
    keys: Vec<Passphrase>,
}

/// Reads the next job and the passphrases after it. Returns `None` at the end of the input.
fn receive(input: &mut Input<impl Read>) -> Result<Option<Request>, WorkerError> {
    let Some(line) = input.line().map_err(WorkerError::Job)? else { return Ok(None) };
    let job: Job = serde_json::from_slice(&line).map_err(WorkerError::NotAJob)?;
    let mut keys = Vec::new();
    for _ in 0..job.passphrases() {
        let line = input.line().map_err(WorkerError::Passphrase)?;
        keys.push(Passphrase::from_slice(&line.unwrap_or_default())?);
    }
    Ok(Some(Request { job, keys }))
}

fn perform(
    job: Job,
    keys: Vec<Passphrase>,
    first: &mut Option<FirstLook>,
    send: &mut dyn FnMut(Answer) -> io::Result<()>,
) -> Answer {
    let mut stage = Stage { send, last: None, since: Instant::now() };
    let looked = first.take();
    let mut keys = keys.into_iter();
    let done = match job {
        Job::Probe { target, intent, scan } => examine(&target, intent, scan, first, &mut stage),
        Job::Header { target } => read_header(&target, &mut stage),
        Job::Format(job) => format(&job, keys.next(), looked, &mut stage),
        Job::Unlock(job) => unlock(&job, keys.next(), &mut stage),
        Job::Check(job) => check(&job, &mut stage),
        Job::Grow(job) => grow(&job, keys.next(), &mut stage),
        Job::AddKey(job) => add_key(&job, &mut keys, &mut stage),
        Job::RemoveKey(job) => remove_key(&job, keys.next(), &mut stage),
        Job::Verify(job) => verify(&job, keys.next(), &mut stage),
        Job::EnrollRecovery(job) => recovery::enroll(&job, keys, &mut stage),
        Job::RemoveRecovery(job) => recovery::remove(&job, keys.next(), &mut stage),
        Job::ShowHeader { target } => header::show(&target, &mut stage),
        Job::BackUpHeader(job) => header::back_up(&job, &mut stage),
        Job::InspectBackup(job) => header::inspect(&job, &mut stage),
        Job::RestoreHeader(job) => header::restore(&job, keys.next(), &mut stage),
        Job::Reencrypt(job) => reencrypt(job, keys.next(), &mut stage),
        Job::Cipher { encryption } => try_cipher(encryption, &mut stage),
        Job::Close { mapper, extent } => {
            stage.enter("closing");
            close::close(&mapper, &extent).map(|()| Answer::Closed).map_err(WorkerError::from)
        }
        Job::Adopt(job) => adopt(&job, keys.next(), &mut stage),
        Job::Audit(job) => audit(&job, &mut stage),
        Job::Erase(job) => erase(&job, &mut stage),
    };
    done.unwrap_or_else(answer_failure)
}

/// Turns an error and its causes into the answer to a job.
fn answer_failure(error: WorkerError) -> Answer {
    Answer::Failed { message: chain(error) }
}

fn try_cipher(encryption: Encryption, stage: &mut Stage<'_>) -> Result<Answer, WorkerError> {
    stage.enter("trying the cipher");
    Ok(Answer::Cipher { missing: dm::missing_cipher(encryption)? })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::disk::DevNo;
    use crate::job::{self, Answer, Job, Target};
    use crate::key::{DataKey, KeySource, WrappedKey};
    use crate::luks2::{Expected, HeaderPolicy};
    use crate::worker::input::LINE_BYTES;

    fn answers(input: &[u8]) -> Vec<Answer> {
        let mut output = Vec::new();
        serve(input, &mut output).unwrap();
        output.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    fn job() -> Vec<u8> {
        let target = Target { path: "/dev/null".into(), devno: DevNo { major: 1, minor: 3 }, diskseq: None, size: 0 };
        let expected = Expected {
            luks_uuid: Uuid::nil(),
            header: HeaderPolicy::Possible,
            key: KeySource::aws_kms(WrappedKey::new(vec![1]).unwrap(), ""),
            other: None,
            reencrypting: false,
            volume_key: None,
        };
        let job = Job::Unlock(job::Unlock { target, expected, mapper: "x".into(), open: false, mount: None });
        let mut line = serde_json::to_vec(&job).unwrap();
        line.push(b'\n');
        line
    }

    #[test]
    fn a_job_without_its_passphrase_fails() {
        for key in [&b""[..], b"short", &[b'A'; 45], &[b'\n'; 44]] {
            let last = answers(&[&job(), key].concat()).pop().unwrap();
            let expected = "the passphrase is neither 44 characters of base64 nor a recovery key".to_owned();
            assert_eq!(last, Answer::Failed { message: expected });
        }
    }

    #[test]
    fn what_is_not_a_block_device_is_not_touched() {
        let key = DataKey::from_slice(&[1; 32]).unwrap().passphrase();
        let last = answers(&[&job(), key.expose()].concat()).pop().unwrap();
        assert_eq!(last, Answer::Failed { message: "/dev/null is no longer block device 1:3".into() });
    }

    #[test]
    fn one_job_comes_after_the_other() {
        let key = DataKey::from_slice(&[1; 32]).unwrap().passphrase();
        let one = [&job(), key.expose(), b"\n"].concat();
        let all = answers(&[&one[..], &one, b"{}\n", &one].concat());
        let mut outcomes = Vec::new();
        for answer in &all {
            if let Answer::Failed { message } = answer {
                outcomes.push(message.split(':').next().unwrap());
            }
        }
        // nothing after an invalid job is done
        let not_touched = "/dev/null is no longer block device 1";
        assert_eq!(outcomes, [not_touched, not_touched, "invalid job"]);
    }

    #[test]
    fn what_is_not_a_job_fails() {
        let long = vec![b' '; LINE_BYTES + 1];
        for input in [&b"{}\n"[..], b"\n", b"{", &long] {
            assert!(matches!(answers(input).as_slice(), [Answer::Failed { .. }]), "{} bytes", input.len());
        }
        assert!(answers(b"").is_empty());
    }
}
