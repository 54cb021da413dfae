//! What no watch shows and an object refers to: repositories of other namespaces with their Secrets, and the workload
//! whose `Restic` made a repository.

use std::collections::BTreeMap;

use holdfast_plan::TargetKind;
use serde_json::Value;

use super::Cluster;
use crate::follow::Message;
use crate::pod::connection::api;
use crate::pod::objects::{Key, Scope, Seen};
use crate::pod::watch::json_of;
use crate::volumes;

impl Cluster<'_> {
    /// Reads the repositories that were listed before what refers to them was.
    pub(super) fn fetch_missing(&self) {
        let namespace = &self.options.identity.namespace;
        for name in self.objects.missing_repositories() {
            let Some(repositories) = api(&self.connection.client(), namespace, "Repository") else { return };
            match self.connection.call(repositories.get_opt(&name)) {
                Ok(Some(object)) => {
                    let seen = self.objects.trim("Repository", json_of("Repository", object).1);
                    self.objects.apply("Repository", name, seen);
                }
                // The plan says that it is missing; a watch tells when it comes.
                Ok(None) => {}
                Err(error) => {
                    (self.signal)(Message::Trouble(format!("cannot read Repository {namespace}/{name}: {error}")));
                }
            }
        }
    }

    /// Repositories of other namespaces that objects of this one refer to, and their Secrets. They cannot be mounted, and are
    /// read when something changes; the way to allow it is told.
    pub(super) fn read_elsewhere(&self, seen: &BTreeMap<Key, Seen>) -> (BTreeMap<String, Value>, Vec<Value>) {
        let mut repositories = BTreeMap::new();
        let mut secrets: BTreeMap<String, Value> = BTreeMap::new();
        for json in seen.values().filter_map(|seen| seen.json.as_ref()) {
            let reference = &json["spec"]["repository"];
            let (Some(namespace), Some(name)) = (reference["namespace"].as_str(), reference["name"].as_str()) else {
                continue;
            };
            let id = format!("{namespace}/{name}");
            if namespace == self.options.identity.namespace || repositories.contains_key(&id) {
                continue;
            }
            let Some(repository) = self.fetch(namespace, "Repository", name) else { continue };
            let secret = repository["spec"]["backend"]["storageSecretName"].as_str().map(str::to_owned);
            repositories.insert(id, repository);
            if let Some(secret) = secret {
                // The run says why, in the status: who reads that need not see this pod.
                let object = self.try_fetch(namespace, "Secret", &secret).unwrap_or_else(|why| {
                    (self.signal)(Message::Trouble(why.clone()));
                    volumes::unreadable_secret(namespace, &secret, &why)
                });
                secrets.insert(format!("{namespace}/{secret}"), object);
            }
        }
        (repositories, secrets.into_values().collect())
    }

    pub(super) fn fetch(&self, namespace: &str, kind: &str, name: &str) -> Option<Value> {
        let found = self.try_fetch(namespace, kind, name);
        found.map_err(|why| (self.signal)(Message::Trouble(why))).ok()
    }

    /// Reads an object, or says why not and what to do about it.
    fn try_fetch(&self, namespace: &str, kind: &str, name: &str) -> Result<Value, String> {
        let Some(api) = api(&self.connection.client(), namespace, kind) else {
            return Err(format!("cannot read {kind} {namespace}/{name}: the kind is not known"));
        };
        match self.connection.call(api.get(name)) {
            Ok(object) => Ok(json_of(kind, object).1),
            Err(error) => {
                let way_out = way_out(error.code(), namespace, kind, name, &self.options.identity.namespace);
                Err(format!("cannot read {kind} {namespace}/{name}: {error}{way_out}"))
            }
        }
    }
}

/// What lets agents of the namespace `own` read what they may not.
fn way_out(code: Option<u16>, namespace: &str, kind: &str, name: &str, own: &str) -> String {
    if code != Some(403) {
        return String::new();
    }
    let plural = if kind == "Secret" { "secrets" } else { "repositories.stash.appscode.com" };
    let role = format!("holdfast-read-{name}");
    format!(
        "; to allow it: kubectl create role {role} -n {namespace} --verb=get --resource={plural} \
         --resource-name={name} && kubectl create rolebinding {role}-{own} -n {namespace} --role={role} \
         --group=system:serviceaccounts:{own}"
    )
}

/// The workload whose `Restic` makes the repository that volumes are recovered from, and its node if it is a DaemonSet:
/// such a repository is no object, and is named after its host.
pub(super) fn workload_of_repository(
    scope: &Scope,
    seen: &BTreeMap<Key, Seen>,
) -> Option<(TargetKind, String, Option<String>)> {
    let Scope::Recovery { target: None, name } = scope else { return None };
    let recovery = seen.get(&("Recovery", name.clone()))?.json.as_ref()?;
    let repository = recovery["spec"]["repository"]["name"].as_str()?;
    if seen.contains_key(&("Repository", repository.to_owned())) {
        return None;
    }
    let (segment, rest) = repository.split_once('.')?;
    let kind = TargetKind::ALL.into_iter().find(|kind| kind.path_segment() == segment)?;
    Some(match kind {
        TargetKind::StatefulSet => (kind, rest.rsplit_once('-')?.0.to_owned(), None),
        TargetKind::DaemonSet => {
            let (name, node) = rest.split_once('.')?;
            (kind, name.to_owned(), Some(node.to_owned()))
        }
        _ => (kind, rest.to_owned(), None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_allow_one_secret_to_one_namespace() {
        let commands = way_out(Some(403), "vault", "Secret", "s3", "demo");
        assert_eq!(
            commands,
            "; to allow it: kubectl create role holdfast-read-s3 -n vault --verb=get --resource=secrets \
             --resource-name=s3 && kubectl create rolebinding holdfast-read-s3-demo -n vault --role=holdfast-read-s3 \
             --group=system:serviceaccounts:demo"
        );
        assert_eq!(way_out(Some(404), "vault", "Secret", "s3", "demo"), "");
    }
}
