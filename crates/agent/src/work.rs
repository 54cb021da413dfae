//! One run, in a thread of its own: a backup or a recovery, and what becomes known of the repository by it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_api::manifest::Outcome as Manifests;
use holdfast_repository::check::{CheckOptions, Severity, check};
use holdfast_repository::format::FileKind;
use holdfast_repository::{Event, Monitor, Repository};
use jiff::{SignedDuration, Timestamp};

use crate::backup;
use crate::recovery;
use crate::standalone::Task;
use crate::state::Outcome;

/// A repository is checked when its last check is this old.
const CHECK_EVERY: SignedDuration = SignedDuration::from_hours(3 * 24);
/// How many errors of a run are remembered word by word.
const ERRORS_MAX: usize = 10;

/// What a run needs.
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) task: Task,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) volumes: PathBuf,
    pub(crate) monitor: Monitor,
    pub(crate) errors: Arc<Mutex<Vec<String>>>,
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
    pub(crate) errors: Vec<String>,
    pub(crate) interrupted: bool,
    pub(crate) repository: Option<RepositoryFigures>,
    pub(crate) check: Option<Checked>,
    pub(crate) retention_error: Option<String>,
    pub(crate) no_snapshot: bool,
}

/// What a repository holds.
pub(crate) struct RepositoryFigures {
    pub(crate) size_bytes: u64,
    pub(crate) snapshot_count: u64,
}

/// What a check found.
pub(crate) struct Checked {
    pub(crate) findings: Vec<String>,
}

/// A monitor that remembers the first errors word by word.
pub(crate) fn monitor(errors: &Arc<Mutex<Vec<String>>>) -> Monitor {
    let errors = Arc::clone(errors);
    Monitor::new(
        move |event| {
            if let Event::Error { item, message } = event {
                let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
                if errors.len() < ERRORS_MAX {
                    errors.push(format!("{item}: {message}"));
                }
            }
        },
        false,
    )
}

impl Ended {
    fn failed(id: String, host: String, error: String, interrupted: bool) -> Self {
        Self {
            id,
            outcome: Outcome::Failed,
            host,
            snapshots: Vec::new(),
            files: 0,
            bytes: 0,
            bytes_added: 0,
            forgotten: 0,
            errors: vec![error],
            interrupted,
            repository: None,
            check: None,
            retention_error: None,
            no_snapshot: false,
        }
    }
}

impl Job {
    /// Does it. Whatever goes wrong is in the outcome; a panic is one more way to fail.
    pub(crate) fn run(self) -> Ended {
        let id = self.id.clone();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.try_run()));
        outcome.unwrap_or_else(|_| Ended::failed(id, String::new(), "a defect in holdfast ended the run".into(), false))
    }

    fn try_run(self) -> Ended {
        let Self { id, task, manifests, volumes, monitor, errors } = self;
        let objects = &manifests.objects;
        let known_errors = || errors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match task {
            Task::Backup { planned, repository, last_check } => {
                match backup::run(&planned, &repository, objects, &volumes, &monitor) {
                    Err(error) => Ended::failed(id, planned.host, chain(&error), is_interrupted(&error)),
                    Ok((repository, done)) => {
                        let sum = |figure: fn(&holdfast_repository::backup::BackupReport) -> u64| {
                            done.reports.iter().map(figure).sum()
                        };
                        let incomplete = done.reports.iter().any(|report| report.errors > 0);
                        Ended {
                            id,
                            outcome: if incomplete { Outcome::Incomplete } else { Outcome::Succeeded },
                            host: planned.host,
                            snapshots: done
                                .reports
                                .iter()
                                .filter_map(|report| report.snapshot)
                                .map(|id| id.short().to_string())
                                .collect(),
                            files: sum(|report| report.summary.total_files_processed),
                            bytes: sum(|report| report.summary.total_bytes_processed),
                            bytes_added: sum(|report| report.summary.data_added_packed),
                            forgotten: done.forgotten,
                            errors: if incomplete { known_errors() } else { Vec::new() },
                            interrupted: false,
                            repository: figures(&repository),
                            check: check_if_due(&repository, last_check, &monitor),
                            retention_error: done.retention_error.map(|error| chain(&error)),
                            no_snapshot: false,
                        }
                    }
                }
            }
            Task::Recovery { planned, repository } => {
                match recovery::run(&planned, &repository, objects, &volumes, &monitor) {
                    Err(error) => {
                        let no_snapshot = error.is_nothing_yet();
                        Ended { no_snapshot, ..Ended::failed(id, String::new(), chain(&error), error.is_interrupted()) }
                    }
                    Ok(done) => Ended {
                        id,
                        outcome: if done.errors > 0 { Outcome::Incomplete } else { Outcome::Succeeded },
                        host: done.host,
                        snapshots: done.snapshots,
                        files: done.files,
                        bytes: done.bytes,
                        bytes_added: 0,
                        forgotten: 0,
                        errors: if done.errors > 0 { known_errors() } else { Vec::new() },
                        interrupted: false,
                        repository: None,
                        check: None,
                        retention_error: None,
                        no_snapshot: false,
                    },
                }
            }
        }
    }
}

fn is_interrupted(error: &backup::BackupError) -> bool {
    matches!(error, backup::BackupError::Backup { source: holdfast_repository::Error::Interrupted, .. })
}

fn figures(repository: &Repository) -> Option<RepositoryFigures> {
    let mut size_bytes = 0;
    for kind in [FileKind::Pack, FileKind::Index, FileKind::Snapshot, FileKind::Key] {
        size_bytes += repository.list_sizes(kind).ok()?.iter().map(|(_, size)| size).sum::<u64>();
    }
    let snapshot_count = repository.list(FileKind::Snapshot).ok()?.len() as u64;
    Some(RepositoryFigures { size_bytes, snapshot_count })
}

fn check_if_due(repository: &Arc<Repository>, last: Option<Timestamp>, monitor: &Monitor) -> Option<Checked> {
    if last.is_some_and(|last| Timestamp::now().duration_since(last) < CHECK_EVERY) {
        return None;
    }
    let options = CheckOptions { lock: backup::lock_options(), ..CheckOptions::default() };
    let findings = match check(repository, &options, monitor) {
        // Stopped, not failed: it is due again after the next backup.
        Err(holdfast_repository::Error::Interrupted) => return None,
        Err(error) => vec![format!("the check could not be made: {}", chain(&error))],
        Ok(report) => report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .take(ERRORS_MAX)
            .map(|finding| finding.what.clone())
            .collect(),
    };
    Some(Checked { findings })
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // A transparent error says the same as its cause.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
