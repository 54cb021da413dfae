//! How much memory there is, and what the allocator keeps of what was freed: as little as it can be told to.
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

/// How large packs are to be where memory is short. Four are held at once: as large as usual, they would take half of the
/// 128 MiB that a sidecar often has, and leave too little for the index of a million files.
pub fn pack_bytes() -> usize {
    pack_bytes_within(limit())
}

const MIB: usize = 1 << 20;

fn pack_bytes_within(limit: Option<u64>) -> usize {
    let share = limit.map_or(usize::MAX, |limit| usize::try_from(limit / 32).unwrap_or(usize::MAX));
    share.clamp(4 * MIB, 16 * MIB)
}

/// How many index files are read at once: each takes some 12 MiB until all its entries are in the index, which may itself
/// take half of little memory.
pub(crate) fn index_readers() -> usize {
    index_readers_within(limit())
}

fn index_readers_within(limit: Option<u64>) -> usize {
    limit.map_or(4, |limit| (limit / (128 * MIB as u64)).clamp(1, 4) as usize)
}

/// What this container may take, if it has a limit: by control groups of version 2, or of version 1, which writes a number
/// beyond all memory for none.
fn limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_files_are_read_one_by_one_where_memory_is_short() {
        for (limit, expected) in [(64, 1), (128, 1), (256, 2), (512, 4), (4_096, 4)] {
            assert_eq!(index_readers_within(Some(limit << 20)), expected, "{limit} MiB");
        }
        assert_eq!(index_readers_within(None), 4);
    }

    #[test]
    fn packs_are_a_small_part_of_little_memory_and_of_the_usual_size_elsewhere() {
        for (limit, expected) in [(64, 4), (128, 4), (256, 8), (512, 16), (4_096, 16)] {
            assert_eq!(pack_bytes_within(Some(limit << 20)), expected * MIB, "{limit} MiB");
        }
        let unlimited_by_version_1 = Some(9_223_372_036_854_771_712);
        assert_eq!([pack_bytes_within(None), pack_bytes_within(unlimited_by_version_1)], [16 * MIB; 2]);
    }
}
