//! Remembers failures for as long as a program goes through its tokens.
//!
//! `cryptsetup open` goes through them twice if keyslots are preferred: for those, and for all. Without this the user would wait for the key
//! service twice, and read the reason twice.

use std::ffi::c_int;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A program that asks again within this time after the last answer is still going through its tokens: nobody mends anything so fast.
const MOMENT: Duration = Duration::from_secs(1);
/// How many tokens a header can have.
const TOKENS: usize = 32;

#[derive(Clone, Copy)]
struct Failed {
    /// Of the volume and the JSON of the token.
    hash: u64,
    errno: c_int,
}

/// Nothing on the heap: that would be lost when the plug-in is unloaded.
struct Recent {
    /// When the last answer was given.
    answered: Option<Instant>,
    /// By number of the token.
    failed: [Option<Failed>; TOKENS],
}

static RECENT: Mutex<Recent> = Mutex::new(Recent { answered: None, failed: [None; TOKENS] });

fn recent() -> MutexGuard<'static, Recent> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(volume: &[u8], json: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (volume, json).hash(&mut hasher);
    hasher.finish()
}

/// Returns how this token of a volume failed just now, if it did.
pub(crate) fn failure_of(token: c_int, volume: &[u8], json: &[u8]) -> Option<c_int> {
    let mut recent = recent();
    if recent.answered.is_none_or(|answered| answered.elapsed() >= MOMENT) {
        recent.failed = [None; TOKENS];
    }
    let failed = (*recent.failed.get(usize::try_from(token).ok()?)?)?;
    if failed.hash != hash(volume, json) {
        return None;
    }
    recent.answered = Some(Instant::now());
    Some(failed.errno)
}

/// Remembers that this token of a volume failed.
pub(crate) fn remember(token: c_int, volume: &[u8], json: &[u8], errno: c_int) {
    let place = usize::try_from(token).unwrap_or(TOKENS);
    let mut recent = recent();
    recent.answered = Some(Instant::now());
    if let Some(failed) = recent.failed.get_mut(place) {
        *failed = Some(Failed { hash: hash(volume, json), errno });
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn a_failure_is_remembered_while_a_program_goes_through_its_tokens() {
        for token in [0, 31, 32, -1] {
            remember(token, b"volume", b"one", -11);
        }
        let known = [0, 31, 32, -1, 1].map(|token| failure_of(token, b"volume", b"one"));
        assert_eq!(known, [Some(-11), Some(-11), None, None, None]);
        assert_eq!((failure_of(0, b"volume", b"other"), failure_of(0, b"other", b"one")), (None, None));
        // another token took longer than a moment
        sleep(MOMENT);
        remember(1, b"volume", b"two", -11);
        assert_eq!(failure_of(0, b"volume", b"one"), Some(-11));
        // nobody asked for a moment
        sleep(MOMENT);
        assert_eq!((failure_of(0, b"volume", b"one"), failure_of(1, b"volume", b"two")), (None, None));
    }
}
