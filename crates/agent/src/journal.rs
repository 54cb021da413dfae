//! The event log: what Kubernetes would show as Events, one JSON object a line.
//!
//! Names are those of seed 000, `<object>-<count>`, numbered per name and never reused; reasons are those of
//! the seeds: `Success` and `Failed` for backups of the first generation's `Restic`, the longer ones otherwise.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use holdfast_plan::ObjectKey;
use jiff::Timestamp;
use serde::Serialize;

/// Why an event was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// A backup by a `Restic` succeeded (seed 000).
    Success,
    /// A backup by a `Restic` failed (seed 000).
    Failed,
    /// A backup succeeded.
    SuccessfulBackup,
    /// A backup failed.
    FailedBackup,
    /// Old snapshots could not be removed.
    FailedRetention,
    /// A recovery succeeded.
    SuccessfulRecovery,
    /// A recovery failed.
    FailedRecovery,
    /// A check found the repository whole.
    SuccessfulCheck,
    /// A check found damage, or could not be done.
    FailedCheck,
}

impl Reason {
    /// Whether something went wrong.
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::FailedBackup | Self::FailedRetention | Self::FailedRecovery | Self::FailedCheck
        )
    }
}

/// An event.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `<object>-<count>`.
    pub name: String,
    /// The number in its name.
    #[serde(skip)]
    pub count: u64,
    /// The object's namespace.
    pub namespace: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub message: String,
    /// What it is about, as `Kind namespace/name`.
    pub involved_object: ObjectKey,
    /// When.
    pub time: Timestamp,
}

impl Event {
    /// The `count`-th event of an object.
    pub fn new(object: &ObjectKey, count: u64, reason: Reason, message: String, time: Timestamp) -> Self {
        Self {
            name: format!("{}-{count}", object.name),
            count,
            namespace: object.namespace.clone(),
            kind: if reason.is_warning() { "Warning" } else { "Normal" },
            reason,
            message,
            involved_object: object.clone(),
            time,
        }
    }
}

/// The size at which the log is set aside, in bytes; one such old log is kept.
const BYTES_MAX: u64 = 8 << 20;

/// Appends an event to the log.
pub fn append(path: &Path, event: &Event) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > BYTES_MAX) {
        std::fs::rename(path, path.with_extension("jsonl.old"))?;
    }
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    // One write, so that a line is there whole or not at all.
    File::options().create(true).append(true).open(path)?.write_all(&line)
}
