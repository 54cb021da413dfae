//! What the agents may do at the API server: a Role for each workload and Job, of exactly its own objects, and no
//! Secret.

use std::collections::BTreeSet;

use holdfast_api::names::{managers, pod as names};
use holdfast_plan::{MANAGED_BY, ObjectKey, Target, TargetKind};
use serde_json::{Value, json};

use crate::action::Action;
use crate::merge;
use crate::world::{World, name, owner_reference};

/// Label of rights in another namespace, with the namespace whose agents have them.
pub(crate) const FOR_NAMESPACE: &str = "holdfast/for-namespace";

/// How long the names of what is made for an object are at most.
const LENGTH_MAX: usize = 240;

/// The API group of our kinds.
const GROUP: &str = holdfast_api::stash::GROUP;

/// What one agent may do.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    /// The objects whose status it writes, by plural.
    pub(crate) status: BTreeSet<(&'static str, String)>,
    /// Group, plural and name of what it reads besides our kinds: its workload.
    pub(crate) reads: BTreeSet<(String, String, String)>,
    /// The Leases it takes.
    pub(crate) leases: BTreeSet<String>,
    /// Repositories of other namespaces that it uses.
    pub(crate) foreign: BTreeSet<ObjectKey>,
}

impl Grant {
    /// Lets it write the status of an object of ours.
    pub(crate) fn write(&mut self, object: &ObjectKey) {
        if let Some(plural) = plural(&object.kind) {
            self.status.insert((plural, object.name.clone()));
        }
    }

    /// Lets it read a workload.
    pub(crate) fn read(&mut self, workload: &Target) {
        let plural = match workload.kind {
            TargetKind::ReplicationController => "replicationcontrollers".to_owned(),
            kind => format!("{}s", kind.path_segment()),
        };
        self.reads.insert((workload.kind.group().to_owned(), plural, workload.name.clone()));
    }

    fn rules(&self) -> Value {
        let read = ["get", "list", "watch"];
        let mut rules = vec![
            json!({
                "apiGroups": [GROUP],
                "resources": ["backups", "backuptriggers", "recoveries", "repositories", "restics"],
                "verbs": read,
            }),
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}),
            json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}),
        ];
        for (group, plural, name) in &self.reads {
            rules.push(json!({"apiGroups": [group], "resources": [plural], "resourceNames": [name], "verbs": read}));
        }
        for plural in self.status.iter().map(|(plural, _)| *plural).collect::<BTreeSet<_>>() {
            let of_kind = self.status.iter().filter(|(other, _)| *other == plural).map(|(_, name)| name);
            rules.push(json!({
                "apiGroups": [GROUP],
                "resources": [format!("{plural}/status")],
                "resourceNames": of_kind.collect::<Vec<_>>(),
                "verbs": ["get", "patch"],
            }));
        }
        if !self.leases.is_empty() {
            let leases = ["coordination.k8s.io"];
            // What is to be created has no name yet that a rule could hold.
            rules.push(json!({"apiGroups": leases, "resources": ["leases"], "verbs": ["create"]}));
            rules.push(json!({
                "apiGroups": leases,
                "resources": ["leases"],
                "resourceNames": self.leases,
                "verbs": ["get", "update", "patch"],
            }));
        }
        json!(rules)
    }
}

/// The plural of a kind of ours whose status agents write.
fn plural(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Restic" => "restics",
        "Backup" => "backups",
        "BackupTrigger" => "backuptriggers",
        "Recovery" => "recoveries",
        "Repository" => "repositories",
        _ => return None,
    })
}

/// The name of what is made for an object: `holdfast-deployment-web`.
pub(crate) fn name_for(kind: &str, name: &str) -> String {
    let name = format!("holdfast-{}-{name}", kind.to_ascii_lowercase());
    // An object's name has at most 253 characters, and one of ours gets a hash behind it where it is in another namespace.
    if name.len() <= LENGTH_MAX { name } else { format!("{}-{}", &name[..LENGTH_MAX - 9], names::hash(&name)) }
}

/// The Role of an agent and its binding to a service account of the namespace, owned by `owner`.
pub(crate) fn grant(world: &World<'_>, owner: &Value, service_account: &str, grant: &Grant) -> Vec<Action> {
    let kind = crate::world::text(owner, "/kind");
    let role = name_for(kind, name(owner));
    let owners = json!([owner_reference(owner)]);
    let subject = json!([{"kind": "ServiceAccount", "name": service_account, "namespace": world.namespace}]);
    let mut wanted = pair(world.namespace, &role, Some(&owners), grant.rules(), &subject);
    for repository in &grant.foreign {
        // Owners do not reach across namespaces: what is not wanted any more is told by its label.
        let ObjectKey { namespace, name, .. } = repository;
        let foreign = name_elsewhere(world, &role, name);
        let rules = json!([
            {"apiGroups": [GROUP], "resources": ["repositories"], "resourceNames": [name], "verbs": ["get"]},
            {"apiGroups": [GROUP], "resources": ["repositories/status"], "resourceNames": [name], "verbs": ["get", "patch"]},
        ]);
        let pair = pair(namespace, &foreign, None, rules, &subject);
        wanted.extend(pair.into_iter().map(|mut object| {
            object["metadata"]["labels"][FOR_NAMESPACE] = json!(world.namespace);
            object
        }));
    }
    wanted.into_iter().filter_map(|object| ensure(world, object, "its agent needs these rights")).collect()
}

/// A service account for the Job of `owner`.
pub(crate) fn service_account(world: &World<'_>, owner: &Value) -> Option<Action> {
    let kind = crate::world::text(owner, "/kind");
    let (label, value) = MANAGED_BY;
    let object = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": name_for(kind, name(owner)),
            "namespace": world.namespace,
            "labels": {label: value},
            "ownerReferences": [owner_reference(owner)],
        },
    });
    ensure(world, object, "its Job runs under it")
}

fn name_elsewhere(world: &World<'_>, role: &str, repository: &str) -> String {
    format!("{role}-{}", names::hash(&format!("{}/{repository}", world.namespace)))
}

/// Namespace and name of every Role that is granted.
pub(crate) fn names_of(world: &World<'_>, owner: &Value, grant: &Grant) -> Vec<(String, String)> {
    let role = name_for(crate::world::text(owner, "/kind"), name(owner));
    let foreign = grant
        .foreign
        .iter()
        .map(|repository| (repository.namespace.clone(), name_elsewhere(world, &role, &repository.name)));
    std::iter::once((world.namespace.to_owned(), role.clone())).chain(foreign).collect()
}

fn pair(namespace: &str, name: &str, owners: Option<&Value>, rules: Value, subjects: &Value) -> Vec<Value> {
    let api_version = "rbac.authorization.k8s.io/v1";
    let (label, value) = MANAGED_BY;
    let mut metadata = json!({"name": name, "namespace": namespace, "labels": {label: value}});
    if let Some(owners) = owners {
        metadata["ownerReferences"] = owners.clone();
    }
    let role_ref = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    vec![
        json!({"apiVersion": api_version, "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": api_version,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": role_ref,
            "subjects": subjects,
        }),
    ]
}

/// Applies an object of ours unless it is as it should be.
pub(crate) fn ensure(world: &World<'_>, object: Value, because: &str) -> Option<Action> {
    let kind = crate::world::text(&object, "/kind");
    let namespace = crate::world::text(&object, "/metadata/namespace");
    let found = world.elsewhere(kind, namespace, name(&object));
    if found.is_some_and(|found| merge::contains(found, &object)) {
        return None;
    }
    let manager = managers::OPERATOR.to_owned();
    Some(Action::Apply { because: because.to_owned(), manager, subresource: None, object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_stay_apart() {
        assert_eq!(name_for("Deployment", "web"), "holdfast-deployment-web");
        let long = |last: &str| name_for("StatefulSet", &format!("{}{last}", "x".repeat(250)));
        assert_eq!(long("a").len(), LENGTH_MAX);
        assert_ne!(long("a"), long("b"));
    }
}
