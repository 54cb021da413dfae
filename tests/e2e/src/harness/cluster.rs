//! The cluster that runs these tests: found by `KUBECONFIG`, never started from here.

use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
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

/// The address of this process towards the cluster, that pods can reach too.
pub(super) async fn own_address() -> IpAddr {
    let server = Config::infer().await.expect("a kubeconfig").cluster_url;
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let server = (host, 443).to_socket_addrs().ok().and_then(|mut all| all.next()).expect("the API server's address");
    // No packet is sent: connecting a datagram socket only chooses the route.
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect(server).expect("a route to the API server");
    socket.local_addr().expect("an address").ip()
}
