//! `standalone`: does on one machine, from a folder of manifests, what the operator does on a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use holdfast_agent::standalone::{FollowError, Notice, StandaloneError, Summary, run as run_standalone};
use holdfast_agent::state::{Outcome, Run, StateError};
use holdfast_plan::{ObjectKey, Plan};
use holdfast_repository::{Monitor, chain};
use indicatif::{HumanBytes, MultiProgress, ProgressBar};
use jiff::Timestamp;
use serde_json::json;

use crate::failure::{Failure, Result, code};
use crate::folder::FolderArgs;
use crate::output::{DRAW_EVERY, Output, counted, spinner};
use crate::status::{local, span};

/// Where metrics and status are served unless told otherwise.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9646);

#[derive(Debug, Args)]
pub(crate) struct StandaloneArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Do what is due, and end
    #[arg(long)]
    once: bool,
    /// Where /metrics, /healthz and /status are served [default: 127.0.0.1:9646, or any free port if that is taken]
    #[arg(long, conflicts_with = "once")]
    listen: Option<SocketAddr>,
}

pub(crate) fn run(args: &StandaloneArgs, output: &Output) -> Result<u8> {
    let mut options = args.folder.options();
    options.once = args.once;
    options.listen = match (args.once, args.listen) {
        (true, _) => None,
        (false, Some(address)) => Some(address),
        (false, None) => Some(free_or_any(LISTEN)),
    };
    if let Some(address) = options.listen
        && !address.ip().is_loopback()
    {
        output
            .note(format!("note: {address} can be reached from other machines, and nothing there asks for a password"));
    }
    let stop = stop_flag()?;
    let mut talk = Talk::new(output, args.once);
    let summary = run_standalone(&options, &stop, &mut |notice| talk.say(&notice)).map_err(failure)?;
    Ok(talk.finish(summary, args.once))
}

/// A flag that SIGINT and SIGTERM raise; the second of them ends the program.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, code::INTERRUPTED.into(), Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn failure(error: StandaloneError) -> Failure {
    let hint = match &error {
        StandaloneError::Folder(_) => "give the folder that holds the manifests; `holdfast protect` writes one",
        StandaloneError::State(StateError::InUse { .. }) => {
            "one is enough: it follows changes of the folder, and `holdfast status` shows what it does"
        }
        StandaloneError::State(_) => "name a folder that this user can write to by --state",
        StandaloneError::Follow(FollowError::Listen { .. }) => {
            "choose another address by --listen; 127.0.0.1:0 takes any free port"
        }
        StandaloneError::Follow(FollowError::Thread(_)) => {
            "does a limit of this user's processes keep it from starting threads?"
        }
    };
    Failure::new(error).hinting(hint)
}

/// The address, or one with a free port if somebody else has it.
fn free_or_any(address: SocketAddr) -> SocketAddr {
    match std::net::TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

/// Tells a person, or a program, what happens.
pub(crate) struct Talk<'a> {
    output: &'a Output,
    once: bool,
    /// In a pod there is no folder, no keyboard, and its paths are of no use to a reader.
    in_pod: bool,
    bars: Option<MultiProgress>,
    running: BTreeMap<String, (Option<ProgressBar>, Arc<AtomicBool>)>,
    told_how_to_look: bool,
}

impl<'a> Talk<'a> {
    pub(crate) fn new(output: &'a Output, once: bool) -> Self {
        let bars = output.has_bars().then(MultiProgress::new);
        Self { output, once, in_pod: false, bars, running: BTreeMap::new(), told_how_to_look: false }
    }

    pub(crate) fn in_pod(output: &'a Output) -> Self {
        Self { in_pod: true, ..Self::new(output, false) }
    }

    fn line(&self, text: String) {
        match &self.bars {
            Some(bars) => bars.suspend(|| self.output.note(text)),
            None => self.output.note(text),
        }
    }

    /// Something that went wrong: also told to who wants to be told of errors only.
    fn problem(&self, text: String) {
        match &self.bars {
            Some(bars) => bars.suspend(|| self.output.problem(text)),
            None => self.output.problem(text),
        }
    }

    pub(crate) fn say(&mut self, notice: &Notice<'_>) {
        if self.output.is_json() {
            return self.say_json(notice);
        }
        match notice {
            Notice::Planned(plan) => self.planned(plan),
            Notice::Unreadable(error) => {
                self.problem(format!("error: {}; what was read before goes on", chain(*error)));
            }
            Notice::Serving(address) => {
                self.line(format!("status: http://{address}/status, metrics: http://{address}/metrics"))
            }
            Notice::Started { id, object, monitor } => self.started(id, object, monitor),
            Notice::Ended { id, object, run, repository } => self.ended(id, object, run, repository),
            Notice::Waiting(_) if self.once => {}
            Notice::Waiting(None) if self.in_pod => self.line("nothing is scheduled; waiting for changes".into()),
            Notice::Waiting(None) => {
                self.line("nothing is scheduled; waiting for changes of the manifests (Ctrl-C stops)".into())
            }
            Notice::Waiting(Some(next)) => {
                let wait = span(next.duration_since(Timestamp::now()));
                let how_to_stop = if self.in_pod { "" } else { " (Ctrl-C stops)" };
                self.line(format!("next at {}, in {wait}{how_to_stop}", local(*next)));
            }
            Notice::Stopped { id, object } => {
                self.clear(id);
                self.line(format!("{object}: stopped before its end; it is due again at the next start"));
            }
            Notice::Warning(event) => {
                self.problem(format!("{} {}: {}", local(event.time), event.involved_object, event.message))
            }
            Notice::Note(note) => self.line(format!("note: {note}")),
            Notice::Trouble(trouble) => self.problem(format!("error: {trouble}")),
        }
    }

    fn planned(&self, plan: &Plan) {
        plan.warnings.iter().for_each(|warning| self.line(format!("warning: {warning}")));
        plan.errors.iter().for_each(|error| self.problem(format!("error: {error}")));
        if plan.backups.is_empty() && plan.recoveries.is_empty() {
            let of = if self.in_pod { "of this pod" } else { "in the folder" };
            self.problem(format!("nothing is protected: no Backup, Restic or Recovery {of} can be carried out"));
        }
        for backup in &plan.backups {
            let location = plan.repositories.iter().find(|repository| repository.id == backup.repository);
            let paths: Vec<&str> = backup
                .snapshots
                .iter()
                .flat_map(|snapshot| &snapshot.directories)
                .map(|directory| directory.path.as_str())
                .collect();
            self.line(format!(
                "{}: {} of {} into {}{}",
                backup.object,
                paths.join(", "),
                backup.target.key(),
                location.map_or(backup.repository.as_str(), |repository| repository.location.as_str()),
                match (&backup.schedule, backup.paused) {
                    (_, true) => ", paused".into(),
                    (Some(schedule), _) => format!(", {schedule}"),
                    (None, _) => ", when triggered".to_owned(),
                },
            ));
        }
    }

    fn started(&mut self, id: &str, object: &ObjectKey, monitor: &Monitor) {
        let done = Arc::new(AtomicBool::new(false));
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(spinner(object.to_string()));
            let (moving, monitor, done) = (bar.clone(), monitor.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let counters = monitor.counters();
                    moving.set_message(format!(
                        "{} files, {}",
                        counters.files.load(Ordering::Relaxed),
                        HumanBytes(counters.bytes.load(Ordering::Relaxed))
                    ));
                    moving.tick();
                    std::thread::sleep(DRAW_EVERY);
                }
            });
            bar
        });
        self.running.insert(id.to_owned(), (bar, done));
    }

    /// Takes the bar of a run away.
    fn clear(&mut self, id: &str) {
        if let Some((bar, done)) = self.running.remove(id) {
            done.store(true, Ordering::Relaxed);
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        }
    }

    fn ended(&mut self, id: &str, object: &ObjectKey, run: &Run, repository: &str) {
        self.clear(id);
        let seconds = run.duration().as_secs_f64();
        let what = if object.kind == "Recovery" { "recovered from" } else { "saved" };
        let done = format!("{}, {}", counted(run.files, "file"), HumanBytes(run.bytes));
        let snapshots = run.snapshots.join(", ");
        let more = match (run.forgotten, run.kept) {
            (0, 0) => String::new(),
            (0, kept) => format!(
                "; left as they are, not older than in the snapshot: {kept} (`overwriteNewer: true` replaces such files)"
            ),
            (forgotten, _) => format!(", {} removed", counted(forgotten, "old snapshot")),
        };
        let text = match run.outcome {
            Outcome::Succeeded if object.kind == "Recovery" => {
                format!("{what} snapshot {snapshots}: {done}, {seconds:.1} s{more}")
            }
            Outcome::Succeeded => {
                let new = HumanBytes(run.bytes_added);
                format!("{what} snapshot {snapshots}: {done}, {new} new, {seconds:.1} s{more}")
            }
            Outcome::Incomplete => format!("INCOMPLETE: {what} {snapshots}: {done}: {}", run.error),
            Outcome::Failed => format!("FAILED: {}", run.error),
        };
        let line = format!("{} {object}: {text}", local(run.end));
        match run.outcome {
            Outcome::Succeeded => self.line(line),
            Outcome::Incomplete | Outcome::Failed => self.problem(line),
        }
        if !self.told_how_to_look
            && !self.once
            && !self.in_pod
            && run.outcome == Outcome::Succeeded
            && object.kind != "Recovery"
        {
            self.told_how_to_look = true;
            self.line(format!("  look into it: holdfast repo -r {repository} snapshots (restic reads it, too)"));
        }
    }

    fn say_json(&self, notice: &Notice<'_>) {
        let value = match notice {
            Notice::Planned(plan) => json!({"messageType": "planned", "plan": plan}),
            Notice::Unreadable(error) => json!({"messageType": "error", "message": chain(*error)}),
            Notice::Serving(address) => json!({"messageType": "serving", "address": address}),
            Notice::Started { id, object, .. } => json!({"messageType": "started", "id": id, "object": object}),
            Notice::Ended { id, object, run, repository } => {
                json!({"messageType": "ended", "id": id, "object": object, "run": run, "repository": repository})
            }
            Notice::Waiting(next) => json!({"messageType": "waiting", "next": next}),
            Notice::Stopped { id, object } => json!({"messageType": "stopped", "id": id, "object": object}),
            Notice::Warning(event) => json!({"messageType": "event", "event": event}),
            Notice::Note(note) => json!({"messageType": "note", "message": note}),
            Notice::Trouble(trouble) => json!({"messageType": "error", "message": trouble}),
        };
        self.json_line(&value);
    }

    /// A reader that went away must not end a program that guards data.
    fn json_line(&self, value: &serde_json::Value) {
        let _ = self.output.line(&value.to_string());
    }

    fn finish(&self, summary: Summary, once: bool) -> u8 {
        let Summary { succeeded, incomplete, failed, warnings, errors, nothing, interrupted } = summary;
        if self.output.is_json() {
            self.json_line(&json!({
                "messageType": "summary",
                "succeeded": succeeded,
                "incomplete": incomplete,
                "failed": failed,
                "warnings": warnings,
                "errors": errors,
                "interrupted": interrupted,
            }));
        } else {
            let mut parts = vec![count(succeeded, "run succeeded", "runs succeeded")];
            for (number, one, many) in [
                (incomplete, "incomplete", "incomplete"),
                (failed, "failed", "failed"),
                (warnings, "other failure", "other failures"),
                (errors as u64, "mistake in the manifests", "mistakes in the manifests"),
            ] {
                parts.extend((number > 0).then(|| count(number, one, many)));
            }
            self.line(format!("{}: {}", if interrupted { "stopped" } else { "done" }, parts.join(", ")));
        }
        match (once, interrupted) {
            // Being stopped is how a service ends.
            (false, _) => code::SUCCESS,
            (true, true) => code::INTERRUPTED,
            (true, false) if failed > 0 || warnings > 0 || errors > 0 || nothing => code::FAILED,
            (true, false) if incomplete > 0 => code::INCOMPLETE,
            (true, false) => code::SUCCESS,
        }
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
