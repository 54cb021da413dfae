//! Installing, upgrading and removing the product, by its chart and by plain manifests.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{CHART, IMAGE, Test, Value, WEB, WRITE, test_alone};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version that comes before this one, as far as these tests go.
const OLDER: &str = "0.0.9";
const OLDER_IMAGE: &str = "docker.io/holdfast/holdfast:0.0.9";

const DEFINITION: &str = "CustomResourceDefinition/backuptriggers.stash.appscode.com";

/// A chart as an earlier version may have been: without a value, a flag, roles of users and a column of this one.
struct OlderChart(PathBuf);

impl OlderChart {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("holdfast-chart-{}", std::process::id()));
        let chart = Self(folder);
        copy(Path::new(CHART), &chart.0);
        let definitions = fs::read_dir(chart.0.join("definitions")).unwrap().map(|entry| entry.unwrap().file_name());
        for name in definitions {
            chart.edit(&format!("definitions/{}", name.to_str().unwrap()), VERSION, OLDER);
        }
        let column = "    - jsonPath: .status.phase\n      name: Phase\n      type: string\n";
        chart.edit("definitions/stash.appscode.com_backuptriggers.yaml", column, "");
        chart.edit("Chart.yaml", VERSION, OLDER);
        chart.edit("values.yaml", "  maxConcurrentJobs: 4\n", "");
        chart.edit("values.yaml", "userRoles: true\n", "");
        let flag = "        - --max-concurrent-jobs={{ .Values.operator.maxConcurrentJobs }}\n";
        chart.edit("templates/deployment.yaml", flag, "");
        fs::remove_file(chart.0.join("templates/users.yaml")).unwrap();
        chart
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let file = self.0.join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{} does not hold {from:?} any more", file.display());
        fs::write(&file, text.replace(from, to)).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for OlderChart {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), &to).unwrap()),
        }
    }
}

/// Makes a namespace with a workload that is protected and whose pods have this sidecar.
async fn protected(t: &Test, namespace: &str, store: &str) -> Test {
    let other = t.in_namespace(namespace);
    t.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}")).await;
    other.wait("ServiceAccount/default", "exists", |account| !account.is_null()).await;
    other.object_store().await;
    protect(&other, store).await;
    other
}

async fn protect(t: &Test, store: &str) -> String {
    t.apply(WEB).await;
    t.sh(&t.pod_of("app=web").await, WRITE).await;
    t.protect(store, "web", "Deployment/web").await;
    t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
    t.pod_of("app=web").await
}

async fn back_up(t: &Test, trigger: &str, backup: &str) {
    t.trigger(trigger, backup).await;
    t.condition(&format!("BackupTrigger/{trigger}"), "Complete").await;
}

#[test]
fn the_chart_upgrades_and_goes_and_plain_manifests_do_as_well() {
    test_alone(async |t, _| {
        let operator = t.operator().await;
        operator.helm(&["uninstall", "holdfast", "--wait"]).await;
        t.call_image(IMAGE, OLDER_IMAGE).await;
        let older = OlderChart::new();
        // The name of the gateway is that of one in each workload's own namespace.
        let set = "image.pullPolicy=Never,resources.limits.memory=300Mi,operator.pushgatewayUrl=http://push:9091";
        operator.helm(&["install", "holdfast", older.path(), "--set", set]).await;
        t.pushgateway().await;
        operator.containers("Deployment/holdfast", |_| true).await;
        let store = t.object_store().await;
        let pod = protect(t, store).await;
        let image = async || t.get(&format!("Pod/{pod}")).await["spec"]["containers"][1]["image"].take();
        assert_eq!(image().await, OLDER_IMAGE);
        let left = protected(t, &format!("{}-left", t.namespace), store).await;
        back_up(t, "before", "web").await;
        t.pushed("host", "stash_appscode_com_backupsession_success{").await;
        assert_eq!(columns(&t.get(DEFINITION).await), ["Backup", "Age"]);

        upgrade(t, &operator).await;
        back_up(t, "upgraded", "web").await;
        assert_eq!(t.pod_of("app=web").await, pod, "the upgrade restarted a workload");
        assert_eq!(image().await, OLDER_IMAGE);
        t.until("told that a workload is behind", async || {
            let metrics = t.http_get(&pod, "holdfast.holdfast.svc.cluster.local", 8080, "/metrics").await?;
            // With what earlier tests may have left.
            let count = metrics.lines().find_map(|line| line.strip_prefix("holdfast_operator_outdated_agents "));
            let is_told = count.and_then(|count| count.parse::<u32>().ok()) >= Some(2);
            if is_told { Ok(()) } else { Err(metrics) }
        })
        .await;

        remove(t, &operator, &left, store, &pod).await;
        plain_manifests(t, &operator, store).await;
    });
}

fn columns(definition: &Value) -> Vec<&str> {
    let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
    columns.iter().map(|column| column["name"].as_str().unwrap()).collect()
}

/// To this version, by the command that people are told; a value that was set before stays.
async fn upgrade(t: &Test, operator: &Test) {
    let upgrade = ["upgrade", "holdfast", CHART, "--reset-then-reuse-values"];
    let misspelt = operator.try_helm(&[&upgrade[..], &["--set", "replicaz=2"]].concat()).await;
    assert!(misspelt.unwrap_err().contains("replicaz"));
    operator.helm(&upgrade).await;
    operator
        .wait("Deployment/holdfast", "of this version", |deployment| {
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            container["image"] == IMAGE
                && container["resources"]["limits"]["memory"] == "300Mi"
                && container["args"].to_string().contains("--max-concurrent-jobs=4")
        })
        .await;
    operator.containers("Deployment/holdfast", |_| true).await;
    let definition = t.get(DEFINITION).await;
    assert_eq!(columns(&definition), ["Backup", "Phase", "Age"]);
    assert_eq!(definition["metadata"]["annotations"]["holdfast/version"], VERSION);
    assert!(!t.get("ClusterRole/holdfast-edit").await.is_null());
}

/// What is left without the operator: the kinds, the objects, the sidecars and the data.
async fn remove(t: &Test, operator: &Test, left: &Test, store: &str, pod: &str) {
    operator.helm(&["uninstall", "holdfast", "--wait"]).await;
    for gone in
        ["Deployment/holdfast", "ServiceAccount/holdfast", "ClusterRole/holdfast", "ClusterRoleBinding/holdfast"]
    {
        assert!(operator.get(gone).await.is_null(), "{gone} is left");
    }
    assert!(!t.get(DEFINITION).await.is_null());
    assert!(!t.get("Repository/store").await.is_null());
    assert_eq!(t.hosts(store).await, ["web", "web"]);
    let count = |backup: &Value| backup["status"]["hosts"][0]["count"].as_u64();
    let before = count(&t.get("Backup/web").await);
    t.patch("Backup/web", &json!({"spec": {"paused": false, "schedule": "@every 2s"}})).await;
    t.wait("Backup/web", "backed up without the operator", |backup| count(backup) > before).await;
    t.patch("Backup/web", &json!({"spec": {"paused": true}})).await;
    assert_eq!(t.pod_of("app=web").await, pod);
    // And nothing of it holds up a namespace.
    let namespace = format!("Namespace/{}", left.namespace);
    t.delete(&namespace).await;
    t.gone(&namespace).await;
}

/// They take over what the chart has left, first with the definitions that people apply, then with the operator's own.
async fn plain_manifests(t: &Test, operator: &Test, store: &str) {
    t.kubectl(&["apply", "--server-side", "-f", &format!("{DEPLOY}/crds")], "").await.unwrap();
    let manifests = format!("{DEPLOY}/manifests/holdfast.yaml");
    operator.kubectl(&["apply", "--server-side", "-f", &manifests], "").await.unwrap();
    operator.containers("Deployment/holdfast", |_| true).await;
    t.apply(
        "
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {name: again}
spec:
  schedule: '@every 24h'
  paused: true
  repository: {name: store}
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  targetDirectories: [/source/data/deep]
",
    )
    .await;
    t.condition("Backup/again", "Ready").await;
    t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
    back_up(t, "plain", "again").await;
    t.restic(&t.url(store, "store"), "--no-lock check --read-data").await;

    // One that is missing is made by the operator, where it may.
    let definition = "CustomResourceDefinition/backuptemplates.stash.appscode.com";
    t.delete(definition).await;
    t.gone(definition).await;
    t.apply(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: holdfast-definitions}
rules:
- {apiGroups: [apiextensions.k8s.io], resources: [customresourcedefinitions], verbs: [get, create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: holdfast-definitions}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: holdfast-definitions}
subjects: [{kind: ServiceAccount, name: holdfast, namespace: holdfast}]
",
    )
    .await;
    let text = fs::read_to_string(&manifests).unwrap();
    let (without, with) = ("--install-crds=false", "--install-crds=true");
    assert!(text.contains(without));
    operator.kubectl(&["apply", "--server-side", "-f", "-"], &text.replace(without, with)).await.unwrap();
    t.wait(definition, "made by the operator", |definition| {
        definition["metadata"]["annotations"]["holdfast/version"] == VERSION
    })
    .await;
    operator.containers("Deployment/holdfast", |_| true).await;
    // The next test installs the chart again.
    operator.kubectl(&["delete", "--wait=false", "-f", &manifests], "").await.unwrap();
    t.gone("Namespace/holdfast").await;
}
