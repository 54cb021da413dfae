//! Reading files: small ones whole by a worker, larger ones cut into chunks that all workers share.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::Run;
use super::dirs::{Directories, Directory};
use super::walk::Change;
use crate::chunker::CHUNK_MIN;
use crate::failure::Failure;
use crate::format::BlobKind;
use crate::format::node::Node;
use crate::hash::sha256_pair;
use crate::monitor::Counters;
use crate::pack_writer::Encoder;
use crate::source::{Entry, SourceError};
use crate::{Error, Id, Result};

/// How much is read at once.
const READ_BYTES: usize = 512 << 10;
/// How much the buffers of chunks that wait to be stored may take.
const CHUNKS_BYTES_MAX: usize = 12 << 20;
/// Chunk buffers that are kept for the next chunk, and the largest that is: most chunks fit into it.
const SPARE_BUFFERS: usize = 4;
const SPARE_BYTES_MAX: usize = 2 << 20;

/// A file to be read.
pub(super) struct FileJob {
    pub(super) directory: Arc<Directory>,
    pub(super) slot: u64,
    pub(super) change: Change,
    pub(super) entry: Entry,
}

/// A chunk of a larger file.
pub(super) struct ChunkJob {
    file: Arc<LargeFile>,
    number: usize,
    chunk: Vec<u8>,
}

/// A larger file whose chunks are being stored.
struct LargeFile {
    directory: Arc<Directory>,
    slot: u64,
    state: Mutex<LargeState>,
}

#[derive(Default)]
struct LargeState {
    content: Vec<Option<Id>>,
    stored: usize,
    /// The file's entry, and how many chunks it has, once it was read to its end.
    end: Option<(Node, usize)>,
}

/// Bounds the memory of chunks that wait to be stored, and keeps their buffers for reuse.
#[derive(Default)]
pub(super) struct Budget {
    used: Mutex<usize>,
    freed: Condvar,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Budget {
    /// Waits until there is room; one chunk always finds some.
    fn take(&self, bytes: usize, failure: &Failure) -> Result<()> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used > 0 && *used + bytes > CHUNKS_BYTES_MAX {
            failure.check()?;
            let wait = std::time::Duration::from_millis(100);
            used = self.freed.wait_timeout(used, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += bytes;
        Ok(())
    }

    fn give_back(&self, buffer: Vec<u8>) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) -= buffer.capacity();
        self.freed.notify_all();
        self.keep(buffer);
    }

    fn keep(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            spare.push(buffer);
        }
    }

    fn buffer(&self) -> Vec<u8> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }
}

pub(super) struct Files<'a> {
    run: &'a Run<'a>,
    directories: &'a Directories<'a>,
    budget: &'a Budget,
}

impl<'a> Files<'a> {
    pub(super) fn new(run: &'a Run<'a>, directories: &'a Directories<'a>, budget: &'a Budget) -> Self {
        Self { run, directories, budget }
    }

    /// A worker: stores chunks first, since each holds memory, and reads small files in between. One without
    /// chunks is there to wait for the disk while others compute.
    pub(super) fn work(&self, small: Receiver<FileJob>, chunks: Option<Receiver<ChunkJob>>) {
        if let Err(error) = self.try_work(small, chunks) {
            self.run.failure.set(error);
        }
    }

    fn try_work(&self, mut small: Receiver<FileJob>, chunks: Option<Receiver<ChunkJob>>) -> Result<()> {
        let mut encoder = self.run.writer.encoder()?;
        let mut buffer = Vec::with_capacity(CHUNK_MIN + 1);
        let (mut small_open, mut chunks_open) = (true, chunks.is_some());
        let mut chunks = chunks.unwrap_or_else(crossbeam_channel::never);
        while small_open || chunks_open {
            self.run.failure.check()?;
            self.run.monitor.check()?;
            select_biased! {
                recv(chunks) -> job => match job {
                    // Two chunks at once, if there are two: their hashes share the processor better than they follow.
                    Ok(job) => match chunks.try_recv() {
                        Ok(other) => {
                            let [id, other_id] = sha256_pair(&job.chunk, &other.chunk).map(Id);
                            self.store_chunk(job, id, &mut encoder)?;
                            self.store_chunk(other, other_id, &mut encoder)?;
                        }
                        Err(_) => {
                            let id = Id::of(&job.chunk);
                            self.store_chunk(job, id, &mut encoder)?;
                        }
                    },
                    Err(_) => (chunks_open, chunks) = (false, crossbeam_channel::never()),
                },
                recv(small) -> job => match job {
                    Ok(job) => self.read_small(job, &mut buffer, &mut encoder)?,
                    Err(_) => (small_open, small) = (false, crossbeam_channel::never()),
                },
            }
        }
        Ok(())
    }

    /// A cutter: reads larger files and hands their chunks to the workers.
    pub(super) fn cut(&self, large: &Receiver<FileJob>, chunks: &Sender<ChunkJob>) {
        let outcome = self.run.writer.encoder().and_then(|mut encoder| {
            large.iter().try_for_each(|job| {
                self.run.failure.check()?;
                self.cut_file(job, chunks, &mut encoder)
            })
        });
        if let Err(error) = outcome {
            self.run.failure.set(error);
        }
    }

    fn read_small(&self, job: FileJob, buffer: &mut Vec<u8>, encoder: &mut Encoder) -> Result<()> {
        let FileJob { directory, slot, change, entry } = job;
        let mut content = Vec::new();
        let node = match self.run.source.open(&entry) {
            Ok(mut file) => {
                let read = self.read_chunks(&entry, &mut *file.content, buffer, &mut |_, chunk| {
                    let (id, _) = self.run.writer.save(encoder, BlobKind::Data, chunk)?;
                    content.push(id);
                    Ok(())
                })?;
                read.map(|size| Node { size, content: Some(content), ..file.node })
            }
            Err(error) => Err(error),
        };
        let node = self.count(change, &entry, node);
        self.directories.complete(&directory, slot, node, encoder)
    }

    fn cut_file(&self, job: FileJob, chunks: &Sender<ChunkJob>, encoder: &mut Encoder) -> Result<()> {
        let FileJob { directory, slot, change, entry } = job;
        let mut file = match self.run.source.open(&entry) {
            Ok(file) => file,
            Err(error) => {
                self.run.unreadable(&error);
                return self.directories.complete(&directory, slot, None, encoder);
            }
        };
        let large = Arc::new(LargeFile { directory, slot, state: Mutex::default() });
        let mut count = 0;
        let mut buffer = self.budget.buffer();
        let read = self.read_chunks(&entry, &mut *file.content, &mut buffer, &mut |number, chunk| {
            // What counts is the room it takes, not how much of it is filled.
            self.budget.take(chunk.capacity(), &self.run.failure)?;
            let job = ChunkJob { file: Arc::clone(&large), number, chunk: std::mem::take(chunk) };
            count = number + 1;
            chunks.send(job).map_err(|_| Error::Interrupted)
        })?;
        self.budget.keep(buffer);
        match self.count(change, &entry, read.map(|size| Node { size, ..file.node })) {
            Some(node) => {
                let completed = {
                    let mut state = large.state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.end = Some((node, count));
                    state.take_completed()
                };
                self.complete_large(&large, completed, encoder)
            }
            // Its chunks may be stored all the same; they are garbage unless the next run finds a use for them.
            None => self.directories.complete(&large.directory, large.slot, None, encoder),
        }
    }

    fn store_chunk(&self, job: ChunkJob, id: Id, encoder: &mut Encoder) -> Result<()> {
        let ChunkJob { file, number, chunk } = job;
        self.run.writer.save_named(encoder, BlobKind::Data, id, &chunk)?;
        self.budget.give_back(chunk);
        let completed = {
            let mut state = file.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.content.len() <= number {
                state.content.resize(number + 1, None);
            }
            state.content[number] = Some(id);
            state.stored += 1;
            state.take_completed()
        };
        self.complete_large(&file, completed, encoder)
    }

    fn complete_large(&self, file: &LargeFile, completed: Option<Node>, encoder: &mut Encoder) -> Result<()> {
        match completed {
            Some(node) => self.directories.complete(&file.directory, file.slot, Some(node), encoder),
            None => Ok(()),
        }
    }

    fn count(&self, change: Change, entry: &Entry, read: std::result::Result<Node, SourceError>) -> Option<Node> {
        match read {
            Ok(node) => {
                self.run.count(change, node.kind, node.size, &entry.path);
                Some(node)
            }
            Err(error) => {
                self.run.unreadable(&error);
                None
            }
        }
    }

    /// Reads to the end, handing over each chunk with its number. The inner result is that of reading, and how
    /// many bytes there were; the outer one is that of storing.
    fn read_chunks(
        &self,
        entry: &Entry,
        content: &mut dyn Read,
        buffer: &mut Vec<u8>,
        emit: &mut dyn FnMut(usize, &mut Vec<u8>) -> Result<()>,
    ) -> Result<std::result::Result<u64, SourceError>> {
        let chunker = self.run.repository.chunker();
        buffer.clear();
        let (mut searched, mut number, mut size, mut last) = (0, 0, 0, false);
        // A file of the expected small size takes two reads: its content, and its end.
        let mut want = (entry.node.size as usize).clamp(1, READ_BYTES - 1) + 1;
        loop {
            if let Some(length) = chunker.next_boundary(buffer, searched, last) {
                let rest_from = length;
                let mut rest = if rest_from < buffer.len() { self.budget.buffer() } else { Vec::new() };
                rest.clear();
                rest.extend_from_slice(&buffer[rest_from..]);
                buffer.truncate(length);
                emit(number, buffer)?;
                if rest.capacity() > 0 {
                    *buffer = rest;
                } else {
                    buffer.clear();
                }
                (number, searched) = (number + 1, 0);
                continue;
            }
            if last {
                return Ok(Ok(size));
            }
            self.run.failure.check()?;
            self.run.monitor.check()?;
            searched = buffer.len();
            // Not twice as much with every read: the room for chunks is counted.
            buffer.reserve_exact(want);
            match (&mut *content).take(want as u64).read_to_end(buffer) {
                Ok(read) => {
                    last = read < want;
                    size += read as u64;
                    Counters::add(&self.run.monitor.counters().bytes, read as u64);
                }
                Err(error) => return Ok(Err(SourceError::reading(entry.path.clone(), error))),
            }
            want = READ_BYTES;
        }
    }
}

impl LargeState {
    /// The finished entry, once the last chunk was stored.
    fn take_completed(&mut self) -> Option<Node> {
        if self.end.as_ref().is_none_or(|(_, chunks)| *chunks != self.stored) {
            return None;
        }
        let (node, _) = self.end.take()?;
        let content = std::mem::take(&mut self.content).into_iter().flatten().collect();
        Some(Node { content: Some(content), ..node })
    }
}
