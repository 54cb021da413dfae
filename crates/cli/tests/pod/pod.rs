//! A pod as the kubelet would run it: its folders, its environment, and the program in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_api::names::pod as names;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::Server;

/// A namespace of its own for each test, and the volumes that its pods share.
pub(crate) struct Stage {
    pub(crate) namespace: String,
    volumes: TempDir,
    /// The UIDs of those that are objects as well.
    pods: Mutex<BTreeMap<String, String>>,
}

/// A program under way.
pub(crate) struct Program {
    process: Child,
    text: Arc<Mutex<String>>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("test-{}", COUNT.fetch_add(1, Ordering::SeqCst));
        Server::get().must(&["create", "namespace", &namespace]);
        let stage = Self { namespace, volumes: tempfile::tempdir().unwrap(), pods: Mutex::default() };
        stage.secret("RESTIC_PASSWORD", "correct horse");
        fs::create_dir_all(stage.root().join("target/data")).unwrap();
        fs::create_dir_all(stage.repository()).unwrap();
        stage
    }

    /// Where everything is mounted, in all pods alike.
    pub(crate) fn root(&self) -> PathBuf {
        self.volumes.path().join("holdfast")
    }

    /// A file of the volume `data`.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.root().join("target/data").join(name)
    }

    /// The volume of the repositories, which is the claim `backups`.
    pub(crate) fn repository(&self) -> PathBuf {
        let hash = names::hash(&format!("claim/{}/backups", self.namespace));
        self.root().join(names::repository_mount(&hash))
    }

    /// Sets a key of the Secret.
    pub(crate) fn secret(&self, key: &str, value: &str) {
        let folder = self.root().join(names::secret_mount("secret"));
        fs::create_dir_all(&folder).unwrap();
        // In one step, as a kubelet does: a program that looks meanwhile must not see half of it.
        let unfinished = folder.with_extension(key);
        fs::write(&unfinished, value).unwrap();
        fs::rename(unfinished, folder.join(key)).unwrap();
    }

    pub(crate) fn apply(&self, manifests: &[String]) {
        Server::get().apply(&manifests.join("---\n").replace("NAMESPACE", &self.namespace));
    }

    /// Makes the object of a pod, which its programs then know the UID of.
    pub(crate) fn pod(&self, name: &str) {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {}}}\nspec: {{terminationGracePeriodSeconds: 0, \
             containers: [{{name: restic-sidecar, image: i, env: [{{name: {}, value: x}}]}}]}}\n",
            self.namespace,
            names::TARGET
        );
        Server::get().apply(&manifest);
        let pod = Server::get().object(&self.namespace, "pod", name);
        self.pods.lock().unwrap().insert(name.to_owned(), pod["metadata"]["uid"].as_str().unwrap().to_owned());
    }

    #[track_caller]
    pub(crate) fn until(&self, kind: &str, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        Server::get().until((&self.namespace, kind, name), what, is)
    }

    /// Writes a host's part of an object's status, as its agent left it.
    pub(crate) fn set_status(&self, object: &Value, host: &str, status: &Value) {
        let metadata = json!({"name": object["metadata"]["name"], "namespace": self.namespace});
        let written =
            json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata, "status": status});
        Server::get().apply_status(&written.to_string(), &names::field_manager(host));
    }

    /// Starts the program in a pod, working for `target`.
    pub(crate) fn start(&self, pod: &str, target: &str, arguments: &[&str]) -> Program {
        self.start_with(pod, target, arguments, &Server::get().path("kubeconfig"))
    }

    pub(crate) fn start_with(&self, pod: &str, target: &str, arguments: &[&str], kubeconfig: &Path) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(arguments).arg("--root").arg(self.root());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("KUBECONFIG", kubeconfig);
        let uid = self.pods.lock().unwrap().get(pod).cloned().unwrap_or_else(|| format!("uid-of-{pod}"));
        command.env(names::POD_NAME, pod).env(names::POD_UID, uid);
        command.env(names::POD_NAMESPACE, &self.namespace).env(names::NODE_NAME, "node-1").env(names::TARGET, target);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let text = Arc::new(Mutex::new(String::new()));
        let (said, stderr) = (Arc::clone(&text), process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = said.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        Program { process, text }
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, pod: &str, target: &str, arguments: &[&str]) -> (i32, String) {
        let mut program = self.start(pod, target, arguments);
        let status = program.end(Duration::from_secs(90));
        (status.code().unwrap_or(-1), program.text())
    }
}

impl Program {
    /// What it said.
    pub(crate) fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Asks it to end, as the kubelet does, and waits.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.end(Duration::from_secs(10))
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it serves to Prometheus.
    pub(crate) fn metrics(&self) -> String {
        let said = self.text();
        let url = said.lines().find_map(|line| line.split_once("metrics: http://")).unwrap().1;
        let (address, path) = url.split_once('/').unwrap();
        let mut connection = TcpStream::connect(address).unwrap();
        write!(connection, "GET /{path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    #[track_caller]
    pub(crate) fn end(&mut self, within: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < within, "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it has said all of `words` on one line.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        let begun = Instant::now();
        while !self.text().lines().any(|line| words.iter().all(|word| line.contains(word))) {
            assert!(begun.elapsed() < Duration::from_secs(90), "no line with {words:?} in:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
