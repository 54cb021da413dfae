//! Repositories for tests: a folder of the cluster's object store, and restic in a pod to judge what is in it.

use serde_json::{Value, json};

use super::Test;

/// The S3 server of all tests, its bucket and its Secret.
const OBJECT_STORE: &str = include_str!("../../../cluster/object-store.yaml");

impl Test {
    /// Makes the Secret `storage` with a password and the keys of the object store, and returns the URL of the store as
    /// seen from pods; the bucket is `backups`. What the test stores goes below a prefix that is its namespace.
    pub(crate) async fn object_store(&self) -> &'static str {
        let store = self.in_namespace("object-store");
        store.apply(OBJECT_STORE).await;
        let ready = |server: &Value| server["status"]["readyReplicas"] == 1;
        store.wait("Deployment/object-store", "ready", ready).await;
        let secret = store.get("Secret/object-store").await;
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "storage"}, "data": secret["data"]});
        self.apply(&secret.to_string()).await;
        "http://object-store.object-store.svc.cluster.local:9000"
    }

    /// Where the object store answers without its Service, for [`Test::proxy`].
    pub(crate) async fn object_store_address(&self) -> std::net::SocketAddr {
        self.in_namespace("object-store").endpoint("object-store").await
    }

    /// Runs restic with the Secret `storage` on a repository in a pod of its own, and returns what it prints; anything
    /// but success fails the test. A run that goes on is waited for: a schedule may have begun one just before it was
    /// paused.
    pub(crate) async fn restic(&self, repository: &str, arguments: &str) -> String {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restic"}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "restic", "image": "holdfast.test/restic:1",
                "imagePullPolicy": "Never", "command": ["sleep", "86400"],
                "envFrom": [{"secretRef": {"name": "storage"}}]}]}});
        self.apply(&pod.to_string()).await;
        self.wait("Pod/restic", "running", |pod| pod["status"]["phase"] == "Running").await;
        self.sh("restic", &format!("restic --no-cache --retry-lock 1m -r '{repository}' {arguments}")).await
    }
}
