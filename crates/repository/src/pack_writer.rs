//! Stores new blobs: compresses, seals and verifies each, fills packs with them, uploads the packs, and writes the index.
//!
//! Any number of threads seal blobs, each with an [`Encoder`] of its own; one open pack for data and one for
//! trees take them in. Full packs go to the uploading threads, and there are permits for so many packs at a time: that
//! is all the memory there may be for packs, and who finds no permit waits. A pack is named in an index only after it was
//! stored, and indexes are written as the work goes on, so that a run that dies leaves most of its work for the next.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_store::ErrorKind;

use crate::crypto::{Key, OVERHEAD};
use crate::error::Damage;
use crate::format::index::{Encoder as IndexEncoder, IndexedPack};
use crate::format::pack::{ENTRY_BYTES_MAX, PackedBlob, TRAILER_BYTES, encode_header};
use crate::format::{BlobKind, FileKind};
use crate::repository::join;
use crate::{Error, Id, Index, Repository, Result};

/// Packs start at a multiple of this in memory, so that the store can write them without copying.
const ALIGNMENT: usize = 4096;
/// A pack is closed at this many blobs, however small they are: until it is stored, 48 bytes of memory hold where
/// each is. Only blobs below half a KiB on average make packs smaller by this.
const PACK_BLOBS_MAX: usize = 32_768;
/// An index file is closed at this many blobs: some 10 MB of JSON.
const INDEX_BLOBS_MAX: usize = 50_000;
/// An index is written at least this often while packs are being stored.
const INDEX_EVERY: Duration = Duration::from_secs(5 * 60);
/// The first index is written after so many packs, each further one after twice as many as the one before…
const INDEX_FIRST_PACKS: usize = 4;
/// …up to so many.
const INDEX_PACKS_MAX: usize = 1024;

/// What was added to the repository.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Added {
    pub(crate) data_blobs: u64,
    pub(crate) tree_blobs: u64,
    /// Plaintext bytes.
    pub(crate) bytes: u64,
    /// Bytes in packs, without headers.
    pub(crate) packed_bytes: u64,
}

#[derive(Default)]
struct Adding {
    data_blobs: AtomicU64,
    tree_blobs: AtomicU64,
    bytes: AtomicU64,
    packed_bytes: AtomicU64,
}

/// A buffer that a pack is built in.
struct PackBuffer {
    kind: BlobKind,
    memory: Vec<u8>,
    start: usize,
    blobs: Vec<PackedBlob>,
}

impl PackBuffer {
    fn new(kind: BlobKind, capacity: usize) -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(capacity + ALIGNMENT);
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        memory.resize(start, 0);
        Self { kind, memory, start, blobs: Vec::new() }
    }

    fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    /// Whether it takes in one more blob of `length` bytes, and stays within `pack_bytes` when it is finished.
    fn has_room(&self, length: usize, pack_bytes: usize) -> bool {
        self.blobs.is_empty()
            || (self.blobs.len() < PACK_BLOBS_MAX
                && self.len() + length + header_len(self.blobs.len() + 1) <= pack_bytes)
    }
}

fn header_len(blobs: usize) -> usize {
    blobs * ENTRY_BYTES_MAX + OVERHEAD + TRAILER_BYTES
}

/// Where new blobs go.
pub(crate) struct PackWriter {
    shared: Arc<Shared>,
    uploads: Option<Sender<PackBuffer>>,
    uploaders: Vec<JoinHandle<()>>,
}

struct Shared {
    repository: Arc<Repository>,
    index: Arc<Index>,
    open: [Mutex<Option<PackBuffer>>; 2],
    /// For data and for trees, a permit for each pack that may be in memory.
    permits: [(Sender<()>, Receiver<()>); 2],
    pack_bytes: usize,
    pending: Mutex<PendingIndex>,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
    added: Adding,
    dry_run: bool,
}

struct PendingIndex {
    encoder: IndexEncoder,
    packs: usize,
    packs_max: usize,
    since: Instant,
}

/// Compresses, seals and verifies blobs; one for each thread that adds some.
pub(crate) struct Encoder {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    compress_data: bool,
    sealed: Vec<u8>,
    check: Vec<u8>,
    raw: Vec<u8>,
}

/// Room that an encoder keeps from one blob to the next; more than that is given back.
const KEEP_BYTES: usize = 2 << 20;

impl Encoder {
    fn new(repository: &Repository) -> Result<Self> {
        let compression = repository.options().compression;
        let failed =
            |error: std::io::Error| Error::System { operation: "set up compression", reason: error.to_string() };
        let compressor = if repository.compresses() {
            Some(zstd::bulk::Compressor::new(compression.level()).map_err(failed)?)
        } else {
            None
        };
        let compress_data = compression != crate::repository::Compression::Off;
        Ok(Self { compressor, compress_data, sealed: Vec::new(), check: Vec::new(), raw: Vec::new() })
    }

    /// Leaves the sealed blob in `self.sealed` and returns its raw length, 0 if it is not compressed.
    fn seal(&mut self, key: &Key, kind: BlobKind, id: &Id, plain: &[u8]) -> Result<u32> {
        const NONCE: usize = OVERHEAD / 2;
        for buffer in [&mut self.sealed, &mut self.check, &mut self.raw] {
            buffer.clear();
            buffer.shrink_to(KEEP_BYTES);
        }
        self.sealed.resize(NONCE, 0);
        let mut raw_length = 0;
        if let Some(compressor) = self.compressor.as_mut().filter(|_| self.compress_data || kind == BlobKind::Tree) {
            self.sealed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
            let mut room = Cursor::new(&mut self.sealed);
            room.set_position(NONCE as u64);
            let compressed = compressor
                .compress_to_buffer(plain, &mut room)
                .map_err(|error| Error::System { operation: "compress", reason: error.to_string() })?;
            // A compressed blob is marked by a raw length that is not zero: nothing at all cannot be one.
            // A tree is compressed always, as restic does it: prune takes one that is not for a leftover of format 1.
            if (compressed < plain.len() || kind == BlobKind::Tree) && !plain.is_empty() {
                raw_length = u32::try_from(plain.len())
                    .map_err(|_| Error::System { operation: "store a blob", reason: "it has 4 GiB or more".into() })?;
            } else {
                self.sealed.truncate(NONCE);
            }
        }
        if raw_length == 0 {
            self.sealed.extend_from_slice(plain);
        }
        self.sealed.resize(self.sealed.len() + OVERHEAD - NONCE, 0);
        key.seal_in_place(&mut self.sealed);
        // Broken memory and broken code show themselves here, while the plaintext is still at hand.
        self.check.extend_from_slice(&self.sealed);
        let verified = key.open_in_place(&mut self.check).is_ok_and(|opened| {
            if raw_length == 0 {
                return opened == plain;
            }
            self.raw.reserve(plain.len());
            matches!(crate::repository::decompress(opened, plain.len(), &mut self.raw), Ok(()) if self.raw == plain)
        });
        if verified {
            Ok(raw_length)
        } else {
            let reason = "it does not read back as it was: this machine's memory or processor may be broken";
            Err(Error::damaged(format!("new {} blob {id}", kind.noun()), Damage::Content(reason.into())))
        }
    }
}

impl PackWriter {
    /// Starts the uploading threads. With `dry_run` everything is counted and nothing stored.
    pub(crate) fn new(repository: &Arc<Repository>, index: Arc<Index>, dry_run: bool) -> Result<Self> {
        let options = repository.options();
        let count = options.uploads.clamp(1, 64);
        // A pack must take in the largest chunk there is, whatever size was asked for.
        let pack_bytes = options.pack_bytes.clamp(4 << 20, 128 << 20);
        // One pack more than are uploaded, so that the next is filled meanwhile. Trees are few.
        let permits = [count + 1, 1].map(|count| {
            let permits = bounded(count);
            (0..count).for_each(|_| _ = permits.0.send(()));
            permits
        });
        let (uploads, full) = bounded(count);
        let shared = Arc::new(Shared {
            repository: Arc::clone(repository),
            index,
            open: [Mutex::new(None), Mutex::new(None)],
            permits,
            pack_bytes,
            pending: Mutex::new(PendingIndex {
                encoder: IndexEncoder::new(),
                packs: 0,
                packs_max: INDEX_FIRST_PACKS,
                since: Instant::now(),
            }),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            added: Adding::default(),
            dry_run,
        });
        let mut writer = Self { shared, uploads: Some(uploads), uploaders: Vec::new() };
        for _ in 0..count {
            let (shared, full) = (Arc::clone(&writer.shared), full.clone());
            let uploader = std::thread::Builder::new()
                .name("upload".into())
                .spawn(move || shared.upload_all(&full))
                .map_err(|error| Error::System { operation: "start a thread", reason: error.to_string() })?;
            writer.uploaders.push(uploader);
        }
        Ok(writer)
    }

    pub(crate) fn encoder(&self) -> Result<Encoder> {
        Encoder::new(&self.shared.repository)
    }

    /// Stores a blob unless the repository has it; says which id it has, and whether it was new.
    pub(crate) fn save(&self, encoder: &mut Encoder, kind: BlobKind, plain: &[u8]) -> Result<(Id, bool)> {
        let id = Id::of(plain);
        Ok((id, self.save_named(encoder, kind, id, plain)?))
    }

    /// As [`PackWriter::save`], for who knows the blob's id already.
    pub(crate) fn save_named(&self, encoder: &mut Encoder, kind: BlobKind, id: Id, plain: &[u8]) -> Result<bool> {
        let new = self.shared.index.claim(kind, &id);
        if new {
            self.store(encoder, kind, id, plain)?;
        }
        Ok(new)
    }

    /// Stores a blob whether or not the repository has it.
    pub(crate) fn store(&self, encoder: &mut Encoder, kind: BlobKind, id: Id, plain: &[u8]) -> Result<()> {
        let shared = &self.shared;
        let raw_length = encoder.seal(shared.repository.key(), kind, &id, plain)?;
        let Adding { data_blobs, tree_blobs, bytes, packed_bytes } = &shared.added;
        match kind {
            BlobKind::Data => data_blobs.fetch_add(1, Ordering::Relaxed),
            BlobKind::Tree => tree_blobs.fetch_add(1, Ordering::Relaxed),
        };
        bytes.fetch_add(plain.len() as u64, Ordering::Relaxed);
        packed_bytes.fetch_add(encoder.sealed.len() as u64, Ordering::Relaxed);
        self.store_sealed(kind, id, &encoder.sealed, raw_length)
    }

    /// Stores a blob that is sealed with this repository's key already.
    pub(crate) fn store_sealed(&self, kind: BlobKind, id: Id, sealed: &[u8], raw_length: u32) -> Result<()> {
        let shared = &self.shared;
        shared.check()?;
        if shared.dry_run {
            return Ok(());
        }
        let mut open = shared.open_pack(kind);
        if open.as_ref().is_some_and(|pack| !pack.has_room(sealed.len(), shared.pack_bytes))
            && let Some(full) = open.take()
        {
            self.submit(full)?;
        }
        let pack = match &mut *open {
            Some(pack) => pack,
            none => {
                shared.permits(kind).1.recv().map_err(|_| shared.take_failure())?;
                none.insert(PackBuffer::new(kind, shared.pack_bytes))
            }
        };
        let (Ok(offset), Ok(length)) = (u32::try_from(pack.len()), u32::try_from(sealed.len())) else {
            return Err(Error::System { operation: "store a blob", reason: "it has 4 GiB or more".into() });
        };
        pack.memory.extend_from_slice(sealed);
        pack.blobs.push(PackedBlob { id, kind, offset, length, raw_length });
        Ok(())
    }

    fn submit(&self, pack: PackBuffer) -> Result<()> {
        match &self.uploads {
            Some(uploads) => uploads.send(pack).map_err(|_| self.shared.take_failure()),
            None => Err(self.shared.take_failure()),
        }
    }

    /// Uploads what is left and writes the last index; only after this may a snapshot name the blobs.
    pub(crate) fn finish(mut self) -> Result<Added> {
        for open in &self.shared.open {
            if let Some(pack) = lock(open).take() {
                self.submit(pack)?;
            }
        }
        self.stop();
        self.shared.check()?;
        let mut pending = lock(&self.shared.pending);
        self.shared.write_index(&mut pending)?;
        drop(pending);
        let Adding { data_blobs, tree_blobs, bytes, packed_bytes } = &self.shared.added;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Added {
            data_blobs: count(data_blobs),
            tree_blobs: count(tree_blobs),
            bytes: count(bytes),
            packed_bytes: count(packed_bytes),
        })
    }

    fn stop(&mut self) {
        drop(self.uploads.take());
        for uploader in self.uploaders.drain(..) {
            join(uploader.join());
        }
    }
}

impl Drop for PackWriter {
    /// A writer that is given up finishes the uploads under way, and leaves them for the next run in an index.
    fn drop(&mut self) {
        if self.uploads.is_some() {
            self.stop();
            let mut pending = lock(&self.shared.pending);
            let _ = self.shared.write_index(&mut pending);
        }
    }
}

impl Shared {
    fn open_pack(&self, kind: BlobKind) -> MutexGuard<'_, Option<PackBuffer>> {
        lock(&self.open[usize::from(kind == BlobKind::Tree)])
    }

    fn permits(&self, kind: BlobKind) -> &(Sender<()>, Receiver<()>) {
        &self.permits[usize::from(kind == BlobKind::Tree)]
    }

    /// Fails once an upload has failed.
    fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Relaxed) { Err(self.take_failure()) } else { Ok(()) }
    }

    /// The failure itself for the first who asks; the others are merely stopped.
    fn take_failure(&self) -> Error {
        lock(&self.failure).take().unwrap_or(Error::Interrupted)
    }

    fn fail(&self, error: Error) {
        let mut failure = lock(&self.failure);
        if !self.failed.swap(true, Ordering::Relaxed) {
            *failure = Some(error);
        }
    }

    fn upload_all(&self, full: &Receiver<PackBuffer>) {
        for pack in full {
            let kind = pack.kind;
            // After a failure what is left is only given up, so that nobody waits for a permit for ever.
            if !self.failed.load(Ordering::Relaxed)
                && let Err(error) = self.upload(pack)
            {
                self.fail(error);
            }
            // Its memory is freed, not kept: every buffer would come to take as much as the fullest pack that it once
            // was.
            let _ = self.permits(kind).0.send(());
        }
    }

    fn upload(&self, mut pack: PackBuffer) -> Result<()> {
        let mut header = Vec::with_capacity(header_len(pack.blobs.len()));
        encode_header(&pack.blobs, &mut header);
        let header = self.repository.key().seal(&header);
        pack.memory.extend_from_slice(&header);
        pack.memory.extend_from_slice(&(header.len() as u32).to_le_bytes());
        let PackBuffer { memory, start, blobs, .. } = pack;
        let bytes = Bytes::from(memory).slice(start..);
        let id = Id::of(&bytes);
        match self.repository.store().put_shared(&FileKind::Pack.path(&id), bytes) {
            // Sealing is random: the same name is the same pack, stored by an attempt that seemed to have failed.
            Err(error) if error.kind == ErrorKind::AlreadyExists => {}
            result => result?,
        }
        let pack = IndexedPack { id, blobs };
        self.index.add_pack(&pack);
        let mut pending = lock(&self.pending);
        pending.encoder.push(&pack.id, &pack.blobs);
        pending.packs += 1;
        if pending.packs >= pending.packs_max
            || pending.encoder.blobs() >= INDEX_BLOBS_MAX
            || pending.since.elapsed() > INDEX_EVERY
        {
            self.write_index(&mut pending)?;
        }
        Ok(())
    }

    fn write_index(&self, pending: &mut PendingIndex) -> Result<()> {
        if pending.packs > 0 {
            self.repository.save_file(FileKind::Index, &std::mem::take(&mut pending.encoder).finish())?;
            pending.packs = 0;
            pending.packs_max = (pending.packs_max * 2).min(INDEX_PACKS_MAX);
        }
        pending.since = Instant::now();
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
