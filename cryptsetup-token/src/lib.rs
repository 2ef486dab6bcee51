//! A token plug-in of cryptsetup: stock tools open volumes of luks-agent through KMS.
//!
//! libcryptsetup loads it into `cryptsetup`, `systemd-cryptsetup` and whatever else uses the library, when it meets a token of
//! luks-agent. So it is thin: it starts `luks-agent unwrap`, which asks the key service, and hands over what that answers. No memory of
//! Rust's allocator and no panic crosses the boundary.
//!
//! The file name is that of the token type, `libcryptsetup-token-luks-agent-awskms.so`. Under the name of the other type,
//! `libcryptsetup-token-luks-agent-exec.so`, the same file opens volumes whose keys the customer's own program unwraps.

mod agent;
mod environment;
mod failure;
mod hand_over;
mod libcryptsetup;
mod pipes;
mod recent;
mod spawn;
#[path = "../../src/text.rs"]
#[allow(unreachable_pub, reason = "the agent has this file, too, and shows it to its tests")]
mod text;
mod token;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Once;

use agent::Agent;
use hand_over::hand_over;
use libcryptsetup::{CryptDevice, Level, log, token_json, volume_uuid};

/// Returns what a function returns; if it panics, an error: no unwinding reaches C, and nothing is printed in somebody else's program.
fn guarded(function: impl FnOnce() -> c_int) -> c_int {
    static SILENCE: Once = Once::new();
    // the hook of the plug-in alone: it has the standard library linked in, and a program in Rust has another one
    SILENCE.call_once(|| set_hook(Box::new(|_| {})));
    catch_unwind(AssertUnwindSafe(function)).unwrap_or(-libc::EINVAL)
}

/// Gets the passphrase of a token (`cryptsetup_token_open_func`).
///
/// # Safety
/// As libcryptsetup calls it: `cd` is a device context, `buffer` and `buffer_len` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cryptsetup_token_open(
    cd: *mut CryptDevice,
    token: c_int,
    buffer: *mut *mut c_char,
    buffer_len: *mut usize,
    _usrptr: *mut c_void,
) -> c_int {
    guarded(|| {
        // SAFETY: the caller's promise about `cd`.
        let json = unsafe { token_json(cd, token) }.unwrap_or_default();
        // SAFETY: the caller's promise about `cd`.
        let volume = unsafe { volume_uuid(cd) };
        if let Some(errno) = recent::failure_of(token, &volume, &json) {
            return errno;
        }
        let passphrase = Agent::installed().unwrap(&json);
        // SAFETY: the caller's promise about `buffer` and `buffer_len`.
        let handed_over = passphrase.and_then(|passphrase| unsafe { hand_over(&passphrase, buffer, buffer_len) });
        let Err(failure) = handed_over else { return 0 };
        for line in failure.lines() {
            // SAFETY: the caller's promise about `cd`.
            unsafe { log(cd, Level::Error, line) };
        }
        recent::remember(token, &volume, &json, failure.errno());
        failure.errno()
    })
}

/// Accepts every token of luks-agent, also those of later releases (`cryptsetup_token_validate_func`).
///
/// # Safety
/// As libcryptsetup calls it: `json` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cryptsetup_token_validate(_cd: *mut CryptDevice, json: *const c_char) -> c_int {
    guarded(|| {
        // SAFETY: the caller's promise about `json`.
        let json = unsafe { CStr::from_ptr(json) };
        if token::is_ours(json.to_bytes()) { 0 } else { -libc::EINVAL }
    })
}

/// Prints what is in a token, for `luksDump` (`cryptsetup_token_dump_func`).
///
/// # Safety
/// As libcryptsetup calls it: `cd` is a device context, `json` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cryptsetup_token_dump(cd: *mut CryptDevice, json: *const c_char) {
    guarded(|| {
        // SAFETY: the caller's promise about `json`.
        let json = unsafe { CStr::from_ptr(json) };
        for line in token::describe(json.to_bytes()) {
            // SAFETY: the caller's promise about `cd`.
            unsafe { log(cd, Level::Normal, &line) };
        }
        0
    });
}

/// Returns the version, which libcryptsetup prints with `--debug` (`cryptsetup_token_version_func`).
#[unsafe(no_mangle)]
pub extern "C" fn cryptsetup_token_version() -> *const c_char {
    const VERSION: &str = concat!("luks-agent ", env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guarded(|| panic!("a test of panics")), -libc::EINVAL);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri starts no processes")]
    fn a_panic_prints_nothing() {
        let program = std::env::current_exe().unwrap();
        let panicking = ["--exact", "tests::a_panic_becomes_an_error", "--nocapture"];
        let said = std::process::Command::new(program).args(panicking).output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).contains("1 passed"));
        assert_eq!(String::from_utf8_lossy(&said.stderr), "");
    }

    #[test]
    fn the_version_is_a_c_string() {
        // SAFETY: a static string with a NUL at its end.
        let version = unsafe { CStr::from_ptr(cryptsetup_token_version()) };
        assert_eq!(version.to_str().unwrap(), concat!("luks-agent ", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn validate_tells_other_tokens_by_their_type() {
        let validate = |json: &CStr| {
            // SAFETY: a C string.
            unsafe { cryptsetup_token_validate(null_mut(), json.as_ptr()) }
        };
        assert_eq!(validate(c"{\"type\":\"luks-agent-awskms\"}"), 0);
        assert_eq!(validate(c"{\"type\":\"systemd-tpm2\"}"), -libc::EINVAL);
        assert_eq!(validate(c""), -libc::EINVAL);
    }
}
