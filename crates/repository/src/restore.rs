//! Restores: a snapshot's tree, or a part of it, becomes files again.
//!
//! ```text
//! walk (1 thread) ── pieces of files, in batches sorted by pack ──▶ workers: read, verify, write, set metadata
//! ```
//!
//! The walk goes depth first. It makes directories, links and special files, and decides for every file by
//! [`decide`](self::decide) what is to be done; what a file lacks goes to the workers as pieces: which blob, from which
//! place, to which offset. Pieces are sorted by pack, so that packs are read in order and a blob once for all files of
//! a batch. Every blob is authenticated and its hash checked before a byte of it is written.
//!
//! Everything in the target is reached from an open directory, by one name at a time, and links are never followed:
//! whatever stands in the target, nothing outside of it is written or removed.
//!
//! Memory: one batch of pieces, a buffer per worker, the listings of the directories the walk is in, and the first
//! places of hard-linked files whose other links are still to come. Nothing grows with the number of files.
//!
//! What fails for one entry is reported and the rest goes on. A full disk ends the restore. A restore that was
//! killed is run again: finished files are recognised (by their content, or by size and time), and half-written ones
//! completed.

mod decide;
mod directory;
mod files;
mod metadata;
mod remove;
#[cfg(test)]
mod tests;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

pub use self::decide::Overwrite;
pub use self::metadata::{OwnerLookup, Owners};
use crate::failure::Failure;
use crate::format::node::Node;
use crate::lock::{Lock, LockMode, LockOptions};
use crate::pattern::PatternList;
use crate::{Error, Id, Monitor, Repository, Result};

/// What a restore takes and how it goes about it.
#[derive(Clone)]
pub struct RestoreOptions {
    /// The directory to restore into. Made if it is missing.
    pub target: PathBuf,
    /// Only what matches one of the lists, by its path from the restored folder on, after
    /// [`patterns_from`](Self::patterns_from). Several, as each has its own rule for the case of letters, and its own
    /// negations. Empty: everything.
    pub include: Vec<PatternList>,
    /// Not what matches one of these.
    pub exclude: Vec<PatternList>,
    /// What stands before every path when patterns are matched: that of the restored folder in its snapshot, so that
    /// patterns mean paths of the snapshot. Default: nothing, as restic has it.
    pub patterns_from: Vec<u8>,
    /// What the target itself gets of owner, permissions, attributes and times: the entry of the restored folder (see
    /// [`crate::snapshots::Selected::entry`]). One that is there and belongs to somebody else keeps its own, with a note
    /// if its mode differs. Default: nothing.
    pub target_metadata: Option<Node>,
    /// What happens to files that are there already. Default: [`Overwrite::Always`].
    pub overwrite: Overwrite,
    /// Remove what the snapshot does not have, where the patterns would take it. Default: no.
    pub delete: bool,
    /// Write nothing, and tell what would be done as the monitor's items. Default: no.
    pub dry_run: bool,
    /// Read every restored file again and compare it with the snapshot. Default: no.
    pub verify: bool,
    /// Leave holes where a new file has long runs of zeros. Default: no.
    pub sparse: bool,
    /// Whom restored files belong to. Default: by number.
    pub owners: Owners,
    /// How many packs are read from, and files written, at once. Default: 4.
    pub workers: usize,
    /// How the repository is locked. `None`: not at all, as for a read-only repository.
    pub lock: Option<LockOptions>,
}

impl RestoreOptions {
    /// The defaults for a target.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self {
            target: target.into(),
            include: Vec::new(),
            exclude: Vec::new(),
            patterns_from: Vec::new(),
            target_metadata: None,
            overwrite: Overwrite::default(),
            delete: false,
            dry_run: false,
            verify: false,
            sparse: false,
            owners: Owners::default(),
            workers: 4,
            lock: Some(LockOptions::default()),
        }
    }
}

/// What a restore did; for a dry run, what it would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct RestoreReport {
    /// Files written, in whole or in part.
    pub files_restored: u64,
    /// Files that had the right content already.
    pub files_unchanged: u64,
    /// Files, links and devices left as they were because of the overwrite policy.
    pub skipped: u64,
    /// Directories made or entered.
    pub dirs: u64,
    /// Symbolic links, hard links, devices and pipes made.
    pub others: u64,
    /// Bytes of file content written, holes included.
    pub bytes_restored: u64,
    /// Bytes of file content that were there already.
    pub bytes_unchanged: u64,
    /// Entries removed, each directory counting once.
    pub removed: u64,
    /// What failed and was reported; the restore is incomplete unless it is 0.
    pub errors: u64,
}

#[derive(Default)]
struct Counts {
    files_restored: AtomicU64,
    files_unchanged: AtomicU64,
    skipped: AtomicU64,
    dirs: AtomicU64,
    others: AtomicU64,
    bytes_restored: AtomicU64,
    bytes_unchanged: AtomicU64,
    removed: AtomicU64,
    errors: AtomicU64,
}

/// Everything the threads of one restore share.
struct Run<'a> {
    repository: &'a Repository,
    options: &'a RestoreOptions,
    monitor: &'a Monitor,
    lock: Option<&'a Lock>,
    counts: Counts,
    failure: Failure,
    /// Files that are open at the moment.
    open_files: AtomicUsize,
    /// Whether it was told that the target cannot hold some extended attributes.
    attributes_noted: AtomicBool,
}

/// Restores what is below the tree `tree`: a snapshot's, or one of a folder in it (see
/// [`crate::snapshots::select`]).
pub fn restore(
    repository: &Arc<Repository>,
    tree: &Id,
    options: &RestoreOptions,
    monitor: &Monitor,
) -> Result<RestoreReport> {
    if options.delete && options.include.iter().all(PatternList::is_empty) && options.target.as_os_str() == "/" {
        return Err(Error::Selection(
            "will not remove everything that the snapshot lacks from /: name what to restore".into(),
        ));
    }
    let lock = match &options.lock {
        Some(lock) => Some(Lock::acquire(repository, LockMode::Shared, lock, monitor)?),
        None => None,
    };
    // What was known before the lock was taken may have been removed since.
    repository.refresh_index();
    let run = Run {
        repository,
        options,
        monitor,
        lock: lock.as_ref(),
        counts: Counts::default(),
        failure: Failure::default(),
        open_files: AtomicUsize::default(),
        attributes_noted: AtomicBool::default(),
    };
    files::with_workers(&run, |batch| walk::walk(&run, tree, batch))?;
    monitor.check()?;
    let Counts {
        files_restored,
        files_unchanged,
        skipped,
        dirs,
        others,
        bytes_restored,
        bytes_unchanged,
        removed,
        errors,
    } = run.counts;
    Ok(RestoreReport {
        files_restored: files_restored.into_inner(),
        files_unchanged: files_unchanged.into_inner(),
        skipped: skipped.into_inner(),
        dirs: dirs.into_inner(),
        others: others.into_inner(),
        bytes_restored: bytes_restored.into_inner(),
        bytes_unchanged: bytes_unchanged.into_inner(),
        removed: removed.into_inner(),
        errors: errors.into_inner(),
    })
}

impl Run<'_> {
    /// Fails once the restore is to stop.
    fn check(&self) -> Result<()> {
        self.failure.check()?;
        self.monitor.check()?;
        self.lock.map_or(Ok(()), Lock::check)
    }

    /// Tells of something that failed and is passed over.
    fn failed(&self, path: &[u8], error: &Error) {
        add(&self.counts.errors, 1);
        self.monitor.failed(crate::source::display_path(path), error);
    }

    /// Tells of a failed system call; ends the restore when no other can succeed.
    fn io_failed(&self, operation: &'static str, path: &[u8], source: std::io::Error) {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let is_fatal = matches!(source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem);
        let error = Error::Io { operation, path: self.shown(path), source };
        if is_fatal {
            self.failure.set(error);
        } else {
            self.failed(path, &error);
        }
    }

    /// Where an entry of the snapshot is restored to, for messages only.
    fn shown(&self, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        self.options.target.join(std::ffi::OsStr::from_bytes(relative))
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
