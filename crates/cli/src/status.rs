//! `status`: a table of what is protected, and how well.

use clap::Args;
use holdfast_agent::state::RepositoryState;
use holdfast_agent::status::{BackupStatus, Status};
use indicatif::HumanBytes;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::failure::{Result, code};
use crate::folder::FolderArgs;
use crate::output::Output;
use crate::table::{render, table};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    folder: FolderArgs,
}

pub(crate) fn run(args: &StatusArgs, output: &Output) -> Result<u8> {
    let (plan, state) = args.folder.plan()?;
    let now = Timestamp::now();
    let status = Status::new(&plan, &state, now);
    output.result(&status, || text(&status, now))?;
    Ok(if status.errors.is_empty() { code::SUCCESS } else { code::FAILED })
}

fn text(status: &Status, now: Timestamp) -> String {
    let mut parts = Vec::new();
    parts.extend((!status.backups.is_empty()).then(|| backups(status, now)));
    parts.extend((!status.recoveries.is_empty()).then(|| recoveries(status)));
    parts.extend((!status.repositories.is_empty()).then(|| repositories(status, now)));
    if parts.is_empty() {
        parts.push("nothing is protected: there is no Backup, Restic or Recovery in the folder".into());
    }
    // The tables have room for the beginning of an error only.
    let failed_backups = status.backups.iter().map(|backup| (&backup.object, &backup.last_error));
    let failed_recoveries = status.recoveries.iter().map(|recovery| (&recovery.object, &recovery.last_error));
    let failed = failed_backups.chain(failed_recoveries).filter_map(|(object, error)| Some((object, error.as_ref()?)));
    let mut lines: Vec<String> = failed.map(|(object, error)| format!("{object}: {error}")).collect();
    lines.extend(status.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.extend(status.errors.iter().map(|error| format!("error: {error}")));
    parts.extend((!lines.is_empty()).then(|| lines.join("\n")));
    parts.join("\n\n")
}

fn backups(status: &Status, now: Timestamp) -> String {
    let mut table =
        table(&["BACKUP", "HOST", "TARGET", "SCHEDULE", "LAST SUCCESS", "NEXT", "SNAPSHOTS", "SIZE", "LAST ERROR"]);
    for backup in &status.backups {
        let repository = status.repositories.iter().find(|repository| repository.id == backup.repository);
        let snapshots = repository.filter(|repository| repository.state.last_backup_time.is_some());
        table.add_row([
            backup.object.to_string(),
            backup.host.clone(),
            backup.target.key().to_string(),
            schedule(backup),
            ago(backup.last_success, now),
            next(backup, now),
            snapshots.map_or_else(|| "-".into(), |repository| repository.state.snapshot_count.to_string()),
            backup.size_bytes.map_or_else(|| "-".into(), |size| HumanBytes(size).to_string()),
            beginning(backup.last_error.as_deref()),
        ]);
    }
    render(table)
}

fn recoveries(status: &Status) -> String {
    let mut table = table(&["RECOVERY", "REPOSITORY", "PHASE", "LAST ERROR"]);
    for recovery in &status.recoveries {
        table.add_row([
            recovery.object.to_string(),
            recovery.repository.clone(),
            format!("{:?}", recovery.phase),
            beginning(recovery.last_error.as_deref()),
        ]);
    }
    render(table)
}

fn repositories(status: &Status, now: Timestamp) -> String {
    let mut table = table(&["REPOSITORY", "LOCATION", "SNAPSHOTS", "SIZE", "LAST CHECK", "INTEGRITY"]);
    for repository in &status.repositories {
        let RepositoryState { integrity, findings, last_check, size_bytes, snapshot_count, last_backup_time, .. } =
            &repository.state;
        let known = last_backup_time.is_some();
        table.add_row([
            repository.id.clone(),
            repository.location.clone(),
            if known { snapshot_count.to_string() } else { "-".into() },
            if known { HumanBytes(*size_bytes).to_string() } else { "-".into() },
            ago(*last_check, now),
            match integrity {
                None => "unknown".into(),
                Some(true) => "whole".into(),
                Some(false) => format!("DAMAGED: {}", findings.first().map_or("", String::as_str)),
            },
        ]);
    }
    render(table)
}

fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| "never".into(), |time| format!("{} ago", span(now.duration_since(time))))
}

/// As much of an error as a table has room for.
fn beginning(error: Option<&str>) -> String {
    const CHARS_MAX: usize = 50;
    match error {
        None => "-".into(),
        Some(error) if error.chars().count() <= CHARS_MAX => error.to_owned(),
        Some(error) => error.chars().take(CHARS_MAX).chain(['…']).collect(),
    }
}

fn schedule(backup: &BackupStatus) -> String {
    match (&backup.schedule, backup.paused) {
        (None, _) => "by trigger".into(),
        (Some(schedule), false) => schedule.clone(),
        (Some(schedule), true) => format!("{schedule} (paused)"),
    }
}

fn next(backup: &BackupStatus, now: Timestamp) -> String {
    match (backup.running, backup.paused, backup.next) {
        (true, ..) => "running".into(),
        (_, true, _) => "-".into(),
        (_, _, Some(next)) if next <= now => "now".into(),
        (_, _, Some(next)) => format!("in {}", span(next.duration_since(now))),
        (_, _, None) if backup.schedule.is_some() => "now".into(),
        _ => "-".into(),
    }
}

/// A span as people say it: the two largest units.
pub(crate) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A moment in the local time zone, to the second.
pub(crate) fn local(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%F %T").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let check = |seconds, want| assert_eq!(span(SignedDuration::from_secs(seconds)), want);
        check(-5, "0s");
        check(59, "59s");
        check(61, "1m1s");
        check(3_600, "1h0m");
        check(90_061, "1d1h");
    }
}
