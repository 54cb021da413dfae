//! The objects by kind and name, and workloads by label: built once per plan, so that no later step goes
//! through all objects for each object.

use std::collections::{BTreeMap, HashMap, HashSet};

use holdfast_api::manifest::{Object, Outcome, Typed};
use holdfast_api::stash::{Backup, BackupTemplate, BackupTrigger, Recovery, Repository, Restic};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, PodSpec, PodTemplateSpec, Secret,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};

use crate::key::{ObjectKey, Target, TargetKind};
use crate::path;
use crate::volume::claim_of;

/// A typed object and the manifest it came from.
#[derive(Debug)]
pub(crate) struct Placed<'a, T> {
    pub(crate) object: &'a T,
    pub(crate) manifest: &'a Object,
}

impl<T> Clone for Placed<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Placed<'_, T> {}

/// What a workload, claim or volume says that matters to a backup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload<'a> {
    pub(crate) manifest: &'a Object,
    pub(crate) meta: &'a ObjectMeta,
    /// The pods it makes; none for a claim, a volume or an AppBinding.
    pub(crate) pod: Option<&'a PodSpec>,
    /// Claim templates of a StatefulSet.
    pub(crate) claim_templates: &'a [PersistentVolumeClaim],
    /// Number of pods of a StatefulSet.
    pub(crate) replicas: u32,
    /// The ordinal of its first pod.
    pub(crate) first_ordinal: u32,
}

impl Workload<'_> {
    /// Kind and name of the object that made this one.
    pub(crate) fn controller(&self) -> Option<(&str, &str)> {
        let owners = self.meta.owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).map(|owner| (&*owner.kind, &*owner.name)).next()
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.meta.labels.as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.meta.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

type Name<'a> = (&'a str, &'a str);

/// The objects by kind and name.
#[derive(Debug, Default)]
pub(crate) struct Index<'a> {
    pub(crate) restics: BTreeMap<Name<'a>, Placed<'a, Restic>>,
    pub(crate) repositories: BTreeMap<Name<'a>, Placed<'a, Repository>>,
    pub(crate) backups: BTreeMap<Name<'a>, Placed<'a, Backup>>,
    pub(crate) recoveries: BTreeMap<Name<'a>, Placed<'a, Recovery>>,
    pub(crate) triggers: BTreeMap<Name<'a>, Placed<'a, BackupTrigger>>,
    pub(crate) workloads: BTreeMap<Target, Workload<'a>>,
    templates: HashMap<&'a str, Placed<'a, BackupTemplate>>,
    agents: HashSet<&'a str>,
    secrets: HashMap<Name<'a>, &'a Secret>,
    config_maps: HashMap<Name<'a>, &'a ConfigMap>,
    claims: HashMap<Name<'a>, Placed<'a, PersistentVolumeClaim>>,
    volumes: HashMap<&'a str, Placed<'a, PersistentVolume>>,
    volume_of_claim: HashMap<Name<'a>, Placed<'a, PersistentVolume>>,
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<Target>>,
    by_namespace: HashMap<&'a str, Vec<Target>>,
    rejected: HashSet<ObjectKey>,
    folder: String,
}

impl<'a> Index<'a> {
    /// Sorts the objects; `folder` is what relative names of files are relative to.
    pub(crate) fn new(outcome: &'a Outcome, folder: &str) -> Self {
        let mut index = Self { folder: folder.to_owned(), ..Self::default() };
        for manifest in &outcome.objects {
            index.add(manifest);
        }
        for rejected in &outcome.rejected {
            let identity = &rejected.identity;
            let namespace = identity.namespace.clone().unwrap_or_default();
            index.rejected.insert(ObjectKey::new(identity.kind.clone(), namespace, identity.name.clone()));
        }
        index
    }

    fn add(&mut self, manifest: &'a Object) {
        let name: Name<'a> = (manifest.namespace.as_deref().unwrap_or_default(), &manifest.name);
        let template = |template: Option<&'a PodTemplateSpec>| template.and_then(|template| template.spec.as_ref());
        let pods = |meta, pod| Workload { manifest, meta, pod, claim_templates: &[], replicas: 1, first_ordinal: 0 };
        match &manifest.typed {
            Typed::Restic(object) => drop(self.restics.insert(name, Placed { object, manifest })),
            Typed::Repository(object) => drop(self.repositories.insert(name, Placed { object, manifest })),
            Typed::Backup(object) => drop(self.backups.insert(name, Placed { object, manifest })),
            Typed::Recovery(object) => drop(self.recoveries.insert(name, Placed { object, manifest })),
            Typed::BackupTrigger(object) => drop(self.triggers.insert(name, Placed { object, manifest })),
            Typed::BackupTemplate(object) => drop(self.templates.insert(name.1, Placed { object, manifest })),
            Typed::AgentTemplate(_) => drop(self.agents.insert(name.1)),
            Typed::Secret(object) => drop(self.secrets.insert(name, object)),
            Typed::ConfigMap(object) => drop(self.config_maps.insert(name, object)),
            Typed::AppBinding(object) => self.workload(TargetKind::AppBinding, name, pods(&object.metadata, None)),
            Typed::Deployment(object) => {
                let pod = template(object.spec.as_ref().map(|spec| &spec.template));
                self.workload(TargetKind::Deployment, name, pods(&object.metadata, pod));
            }
            Typed::DaemonSet(object) => {
                let pod = template(object.spec.as_ref().map(|spec| &spec.template));
                self.workload(TargetKind::DaemonSet, name, pods(&object.metadata, pod));
            }
            Typed::ReplicaSet(object) => {
                let pod = template(object.spec.as_ref().and_then(|spec| spec.template.as_ref()));
                self.workload(TargetKind::ReplicaSet, name, pods(&object.metadata, pod));
            }
            Typed::ReplicationController(object) => {
                let pod = template(object.spec.as_ref().and_then(|spec| spec.template.as_ref()));
                self.workload(TargetKind::ReplicationController, name, pods(&object.metadata, pod));
            }
            Typed::Pod(object) => {
                self.workload(TargetKind::Pod, name, pods(&object.metadata, object.spec.as_ref()));
            }
            Typed::StatefulSet(object) => {
                let spec = object.spec.as_ref();
                let number = |number: Option<i32>, default| number.map_or(default, |n| u32::try_from(n).unwrap_or(0));
                let workload = Workload {
                    claim_templates: spec.and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default(),
                    replicas: number(spec.and_then(|spec| spec.replicas), 1),
                    first_ordinal: number(spec.and_then(|spec| spec.ordinals.as_ref()?.start), 0),
                    ..pods(&object.metadata, template(spec.map(|spec| &spec.template)))
                };
                self.workload(TargetKind::StatefulSet, name, workload);
            }
            Typed::PersistentVolumeClaim(object) => {
                self.claims.insert(name, Placed { object, manifest });
                self.workload(TargetKind::PersistentVolumeClaim, name, pods(&object.metadata, None));
            }
            Typed::PersistentVolume(object) => {
                self.volumes.insert(name.1, Placed { object, manifest });
                if let Some(claim) = claim_of(object) {
                    // Two volumes of one claim: the first by name, whatever the order of the files.
                    let volume = self.volume_of_claim.entry(claim).or_insert(Placed { object, manifest });
                    if name.1 < volume.manifest.name.as_str() {
                        *volume = Placed { object, manifest };
                    }
                }
                self.workload(TargetKind::PersistentVolume, ("", name.1), pods(&object.metadata, None));
            }
            Typed::Namespace(_) | Typed::Service(_) | Typed::StorageClass(_) => {}
        }
    }

    fn workload(&mut self, kind: TargetKind, (namespace, name): Name<'a>, workload: Workload<'a>) {
        let target = Target::new(kind, namespace, name);
        if workload.pod.is_some() {
            for (key, value) in workload.meta.labels.iter().flatten() {
                self.by_label.entry((namespace, key, value)).or_default().push(target.clone());
            }
            self.by_namespace.entry(namespace).or_default().push(target.clone());
        }
        self.workloads.insert(target, workload);
    }

    pub(crate) fn template(&self, name: &str) -> Option<Placed<'a, BackupTemplate>> {
        self.templates.get(name).copied()
    }

    pub(crate) fn has_agent(&self, name: &str) -> bool {
        self.agents.contains(name)
    }

    pub(crate) fn agent_names(&self) -> impl Iterator<Item = &'a str> {
        self.agents.iter().copied()
    }

    pub(crate) fn template_names(&self) -> impl Iterator<Item = &'a str> {
        self.templates.keys().copied()
    }

    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Option<&'a Secret> {
        self.secrets.get(&(namespace, name)).copied()
    }

    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<&'a ConfigMap> {
        self.config_maps.get(&(namespace, name)).copied()
    }

    pub(crate) fn claim(&self, namespace: &str, name: &str) -> Option<Placed<'a, PersistentVolumeClaim>> {
        self.claims.get(&(namespace, name)).copied()
    }

    pub(crate) fn persistent_volume(&self, name: &str) -> Option<Placed<'a, PersistentVolume>> {
        self.volumes.get(name).copied()
    }

    pub(crate) fn persistent_volume_of_claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<Placed<'a, PersistentVolume>> {
        self.volume_of_claim.get(&(namespace, name)).copied()
    }

    /// Whether the object exists but has mistakes of its own, which are told already.
    pub(crate) fn is_rejected(&self, key: &ObjectKey) -> bool {
        self.rejected.contains(key)
    }

    /// The folder of a manifest.
    pub(crate) fn base(&self, manifest: &Object) -> String {
        let parent = manifest.file.rsplit_once('/').map_or("", |(folder, _)| folder);
        if manifest.file.starts_with('/') {
            format!("/{}", parent.trim_start_matches('/'))
        } else {
            path::join(&self.folder, parent)
        }
    }

    /// The workloads with pods in `namespace` whose labels match, sorted.
    pub(crate) fn selected<'s>(&'s self, namespace: &'s str, selector: &'s LabelSelector) -> Vec<Target> {
        let by_value =
            |key: &'s str, value: &'s str| self.by_label.get(&(namespace, key, value)).map_or(&[][..], Vec::as_slice);
        // The narrowest list that a label gives; every other requirement is checked on it.
        let by_labels = selector.match_labels.iter().flatten().map(|(key, value)| by_value(key, value));
        let by_one_of = selector.match_expressions.iter().flatten().find(|expression| expression.operator == "In");
        let candidates: Vec<&Target> = match (by_labels.min_by_key(|targets| targets.len()), by_one_of) {
            (Some(targets), _) => targets.iter().collect(),
            (None, Some(expression)) => {
                expression.values.iter().flatten().flat_map(|value| by_value(&expression.key, value)).collect()
            }
            (None, None) => self.by_namespace.get(namespace).into_iter().flatten().collect(),
        };
        let matching = candidates
            .into_iter()
            .filter(|target| self.workloads.get(target).is_some_and(|workload| matches(selector, workload)));
        let mut targets: Vec<Target> = matching.cloned().collect();
        targets.sort();
        targets.dedup();
        targets
    }
}

fn matches(selector: &LabelSelector, workload: &Workload<'_>) -> bool {
    let holds = |LabelSelectorRequirement { key, operator, values }: &LabelSelectorRequirement| {
        let value = workload.label(key);
        let listed = || value.is_some_and(|value| values.iter().flatten().any(|v| v == value));
        match operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            // An operator nobody knows must not widen what is matched.
            _ => false,
        }
    };
    selector.match_labels.iter().flatten().all(|(key, value)| workload.label(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// Workloads `a` with the labels `app: x, tier: front`, `b` with `app: x`, and `c` without any.
    fn workloads(file: &str) -> Outcome {
        let mut text = String::new();
        for (name, labels) in [("a", "app: x, tier: front"), ("b", "app: x"), ("c", "")] {
            write!(
                text,
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: demo, labels: {{{labels}}}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n---\n"
            )
            .unwrap();
        }
        let outcome = holdfast_api::manifest::read([(file, text.as_bytes())]);
        assert_eq!(outcome.errors, []);
        outcome
    }

    fn requirement(key: &str, operator: &str, values: &[&str]) -> LabelSelectorRequirement {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values: Some(values) }
    }

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let outcome = workloads("a.yaml");
        let index = Index::new(&outcome, "/manifests");
        let labels = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
        let check = |match_labels, expressions: &[LabelSelectorRequirement], expected: &[&str]| {
            let selector = LabelSelector { match_labels, match_expressions: Some(expressions.to_vec()) };
            let found: Vec<String> = index.selected("demo", &selector).into_iter().map(|target| target.name).collect();
            assert_eq!(found, expected, "{selector:?}");
            assert!(index.selected("other", &selector).is_empty());
        };
        check(None, &[], &["a", "b", "c"]);
        check(labels("app", "x"), &[], &["a", "b"]);
        check(labels("app", "y"), &[], &[]);
        check(labels("app", "x"), &[requirement("tier", "Exists", &[])], &["a"]);
        check(labels("app", "x"), &[requirement("tier", "DoesNotExist", &[])], &["b"]);
        check(None, &[requirement("app", "In", &["x", "y", "x"])], &["a", "b"]);
        check(None, &[requirement("tier", "NotIn", &["front"])], &["b", "c"]);
        check(None, &[requirement("app", "Near", &["x"])], &[]);
    }

    #[test]
    fn the_base_is_the_folder_of_the_manifest() {
        for (file, expected) in [
            ("a.yaml", "/manifests"),
            ("sub/dir/a.yaml", "/manifests/sub/dir"),
            ("/etc/x/a.yaml", "/etc/x"),
            ("/a.yaml", "/"),
        ] {
            let outcome = workloads(file);
            assert_eq!(Index::new(&outcome, "/manifests").base(&outcome.objects[0]), expected, "{file}");
        }
    }
}
