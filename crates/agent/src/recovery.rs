//! One run of a planned recovery: choose the snapshot, restore each path into its directory.

use std::collections::BTreeSet;
use std::path::Path;

use holdfast_api::manifest::Object;
use holdfast_plan::{PlannedRecovery, PlannedRepository, Restore, SnapshotChoice};
use holdfast_repository::format::snapshot::SnapshotFilter;
use holdfast_repository::pattern::{Case, PatternError, PatternList};
use holdfast_repository::restore::{Overwrite, RestoreOptions, restore};
use holdfast_repository::snapshots::{SavedSnapshot, Selected, Snapshots, select};
use holdfast_repository::{LockOptions, Monitor, OpenOptions, Repository};

use crate::open::{self, IfMissing, OpenError};
use crate::volumes::{self, Use, VolumeError};

/// Why a recovery failed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A directory that is restored into cannot be had.
    #[error("directory for {path}")]
    Volume {
        /// The path in the snapshot.
        path: String,
        /// Why.
        #[source]
        source: VolumeError,
    },
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A pattern makes no sense.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// There is no such snapshot, or no such path in it.
    #[error("no snapshot to recover {path} from")]
    Select {
        /// The path in the snapshot.
        path: String,
        /// Why.
        #[source]
        source: holdfast_repository::Error,
    },
    /// No host is said, and several have stored the path: the latest snapshot would be anybody's.
    #[error("several hosts have stored {path}: {hosts}; say by `spec.host` whose data is meant")]
    Hosts {
        /// The path in the snapshots.
        path: String,
        /// Their names.
        hosts: String,
    },
    /// The patterns matched nothing at all: who asked for a file and got none was not served.
    #[error(
        "{recovery}: nothing in {snapshot} matches its `include` {include}: patterns are matched against whole paths of the \
         snapshot, as `/data/drafts` or `*.md`; `holdfast repo -r {location} ls {one}` shows what is there"
    )]
    NothingIncluded {
        /// The Recovery.
        recovery: String,
        /// Its patterns.
        include: String,
        /// The snapshot; of several, their ids.
        snapshot: String,
        /// One of them.
        one: String,
        /// The repository, as restic would open it.
        location: String,
    },
    /// The restore failed.
    #[error("cannot recover {path}")]
    Restore {
        /// The path in the snapshot.
        path: String,
        /// Why.
        #[source]
        source: holdfast_repository::Error,
    },
}

/// What a recovery did.
#[derive(Debug, Default)]
pub struct Done {
    /// The host of the snapshot.
    pub host: String,
    /// The snapshots that were restored from.
    pub snapshots: Vec<String>,
    /// Files restored, or found as they should be.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files, links and devices left as they were, since they are not older than the snapshot's.
    pub kept: u64,
    /// What could not be restored.
    pub errors: u64,
}

/// Runs a recovery.
pub fn run(
    planned: &PlannedRecovery,
    at: &PlannedRepository,
    objects: &[Object],
    volumes: &Path,
    lock: &LockOptions,
    monitor: &Monitor,
) -> Result<Done, RecoveryError> {
    let (include, exclude) =
        (PatternList::new(&planned.include, Case::Sensitive)?, PatternList::new(&planned.exclude, Case::Sensitive)?);
    let repository = open::open(at, objects, OpenOptions::default(), IfMissing::Fail, monitor)?;
    // All paths are found before anything is written.
    let mut done = Done::default();
    let mut trees = Vec::new();
    for Restore { path, into } in &planned.restore {
        let selected = choose(&repository, &planned.snapshot, path)?;
        done.host.clone_from(&selected.saved.snapshot.hostname);
        let snapshot = selected.saved.id.short().to_string();
        if !done.snapshots.contains(&snapshot) {
            done.snapshots.push(snapshot);
        }
        // With a part of the files, the folder as it is stays.
        let whole = planned.include.is_empty();
        let entry = if whole { selected.entry(&repository) } else { Ok(None) };
        let entry = entry.map_err(|source| RecoveryError::Select { path: path.clone(), source })?;
        trees.push((path, into, selected.tree, entry));
    }
    let mut matched = 0;
    for (path, into, tree, entry) in trees {
        let target = volumes::prepare(into, volumes, objects, Use::Write)
            .map_err(|source| RecoveryError::Volume { path: path.clone(), source })?;
        let options = RestoreOptions {
            include: vec![include.clone()],
            exclude: vec![exclude.clone()],
            // As those of a Backup.
            patterns_from: path.trim_end_matches('/').as_bytes().to_vec(),
            // Who owns the folder and who may enter it is part of the data: a database refuses to start in a directory
            // that others may read.
            target_metadata: entry,
            overwrite: if planned.overwrite_newer { Overwrite::Always } else { Overwrite::IfNewer },
            delete: planned.delete_extra,
            lock: Some(lock.clone()),
            ..RestoreOptions::new(&target)
        };
        let report = restore(&repository, &tree, &options, monitor)
            .map_err(|source| RecoveryError::Restore { path: path.clone(), source })?;
        matched += report.files_restored
            + report.files_unchanged
            + report.skipped
            + report.dirs
            + report.others
            + report.removed
            + report.errors;
        done.files += report.files_restored + report.files_unchanged;
        done.bytes += report.bytes_restored + report.bytes_unchanged;
        done.kept += report.skipped;
        done.errors += report.errors;
    }
    if matched == 0 && !planned.include.is_empty() {
        return Err(RecoveryError::NothingIncluded {
            recovery: planned.object.to_string(),
            include: planned.include.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", "),
            snapshot: done.snapshots.join(", "),
            one: done.snapshots.first().cloned().unwrap_or_default(),
            location: at.location.clone(),
        });
    }
    Ok(done)
}

/// The named snapshot, or the latest one that holds the path: one whose paths include it or a folder above it.
fn choose(repository: &Repository, choice: &SnapshotChoice, path: &str) -> Result<Selected, RecoveryError> {
    let SnapshotChoice { id, host } = choice;
    let filter = SnapshotFilter { hosts: host.iter().cloned().collect(), ..SnapshotFilter::default() };
    let failed = |source| RecoveryError::Select { path: path.to_owned(), source };
    if id != "latest" {
        return select(repository, &format!("{id}:{path}"), &filter).map_err(failed);
    }
    // A snapshot that cannot be read may be the latest one: restoring an older one in silence would be worse than failing.
    let snapshots = Snapshots::load(repository).and_then(Snapshots::complete).map_err(failed)?;
    let holds = |saved: &&SavedSnapshot| {
        filter.matches(&saved.snapshot) && saved.snapshot.paths.iter().any(|above| Path::new(path).starts_with(above))
    };
    let hosts: BTreeSet<&str> = snapshots.iter().filter(holds).map(|saved| saved.snapshot.hostname.as_str()).collect();
    if hosts.len() > 1 {
        let hosts: Vec<String> = hosts.into_iter().map(|host| format!("`{host}`")).collect();
        return Err(RecoveryError::Hosts { path: path.to_owned(), hosts: hosts.join(", ") });
    }
    let Some(latest) = snapshots.iter().rev().find(holds) else {
        let of_host = host.as_ref().map(|host| format!(" of host {host}")).unwrap_or_default();
        let problem = format!("the repository has no snapshot{of_host} that holds it");
        return Err(failed(holdfast_repository::Error::Selection(problem)));
    };
    select(repository, &format!("{}:{path}", latest.id), &SnapshotFilter::default()).map_err(failed)
}

impl RecoveryError {
    pub(crate) fn is_interrupted(&self) -> bool {
        match self {
            Self::Open(error) => error.is_interrupted(),
            Self::Select { source, .. } | Self::Restore { source, .. } => {
                matches!(source, holdfast_repository::Error::Interrupted)
            }
            _ => false,
        }
    }

    /// Whether another Secret would help.
    pub(crate) fn is_of_secret(&self, planned: &PlannedRepository) -> bool {
        matches!(self, Self::Open(error) if error.is_of_secret(planned))
    }

    /// Whether there is nothing yet that could be recovered: no repository, or no snapshot of the path.
    pub(crate) fn is_nothing_yet(&self) -> bool {
        match self {
            Self::Open(error) => error.is_missing(),
            Self::Select { source, .. } => matches!(source, holdfast_repository::Error::Selection(_)),
            _ => false,
        }
    }
}
