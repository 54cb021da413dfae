//! What the allocator keeps of memory that was freed: as little as it can be told to.
//!
//! The engine's buffers are of some hundred KiB to some MiB. glibc takes them from the system at first, but as soon as
//! one was freed it keeps such sizes for reuse, where the next one, a bit larger, does not fit: a backup would come
//! to hold twice what it needs, and a program that waits for its next backup would never give it back. This is the
//! only place that talks to the allocator. Others than glibc's are left as they are.

/// Makes buffers go back to the system when they are freed; for a program's start. Taking one anew costs far less
/// than filling it.
pub fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// In bytes; glibc's own first value, which it raises by itself unless it is set.
        const LARGE: libc::c_int = 128 << 10;
        // SAFETY: sets a number within the allocator, under its own lock; no memory of ours is touched.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}

/// Has all threads take small pieces from one place, for a program whose threads take turns with large work: else each
/// thread would keep what its own largest work took.
pub fn share_one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number within the allocator, under its own lock; no memory of ours is touched.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what is free between things in use, as after a backup, whose index was millions of small pieces.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: only gives back pages that hold nothing, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
