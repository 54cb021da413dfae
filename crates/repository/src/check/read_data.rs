//! Reads whole packs: their hash, their header against the index, and every blob in them.

use std::collections::HashMap;
use std::sync::PoisonError;

use super::{Check, Problem};
use crate::chain;
use crate::error::Damage;
use crate::format::FileKind;
use crate::format::pack::{PackedBlob, TRAILER_BYTES, decode_header, header_range};
use crate::monitor::Counters;
use crate::repository::{in_parallel, open_blob};
use crate::{Id, Location, Result};

/// Packs under way take no more than this, unless there is one that is larger.
const MEMORY_BYTES: u64 = 64 << 20;

impl Check<'_> {
    /// Reads packs of the given sizes; `counts` tells how many blobs the index has of each.
    pub(super) fn read_packs(&self, packs: &[(Id, u64)], counts: &HashMap<Id, u32>) -> Result<()> {
        let counters = self.monitor.counters();
        Counters::add(&counters.steps_total, packs.len() as u64);
        let largest = packs.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let readers = ((MEMORY_BYTES / largest) as usize).clamp(1, cores);
        in_parallel(packs, readers, |(id, size_bytes)| {
            self.monitor.check()?;
            self.check_lock()?;
            let blobs = counts.get(id).copied().unwrap_or_default();
            let mut pack = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            pack.resize(*size_bytes as usize, 0);
            self.read_pack(id, &mut pack, blobs);
            self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(pack);
            self.state().report.packs_read += 1;
            Counters::add(&counters.steps, 1);
            Counters::add(&counters.stored_bytes, *size_bytes);
            Ok(())
        })
    }

    /// `pack` is as long as the pack is.
    fn read_pack(&self, id: &Id, pack: &mut [u8], blobs_in_index: u32) {
        let damaged = |reason: String| self.found(Problem::Pack { id: *id, reason });
        if let Err(error) = self.repository.store().get_range(&FileKind::Pack.path(id), 0, pack) {
            self.state().bad_packs.insert(*id);
            return damaged(chain(&error));
        }
        let actual = Id::of(pack);
        if actual != *id {
            damaged(format!("its hash is {actual}"));
        }
        let blobs = match self.header(pack) {
            Ok(blobs) => {
                self.compare_with_index(id, &blobs, blobs_in_index);
                blobs
            }
            Err(reason) => {
                damaged(reason);
                self.blobs_by_index(id)
            }
        };
        let mut raw = Vec::new();
        for blob in &blobs {
            self.check_blob(id, blob, pack, &mut raw);
        }
    }

    fn header(&self, pack: &mut [u8]) -> std::result::Result<Vec<PackedBlob>, String> {
        let size_bytes = pack.len() as u64;
        let (rest, trailer) = pack.split_last_chunk_mut::<TRAILER_BYTES>().ok_or("it is too short for a header")?;
        let (start, _) = header_range(size_bytes, *trailer).map_err(|error| error.to_string())?;
        let sealed = rest.get_mut(start as usize..).ok_or("it is too short for its header")?;
        let header = self.repository.key().open_in_place(sealed).map_err(|_| "its header does not authenticate")?;
        decode_header(header, start).map_err(|error| error.to_string())
    }

    fn compare_with_index(&self, id: &Id, blobs: &[PackedBlob], blobs_in_index: u32) {
        let is_indexed = |blob: &&PackedBlob| {
            let PackedBlob { id: blob_id, kind, offset, length, raw_length } = **blob;
            let place = Location { pack: *id, offset, length, raw_length };
            self.index.find_all(kind, &blob_id).contains(&place)
        };
        let indexed = blobs.iter().filter(is_indexed).count();
        if indexed != blobs.len() || indexed != blobs_in_index as usize {
            let reason = format!(
                "its header lists {} blobs, the index {blobs_in_index}, and {indexed} of them stand in both",
                blobs.len()
            );
            self.found(Problem::Pack { id: *id, reason });
        }
    }

    /// What the index says is in a pack. Looks at all of it: for damaged packs only.
    fn blobs_by_index(&self, id: &Id) -> Vec<PackedBlob> {
        let Some(number) = self.index.packs().iter().position(|pack| pack == id) else { return Vec::new() };
        let mut blobs = Vec::new();
        self.index.for_each(&mut |pack, blob| {
            if pack as usize == number {
                blobs.push(blob);
            }
        });
        blobs
    }

    fn check_blob(&self, pack_id: &Id, blob: &PackedBlob, pack: &mut [u8], raw: &mut Vec<u8>) {
        let PackedBlob { id, kind, offset, length, raw_length } = *blob;
        let sealed = pack.get_mut(offset as usize..).and_then(|rest| rest.get_mut(..length as usize));
        let opened = match sealed {
            Some(sealed) => open_blob(self.repository.key(), &id, sealed, raw_length, raw).map(|_| ()),
            None => Err(Damage::Truncated),
        };
        let Err(damage) = opened else { return };
        let has_copy = self.index.find_all(kind, &id).iter().any(|copy| copy.pack != *pack_id)
            && self.repository.load_blob_by(&self.index, kind, &id).is_ok();
        if !has_copy {
            self.state().bad_blobs.insert((kind, id));
        }
        self.found(Problem::Blob { kind, id, pack: *pack_id, reason: chain(&damage), has_copy });
    }
}
