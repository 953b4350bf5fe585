//! What the allocator keeps of freed memory: little, as an agent is mostly at rest.

/// What is larger is mapped by itself, and goes back to the kernel when it is freed. glibc raises this by itself to
/// the size of what was freed, up to 32 MiB.
#[cfg(target_env = "gnu")]
const MAPPED_MIN: libc::c_int = 256 * 1024;

/// Lets all threads share one heap; glibc gives several threads one each, and each keeps what was freed in it.
/// To be called before there are threads.
pub(crate) fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator, which takes its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_MIN);
    }
}

/// Gives freed memory back to the kernel: what starting took, and after each look what it took. glibc does so
/// by itself only at the end of the heap, and late once a large piece was freed, as by loading the programs.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only what is free, under the allocator's own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}
