//! The objects that matter to one pod, as the API server last showed them: its workload, what protects it, and the own
//! host's part of each status. Nothing else is kept, so that the agent stays small however many objects there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_api::names;
use holdfast_api::stash::BackupTriggerStatus;
use holdfast_plan::{Target, TargetKind};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a container works for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything that protects a workload by the built-in agent.
    Workload(Target),
    /// One `Backup` of a workload or claim.
    Backup {
        /// Its target.
        target: Target,
        /// Its name.
        name: String,
    },
    /// One `Recovery`, into a workload or, without one, into volumes.
    Recovery {
        /// The workload.
        target: Option<Target>,
        /// Its name.
        name: String,
    },
    /// One `Repository`.
    Repository {
        /// Its name.
        name: String,
    },
}

impl Scope {
    /// The workload or claim that it is about.
    pub(super) fn target(&self) -> Option<&Target> {
        match self {
            Self::Workload(target) | Self::Backup { target, .. } => Some(target),
            Self::Recovery { target, .. } => target.as_ref(),
            Self::Repository { .. } => None,
        }
    }
}

/// An object, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    /// What it says; none where it is about others.
    pub(super) json: Option<Value>,
    /// Its UID: another one is another object.
    pub(super) uid: String,
    /// The own host's entry of its status; of a repository all of it.
    pub(super) own: Option<Value>,
    /// How many runs its status tells of, of all hosts.
    pub(super) count: u64,
    /// How many hosts its status tells of.
    pub(super) hosts: usize,
    /// The pods that its status names.
    pub(super) pods: Vec<String>,
    /// Of a `BackupTrigger`: whether its status says that it has been carried out, for all hosts.
    pub(super) is_over: bool,
    /// Of a `Backup` or `Restic`: whether runs wait to be admitted.
    pub(super) is_limited: bool,
    /// Since when the run of the own host waited that was admitted.
    pub(super) admitted: Option<Timestamp>,
}

impl Seen {
    /// Its generation: another one says something else.
    pub(super) fn generation(&self) -> Option<i64> {
        self.json.as_ref()?["metadata"]["generation"].as_i64()
    }
}

/// Kind and name.
pub(super) type Key = (&'static str, String);

/// The objects of one namespace.
pub(super) struct Objects {
    scope: Scope,
    host: String,
    namespace: String,
    store: Mutex<Store>,
    synced: Condvar,
}

#[derive(Default)]
struct Store {
    namespace: String,
    objects: BTreeMap<Key, Seen>,
    waiting_for: BTreeSet<&'static str>,
    /// Pods that a status has named, newest last: another try of a Recovery and another pod of a Deployment take the place
    /// of the one that was killed, whose lock is still to be known.
    named: VecDeque<String>,
    /// Counts changes that matter.
    version: u64,
}

/// How many pods are remembered that a status has named.
const NAMED_MAX: usize = 1_000;

impl Objects {
    pub(super) fn new(scope: Scope, namespace: &str, host: &str) -> Self {
        let store = Mutex::new(Store {
            namespace: namespace.to_owned(),
            waiting_for: kinds(&scope).into_iter().collect(),
            ..Store::default()
        });
        Self { scope, host: host.to_owned(), namespace: namespace.to_owned(), store, synced: Condvar::new() }
    }

    /// The kinds that are watched.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        kinds(&self.scope)
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything has been listed once; false if it was not within `limit`.
    pub(super) fn wait_until_listed(&self, limit: Duration) -> bool {
        let store = self.store();
        let waited = self.synced.wait_timeout_while(store, limit, |store| !store.waiting_for.is_empty());
        waited.map_or_else(|poisoned| poisoned.into_inner().0, |(store, _)| store).waiting_for.is_empty()
    }

    /// What is kept of an object as the API server has it.
    pub(super) fn trim(&self, kind: &'static str, object: Value) -> Seen {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let hosts: &[Value] = match kind {
            "BackupTrigger" => list(&object, "/status/runs"),
            _ => list(&object, "/status/hosts"),
        };
        let own = match kind {
            "Repository" => object.get("status").cloned(),
            _ => hosts.iter().find(|entry| entry["host"] == *self.host).cloned(),
        };
        let pods = hosts.iter().filter_map(|entry| entry["pod"].as_str().map(str::to_owned)).collect();
        let is_leaving = object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
        let mut seen = Seen {
            json: None,
            uid: text("/metadata/uid").to_owned(),
            own,
            count: hosts.iter().filter_map(|entry| entry["count"].as_u64()).sum(),
            hosts: hosts.len(),
            pods,
            is_over: kind == "BackupTrigger"
                && BackupTriggerStatus::deserialize(&object["status"]).is_ok_and(|status| status.is_over()),
            is_limited: object["status"]["limited"] == true,
            admitted: object["status"]["admitted"][&self.host]["waitingSince"].as_str().and_then(|at| at.parse().ok()),
        };
        if self.is_ours(kind, &object) && (!is_leaving || matches!(self.scope, Scope::Repository { .. })) {
            seen.json = Some(spec_of(kind, object));
        } else {
            seen.own = None;
        }
        seen
    }

    fn is_ours(&self, kind: &str, object: &Value) -> bool {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let name = text("/metadata/name");
        let refers = |path: &str| {
            self.scope.target().is_some_and(|target| {
                text(&format!("{path}/kind")) == target.kind.name() && text(&format!("{path}/name")) == target.name
            })
        };
        match (kind, &self.scope) {
            ("Backup", Scope::Workload(_)) => refers("/spec/targetRef") && !has_own_agent(object),
            ("Backup", Scope::Backup { name: only, .. }) => name == only,
            ("Backup", Scope::Recovery { target: Some(_), .. }) => refers("/spec/targetRef"),
            ("Restic", Scope::Workload(_) | Scope::Recovery { .. }) => true,
            ("Recovery", Scope::Workload(_) | Scope::Backup { .. }) => refers("/spec/recoverTo/workload"),
            ("Recovery", Scope::Recovery { name: only, .. }) => name == only,
            ("BackupTrigger", _) => true,
            ("Repository", Scope::Repository { name: only }) => name == only,
            ("Repository", _) => self.refers(name),
            (kind, scope) => scope.target().is_some_and(|target| kind == target.kind.name() && name == target.name),
        }
    }

    /// Whether something of ours refers to a repository of this namespace. Of the others nothing is kept.
    fn refers(&self, repository: &str) -> bool {
        self.store().references().any(|name| name == repository)
    }

    /// The repositories that something of ours refers to and that are not known: those that were listed before what
    /// refers to them, and those that are not there.
    pub(super) fn missing_repositories(&self) -> BTreeSet<String> {
        let store = self.store();
        let missing = |name: &&str| !store.objects.contains_key(&("Repository", (*name).to_owned()));
        store.references().filter(missing).map(str::to_owned).collect()
    }

    /// Everything of a kind, instead of what was known.
    pub(super) fn replace(&self, kind: &'static str, listed: BTreeMap<String, Seen>) -> bool {
        let mut store = self.store();
        let old: Vec<Key> = store.objects.keys().filter(|(of, _)| *of == kind).cloned().collect();
        let mut news = store.waiting_for.remove(kind);
        for key in old.into_iter().filter(|(_, name)| !listed.contains_key(name)) {
            store.objects.remove(&key);
            news = true;
        }
        for (name, seen) in listed {
            news |= put(&mut store, (kind, name), seen);
        }
        self.has_changed(store, news)
    }

    /// One object that is new or has changed.
    pub(super) fn apply(&self, kind: &'static str, name: String, seen: Seen) -> bool {
        let mut store = self.store();
        let news = put(&mut store, (kind, name), seen);
        self.has_changed(store, news)
    }

    /// One object that is gone.
    pub(super) fn delete(&self, kind: &'static str, name: &str) -> bool {
        let mut store = self.store();
        let news = store.objects.remove(&(kind, name.to_owned())).is_some_and(|seen| seen.json.is_some());
        self.has_changed(store, news)
    }

    fn has_changed(&self, mut store: MutexGuard<'_, Store>, news: bool) -> bool {
        store.version += u64::from(news);
        let ready = store.waiting_for.is_empty();
        drop(store);
        if ready {
            self.synced.notify_all();
        }
        news && ready
    }

    /// A number that changes with every change that matters, and what is there now.
    pub(super) fn look(&self) -> (u64, BTreeMap<Key, Seen>) {
        let store = self.store();
        (store.version, store.objects.clone())
    }

    /// What [`look`](Self::look) would number.
    pub(super) fn version(&self) -> u64 {
        self.store().version
    }

    /// The UID of an object, and how many runs its status tells of.
    pub(super) fn identity(&self, kind: &str, name: &str) -> Option<(String, u64)> {
        let store = self.store();
        let found = store.objects.iter().find(|((of, named), _)| *of == kind && named == name);
        found.map(|(_, seen)| (seen.uid.clone(), seen.count))
    }

    /// What the status of an object says, for the own host.
    pub(super) fn own(&self, kind: &'static str, name: &str) -> Option<Value> {
        self.store().objects.get(&(kind, name.to_owned()))?.own.clone()
    }

    /// Whether some status names this pod, or has named it.
    pub(super) fn names_pod(&self, pod: &str) -> bool {
        self.store().named.iter().any(|named| named == pod)
    }

    /// The objects whose status this host writes.
    pub(super) fn reported(&self) -> Vec<Key> {
        let store = self.store();
        let reported = |(kind, _): &&Key| matches!(*kind, "Backup" | "Restic" | "Recovery" | "BackupTrigger");
        let ours = store.objects.iter().filter(|(_, seen)| seen.json.is_some());
        ours.map(|(key, _)| key).filter(reported).cloned().collect()
    }

    /// What a claim that a Job mounts looks like: it is there, or there were no pod.
    pub(super) fn stand_in(&self) -> Option<Value> {
        let target = self.scope.target().filter(|target| target.kind == TargetKind::PersistentVolumeClaim)?;
        Some(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": target.name, "namespace": self.namespace}, "spec": {},
        }))
    }
}

impl Store {
    /// The names of the repositories of this namespace that objects refer to.
    fn references(&self) -> impl Iterator<Item = &str> {
        let specs = self.objects.values().filter_map(|seen| Some(&seen.json.as_ref()?["spec"]));
        specs.filter_map(|spec| {
            let reference = &spec["repository"];
            let is_here = reference["namespace"].as_str().is_none_or(|namespace| namespace == self.namespace);
            is_here.then(|| reference["name"].as_str()).flatten()
        })
    }

    /// Whether a `BackupTrigger` is about a `Backup` of ours.
    fn is_triggered(&self, trigger: &Seen) -> bool {
        let name = trigger.json.as_ref().and_then(|json| json["spec"]["targetBackup"]["name"].as_str());
        let backup = name.and_then(|name| self.objects.get(&("Backup", name.to_owned())));
        backup.is_some_and(|backup| backup.json.is_some())
    }
}

/// Keeps an object if it matters; whether that is news.
fn put(store: &mut Store, key: Key, seen: Seen) -> bool {
    for pod in &seen.pods {
        if !store.named.contains(pod) {
            store.named.push_back(pod.clone());
        }
        if store.named.len() > NAMED_MAX {
            store.named.pop_front();
        }
    }
    if seen.json.is_none() && seen.pods.is_empty() {
        return store.objects.remove(&key).is_some_and(|old| old.json.is_some());
    }
    let matters = key.0 != "BackupTrigger" || store.is_triggered(&seen);
    // What this host itself wrote of its backups is no news.
    let by_others = matches!(key.0, "Recovery" | "BackupTrigger");
    let old = store.objects.get(&key);
    let news = matters
        && match old {
            None => seen.json.is_some(),
            Some(old) => {
                let is_news = by_others && (&old.own, old.is_over) != (&seen.own, seen.is_over);
                let is_admission = (old.is_limited, old.admitted) != (seen.is_limited, seen.admitted);
                old.json != seen.json || old.uid != seen.uid || is_news || is_admission
            }
        };
    store.objects.insert(key, seen);
    news
}

fn kinds(scope: &Scope) -> Vec<&'static str> {
    let workload = scope.target().map(|target| target.kind).filter(|kind| *kind != TargetKind::PersistentVolumeClaim);
    let own: &[&'static str] = match scope {
        Scope::Repository { .. } => &["Repository"],
        Scope::Recovery { .. } => &["Backup", "Recovery", "Repository", "Restic"],
        Scope::Workload(_) | Scope::Backup { .. } => &["Backup", "BackupTrigger", "Recovery", "Repository", "Restic"],
    };
    own.iter().copied().chain(workload.map(TargetKind::name)).collect()
}

fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a `Backup` is done by containers of its own.
fn has_own_agent(backup: &Value) -> bool {
    let agent = &backup["spec"]["backupAgent"];
    let name = agent["name"].as_str().or_else(|| agent.as_str());
    name.is_some_and(|name| !name.is_empty() && !names::agents::is_built_in_backup(name))
}

/// The object without its status and what only others read.
fn spec_of(kind: &str, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let wanted = ["name", "namespace", "uid", "generation", "labels", "creationTimestamp", "ownerReferences"];
        metadata.retain(|field, _| wanted.contains(&field.as_str()));
    }
    if let Some(pod) = object.pointer_mut("/spec/template/spec") {
        leave_out_ours(pod);
    }
    if kind == "Pod"
        && let Some(pod) = object.get_mut("spec")
    {
        leave_out_ours(pod);
    }
    object
}

/// Takes out what the operator put into a pod, so that the plan is that of the workload as its owner wrote it.
fn leave_out_ours(pod: &mut Value) {
    let is_ours =
        |container: &Value| list(container, "/env").iter().any(|variable| variable["name"] == names::pod::TARGET);
    for field in ["containers", "initContainers"] {
        if let Some(containers) = pod.get_mut(field).and_then(Value::as_array_mut) {
            containers.retain(|container| !is_ours(container));
        }
    }
    if let Some(volumes) = pod.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| !volume["name"].as_str().is_some_and(|name| name.starts_with("holdfast-")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> Objects {
        let target = Target::new(TargetKind::Deployment, "demo", "web");
        Objects::new(Scope::Workload(target), "demo", "deployment.web")
    }

    fn backup(name: &str, of: &str, agent: Option<&str>) -> Value {
        json!({
            "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Backup",
            "metadata": {"name": name, "namespace": "demo", "uid": name, "managedFields": []},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": of}, "backupAgent": agent.map(|name| json!({"name": name}))},
            "status": {"hosts": [{"host": format!("deployment.{of}"), "pod": format!("{of}-0"), "count": 3}]},
        })
    }

    #[test]
    fn only_what_protects_the_workload_is_kept() {
        let objects = objects();
        for (backup, is_kept) in [
            (backup("a", "web", None), true),
            (backup("b", "web", Some("stash-volume-backup")), true),
            (backup("c", "web", Some("mine")), false),
            (backup("d", "other", None), false),
        ] {
            let seen = objects.trim("Backup", backup.clone());
            assert_eq!(seen.json.is_some(), is_kept, "{backup}");
            assert_eq!(seen.own.is_some(), is_kept, "{backup}");
            assert_eq!(seen.pods.len(), 1);
        }
    }

    #[test]
    fn only_repositories_that_are_used_are_kept() {
        let objects = objects();
        let repository = |name: &str| json!({"metadata": {"name": name, "namespace": "demo"}, "spec": {}});
        assert!(objects.trim("Repository", repository("mine")).json.is_none());
        let mut refers = backup("a", "web", None);
        refers["spec"]["repository"] = json!({"name": "mine", "namespace": "demo"});
        objects.apply("Backup", "a".into(), objects.trim("Backup", refers));
        assert_eq!(objects.missing_repositories(), BTreeSet::from(["mine".to_owned()]));
        for (name, is_kept) in [("mine", true), ("another", false)] {
            let seen = objects.trim("Repository", repository(name));
            assert_eq!(seen.json.is_some(), is_kept, "{name}");
            objects.apply("Repository", name.into(), seen);
        }
        assert!(objects.missing_repositories().is_empty());
    }

    #[test]
    fn triggers_of_others_are_no_news() {
        let objects = objects();
        for kind in objects.kinds() {
            objects.replace(kind, BTreeMap::new());
        }
        objects.apply("Backup", "a".into(), objects.trim("Backup", backup("a", "web", None)));
        for (target, is_news) in [("a", true), ("of-another", false)] {
            let trigger = json!({"metadata": {"name": target}, "spec": {"targetBackup": {"name": target}}});
            assert_eq!(objects.apply("BackupTrigger", target.into(), objects.trim("BackupTrigger", trigger)), is_news);
        }
    }

    #[test]
    fn what_the_operator_added_is_left_out() {
        let workload = json!({
            "metadata": {"name": "web", "managedFields": [], "annotations": {"a": "b"}},
            "spec": {"template": {"spec": {
                "containers": [{"name": "web"}, {"name": "restic-sidecar", "env": [{"name": "HOLDFAST_TARGET"}]}],
                "volumes": [{"name": "data"}, {"name": "holdfast-secret-1"}],
            }}},
            "status": {"replicas": 1},
        });
        let seen = objects().trim("Deployment", workload);
        let wanted = json!({
            "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": [{"name": "web"}], "volumes": [{"name": "data"}]}}},
        });
        assert_eq!(seen.json, Some(wanted));
    }

    #[test]
    fn what_the_host_wrote_itself_is_no_news() {
        let objects = objects();
        for kind in objects.kinds() {
            objects.replace(kind, BTreeMap::new());
        }
        assert!(objects.wait_until_listed(Duration::ZERO));
        let mut written = backup("a", "web", None);
        assert!(objects.apply("Backup", "a".into(), objects.trim("Backup", written.clone())));
        written["status"]["hosts"][0]["count"] = json!(4);
        assert!(!objects.apply("Backup", "a".into(), objects.trim("Backup", written.clone())));
        written["spec"]["schedule"] = json!("@daily");
        assert!(objects.apply("Backup", "a".into(), objects.trim("Backup", written)));
        assert!(objects.delete("Backup", "a"));
    }

    #[test]
    fn a_pod_is_known_when_another_has_taken_its_place() {
        let objects = objects();
        let mut written = backup("a", "web", None);
        for pod in 0..=NAMED_MAX {
            written["status"]["hosts"][0]["pod"] = json!(format!("web-{pod}"));
            objects.apply("Backup", "a".into(), objects.trim("Backup", written.clone()));
            objects.apply("Backup", "a".into(), objects.trim("Backup", written.clone()));
        }
        objects.delete("Backup", "a");
        let known = |pod: usize| objects.names_pod(&format!("web-{pod}"));
        assert!(known(1) && known(NAMED_MAX) && !known(NAMED_MAX + 1));
        assert!(!known(0), "as many as are kept, and no more");
    }
}
