//! The seeds of hash maps. A plug-in has no random numbers, so they are fixed: the deadline of a call bounds what keys
//! with equal hashes can cost.

/// Fills the buffer with the same bytes at every call.
///
/// # Safety
/// `buffer` points to `length` bytes.
#[expect(unsafe_code, reason = "the crate getrandom defines this signature")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(buffer: *mut u8, length: usize) -> Result<(), getrandom_03::Error> {
    // SAFETY: the caller owns these bytes.
    unsafe { buffer.write_bytes(0x5e, length) };
    Ok(())
}
