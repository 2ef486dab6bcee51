//! Remembers failures for a moment.
//!
//! `cryptsetup open` goes through the tokens twice: for keyslots that are preferred, and for all. Without this the user would wait for the
//! key service twice, and read the reason twice.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nobody has mended anything and tried again within this time.
const MOMENT: Duration = Duration::from_secs(1);

struct Failed {
    json: Vec<u8>,
    errno: c_int,
    at: Instant,
}

static FAILED: Mutex<Vec<Failed>> = Mutex::new(Vec::new());

/// Returns the failures of the last moment.
fn failed() -> MutexGuard<'static, Vec<Failed>> {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    failed.retain(|failed| failed.at.elapsed() < MOMENT);
    failed
}

/// Returns how this token failed just now, if it did.
pub(crate) fn failure_of(json: &[u8]) -> Option<c_int> {
    failed().iter().find(|failed| failed.json == json).map(|failed| failed.errno)
}

/// Remembers that this token failed.
pub(crate) fn remember(json: Vec<u8>, errno: c_int) {
    failed().push(Failed { json, errno, at: Instant::now() });
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn a_failure_is_remembered_for_a_moment_and_for_its_token() {
        remember(b"one".to_vec(), -11);
        assert_eq!((failure_of(b"one"), failure_of(b"other")), (Some(-11), None));
        sleep(MOMENT);
        assert_eq!(failure_of(b"one"), None);
    }
}
