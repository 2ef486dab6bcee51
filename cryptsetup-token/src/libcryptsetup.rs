//! What the plug-in calls in libcryptsetup.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::null;

/// `struct crypt_device`.
#[derive(Debug)]
#[repr(C)]
pub struct CryptDevice {
    opaque: [u8; 0],
}

#[link(name = "cryptsetup")]
unsafe extern "C" {
    fn crypt_log(cd: *mut CryptDevice, level: c_int, message: *const c_char);
    fn crypt_get_uuid(cd: *mut CryptDevice) -> *const c_char;
    fn crypt_token_json_get(cd: *mut CryptDevice, token: c_int, json: *mut *const c_char) -> c_int;
}

/// The levels of `crypt_log`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    /// `CRYPT_LOG_NORMAL`
    Normal = 0,
    /// `CRYPT_LOG_ERROR`
    Error = 1,
}

/// Prints a line as the program that loaded the plug-in prints its own.
///
/// # Safety
/// `cd` is a device context.
pub(crate) unsafe fn log(cd: *mut CryptDevice, level: Level, line: &str) {
    // what comes from a token or another process was escaped, so there is no NUL
    let message = CString::new(format!("{line}\n")).unwrap_or_default();
    // SAFETY: the caller's promise about `cd`; the library copies the message.
    unsafe { crypt_log(cd, level as c_int, message.as_ptr()) };
}

/// Returns a copy of the UUID of a volume; empty if it has none.
///
/// # Safety
/// `cd` is a device context.
pub(crate) unsafe fn volume_uuid(cd: *mut CryptDevice) -> Vec<u8> {
    // SAFETY: the caller's promise about `cd`.
    let uuid = unsafe { crypt_get_uuid(cd) };
    if uuid.is_null() {
        return Vec::new();
    }
    // SAFETY: the library returns a C string, which belongs to the context.
    unsafe { CStr::from_ptr(uuid) }.to_bytes().to_vec()
}

/// Returns a copy of the JSON of a token: the original belongs to the device context.
///
/// # Safety
/// `cd` is a device context.
pub(crate) unsafe fn token_json(cd: *mut CryptDevice, token: c_int) -> Option<Vec<u8>> {
    let mut json = null();
    // SAFETY: the caller's promise about `cd`; `json` can be written to.
    let found = unsafe { crypt_token_json_get(cd, token, &raw mut json) };
    if found < 0 || json.is_null() {
        return None;
    }
    // SAFETY: the library has set it to a C string, which lives until the next call with this context.
    let json = unsafe { CStr::from_ptr(json) };
    Some(json.to_bytes().to_vec())
}
