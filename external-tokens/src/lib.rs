//! Turns off libcryptsetup's token plug-ins in the current process.
//!
//! Neither `libcryptsetup-rs` nor the library that the packages are linked with has a name for this: it came with cryptsetup 2.4, and
//! the program also runs with 2.3. So the function is looked up where the program runs. A crate of its own has the `unsafe` for that.

use std::ffi::{CStr, c_void};
use std::mem::transmute;
use std::ptr::NonNull;

/// Stops libcryptsetup from loading token plug-ins for as long as this process lives. Call it before anything opens a header.
///
/// Returns `false` if the library has no such function: then it is older than plug-ins and loads none.
pub fn disable() -> bool {
    let Some(function) = find(c"crypt_token_external_disable") else { return false };
    // SAFETY: libcryptsetup.h declares `void crypt_token_external_disable(void)`, since the release that introduced the name.
    let disable: unsafe extern "C" fn() = unsafe { transmute(function) };
    // SAFETY: it only sets a variable of the library, and has no preconditions.
    unsafe { disable() };
    true
}

/// Returns the address of a function in the libraries of this program.
fn find(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: `name` ends with a NUL, and the dynamic linker keeps no pointer to it.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use std::ffi::c_char;

    use super::*;

    // so that the test has the library that a worker has
    #[link(name = "cryptsetup")]
    unsafe extern "C" {
        safe fn crypt_token_external_path() -> *const c_char;
    }

    #[test]
    fn the_library_has_no_folder_for_plug_ins_afterwards() {
        assert!(!crypt_token_external_path().is_null(), "plug-ins were off before");
        assert!(disable());
        assert!(crypt_token_external_path().is_null());
    }

    #[test]
    fn a_library_without_the_function_is_no_fault() {
        assert_eq!(find(c"crypt_token_external_disable_or_not"), None);
    }
}
