//! Says to the processor which memory will be read soon, so that several waits for it become one.
//!
//! Called where a look-up's next step is known before its turn comes. A hint: it reads nothing, and any address will do.

#![allow(unsafe_code, reason = "the hint is an intrinsic of the processor")]

/// Bytes of a line of the processor's cache.
pub const LINE_BYTES: usize = 64;

/// The line that `at` points into will be read. It need not point to anything.
#[inline]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; it touches no memory that anybody could notice, and does not fault.
        unsafe { _mm_prefetch(at.cast(), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// All lines of `bytes` will be read.
#[inline]
pub fn prefetch_bytes(bytes: &[u8]) {
    for line in bytes.chunks(LINE_BYTES) {
        prefetch(line.as_ptr());
    }
}
