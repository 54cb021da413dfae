//! Backups: a source's entries become trees and blobs, and at last a snapshot.
//!
//! ```text
//! walk (1 thread) ── files ──▶ workers (4 or more) ── sealed blobs ──▶ packs ──▶ uploads
//!        └─ large files ─▶ cutters (2) ── chunks ──▶ ┘
//! ```
//!
//! The walk goes depth first and compares each file with the parent snapshot; what changed goes to the workers,
//! files with more than one chunk by way of a cutter, so that all cores work on one large file, too: as many
//! workers as there are cores take chunks, the others only read small files while the disk keeps some waiting. A
//! directory is written once all its entries are, by whoever finishes the last. Every queue is bounded, and
//! nothing but the index grows with the number of files: a directory holds its own JSON and what is under way.
//!
//! The snapshot is the last thing written. What could not be read is reported and left out; what could not be
//! stored ends the backup without a snapshot.

mod dirs;
mod files;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::bounded;

use self::dirs::Directories;
use self::files::{Budget, Files};
use crate::failure::Failure;
use crate::format::snapshot::{Snapshot, SnapshotSummary};
use crate::format::time::Timestamp;
use crate::format::{BlobKind, FileKind};
use crate::identity::Identity;
use crate::lock::{Lock, LockMode, LockOptions};
use crate::pack_writer::PackWriter;
use crate::repository::join;
use crate::source::Source;
use crate::{Error, Id, Index, Monitor, Repository, Result};

/// Which snapshot a backup compares with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Parent {
    /// The latest of the same host and paths.
    #[default]
    Latest,
    /// That one.
    Snapshot(Id),
    /// None: every file is read.
    None,
}

/// What a backup records and how it goes about it.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The host name that the snapshot carries.
    pub host: String,
    /// The snapshot's tags.
    pub tags: Vec<String>,
    /// The snapshot's time.
    pub time: jiff::Timestamp,
    /// The exclude patterns, as the snapshot records them; the source has applied them.
    pub excludes: Vec<String>,
    /// What to compare with.
    pub parent: Parent,
    /// Do not take a file for changed because its inode number did.
    pub ignore_inode: bool,
    /// Do not take a file for changed because its ctime did.
    pub ignore_ctime: bool,
    /// Write nothing, and count what would be written.
    pub dry_run: bool,
    /// Write no snapshot when nothing differs from the parent.
    pub skip_if_unchanged: bool,
    /// The name and version of the program that the snapshot records.
    pub program_version: String,
    /// How many small files are read at once. Default: the number of cores, and 4 at least, since a disk may keep
    /// a reader waiting. Pieces of large files are stored by as many of these as there are cores.
    pub workers: usize,
    /// How the repository is locked.
    pub lock: LockOptions,
}

impl BackupOptions {
    /// The defaults: this host, now, compared with the latest snapshot of the same host and paths.
    pub fn new() -> Self {
        Self {
            host: Identity::current().hostname,
            tags: Vec::new(),
            time: jiff::Timestamp::now(),
            excludes: Vec::new(),
            parent: Parent::Latest,
            ignore_inode: false,
            ignore_ctime: false,
            dry_run: false,
            skip_if_unchanged: false,
            program_version: concat!("holdfast ", env!("CARGO_PKG_VERSION")).into(),
            workers: cores().max(READERS_MIN),
            lock: LockOptions::default(),
        }
    }
}

/// Small files that are read at once on however few cores.
const READERS_MIN: usize = 4;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What a backup did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BackupReport {
    /// The new snapshot; none for a dry run, or where nothing changed and none was wanted then.
    pub snapshot: Option<Id>,
    /// What it was compared with.
    pub parent: Option<Id>,
    /// Its root directory.
    pub tree: Id,
    /// What was counted.
    pub summary: SnapshotSummary,
    /// How many entries could not be read: the snapshot is incomplete by these.
    pub errors: u64,
}

/// Backs up everything that `source` has.
pub fn backup(
    repository: &Arc<Repository>,
    source: &dyn Source,
    options: &BackupOptions,
    monitor: &Monitor,
) -> Result<BackupReport> {
    let backup_start = jiff::Timestamp::now();
    let lock = Lock::acquire(repository, LockMode::Shared, &options.lock, monitor)?;
    // What was known before the lock was taken may have been removed since.
    repository.refresh_index();
    let index = repository.index()?;
    let parent = find_parent(repository, source, options, monitor)?;
    let writer = PackWriter::new(repository, Arc::clone(&index), options.dry_run)?;
    let run = Run {
        repository,
        source,
        options,
        monitor,
        lock: &lock,
        writer: &writer,
        index: &index,
        counts: Counts::default(),
        failure: Failure::default(),
    };
    let tree = run.walk_and_store(parent.as_ref().map(|(_, snapshot)| snapshot.tree))?;
    let Counts {
        files_new,
        files_changed,
        files_unmodified,
        dirs_new,
        dirs_changed,
        dirs_unmodified,
        files,
        bytes,
        errors,
    } = run.counts;
    let added = writer.finish()?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let summary = SnapshotSummary {
        backup_start: backup_start.into(),
        backup_end: jiff::Timestamp::now().into(),
        files_new: count(&files_new),
        files_changed: count(&files_changed),
        files_unmodified: count(&files_unmodified),
        dirs_new: count(&dirs_new),
        dirs_changed: count(&dirs_changed),
        dirs_unmodified: count(&dirs_unmodified),
        data_blobs: added.data_blobs as i64,
        tree_blobs: added.tree_blobs as i64,
        data_added: added.bytes,
        data_added_packed: added.packed_bytes,
        total_files_processed: count(&files),
        total_bytes_processed: count(&bytes),
        unknown: BTreeMap::new(),
    };
    if source.is_all_or_nothing() && count(&errors) > 0 {
        return Err(Error::IncompleteSource);
    }
    let unchanged = parent.as_ref().is_some_and(|(_, snapshot)| snapshot.tree == tree);
    lock.check()?;
    monitor.check()?;
    let snapshot = if options.dry_run || (options.skip_if_unchanged && unchanged) {
        None
    } else {
        let Identity { username, uid, gid, .. } = Identity::current();
        let snapshot = Snapshot {
            time: options.time.into(),
            parent: parent.as_ref().map(|(id, _)| *id),
            tree,
            paths: source.paths().iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect(),
            hostname: options.host.clone(),
            username,
            uid,
            gid,
            excludes: options.excludes.clone(),
            tags: options.tags.clone(),
            program_version: options.program_version.clone(),
            summary: Some(summary.clone()),
            original: None,
            unknown: BTreeMap::new(),
        };
        let json = snapshot.to_json().map_err(|error| Error::damaged("the new snapshot", error))?;
        Some(repository.save_file(FileKind::Snapshot, &json)?)
    };
    Ok(BackupReport { snapshot, parent: parent.map(|(id, _)| id), tree, summary, errors: count(&errors) })
}

/// What happened to the entries.
#[derive(Default)]
struct Counts {
    files_new: AtomicU64,
    files_changed: AtomicU64,
    files_unmodified: AtomicU64,
    dirs_new: AtomicU64,
    dirs_changed: AtomicU64,
    dirs_unmodified: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

/// Everything the threads of one backup share.
struct Run<'a> {
    repository: &'a Arc<Repository>,
    source: &'a dyn Source,
    options: &'a BackupOptions,
    monitor: &'a Monitor,
    lock: &'a Lock,
    writer: &'a PackWriter,
    index: &'a Index,
    counts: Counts,
    failure: Failure,
}

impl Run<'_> {
    fn walk_and_store(&self, parent_tree: Option<Id>) -> Result<Id> {
        let workers = self.options.workers.clamp(1, 64);
        let (small, small_rx) = bounded(256);
        let (large, large_rx) = bounded(16);
        let (chunks, chunks_rx) = bounded(cores() * 2);
        let budget = Budget::default();
        let directories = Directories::new(self);
        let files = Files::new(self, &directories, &budget);
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let mut keep = |thread: std::io::Result<_>| match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.failure.set(Error::System { operation: "start a thread", reason: error.to_string() });
                }
            };
            let (files, thread) = (&files, std::thread::Builder::new);
            for number in 0..workers {
                let chunks = (number < cores()).then(|| chunks_rx.clone());
                let small = small_rx.clone();
                keep(thread().name("worker".into()).spawn_scoped(scope, move || files.work(small, chunks)));
            }
            for _ in 0..2 {
                let (large, chunks) = (large_rx.clone(), chunks.clone());
                keep(thread().name("cutter".into()).spawn_scoped(scope, move || files.cut(&large, &chunks)));
            }
            drop((small_rx, large_rx, chunks, chunks_rx));
            if let Err(error) = walk::walk(self, &directories, small, large, parent_tree) {
                self.failure.set(error);
            }
            threads.into_iter().for_each(|thread: std::thread::ScopedJoinHandle<'_, ()>| join(thread.join()));
        });
        self.failure.take()?;
        directories.root().ok_or(Error::Interrupted)
    }
}

/// The snapshot to compare with.
fn find_parent(
    repository: &Repository,
    source: &dyn Source,
    options: &BackupOptions,
    monitor: &Monitor,
) -> Result<Option<(Id, Snapshot)>> {
    match &options.parent {
        Parent::None => Ok(None),
        Parent::Snapshot(id) => Ok(Some((*id, repository.load_snapshot(id)?))),
        Parent::Latest => {
            let paths: Vec<String> =
                source.paths().iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            let mut paths_sorted: Vec<&str> = paths.iter().map(String::as_str).collect();
            paths_sorted.sort_unstable();
            let mut latest: Option<(Id, Snapshot)> = None;
            for id in repository.list(FileKind::Snapshot)? {
                let snapshot = match repository.load_snapshot(&id) {
                    Ok(snapshot) => snapshot,
                    // A damaged snapshot is no reason not to make a new one.
                    Err(error @ Error::Damaged { .. }) => {
                        monitor.failed(format!("snapshot {}", id.short()), &error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let mut its_paths: Vec<&str> = snapshot.paths.iter().map(String::as_str).collect();
                its_paths.sort_unstable();
                let newer = latest.as_ref().is_none_or(|(_, latest)| latest.time < snapshot.time);
                if snapshot.hostname == options.host
                    && its_paths == paths_sorted
                    && snapshot.time <= Timestamp::from(options.time)
                    && newer
                {
                    latest = Some((id, snapshot));
                }
            }
            Ok(latest)
        }
    }
}

/// Whether all blobs of a file are at hand.
fn has_all(index: &Index, content: &[Id]) -> bool {
    content.iter().all(|id| index.contains(BlobKind::Data, id))
}
