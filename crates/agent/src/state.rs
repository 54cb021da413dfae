//! What is remembered from one run to the next, in one file that is replaced whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_api::values::Secret;
use holdfast_plan::{BackupHistory, Due, ObjectKey, Observed, PlannedBackup, PlannedRecovery, Reason, RecoveryHistory};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

/// How many past runs of each backup and recovery are kept.
pub const HISTORY_MAX: usize = 20;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// What stands in the file is not a state.
    #[error("{} is damaged: it holds only what was done when, the backups are not affected; remove it", path.display())]
    Damaged {
        /// The file, or where it was moved to.
        path: PathBuf,
        /// How it does not parse.
        #[source]
        source: serde_json::Error,
    },
    /// Another program works on the same folder.
    #[error("another holdfast works with {}", path.display())]
    InUse {
        /// The folder of its state.
        path: PathBuf,
    },
}

/// Everything remembered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// What the planner must know.
    pub observed: Observed,
    /// What runs, by id, with what was known of it before: a run that the program did not live to see end counts for
    /// nothing, and is due again.
    pub running: BTreeMap<String, Before>,
    /// The triggers that each running backup serves.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub serving: BTreeMap<String, Vec<String>>,
    /// When the first of the runs began that were cut off since the last one that ended, by id of the backup: one of them
    /// may have stored its snapshot.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cut_off: BTreeMap<String, Timestamp>,
    /// Runs by id of the planned backup or recovery.
    pub runs: BTreeMap<String, Runs>,
    /// Repositories by id.
    pub repositories: BTreeMap<String, RepositoryState>,
    /// How many events the objects of each `namespace/name` have had: events are numbered by it, and no two of a namespace
    /// have one name, though a Backup and its Repository may.
    pub event_counts: BTreeMap<String, u64>,
    /// The recoveries whose last run failed by what a Secret holds: known to this program only.
    #[serde(skip)]
    pub of_secret: BTreeSet<String>,
}

/// What was known of a backup or recovery before a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Before {
    /// Of a backup.
    Backup(BackupHistory),
    /// Of a recovery.
    Recovery(RecoveryHistory),
}

impl State {
    /// A backup begins, in the repository at `location`.
    pub fn begin_backup(&mut self, PlannedBackup { id, revision, .. }: &PlannedBackup, location: &str, now: Timestamp) {
        let history = self.observed.backups.entry(id.clone()).or_default();
        self.running.insert(id.clone(), Before::Backup(history.clone()));
        history.begin(revision, now);
        self.observed.running.insert(id.clone(), location.to_owned());
    }

    /// A recovery begins, from the repository at `location`.
    pub fn begin_recovery(&mut self, planned: &PlannedRecovery, location: &str, now: Timestamp) {
        let PlannedRecovery { id, occasion, revision, .. } = planned;
        self.of_secret.remove(id);
        let history = self.observed.recoveries.entry(id.clone()).or_default();
        self.running.insert(id.clone(), Before::Recovery(history.clone()));
        history.begin(occasion, revision, now);
        self.observed.running.insert(id.clone(), location.to_owned());
    }

    /// A run was cut off: it is as if it had not begun.
    pub fn take_back(&mut self, id: &str) {
        self.serving.remove(id);
        self.observed.running.remove(id);
        match self.running.remove(id) {
            Some(Before::Backup(before)) => {
                let history = self.observed.backups.insert(id.to_owned(), before);
                if let Some(start) = history.and_then(|history| history.last_start) {
                    self.cut_off.entry(id.to_owned()).or_insert(start);
                }
            }
            Some(Before::Recovery(before)) => _ = self.observed.recoveries.insert(id.to_owned(), before),
            None => {}
        }
    }

    /// Takes back every run that a program which is gone had begun.
    pub fn take_back_all(&mut self) {
        let ids: Vec<String> = self.running.keys().cloned().collect();
        ids.iter().for_each(|id| self.take_back(id));
        self.observed.running.clear();
    }

    /// A backup ended.
    pub fn end_backup(&mut self, id: &str, run: Run) {
        self.serving.remove(id);
        self.running.remove(id);
        self.cut_off.remove(id);
        self.observed.running.remove(id);
        for trigger in &run.triggers {
            self.observed.triggers.entry(trigger.clone()).or_default().insert(id.to_owned());
        }
        let history = self.observed.backups.entry(id.to_owned()).or_default();
        history.last_end = Some(run.end);
        if run.outcome == Outcome::Succeeded {
            history.last_success = Some(run.end);
            history.attempts = 0;
        }
        self.runs.entry(id.to_owned()).or_default().push(run);
    }

    /// When the first of the runs began that were to do what is due now and did not tell of a snapshot.
    pub fn begun(&self, due: &Due) -> Option<Timestamp> {
        let is_same = |run: &Run| {
            due.reason == Reason::Retry || run.triggers.iter().any(|trigger| due.triggers.contains(trigger))
        };
        let history = self.runs.get(&due.id).map_or(&[][..], |runs| runs.history.as_slice());
        let failed = history.iter().take_while(|run| run.outcome == Outcome::Failed && is_same(run)).last();
        let cut_off = self.cut_off.get(&due.id).copied();
        failed.map(|run| run.start).into_iter().chain(cut_off).min()
    }

    /// A recovery for an occasion ended; `no_snapshot` says that there was nothing yet to recover from.
    pub fn end_recovery(
        &mut self,
        PlannedRecovery { id, occasion, restore, .. }: &PlannedRecovery,
        no_snapshot: bool,
        run: Run,
    ) {
        self.running.remove(id);
        self.observed.running.remove(id);
        let history = self.observed.recoveries.entry(id.to_owned()).or_default();
        history.last_end = Some(run.end);
        history.no_snapshot = no_snapshot;
        if run.outcome == Outcome::Succeeded {
            history.recovered = Some(occasion.to_owned());
            history.restored = restore.iter().map(|restore| restore.path.clone()).collect();
            history.attempts = 0;
        }
        self.runs.entry(id.to_owned()).or_default().push(run);
    }

    /// The number of an object's next event.
    pub fn next_event(&mut self, object: &ObjectKey) -> u64 {
        let count = self.event_counts.entry(format!("{}/{}", object.namespace, object.name)).or_default();
        *count += 1;
        *count
    }
}

/// The runs of one backup or recovery.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Runs {
    /// How many there were, also those no longer kept.
    pub count: u64,
    /// How many of them succeeded.
    pub succeeded: u64,
    /// How many failed.
    pub failed: u64,
    /// The seconds of all of them.
    pub seconds_total: f64,
    /// The first success.
    pub first_success: Option<Timestamp>,
    /// The last ones, newest first, at most [`HISTORY_MAX`].
    pub history: Vec<Run>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All is saved, or restored.
    Succeeded,
    /// There is a snapshot, but some entries could not be read; or a restore that could not write some.
    Incomplete,
    /// Nothing was saved.
    Failed,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// When it started.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The host name of its snapshots.
    pub host: String,
    /// The snapshots it made, or restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
    /// Files processed.
    pub files: u64,
    /// Bytes processed.
    pub bytes: u64,
    /// Bytes that were new to the repository, as stored.
    pub bytes_added: u64,
    /// Snapshots forgotten after it.
    #[serde(default)]
    pub forgotten: u64,
    /// By a recovery: files left as they were, being no older than in the snapshot.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept: u64,
    /// What went wrong, or could not be read; empty when nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The triggers it served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
    /// What is worth knowing about it, and no failure: a stale lock that was removed, a socket that was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Run {
    /// A run of which nothing else is known, as yet.
    pub(crate) fn new(start: Timestamp, end: Timestamp, outcome: Outcome) -> Self {
        Self {
            start,
            end,
            outcome,
            host: String::new(),
            snapshots: Vec::new(),
            files: 0,
            bytes: 0,
            bytes_added: 0,
            forgotten: 0,
            kept: 0,
            error: String::new(),
            triggers: Vec::new(),
            notes: Vec::new(),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Run {
    /// How long it took.
    pub fn duration(&self) -> SignedDuration {
        self.end.duration_since(self.start)
    }
}

impl Runs {
    /// Adds a run, dropping the oldest beyond the limit.
    pub fn push(&mut self, run: Run) {
        self.count += 1;
        self.seconds_total += run.duration().as_secs_f64();
        match run.outcome {
            Outcome::Succeeded => {
                self.succeeded += 1;
                self.first_success.get_or_insert(run.end);
            }
            Outcome::Incomplete | Outcome::Failed => self.failed += 1,
        }
        self.history.insert(0, run);
        self.history.truncate(HISTORY_MAX);
    }

    /// The last run that succeeded, of those kept.
    pub fn last_success(&self) -> Option<&Run> {
        self.history.iter().find(|run| run.outcome == Outcome::Succeeded)
    }
}

/// What is known of a repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RepositoryState {
    /// Whether the last check found it whole; none before the first.
    pub integrity: Option<bool>,
    /// What the last check found, when it found anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// When it was last checked.
    pub last_check: Option<Timestamp>,
    /// The bytes it takes.
    pub size_bytes: u64,
    /// How many snapshots it holds.
    pub snapshot_count: u64,
    /// How many the last retention removed.
    pub snapshots_removed_on_last_cleanup: u64,
    /// Where the last backup into it went: a repository that is missing there is not made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_location: Option<String>,
    /// The first backup into it.
    pub first_backup_time: Option<Timestamp>,
    /// The last backup into it.
    pub last_backup_time: Option<Timestamp>,
}

/// How long another holder of the state's folder is waited for: one that ends, or only looks.
const LOCK_WITHIN: Duration = Duration::from_secs(2);

/// The state's folder, held alone by this program.
pub struct StateFolder {
    path: PathBuf,
    _lock: File,
}

impl StateFolder {
    /// Opens, or makes, the folder. Fails when another program holds it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { operation, path, source }
        };
        std::fs::create_dir_all(path).map_err(io("create", path))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        let deadline = Instant::now() + LOCK_WITHIN;
        loop {
            // Given back by the kernel, however this program ends.
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { path: path.to_owned(), _lock: lock }),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                Err(Errno::WOULDBLOCK) => return Err(StateError::InUse { path: path.to_owned() }),
                Err(error) => return Err(io("lock", &lock_path)(error.into())),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The remembered state; none at all is an empty one. One that is damaged is kept aside and reported.
    pub fn load(&self) -> Result<State, StateError> {
        let path = self.path.join("state.json");
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
            Err(source) => Err(StateError::Io { operation: "read", path, source }),
            Ok(json) => serde_json::from_slice(&json).map_err(|source| {
                let aside = self.path.join("state.json.damaged");
                let _ = std::fs::rename(&path, &aside);
                StateError::Damaged { path: aside, source }
            }),
        }
    }

    /// Writes the state: after a crash there is the old one or the new one, never a part.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        self.replace("state.json", 0o666, |file| {
            serde_json::to_writer_pretty(&mut *file, state)?;
            file.write_all(b"\n")
        })
    }

    /// The key for [`Settings::revision_key`](holdfast_plan::Settings::revision_key), made if there is none. It is not in
    /// the state, which people show to others.
    pub fn revision_key(&self) -> Result<RevisionKey, StateError> {
        if let Some(key) = peek_revision_key(&self.path) {
            return Ok(key);
        }
        let mut key = [0; 32];
        let path = || self.path.join(REVISION_KEY);
        let filled = getrandom(&mut key, GetRandomFlags::empty()).map_err(|error| StateError::Io {
            operation: "draw random numbers for",
            path: path(),
            source: error.into(),
        })?;
        if filled < key.len() {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(StateError::Io { operation: "draw random numbers for", path: path(), source });
        }
        self.replace(REVISION_KEY, 0o600, |file| file.write_all(&key))?;
        Ok(Secret::new(key))
    }

    /// Replaces a file as a whole.
    fn replace(
        &self,
        name: &str,
        mode: u32,
        write: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<(), StateError> {
        let path = self.path.join(name);
        let new = self.path.join(format!("{name}.new"));
        let replace = || {
            let mut file = File::options().create(true).truncate(true).write(true).mode(mode).open(&new)?;
            write(&mut file)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        };
        replace().map_err(|source| StateError::Io { operation: "write", path: path.clone(), source })
    }
}

/// The file of [`StateFolder::revision_key`].
const REVISION_KEY: &str = "revision.key";

/// What [`Settings::revision_key`](holdfast_plan::Settings::revision_key) takes.
pub type RevisionKey = Secret<[u8; 32]>;

/// A key for as long as this program runs, where there is no place to keep one.
pub(crate) fn new_revision_key() -> RevisionKey {
    let mut key = [0; 32];
    // Without random numbers there is still a key, which nobody sees either.
    let _ = getrandom(&mut key, GetRandomFlags::empty());
    Secret::new(key)
}

/// The [`StateFolder::revision_key`] of a folder that another program may be holding; none where none was made yet.
pub fn peek_revision_key(folder: &Path) -> Option<RevisionKey> {
    let bytes = std::fs::read(folder.join(REVISION_KEY)).ok()?;
    bytes.try_into().ok().map(Secret::new)
}

/// Reads the state of a folder that another program may be holding; if none does, nothing runs.
pub fn peek(folder: &Path) -> Result<State, StateError> {
    let path = folder.join("state.json");
    let mut state: State = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
        Err(source) => Err(StateError::Io { operation: "read", path, source }),
        Ok(json) => serde_json::from_slice(&json).map_err(|source| StateError::Damaged { path, source }),
    }?;
    let is_held = File::open(folder.join("lock"))
        .is_ok_and(|lock| rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK));
    if !is_held {
        state.take_back_all();
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_program_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = StateFolder::open(folder.path()).unwrap();
        assert!(matches!(StateFolder::open(folder.path()), Err(StateError::InUse { .. })));
        drop(held);
        StateFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn what_a_dead_program_was_at_does_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let held = StateFolder::open(folder.path()).unwrap();
        let mut state = State::default();
        let id = "Backup/demo/web/web".to_owned();
        state.running.insert(id.clone(), Before::Backup(BackupHistory::default()));
        state.observed.running.insert(id.clone(), "/repository".to_owned());
        state.observed.backups.entry(id.clone()).or_default().begin("revision", Timestamp::UNIX_EPOCH);
        held.save(&state).unwrap();
        assert_eq!(peek(folder.path()).unwrap().running.len(), 1);
        drop(held);
        let state = peek(folder.path()).unwrap();
        assert!(state.running.is_empty());
        assert_eq!(state.observed.backups[&id], BackupHistory::default());
    }

    #[test]
    fn the_key_of_revisions_stays_and_is_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let held = StateFolder::open(folder.path()).unwrap();
        assert!(peek_revision_key(folder.path()).is_none());
        let key = held.revision_key().unwrap();
        assert_ne!(key, Secret::default());
        assert_eq!((held.revision_key().unwrap(), peek_revision_key(folder.path())), (key.clone(), Some(key)));
        let mode = std::fs::metadata(folder.path().join(REVISION_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(folder.path().join(REVISION_KEY), "short").unwrap();
        assert_eq!(held.revision_key().unwrap().expose().len(), 32);
    }

    #[test]
    fn no_two_events_of_a_namespace_have_one_name() {
        let mut state = State::default();
        let mut next = |kind: &str, namespace: &str| state.next_event(&ObjectKey::new(kind, namespace, "web"));
        assert_eq!([next("Backup", "a"), next("Repository", "a"), next("Backup", "b")], [1, 2, 1]);
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let held = StateFolder::open(folder.path()).unwrap();
        let mut state = held.load().unwrap();
        assert!(state.runs.is_empty());
        state.event_counts.insert("demo/web".into(), 7);
        held.save(&state).unwrap();
        assert_eq!(held.load().unwrap().event_counts, state.event_counts);
    }

    #[test]
    fn a_damaged_state_is_reported_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let held = StateFolder::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("state.json"), "{\"runs\": 7}").unwrap();
        assert!(matches!(held.load(), Err(StateError::Damaged { .. })));
        assert!(folder.path().join("state.json.damaged").exists());
    }

    #[test]
    fn what_is_due_counts_from_the_first_run_that_was_cut_off() {
        let time = |second| Timestamp::from_second(second).unwrap();
        let id = "Backup/demo/web/web";
        let due = |reason, triggers: &[&str]| {
            let triggers = triggers.iter().map(|&trigger| trigger.to_owned()).collect();
            Due { id: id.to_owned(), reason, since: time(50), triggers, waits_for: None }
        };
        let mut state = State::default();
        let runs =
            [(10, Outcome::Succeeded, "demo/a"), (20, Outcome::Failed, "demo/b"), (30, Outcome::Failed, "demo/b")];
        for (start, outcome, trigger) in runs {
            let run = Run { triggers: vec![trigger.to_owned()], ..Run::new(time(start), time(start + 5), outcome) };
            state.end_backup(id, run);
        }
        for (reason, triggers, expected) in [
            (Reason::Retry, &[][..], Some(20)),
            (Reason::Trigger, &["demo/c", "demo/b"][..], Some(20)),
            (Reason::Trigger, &["demo/a"][..], None),
            (Reason::Schedule, &[][..], None),
        ] {
            assert_eq!(state.begun(&due(reason, triggers)), expected.map(time), "{reason:?} {triggers:?}");
        }
        // Taken back, it is due as if for the first time.
        for (start, ended) in [(40, None), (45, None), (50, Some(Outcome::Succeeded))] {
            state.running.insert(id.to_owned(), Before::Backup(BackupHistory::default()));
            state.observed.backups.entry(id.to_owned()).or_default().begin("revision", time(start));
            match ended {
                Some(outcome) => state.end_backup(id, Run::new(time(start), time(start + 5), outcome)),
                None => state.take_back(id),
            }
            assert_eq!(state.begun(&due(Reason::Schedule, &[])), ended.is_none().then_some(time(40)));
        }
    }

    #[test]
    fn history_is_bounded() {
        let mut runs = Runs::default();
        for n in 0..50 {
            let start = Timestamp::from_second(n * 100).unwrap();
            let end = Timestamp::from_second(n * 100 + 5).unwrap();
            let outcome = if n % 2 == 0 { Outcome::Succeeded } else { Outcome::Failed };
            runs.push(Run::new(start, end, outcome));
        }
        assert_eq!((runs.count, runs.succeeded, runs.failed, runs.history.len()), (50, 25, 25, HISTORY_MAX));
        assert_eq!(runs.last_success().unwrap().start.as_second(), 4800);
        assert_eq!(runs.seconds_total, 250.0);
    }
}
