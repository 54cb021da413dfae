//! The cluster that runs these tests: found by `KUBECONFIG`, never started from here.

use std::io::Write;
use std::process::{Command, Stdio};

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
        self.try_helm(arguments).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, with what helm says against it as the error.
    pub(crate) async fn try_helm(&self, arguments: &[&str]) -> Result<String, String> {
        self.program("helm", arguments, "")
    }

    /// Runs kubectl on the test's namespace with this input; returns what it prints, or what it says against it.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        self.program("kubectl", arguments, input)
    }

    fn program(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(program);
        command.args(["--namespace", &self.namespace]).args(arguments);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("kubectl and helm, which `cargo xtask cluster exec` puts on PATH");
        // One that does not want its input closes the pipe.
        drop(child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes())));
        let output = child.wait_with_output().expect("the end of a program");
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Err(format!("{program} {}: {}: {said}", arguments.join(" "), output.status))
    }
}
