//! Structures of the kernel on the stack.
//!
//! The compiler zeroes and copies pairs of words, and the verifier (as of 6.18) refuses unaligned access
//! to the stack. So each structure gets a place in which its 16-byte addresses are aligned to 8.

use dataplane_core::ip::Ip;

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

/// Writes an address to its place in a structure, in two words that the compiler can neither split nor
/// merge with their neighbours.
///
/// # Safety
/// `place` is on the stack, has 16 bytes, and is aligned to 8, as [`Aligned`] and [`Shifted`] see to.
#[inline(always)]
pub(crate) unsafe fn put_address<T>(place: *mut T, address: &Ip) {
    let words = place.cast::<u64>();
    // SAFETY: the caller's promise.
    unsafe {
        words.write_volatile(address.0[0]);
        words.add(1).write_volatile(address.0[1]);
    }
}
