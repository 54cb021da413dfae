//! The cluster that runs these tests: found by `KUBECONFIG`, never started from here.

use std::process::Command;

use kube::{Client, Config};

use super::Test;

const HOW: &str = "run `cargo xtask test e2e`, which starts a cluster, or start one yourself:
    cargo xtask cluster up
    cargo xtask test e2e --keep
See docs/contributing/cluster.md.";

/// A client of the cluster; belongs to the runtime of one test.
pub(super) async fn client() -> Client {
    let file = std::env::var("KUBECONFIG")
        .unwrap_or_else(|_| panic!("no Kubernetes to test on: KUBECONFIG is not set.\n{HOW}"));
    let config = Config::infer().await.unwrap_or_else(|error| panic!("cannot read {file}: {error}\n{HOW}"));
    let server = config.cluster_url.clone();
    let client = Client::try_from(config).unwrap_or_else(|error| panic!("cannot use {file}: {error}"));
    if let Err(error) = client.apiserver_version().await {
        panic!("no Kubernetes answers at {server} ({file}): {error}\n{HOW}");
    }
    client
}

impl Test {
    /// Runs helm on the test's namespace and returns what it prints.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> String {
        let mut helm = Command::new("helm");
        helm.args(["--namespace", &self.namespace]).args(arguments);
        let output = helm.output().expect("helm, which `cargo xtask cluster exec` puts on PATH");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "helm {}: {}: {said}", arguments.join(" "), output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
