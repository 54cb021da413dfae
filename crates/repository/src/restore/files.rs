//! The content of files: batches of pieces, sorted by pack, and the workers that read, verify and write them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, fallocate, fstat, ftruncate, openat};
use rustix::io::Errno;

use super::decide::UNFINISHED;
use super::directory::Directory;
use super::metadata::Metadata;
use super::{Run, add};
use crate::error::Damage;
use crate::format::node::Node;
use crate::format::{BlobKind, FileKind};
use crate::repository::{join, open_blob};
use crate::source::display_path;
use crate::{Error, Id, Index, Location, Result};

/// Pieces that are sorted together, some 100 bytes each. More make fewer reads where files are small.
const BATCH_PIECES: usize = 32 << 10;
/// Blobs of a pack that lie together are read at once up to this, in bytes.
const READ_BYTES_MAX: usize = 4 << 20;
/// What lies between two blobs is read with them up to this, in bytes: less than what a request costs.
const GAP_BYTES_MAX: u32 = 64 << 10;
/// Reads that wait for a worker.
const READS_WAITING: usize = 32;
/// Unfinished files that are kept open.
const OPEN_FILES_MAX: usize = 128;
/// Holes are whole blocks.
const HOLE_BYTES: usize = 4 << 10;

const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// A file that is being restored.
pub(super) struct FileJob {
    directory: Arc<Directory>,
    name: Box<[u8]>,
    metadata: Metadata,
    size: u64,
    /// It does not exist before, so all of it reads as zeros.
    is_new: bool,
    /// Pieces that are not written yet, and one for whoever still adds pieces.
    left: AtomicUsize,
    has_failed: AtomicBool,
    /// Something was written, or is to be.
    is_changed: AtomicBool,
    opened: Mutex<Opened>,
    /// What it should hold, where that is to be verified in the end.
    content: Vec<(Id, u32)>,
}

#[derive(Default)]
struct Opened {
    fd: Option<Arc<OwnedFd>>,
    /// Device and inode number, once it was made or opened.
    identity: Option<(u64, u64)>,
}

impl FileJob {
    pub(super) fn new(run: &Run<'_>, node: &Node, directory: &Arc<Directory>, size: u64, is_new: bool) -> Arc<Self> {
        directory.begin();
        Arc::new(Self {
            directory: Arc::clone(directory),
            name: node.name.as_slice().into(),
            metadata: Metadata::of(node, &run.options.owners),
            size,
            is_new,
            left: AtomicUsize::new(1),
            has_failed: AtomicBool::new(false),
            is_changed: AtomicBool::new(is_new),
            opened: Mutex::default(),
            content: Vec::new(),
        })
    }

    fn path(&self) -> Vec<u8> {
        self.directory.path_of(&self.name)
    }

    /// Makes the file now rather than with its first piece; whether that succeeded.
    pub(super) fn make(&self, run: &Run<'_>) -> bool {
        match self.open(run) {
            Ok(_) => true,
            Err(error) => {
                self.io_failed(run, "make", error);
                self.piece_done(run);
                false
            }
        }
    }

    /// The open file; made, if it is new and this is the first time.
    fn open(&self, run: &Run<'_>) -> io::Result<Arc<OwnedFd>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = &opened.fd {
            return Ok(Arc::clone(fd));
        }
        // A program that runs may be read, but not opened for writing.
        let access = if self.is_changed.load(Ordering::Relaxed) { OFlags::RDWR } else { OFlags::RDONLY };
        let is_made = self.is_new && opened.identity.is_none();
        let fd = self.open_as(if is_made { access | OFlags::CREATE | OFlags::EXCL } else { access }, &mut opened)?;
        if is_made {
            self.allocate(run, &fd)?;
        }
        let fd = Arc::new(fd);
        opened.fd = Some(Arc::clone(&fd));
        run.open_files.fetch_add(1, Ordering::Relaxed);
        Ok(fd)
    }

    /// Opens the file, which must be the same one every time.
    fn open_as(&self, flags: OFlags, opened: &mut Opened) -> io::Result<OwnedFd> {
        let directory = self.directory.fd()?;
        let mode = Mode::from_raw_mode(UNFINISHED);
        let fd = match openat(&*directory, &*self.name, FLAGS | flags, mode) {
            // A file of ours that we made unreadable or read-only; it gets its permissions in the end.
            Err(Errno::ACCESS) if !self.is_new => {
                let entry = openat(&*directory, &*self.name, FLAGS | OFlags::PATH, Mode::empty())?;
                rustix::fs::chmod(format!("/proc/self/fd/{}", entry.as_raw_fd()), mode)?;
                openat(&*directory, &*self.name, FLAGS | flags, mode)?
            }
            result => result?,
        };
        let stat = fstat(&fd)?;
        let identity = (stat.st_dev, stat.st_ino);
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || *opened.identity.get_or_insert(identity) != identity {
            return Err(io::Error::other("the file was replaced by another one during the restore"));
        }
        if flags.contains(OFlags::RDWR) && stat.st_mode & 0o7777 != UNFINISHED {
            // Best effort: who may write into a file need not own it.
            let _ = rustix::fs::fchmod(&fd, mode);
        }
        Ok(fd)
    }

    /// The size of what is there, and the file to compare with.
    fn open_to_compare(&self) -> io::Result<(u64, OwnedFd)> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = self.open_as(OFlags::RDONLY, &mut opened)?;
        let size = fstat(&fd)?.st_size;
        Ok((u64::try_from(size).unwrap_or(0), fd))
    }

    /// Takes the space for a file of several blobs, so that a full disk shows at once and the file lies in one piece.
    fn allocate(&self, run: &Run<'_>, fd: &OwnedFd) -> io::Result<()> {
        if run.options.sparse {
            return Ok(ftruncate(fd, self.size)?);
        }
        if self.size > READ_BYTES_MAX as u64
            && let Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) =
                fallocate(fd, FallocateFlags::empty(), 0, self.size)
        {
            return Err(error.into());
        }
        Ok(())
    }

    fn close(&self, run: &Run<'_>) {
        if self.opened.lock().unwrap_or_else(PoisonError::into_inner).fd.take().is_some() {
            run.open_files.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn io_failed(&self, run: &Run<'_>, operation: &'static str, error: io::Error) {
        self.has_failed.store(true, Ordering::Relaxed);
        run.io_failed(operation, &self.path(), error);
    }

    fn failed(&self, run: &Run<'_>, error: &Error) {
        self.has_failed.store(true, Ordering::Relaxed);
        run.failed(&self.path(), error);
    }

    fn write(&self, run: &Run<'_>, at: u64, plain: &[u8]) {
        let written = self.open(run).and_then(|fd| {
            if run.options.sparse && self.is_new {
                write_around_holes(&fd, at, plain)
            } else {
                write_all_at(&fd, at, plain)
            }
        });
        match written {
            Ok(()) => {
                add(&run.counts.bytes_restored, plain.len() as u64);
                add(&run.monitor.counters().bytes, plain.len() as u64);
            }
            Err(error) => self.io_failed(run, "write", error),
        }
    }

    /// One piece is dealt with, or all have been added. The last one finishes the file.
    fn piece_done(&self, run: &Run<'_>) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(run);
        } else if run.open_files.load(Ordering::Relaxed) > OPEN_FILES_MAX {
            self.close(run);
        }
    }

    fn finish(&self, run: &Run<'_>) {
        if !self.has_failed.load(Ordering::Relaxed)
            && let Err((operation, error)) = self.complete(run)
        {
            self.io_failed(run, operation, error);
        }
        // A file that lacks something keeps its recent times: it must not look finished to the next restore.
        self.close(run);
        if !self.has_failed.load(Ordering::Relaxed) {
            let is_changed = self.is_changed.load(Ordering::Relaxed);
            add(if is_changed { &run.counts.files_restored } else { &run.counts.files_unchanged }, 1);
            add(&run.monitor.counters().files, 1);
            run.monitor.item(if is_changed { "restored" } else { "unchanged" }, || display_path(&self.path()));
        }
        self.directory.end(run);
    }

    fn complete(&self, run: &Run<'_>) -> std::result::Result<(), (&'static str, io::Error)> {
        let fd = self.open(run).map_err(|error| ("open", error))?;
        if self.is_changed.load(Ordering::Relaxed) {
            let size = fstat(&fd).map_err(|error| ("look up", error.into()))?.st_size;
            if u64::try_from(size) != Ok(self.size) {
                ftruncate(&fd, self.size).map_err(|error| ("set the size of", error.into()))?;
            }
        }
        let (mut at, mut buffer) = (0, Vec::new());
        for &(id, length) in &self.content {
            if !holds(&fd, at, &id, length, &mut buffer).map_err(|error| ("read", error))? {
                let what = format!("what was restored to {}", display_path(&self.path()));
                let text = format!("{length} bytes from byte {at} on are not what the snapshot has");
                self.failed(run, &Error::damaged(what, Damage::Content(text)));
                return Ok(());
            }
            at += u64::from(length);
        }
        self.metadata.apply_to_fd(run, fd.as_fd(), self.is_new, &|| self.path());
        Ok(())
    }
}

/// One blob for one place of a file.
pub(super) struct Piece {
    id: Id,
    location: Location,
    file: Arc<FileJob>,
    at: u64,
}

/// Collects pieces and hands them to the workers in the order of packs.
pub(super) struct Batch<'a> {
    run: &'a Run<'a>,
    index: Arc<Index>,
    pieces: Vec<Piece>,
    reads: Sender<Vec<Piece>>,
    buffer: Vec<u8>,
}

impl Batch<'_> {
    fn locate(&self, id: &Id) -> Result<Location> {
        self.index.find(BlobKind::Data, id).ok_or_else(|| Error::MissingBlob { kind: BlobKind::Data.noun(), id: *id })
    }

    /// The bytes of a file's content; fails when a part of it is in no index.
    pub(super) fn content_bytes(&self, node: &Node) -> Result<u64> {
        let mut size = 0;
        for id in node.content.iter().flatten() {
            size += u64::from(self.locate(id)?.plain_length());
        }
        Ok(size)
    }

    /// Sees to a file whose content is right.
    pub(super) fn set_metadata(&mut self, file: &Arc<FileJob>) {
        add(&self.run.counts.bytes_unchanged, file.size);
        add(&self.run.monitor.counters().bytes, file.size);
        file.piece_done(self.run);
    }

    /// Takes in what a file lacks.
    pub(super) fn add(&mut self, mut file: Arc<FileJob>, node: &Node) -> Result<()> {
        let run = self.run;
        let content = node.content.as_deref().unwrap_or_default();
        if run.options.verify
            && let Some(file) = Arc::get_mut(&mut file)
        {
            file.content =
                content.iter().map(|id| Ok((*id, self.locate(id)?.plain_length()))).collect::<Result<_>>()?;
        }
        // What is there already is compared; where that is not possible, all is written.
        let existing = if file.is_new { None } else { file.open_to_compare().ok() };
        if existing.as_ref().is_some_and(|(size, _)| *size != file.size) {
            file.is_changed.store(true, Ordering::Relaxed);
        }
        let mut at = 0;
        for id in content {
            let location = self.locate(id)?;
            let length = location.plain_length();
            let is_there =
                existing.as_ref().is_some_and(|(_, fd)| holds(fd, at, id, length, &mut self.buffer).unwrap_or(false));
            if is_there {
                add(&run.counts.bytes_unchanged, length.into());
                add(&run.monitor.counters().bytes, length.into());
            } else {
                file.is_changed.store(true, Ordering::Relaxed);
                file.left.fetch_add(1, Ordering::Relaxed);
                self.pieces.push(Piece { id: *id, location, file: Arc::clone(&file), at });
                if self.pieces.len() >= BATCH_PIECES {
                    self.flush()?;
                }
            }
            at += u64::from(length);
            run.check()?;
        }
        file.piece_done(run);
        Ok(())
    }

    /// Hands on what was collected.
    pub(super) fn flush(&mut self) -> Result<()> {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.sort_unstable_by_key(|piece| (piece.location.pack, piece.location.offset));
        let mut read: Vec<Piece> = Vec::new();
        for piece in pieces {
            if !continues(&read, &piece) {
                self.send(std::mem::take(&mut read))?;
            }
            read.push(piece);
        }
        self.send(read)
    }

    fn send(&self, read: Vec<Piece>) -> Result<()> {
        if read.is_empty() {
            return Ok(());
        }
        // The workers go only when something has failed.
        self.reads.send(read).map_err(|_| Error::Interrupted)
    }
}

/// Whether a piece belongs into the same read.
fn continues(read: &[Piece], piece: &Piece) -> bool {
    let (Some(first), Some(last)) = (read.first(), read.last()) else { return true };
    let (first, last, next) = (&first.location, &last.location, &piece.location);
    if first.pack != next.pack {
        return false;
    }
    // Sorted by offset: nothing begins before the first.
    let length = end_of(next) - u64::from(first.offset);
    next.offset <= last.offset.saturating_add(last.length).saturating_add(GAP_BYTES_MAX)
        && (length <= READ_BYTES_MAX as u64 || next.offset == last.offset)
}

/// Runs `produce` with workers at its service, and waits for them.
pub(super) fn with_workers<'a>(run: &'a Run<'a>, produce: impl FnOnce(Batch<'a>) -> Result<()>) -> Result<()> {
    let index = run.repository.index()?;
    let (reads, reads_rx) = bounded(READS_WAITING);
    let batch = Batch { run, index, pieces: Vec::new(), reads, buffer: Vec::new() };
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..run.options.workers.clamp(1, 64) {
            let reads = reads_rx.clone();
            match std::thread::Builder::new().name("restore".into()).spawn_scoped(scope, move || work(run, &reads)) {
                Ok(worker) => workers.push(worker),
                Err(error) => run.failure.set(Error::System { operation: "start a thread", reason: error.to_string() }),
            }
        }
        drop(reads_rx);
        if let Err(error) = produce(batch) {
            run.failure.set(error);
        }
        workers.into_iter().for_each(|worker| join(worker.join()));
    });
    run.failure.take()
}

fn work(run: &Run<'_>, reads: &Receiver<Vec<Piece>>) {
    let (mut sealed, mut raw) = (Vec::new(), Vec::new());
    for read in reads {
        if let Err(error) = run.check() {
            // An earlier failure stays the one that is told.
            return run.failure.set(error);
        }
        restore_read(run, &read, &mut sealed, &mut raw);
    }
}

/// Reads the blobs that the pieces name, and writes each to where it belongs.
fn restore_read(run: &Run<'_>, read: &[Piece], sealed: &mut Vec<u8>, raw: &mut Vec<u8>) {
    let (Some(first), Some(end)) = (read.first(), read.iter().map(|piece| end_of(&piece.location)).max()) else {
        return;
    };
    let start = u64::from(first.location.offset);
    let is_read = read_range(run, &first.location.pack, start, end, sealed);
    for pieces in read.chunk_by(|a, b| a.location.offset == b.location.offset && a.id == b.id) {
        let Some(Piece { id, location, .. }) = pieces.first() else { continue };
        let from = (u64::from(location.offset) - start) as usize;
        let opened = sealed
            .get_mut(from..from + location.length as usize)
            .filter(|_| is_read)
            .and_then(|sealed| open_blob(run.repository.key(), id, sealed, location.raw_length, raw).ok());
        // Another try, of other copies too, where it could not be read or is damaged.
        let again;
        let plain = match opened {
            Some(plain) => Ok(plain),
            None => {
                again = run.repository.load_blob(BlobKind::Data, id);
                again.as_deref()
            }
        };
        for Piece { file, at, .. } in pieces {
            match plain {
                Ok(plain) => file.write(run, *at, plain),
                Err(error) => file.failed(run, error),
            }
            file.piece_done(run);
        }
    }
}

fn end_of(location: &Location) -> u64 {
    u64::from(location.offset) + u64::from(location.length)
}

/// Fills `buffer` with a part of a pack; whether that succeeded.
fn read_range(run: &Run<'_>, pack: &Id, start: u64, end: u64, buffer: &mut Vec<u8>) -> bool {
    let length = (end - start) as usize;
    buffer.clear();
    // A length out of a damaged index may be anything.
    if buffer.try_reserve(length).is_err() {
        return false;
    }
    buffer.resize(length, 0);
    let is_read = run.repository.store().get_range(&FileKind::Pack.path(pack), start, buffer).is_ok();
    add(&run.monitor.counters().stored_bytes, length as u64);
    is_read
}

/// Whether a file has a blob's content at a place.
fn holds(fd: &OwnedFd, at: u64, id: &Id, length: u32, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let length = length as usize;
    buffer.clear();
    buffer.try_reserve(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    buffer.resize(length, 0);
    let mut filled = 0;
    while filled < length {
        match rustix::io::pread(fd, &mut buffer[filled..], at + filled as u64) {
            Ok(0) => return Ok(false),
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Id::of(buffer) == *id)
}

fn write_all_at(fd: &OwnedFd, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                at += n as u64;
                bytes = &bytes[n..];
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes all but the blocks of the file that are zeros throughout.
fn write_around_holes(fd: &OwnedFd, at: u64, bytes: &[u8]) -> io::Result<()> {
    let to_block = (HOLE_BYTES - (at % HOLE_BYTES as u64) as usize) % HOLE_BYTES;
    let (mut start, mut end) = (0, to_block.min(bytes.len()));
    // What is not zero is written together, from `start` on.
    let mut from = 0;
    while start < bytes.len() {
        if is_zero(&bytes[start..end]) {
            write_all_at(fd, at + from as u64, &bytes[from..start])?;
            from = end;
        }
        (start, end) = (end, (end + HOLE_BYTES).min(bytes.len()));
    }
    write_all_at(fd, at + from as u64, &bytes[from..])
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}
