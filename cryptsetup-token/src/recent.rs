//! Remembers failures for a moment.
//!
//! `cryptsetup open` goes through the tokens twice: for keyslots that are preferred, and for all. Without this the user would wait for the
//! key service twice, and read the reason twice.

use std::ffi::c_int;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nobody has mended anything and tried again within this time.
const MOMENT: Duration = Duration::from_secs(1);
/// How many tokens a header can have.
const TOKENS: usize = 32;

#[derive(Clone, Copy)]
struct Failed {
    /// Of the JSON of the token.
    hash: u64,
    errno: c_int,
    at: Instant,
}

/// Nothing on the heap: that would be lost when the plug-in is unloaded.
static FAILED: Mutex<[Option<Failed>; TOKENS]> = Mutex::new([None; TOKENS]);

fn failed() -> MutexGuard<'static, [Option<Failed>; TOKENS]> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(json: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    hasher.finish()
}

/// Returns how this token failed just now, if it did.
pub(crate) fn failure_of(token: c_int, json: &[u8]) -> Option<c_int> {
    let failed = (*failed().get(usize::try_from(token).ok()?)?)?;
    (failed.at.elapsed() < MOMENT && failed.hash == hash(json)).then_some(failed.errno)
}

/// Remembers that this token failed.
pub(crate) fn remember(token: c_int, json: &[u8], errno: c_int) {
    let place = usize::try_from(token).unwrap_or(TOKENS);
    if let Some(failed) = failed().get_mut(place) {
        *failed = Some(Failed { hash: hash(json), errno, at: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn a_failure_is_remembered_for_a_moment_and_for_its_token() {
        for token in [0, 31, 32, -1] {
            remember(token, b"one", -11);
        }
        assert_eq!([0, 31, 32, -1, 1].map(|token| failure_of(token, b"one")), [Some(-11), Some(-11), None, None, None]);
        assert_eq!(failure_of(0, b"other"), None);
        sleep(MOMENT);
        assert_eq!(failure_of(0, b"one"), None);
    }
}
