//! What the planner must know of the past, from the statuses that agents write.

use std::collections::BTreeMap;

use holdfast_api::stash::{BackupStatus, BackupTriggerStatus, HostStatus, RecoveryHostStatus, RecoveryStatus};
use holdfast_plan::{BackupHistory, Observed, RecoveryHistory};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::job::{self, Work};
use crate::world::{World, name};

/// The statuses of a namespace by kind and name; an unreadable one is as good as none.
#[derive(Debug, Default)]
pub(crate) struct History<'a> {
    /// Of Backups and Restics.
    pub(crate) backups: BTreeMap<(&'static str, &'a str), BackupStatus>,
    /// Of Recoveries.
    pub(crate) recoveries: BTreeMap<&'a str, RecoveryStatus>,
    /// Of BackupTriggers.
    pub(crate) triggers: BTreeMap<&'a str, BackupTriggerStatus>,
}

impl<'a> History<'a> {
    pub(crate) fn new(world: &World<'a>) -> Self {
        let mut history = Self::default();
        for kind in ["Backup", "Restic"] {
            let statuses = world.all(kind).map(|object| ((kind, name(object)), status(object)));
            history.backups.extend(statuses);
        }
        history.recoveries = world.all("Recovery").map(|object| (name(object), status(object))).collect();
        history.triggers = world.all("BackupTrigger").map(|object| (name(object), status(object))).collect();
        history
    }

    /// Whether a Job has failed by what a Secret holds, and waits for another one.
    pub(crate) fn waits_for_secret(&self, work: &Work<'_>) -> bool {
        work.object.kind == "Recovery"
            && self.recoveries.get(work.object.name.as_str()).is_some_and(|status| {
                let waits = |host: &RecoveryHostStatus| host.waits_for_secret && host.running.is_none();
                status.hosts.iter().any(|host| host.host == work.host && waits(host))
            })
    }

    /// The same as the planner takes it. `running` are the Jobs that go on.
    pub(crate) fn observed(&self, world: &World<'_>, running: &[Work<'_>]) -> Observed {
        let mut observed = Observed::default();
        let namespace = world.namespace;
        for ((kind, name), status) in &self.backups {
            for host in &status.hosts {
                let id = format!("{kind}/{namespace}/{name}/{}", host.host);
                if host.running.is_some() {
                    observed.running.insert(id.clone(), String::new());
                }
                observed.backups.insert(id, of_host(host));
            }
        }
        let generations: BTreeMap<&str, Option<i64>> =
            world.all("Recovery").map(|object| (name(object), object["metadata"]["generation"].as_i64())).collect();
        for (name, status) in &self.recoveries {
            for host in &status.hosts {
                let id = format!("Recovery/{namespace}/{name}/{}", host.host);
                if host.running.is_some() {
                    observed.running.insert(id.clone(), String::new());
                }
                observed.recoveries.insert(id, of_recovery(host, generations.get(name).copied().flatten()));
            }
        }
        for (trigger, status) in &self.triggers {
            let backup = world.get("BackupTrigger", trigger);
            let backup = backup.map_or("", |object| crate::world::text(object, "/spec/targetBackup/name"));
            let ended = status.runs.iter().filter(|run| run.phase != holdfast_api::stash::RunPhase::Running);
            let ids = ended.map(|run| format!("Backup/{namespace}/{backup}/{}", run.host)).collect();
            let id = format!("{namespace}/{trigger}");
            if status.is_over() {
                observed.triggers_over.insert(id.clone());
            }
            observed.triggers.insert(id, ids);
        }
        for work in running {
            observed.running.insert(job::planned_id(namespace, work), String::new());
        }
        observed
    }
}

fn status<T: DeserializeOwned + Default>(object: &Value) -> T {
    object.get("status").and_then(|status| T::deserialize(status).ok()).unwrap_or_default()
}

fn of_host(host: &HostStatus) -> BackupHistory {
    let at = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    BackupHistory {
        first_seen: at(&host.first_seen),
        last_start: at(&host.last_start),
        last_end: at(&host.last_end),
        last_success: at(&host.last_success),
        attempts: host.attempts,
        // What an agent's Secrets hold is part of it, which the operator does not see.
        revision: None,
    }
}

fn of_recovery(host: &RecoveryHostStatus, generation: Option<i64>) -> RecoveryHistory {
    let at = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    // Corrected, it is tried as if for the first time.
    let is_corrected = host.observed_generation.is_some() && host.observed_generation != generation;
    RecoveryHistory {
        recovered: host.recovered.clone(),
        restored: host.restored.clone(),
        last_occasion: host.last_occasion.clone(),
        last_start: at(&host.last_start),
        last_end: at(&host.last_end),
        no_snapshot: host.no_snapshot,
        attempts: if is_corrected { 0 } else { host.attempts },
        // What an agent's Secrets hold is part of it, which the operator does not see.
        revision: None,
    }
}
