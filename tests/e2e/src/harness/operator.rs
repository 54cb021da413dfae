//! The product in the cluster: the operator, installed by its chart as a user would.

use std::process::Command;

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Test;

/// The namespace it runs in, for all tests.
pub(super) const NAMESPACE: &str = "holdfast";

/// The chart, as it is in this checkout.
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/holdfast");

/// The image of this version, which all nodes have.
pub(crate) const IMAGE: &str = concat!("docker.io/holdfast/holdfast:", env!("CARGO_PKG_VERSION"));

/// Whether a test of this run has installed it.
static INSTALLED: Mutex<bool> = Mutex::const_new(false);

impl Test {
    /// Installs the operator, unless a test did and no other took it away, and returns its namespace.
    pub(crate) async fn operator(&self) -> Self {
        let operator = self.in_namespace(NAMESPACE);
        let mut installed = INSTALLED.lock().await;
        if !*installed || operator.get("Deployment/holdfast").await.is_null() {
            install(&operator).await;
            *installed = true;
        }
        operator
    }

    /// Fails if the API server found anything wrong with what the operator wrote in this namespace: it says so, tries
    /// again, and everything else goes on as if nothing were.
    pub(super) async fn assert_nothing_invalid(&self) {
        let operator = self.in_namespace(NAMESPACE);
        for pod in operator.list("Pod", "app.kubernetes.io/component=operator").await {
            // One that is starting or ending has none.
            let log = operator.try_log(pod["metadata"]["name"].as_str().unwrap_or_default(), "operator").await;
            let log = log.unwrap_or_default();
            let is_invalid = |line: &&str| line.contains(&self.namespace) && line.contains("is invalid");
            let invalid: Vec<&str> = log.lines().filter(is_invalid).collect();
            assert!(invalid.is_empty(), "the operator writes what is refused: {invalid:#?}");
        }
    }

    /// Waits until a condition of an object is true; gives up when it has failed for good.
    #[track_caller]
    pub(crate) fn condition(&self, object: &str, condition: &str) -> impl Future<Output = Value> {
        self.wait(object, format!("{condition}=True"), move |state| {
            let failed = condition != "Failed" && is_true(state, "Failed");
            assert!(!failed, "{object} has failed: {:#}", state["status"]);
            is_true(state, condition)
        })
    }

    /// The names of the containers that the pods of a workload have, once it has rolled out as it is now.
    pub(crate) async fn containers(&self, workload: &str, done: impl Fn(&[String]) -> bool) -> Vec<String> {
        let names = |workload: &Value| -> Vec<String> {
            let pod = &workload["spec"]["template"]["spec"];
            let of = |list: &str| pod[list].as_array().cloned().unwrap_or_default();
            let all = of("initContainers").into_iter().chain(of("containers"));
            all.map(|container| container["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let found = self.wait(workload, "its containers as asked, rolled out", |workload| {
            done(&names(workload)) && rolled_out(workload)
        });
        names(&found.await)
    }
}

/// Whether a condition of an object is true.
pub(crate) fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == condition && one["status"] == "True")
}

/// Whether all pods of a Deployment, StatefulSet or DaemonSet are of its present template and ready, and there are no
/// others.
fn rolled_out(workload: &Value) -> bool {
    let status = &workload["status"];
    let current = status["observedGeneration"] == workload["metadata"]["generation"];
    let count = |name: &str| status[name].as_u64();
    if workload["kind"] == "DaemonSet" {
        let wanted = count("desiredNumberScheduled");
        let counts = ["currentNumberScheduled", "updatedNumberScheduled", "numberReady"];
        return current && wanted.is_some_and(|wanted| wanted > 0) && counts.iter().all(|name| count(name) == wanted);
    }
    let wanted = workload["spec"]["replicas"].as_u64();
    let revision = status["currentRevision"] == status["updateRevision"];
    current && revision && ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|name| count(name) == wanted)
}

async fn install(operator: &Test) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE,
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    operator.apply(&namespace.to_string()).await;
    // In a cluster that was kept the program may be another than last time: its pods are made anew.
    let run = format!("podAnnotations.run=\"{}\"", std::process::id());
    operator
        .helm(&[
            "upgrade",
            "--install",
            // Of what plain manifests brought, too.
            "--take-ownership",
            "holdfast",
            CHART,
            "--set",
            "image.pullPolicy=Never",
            "--set",
            "image.repository=docker.io/holdfast/holdfast",
            "--set",
            &run,
        ])
        .await;
    let mut wait = Command::new("kubectl");
    wait.args(["--namespace", NAMESPACE, "rollout", "status", "deployment/holdfast", "--timeout=90s"]);
    let output = wait.output().expect("kubectl, which `cargo xtask cluster exec` puts on PATH");
    if !output.status.success() {
        super::report::print(operator).await;
        panic!("the operator does not start: {}", String::from_utf8_lossy(&output.stderr));
    }
}
