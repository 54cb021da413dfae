//! The objects of these tests.

/// A workload whose pods mount the volume `data` at `/data`.
pub(crate) fn workload(kind: &str, name: &str) -> String {
    let more = match kind {
        "StatefulSet" => "\n  replicas: 2\n  serviceName: x",
        "DaemonSet" => "",
        _ => "\n  replicas: 2",
    };
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: NAMESPACE}}\nspec:{more}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      containers:\n      - {{name: app, image: app, volumeMounts: [{{name: data, mountPath: /data}}]}}\n      - {{name: restic-sidecar, image: holdfast, env: [{{name: HOLDFAST_TARGET, value: x}}], volumeMounts: [{{name: data, mountPath: /holdfast/target/data}}]}}\n      volumes:\n      - {{name: data, persistentVolumeClaim: {{claimName: data}}}}\n"
    )
}

/// The repository `repo` in the claim `backups`.
pub(crate) fn repository() -> String {
    "apiVersion: stash.appscode.com/v1alpha2\nkind: Repository\nmetadata: {name: repo, namespace: NAMESPACE}\nspec:\n  backend:\n    storageSecretName: secret\n    local: {mountPath: /repo, subPath: repo, persistentVolumeClaim: {claimName: backups}}\n".to_owned()
}

/// A `Backup` of `/data`; `more` are further fields.
pub(crate) fn backup(name: &str, target: &str, more: &str) -> String {
    let (kind, of) = target.split_once('/').unwrap();
    let directories = if kind == "PersistentVolumeClaim" { "" } else { "  targetDirectories: [/data]\n" };
    let api_version = if kind == "PersistentVolumeClaim" { "v1" } else { "apps/v1" };
    format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: Backup\nmetadata: {{name: {name}, namespace: NAMESPACE}}\nspec:\n  repository: {{name: repo}}\n  targetRef: {{apiVersion: {api_version}, kind: {kind}, name: {of}}}\n{directories}{more}"
    )
}

/// A `BackupTrigger`.
pub(crate) fn trigger(name: &str, of: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: BackupTrigger\nmetadata: {{name: {name}, namespace: NAMESPACE}}\nspec: {{targetBackup: {{name: {of}}}}}\n"
    )
}

/// A `Recovery` of `/data`; `more` are further fields, where it goes among them.
pub(crate) fn recovery(name: &str, more: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: Recovery\nmetadata: {{name: {name}, namespace: NAMESPACE}}\nspec:\n  repository: {{name: repo}}\n  paths: [/data]\n{more}"
    )
}
