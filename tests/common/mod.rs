//! What tests of several crates need, which take this file in by its path.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::path::{Path, PathBuf};

/// A tool that `cargo xtask tools` has installed, or the one that `HOLDFAST_<NAME>` names.
pub fn tool(name: &str) -> PathBuf {
    let named = std::env::var_os(format!("HOLDFAST_{}", name.to_uppercase().replace('-', "_"))).map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        let cache = std::env::var_os("HOLDFAST_CACHE").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/holdfast"));
        cache.join("bin").join(name)
    });
    assert!(path.is_file(), "{} is missing; run: cargo xtask tools", path.display());
    path
}

/// Bytes that follow from `seed` and do not compress.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // Eight bytes at a time: tests make much of it, without an optimiser.
    let mut noise = vec![0; bytes.next_multiple_of(8)];
    for word in noise.chunks_exact_mut(8) {
        word.copy_from_slice(&next().to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
