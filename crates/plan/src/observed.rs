//! What is known of the past: the half of the planner's input that is not written in manifests.
//!
//! Whoever runs the plan records a run when it starts and when it ends, and hands all of it back the next
//! time. Nothing else is remembered between two plans, so a restart of the program loses nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Everything known of past and present runs. The ids are those of [`Plan`](crate::Plan): `backups[].id`
/// and `recoveries[].id`. Entries of objects that are gone do no harm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Observed {
    /// Past runs by id of the backup.
    pub backups: BTreeMap<String, BackupHistory>,
    /// Past runs by id of the recovery.
    pub recoveries: BTreeMap<String, RecoveryHistory>,
    /// By `namespace/name` of a BackupTrigger: the ids of the backups that ran for it, well or badly.
    pub triggers: BTreeMap<String, BTreeSet<String>>,
    /// By `namespace/name`: the BackupTriggers that have been carried out. Hosts that come later do not run for them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub triggers_over: BTreeSet<String>,
    /// The backups and recoveries that run at this moment: id, and location of the repository.
    pub running: BTreeMap<String, String>,
}

impl Observed {
    /// Whether a backup is not to run for a trigger any more: it did, or the trigger has been carried out.
    pub(crate) fn is_served(&self, trigger: &str, backup: &str) -> bool {
        self.triggers_over.contains(trigger) || self.triggers.get(trigger).is_some_and(|ran| ran.contains(backup))
    }
}

/// The past runs of one backup of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BackupHistory {
    /// When the backup was first planned: schedules count from here until there is a run. Default: now.
    pub first_seen: Option<Timestamp>,
    /// When the last run started, whatever became of it.
    pub last_start: Option<Timestamp>,
    /// When the last finished run ended.
    pub last_end: Option<Timestamp>,
    /// When the last successful run ended.
    pub last_success: Option<Timestamp>,
    /// Runs begun since the last successful one with what they depend on as it is, so that one cut short by a crash
    /// counts as well.
    pub attempts: u32,
    /// The [`revision`](crate::PlannedBackup::revision) of the last run.
    pub revision: Option<String>,
}

impl BackupHistory {
    /// A run begins.
    pub fn begin(&mut self, revision: &str, now: Timestamp) {
        let before = if self.is_mended(revision) { 0 } else { self.attempts };
        self.attempts = before.saturating_add(1);
        self.last_start = Some(now);
        self.revision = Some(revision.to_owned());
    }

    /// Whether what the last run, which did not succeed, depends on has changed since.
    pub(crate) fn is_mended(&self, revision: &str) -> bool {
        self.attempts > 0 && self.revision.as_ref().is_some_and(|of_last| of_last != revision)
    }
}

/// The past runs of one recovery into one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RecoveryHistory {
    /// The occasion of the last successful run, as the plan named it then.
    pub recovered: Option<String>,
    /// The paths that run restored: they are meant where neither the object nor a backup says which any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restored: Vec<String>,
    /// The occasion of the last run, well or badly.
    pub last_occasion: Option<String>,
    /// When the last run started.
    pub last_start: Option<Timestamp>,
    /// When the last finished run ended.
    pub last_end: Option<Timestamp>,
    /// Whether the last run found nothing to restore: no repository yet, or no snapshot that holds the paths. Then no
    /// backup waits for it, since there is no history that could be lost; the first backup could not be made otherwise.
    pub no_snapshot: bool,
    /// Runs begun for `last_occasion` with what they depend on as it is, so that one cut short by a crash counts as
    /// well.
    pub attempts: u32,
    /// The [`revision`](crate::PlannedRecovery::revision) of the last run.
    pub revision: Option<String>,
}

impl RecoveryHistory {
    /// A run for an occasion begins.
    pub fn begin(&mut self, occasion: &str, revision: &str, now: Timestamp) {
        let before = if self.is_afresh(occasion, revision) { 0 } else { self.attempts };
        self.attempts = before.saturating_add(1);
        self.last_occasion = Some(occasion.to_owned());
        self.last_start = Some(now);
        self.revision = Some(revision.to_owned());
    }

    /// Whether nothing that was tried so far tells how a run would go: there was no run for this occasion, or what it
    /// depends on has changed since.
    pub(crate) fn is_afresh(&self, occasion: &str, revision: &str) -> bool {
        let is_mended = self.revision.as_ref().is_some_and(|of_last| of_last != revision);
        self.attempts == 0 || self.last_occasion.as_deref() != Some(occasion) || is_mended
    }
}
