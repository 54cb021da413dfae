//! Runs whose pod did not live to see them end: they are told as failed, in the place and under the name of the agent
//! that cannot do it any more.
//!
//! A Recovery whose container ended well is told as such: it must not be done again.
//!
//! Written only over what was read, by the object's resourceVersion: an agent that lives after all is not overwritten.

use holdfast_api::names::pod as names;
use holdfast_api::stash::{BackupRun, HostStatus, RecoveryHostStatus, RecoveryPhase, RunPhase};
use holdfast_api::values::Duration;
use holdfast_plan::ObjectKey;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use serde_json::{Value, json};

use crate::action::{Action, Decision};
use crate::history::History;
use crate::job::Work;
use crate::restart::is_finished;
use crate::world::{World, controller, failure, is_ours, moment, statuses_of_ours, text, uid};

/// How long a pod may take to go beyond the moment at which it should have: then its node is taken for lost.
const GONE_AFTER: SignedDuration = SignedDuration::from_secs(45);
/// Within what time after the start of a run its pod is known.
const KNOWN_WITHIN: SignedDuration = SignedDuration::from_secs(20);
/// How many runs of a host are kept where its object says nothing.
const RUNS_MAX: usize = 5;

/// Tells every run that cannot end any more as failed.
pub(crate) fn bury(
    world: &World<'_>,
    history: &History<'_>,
    jobs: &[Work<'_>],
    now: Timestamp,
    decision: &mut Decision,
) {
    for ((kind, name), status) in &history.backups {
        let object = ObjectKey::new(*kind, world.namespace, *name);
        for host in &status.hosts {
            let dead = host.running.as_ref().and_then(|running| {
                let uid = host.pod_uid.as_deref().unwrap_or_default();
                fate(world, (uid, &object), running.start.0, now, decision).map(|why| (running, why))
            });
            if let Some((running, why)) = dead {
                let host = fail_backup(host.clone(), running.start.0, now, why, running.triggers.clone());
                decision.actions.extend(write(world, &object, &host.host, &host, "its pod did not live to tell"));
                continue;
            }
            let dead = host.waiting_since.as_ref().and_then(|since| {
                let uid = host.pod_uid.as_deref().unwrap_or_default();
                fate(world, (uid, &object), since.0, now, decision)
            });
            if dead.is_some() {
                let host = HostStatus { waiting_since: None, ..host.clone() };
                decision.actions.extend(write(
                    world,
                    &object,
                    &host.host,
                    &host,
                    "its pod did not live until its turn",
                ));
            }
        }
    }
    for (name, status) in &history.recoveries {
        let object = ObjectKey::new("Recovery", world.namespace, *name);
        for host in &status.hosts {
            let Some(start) = host.running.as_ref().map(|running| running.start.0) else { continue };
            let uid = host.pod_uid.as_deref().unwrap_or_default();
            let ended = if let Some(end) = succeeded(world, (uid, &object), start) {
                succeed_recovery(host.clone(), end)
            } else if let Some(why) = fate(world, (uid, &object), start, now, decision) {
                fail_recovery(host.clone(), now, why)
            } else {
                continue;
            };
            decision.actions.extend(write(world, &object, &host.host, &ended, "its pod did not live to tell"));
        }
    }
    triggers_of_the_dead(world, history, now, decision);
    triggers_untold(world, history, now, decision);
    jobs_without_a_word(world, history, jobs, decision);
}

/// Runs for a trigger that go on in its status and nowhere else.
fn triggers_of_the_dead(world: &World<'_>, history: &History<'_>, now: Timestamp, decision: &mut Decision) {
    for (name, status) in &history.triggers {
        let object = ObjectKey::new("BackupTrigger", world.namespace, *name);
        let backup = world.of(&object).map_or("", |found| text(found, "/spec/targetBackup/name"));
        let hosts = history.backups.get(&("Backup", backup)).map_or(&[][..], |status| status.hosts.as_slice());
        for run in status.runs.iter().filter(|run| run.phase == RunPhase::Running) {
            let host = hosts.iter().find(|host| host.host == run.host);
            let is_running = host
                .and_then(|host| host.running.as_ref())
                .is_some_and(|running| running.triggers.iter().any(|trigger| trigger == name));
            let Ok(known) = run.time.0.checked_add(KNOWN_WITHIN) else { continue };
            if is_running {
                continue;
            }
            if known > now {
                decision.again_at(known);
                continue;
            }
            let told = host.and_then(|host| host.runs.iter().find(|other| other.time == run.time)).cloned();
            let run = told.unwrap_or_else(|| BackupRun {
                phase: RunPhase::Failed,
                error: Some("the pod ended during the run".to_owned()),
                ..run.clone()
            });
            let part = json!({"runs": [run]});
            decision.actions.extend(write_part(world, &object, &run.host, part, "its run ended and nobody told"));
        }
    }
}

/// Runs for a trigger that the Backup tells of and the trigger does not: an agent that ended before it was allowed to.
fn triggers_untold(world: &World<'_>, history: &History<'_>, now: Timestamp, decision: &mut Decision) {
    for (name, status) in history.triggers.iter().filter(|(_, status)| !status.is_over()) {
        let object = ObjectKey::new("BackupTrigger", world.namespace, *name);
        let Some(found) = world.of(&object) else { continue };
        let Some(created) = moment(found, "/metadata/creationTimestamp") else { continue };
        let backup = text(found, "/spec/targetBackup/name");
        let hosts = history.backups.get(&("Backup", backup)).map_or(&[][..], |status| status.hosts.as_slice());
        for host in hosts.iter().filter(|host| !status.runs.iter().any(|run| run.host == host.host)) {
            // One of an older trigger of the name began before this one was made.
            let serves = |run: &&BackupRun| run.time.0 >= created && run.triggers.iter().any(|one| one == name);
            let Some(run) = host.runs.iter().find(serves) else { continue };
            let took = run.duration.map(|duration| duration.as_std()).unwrap_or_default();
            let Ok(known) = run.time.0.checked_add(took).and_then(|end| end.checked_add(KNOWN_WITHIN)) else {
                continue;
            };
            if known > now {
                decision.again_at(known);
                continue;
            }
            let part = json!({"runs": [run]});
            decision.actions.extend(write_part(world, &object, &host.host, part, "its run ended and nobody told"));
        }
    }
}

/// Whether the status of an object tells how a Job of its own ended.
pub(crate) fn is_told(history: &History<'_>, work: &Work<'_>) -> bool {
    let Some(created) = work.created() else { return true };
    let name = work.object.name.as_str();
    let told = |last_start: &Option<Time>, is_running: bool| {
        !is_running && last_start.as_ref().is_some_and(|time| time.0 >= created)
    };
    match work.object.kind.as_str() {
        "Backup" => history.backups.get(&("Backup", name)).is_some_and(|status| {
            status.hosts.iter().any(|host| host.host == work.host && told(&host.last_start, host.running.is_some()))
        }),
        "Recovery" => history.recoveries.get(name).is_some_and(|status| {
            status.hosts.iter().any(|host| host.host == work.host && told(&host.last_start, host.running.is_some()))
        }),
        _ => true,
    }
}

/// Jobs that ended before their agent could say anything: without an image, without a node, out of memory at once.
fn jobs_without_a_word(world: &World<'_>, history: &History<'_>, jobs: &[Work<'_>], decision: &mut Decision) {
    for work in jobs {
        let (Some(ended), Some(created)) = (work.ended(), work.created()) else { continue };
        let why = match last_words(world, work.job).unwrap_or(&ended.why) {
            "" => "its Job ended before the run began".to_owned(),
            why => format!("its Job ended before the run began: {why}"),
        };
        let name = work.object.name.as_str();
        let told = |last_start: &Option<Time>| last_start.as_ref().is_some_and(|time| time.0 >= created);
        match work.object.kind.as_str() {
            "Backup" => {
                let Some(status) = history.backups.get(&("Backup", name)) else { continue };
                let host = status.hosts.iter().find(|host| host.host == work.host).cloned();
                let host = host.unwrap_or_else(|| HostStatus { host: work.host.clone(), ..HostStatus::default() });
                if told(&host.last_start) {
                    continue;
                }
                let begun = HostStatus {
                    first_seen: host.first_seen.clone().or(Some(Time(created))),
                    last_start: Some(Time(created)),
                    attempts: host.attempts.saturating_add(1),
                    ..host
                };
                let host = fail_backup(begun, created, ended.at, why, Vec::new());
                decision.actions.extend(write(world, &work.object, &work.host, &host, "its Job ended without a word"));
            }
            "Recovery" => {
                let Some(status) = history.recoveries.get(name) else { continue };
                let host = status.hosts.iter().find(|host| host.host == work.host).cloned();
                let host = host
                    .unwrap_or_else(|| RecoveryHostStatus { host: work.host.clone(), ..RecoveryHostStatus::default() });
                if told(&host.last_start) {
                    continue;
                }
                let begun = RecoveryHostStatus {
                    last_start: Some(Time(created)),
                    last_occasion: host.last_occasion.clone().or_else(|| Some("once".to_owned())),
                    attempts: host.attempts.saturating_add(1),
                    ..host
                };
                let host = fail_recovery(begun, ended.at, why);
                decision.actions.extend(write(world, &work.object, &work.host, &host, "its Job ended without a word"));
            }
            _ => {}
        }
    }
}

/// The last line that the agent of a Job left, of the pod that ended last.
fn last_words<'a>(world: &World<'a>, job: &Value) -> Option<&'a str> {
    let owned = |pod: &&Value| controller(pod).is_some_and(|(_, _, owner)| owner == uid(job));
    let failed = world.all("Pod").filter(owned).flat_map(statuses_of_ours).filter_map(failure);
    let last = failed.max_by_key(|ended| moment(ended, "/finishedAt"))?;
    let line = text(last, "/message").lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.strip_prefix("error: ").unwrap_or(line))
}

/// Why the run of an object in the pod of this UID cannot end any more; none if it may.
fn fate(
    world: &World<'_>,
    (pod_uid, object): (&str, &ObjectKey),
    start: Timestamp,
    now: Timestamp,
    decision: &mut Decision,
) -> Option<String> {
    let Some(pod) = world.all("Pod").find(|pod| uid(pod) == pod_uid) else {
        // What is watched apart arrives apart: a new pod may be known a little later than its first run.
        return match start.checked_add(KNOWN_WITHIN) {
            Ok(known) if known > now => {
                decision.again_at(known);
                None
            }
            _ => Some("the pod is gone".to_owned()),
        };
    };
    let name = crate::world::name(pod);
    if is_finished(pod) {
        let reason = text(pod, "/status/reason");
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        return Some(format!("the pod {name} ended during the run{reason}"));
    }
    if let Some(gone) = moment(pod, "/metadata/deletionTimestamp").map(|time| time.saturating_add(GONE_AFTER)) {
        let Ok(gone) = gone else { return None };
        if gone <= now {
            return Some(format!("the pod {name} should be gone and its node does not answer"));
        }
        decision.again_at(gone);
    }
    let status = container_of(pod, object)?;
    let ended = ended_since(status, start)?;
    let reason = text(ended, "/reason");
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    Some(format!("the container {} of the pod {name} ended during the run{reason}", text(status, "/name")))
}

/// When a run of a Recovery in the pod of this UID has succeeded, as only its exit code tells: an agent that was not
/// allowed to say so any more.
fn succeeded(world: &World<'_>, (pod_uid, object): (&str, &ObjectKey), start: Timestamp) -> Option<Timestamp> {
    let pod = world.all("Pod").find(|pod| uid(pod) == pod_uid)?;
    let ended = ended_since(container_of(pod, object)?, start)?;
    (ended["exitCode"] == 0).then(|| moment(ended, "/finishedAt")).flatten()
}

/// The status of the container that works for an object: the one that is named after it, or that works for all. None
/// if it may be one of several: which it was is not known, and its agent tells at its next start.
fn container_of<'a>(pod: &'a Value, object: &ObjectKey) -> Option<&'a Value> {
    let of = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    let ours = of("containers").chain(of("initContainers")).filter(|container| is_ours(container));
    let whose = |container: &'a Value| {
        let mut variables = container["env"].as_array().into_iter().flatten();
        let named = variables.find(|one| [names::RECOVERY_NAME, names::BACKUP_NAME].contains(&text(one, "/name")))?;
        Some((text(named, "/name"), text(named, "/value")))
    };
    let own = if object.kind == "Recovery" { names::RECOVERY_NAME } else { names::BACKUP_NAME };
    let by_whose = |wanted| ours.clone().filter(|&container| whose(container) == wanted).collect::<Vec<_>>();
    let mut found = by_whose(Some((own, object.name.as_str())));
    if found.is_empty() {
        found = by_whose(None);
    }
    let [only] = found[..] else { return None };
    statuses_of_ours(pod).find(|status| status["name"] == only["name"])
}

/// How a container has ended since then, of its status.
fn ended_since(status: &Value, start: Timestamp) -> Option<&Value> {
    let mut ends = ["/state/terminated", "/lastState/terminated"].into_iter().filter_map(|state| status.pointer(state));
    ends.find(|ended| moment(ended, "/finishedAt").is_some_and(|at| at >= start))
}

fn fail_backup(host: HostStatus, start: Timestamp, end: Timestamp, error: String, triggers: Vec<String>) -> HostStatus {
    let run = BackupRun {
        time: Time(start),
        phase: RunPhase::Failed,
        duration: duration(start, end),
        host: host.host.clone(),
        snapshots: Vec::new(),
        files_total: None,
        bytes_total: None,
        bytes_new: None,
        snapshots_removed: None,
        triggers,
        error: Some(error),
        notes: Vec::new(),
    };
    let kept = host.runs.len().clamp(RUNS_MAX, 100);
    let runs = std::iter::once(run).chain(host.runs).take(kept).collect();
    HostStatus { running: None, last_end: Some(Time(end)), count: host.count + 1, runs, ..host }
}

fn succeed_recovery(host: RecoveryHostStatus, end: Timestamp) -> RecoveryHostStatus {
    RecoveryHostStatus {
        running: None,
        phase: Some(RecoveryPhase::Succeeded),
        recovered: host.last_occasion.clone(),
        last_end: Some(Time(end)),
        count: host.count + 1,
        attempts: 0,
        error: None,
        ..host
    }
}

fn fail_recovery(host: RecoveryHostStatus, end: Timestamp, error: String) -> RecoveryHostStatus {
    let phase = Some(RecoveryPhase::Failed);
    RecoveryHostStatus {
        running: None,
        phase,
        last_end: Some(Time(end)),
        count: host.count + 1,
        error: Some(error),
        ..host
    }
}

fn duration(start: Timestamp, end: Timestamp) -> Option<Duration> {
    u64::try_from(end.duration_since(start).as_secs()).ok().map(Duration::from_secs)
}

fn write(world: &World<'_>, object: &ObjectKey, host: &str, status: &impl Serialize, because: &str) -> Option<Action> {
    write_part(world, object, host, json!({"hosts": [status]}), because)
}

fn write_part(world: &World<'_>, object: &ObjectKey, host: &str, status: Value, because: &str) -> Option<Action> {
    let found = world.of(object)?;
    Some(Action::Apply {
        because: because.to_owned(),
        manager: names::field_manager(host),
        subresource: Some("status"),
        object: json!({
            "apiVersion": found["apiVersion"],
            "kind": found["kind"],
            "metadata": {
                "name": object.name,
                "namespace": object.namespace,
                "resourceVersion": found["metadata"]["resourceVersion"],
            },
            "status": status,
        }),
    })
}
