//! Which packs stay, which are emptied into new ones, and which go.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{MaxUnused, PruneOptions, PruneReport};
use crate::crypto::OVERHEAD;
use crate::error::Damage;
use crate::format::pack::{ENTRY_BYTES_MAX, PackedBlob, TRAILER_BYTES};
use crate::format::{BlobKind, FileKind};
use crate::index::{Marks, PlacedBlob};
use crate::{Error, Id, Index, Repository, Result};

/// Fewer small packs than this are left alone: one that cannot be filled must not be rewritten for ever.
const SMALL_PACKS_MIN: usize = 10;

/// What a prune is going to do.
#[derive(Debug)]
pub struct PrunePlan {
    /// The figures.
    pub report: PruneReport,
    /// Packs that no index names.
    pub(super) unindexed: Vec<Id>,
    /// Packs whose needed blobs are to be copied, and which then go.
    pub(super) repack: Vec<Id>,
    /// Packs without needed blobs.
    pub(super) remove: Vec<Id>,
    /// Packs without needed blobs that are in the indexes only.
    pub(super) missing: Vec<Id>,
}

/// Which blobs a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Nothing,
    Only(BlobKind),
    Mixed,
}

/// What the index knows of a pack.
#[derive(Debug, Clone)]
struct PackUse {
    content: Content,
    has_uncompressed: bool,
    /// The size of blobs and header.
    size_bytes: u64,
    used: Tally,
    /// Copies of needed blobs; once one of them was chosen, that one is used and the others are unused.
    duplicate: Tally,
    unused: Tally,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    blobs: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, blob: &PackedBlob) {
        self.blobs += 1;
        self.bytes += u64::from(blob.length);
    }

    fn take(&mut self, blob: &PackedBlob) {
        self.blobs -= 1;
        self.bytes -= u64::from(blob.length);
    }
}

impl PackUse {
    const EMPTY: Self = Self {
        content: Content::Nothing,
        has_uncompressed: false,
        size_bytes: (OVERHEAD + TRAILER_BYTES) as u64,
        used: Tally { blobs: 0, bytes: 0 },
        duplicate: Tally { blobs: 0, bytes: 0 },
        unused: Tally { blobs: 0, bytes: 0 },
    };

    fn add(&mut self, blob: &PackedBlob, is_used: bool) {
        self.content = match self.content {
            Content::Nothing => Content::Only(blob.kind),
            Content::Only(kind) if kind == blob.kind => self.content,
            _ => Content::Mixed,
        };
        self.has_uncompressed |= blob.raw_length == 0;
        self.size_bytes += u64::from(blob.length) + header_entry_bytes(blob);
        if is_used { self.used.add(blob) } else { self.unused.add(blob) }
    }

    fn blob_bytes(&self) -> u64 {
        self.used.bytes + self.unused.bytes
    }
}

/// The bytes that a blob takes in a pack's header.
pub(crate) fn header_entry_bytes(blob: &PackedBlob) -> u64 {
    // The raw length stands there only for compressed blobs.
    (ENTRY_BYTES_MAX - if blob.raw_length == 0 { 4 } else { 0 }) as u64
}

impl PrunePlan {
    /// Decides on every pack. Fails when a needed pack is missing or has not the size that the index tells.
    pub(super) fn new(repository: &Repository, index: &Index, used: &Marks, options: &PruneOptions) -> Result<Self> {
        check_options(repository, options)?;
        let ids = index.packs();
        let packs = survey(index, used, ids.len());
        let stored = repository.list_sizes(FileKind::Pack)?;
        let mut report = PruneReport::default();
        for pack in &packs {
            for (blobs, bytes, tally) in [
                (&mut report.used_blobs, &mut report.used_bytes, pack.used),
                (&mut report.unused_blobs, &mut report.unused_bytes, pack.unused),
                (&mut report.duplicate_blobs, &mut report.duplicate_bytes, pack.duplicate),
            ] {
                *blobs += tally.blobs;
                *bytes += tally.bytes;
            }
        }
        let plan = Self { report, unindexed: vec![], repack: vec![], remove: vec![], missing: vec![] };
        plan.sort_packs(repository, &ids, merge_duplicates(packs), &stored, options)
    }

    /// Whether there is nothing to do.
    pub(super) fn is_nothing(&self) -> bool {
        self.unindexed.is_empty() && self.repack.is_empty() && self.remove.is_empty() && self.missing.is_empty()
    }

    fn sort_packs(
        mut self,
        repository: &Repository,
        ids: &[Id],
        packs: Vec<PackUse>,
        stored: &[(Id, u64)],
        options: &PruneOptions,
    ) -> Result<Self> {
        let numbers: HashMap<&Id, usize> = ids.iter().enumerate().map(|(number, id)| (id, number)).collect();
        let mut is_stored = vec![false; packs.len()];
        let (mut candidates, mut small) = (Vec::new(), Vec::new());
        for (id, size_bytes) in stored {
            let Some(&number) = numbers.get(id) else {
                self.unindexed.push(*id);
                self.report.unindexed_packs += 1;
                self.report.unindexed_bytes += size_bytes;
                continue;
            };
            let pack = &packs[number];
            is_stored[number] = true;
            if pack.used.blobs == 0 {
                self.remove.push(*id);
                self.report.removed_packs += 1;
                self.report.removed_bytes += pack.unused.bytes;
                continue;
            }
            if *size_bytes != pack.size_bytes {
                return Err(Error::damaged(
                    format!("pack {id}"),
                    Damage::Content(format!(
                        "it has {size_bytes} bytes where the index tells of {}; nothing was removed",
                        pack.size_bytes
                    )),
                ));
            }
            if pack.has_uncompressed && repository.compresses() {
                self.report.uncompressed_bytes += pack.blob_bytes();
            }
            match class(repository, pack, options) {
                Class::Keep => self.report.kept_packs += 1,
                Class::Small => small.push(number),
                Class::Candidate => candidates.push(number),
            }
        }
        for (number, pack) in packs.iter().enumerate().filter(|(number, _)| !is_stored[*number]) {
            if pack.used.blobs > 0 {
                let what = format!("pack {}", ids[number]);
                let missing = "snapshots need it, an index names it, and it is not there; nothing was removed";
                return Err(Error::damaged(what, Damage::Content(missing.into())));
            }
            self.missing.push(ids[number]);
            self.report.removed_bytes += pack.unused.bytes;
        }
        if small.len() < SMALL_PACKS_MIN {
            self.report.kept_packs += small.len() as u64;
        } else {
            candidates.append(&mut small);
        }
        self.choose_repacks(repository, ids, &packs, candidates, options);
        Ok(self)
    }

    /// Takes the packs that give most for the least copying, as long as the limits allow.
    fn choose_repacks(
        &mut self,
        repository: &Repository,
        ids: &[Id],
        packs: &[PackUse],
        mut candidates: Vec<usize>,
        options: &PruneOptions,
    ) {
        let is_small = |pack: &PackUse| pack.size_bytes < options.small_pack_bytes;
        candidates.sort_by_cached_key(|&number| {
            let pack = &packs[number];
            let is_data = pack.content == Content::Only(BlobKind::Data);
            // Parts per million are exact enough to order by; the id makes the order the same every time.
            let unused_ppm = pack.unused.bytes * 1_000_000 / pack.blob_bytes().max(1);
            (is_data, !is_small(pack), Reverse(unused_ppm), ids[number])
        });
        let max_unused = options.max_unused.bytes(self.report.used_bytes);
        let max_repack = options.max_repack_bytes.unwrap_or(u64::MAX);
        for number in candidates {
            let pack = &packs[number];
            let is_data = pack.content == Content::Only(BlobKind::Data);
            let has_enough = self.report.remaining_unused_bytes() <= max_unused;
            let bytes = self.report.repacked_bytes + pack.blob_bytes();
            let must = !is_data || must_compress(repository, pack, options) || is_small(pack);
            if bytes > max_repack || (!must && has_enough) {
                self.report.kept_packs += 1;
                continue;
            }
            self.repack.push(ids[number]);
            self.report.repacked_packs += 1;
            self.report.repacked_bytes = bytes;
            self.report.dropped_bytes += pack.unused.bytes;
            if pack.has_uncompressed && repository.compresses() {
                self.report.uncompressed_bytes -= pack.blob_bytes();
            }
        }
    }
}

fn check_options(repository: &Repository, options: &PruneOptions) -> Result<()> {
    if options.repack_uncompressed && !repository.compresses() {
        return Err(Error::Selection("a repository of format version 1 cannot hold compressed data".into()));
    }
    if options.small_pack_bytes > repository.options().pack_bytes as u64 {
        return Err(Error::Selection(format!(
            "packs below {} bytes cannot be put together in packs of {} bytes",
            options.small_pack_bytes,
            repository.options().pack_bytes
        )));
    }
    if let MaxUnused::Percent(percent) = options.max_unused
        && !(0.0..100.0).contains(&percent)
    {
        return Err(Error::Selection(format!("{percent} % of unused data: expected at least 0 and less than 100")));
    }
    Ok(())
}

fn must_compress(repository: &Repository, pack: &PackUse, options: &PruneOptions) -> bool {
    let wanted = options.repack_uncompressed || pack.content == Content::Only(BlobKind::Tree);
    repository.compresses() && pack.has_uncompressed && wanted
}

enum Class {
    Keep,
    Small,
    Candidate,
}

fn class(repository: &Repository, pack: &PackUse, options: &PruneOptions) -> Class {
    let is_data = pack.content == Content::Only(BlobKind::Data);
    if options.repack_cacheable_only && is_data {
        return Class::Keep;
    }
    if pack.unused.blobs > 0 || pack.content == Content::Mixed || must_compress(repository, pack, options) {
        return Class::Candidate;
    }
    if pack.size_bytes < options.small_pack_bytes { Class::Small } else { Class::Keep }
}

/// What every pack holds. Of blobs with several copies one counts as used, the others as duplicate.
fn survey(index: &Index, used: &Marks, count: usize) -> Vec<PackUse> {
    let mut packs = vec![PackUse::EMPTY; count];
    used.for_each(index, &mut |number, blob, is_used| packs[number as usize].add(&blob, is_used));
    let for_each_used = |visit: &mut dyn FnMut(&[PlacedBlob])| {
        used.for_each_duplicated(index, &mut |copies, is_used| {
            if is_used {
                visit(copies);
            }
        });
    };
    for_each_used(&mut |copies| {
        for (number, blob) in copies {
            let pack = &mut packs[*number as usize];
            pack.used.take(blob);
            pack.duplicate.add(blob);
        }
    });
    for_each_used(&mut |copies| {
        let pack = |place: &usize| &packs[copies[*place].0 as usize];
        // Best in a pack that is needed anyway. Else in one that holds nothing but copies of needed blobs: an
        // interrupted prune made it.
        let needed = (0..copies.len()).find(|place| pack(place).used.blobs > 0);
        let fresh = || (0..copies.len()).find(|place| pack(place).unused.blobs == 0);
        let (number, blob) = &copies[needed.or_else(fresh).unwrap_or(0)];
        let pack = &mut packs[*number as usize];
        pack.duplicate.take(blob);
        pack.used.add(blob);
    });
    packs
}

/// From here on a copy that was not chosen is as good as unused.
fn merge_duplicates(mut packs: Vec<PackUse>) -> Vec<PackUse> {
    for PackUse { duplicate, unused, .. } in &mut packs {
        unused.blobs += duplicate.blobs;
        unused.bytes += duplicate.bytes;
        *duplicate = Tally::default();
    }
    packs
}
