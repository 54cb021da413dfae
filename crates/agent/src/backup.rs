//! One run of a planned backup: read the target's directories, make its snapshots, apply retention.

use std::path::Path;
use std::sync::Arc;

use holdfast_api::manifest::Object;
use holdfast_api::stash::Compression as WantedCompression;
use holdfast_plan::{Directory, PlannedBackup, PlannedRepository, PlannedSnapshot};
use holdfast_repository::backup::{BackupOptions, BackupReport, Parent, backup};
use holdfast_repository::format::snapshot::{SnapshotFilter, TagList};
use holdfast_repository::pattern::{Case, PatternList};
use holdfast_repository::snapshots::{SavedSnapshot, Snapshots};
use holdfast_repository::{Compression, Id, LockOptions, Monitor, OpenOptions, Repository, memory};
use holdfast_sources::{Excludes, FileTree, FileTreeError, FileTreeOptions, Root, TagFile};
use jiff::Timestamp;

use crate::open::{self, IfMissing, OpenError};
use crate::retention;
use crate::volumes::{self, Use, VolumeError};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A directory of the target cannot be had.
    #[error("directory {directory}")]
    Volume {
        /// The container's path.
        directory: String,
        /// Why.
        #[source]
        source: VolumeError,
    },
    /// Every directory of the target is empty, though an earlier snapshot holds files: most likely a volume is not
    /// mounted, and the empty snapshots would push the good ones out.
    #[error(
        "{directories} hold no file, but earlier snapshots do: is the volume mounted? If it is meant to be empty, remove the old snapshots or put a file there"
    )]
    EmptySource {
        /// The container's paths.
        directories: String,
    },
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An exclude pattern makes no sense.
    #[error("exclude patterns: {0}")]
    Pattern(String),
    /// The directories cannot be read.
    #[error(transparent)]
    Tree(#[from] FileTreeError),
    /// The backup failed.
    #[error("repository {repository}")]
    Backup {
        /// The repository.
        repository: String,
        /// Why.
        #[source]
        source: holdfast_repository::Error,
    },
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Done {
    /// The reports of its snapshots.
    pub reports: Vec<BackupReport>,
    /// Snapshots that retention removed.
    pub forgotten: u64,
    /// Why retention failed; the snapshots are there all the same.
    pub retention_error: Option<holdfast_repository::Error>,
    /// What is worth knowing about it.
    pub notes: Vec<String>,
}

/// What is known of earlier runs.
#[derive(Debug, Clone, Copy)]
pub struct Earlier {
    /// What becomes of a repository that is missing: where one was it should not be made anew, as its disk may not be
    /// mounted.
    pub if_missing: IfMissing,
    /// When the first of the runs began that were to do the same and did not tell how they ended: one of them may have
    /// stored its snapshot.
    pub begun: Option<Timestamp>,
}

/// How long a run waits for others on the repository: longer than most backups, far shorter than for ever.
pub(crate) fn lock_options() -> LockOptions {
    LockOptions { wait: std::time::Duration::from_secs(10 * 60), ..LockOptions::default() }
}

/// Runs a backup. Where a run that was cut off has stored the snapshot and nothing has changed since, that one is it.
pub fn run(
    planned: &PlannedBackup,
    repository: &PlannedRepository,
    objects: &[Object],
    volumes: &Path,
    earlier: Earlier,
    lock: &LockOptions,
    monitor: &Monitor,
) -> Result<(Arc<Repository>, Done), BackupError> {
    let failed = |source| BackupError::Backup { repository: planned.repository.clone(), source };
    let options = OpenOptions {
        compression: match planned.compression {
            WantedCompression::Auto => Compression::Auto,
            WantedCompression::Off => Compression::Off,
            WantedCompression::Max => Compression::Max,
        },
        pack_bytes: memory::pack_bytes(),
        ..OpenOptions::default()
    };
    // Directories first: what cannot be read needs no repository.
    let trees = planned
        .snapshots
        .iter()
        .map(|snapshot| file_tree(planned, snapshot, objects, volumes))
        .collect::<Result<Vec<_>, _>>()?;
    let repository = open::open(repository, objects, options, earlier.if_missing, monitor)?;
    let mut done = Done::default();
    for (snapshot, tree) in planned.snapshots.iter().zip(trees) {
        let is_empty = is_empty(snapshot, volumes);
        // Listing what is stored takes a while: it is done only where that matters.
        let others = if is_empty || earlier.begun.is_some() {
            of_other_runs(&repository, planned, snapshot).map_err(failed)?
        } else {
            Vec::new()
        };
        if is_empty && others.iter().any(has_files) {
            let paths: Vec<&str> = snapshot.directories.iter().map(|directory| directory.path.as_str()).collect();
            return Err(BackupError::EmptySource { directories: paths.join(", ") });
        }
        let stored = earlier.begun.and_then(|begun| last_since(begun, &others));
        let options = BackupOptions {
            host: planned.host.clone(),
            tags: snapshot.tags.clone(),
            excludes: planned.exclude.clone(),
            parent: match stored {
                Some(stored) => Parent::Snapshot(stored),
                // With nothing to compare, the snapshots need not be read once more.
                None if is_empty => Parent::None,
                None => Parent::Latest,
            },
            skip_if_unchanged: stored.is_some(),
            lock: lock.clone(),
            ..BackupOptions::new()
        };
        let mut report = backup(&repository, &tree, &options, monitor).map_err(failed)?;
        if let (None, Some(stored)) = (report.snapshot, stored) {
            let id = stored.short();
            done.notes
                .push(format!("snapshot {id} was stored by a run that was cut off, and nothing has changed since"));
            report.snapshot = Some(stored);
        }
        done.reports.push(report);
    }
    // Old snapshots go only when the new ones are complete.
    if done.reports.iter().all(|report| report.errors == 0) {
        for retention in planned.snapshots.iter().filter_map(|snapshot| snapshot.retention.as_ref()) {
            match retention::apply(&repository, retention, lock, monitor) {
                Ok(forgotten) => done.forgotten += forgotten,
                Err(error) => done.retention_error = Some(error),
            }
        }
    }
    Ok((repository, done))
}

fn file_tree(
    planned: &PlannedBackup,
    snapshot: &PlannedSnapshot,
    objects: &[Object],
    volumes: &Path,
) -> Result<FileTree, BackupError> {
    let roots = snapshot
        .directories
        .iter()
        .map(|Directory { path, source }| {
            let real = volumes::prepare(source, volumes, objects, Use::Read)
                .map_err(|source| BackupError::Volume { directory: path.clone(), source })?;
            Ok(Root::mapped(path.clone().into_bytes(), real))
        })
        .collect::<Result<_, BackupError>>()?;
    let patterns = if planned.exclude.is_empty() {
        Vec::new()
    } else {
        vec![
            PatternList::new(&planned.exclude, Case::Sensitive)
                .map_err(|error| BackupError::Pattern(error.to_string()))?,
        ]
    };
    let excludes = Excludes {
        patterns,
        tag_files: if planned.exclude_caches { vec![TagFile::cachedir()] } else { Vec::new() },
        ..Excludes::default()
    };
    Ok(FileTree::new(FileTreeOptions { roots, excludes, with_atime: false })?)
}

/// Whether there is nothing at all in any of the directories.
fn is_empty(snapshot: &PlannedSnapshot, volumes: &Path) -> bool {
    snapshot.directories.iter().all(|directory| {
        std::fs::read_dir(directory.source.directory(volumes)).is_ok_and(|mut entries| entries.next().is_none())
    })
}

/// The snapshots that other runs made of the same.
fn of_other_runs(
    repository: &Repository,
    planned: &PlannedBackup,
    snapshot: &PlannedSnapshot,
) -> holdfast_repository::Result<Vec<SavedSnapshot>> {
    let filter = SnapshotFilter {
        hosts: vec![planned.host.clone()],
        tags: vec![TagList(snapshot.tags.clone())],
        paths: snapshot.directories.iter().map(|directory| directory.path.clone()).collect(),
    };
    let snapshots = Snapshots::load(repository)?;
    Ok(snapshots.saved.into_iter().filter(|saved| filter.matches(&saved.snapshot)).collect())
}

fn has_files(saved: &SavedSnapshot) -> bool {
    saved.snapshot.summary.as_ref().is_some_and(|summary| summary.total_files_processed > 0)
}

/// The last one, if it was made since then. What tells that time may know whole seconds only.
fn last_since(begun: Timestamp, others: &[SavedSnapshot]) -> Option<Id> {
    let last = others.iter().max_by_key(|saved| saved.snapshot.time.instant())?;
    (last.snapshot.time.seconds() >= begun.as_second()).then_some(last.id)
}
