//! One run, in a thread of its own: a backup or a recovery, and what becomes known of the repository by it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_api::manifest::Outcome as Manifests;
use holdfast_repository::check::{CheckOptions, Severity, check};
use holdfast_repository::format::FileKind;
use holdfast_repository::{Error as RepositoryError, Event, LockOptions, Monitor, Repository, chain};
use jiff::{SignedDuration, Timestamp};

use crate::backup;
use crate::follow::Task;
use crate::recovery;
use crate::state::Outcome;
use crate::way_out::way_out;

/// A repository is checked when its last check is this old.
const CHECK_EVERY: SignedDuration = SignedDuration::from_hours(3 * 24);
/// How many errors, and how many notes, of a run are remembered word by word.
const REMEMBERED_MAX: usize = 10;

/// What a run needs.
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) task: Task,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) volumes: PathBuf,
    pub(crate) lock: LockOptions,
    pub(crate) monitor: Monitor,
    pub(crate) heard: Arc<Mutex<Heard>>,
}

/// What a run's monitor told, word by word: the first few of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    errors: Vec<String>,
    notes: Vec<String>,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) outcome: Outcome,
    pub(crate) host: String,
    pub(crate) snapshots: Vec<String>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_added: u64,
    pub(crate) forgotten: u64,
    pub(crate) kept: u64,
    pub(crate) errors: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) interrupted: bool,
    pub(crate) repository: Option<RepositoryFigures>,
    pub(crate) check: Option<Checked>,
    pub(crate) retention_error: Option<String>,
    pub(crate) no_snapshot: bool,
    /// Whether another Secret would help.
    pub(crate) of_secret: bool,
}

/// What a repository holds.
pub(crate) struct RepositoryFigures {
    pub(crate) size_bytes: u64,
    pub(crate) snapshot_count: u64,
}

/// What a check found, if it could be made.
pub(crate) struct Checked {
    pub(crate) result: Result<Vec<String>, String>,
}

/// A monitor that remembers what it is told, and passes notes on as they come.
pub(crate) fn monitor(heard: &Arc<Mutex<Heard>>, note: impl Fn(&str) + Send + Sync + 'static) -> Monitor {
    let heard = Arc::clone(heard);
    let listen = move |event: Event| match event {
        Event::Error { .. } => {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            if heard.errors.len() < REMEMBERED_MAX {
                heard.errors.push(event.text());
            }
        }
        Event::Note { .. } => {
            let text = event.text();
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            if heard.notes.len() < REMEMBERED_MAX && !heard.notes.contains(&text) {
                note(&text);
                heard.notes.push(text);
            }
        }
        _ => {}
    };
    Monitor::new(listen, false)
}

impl Ended {
    /// A run of which nothing else is known, as yet.
    fn new(id: String, outcome: Outcome, host: String) -> Self {
        Self {
            id,
            outcome,
            host,
            snapshots: Vec::new(),
            files: 0,
            bytes: 0,
            bytes_added: 0,
            forgotten: 0,
            kept: 0,
            errors: Vec::new(),
            notes: Vec::new(),
            interrupted: false,
            repository: None,
            check: None,
            retention_error: None,
            no_snapshot: false,
            of_secret: false,
        }
    }

    fn failed(id: String, host: String, error: String, interrupted: bool) -> Self {
        Self { errors: vec![error], interrupted, ..Self::new(id, Outcome::Failed, host) }
    }
}

impl Job {
    /// Does it. Whatever goes wrong is in the outcome; a panic is one more way to fail.
    pub(crate) fn run(self) -> Ended {
        let (id, heard) = (self.id.clone(), Arc::clone(&self.heard));
        let ended = caught(id, || self.try_run());
        let Heard { errors, notes } = heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What was not read or written is told item by item.
        let errors = if ended.outcome == Outcome::Incomplete { errors } else { ended.errors };
        let notes = notes.into_iter().chain(ended.notes).collect();
        Ended { errors, notes, ..ended }
    }

    fn try_run(self) -> Ended {
        let Self { id, task, manifests, volumes, lock, monitor, heard: _ } = self;
        let objects = &manifests.objects;
        let outcome = |incomplete| if incomplete { Outcome::Incomplete } else { Outcome::Succeeded };
        match task {
            Task::Backup { planned, repository: at, earlier, last_check } => {
                match backup::run(&planned, &at, objects, &volumes, earlier, &lock, &monitor) {
                    Err(error) => {
                        Ended::failed(id, planned.host, explained(&error, &at.location), is_interrupted(&error))
                    }
                    Ok((repository, done)) => {
                        let sum = |figure: fn(&holdfast_repository::backup::BackupReport) -> u64| {
                            done.reports.iter().map(figure).sum()
                        };
                        let snapshots = done.reports.iter().filter_map(|report| report.snapshot);
                        let outcome = outcome(done.reports.iter().any(|report| report.errors > 0));
                        Ended {
                            snapshots: snapshots.map(|id| id.short().to_string()).collect(),
                            files: sum(|report| report.summary.total_files_processed),
                            bytes: sum(|report| report.summary.total_bytes_processed),
                            bytes_added: sum(|report| report.summary.data_added_packed),
                            forgotten: done.forgotten,
                            notes: done.notes,
                            repository: figures(&repository),
                            check: check_if_due(&repository, last_check, lock, &monitor),
                            // A program that stops leaves the rest to the next run.
                            retention_error: done
                                .retention_error
                                .filter(|error| !matches!(error, RepositoryError::Interrupted))
                                .map(|error| explained(&error, &at.location)),
                            ..Ended::new(id, outcome, planned.host)
                        }
                    }
                }
            }
            Task::Recovery { planned, repository: at } => {
                match recovery::run(&planned, &at, objects, &volumes, &lock, &monitor) {
                    Err(error) => {
                        let (no_snapshot, interrupted) = (error.is_nothing_yet(), error.is_interrupted());
                        let of_secret = error.is_of_secret(&at);
                        let error = explained(&error, &at.location);
                        Ended { no_snapshot, of_secret, ..Ended::failed(id, String::new(), error, interrupted) }
                    }
                    Ok(done) => Ended {
                        snapshots: done.snapshots,
                        files: done.files,
                        bytes: done.bytes,
                        kept: done.kept,
                        ..Ended::new(id, outcome(done.errors > 0), done.host)
                    },
                }
            }
        }
    }
}

/// A panic is a defect of this program, and must not keep it from its other work.
fn caught(id: String, run: impl FnOnce() -> Ended) -> Ended {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    outcome.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let error = format!("a defect in holdfast ended the run, please report it: {}", said.unwrap_or("no message"));
        Ended::failed(id, String::new(), error, false)
    })
}

/// An error with all its causes and the way out, in one line.
fn explained(error: &(dyn std::error::Error + 'static), location: &str) -> String {
    match way_out(error, location) {
        Some(way_out) => format!("{}; {way_out}", chain(error)),
        None => chain(error),
    }
}

fn is_interrupted(error: &backup::BackupError) -> bool {
    match error {
        backup::BackupError::Open(error) => error.is_interrupted(),
        backup::BackupError::Backup { source, .. } => matches!(source, RepositoryError::Interrupted),
        _ => false,
    }
}

pub(crate) fn figures(repository: &Repository) -> Option<RepositoryFigures> {
    let mut size_bytes = 0;
    for kind in [FileKind::Pack, FileKind::Index, FileKind::Snapshot, FileKind::Key] {
        size_bytes += repository.list_sizes(kind).ok()?.iter().map(|(_, size)| size).sum::<u64>();
    }
    let snapshot_count = repository.list(FileKind::Snapshot).ok()?.len() as u64;
    Some(RepositoryFigures { size_bytes, snapshot_count })
}

pub(crate) fn check_if_due(
    repository: &Arc<Repository>,
    last: Option<Timestamp>,
    lock: LockOptions,
    monitor: &Monitor,
) -> Option<Checked> {
    if last.is_some_and(|last| Timestamp::now().duration_since(last) < CHECK_EVERY) {
        return None;
    }
    let options = CheckOptions { lock: Some(lock), ..CheckOptions::default() };
    let result = match check(repository, &options, monitor) {
        // Stopped, not failed: it is due again after the next backup.
        Err(RepositoryError::Interrupted) => return None,
        Err(error) => Err(explained(&error, &repository.location())),
        Ok(report) => {
            let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
            Ok(errors.take(REMEMBERED_MAX).map(|finding| finding.what.clone()).collect())
        }
    };
    Some(Checked { result })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failed_run() {
        let ended = caught("Backup/demo/web/web".to_owned(), || panic!("index 7 of {}", 3));
        assert_eq!((ended.id.as_str(), ended.outcome), ("Backup/demo/web/web", Outcome::Failed));
        assert_eq!(ended.errors, ["a defect in holdfast ended the run, please report it: index 7 of 3"]);
    }
}
