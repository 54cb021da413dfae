//! The index in memory: where every blob of the repository is.
//!
//! The one structure that grows with the repository, by about 56 bytes a blob: entries lie in blocks that
//! never move (no copy of everything when it grows), found through open-addressing tables of 4-byte slots.
//! Sharded by hash, so that many threads look up and add at once.

mod marks;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

pub(crate) use self::marks::{Marks, PlacedBlob};
use crate::Id;
use crate::format::BlobKind;
use crate::format::index::IndexedPack;
use crate::format::pack::PackedBlob;

const SHARDS: usize = 16;
/// Entries a block: small enough that a small repository costs little.
const BLOCK: usize = 1024;
const EMPTY: u32 = u32::MAX;
/// The pack number of a blob that is being stored: its place is not known yet.
const IN_FLIGHT: u32 = u32::MAX;

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: Id,
    /// The first byte in it.
    pub offset: u32,
    /// How many bytes, sealed.
    pub length: u32,
    /// The plaintext's length if the blob is compressed, else 0.
    pub raw_length: u32,
}

impl Location {
    /// The plaintext's length in bytes.
    pub fn plain_length(&self) -> u32 {
        if self.raw_length > 0 { self.raw_length } else { self.length.saturating_sub(crate::crypto::OVERHEAD as u32) }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    id: Id,
    pack: u32,
    offset: u32,
    length: u32,
    raw_length: u32,
}

impl Entry {
    fn packed(&self, kind: BlobKind) -> PackedBlob {
        let &Self { id, offset, length, raw_length, .. } = self;
        PackedBlob { id, kind, offset, length, raw_length }
    }
}

#[derive(Default)]
struct Shard {
    blocks: Vec<Vec<Entry>>,
    slots: Vec<u32>,
    len: usize,
    /// Further copies of blobs that the slots already find, by blob, pack and offset.
    duplicates: BTreeMap<(Id, u32, u32), Lengths>,
}

#[derive(Clone, Copy)]
struct Lengths {
    length: u32,
    raw_length: u32,
}

fn duplicate((&(id, pack, offset), &Lengths { length, raw_length }): (&(Id, u32, u32), &Lengths)) -> Entry {
    Entry { id, pack, offset, length, raw_length }
}

impl Shard {
    fn entry(&self, n: u32) -> Option<&Entry> {
        self.blocks.get(n as usize / BLOCK)?.get(n as usize % BLOCK)
    }

    /// The slot that holds `id`, or the empty one where it would go.
    fn slot(&self, id: &Id) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(id) as usize & mask;
        loop {
            match self.entry(self.slots[slot]) {
                Some(entry) if entry.id != *id => slot = (slot + 1) & mask,
                _ => return slot,
            }
        }
    }

    fn find(&self, id: &Id) -> Option<&Entry> {
        self.entry(self.number(id)?)
    }

    /// The number of the entry that [`Self::find`] gives.
    fn number(&self, id: &Id) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        Some(self.slots[self.slot(id)]).filter(|&number| number != EMPTY)
    }

    /// Every copy of a blob, the one that [`Self::find`] gives first.
    fn copies(&self, id: &Id) -> impl Iterator<Item = Entry> {
        let further = self.duplicates.range((*id, 0, 0)..=(*id, u32::MAX, u32::MAX)).map(duplicate);
        self.find(id).copied().into_iter().chain(further)
    }

    fn find_mut(&mut self, id: &Id) -> Option<&mut Entry> {
        let n = *self.slots.get(if self.slots.is_empty() { return None } else { self.slot(id) })?;
        self.blocks.get_mut(n as usize / BLOCK)?.get_mut(n as usize % BLOCK)
    }

    /// Adds an entry unless there is one of that id; says whether it did.
    fn insert(&mut self, entry: Entry) -> bool {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let slot = self.slot(&entry.id);
        if self.slots[slot] != EMPTY {
            return false;
        }
        self.slots[slot] = self.len as u32;
        if self.len.is_multiple_of(BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.push(entry);
        }
        self.len += 1;
        true
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(64);
        self.slots = vec![EMPTY; slots];
        let mask = slots - 1;
        for (n, entry) in self.blocks.iter().flatten().enumerate() {
            let mut slot = hash(&entry.id) as usize & mask;
            while self.slots[slot] != EMPTY {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = n as u32;
        }
    }
}

/// Ids are hashes: some of their bytes are as good as any hash of them. Not the first, which pick the shard.
fn hash(id: &Id) -> u64 {
    u64::from_le_bytes([id.0[8], id.0[9], id.0[10], id.0[11], id.0[12], id.0[13], id.0[14], id.0[15]])
}

/// Where every blob of a repository is.
#[derive(Default)]
pub struct Index {
    data: [Mutex<Shard>; SHARDS],
    trees: [Mutex<Shard>; SHARDS],
    packs: RwLock<Packs>,
}

#[derive(Default)]
struct Packs {
    ids: Vec<Id>,
    numbers: HashMap<Id, u32>,
}

fn shard_of(id: &Id) -> usize {
    usize::from(id.0[0]) % SHARDS
}

impl Index {
    fn shards(&self, kind: BlobKind) -> &[Mutex<Shard>; SHARDS] {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    fn shard(&self, kind: BlobKind, id: &Id) -> MutexGuard<'_, Shard> {
        self.shards(kind)[shard_of(id)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stored pack, as an index file or a finished upload tells of it.
    pub fn add_pack(&self, pack: &IndexedPack) {
        let number = self.add_pack_id(pack.id);
        for blob in &pack.blobs {
            let entry = Entry {
                id: blob.id,
                pack: number,
                offset: blob.offset,
                length: blob.length,
                raw_length: blob.raw_length,
            };
            let mut shard = self.shard(blob.kind, &blob.id);
            if !shard.insert(entry) {
                match shard.find_mut(&blob.id) {
                    Some(found) if found.pack == IN_FLIGHT => *found = entry,
                    // Several indexes may name one pack.
                    Some(found) if (found.pack, found.offset) == (number, blob.offset) => {}
                    _ => {
                        let lengths = Lengths { length: blob.length, raw_length: blob.raw_length };
                        shard.duplicates.insert((blob.id, number, blob.offset), lengths);
                    }
                }
            }
        }
    }

    fn add_pack_id(&self, id: Id) -> u32 {
        let mut packs = self.packs.write().unwrap_or_else(PoisonError::into_inner);
        let Packs { ids, numbers } = &mut *packs;
        *numbers.entry(id).or_insert_with(|| {
            ids.push(id);
            (ids.len() - 1) as u32
        })
    }

    /// Claims a blob that is about to be stored; false if it is stored, or being stored, already.
    pub(crate) fn claim(&self, kind: BlobKind, id: &Id) -> bool {
        self.shard(kind, id).insert(Entry { id: *id, pack: IN_FLIGHT, offset: 0, length: 0, raw_length: 0 })
    }

    /// Whether the blob is stored, or being stored.
    pub fn contains(&self, kind: BlobKind, id: &Id) -> bool {
        self.shard(kind, id).find(id).is_some()
    }

    /// Where the blob is stored, if it is.
    pub fn find(&self, kind: BlobKind, id: &Id) -> Option<Location> {
        let entry = *self.shard(kind, id).find(id)?;
        self.location(&entry)
    }

    /// Every place the blob is stored in, the one that [`Index::find`] gives first.
    pub fn find_all(&self, kind: BlobKind, id: &Id) -> Vec<Location> {
        let entries: Vec<Entry> = self.shard(kind, id).copies(id).collect();
        entries.iter().filter_map(|entry| self.location(entry)).collect()
    }

    fn location(&self, entry: &Entry) -> Option<Location> {
        if entry.pack == IN_FLIGHT {
            return None;
        }
        let pack = *self.packs.read().unwrap_or_else(PoisonError::into_inner).ids.get(entry.pack as usize)?;
        Some(Location { pack, offset: entry.offset, length: entry.length, raw_length: entry.raw_length })
    }

    /// The packs that indexes name, each once.
    pub fn packs(&self) -> Vec<Id> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).ids.clone()
    }

    /// Calls `visit` with every stored blob, copies too, with its pack's place in [`Index::packs`].
    pub fn for_each(&self, visit: &mut dyn FnMut(u32, PackedBlob)) {
        for kind in [BlobKind::Data, BlobKind::Tree] {
            for shard in self.shards(kind) {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                let copies = shard.duplicates.iter().map(duplicate);
                for entry in
                    shard.blocks.iter().flatten().copied().chain(copies).filter(|entry| entry.pack != IN_FLIGHT)
                {
                    visit(entry.pack, entry.packed(kind));
                }
            }
        }
    }

    /// How many different blobs of a kind there are.
    pub fn len(&self, kind: BlobKind) -> usize {
        self.shards(kind).iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len).sum()
    }

    /// Whether there are no blobs at all.
    pub fn is_empty(&self) -> bool {
        self.len(BlobKind::Data) + self.len(BlobKind::Tree) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> Id {
        Id::of(&n.to_le_bytes())
    }

    fn blob(n: u64) -> PackedBlob {
        PackedBlob { id: id(n), kind: BlobKind::Data, offset: n as u32, length: 100, raw_length: 0 }
    }

    #[test]
    fn finds_what_was_added_and_nothing_else() {
        let index = Index::default();
        for pack in 0..50 {
            let blobs = (0..1000).map(|n| blob(pack * 1000 + n)).collect();
            index.add_pack(&IndexedPack { id: id(1 << 40 | pack), blobs });
        }
        assert_eq!(index.len(BlobKind::Data), 50_000);
        for n in 0..50_000 {
            let location = index.find(BlobKind::Data, &id(n)).unwrap();
            assert_eq!((location.offset, location.pack), (n as u32, id(1 << 40 | (n / 1000))));
        }
        assert_eq!(index.find(BlobKind::Data, &id(50_000)), None);
        assert_eq!(index.find(BlobKind::Tree, &id(1)), None);
        let mut seen = 0;
        index.for_each(&mut |_, _| seen += 1);
        assert_eq!(seen, 50_000);
    }

    #[test]
    fn a_claimed_blob_is_known_and_has_no_place_until_its_pack_is_stored() {
        let index = Index::default();
        assert!(index.claim(BlobKind::Data, &id(1)));
        assert!(!index.claim(BlobKind::Data, &id(1)));
        assert!(index.contains(BlobKind::Data, &id(1)));
        assert_eq!(index.find(BlobKind::Data, &id(1)), None);
        index.add_pack(&IndexedPack { id: id(9), blobs: vec![blob(1)] });
        assert_eq!(index.find(BlobKind::Data, &id(1)).unwrap().pack, id(9));
    }

    #[test]
    fn copies_of_a_blob_are_kept() {
        let index = Index::default();
        index.add_pack(&IndexedPack { id: id(8), blobs: vec![blob(1)] });
        index.add_pack(&IndexedPack { id: id(9), blobs: vec![blob(1)] });
        let packs: Vec<Id> = index.find_all(BlobKind::Data, &id(1)).iter().map(|location| location.pack).collect();
        assert_eq!(packs, [id(8), id(9)]);
        assert_eq!(index.len(BlobKind::Data), 1);
    }

    #[test]
    fn a_pack_that_two_indexes_name_is_one_pack() {
        let index = Index::default();
        for _ in 0..2 {
            index.add_pack(&IndexedPack { id: id(7), blobs: vec![blob(0)] });
            index.add_pack(&IndexedPack { id: id(8), blobs: vec![blob(0), blob(1)] });
        }
        assert_eq!(index.packs(), [id(7), id(8)]);
        assert_eq!(index.find_all(BlobKind::Data, &id(1)).len(), 1);
        assert_eq!(index.find_all(BlobKind::Data, &id(0)).len(), 2);
    }
}
