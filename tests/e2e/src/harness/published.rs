//! What published manifests take for granted: a namespace `demo`, images of a registry, a bucket at Google's.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{IMAGE, Test};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/seeds");

/// Google's storage, for all tests.
const GOOGLE: &str = include_str!("../../../cluster/google.yaml");

/// Where it answers, as seen from pods.
const GOOGLE_ADDRESS: &str = "google.google.svc.cluster.local:4443";

/// What the manifests call an image, and what the nodes have for it.
const IMAGES: [(&str, &str); 2] =
    [("docker.io/library/busybox:latest", "holdfast.test/busybox:1"), ("docker.io/holdfast/holdfast:latest", IMAGE)];

/// An image without a tag is asked for at its registry before each start: there is none here, and what the nodes have will
/// do. A `sleep` does not end when it is told to; it is waited for 5 seconds, not 30. No more of a pod is changed.
const NO_REGISTRY: &str = "
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicy
metadata: {name: images-of-the-nodes}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  failurePolicy: Fail
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >-
        Object{spec: Object.spec{terminationGracePeriodSeconds: 5, containers: object.spec.containers.map(c,
        Object.spec.containers{name: c.name, imagePullPolicy: 'IfNotPresent'})}}
---
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicyBinding
metadata: {name: images-of-the-nodes}
spec:
  policyName: images-of-the-nodes
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: demo}}}
";

impl Test {
    /// The namespace `demo` as it is before the first example, for one test at a time.
    pub(crate) async fn demo(&self) -> Self {
        // One that an earlier run has left.
        if !self.get("Namespace/demo").await.is_null() {
            self.delete("Namespace/demo").await;
            self.gone("Namespace/demo").await;
        }
        for (called, found) in IMAGES {
            self.call_image(found, called).await;
        }
        self.apply(NO_REGISTRY).await;
        self.apply("{apiVersion: v1, kind: Namespace, metadata: {name: demo}}").await;
        let demo = self.in_namespace("demo");
        demo.wait("ServiceAccount/default", "exists", |account| !account.is_null()).await;
        // A policy takes a moment to be known: until then a pod keeps what it says.
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: probe}, spec: {terminationGracePeriodSeconds: 0,
            containers: [{name: a, image: busybox, command: [sleep, '86400']}]}}";
        demo.until("pods take the images of the nodes", async || {
            demo.apply(pod).await;
            let policy = demo.get("Pod/probe").await["spec"]["containers"][0]["imagePullPolicy"].clone();
            demo.kill_pod("probe").await;
            demo.gone("Pod/probe").await;
            if policy == "IfNotPresent" { Ok(()) } else { Err(format!("imagePullPolicy {policy}")) }
        })
        .await;
        demo
    }

    /// Gives an image of the nodes another name.
    pub(crate) async fn call_image(&self, found: &str, called: &str) {
        for node in self.list("Node", "").await {
            ctr(node["metadata"]["name"].as_str().unwrap_or_default(), &["images", "tag", "--force", found, called]);
        }
    }

    /// Applies files of `examples/seeds` as they are.
    pub(crate) async fn publish(&self, files: &[&str]) {
        for file in files {
            let path = Path::new(EXAMPLES).join(file);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            self.try_apply(&text).await.unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }

    /// Starts Google's storage, empty, and puts a key that leads there in the place of the one that the examples leave open.
    /// In this namespace the Secret `storage` opens the same for restic.
    pub(crate) async fn google(&self, demo: &Self) {
        let google = self.in_namespace("google");
        google.apply(GOOGLE).await;
        // What an earlier run stored goes with its pod.
        let run = json!({"metadata": {"annotations": {"run": self.namespace}}});
        google.patch("Deployment/google", &json!({"spec": {"template": run}})).await;
        google.containers("Deployment/google", |_| true).await;
        let key = json!({"type": "service_account", "gcs_base_url": format!("http://{GOOGLE_ADDRESS}"),
            "disable_oauth": true});
        let values = json!({"stringData": {"GOOGLE_SERVICE_ACCOUNT_JSON_KEY": key.to_string()}});
        demo.patch("Secret/gcs-secret", &values).await;
        let values = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "storage"}, "stringData": {
            "STORAGE_EMULATOR_HOST": GOOGLE_ADDRESS, "GOOGLE_PROJECT_ID": "my-project", "GOOGLE_ACCESS_TOKEN": "any",
            "RESTIC_PASSWORD": "change-me"}});
        self.apply(&values.to_string()).await;
    }
}

/// Runs containerd's own client on a node.
fn ctr(node: &str, arguments: &[&str]) {
    let mut command = Command::new("nsenter");
    command.args([format!("--net=/run/netns/{node}"), format!("--mount=/run/mntns/{node}")]);
    command.args(["--", "ctr", "--namespace", "k8s.io"]).args(arguments);
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
