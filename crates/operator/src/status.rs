//! The statuses that people, `kubectl wait` and dashboards read: computed from what the agents of the hosts wrote, from
//! the plan, and from what is refused. Nothing of it is remembered elsewhere.
//!
//! Only the fields named here are the operator's; those of the hosts are their agents'.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_api::names::{managers, reasons};
use holdfast_api::stash::{
    BackupPhase, BackupRun, BackupStatus, BackupTriggerStatus, RecoveryPhase, RecoveryStatus, RunPhase, TriggerPhase,
};
use holdfast_api::values::{condition, set_condition};
use holdfast_plan::{ObjectKey, Plan, PlannedBackup, PlannedRecovery, PlannedTrigger, Target, TargetKind};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::action::Action;
use crate::event;
use crate::history::History;
use crate::objects::Objects;
use crate::refusal::{Refusal, Refusals};
use crate::wipe::Waiting;
use crate::world::{World, controller, name, text, uid};

/// How many runs a Restic remembers, and a Backup that does not say.
const HISTORY_DEFAULT: usize = 10;

/// The fields of each kind's status that are the operator's.
const OF_BACKUP: [&str; 12] = [
    "observedGeneration",
    "conditions",
    "phase",
    "firstBackupTime",
    "lastBackupTime",
    "lastSuccessfulBackupTime",
    "lastBackupDuration",
    "nextBackupTime",
    "backupCount",
    "consecutiveFailures",
    "history",
    "limited",
];
const OF_RECOVERY: [&str; 6] = ["observedGeneration", "conditions", "phase", "startTime", "completionTime", "stats"];
const OF_TRIGGER: [&str; 5] = ["observedGeneration", "conditions", "phase", "startTime", "completionTime"];
const OF_REPOSITORY: [&str; 2] = ["observedGeneration", "conditions"];

/// What a Job waits for, in words.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    /// Its turn.
    Turn(String),
    /// Something that will perhaps never be: an image, a node.
    Pod(String),
}

/// What statuses are computed from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reporter<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) objects: &'a Objects<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) history: &'a History<'a>,
    pub(crate) refusals: &'a Refusals,
    /// What Jobs wait for.
    pub(crate) pending: &'a BTreeMap<ObjectKey, Pending>,
    pub(crate) wiping: &'a Waiting,
    /// How many runs may go on at once in the cluster.
    pub(crate) runs_max: Option<usize>,
    pub(crate) now: Timestamp,
}

impl<'a> Reporter<'a> {
    /// Every status that is not as it should be, and an event for each object that became wrong.
    pub(crate) fn actions(self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut planned: BTreeMap<&ObjectKey, Vec<&PlannedBackup>> = BTreeMap::new();
        for backup in &self.plan.backups {
            planned.entry(&backup.object).or_default().push(backup);
        }
        for kind in ["Backup", "Restic"] {
            for found in self.world.all(kind) {
                let key = ObjectKey::new(kind, self.world.namespace, name(found));
                let planned = planned.get(&key).map_or(&[][..], Vec::as_slice);
                self.report(found, &OF_BACKUP, self.backup(kind, found, planned), &mut actions);
            }
        }
        let mut recoveries: BTreeMap<&ObjectKey, Vec<&PlannedRecovery>> = BTreeMap::new();
        for recovery in &self.plan.recoveries {
            recoveries.entry(&recovery.object).or_default().push(recovery);
        }
        for found in self.world.all("Recovery") {
            let key = ObjectKey::new("Recovery", self.world.namespace, name(found));
            let planned = recoveries.get(&key).map_or(&[][..], Vec::as_slice);
            self.report(found, &OF_RECOVERY, self.recovery(found, planned), &mut actions);
        }
        let triggers: HashMap<&str, &PlannedTrigger> =
            self.plan.triggers.iter().map(|planned| (planned.id.as_str(), planned)).collect();
        let backups: HashMap<&str, &PlannedBackup> =
            self.plan.backups.iter().map(|planned| (planned.id.as_str(), planned)).collect();
        for found in self.world.all("BackupTrigger") {
            let id = format!("{}/{}", self.world.namespace, name(found));
            let ids = triggers.get(id.as_str()).map_or(&[][..], |planned| planned.backups.as_slice());
            let target = ids.first().and_then(|id| backups.get(id.as_str())).map(|backup| &backup.target);
            self.report(found, &OF_TRIGGER, self.trigger(found, ids, target), &mut actions);
        }
        for found in self.world.all("Repository") {
            self.report(found, &OF_REPOSITORY, self.repository(found), &mut actions);
        }
        // Objects without a status of ours: workloads that ask for something that cannot be done.
        for object in self.refusals.objects().filter(|object| object.namespace == self.world.namespace) {
            let has_status =
                ["Backup", "Restic", "Recovery", "BackupTrigger", "Repository"].contains(&object.kind.as_str());
            if let (false, Some(found), Some(refusal)) = (has_status, self.world.of(object), self.refusals.of(object)) {
                let reason = match refusal.is_of_label {
                    true => reasons::INVALID_RESTIC,
                    false => reasons::INVALID_BACKUP,
                };
                actions.extend(event::warning(self.world, found, reason, &refusal.message));
            }
        }
        actions
    }

    fn backup(self, kind: &'static str, found: &Value, planned: &[&PlannedBackup]) -> Value {
        let name = name(found);
        let none = BackupStatus::default();
        let status = self.history.backups.get(&(kind, name)).unwrap_or(&none);
        let key = ObjectKey::new(kind, self.world.namespace, name);
        let refusal = self.refusals.of(&key);
        let limit = self
            .objects
            .backups
            .get(&(self.world.namespace, name))
            .filter(|_| kind == "Backup")
            .map_or(HISTORY_DEFAULT, |backup| backup.spec.settings.history_limit());
        let mut runs: Vec<&BackupRun> = status.hosts.iter().flat_map(|host| &host.runs).collect();
        runs.sort_by(|a, b| b.time.0.cmp(&a.time.0).then_with(|| a.host.cmp(&b.host)));
        let ended = || runs.iter().filter(|run| run.phase != RunPhase::Running);
        let succeeded = || runs.iter().filter(|run| run.phase == RunPhase::Succeeded);
        let last_of_hosts: Vec<&BackupRun> = status.hosts.iter().filter_map(|host| host.runs.first()).collect();
        let is_paused = found["spec"]["paused"] == json!(true);
        let phase = match &refusal {
            Some(refusal) if refusal.reason == "Invalid" || refusal.reason == "Conflict" => BackupPhase::Invalid,
            Some(_) => BackupPhase::NotReady,
            None if matches!(self.pending.get(&key), Some(Pending::Pod(_))) => BackupPhase::NotReady,
            None if is_paused => BackupPhase::Paused,
            None => BackupPhase::Ready,
        };
        let mut conditions = Conditions::new(self, found);
        let targets: BTreeSet<String> = planned.iter().map(|planned| planned.target.key().to_string()).collect();
        let done = match targets.is_empty() {
            true => "no workload is protected by it".to_owned(),
            false => format!("it protects {}", targets.into_iter().collect::<Vec<_>>().join(", ")),
        };
        let waiting = status.hosts.iter().filter(|host| host.waiting_since.is_some()).count();
        let turn = (waiting > 0).then(|| {
            Pending::Turn(format!("{waiting} of its hosts wait for their turn: as many backups go on at once as may"))
        });
        conditions.ready(refusal.as_ref(), self.pending.get(&key).or(turn.as_ref()), done);
        if let Some(failed) = last_of_hosts.iter().find(|run| run.phase == RunPhase::Failed) {
            let error = failed.error.as_deref().unwrap_or("it failed");
            conditions.set("BackedUp", false, "LastRunFailed", &format!("{}: {error}", failed.host));
        } else if !last_of_hosts.is_empty() {
            conditions.set("BackedUp", true, "LastRunSucceeded", "the last run of every host succeeded");
        }
        let next_of_hosts = status.hosts.iter().filter_map(|host| host.next.as_ref().map(|time| time.0)).min();
        let next = next_of_hosts.or_else(|| planned.iter().filter_map(|planned| planned.next).min());
        let first = runs.iter().map(|run| run.time.0).chain(status.first_backup_time.iter().map(|time| time.0)).min();
        let failures = status.hosts.iter().map(|host| host.attempts.saturating_sub(u32::from(host.running.is_some())));
        let last_success = succeeded().next().map(|run| run.time.0);
        let computed = BackupStatus {
            observed_generation: generation(found),
            conditions: conditions.list,
            phase: Some(phase),
            first_backup_time: first.map(Time),
            last_backup_time: status.hosts.iter().filter_map(|host| host.last_start.clone()).max(),
            last_successful_backup_time: last_success.map(Time).or_else(|| status.last_successful_backup_time.clone()),
            last_backup_duration: ended().next().and_then(|run| run.duration),
            next_backup_time: next.filter(|_| refusal.is_none() && !is_paused).map(Time),
            backup_count: status.hosts.iter().map(|host| host.count).sum(),
            consecutive_failures: failures.max().map_or(0, i64::from),
            history: runs.iter().copied().take(limit).cloned().collect(),
            hosts: Vec::new(),
            limited: self.is_limited(kind, name),
            admitted: BTreeMap::new(),
        };
        json!(computed)
    }

    /// Whether runs have to wait until they are admitted.
    fn is_limited(self, kind: &str, name: &str) -> bool {
        let backup = self.objects.backups.get(&(self.world.namespace, name)).filter(|_| kind == "Backup");
        let repository = backup.and_then(|backup| {
            let repository = &backup.spec.repository;
            let of = repository.namespace.as_deref().unwrap_or(self.world.namespace);
            self.objects.repositories.get(&(of, repository.name.as_str()))
        });
        self.runs_max.is_some() || repository.is_some_and(|repository| repository.spec.max_concurrent_runs.is_some())
    }

    fn recovery(self, found: &Value, planned: &[&PlannedRecovery]) -> Value {
        let name = name(found);
        let key = ObjectKey::new("Recovery", self.world.namespace, name);
        let none = RecoveryStatus::default();
        let status = self.history.recoveries.get(name).unwrap_or(&none);
        let refusal = self.refusals.of(&key);
        let target = planned.first().and_then(|planned| planned.target.as_ref());
        let expected: Vec<String> = match target {
            Some(target) if target.kind == TargetKind::DaemonSet => self.nodes_of(&target.name),
            _ => planned.iter().map(|planned| host_of(&planned.id).to_owned()).collect(),
        };
        let host = |expected: &String| status.hosts.iter().find(|host| host.host == *expected);
        let is = |phase| move |host: &&holdfast_api::stash::RecoveryHostStatus| host.phase == Some(phase);
        let hosts: Vec<_> = expected.iter().filter_map(host).collect();
        let failed = hosts.iter().copied().filter(is(RecoveryPhase::Failed));
        let gave_up = failed.clone().find(|host| {
            let last = host.last_end.as_ref().map(|time| time.0);
            planned.iter().all(|planned| planned.retry.at(host.attempts, last).is_none())
        });
        let is_complete = !expected.is_empty()
            && hosts.len() == expected.len()
            && hosts.iter().all(|host| host.phase == Some(RecoveryPhase::Succeeded));
        let phase = if hosts.iter().any(|host| host.running.is_some()) {
            RecoveryPhase::Running
        } else if is_complete {
            RecoveryPhase::Succeeded
        } else if gave_up.is_some() {
            RecoveryPhase::Failed
        } else {
            RecoveryPhase::Pending
        };
        let mut conditions = Conditions::new(self, found);
        let into = target.map_or_else(|| "volumes".to_owned(), |target| target.key().to_string());
        conditions.ready(refusal.as_ref(), self.pending.get(&key), format!("it recovers into {into}"));
        if refusal.is_none() {
            match (is_complete, gave_up) {
                (true, _) => {
                    conditions.set("Complete", true, "Recovered", "everything is restored");
                    conditions.set("Failed", false, "Recovered", "everything is restored");
                }
                (false, Some(host)) => {
                    let error = host.error.as_deref().unwrap_or("it failed");
                    let message = format!("{}: {error}{}", host.host, self.after_failure(&key, target, host));
                    conditions.set("Complete", false, "Failed", &message);
                    conditions.set("Failed", true, "RetriesExhausted", &message);
                }
                (false, None) => {
                    let trouble = failed.clone().next().and_then(|host| host.error.as_deref());
                    let message = match (trouble, phase) {
                        (Some(error), _) => format!("it is tried again: {error}"),
                        (None, RecoveryPhase::Running) => "it runs".to_owned(),
                        (None, _) => "it has not run yet".to_owned(),
                    };
                    conditions.set("Complete", false, "InProgress", &message);
                    conditions.set("Failed", false, "InProgress", &message);
                }
            }
        }
        let ended = is_complete || gave_up.is_some();
        let last_end = hosts.iter().filter_map(|host| host.last_end.clone()).max();
        let computed = RecoveryStatus {
            observed_generation: generation(found),
            conditions: conditions.list,
            phase: Some(phase),
            start_time: status.hosts.iter().filter_map(|host| host.last_start.clone()).min(),
            completion_time: last_end.filter(|_| ended),
            stats: status.hosts.iter().flat_map(|host| host.stats.clone()).collect(),
            hosts: Vec::new(),
        };
        json!(computed)
    }

    /// What comes after a recovery failed for good.
    fn after_failure(
        self,
        recovery: &ObjectKey,
        target: Option<&Target>,
        host: &holdfast_api::stash::RecoveryHostStatus,
    ) -> &'static str {
        let of_workload = target.is_some_and(|target| target.kind != TargetKind::PersistentVolumeClaim);
        let goes_on = |work: &crate::job::Work<'_>| work.object == *recovery && work.ended().is_none();
        match host.waits_for_secret {
            false => "",
            true if of_workload || crate::job::all(self.world).iter().any(goes_on) => {
                "; when the Secret is mended it is tried again by itself, for an hour after it failed"
            }
            true => {
                "; it is not tried again by itself any more: mend the Secret, then change the spec, such as \
                 spec.retryConfig.maxRetry"
            }
        }
    }

    fn trigger(self, found: &Value, ids: &[String], target: Option<&Target>) -> Value {
        let name = name(found);
        let key = ObjectKey::new("BackupTrigger", self.world.namespace, name);
        let none = BackupTriggerStatus::default();
        let status = self.history.triggers.get(name).unwrap_or(&none);
        let refusal = self.refusals.of(&key);
        let (backup, expected) = self.hosts_of_trigger(found, ids, target);
        let of_backup = self.history.backups.get(&("Backup", backup));
        let asks = |running: &holdfast_api::stash::RunningRun| {
            running.triggers.iter().any(|trigger| trigger == name || trigger.ends_with(&format!("/{name}")))
        };
        let running = of_backup.and_then(|status| {
            status.hosts.iter().filter_map(|host| host.running.as_ref()).find(|running| asks(running))
        });
        let ended = |host: &String| status.runs.iter().any(|run| run.host == *host && run.phase != RunPhase::Running);
        let goes_on = status.runs.iter().any(|run| run.phase == RunPhase::Running);
        // Once told, it stays: hosts that come later do not concern it.
        let is_done = status.is_over()
            || !status.runs.is_empty() && expected.iter().all(ended) && (refusal.is_none() || !goes_on);
        let failed = status.runs.iter().find(|run| matches!(run.phase, RunPhase::Failed | RunPhase::Skipped));
        let phase = match (is_done, failed, running) {
            (true, None, _) => TriggerPhase::Succeeded,
            (true, Some(_), _) => TriggerPhase::Failed,
            (false, _, Some(_)) => TriggerPhase::Running,
            (false, _, None) if !status.runs.is_empty() => TriggerPhase::Running,
            (false, _, None) => TriggerPhase::Pending,
        };
        let mut conditions = Conditions::new(self, found);
        conditions.ready(refusal.as_ref(), None, format!("it starts Backup {}/{backup}", self.world.namespace));
        let (complete, failure, reason, message) = match (phase, failed, &refusal) {
            (TriggerPhase::Succeeded, ..) => (true, false, "Succeeded", "the run of every host succeeded".to_owned()),
            (TriggerPhase::Failed, Some(run), _) => {
                let error = run.error.as_deref().unwrap_or("it failed");
                (false, true, "RunFailed", format!("{}: {error}", run.host))
            }
            (.., Some(refusal)) => (false, false, refusal.reason, refusal.message.clone()),
            _ => (false, false, "InProgress", "not every host has run".to_owned()),
        };
        conditions.set("Complete", complete, reason, &message);
        conditions.set("Failed", failure, reason, &message);
        let start = status.runs.iter().map(|run| run.time.0).chain(running.map(|running| running.start.0)).min();
        let end = status.runs.iter().filter_map(|run| {
            let seconds = run.duration.map_or(0, |duration| duration.as_std().as_secs());
            run.time.0.checked_add(jiff::SignedDuration::from_secs(i64::try_from(seconds).ok()?)).ok()
        });
        let computed = BackupTriggerStatus {
            observed_generation: generation(found),
            conditions: conditions.list,
            phase: Some(phase),
            start_time: start.map(Time),
            completion_time: end.max().filter(|_| is_done).map(Time),
            runs: Vec::new(),
        };
        json!(computed)
    }

    fn repository(self, found: &Value) -> Value {
        let name = name(found);
        let key = ObjectKey::new("Repository", self.world.namespace, name);
        let mut conditions = Conditions::new(self, found);
        match self.wiping.get(name) {
            Some(message) => conditions.set("Ready", false, "Wiping", message),
            None => conditions.ready(self.refusals.of(&key).as_ref(), None, "backups may use it".to_owned()),
        }
        json!({"observedGeneration": generation(found), "conditions": conditions.list})
    }

    /// The Backup of a trigger and the hosts that are to run for it.
    fn hosts_of_trigger(self, trigger: &Value, ids: &[String], target: Option<&Target>) -> (&'a str, Vec<String>) {
        let hosts = match target {
            Some(target) if target.kind == TargetKind::DaemonSet => self.nodes_of(&target.name),
            _ => ids.iter().map(|id| host_of(id).to_owned()).collect(),
        };
        let object = self.objects.triggers.get(&(self.world.namespace, name(trigger)));
        let backup = object.map_or("", |trigger| trigger.spec.target_backup.name.as_str());
        // Of a Backup that cannot run it is those that it had.
        let of_status = self.history.backups.get(&("Backup", backup)).filter(|_| ids.is_empty());
        let had = of_status.into_iter().flat_map(|status| status.hosts.iter().map(|host| host.host.clone()));
        (backup, hosts.into_iter().chain(had).collect())
    }

    /// The hosts of a DaemonSet: the nodes that its pods are on.
    fn nodes_of(self, daemon_set: &str) -> Vec<String> {
        let Some(workload) = self.world.get("DaemonSet", daemon_set) else { return Vec::new() };
        let owned =
            self.world.all("Pod").filter(|pod| controller(pod).is_some_and(|(_, _, owner)| owner == uid(workload)));
        let nodes: BTreeSet<&str> =
            owned.map(|pod| text(pod, "/spec/nodeName")).filter(|node| !node.is_empty()).collect();
        nodes.into_iter().map(|node| format!("daemonset.{daemon_set}.{node}")).collect()
    }

    /// Writes what differs of the fields that are ours.
    fn report(self, found: &Value, fields: &[&str], computed: Value, actions: &mut Vec<Action>) {
        let mut status = Map::new();
        let mut differs = false;
        for &field in fields {
            let wanted = computed.get(field).filter(|value| !is_nothing(value));
            differs |= found["status"].get(field).filter(|value| !is_nothing(value)) != wanted;
            if let Some(wanted) = wanted {
                status.insert(field.to_owned(), wanted.clone());
            }
        }
        if !differs {
            return;
        }
        if let Some((reason, message)) = became_wrong(found, &computed) {
            actions.extend(event::warning(self.world, found, reason, &message));
        }
        actions.push(Action::Apply {
            because: "its status changed".to_owned(),
            manager: managers::OPERATOR.to_owned(),
            subresource: Some("status"),
            object: json!({
                "apiVersion": found["apiVersion"],
                "kind": found["kind"],
                "metadata": {"name": name(found), "namespace": self.world.namespace},
                "status": status,
            }),
        });
    }
}

/// The reason of the event and the message, if the object is wrong in a way in which it was not.
fn became_wrong(found: &Value, computed: &Value) -> Option<(&'static str, String)> {
    let ready = |status: &Value| -> Option<Condition> {
        let all = status.get("conditions")?.as_array()?;
        all.iter().find(|one| one["type"] == "Ready").and_then(|one| Condition::deserialize(one).ok())
    };
    let now = ready(computed)
        .filter(|condition| condition.status == "False" && !["Wiping", "PodWaits"].contains(&&*condition.reason))?;
    let before = ready(&found["status"]);
    if before.is_some_and(|before| before.status == now.status && before.message == now.message) {
        return None;
    }
    let reason = match text(found, "/kind") {
        "Restic" => reasons::INVALID_RESTIC,
        "Recovery" => reasons::INVALID_RECOVERY,
        "Backup" => reasons::INVALID_BACKUP,
        _ => return None,
    };
    Some((reason, now.message))
}

/// The last part of the planner's id.
fn host_of(id: &str) -> &str {
    id.rsplit_once('/').map_or(id, |(_, host)| host)
}

fn generation(found: &Value) -> Option<i64> {
    found.pointer("/metadata/generation").and_then(Value::as_i64)
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// The conditions of one object, each with the moment at which its status changed last.
struct Conditions {
    before: Vec<Condition>,
    list: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    fn new(reporter: Reporter<'_>, found: &Value) -> Self {
        let before = found["status"].get("conditions").and_then(|list| Vec::deserialize(list).ok()).unwrap_or_default();
        // Seconds are what Kubernetes keeps of a moment.
        let now = Timestamp::from_second(reporter.now.as_second()).unwrap_or(reporter.now);
        Self { before, list: Vec::new(), generation: generation(found), now }
    }

    fn ready(&mut self, refusal: Option<&Refusal>, pending: Option<&Pending>, done: String) {
        match (refusal, pending) {
            (Some(refusal), _) => self.set("Ready", false, refusal.reason, &refusal.message),
            (None, Some(Pending::Turn(message))) => self.set("Ready", true, "Waiting", message),
            (None, Some(Pending::Pod(message))) => self.set("Ready", false, "PodWaits", message),
            (None, None) => self.set("Ready", true, "Ready", &done),
        }
    }

    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        // What a condition's message may have.
        let mut end = message.len().min(4096);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let new = condition(kind, holds, reason, &message[..end], self.generation, self.now);
        let mut merged: Vec<Condition> = self.before.iter().filter(|old| old.type_ == kind).cloned().collect();
        set_condition(&mut merged, new);
        self.list.extend(merged);
    }
}
