//! What is due, in which order, and when to look again.
//!
//! - A schedule counts from the start of the last run, whatever became of it, so that any number of moments
//!   missed while the program was down make one run.
//! - A failed run is tried again by [`Retry`](crate::Retry), at the schedule's next moment in any case, and at once when
//!   what it depends on has changed. A paused backup does none of these; a trigger starts it all the same, once.
//! - Recoveries go first, then what was triggered, then the rest by the time it has been due.
//!
//! Which of them start at once is decided in [`queue`](crate::queue).

use std::collections::HashMap;

use holdfast_api::values::Due as ScheduleDue;
use jiff::Timestamp;

use crate::Settings;
use crate::backup::Scheduled;
use crate::observed::{BackupHistory, Observed, RecoveryHistory};
use crate::planned::{Due, PlannedRecovery, PlannedRepository, PlannedTrigger, Reason, RecoveryState};
use crate::queue;

/// What the clock says.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    pub(crate) due: Vec<Due>,
    pub(crate) next: Option<Timestamp>,
}

impl Agenda {
    fn at(&mut self, moment: Timestamp) {
        self.next = Some(self.next.map_or(moment, |next| next.min(moment)));
    }
}

/// When something starts next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Now(Reason, Timestamp),
    At(Timestamp),
    Never,
}

/// Finds what is due; fills in `next` of the backups and `state` of the recoveries.
pub(crate) fn agenda(
    settings: &Settings,
    observed: &Observed,
    repositories: &[PlannedRepository],
    backups: &mut [Scheduled],
    recoveries: &mut [PlannedRecovery],
    triggers: &[PlannedTrigger],
) -> Agenda {
    let mut agenda = Agenda::default();
    for recovery in recoveries.iter_mut() {
        let running = observed.running.contains_key(&recovery.id);
        let history = observed.recoveries.get(&recovery.id);
        let (state, start) = recovery_start(recovery, history, running, settings.now);
        recovery.state = state;
        match start {
            Start::Now(reason, since) => agenda.due.push(due(&recovery.id, reason, since)),
            Start::At(moment) => agenda.at(moment),
            Start::Never => {}
        }
    }
    let asked = asked(observed, triggers);
    for backup in backups.iter_mut() {
        let running = observed.running.contains_key(&backup.planned.id);
        let history = observed.backups.get(&backup.planned.id);
        let start = if running { Start::Never } else { backup_start(backup, history, settings.now) };
        match (asked.get(backup.planned.id.as_str()), start) {
            (Some(triggers), _) => {
                let triggers = triggers.iter().map(|&trigger| trigger.to_owned()).collect();
                agenda.due.push(Due { triggers, ..due(&backup.planned.id, Reason::Trigger, settings.now) });
            }
            (None, Start::Now(reason, since)) => agenda.due.push(due(&backup.planned.id, reason, since)),
            (None, Start::At(moment)) => {
                backup.planned.next = Some(moment);
                agenda.at(moment);
            }
            (None, Start::Never) => {}
        }
    }
    agenda.due.sort_by(|a, b| (a.reason, a.since, &a.id).cmp(&(b.reason, b.since, &b.id)));
    queue::line_up(&mut agenda.due, settings, observed, repositories, backups, recoveries);
    agenda
}

fn due(id: &str, reason: Reason, since: Timestamp) -> Due {
    Due { id: id.to_owned(), reason, since, triggers: Vec::new(), waits_for: None }
}

/// By id of a backup: the triggers that still ask for it.
fn asked<'a>(observed: &Observed, triggers: &'a [PlannedTrigger]) -> HashMap<&'a str, Vec<&'a str>> {
    let mut asked: HashMap<&str, Vec<&str>> = HashMap::new();
    for trigger in triggers {
        for backup in trigger.backups.iter().filter(|backup| !observed.is_served(&trigger.id, backup)) {
            asked.entry(backup).or_default().push(&trigger.id);
        }
    }
    asked
}

fn backup_start(backup: &Scheduled, history: Option<&BackupHistory>, now: Timestamp) -> Start {
    if backup.planned.paused {
        return Start::Never;
    }
    let none = BackupHistory::default();
    let history = history.unwrap_or(&none);
    if history.is_mended(&backup.planned.revision) {
        return Start::Now(Reason::Retry, now);
    }
    let BackupHistory { first_seen, last_start, last_end, last_success: _, attempts, revision: _ } = history;
    let retry = match backup.planned.retry.at(*attempts, (*last_start).max(*last_end)) {
        Some(at) if at <= now => Start::Now(Reason::Retry, at),
        Some(at) => Start::At(at),
        None => Start::Never,
    };
    let created = backup.created.or(*first_seen).unwrap_or(now);
    let scheduled = match backup.timing.as_ref().map(|timing| timing.due(*last_start, created, now)) {
        Some(ScheduleDue::Now(since)) => Start::Now(Reason::Schedule, since),
        Some(ScheduleDue::At(moment)) => Start::At(moment),
        Some(ScheduleDue::Never) | None => Start::Never,
    };
    match (retry, scheduled) {
        (Start::Now(..), _) => retry,
        (_, Start::Now(..)) => scheduled,
        (Start::At(a), Start::At(b)) => Start::At(a.min(b)),
        (Start::At(_), Start::Never) => retry,
        (Start::Never, _) => scheduled,
    }
}

fn recovery_start(
    recovery: &PlannedRecovery,
    history: Option<&RecoveryHistory>,
    running: bool,
    now: Timestamp,
) -> (RecoveryState, Start) {
    let none = RecoveryHistory::default();
    let history = history.unwrap_or(&none);
    let RecoveryHistory { recovered, last_start, last_end, attempts, .. } = history;
    if running {
        return (RecoveryState::Running, Start::Never);
    }
    if recovered.as_ref() == Some(&recovery.occasion) {
        return (RecoveryState::Recovered, Start::Never);
    }
    if history.is_afresh(&recovery.occasion, &recovery.revision) {
        return (RecoveryState::Pending, Start::Now(Reason::Recovery, now));
    }
    match recovery.retry.at(*attempts, (*last_start).max(*last_end)) {
        Some(at) if at <= now => (RecoveryState::Pending, Start::Now(Reason::Recovery, at)),
        Some(at) => (RecoveryState::Pending, Start::At(at)),
        None => (RecoveryState::Failed, Start::Never),
    }
}
