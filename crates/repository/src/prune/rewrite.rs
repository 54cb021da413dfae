//! New indexes for those that name packs about to go; small ones are put together on the way.

use std::collections::HashSet;

use crate::format::FileKind;
use crate::format::index::{Encoder, IndexedPack};
use crate::lock::Lock;
use crate::{Id, Monitor, Repository, Result};

/// An index file is closed at this many blobs.
const BLOBS_MAX: usize = 50_000;
/// An index file below this size is put together with others; one of 50,000 blobs has some 2 MB at least.
const SMALL_BYTES: u64 = 1 << 20;

/// Replaces the index files that name packs of `gone`; how many.
///
/// The new ones are written before the old ones go. Holds one index file and what is being written of the next.
pub(super) fn rewrite_indexes(
    repository: &Repository,
    gone: &HashSet<Id>,
    lock: &Lock,
    monitor: &Monitor,
) -> Result<u64> {
    let files = repository.list_sizes(FileKind::Index)?;
    let merge_small = files.iter().filter(|(_, size_bytes)| *size_bytes < SMALL_BYTES).count() > 1;
    let mut encoder = Encoder::new();
    let mut written = HashSet::new();
    let mut replaced = Vec::new();
    for (id, size_bytes) in files {
        monitor.check()?;
        lock.check()?;
        let mut packs: Vec<IndexedPack> = Vec::new();
        repository.load_index_file(&id, &mut |pack| packs.push(pack))?;
        let names_gone = packs.iter().any(|pack| gone.contains(&pack.id));
        let is_merged = merge_small && size_bytes < SMALL_BYTES;
        if !names_gone && !is_merged {
            continue;
        }
        replaced.push(id);
        for pack in packs {
            // One pack may stand in several indexes, each time with the same blobs.
            if gone.contains(&pack.id) || !written.insert(pack.id) {
                continue;
            }
            if encoder.blobs() > 0 && encoder.blobs() + pack.blobs.len() > BLOBS_MAX {
                save(repository, std::mem::take(&mut encoder))?;
            }
            encoder.push(&pack.id, &pack.blobs);
        }
    }
    save(repository, encoder)?;
    for id in &replaced {
        repository.remove(lock, FileKind::Index, id)?;
    }
    Ok(replaced.len() as u64)
}

fn save(repository: &Repository, encoder: Encoder) -> Result<()> {
    if encoder.blobs() > 0 {
        repository.save_file(FileKind::Index, &encoder.finish())?;
    }
    Ok(())
}
