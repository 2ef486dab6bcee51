//! Hands the passphrase to libcryptsetup.

use std::ffi::c_char;
use std::ptr::copy_nonoverlapping;

use crate::failure::Failure;
use crate::pipes::Secret;

/// Copies the passphrase into memory of `malloc`. libcryptsetup wipes it and calls `free`, because the plug-in exports no
/// `cryptsetup_token_buffer_free`.
///
/// # Safety
/// `buffer` and `buffer_len` can be written to.
pub(crate) unsafe fn hand_over(
    passphrase: &Secret,
    buffer: *mut *mut c_char,
    buffer_len: *mut usize,
) -> Result<(), Failure> {
    let bytes = passphrase.bytes();
    // SAFETY: `malloc` has no preconditions.
    let memory = unsafe { libc::malloc(bytes.len()) }.cast::<u8>();
    if memory.is_null() {
        return Err(Failure::NoMemory);
    }
    // SAFETY: `memory` is new and as long as `bytes`.
    unsafe { copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len()) };
    // SAFETY: the caller's promise.
    unsafe { buffer.write(memory.cast()) };
    // SAFETY: the caller's promise.
    unsafe { buffer_len.write(bytes.len()) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;
    use std::slice::from_raw_parts;

    use super::*;

    #[test]
    fn the_passphrase_is_in_memory_that_free_takes() {
        let (mut buffer, mut len) = (null_mut(), 0);
        let secret = Secret::of(b"not a passphrase");
        // SAFETY: both are variables.
        unsafe { hand_over(&secret, &raw mut buffer, &raw mut len) }.unwrap();
        // SAFETY: `hand_over` has filled `len` bytes.
        let given = unsafe { from_raw_parts(buffer.cast::<u8>(), len) };
        assert_eq!(given, b"not a passphrase");
        // SAFETY: it is of `malloc`.
        unsafe { libc::free(buffer.cast()) };
    }
}
