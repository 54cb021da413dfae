//! How much is in snapshots.

use std::collections::HashSet;

use serde::Serialize;

use crate::crypto::OVERHEAD;
use crate::format::BlobKind;
use crate::format::node::{Node, NodeKind};
use crate::hash::Sha256;
use crate::index::Marks;
use crate::prune::mark_trees;
use crate::snapshots::SavedSnapshot;
use crate::source::display_path;
use crate::trees::{Step, Visit, walk};
use crate::{Id, Index, Monitor, Repository, Result};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatsMode {
    /// What a restore of each snapshot writes, hard links once.
    #[default]
    RestoreSize,
    /// Files of different content, each once.
    FilesByContents,
    /// The pieces of files of different content, each once for each path.
    BlobsPerFile,
    /// The blobs that the snapshots need, each once, as they lie in the repository.
    RawData,
}

/// What was counted. What a mode does not count is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Bytes: of files, or for raw data of sealed blobs.
    pub total_bytes: u64,
    /// Bytes that the same blobs would take sealed without compression; raw data only.
    pub uncompressed_bytes: u64,
    /// The part of `uncompressed_bytes` that is of blobs that are compressed; raw data only.
    pub compressed_from_bytes: u64,
    /// Files, or for the restore size all entries.
    pub files: u64,
    /// Blobs.
    pub blobs: u64,
    /// Snapshots.
    pub snapshots: u64,
}

impl Stats {
    /// How many times larger the data was before compression; 0 if there is none.
    pub fn compression_ratio(&self) -> f64 {
        if self.total_bytes == 0 { 0.0 } else { self.uncompressed_bytes as f64 / self.total_bytes as f64 }
    }
}

/// Counts what is in `snapshots`.
pub fn stats(
    repository: &Repository,
    snapshots: &[SavedSnapshot],
    mode: StatsMode,
    monitor: &Monitor,
) -> Result<Stats> {
    let index = repository.index()?;
    let mut stats = Stats { snapshots: snapshots.len() as u64, ..Stats::default() };
    if mode == StatsMode::RawData {
        count_blobs(repository, &index, snapshots, monitor, &mut stats)?;
        return Ok(stats);
    }
    let mut seen = Seen::default();
    for saved in snapshots {
        seen.links.clear();
        walk(repository, &index, &saved.snapshot.tree, b"/", monitor, &mut |step| {
            match step {
                Step::Entry { path, node } => match mode {
                    StatsMode::FilesByContents if seen.is_new_content(&index, node) => {
                        stats.files += 1;
                        stats.total_bytes += node.size;
                    }
                    StatsMode::BlobsPerFile if seen.is_new_content(&index, node) => {
                        seen.count_blobs(&index, path, node, &mut stats);
                    }
                    StatsMode::RestoreSize => {
                        stats.files += 1;
                        if seen.is_first_link(node) {
                            stats.total_bytes += node.size;
                        }
                    }
                    _ => {}
                },
                Step::Unreadable { path, error } => {
                    monitor.failed(format!("{}:{}", saved.id.short(), display_path(path)), &error);
                }
                Step::Leave { .. } => {}
            }
            Ok(Visit::Enter)
        })?;
    }
    Ok(stats)
}

fn count_blobs(
    repository: &Repository,
    index: &Index,
    snapshots: &[SavedSnapshot],
    monitor: &Monitor,
    stats: &mut Stats,
) -> Result<()> {
    let used = Marks::default();
    mark_trees(repository, index, &used, snapshots.iter().map(|saved| saved.snapshot.tree), monitor)?;
    used.for_each_pair(&Marks::default(), index, &mut |blob, is_used, _| {
        if is_used {
            stats.blobs += 1;
            stats.total_bytes += u64::from(blob.length);
            let uncompressed_bytes = u64::from(blob.plain_length()) + OVERHEAD as u64;
            stats.uncompressed_bytes += uncompressed_bytes;
            if blob.raw_length > 0 {
                stats.compressed_from_bytes += uncompressed_bytes;
            }
        }
    });
    Ok(())
}

/// What was counted already.
#[derive(Default)]
struct Seen {
    /// Inode and device of files with several links, of one snapshot.
    links: HashSet<(u64, u64)>,
    /// Files of one blob, which are most files, by that blob.
    single: Marks,
    /// Files of several blobs, and of none, by the hash of their list.
    several: HashSet<Id>,
    /// Paths with pieces, and pieces with their paths; by hash.
    places: HashSet<Id>,
}

impl Seen {
    fn is_first_link(&mut self, node: &Node) -> bool {
        node.kind != NodeKind::File
            || node.links <= 1
            || node.inode == 0
            || self.links.insert((node.inode, node.device_id))
    }

    fn is_new_content(&mut self, index: &Index, node: &Node) -> bool {
        match node.content.as_deref().unwrap_or_default() {
            [blob] => self.single.set(index, BlobKind::Data, blob).unwrap_or(false),
            blobs => {
                let mut hash = Sha256::new();
                blobs.iter().for_each(|blob| hash.update(&blob.0));
                self.several.insert(Id(hash.finalize()))
            }
        }
    }

    fn count_blobs(&mut self, index: &Index, path: &[u8], node: &Node, stats: &mut Stats) {
        for blob in node.content.iter().flatten() {
            if self.places.insert(Id::of(path)) {
                stats.files += 1;
            }
            if self.places.insert(Id::of(&[&blob.0, path].concat())) {
                stats.blobs += 1;
                stats.total_bytes += index.find(BlobKind::Data, blob).map_or(0, |place| place.plain_length().into());
            }
        }
    }
}
