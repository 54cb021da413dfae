//! Manifests, as short as they can be.

use super::machine::PASSWORD;

pub(crate) fn secret(name: &str) -> String {
    secret_with(name, &format!("RESTIC_PASSWORD: {PASSWORD}"))
}

/// A Secret of the fields of a YAML flow mapping.
pub(crate) fn secret_with(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{{data}}}\n")
}

/// A repository in `m/<path>`, opened by the Secret `secret`.
pub(crate) fn repository(name: &str, path: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: Repository\nmetadata: {{name: {name}}}\nspec:\n  backend:\n    \
         storageSecretName: secret\n    local: {{mountPath: /r, hostPath: {{path: {path}}}}}\n"
    )
}

/// A Deployment whose only volume, at `/data`, is `source`, a volume source in YAML.
pub(crate) fn deployment(name: &str, source: &str) -> String {
    workload("Deployment", name, "", "", source)
}

/// A Deployment that keeps its data in `m/<path>`.
pub(crate) fn deployment_at(name: &str, path: &str) -> String {
    deployment(name, &host_path(path))
}

pub(crate) fn host_path(path: &str) -> String {
    format!("hostPath: {{path: {path}}}")
}

/// A workload with a pod template; `metadata` and `spec` are further lines of these, of YAML flow entries.
pub(crate) fn workload(kind: &str, name: &str, metadata: &str, spec: &str, source: &str) -> String {
    let volumes =
        if source.is_empty() { String::new() } else { format!("      volumes: [{{name: data, {source}}}]\n") };
    let metadata = if metadata.is_empty() { String::new() } else { format!(", {metadata}") };
    let spec = if spec.is_empty() { String::new() } else { format!("  {spec}\n") };
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}{metadata}}}\nspec:\n{spec}  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         containers: [{{name: main, image: busybox, volumeMounts: [{{name: data, mountPath: /data}}]}}]\n{volumes}"
    )
}

/// A backup of `/data` of a Deployment, every hour; `more` are further lines of its spec.
pub(crate) fn backup(name: &str, deployment: &str, repository: &str, more: &str) -> String {
    backup_of("Deployment", name, deployment, repository, &format!("schedule: '@every 1h'\n  {more}"))
}

/// A backup of `/data` of a workload; `more` are further lines of its spec.
pub(crate) fn backup_of(kind: &str, name: &str, workload: &str, repository: &str, more: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: Backup\nmetadata: {{name: {name}}}\nspec:\n  \
         repository: {{name: {repository}}}\n  targetRef: {{apiVersion: apps/v1, kind: {kind}, name: {workload}}}\n  \
         targetDirectories: [/data]\n  {more}\n"
    )
}

pub(crate) fn trigger(name: &str, backup: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: BackupTrigger\nmetadata: {{name: {name}}}\nspec:\n  \
         targetBackup: {{name: {backup}}}\n"
    )
}

/// A recovery from the repository `repo`; `more` are further lines of its spec.
pub(crate) fn recovery(name: &str, to: &str, more: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: Recovery\nmetadata: {{name: {name}}}\nspec:\n  \
         repository: {{name: repo}}\n  recoverTo: {{{to}}}\n  {more}\n"
    )
}

/// `recoverTo` a Deployment's volumes.
pub(crate) fn to_deployment(name: &str) -> String {
    format!("workload: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}")
}

/// A Deployment `web` with its data in `m/data`, backed up by `web` into the repository `repo` in `m/repo`.
pub(crate) fn web(more: &str) -> Vec<String> {
    vec![secret("secret"), repository("repo", "repo"), deployment_at("web", "data"), backup("web", "web", "repo", more)]
}
