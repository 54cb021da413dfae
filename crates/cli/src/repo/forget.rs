//! `repo forget`: removes snapshots, by a policy or by name.

use clap::Args;
use holdfast_repository::Id;
use holdfast_repository::forget::{
    CalendarDuration, Count, Decision, ForgetGroup, ForgetOptions, ForgetReport, KeepPolicy, forget,
};
use holdfast_repository::format::snapshot::{GroupBy, TagList};
use serde::Serialize;

use super::open::RepoArgs;
use super::prune::{self, PruneLimits};
use super::selection::{filter, not_selected};
use super::snapshots::{SnapshotJson, describe, snapshot_table};
use crate::failure::{Failure, Result, code};
use crate::output::{Output, counted};

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// Remove exactly these snapshots
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    keep: KeepArgs,
    /// Only of this host; may be given several times for any of them, empty for all
    #[arg(long, env = "RESTIC_HOST", help_heading = "Which snapshots")]
    host: Vec<String>,
    /// Only with these tags (a,b: all of them); may be given several times for any of them
    #[arg(long, value_name = "TAG[,TAG…]", help_heading = "Which snapshots")]
    tag: Vec<TagList>,
    /// Only with this absolute path; may be given several times for all of them
    #[arg(long, help_heading = "Which snapshots")]
    path: Vec<String>,
    /// Apply the policy to groups by host, paths or tags, or several with commas between
    #[arg(short, long, value_name = "GROUP", default_value = "host,paths")]
    group_by: GroupBy,
    /// Allow to remove all snapshots that --host, --tag or --path choose
    #[arg(long)]
    unsafe_allow_remove_all: bool,
    /// Show less of each snapshot
    #[arg(short, long)]
    compact: bool,
    /// Remove nothing, and tell what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Then remove the data that no snapshot needs any more
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    limits: PruneLimits,
}

/// Durations are written as 1y5m7d2h and count from the newest snapshot.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to keep (of each group; `unlimited` for all)")]
struct KeepArgs {
    /// The last N
    #[arg(short = 'l', long, value_name = "N")]
    keep_last: Option<Count>,
    /// The last of each of N hours
    #[arg(short = 'H', long, value_name = "N")]
    keep_hourly: Option<Count>,
    /// The last of each of N days
    #[arg(short = 'd', long, value_name = "N")]
    keep_daily: Option<Count>,
    /// The last of each of N weeks
    #[arg(short = 'w', long, value_name = "N")]
    keep_weekly: Option<Count>,
    /// The last of each of N months
    #[arg(short = 'm', long, value_name = "N")]
    keep_monthly: Option<Count>,
    /// The last of each of N years
    #[arg(short = 'y', long, value_name = "N")]
    keep_yearly: Option<Count>,
    /// All within a duration, as 1y5m7d2h, before the newest
    #[arg(long, value_name = "DURATION")]
    keep_within: Option<CalendarDuration>,
    /// The last of each hour within a duration
    #[arg(long, value_name = "DURATION")]
    keep_within_hourly: Option<CalendarDuration>,
    /// The last of each day within a duration
    #[arg(long, value_name = "DURATION")]
    keep_within_daily: Option<CalendarDuration>,
    /// The last of each week within a duration
    #[arg(long, value_name = "DURATION")]
    keep_within_weekly: Option<CalendarDuration>,
    /// The last of each month within a duration
    #[arg(long, value_name = "DURATION")]
    keep_within_monthly: Option<CalendarDuration>,
    /// The last of each year within a duration
    #[arg(long, value_name = "DURATION")]
    keep_within_yearly: Option<CalendarDuration>,
    /// All with these tags (a,b: all of them); may be given several times for any of them
    #[arg(long, value_name = "TAG[,TAG…]")]
    keep_tag: Vec<TagList>,
}

impl KeepArgs {
    fn policy(self) -> KeepPolicy {
        let Self {
            keep_last,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_yearly,
            keep_within,
            keep_within_hourly,
            keep_within_daily,
            keep_within_weekly,
            keep_within_monthly,
            keep_within_yearly,
            keep_tag,
        } = self;
        KeepPolicy {
            last: keep_last.unwrap_or_default(),
            hourly: keep_hourly.unwrap_or_default(),
            daily: keep_daily.unwrap_or_default(),
            weekly: keep_weekly.unwrap_or_default(),
            monthly: keep_monthly.unwrap_or_default(),
            yearly: keep_yearly.unwrap_or_default(),
            within: keep_within.unwrap_or_default(),
            within_hourly: keep_within_hourly.unwrap_or_default(),
            within_daily: keep_within_daily.unwrap_or_default(),
            within_weekly: keep_within_weekly.unwrap_or_default(),
            within_monthly: keep_within_monthly.unwrap_or_default(),
            within_yearly: keep_within_yearly.unwrap_or_default(),
            tags: keep_tag,
        }
    }
}

pub(crate) fn run(repo: &RepoArgs, args: ForgetArgs, output: &Output) -> Result<u8> {
    let policy = args.keep.policy();
    if !args.ids.is_empty() && !policy.is_empty() {
        return Err(Failure::with_hint(
            "snapshots are named and a policy is given",
            "name the snapshots to remove, or give --keep-… rules, not both",
        ));
    }
    if args.ids.is_empty() && policy.is_empty() && !args.unsafe_allow_remove_all {
        return Err(Failure::with_hint(
            "nothing says what to keep: nothing was removed",
            "give at least one rule, as --keep-last 5, or name the snapshots to remove",
        ));
    }
    let repository = repo.open()?;
    let options = ForgetOptions {
        snapshots: args.ids,
        policy,
        filter: filter(&args.host, &args.tag, &args.path),
        group_by: args.group_by,
        allow_remove_all: args.unsafe_allow_remove_all,
        dry_run: args.dry_run,
        lock: repo.lock_options(),
    };
    let progress = output.progress("removing snapshots");
    let report = forget(&repository, &options, progress.monitor())
        .map_err(|error| if options.snapshots.is_empty() { error.into() } else { not_selected(error) })?;
    drop(progress);
    let groups: Vec<_> = report.groups.iter().map(GroupJson::new).collect();
    let json = serde_json::json!({
        "message_type": "forget_summary",
        "dry_run": args.dry_run,
        "groups": groups,
        "removed": report.removed,
        "failed": report.failed,
    });
    output.result(&json, || text(&report, args.compact, args.dry_run))?;
    let code = if report.failed > 0 { code::INCOMPLETE } else { code::SUCCESS };
    if !args.prune || report.removed.is_empty() {
        return Ok(code);
    }
    let ignored = if args.dry_run { report.removed } else { Vec::new() };
    let pruned = prune::run_on(&repository, repo, &args.limits, args.dry_run, ignored, output)?;
    Ok(code.max(pruned))
}

fn text(report: &ForgetReport, compact: bool, dry_run: bool) -> String {
    let mut parts: Vec<String> = report.groups.iter().map(|group| group_text(group, compact)).collect();
    parts.push(match (report.removed.as_slice(), dry_run) {
        ([], _) => "no snapshots to remove".into(),
        (ids, true) => format!("would remove {}: {}", counted(ids.len() as u64, "snapshot"), short_ids(ids)),
        (ids, false) => format!("removed {}: {}", counted(ids.len() as u64, "snapshot"), short_ids(ids)),
    });
    if report.failed > 0 {
        parts.push(format!("{} could not be removed, see above", counted(report.failed, "snapshot")));
    }
    parts.join("\n\n")
}

fn short_ids(ids: &[Id]) -> String {
    ids.iter().map(|id| id.short().to_string()).collect::<Vec<_>>().join(" ")
}

fn group_text(group: &ForgetGroup, compact: bool) -> String {
    let mut text = format!("snapshots{}:", describe(&group.key));
    for (keep, title) in [(true, "keep"), (false, "remove")] {
        let decisions = || group.decisions.iter().filter(|decision| decision.keep == keep);
        let count = decisions().count();
        if count > 0 {
            let rows = decisions().map(|decision| (&decision.saved, keep.then_some(decision.reasons.as_slice())));
            text.push_str(&format!("\n{title} {count}:\n{}", snapshot_table(rows, compact)));
        }
    }
    text
}

/// What was decided on a group, with restic's names.
#[derive(Serialize)]
struct GroupJson<'a> {
    tags: &'a Option<Vec<String>>,
    host: &'a str,
    paths: &'a Option<Vec<String>>,
    keep: Vec<SnapshotJson<'a>>,
    remove: Vec<SnapshotJson<'a>>,
    reasons: Vec<ReasonJson<'a>>,
}

#[derive(Serialize)]
struct ReasonJson<'a> {
    snapshot: SnapshotJson<'a>,
    matches: &'a [String],
}

impl<'a> GroupJson<'a> {
    fn new(group: &'a ForgetGroup) -> Self {
        let of = |keep: bool| group.decisions.iter().filter(move |decision| decision.keep == keep);
        let snapshot = |decision: &'a Decision| SnapshotJson::new(&decision.saved);
        let reason = |decision: &'a Decision| ReasonJson { snapshot: snapshot(decision), matches: &decision.reasons };
        Self {
            tags: &group.key.tags,
            host: &group.key.hostname,
            paths: &group.key.paths,
            keep: of(true).map(snapshot).collect(),
            remove: of(false).map(snapshot).collect(),
            reasons: of(true).map(reason).collect(),
        }
    }
}
