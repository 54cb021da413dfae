//! What becomes of a run that has ended: its place in the history, the repository's figures, the events.

use holdfast_plan::{ObjectKey, PlannedRepository};
use jiff::Timestamp;

use super::{Follower, Notice, Running, Task, Tell};
use crate::journal::{Event, Reason};
use crate::state::{Outcome, RepositoryState, Run};
use crate::work::{Checked, Ended, RepositoryFigures};

impl Follower<'_> {
    pub(super) fn ended(&mut self, ended: Ended, tell: Tell<'_>) {
        let Ended {
            id,
            outcome,
            host,
            snapshots,
            files,
            bytes,
            bytes_added,
            forgotten,
            kept,
            errors,
            notes,
            interrupted,
            repository: figures,
            check,
            retention_error,
            no_snapshot,
            of_secret,
        } = ended;
        let Some(Running { object, start, triggers, task, timed_out, .. }) = self.running.remove(&id) else {
            return;
        };
        if interrupted && !timed_out {
            self.state.take_back(&id);
            self.save(tell);
            tell(Notice::Stopped { id: &id, object: &object });
            return;
        }
        let end = Timestamp::now();
        let error = match interrupted {
            true => format!("it took longer than its timeOut, and was stopped after {:#}", end.duration_since(start)),
            false => errors.join("; "),
        };
        let run = Run {
            start,
            end,
            outcome,
            host,
            snapshots,
            files,
            bytes,
            bytes_added,
            forgotten,
            kept,
            error,
            triggers,
            notes,
        };
        match outcome {
            Outcome::Succeeded => self.summary.succeeded += 1,
            Outcome::Incomplete => self.summary.incomplete += 1,
            Outcome::Failed => self.summary.failed += 1,
        }
        let succeeded = outcome == Outcome::Succeeded;
        let (repository, reason) = match task {
            Task::Backup { planned, repository, .. } => {
                self.state.end_backup(&id, run.clone());
                self.observe_backup(&repository, &run);
                let reason = match (succeeded, planned.object.kind.as_str()) {
                    (true, "Restic") => Reason::Success,
                    (true, _) => Reason::SuccessfulBackup,
                    (false, "Restic") => Reason::Failed,
                    (false, _) => Reason::FailedBackup,
                };
                (repository, reason)
            }
            Task::Recovery { planned, repository } => {
                self.state.end_recovery(&planned, no_snapshot, run.clone());
                if of_secret {
                    self.state.of_secret.insert(id.clone());
                }
                (repository, if succeeded { Reason::SuccessfulRecovery } else { Reason::FailedRecovery })
            }
        };
        if let Some(RepositoryFigures { size_bytes, snapshot_count }) = figures {
            let known = self.repository(&repository.id);
            known.size_bytes = size_bytes;
            known.snapshot_count = snapshot_count;
        }
        self.event(&object, reason, message(&run), tell);
        tell(Notice::Ended { id: &id, object: &object, run: &run, repository: &repository.location });
        if let Some(error) = retention_error {
            let message = format!("old snapshots were not removed: {error}");
            self.event(&object, Reason::FailedRetention, message, tell);
        }
        if let Some(check) = check {
            self.checked(&repository.id, check, tell);
        }
        self.save(tell);
    }

    fn repository(&mut self, id: &str) -> &mut RepositoryState {
        self.state.repositories.entry(id.to_owned()).or_default()
    }

    fn observe_backup(&mut self, repository: &PlannedRepository, run: &Run) {
        let known = self.repository(&repository.id);
        if !run.snapshots.is_empty() {
            known.last_location = Some(repository.location.clone());
            known.first_backup_time.get_or_insert(run.end);
            known.last_backup_time = Some(run.end);
            known.snapshots_removed_on_last_cleanup = run.forgotten;
        }
    }

    fn checked(&mut self, id: &str, check: Checked, tell: Tell<'_>) {
        let (reason, message) = match check.result {
            Ok(findings) => {
                let known = self.repository(id);
                known.integrity = Some(findings.is_empty());
                known.last_check = Some(Timestamp::now());
                known.findings.clone_from(&findings);
                match findings.first() {
                    None => (Reason::SuccessfulCheck, "the repository is whole".to_owned()),
                    Some(first) => (Reason::FailedCheck, format!("the repository is damaged: {first}")),
                }
            }
            // Nothing is known of it, and the next run tries again.
            Err(error) => (Reason::FailedCheck, format!("the check could not be made: {error}")),
        };
        let (namespace, name) = id.split_once('/').unwrap_or_default();
        self.event(&ObjectKey::new("Repository", namespace, name), reason, message, tell);
    }

    fn event(&mut self, object: &ObjectKey, reason: Reason, message: String, tell: Tell<'_>) {
        let event = Event::new(object, self.state.next_event(object), reason, message, Timestamp::now());
        if let Err(error) = self.world.report(&event) {
            tell(Notice::Trouble(error));
        }
        if matches!(reason, Reason::FailedRetention | Reason::FailedCheck) {
            self.summary.warnings += 1;
            tell(Notice::Warning(&event));
        }
    }
}

fn message(run: &Run) -> String {
    let done = format!("{} files, {} bytes", run.files, run.bytes);
    let snapshots = run.snapshots.join(", ");
    let mut text = match run.outcome {
        Outcome::Succeeded => format!("{done}, snapshots {snapshots}"),
        Outcome::Incomplete => format!("incomplete: {done}, snapshots {snapshots}: {}", run.error),
        Outcome::Failed => run.error.clone(),
    };
    if run.kept > 0 {
        text.push_str(&format!("; left as they are, not older than in the snapshot: {}", run.kept));
    }
    for note in &run.notes {
        text.push_str("; note: ");
        text.push_str(note);
    }
    text
}
