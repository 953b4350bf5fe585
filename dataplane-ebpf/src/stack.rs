//! Structures of the kernel on the stack.
//!
//! The compiler zeroes and copies pairs of words, and the verifier (as of 6.18) refuses unaligned access
//! to the stack. So each structure gets a place in which its 16-byte addresses are aligned to 8.

/// A structure whose addresses lie at multiples of 8.
#[repr(C, align(8))]
pub(crate) struct Aligned<T>(pub(crate) T);

/// A structure whose addresses lie 4 bytes behind multiples of 8.
#[repr(C, align(8))]
pub(crate) struct Shifted<T> {
    before: u32,
    pub(crate) value: T,
}

impl<T: Copy> Aligned<T> {
    /// All bytes zero.
    ///
    /// # Safety
    /// All-zero must be a valid value of `T`.
    #[inline(always)]
    pub(crate) unsafe fn zeroed() -> Self {
        // SAFETY: the caller's promise.
        unsafe { core::mem::zeroed() }
    }
}

impl<T: Copy> Shifted<T> {
    /// All bytes zero.
    ///
    /// # Safety
    /// All-zero must be a valid value of `T`.
    #[inline(always)]
    pub(crate) unsafe fn zeroed() -> Self {
        // SAFETY: the caller's promise.
        unsafe { core::mem::zeroed() }
    }
}

impl<T> Shifted<T> {
    /// The value in its place.
    #[inline(always)]
    pub(crate) fn new(value: T) -> Self {
        Self { before: 0, value }
    }
}
