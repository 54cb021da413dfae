//! A bare API server: etcd and kube-apiserver on the loopback address, one for all tests of this program. There is no
//! kubelet and no controller; the tests play both.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::servers::{free_address, server_command, tool};

/// How long anything is waited for that should come soon.
const SOON: Duration = Duration::from_secs(90);

/// The API server.
pub(crate) struct Server {
    folder: TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// The one of this program.
    pub(crate) fn get() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (etcd, peers, port) = (free_address().port(), free_address().port(), free_address().port());
        let (etcd, peers) = (format!("http://127.0.0.1:{etcd}"), format!("http://127.0.0.1:{peers}"));
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(path("public.pem"), key.public_key_pem()).unwrap();
        fs::write(path("tokens.csv"), "test,admin,1,system:masters\n").unwrap();
        let argument = |flag: &str, value: &str| format!("--{flag}={value}");
        let file = |name: &str| path(name).display().to_string();
        run_for_ever(
            "etcd",
            vec![
                argument("data-dir", &file("etcd")),
                "--unsafe-no-fsync".to_owned(),
                argument("listen-client-urls", &etcd),
                argument("advertise-client-urls", &etcd),
                argument("listen-peer-urls", &peers),
            ],
            &path("etcd.log"),
        );
        run_for_ever(
            "kube-apiserver",
            vec![
                argument("etcd-servers", &etcd),
                argument("cert-dir", &file("certificates")),
                argument("bind-address", "127.0.0.1"),
                argument("secure-port", &port.to_string()),
                argument("service-cluster-ip-range", "10.96.0.0/16"),
                argument("service-account-issuer", "https://kubernetes.default.svc"),
                argument("service-account-key-file", &file("public.pem")),
                argument("service-account-signing-key-file", &file("key.pem")),
                argument("authorization-mode", "AlwaysAllow"),
                argument("token-auth-file", &file("tokens.csv")),
                argument("disable-admission-plugins", "ServiceAccount"),
            ],
            &path("apiserver.log"),
        );
        let server = Self { folder, port };
        server.write_kubeconfig("kubeconfig", port);
        let begun = Instant::now();
        while !server.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"], None).0 {
            assert!(begun.elapsed() < SOON, "{}", fs::read_to_string(server.path("apiserver.log")).unwrap());
            std::thread::sleep(Duration::from_millis(300));
        }
        let crds = Command::new(env!("CARGO_BIN_EXE_holdfast")).arg("crds").output().unwrap();
        server.apply(&String::from_utf8(crds.stdout).unwrap());
        // Definitions that are quite new have no conditions yet, which kubectl takes for an error.
        while !server.kubectl(&["wait", "--for=condition=Established", "--all", "crd", "--timeout=60s"], None).0 {
            assert!(begun.elapsed() < SOON, "the definitions are not served");
        }
        server
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a kubeconfig that leads to a port of this machine.
    pub(crate) fn write_kubeconfig(&self, name: &str, port: u16) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "u", "user": {"token": "test"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(self.path(name), config.to_string()).unwrap();
        self.path(name)
    }

    fn kubectl(&self, arguments: &[&str], stdin: Option<&str>) -> (bool, String) {
        let mut command = Command::new(tool("kubectl"));
        command.arg("--kubeconfig").arg(self.path("kubeconfig")).args(arguments);
        command.env("HOME", self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(stdin.unwrap_or_default().as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    #[track_caller]
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let (done, text) = self.kubectl(arguments, None);
        assert!(done, "kubectl {arguments:?}: {text}");
        text
    }

    #[track_caller]
    pub(crate) fn apply(&self, manifests: &str) {
        let (done, text) = self.kubectl(&["apply", "--server-side", "-f", "-"], Some(manifests));
        assert!(done, "{text}");
    }

    /// The same of a status, as `manager`.
    #[track_caller]
    pub(crate) fn apply_status(&self, manifest: &str, manager: &str) {
        let manager = format!("--field-manager={manager}");
        let arguments = ["apply", "--server-side", "--force-conflicts", "--subresource=status", &manager, "-f", "-"];
        let (done, text) = self.kubectl(&arguments, Some(manifest));
        assert!(done, "{text}");
    }

    /// An object, or null.
    pub(crate) fn object(&self, namespace: &str, kind: &str, name: &str) -> Value {
        let (done, text) = self.kubectl(&["get", kind, name, "-n", namespace, "-o", "json"], None);
        if done { serde_json::from_str(&text).unwrap() } else { Value::Null }
    }

    /// Waits until an object is as wanted.
    #[track_caller]
    pub(crate) fn until(
        &self,
        (namespace, kind, name): (&str, &str, &str),
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Value {
        let begun = Instant::now();
        loop {
            let object = self.object(namespace, kind, name);
            if is(&object) {
                return object;
            }
            assert!(begun.elapsed() < SOON, "not {what}: {object:#}");
            std::thread::sleep(Duration::from_millis(150));
        }
    }
}

/// Runs a program until this one ends. A thread of its own starts it, since its end is tied to that thread's.
fn run_for_ever(program: &'static str, arguments: Vec<String>, log: &Path) {
    let log = File::create(log).unwrap();
    std::thread::spawn(move || {
        let mut command = server_command(program);
        command.args(arguments);
        let mut process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let _ = process.wait();
    });
}
