//! What is remembered, as the statuses of objects tell it, when this pod begins to work and while it does.

use std::collections::BTreeMap;

use holdfast_api::stash::{HostStatus, RecoveryHostStatus, RepositoryFacts, RunPhase};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::Cluster;
use crate::pod::objects::{Key, Scope, Seen};
use crate::pod::{Identity, status};
use crate::state::{Run, State};

impl Cluster<'_> {
    /// What the status of the own host says of everything, as somebody else left it.
    pub(super) fn load(&self) -> State {
        let mut state = State::default();
        for (key, seen) in &self.seen {
            self.remember(&mut state, key, seen);
        }
        for (id, repository) in &self.elsewhere {
            if let Ok(facts) = serde_json::from_value(repository["status"].clone()) {
                state.repositories.insert(id.clone(), status::to_repository(&facts));
            }
        }
        state
    }

    fn remember(&self, state: &mut State, (kind, name): &Key, seen: &Seen) {
        let Identity { namespace, host, .. } = &self.options.identity;
        let id = format!("{kind}/{namespace}/{name}/{host}");
        let count = state.event_counts.entry(format!("{namespace}/{name}")).or_default();
        *count = (*count).max(seen.count);
        match *kind {
            "Backup" | "Restic" => {
                if let Some(entry) = own::<HostStatus>(seen) {
                    status::remember_backup(state, &id, namespace, &entry);
                }
            }
            "Recovery" => {
                if let Some(entry) = own::<RecoveryHostStatus>(seen) {
                    status::remember_recovery(state, &id, &entry, seen.generation());
                }
            }
            "BackupTrigger" => remember_trigger(state, namespace, host, name, seen),
            "Repository" => {
                if let Some(facts) = own::<RepositoryFacts>(seen) {
                    state.repositories.insert(format!("{namespace}/{name}"), status::to_repository(&facts));
                }
            }
            _ => {}
        }
    }

    /// What others have done since: pods that recovered, other hosts that use a repository.
    pub(super) fn catch_up(&self, state: &mut State, before: &BTreeMap<Key, Seen>) {
        let Identity { namespace, host, .. } = &self.options.identity;
        for (key, seen) in &self.seen {
            let (kind, name) = key;
            let id = format!("{kind}/{namespace}/{name}/{host}");
            if before.get(key).is_some_and(|old| old.uid != seen.uid) {
                // Another object of the same name: nothing was done for it yet.
                forget(state, kind, &id, &format!("{namespace}/{name}"));
                self.report.forget(Some((kind, name)));
            }
            match *kind {
                "Recovery"
                    if !state.running.contains_key(&id) && !matches!(self.options.scope, Scope::Recovery { .. }) =>
                {
                    self.remember(state, key, seen);
                }
                "BackupTrigger" => remember_trigger(state, namespace, host, name, seen),
                _ => {}
            }
        }
        for (kind, name) in before.keys().filter(|key| !self.seen.contains_key(*key)) {
            forget(state, kind, &format!("{kind}/{namespace}/{name}/{host}"), &format!("{namespace}/{name}"));
            self.report.forget(Some((kind, name)));
        }
    }

    /// What other agents that use a repository found there.
    pub(super) fn catch_up_repositories(&self, state: &mut State) {
        for (id, ours) in &mut state.repositories {
            let here = |name| self.objects.own("Repository", name);
            let found = match id.split_once('/') {
                Some((namespace, name)) if namespace == self.options.identity.namespace => here(name),
                _ => self.elsewhere.get(id).map(|repository| repository["status"].clone()),
            };
            if let Some(facts) = found.and_then(|status| serde_json::from_value(status).ok()) {
                *ours = status::merge_repository(ours, status::to_repository(&facts));
            }
        }
    }
}

fn own<T: DeserializeOwned>(seen: &Seen) -> Option<T> {
    serde_json::from_value(seen.own.clone()?).ok()
}

fn remember_trigger(state: &mut State, namespace: &str, host: &str, name: &str, seen: &Seen) {
    let phase = seen.own.as_ref().and_then(|own| serde_json::from_value(own["phase"].clone()).ok());
    if seen.is_over {
        state.observed.triggers_over.insert(format!("{namespace}/{name}"));
    }
    let target = seen.json.as_ref().and_then(|json| json["spec"]["targetBackup"]["name"].as_str());
    if let (Some(RunPhase::Succeeded | RunPhase::Failed | RunPhase::Skipped), Some(target)) = (phase, target) {
        let served = state.observed.triggers.entry(format!("{namespace}/{name}")).or_default();
        served.insert(format!("Backup/{namespace}/{target}/{host}"));
    } else if let (None, Some(target)) = (&seen.own, target) {
        // Its status may not have been told yet: so says that of the Backup, unless it is about an older one of the name.
        let (id, trigger) = (format!("Backup/{namespace}/{target}/{host}"), format!("{namespace}/{name}"));
        let created = seen.json.as_ref().and_then(|json| json["metadata"]["creationTimestamp"].as_str()?.parse().ok());
        let runs = state.runs.get(&id).map_or(&[][..], |runs| runs.history.as_slice());
        let has_run =
            |run: &Run| run.triggers.contains(&trigger) && created.is_some_and(|at: Timestamp| run.start >= at);
        if runs.iter().any(has_run) {
            state.observed.triggers.entry(trigger).or_default().insert(id);
        }
    }
}

/// Forgets an object that is gone.
fn forget(state: &mut State, kind: &str, id: &str, name: &str) {
    match kind {
        "Backup" | "Restic" if !state.running.contains_key(id) => {
            state.observed.backups.remove(id);
            state.runs.remove(id);
        }
        "Recovery" if !state.running.contains_key(id) => {
            state.observed.recoveries.remove(id);
            state.runs.remove(id);
        }
        "BackupTrigger" => {
            state.observed.triggers.remove(name);
            state.observed.triggers_over.remove(name);
        }
        "Repository" => _ = state.repositories.remove(name),
        _ => {}
    }
}
