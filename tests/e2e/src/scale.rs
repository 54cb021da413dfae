//! Thousands of objects that no node has to run, for what depends on their number.

use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::harness::{Test, Value, test};

/// Requests under way at once: the API server's own limit for one client is far above, two cores are the limit.
const AT_ONCE: usize = 64;

impl Test {
    /// Makes these objects, many at once.
    pub(crate) async fn create_many(&self, objects: impl IntoIterator<Item = Value>) {
        let requests = stream::iter(objects.into_iter().map(|object| self.create(object)));
        requests.buffer_unordered(AT_ONCE).for_each(async |_| ()).await;
    }
}

#[test]
fn five_thousand_objects_are_made_in_seconds() {
    test(async |t| {
        let start = std::time::Instant::now();
        let maps = (0..5000).map(|i| {
            let labels = json!({"half": (i % 2).to_string()});
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m-{i}"), "labels": labels},
                "data": {"number": i.to_string()}})
        });
        let workloads = (0..500).map(|i| deployment_without_pods(&format!("d-{i}")));
        t.create_many(maps.chain(workloads)).await;
        println!("5,500 objects in {:.1} s", start.elapsed().as_secs_f64());

        assert_eq!(t.list("ConfigMap", "half=1").await.len(), 2500);
        // The controllers keep up: each Deployment is seen and has its ReplicaSet.
        t.wait_all("ReplicaSet", "", "one for each Deployment", |all| all.len() == 500).await;
        assert!(t.list("Pod", "").await.is_empty());
    });
}

/// A workload that the API and its controllers know and no node runs.
pub(crate) fn deployment_without_pods(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "app", "image": "none"}]}}}})
}
