//! The plan: what would be done, in full, so that whoever carries it out has no choice left to make.
//!
//! It serializes to the stable form that `holdfast plan` prints. It holds no value of a Secret, only the
//! names of the keys. Lists are sorted by name, so that the same input gives the same text.

use std::collections::BTreeMap;

use holdfast_api::manifest::Problem;
use holdfast_api::stash::{Backup, Compression, RecoveryPolicy, Repository};
use holdfast_api::values::{Duration, RetentionPolicy};
use jiff::Timestamp;
use serde::Serialize;

use crate::key::{ObjectKey, Target};
use crate::retry::Retry;
use crate::source::{Directory, DirectorySource};

/// What would be done.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Every repository that a backup or recovery uses, or that is declared.
    pub repositories: Vec<PlannedRepository>,
    /// One entry per backup object and host.
    pub backups: Vec<PlannedBackup>,
    /// One entry per recovery object and host.
    pub recoveries: Vec<PlannedRecovery>,
    /// Every BackupTrigger that names a planned backup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<PlannedTrigger>,
    /// Objects made for workloads that ask for the default backup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generated: Vec<Generated>,
    /// What is due, in the order in which it is to start.
    pub due: Vec<Due>,
    /// When something is due next if nothing changes until then; none when nothing is scheduled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What keeps an object from being carried out.
    #[serde(serialize_with = "lines", skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
    /// What is carried out, but perhaps not as meant.
    #[serde(serialize_with = "lines", skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Problem>,
}

/// Problems print as the lines a person reads.
fn lines<S: serde::Serializer>(problems: &[Problem], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(problems.iter().map(Problem::to_string))
}

/// A repository and what opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedRepository {
    /// `namespace/name`; for the repositories of a `Restic` the name is that of the host, as in `deployment.web`.
    pub id: String,
    /// Where it is, as restic writes it: a directory, or `s3:…`, `gs:…`. Two ids with one location are one
    /// repository, and never used at once.
    pub location: String,
    /// For a repository in a volume: which volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<DirectorySource>,
    /// The region of an S3 bucket, where the manifest names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Name of the Secret that opens it, in the repository's namespace.
    pub secret: String,
    /// Environment variables of restic and the key of the Secret that gives each its value.
    pub env: BTreeMap<String, String>,
    /// The object that this repository comes from, where that is not a written Repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_by: Option<ObjectKey>,
}

impl PlannedRepository {
    /// The namespace of the repository and of its Secret.
    pub fn namespace(&self) -> &str {
        self.id.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

/// One backup of one host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedBackup {
    /// `<Kind>/<namespace>/<name>/<host>`: what past runs are recorded under.
    pub id: String,
    /// The `Backup` or `Restic`.
    pub object: ObjectKey,
    /// What is backed up.
    pub target: Target,
    /// The host name of the snapshots.
    pub host: String,
    /// The repository's id.
    pub repository: String,
    /// The snapshots that one run makes, in this order.
    pub snapshots: Vec<PlannedSnapshot>,
    /// Patterns of what is left out, in restic's notation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Whether directories marked by `CACHEDIR.TAG` are left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exclude_caches: bool,
    /// How hard data is compressed.
    pub compression: Compression,
    /// The AgentTemplate that does it on a cluster.
    pub agent: String,
    /// The schedule as written; none when only triggers start it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The time zone the schedule is read in, where the manifest names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Whether the schedule rests.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How failed runs are tried again.
    pub retry: Retry,
    /// How long a run may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_out: Option<Duration>,
    /// When it is due next by schedule or retry; absent when it is due, runs, or has no schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What the run depends on, manifests and Secrets: recorded with each run, a failed one is due again at once when it
    /// has changed. Not printed.
    #[serde(skip)]
    pub revision: String,
}

/// One snapshot of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSnapshot {
    /// The directories it holds; their paths are the snapshot's paths.
    pub directories: Vec<Directory>,
    /// Its tags: one that names the object, so that its retention touches no other's snapshots, then the user's.
    pub tags: Vec<String>,
    /// What is forgotten after the run; absent when every snapshot stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// Which snapshots are forgotten after a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Only snapshots of this host count.
    pub host: String,
    /// Only snapshots with all of these tags count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Only snapshots of exactly these paths count; empty: of any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The rules. All snapshots that count are one group.
    pub policy: RetentionPolicy,
}

/// One recovery into one host or volume.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedRecovery {
    /// `Recovery/<namespace>/<name>/<host>`: what past runs are recorded under.
    pub id: String,
    /// The `Recovery`.
    pub object: ObjectKey,
    /// The workload whose volumes are written; none for a recovery into volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The repository's id.
    pub repository: String,
    /// Which snapshot.
    pub snapshot: SnapshotChoice,
    /// What goes where.
    pub restore: Vec<Restore>,
    /// Patterns of what is restored; empty: everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Patterns of what is not restored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Whether files newer than the snapshot may be overwritten.
    pub overwrite_newer: bool,
    /// Whether files that are not in the snapshot are deleted.
    pub delete_extra: bool,
    /// The AgentTemplate that does it on a cluster.
    pub agent: String,
    /// Once, or at each start of the workload.
    pub policy: RecoveryPolicy,
    /// What this recovery is for: recorded with its success, it is not done again until it changes.
    pub occasion: String,
    /// How failed runs are tried again.
    pub retry: Retry,
    /// How long a run may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_out: Option<Duration>,
    /// How it stands.
    pub state: RecoveryState,
    /// What the run depends on, as that of a [`PlannedBackup`].
    #[serde(skip)]
    pub revision: String,
}

/// How a recovery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RecoveryState {
    /// Done for this occasion.
    Recovered,
    /// Due, or waiting for its next try.
    Pending,
    /// It runs.
    Running,
    /// It failed as often as it may; a person has to look.
    Failed,
}

/// Which snapshot is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotChoice {
    /// A snapshot's id or a unique start of it; or `latest`: for each path the latest snapshot that holds it, which is
    /// one whose paths include it or a folder above it.
    pub id: String,
    /// Only snapshots of this host count; none: of any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A path of the snapshot and the directory it is restored into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// The path in the snapshot, absolute and clean.
    pub path: String,
    /// Where its content goes.
    pub into: DirectorySource,
}

/// A trigger and the runs it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedTrigger {
    /// `namespace/name` of the BackupTrigger.
    pub id: String,
    /// The ids of the backups it starts, each once.
    pub backups: Vec<String>,
    /// Whether all of them have run.
    pub done: bool,
}

/// An object made from a BackupTemplate.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Generated {
    /// The repository of one workload.
    Repository(Box<Repository>),
    /// The backup of one workload.
    Backup(Box<Backup>),
}

/// Something that is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Due {
    /// Id of the backup or recovery.
    pub id: String,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Timestamp,
    /// The triggers that the run serves, as `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
    /// What it waits for; absent: it starts now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Wait>,
}

/// Why something is due; what stands first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// A Recovery asks for it.
    Recovery,
    /// A BackupTrigger asks for it.
    Trigger,
    /// Its schedule says so; a run missed while the program was down is among these.
    Schedule,
    /// The last run failed or was cut short.
    Retry,
}

/// What a due run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Wait {
    /// Another run on the same repository, by id.
    Repository(String),
    /// A recovery into the same directories, by id: one that runs, or is to be done before a backup stores what it
    /// replaces.
    Recovery(String),
    /// A running backup of the same directories, by id, which a recovery must not change under it.
    Backup(String),
    /// As many runs as allowed go on at once.
    Slot,
}
