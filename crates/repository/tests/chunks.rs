//! Chunk boundaries against restic's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod oracle;

use holdfast_repository::Id;
use holdfast_repository::chunker::{CHUNK_MAX, CHUNK_MIN, Chunker};
use oracle::{Bench, noise};

#[test]
fn restic_cuts_at_the_same_places() {
    let bench = Bench::new(2);
    // Random data, then a stretch without any boundary, then one of nothing but boundaries.
    let mut data = noise(7, 30 << 20);
    data.resize(data.len() + CHUNK_MAX + CHUNK_MAX / 2, 1);
    data.resize(data.len() + 3 * CHUNK_MIN, 0);
    std::fs::write(bench.data().join("file"), &data).unwrap();
    let snapshot = bench.backup(&[]);
    let listing = bench.run(&["cat", "tree", &format!("{snapshot}:{}", bench.data().display())]);
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let theirs: Vec<String> = serde_json::from_value(listing["nodes"][0]["content"].clone()).unwrap();
    let chunker = Chunker::new(bench.open().config().chunker_polynomial);
    let ours: Vec<String> = chunker.chunks(&data).map(|chunk| Id::of(chunk).to_string()).collect();
    assert_eq!(ours, theirs);
}
