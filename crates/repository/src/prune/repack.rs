//! Copies what is needed of packs that are to go into new packs.
//!
//! Each blob is verified (authentication and hash) before it is stored again, byte for byte as it was sealed, unless
//! it is to be compressed. One that is damaged is taken from another copy; without one, the prune ends here, with
//! nothing removed that was needed.

use std::collections::HashMap;
use std::sync::Arc;

use super::{PruneOptions, PrunePlan};
use crate::error::Damage;
use crate::format::pack::PackedBlob;
use crate::format::{BlobKind, FileKind};
use crate::index::Marks;
use crate::lock::Lock;
use crate::monitor::Counters;
use crate::pack_writer::PackWriter;
use crate::repository::{Compression, in_parallel, open_blob};
use crate::{Error, Id, Index, Monitor, Repository, Result};

/// How many blobs' places are held at once: some 12 MB.
const BATCH_BLOBS: usize = 200_000;
/// Needed blobs that are no further apart are read at once with what lies between.
const GAP_BYTES: u64 = 128 << 10;
/// How many bytes are read at once, unless one blob has more.
const READ_BYTES: u64 = 4 << 20;
/// How many packs are read at once.
const READERS: usize = 4;

/// Copies the blobs marked in `used` that no other pack keeps.
pub(super) fn repack(
    repository: &Arc<Repository>,
    index: &Index,
    used: Marks,
    plan: &PrunePlan,
    options: &PruneOptions,
    lock: &Lock,
    monitor: &Monitor,
) -> Result<()> {
    if plan.repack.is_empty() {
        return Ok(());
    }
    let ids = index.packs();
    let numbers: HashMap<Id, u32> = (0..).zip(&ids).map(|(number, id)| (*id, number)).collect();
    let mut fate = vec![Fate::Keep; ids.len()];
    for (list, what) in [(&plan.repack, Fate::Repack), (&plan.remove, Fate::Remove), (&plan.missing, Fate::Remove)] {
        for number in list.iter().filter_map(|id| numbers.get(id)) {
            fate[*number as usize] = what;
        }
    }
    used.clear_packs(index, &|number| fate[number as usize] == Fate::Keep);
    let recompress = repository.compresses() && repository.options().compression != Compression::Off;
    let writer = PackWriter::new(repository, Arc::default(), false)?;
    let copy = Copy {
        repository,
        index,
        used: &used,
        writer: &writer,
        compress_trees: repository.compresses(),
        compress_data: recompress && options.repack_uncompressed,
        lock,
        monitor,
    };
    for batch in batches(index, &used, &fate) {
        let mut packs: HashMap<u32, Vec<PackedBlob>> = batch.iter().map(|number| (*number, Vec::new())).collect();
        used.for_each(index, &mut |number, blob, is_needed| {
            if is_needed && let Some(blobs) = packs.get_mut(&number) {
                blobs.push(blob);
            }
        });
        let packs: Vec<_> = packs.into_iter().map(|(number, blobs)| (ids[number as usize], blobs)).collect();
        in_parallel(&packs, READERS, |(id, blobs)| copy.pack(id, blobs))?;
    }
    writer.finish()?;
    match used.count() {
        0 => Ok(()),
        left => Err(Error::System {
            operation: "copy all needed blobs",
            reason: format!("{left} are left; nothing was removed"),
        }),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Repack,
    Remove,
}

/// The packs to copy from, so many at once that their blobs are not too many.
fn batches(index: &Index, used: &Marks, fate: &[Fate]) -> Vec<Vec<u32>> {
    let mut needed = vec![0usize; fate.len()];
    used.for_each(index, &mut |number, _, is_needed| needed[number as usize] += usize::from(is_needed));
    let mut batches = vec![Vec::new()];
    let mut blobs = 0;
    for (number, _) in (0..).zip(fate).filter(|(_, fate)| **fate == Fate::Repack) {
        blobs += needed[number as usize];
        if let Some(batch) = batches.last_mut() {
            batch.push(number);
        }
        if blobs > BATCH_BLOBS {
            batches.push(Vec::new());
            blobs = 0;
        }
    }
    batches
}

struct Copy<'a> {
    repository: &'a Repository,
    index: &'a Index,
    used: &'a Marks,
    writer: &'a PackWriter,
    compress_trees: bool,
    compress_data: bool,
    lock: &'a Lock,
    monitor: &'a Monitor,
}

impl Copy<'_> {
    fn pack(&self, id: &Id, blobs: &[PackedBlob]) -> Result<()> {
        let mut blobs = blobs.to_vec();
        // Another pack's copy may have been taken meanwhile.
        blobs.retain(|blob| self.used.clear(self.index, blob.kind, &blob.id));
        blobs.sort_by_key(|blob| blob.offset);
        let (mut bytes, mut scratch, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        for run in runs(&blobs) {
            self.monitor.check()?;
            self.lock.check()?;
            let start = run.first().map_or(0, |blob| u64::from(blob.offset));
            let end = run.iter().map(|blob| u64::from(blob.offset) + u64::from(blob.length)).max().unwrap_or(start);
            bytes.clear();
            bytes.resize((end - start) as usize, 0);
            // If it cannot be read as a whole, the other copies of each blob are still to be tried.
            let is_read = self.repository.store().get_range(&FileKind::Pack.path(id), start, &mut bytes).is_ok();
            for blob in run {
                let at = (u64::from(blob.offset) - start) as usize;
                let sealed = &bytes[at..at + blob.length as usize];
                self.blob(id, blob, sealed, is_read, &mut scratch, &mut raw)?;
            }
        }
        Counters::add(&self.monitor.counters().steps, 1);
        Ok(())
    }

    fn blob(
        &self,
        pack: &Id,
        blob: &PackedBlob,
        sealed: &[u8],
        is_read: bool,
        scratch: &mut Vec<u8>,
        raw: &mut Vec<u8>,
    ) -> Result<()> {
        let PackedBlob { id, kind, raw_length, .. } = *blob;
        let compress = match kind {
            BlobKind::Data => self.compress_data,
            BlobKind::Tree => self.compress_trees,
        };
        scratch.clear();
        scratch.extend_from_slice(sealed);
        let opened = match is_read {
            true => open_blob(self.repository.key(), &id, scratch, raw_length, raw),
            false => Err(Damage::Truncated),
        };
        match opened {
            Ok(plain) if raw_length == 0 && compress => self.writer.store(&mut self.writer.encoder()?, kind, id, plain),
            Ok(_) => self.writer.store_sealed(kind, id, sealed, raw_length),
            Err(damage) => {
                let what = format!("{} blob {id} in pack {pack}", kind.noun());
                self.monitor.error(what, &damage);
                let plain = self.repository.load_blob_by(self.index, kind, &id)?;
                self.writer.store(&mut self.writer.encoder()?, kind, id, &plain)
            }
        }
    }
}

/// Parts of a sorted list of blobs that are read at once.
fn runs(blobs: &[PackedBlob]) -> impl Iterator<Item = &[PackedBlob]> {
    let mut rest = blobs;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut count = 1;
        let mut end = u64::from(first.offset) + u64::from(first.length);
        while let Some(next) = rest.get(count) {
            let next_end = u64::from(next.offset) + u64::from(next.length);
            if u64::from(next.offset) > end + GAP_BYTES || next_end - u64::from(first.offset) > READ_BYTES {
                break;
            }
            end = end.max(next_end);
            count += 1;
        }
        let (run, behind) = rest.split_at(count);
        rest = behind;
        Some(run)
    })
}
