//! What is known of the cluster: every object that matters, as small as it can be, by namespace.
//!
//! An object is kept as JSON text without the fields that nothing depends on. Of what changes only in such fields
//! nobody is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::admission::{self, Demand, RepositoryKey};
use crate::trim::trim;
use crate::world::{name, text};

/// Kind and name.
type Key = (&'static str, String);

/// An object in few bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    text: Box<str>,
    resource_version: Box<str>,
}

#[derive(Debug, Default)]
struct Known {
    /// By namespace; those outside any are under the empty name.
    namespaces: BTreeMap<String, BTreeMap<Key, Kept>>,
    /// Namespaces to be decided on.
    dirty: BTreeSet<String>,
    /// Of each namespace, the others whose Repositories its objects name.
    refers_to: BTreeMap<String, BTreeSet<String>>,
    /// What runs, or waits for its turn.
    demands: BTreeMap<admission::Key, Demand>,
    /// Repositories with a limit of their own.
    limits: BTreeMap<RepositoryKey, usize>,
}

/// The objects of the cluster, kept up to date by those who watch.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    known: Mutex<Known>,
    changed: tokio::sync::Notify,
    /// As `changed`, for what runs or waits for its turn.
    demanded: tokio::sync::Notify,
}

impl Cache {
    fn with<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        // Nobody panics while holding it; if somebody did, what is known is still what was seen last.
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn notify(&self, is_changed: bool, is_demand: bool) {
        if is_changed {
            self.changed.notify_one();
        }
        if is_demand {
            self.demanded.notify_one();
        }
    }

    /// Takes in an object that was seen.
    pub(crate) fn put(&self, kind: &'static str, mut object: Value) {
        let resource_version = text(&object, "/metadata/resourceVersion").into();
        let (namespace, name) = (text(&object, "/metadata/namespace").to_owned(), name(&object).to_owned());
        let is_demand = self.with(|known| known.demand(kind, &namespace, &name, Some(&object)));
        trim(kind, &mut object);
        let kept = Kept { text: object.to_string().into(), resource_version };
        let is_changed = self.with(|known| {
            let objects = known.namespaces.entry(namespace.clone()).or_default();
            let before = objects.insert((kind, name.clone()), kept.clone());
            let is_changed = before.is_none_or(|before| before.text != kept.text);
            if is_changed {
                known.mark(kind, &namespace, &name);
            }
            is_changed
        });
        self.notify(is_changed, is_demand);
    }

    /// Forgets an object that is gone.
    pub(crate) fn remove(&self, kind: &'static str, object: &Value) {
        let (namespace, name) = (text(object, "/metadata/namespace"), name(object));
        let is_demand = self.with(|known| {
            if let Some(objects) = known.namespaces.get_mut(namespace) {
                objects.remove(&(kind, name.to_owned()));
                if objects.is_empty() {
                    known.namespaces.remove(namespace);
                }
            }
            known.mark(kind, namespace, name);
            known.demand(kind, namespace, name, None)
        });
        self.notify(true, is_demand);
    }

    /// Forgets every object of a kind but these, by namespace and name: what was listed is all there is.
    pub(crate) fn keep_only(&self, kind: &'static str, listed: &BTreeSet<(String, String)>) {
        let is_demand = self.with(|known| {
            let mut gone = Vec::new();
            for (namespace, objects) in &mut known.namespaces {
                objects.retain(|(other, name), _| {
                    let stays = *other != kind || listed.contains(&(namespace.clone(), name.clone()));
                    if !stays {
                        gone.push((namespace.clone(), name.clone()));
                    }
                    stays
                });
            }
            let mut is_demand = false;
            for (namespace, name) in &gone {
                known.mark(kind, namespace, name);
                is_demand |= known.demand(kind, namespace, name, None);
            }
            is_demand
        });
        self.notify(true, is_demand);
    }

    /// Has a namespace decided on once more.
    pub(crate) fn mark(&self, namespace: &str) {
        self.with(|known| known.dirty.insert(namespace.to_owned()));
        self.changed.notify_one();
    }

    /// Has every namespace decided on.
    pub(crate) fn mark_all(&self) {
        self.with(|known| known.dirty.extend(known.namespaces.keys().cloned()));
        self.changed.notify_one();
    }

    /// The namespaces that changed since this was asked last.
    pub(crate) fn take_dirty(&self) -> BTreeSet<String> {
        self.with(|known| std::mem::take(&mut known.dirty))
    }

    /// Waits until something changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What runs or waits for its turn, and the limits of Repositories.
    pub(crate) fn demands(&self) -> (BTreeMap<admission::Key, Demand>, BTreeMap<RepositoryKey, usize>) {
        self.with(|known| (known.demands.clone(), known.limits.clone()))
    }

    /// Waits until that has changed.
    pub(crate) async fn demanded(&self) {
        self.demanded.notified().await;
    }

    /// What is decided on together: the objects of a namespace, itself, the templates of the cluster, the Repositories
    /// that it refers to elsewhere, and rights that were given to it elsewhere.
    pub(crate) fn view(&self, namespace: &str) -> Vec<Value> {
        self.with(|known| {
            let mut view: Vec<Value> = known.objects(namespace).collect();
            if namespace.is_empty() {
                return view;
            }
            let itself = known.get("", "Namespace", namespace);
            let templates = ["AgentTemplate", "BackupTemplate"].map(|kind| known.of_kind("", kind));
            view.extend(itself.into_iter().chain(templates.into_iter().flatten()));
            let foreign = foreign(namespace, &view);
            for (other, repository) in &foreign {
                view.extend(known.get(other, "Repository", repository));
            }
            for (_, objects) in known.namespaces.iter().filter(|(other, _)| *other != namespace) {
                // Looked for in the text first: reading all rights of a cluster each time would take too long.
                let rights = objects.iter().filter(|((kind, _), kept)| {
                    matches!(*kind, "Role" | "RoleBinding") && kept.text.contains(crate::access::FOR_NAMESPACE)
                });
                let rights = rights.filter_map(|((kind, _), kept)| kept.value(kind));
                view.extend(
                    rights.filter(|object| object["metadata"]["labels"][crate::access::FOR_NAMESPACE] == namespace),
                );
            }
            known.refers_to.insert(namespace.to_owned(), foreign.into_iter().map(|(other, _)| other).collect());
            view
        })
    }

    /// Shows every object of a kind, one at a time: all of them at once would be many times what is kept.
    pub(crate) fn each(&self, kind: &'static str, mut show: impl FnMut(&Value)) {
        self.with(|known| known.namespaces.keys().flat_map(|of| known.of_kind(of, kind)).for_each(|one| show(&one)));
    }

    /// How many objects are kept.
    pub(crate) fn len(&self) -> usize {
        self.with(|known| known.namespaces.values().map(BTreeMap::len).sum())
    }
}

impl Known {
    /// Marks what depends on an object.
    fn mark(&mut self, kind: &str, namespace: &str, name: &str) {
        match (kind, namespace) {
            ("Namespace", _) => drop(self.dirty.insert(name.to_owned())),
            // A template may concern every namespace.
            (_, "") => self.dirty.extend(self.namespaces.keys().cloned()),
            _ => drop(self.dirty.insert(namespace.to_owned())),
        }
        if kind == "Repository" {
            let dependents = self.refers_to.iter().filter(|(_, others)| others.contains(namespace));
            self.dirty.extend(dependents.map(|(dependent, _)| dependent.clone()));
        }
    }

    /// Takes in what an object runs, has wait or limits; none that is gone. Whether that is news.
    fn demand(&mut self, kind: &'static str, namespace: &str, name: &str, object: Option<&Value>) -> bool {
        match kind {
            "Backup" | "Restic" => {
                let key = (namespace.to_owned(), kind, name.to_owned());
                set(&mut self.demands, key, object.and_then(|object| Demand::of(namespace, object)))
            }
            "Repository" => {
                let key = (namespace.to_owned(), name.to_owned());
                set(&mut self.limits, key, object.and_then(admission::limit_of))
            }
            _ => false,
        }
    }

    fn objects(&self, namespace: &str) -> impl Iterator<Item = Value> {
        let objects = self.namespaces.get(namespace).into_iter().flatten();
        objects.filter_map(move |((kind, _), kept)| kept.value(kind))
    }

    fn of_kind(&self, namespace: &str, kind: &'static str) -> impl Iterator<Item = Value> {
        let objects = self.namespaces.get(namespace);
        let of_kind = objects.into_iter().flat_map(move |objects| objects.range((kind, String::new())..));
        let of_kind = of_kind.take_while(move |((other, _), _)| *other == kind);
        of_kind.filter_map(move |(_, kept)| kept.value(kind))
    }

    fn get(&self, namespace: &str, kind: &'static str, name: &str) -> Option<Value> {
        self.namespaces.get(namespace)?.get(&(kind, name.to_owned()))?.value(kind)
    }
}

impl Kept {
    fn value(&self, kind: &str) -> Option<Value> {
        let mut value: Value = serde_json::from_str(&self.text).ok()?;
        value["kind"] = json!(kind);
        value["metadata"]["resourceVersion"] = json!(&*self.resource_version);
        Some(value)
    }
}

/// Sets a value, or takes it away; whether it was another one.
fn set<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    if map.get(&key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
    true
}

/// The Repositories of other namespaces that Backups and Recoveries name.
fn foreign(namespace: &str, view: &[Value]) -> BTreeSet<(String, String)> {
    let named = view.iter().filter(|object| matches!(text(object, "/kind"), "Backup" | "Recovery")).map(|object| {
        let repository = &object["spec"]["repository"];
        (text(repository, "/namespace").to_owned(), text(repository, "/name").to_owned())
    });
    named.filter(|(of, _)| !of.is_empty() && of != namespace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    }

    fn dirty(cache: &Cache) -> Vec<String> {
        cache.take_dirty().into_iter().collect()
    }

    #[test]
    fn only_what_matters_makes_a_namespace_dirty() {
        let cache = Cache::default();
        let mut backup = object("Backup", "a", "b", json!({"schedule": "@hourly"}));
        cache.put("Backup", backup.clone());
        assert_eq!(dirty(&cache), ["a"]);
        backup["metadata"]["resourceVersion"] = json!("7");
        backup["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
        cache.put("Backup", backup.clone());
        assert_eq!(dirty(&cache), [""; 0]);
        assert_eq!(cache.view("a")[0]["metadata"]["resourceVersion"], "7");
        backup["spec"]["paused"] = json!(true);
        cache.put("Backup", backup.clone());
        assert_eq!(dirty(&cache), ["a"]);
        cache.remove("Backup", &backup);
        assert_eq!(dirty(&cache), ["a"]);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn a_repository_concerns_those_who_refer_to_it() {
        let cache = Cache::default();
        cache.put("Backup", object("Backup", "a", "b", json!({"repository": {"name": "r", "namespace": "shared"}})));
        cache.put("Repository", object("Repository", "shared", "r", json!({})));
        cache.put("Repository", object("Repository", "shared", "other", json!({})));
        let names: Vec<Value> = cache.view("a").iter().map(|object| object["metadata"]["name"].clone()).collect();
        assert_eq!(names, ["b", "r"]);
        cache.take_dirty();
        cache.put("Repository", object("Repository", "shared", "r", json!({"allowedNamespaces": ["a"]})));
        assert_eq!(dirty(&cache), ["a", "shared"]);
    }

    #[test]
    fn what_runs_or_waits_is_known_without_reading_everything() {
        let cache = Cache::default();
        let mut backup = object("Backup", "a", "b", json!({"repository": {"name": "r"}}));
        cache.put("Backup", backup.clone());
        cache.put("Repository", object("Repository", "a", "r", json!({"maxConcurrentRuns": 2})));
        let known = || (cache.demands().0.len(), cache.demands().1.into_values().collect::<Vec<_>>());
        assert_eq!(known(), (0, vec![2]));
        backup["status"] = json!({"hosts": [{"host": "h", "waitingSince": "2026-11-21T12:00:00Z"}]});
        cache.put("Backup", backup.clone());
        assert_eq!(known(), (1, vec![2]));
        cache.keep_only("Repository", &BTreeSet::new());
        assert_eq!(known(), (1, vec![]));
        cache.remove("Backup", &backup);
        assert_eq!(known(), (0, vec![]));
    }

    #[test]
    fn what_is_not_listed_any_more_is_gone() {
        let cache = Cache::default();
        for name in ["x", "y"] {
            cache.put("Backup", object("Backup", "a", name, json!({})));
            cache.put("Restic", object("Restic", "a", name, json!({})));
        }
        cache.take_dirty();
        cache.keep_only("Backup", &BTreeSet::from([("a".to_owned(), "x".to_owned())]));
        assert_eq!(dirty(&cache), ["a"]);
        assert_eq!(cache.len(), 3);
    }
}
