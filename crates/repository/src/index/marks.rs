//! Sets of blobs of an index, as bitmaps beside its entries: what is needed, what was seen.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{IN_FLIGHT, Index, SHARDS, duplicate, shard_of};
use crate::Id;
use crate::format::BlobKind;
use crate::format::pack::PackedBlob;

/// A stored blob, and its pack's place in [`Index::packs`].
pub(crate) type PlacedBlob = (u32, PackedBlob);

/// A set of blobs of one index, at one bit each.
#[derive(Default)]
pub(crate) struct Marks {
    data: [Mutex<Vec<u64>>; SHARDS],
    trees: [Mutex<Vec<u64>>; SHARDS],
}

impl Marks {
    /// Marks a blob; says whether it was unmarked, and nothing when the index does not have it.
    pub(crate) fn set(&self, index: &Index, kind: BlobKind, id: &Id) -> Option<bool> {
        let number = index.shard(kind, id).number(id)?;
        let (word, bit) = place(number);
        let mut words = self.words(kind, id);
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let was = words[word];
        words[word] |= bit;
        Some(was & bit == 0)
    }

    /// Takes a blob's mark away; says whether it was marked.
    pub(crate) fn clear(&self, index: &Index, kind: BlobKind, id: &Id) -> bool {
        let Some(number) = index.shard(kind, id).number(id) else { return false };
        let (word, bit) = place(number);
        let mut words = self.words(kind, id);
        let Some(word) = words.get_mut(word) else { return false };
        let was = *word;
        *word &= !bit;
        was & bit != 0
    }

    /// Whether a blob is marked.
    pub(crate) fn has(&self, index: &Index, kind: BlobKind, id: &Id) -> bool {
        let number = index.shard(kind, id).number(id);
        number.is_some_and(|number| self.has_number(kind, shard_of(id), number))
    }

    fn has_number(&self, kind: BlobKind, shard: usize, number: u32) -> bool {
        let (word, bit) = place(number);
        let words = self.shards(kind)[shard].lock().unwrap_or_else(PoisonError::into_inner);
        words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Calls `visit` with every stored blob, copies too, with its pack's place in [`Index::packs`] and whether the
    /// blob is marked.
    pub(crate) fn for_each(&self, index: &Index, visit: &mut dyn FnMut(u32, PackedBlob, bool)) {
        for kind in [BlobKind::Data, BlobKind::Tree] {
            for (n, shard) in index.shards(kind).iter().enumerate() {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                for (number, entry) in shard.blocks.iter().flatten().enumerate() {
                    if entry.pack != IN_FLIGHT {
                        visit(entry.pack, entry.packed(kind), self.has_number(kind, n, number as u32));
                    }
                }
                for entry in shard.duplicates.iter().map(duplicate) {
                    let marked = shard.number(&entry.id).is_some_and(|number| self.has_number(kind, n, number));
                    visit(entry.pack, entry.packed(kind), marked);
                }
            }
        }
    }

    /// Calls `visit` once for every blob that is stored more than once, with all its copies and their packs' places in
    /// [`Index::packs`], and whether the blob is marked.
    pub(crate) fn for_each_duplicated(&self, index: &Index, visit: &mut dyn FnMut(&[PlacedBlob], bool)) {
        for kind in [BlobKind::Data, BlobKind::Tree] {
            for (n, shard) in index.shards(kind).iter().enumerate() {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                let mut last = None;
                for (id, _, _) in shard.duplicates.keys() {
                    if last.replace(*id) != Some(*id) {
                        let copies: Vec<_> = shard.copies(id).map(|entry| (entry.pack, entry.packed(kind))).collect();
                        let marked = shard.number(id).is_some_and(|number| self.has_number(kind, n, number));
                        visit(&copies, marked);
                    }
                }
            }
        }
    }

    /// Calls `visit` once for every stored blob, with whether it is marked here and in `other`, a set of the same index.
    pub(crate) fn for_each_pair(&self, other: &Self, index: &Index, visit: &mut dyn FnMut(PackedBlob, bool, bool)) {
        for kind in [BlobKind::Data, BlobKind::Tree] {
            for (n, shard) in index.shards(kind).iter().enumerate() {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                for (number, entry) in shard.blocks.iter().flatten().enumerate() {
                    let marked = [self, other].map(|marks| marks.has_number(kind, n, number as u32));
                    visit(entry.packed(kind), marked[0], marked[1]);
                }
            }
        }
    }

    /// Takes the marks away of all blobs that have a copy in one of the packs that `is_in` tells, by their places in
    /// [`Index::packs`].
    pub(crate) fn clear_packs(&self, index: &Index, is_in: &dyn Fn(u32) -> bool) {
        for kind in [BlobKind::Data, BlobKind::Tree] {
            for (n, shard) in index.shards(kind).iter().enumerate() {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                let mut words = self.shards(kind)[n].lock().unwrap_or_else(PoisonError::into_inner);
                let first =
                    shard.blocks.iter().flatten().enumerate().map(|(number, entry)| (number as u32, entry.pack));
                let further = shard.duplicates.keys().filter_map(|(id, pack, _)| Some((shard.number(id)?, *pack)));
                for (number, _) in first.chain(further).filter(|(_, pack)| *pack != IN_FLIGHT && is_in(*pack)) {
                    let (word, bit) = place(number);
                    if let Some(word) = words.get_mut(word) {
                        *word &= !bit;
                    }
                }
            }
        }
    }

    /// How many blobs are marked.
    pub(crate) fn count(&self) -> u64 {
        let count = |words: &Mutex<Vec<u64>>| {
            let words = words.lock().unwrap_or_else(PoisonError::into_inner);
            words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>()
        };
        self.data.iter().chain(&self.trees).map(count).sum()
    }

    fn shards(&self, kind: BlobKind) -> &[Mutex<Vec<u64>>; SHARDS] {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    fn words(&self, kind: BlobKind, id: &Id) -> MutexGuard<'_, Vec<u64>> {
        self.shards(kind)[shard_of(id)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(number: u32) -> (usize, u64) {
    (number as usize / 64, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::index::IndexedPack;

    fn id(n: u64) -> Id {
        Id::of(&n.to_le_bytes())
    }

    fn blob(n: u64) -> PackedBlob {
        PackedBlob { id: id(n), kind: BlobKind::Data, offset: n as u32, length: 100, raw_length: 0 }
    }

    #[test]
    fn marks() {
        let index = Index::default();
        index.add_pack(&IndexedPack { id: id(1 << 40), blobs: (0..3000).map(blob).collect() });
        index.add_pack(&IndexedPack { id: id(1 << 41), blobs: vec![blob(7)] });
        let marks = Marks::default();
        assert_eq!(marks.set(&index, BlobKind::Data, &id(3000)), None);
        assert_eq!(marks.set(&index, BlobKind::Tree, &id(7)), None);
        assert_eq!(marks.set(&index, BlobKind::Data, &id(7)), Some(true));
        assert_eq!(marks.set(&index, BlobKind::Data, &id(7)), Some(false));
        assert_eq!(marks.set(&index, BlobKind::Data, &id(2999)), Some(true));
        let (mut marked, mut all) = (0, 0);
        marks.for_each(&index, &mut |_, _, is_marked| {
            all += 1;
            marked += u32::from(is_marked);
        });
        assert_eq!((all, marked, marks.count()), (3001, 3, 2));
        assert!(marks.has(&index, BlobKind::Data, &id(7)) && marks.clear(&index, BlobKind::Data, &id(7)));
        assert!(!marks.has(&index, BlobKind::Data, &id(7)) && !marks.clear(&index, BlobKind::Data, &id(7)));
    }

    #[test]
    fn copies_are_marked_together() {
        let index = Index::default();
        index.add_pack(&IndexedPack { id: id(8), blobs: vec![blob(1)] });
        index.add_pack(&IndexedPack { id: id(9), blobs: vec![blob(1)] });
        let marks = Marks::default();
        marks.set(&index, BlobKind::Data, &id(1));
        let mut seen = vec![];
        marks.for_each_duplicated(&index, &mut |copies, marked| seen.push((copies[0].1.id, copies.len(), marked)));
        assert_eq!(seen, [(id(1), 2, true)]);
        marks.clear_packs(&index, &|pack| pack == 1);
        assert_eq!(marks.count(), 0);
    }
}
