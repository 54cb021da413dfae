//! The objects that the operator works on, made through the API many at a time.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

/// How many requests go on at once.
const AT_ONCE: usize = 32;
/// What the names of the namespaces start with.
pub(crate) const PREFIX: &str = "bench-";

pub(crate) const BACKUPS: fn() -> ApiResource = || resource("stash.appscode.com", "v1alpha2", "Backup");
pub(crate) const DEPLOYMENTS: fn() -> ApiResource = || resource("apps", "v1", "Deployment");

/// How much there is.
#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// How many Backups
    #[arg(long, default_value_t = 5000)]
    pub(crate) backups: usize,
    /// How many Deployments they back up
    #[arg(long, default_value_t = 500)]
    pub(crate) workloads: usize,
    /// How many namespaces all are spread over
    #[arg(long, default_value_t = 50)]
    pub(crate) namespaces: usize,
}

pub(crate) fn namespace(i: usize) -> String {
    format!("{PREFIX}{i}")
}

pub(crate) fn backup(i: usize) -> String {
    format!("backup-{i}")
}

/// Applies the CustomResourceDefinitions as a person does: the objects are there before the operator.
pub(crate) fn definitions(program: &Path) -> Result<()> {
    let crds = Command::new(program).arg("crds").output().context("cannot start holdfast crds")?;
    let kubectl = ["apply", "--server-side", "--force-conflicts", "--field-manager=holdfast", "-f", "-"];
    let mut apply =
        Command::new("kubectl").args(kubectl).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("kubectl")?;
    apply.stdin.take().context("no stdin")?.write_all(&crds.stdout)?;
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
    let waited =
        apply.wait()?.success() && Command::new("kubectl").args(established).stdout(Stdio::null()).status()?.success();
    if !waited {
        bail!("the CustomResourceDefinitions are not served");
    }
    Ok(())
}

/// Makes everything.
pub(crate) async fn objects(client: &Client, scale: &Scale) -> Result<()> {
    let Scale { backups, workloads, namespaces } = *scale;
    let spaces =
        (0..namespaces).map(|i| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(i)}}));
    create(client, spaces).await?;
    let stores = (0..namespaces).flat_map(|i| [secret(&namespace(i)), repository(&namespace(i))]);
    create(client, stores).await?;
    create(client, (0..workloads).map(|i| workload(&namespace(i % namespaces), i))).await?;
    create(client, (0..backups).map(|i| of_workload(&namespace(i % workloads % namespaces), i, i % workloads))).await
}

async fn create(client: &Client, objects: impl Iterator<Item = Value>) -> Result<()> {
    let made = stream::iter(objects.map(|object| async move {
        let of = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let version = of("apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = resource(group, version, &of("kind"));
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let name = object["metadata"]["name"].clone();
        let object = serde_json::from_value(object)?;
        api.create(&PostParams::default(), &object).await.with_context(|| format!("cannot create {name}"))?;
        anyhow::Ok(())
    }));
    made.buffer_unordered(AT_ONCE).try_collect().await
}

/// Gives the first Backup another schedule; its new generation.
pub(crate) async fn change(client: &Client, schedule: &str) -> Result<i64> {
    let patch = Patch::Merge(json!({"spec": {"schedule": schedule}}));
    let changed = first(client).patch(&backup(0), &PatchParams::default(), &patch).await?;
    changed.metadata.generation.context("no generation")
}

/// Of which generation the status of the first Backup speaks.
pub(crate) async fn observed(client: &Client) -> Result<i64> {
    let found = first(client).get(&backup(0)).await?;
    found.data["status"]["observedGeneration"].as_i64().context("no status")
}

fn first(client: &Client) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &namespace(0), &BACKUPS())
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    let plural = match kind {
        "Repository" => "repositories".to_owned(),
        kind => format!("{}s", kind.to_ascii_lowercase()),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

pub(crate) fn secret(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "store", "namespace": namespace},
        "stringData": {"RESTIC_PASSWORD": "correct horse", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
    })
}

pub(crate) fn repository(namespace: &str) -> Value {
    json!({
        "apiVersion": "stash.appscode.com/v1alpha2",
        "kind": "Repository",
        "metadata": {"name": "store", "namespace": namespace},
        "spec": {"backend": {
            "storageSecretName": "store",
            "s3": {"endpoint": "http://minio.example:9000", "bucket": "backups", "prefix": namespace},
        }},
    })
}

/// A Deployment without pods, in size as people write them.
pub(crate) fn workload(namespace: &str, i: usize) -> Value {
    let name = format!("app-{i}");
    let labels = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop"});
    let env: Vec<Value> =
        (0..10).map(|k| json!({"name": format!("SETTING_{k}"), "value": "some value of a usual length"})).collect();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{
                        "name": "app",
                        "image": "registry.example/app:1",
                        "env": env,
                        "ports": [{"containerPort": 8080}],
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            },
        },
    })
}

/// A Backup of a Deployment.
pub(crate) fn of_workload(namespace: &str, i: usize, workload: usize) -> Value {
    json!({
        "apiVersion": "stash.appscode.com/v1alpha2",
        "kind": "Backup",
        "metadata": {"name": backup(i), "namespace": namespace},
        "spec": {
            "schedule": "15 4 * * *",
            "repository": {"name": "store"},
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("app-{workload}")},
            "targetDirectories": [format!("/data/{i}")],
            "retentionPolicy": {"keepLast": 5, "prune": true},
        },
    })
}
