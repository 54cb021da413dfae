//! What is told: the own host's part of each status, what is found of repositories, metrics.

use std::sync::Arc;

use holdfast_api::manifest::Typed;
use holdfast_api::names::{managers, pod as pod_names};
use holdfast_api::stash::{BackupSettings, RepositoryFacts};
use holdfast_plan::{ObjectKey, Plan};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::Cluster;
use crate::follow::Message;
use crate::pod::objects::{Key, Scope, Seen};
use crate::pod::report::Part;
use crate::pod::{Identity, push, status};
use crate::state::State;
use crate::world::World;

/// How many runs of all hosts together the status of one object tells of: it has to stay far below 1.5 MB.
const HISTORY_OF_ALL: usize = 200;

impl Cluster<'_> {
    pub(in crate::pod) fn part(&self, object: &ObjectKey) -> Part {
        let Identity { namespace, host, .. } = &self.options.identity;
        let (namespace, manager) = (namespace.clone(), pod_names::field_manager(host));
        Part { namespace, kind: object.kind.clone(), name: object.name.clone(), manager }
    }

    /// How many runs a status may tell of.
    fn limit(&self, object: &ObjectKey) -> usize {
        let wanted = self.manifests.objects.iter().find_map(|found| match &found.typed {
            Typed::Backup(backup) if object.kind == "Backup" && found.name == object.name => {
                Some(backup.spec.settings.history_limit())
            }
            _ => None,
        });
        let hosts = self.seen_of(object).map_or(1, |seen| seen.hosts.max(1));
        wanted.unwrap_or_else(|| BackupSettings::default().history_limit()).min((HISTORY_OF_ALL / hosts).max(1))
    }

    pub(super) fn publish_backups(&self, plan: &Plan, state: &State) {
        let identity = &self.options.identity;
        for planned in plan.backups.iter().filter(|planned| self.takes(&planned.object)) {
            let known = state.repositories.get(&planned.repository);
            let is_own = planned.object.kind == "Restic";
            let facts = known.map(status::of_repository).filter(|facts| *facts != RepositoryFacts::default());
            let mut entry = status::of_backup(
                planned,
                state,
                identity,
                self.limit(&planned.object),
                facts.clone().filter(|_| is_own),
            );
            entry.waiting_since = self.waiting.get(&planned.id).copied().map(Time);
            self.report.want(self.part(&planned.object), json!({"hosts": [entry]}));
            if let (false, Some(facts), Some(part)) = (is_own, facts, repository_part(&planned.repository)) {
                self.report.want(part, json!(facts));
            }
        }
        for trigger in &plan.triggers {
            let run = trigger.backups.iter().find_map(|id| status::of_trigger(&trigger.id, id, state, &identity.host));
            if let (Some(run), Some((_, name))) = (run, trigger.id.split_once('/')) {
                let object = ObjectKey::new("BackupTrigger", identity.namespace.clone(), name);
                self.report.want(self.part(&object), json!({"runs": [run]}));
            }
        }
    }

    /// The generation of an object, as it was last read.
    pub(in crate::pod) fn generation(&self, object: &ObjectKey) -> Option<i64> {
        self.seen_of(object).and_then(Seen::generation)
    }

    pub(super) fn publish_recovery(&self, plan: &Plan, state: &State) {
        for planned in plan.recoveries.iter().filter(|planned| self.takes(&planned.object)) {
            let has_run = state.runs.get(&planned.id).is_some_and(|runs| !runs.history.is_empty());
            if has_run || state.running.contains_key(&planned.id) {
                let entry =
                    status::of_recovery(planned, state, &self.options.identity, self.generation(&planned.object));
                self.report.want(self.part(&planned.object), json!({"hosts": [entry]}));
            }
        }
    }

    pub(super) fn push(&mut self, state: &State, metrics: &str) {
        let ended: u64 = state.runs.values().map(|runs| runs.succeeded + runs.failed).sum();
        let Some(gateway) = self.options.pushgateway.clone().filter(|_| ended != self.pushed) else { return };
        self.pushed = ended;
        let Identity { namespace, host, .. } = self.options.identity.clone();
        let (metrics, signal) = (metrics.to_owned(), Arc::clone(&self.signal));
        let push = async move {
            if let Err(error) = push::push(&gateway, &namespace, &host, metrics).await {
                signal(Message::Trouble(format!("cannot push metrics to {gateway}: {error}")));
            }
        };
        if matches!(self.options.scope, Scope::Workload(_)) || self.options.follow {
            self.connection.spawn(push);
        } else {
            // The program ends with its one run.
            self.connection.wait(push);
        }
    }

    /// The part of a status that this host writes, if it does.
    pub(super) fn own_part(&self, (kind, name): &Key) -> Option<Part> {
        let reported = matches!(*kind, "Backup" | "Restic" | "Recovery" | "BackupTrigger");
        reported.then(|| self.part(&ObjectKey::new(*kind, self.options.identity.namespace.clone(), name.clone())))
    }
}

/// What agents write about a repository, by its id in the plan.
pub(in crate::pod) fn repository_part(id: &str) -> Option<Part> {
    let (namespace, name) = id.split_once('/')?;
    let (kind, manager) = ("Repository".to_owned(), managers::REPOSITORY.to_owned());
    Some(Part { namespace: namespace.to_owned(), kind, name: name.to_owned(), manager })
}
