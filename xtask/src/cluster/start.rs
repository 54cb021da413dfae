//! The order in which a cluster comes up, what is waited for and for how long. Runs inside the supervisor and tells
//! every step on its stdout.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::components::{Place, kubeconfig};
use super::control::Progress;
use super::layout::{CONTROL_ADDRESS, DRIVER, INSIDE, Node};
use super::supervisor::Supervisor;
use super::{certificates, config};
use crate::command::{self, tail};
use crate::tools::SNAPSHOT_DEFINITIONS;

/// How long one step may take. A machine that builds something at the same time takes several times the usual second.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same for kubectl.
const WAIT: &str = "--timeout=80s";
const LOOK: Duration = Duration::from_millis(50);

/// Why a cluster does not come up.
struct Failure {
    /// Whose log tells more.
    component: Option<String>,
    problem: String,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { component: None, problem: format!("{error:#}") }
    }
}

/// All of it. A failure is told on stdout and is an error.
pub(super) fn all(supervisor: &Supervisor) -> Result<()> {
    match (Start { supervisor }).run() {
        Ok(()) => {
            supervisor.is_up();
            say(&Progress::Up)
        }
        Err(Failure { component, problem }) => {
            say(&Progress::Failed { component, problem: problem.clone() })?;
            anyhow::bail!(problem)
        }
    }
}

/// Fails when nobody listens any more: whoever started the cluster has gone before it was up.
fn say(progress: &Progress) -> Result<()> {
    let text = serde_json::to_string(progress)?;
    let mut out = io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("whoever started this cluster has gone")
}

struct Start<'a> {
    supervisor: &'a Supervisor,
}

impl Start<'_> {
    fn run(&self) -> Result<(), Failure> {
        self.write_files()?;
        for node in self.nodes() {
            self.supervisor.begin(self.supervisor.programs().containerd(node))?;
        }
        // Images need nobody but containerd: they come while the rest starts.
        thread::scope(|scope| {
            let images = scope.spawn(|| self.import_images());
            self.control_plane()?;
            self.every_node()?;
            self.storage()?;
            images.join().unwrap_or_else(|_| Err(anyhow::anyhow!("importing images panicked").into()))?;
            say(&Progress::Step("images imported".into()))?;
            Ok(())
        })
    }

    fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        Node::all(self.supervisor.nodes)
    }

    fn control_plane(&self) -> Result<(), Failure> {
        let (supervisor, programs) = (self.supervisor, self.supervisor.programs());
        supervisor.begin(programs.etcd())?;
        supervisor.begin(programs.apiserver())?;
        supervisor.begin(programs.csi_controller())?;
        supervisor.begin(programs.toxiproxy())?;
        self.wait("apiserver", "it does not get ready", || self.api_is_ready())?;
        say(&Progress::Step("API server ready".into()))?;
        supervisor.begin(programs.controller_manager())?;
        supervisor.begin(programs.scheduler())?;
        Ok(())
    }

    fn every_node(&self) -> Result<(), Failure> {
        let (supervisor, programs) = (self.supervisor, self.supervisor.programs());
        for node in self.nodes() {
            self.wait_for_containerd(node)?;
            supervisor.begin(programs.kubelet(node))?;
            supervisor.begin(programs.proxy(node))?;
            supervisor.begin(programs.csi_node(node))?;
        }
        let definitions = supervisor.bin.join(SNAPSHOT_DEFINITIONS).to_string_lossy().into_owned();
        let objects = format!("{INSIDE}/objects.yaml");
        self.kubectl("apiserver", &["create", "--validate=false", "-f", &objects, "-f", &definitions])?;
        supervisor.begin(programs.coredns())?;
        // One by one: kubectl does not wait for the creation of several.
        for node in self.nodes() {
            let object = format!("node/{}", node.name());
            self.kubectl(&format!("kubelet-{}", node.0), &["wait", WAIT, "--for=create", &object])?;
        }
        self.wait_for_nodes("kubelet", "node", "condition=Ready")?;
        say(&Progress::Step("nodes Ready".into()))?;
        Ok(())
    }

    /// Until the object of every node is so; else the component of the node that is not is to blame.
    fn wait_for_nodes(&self, component: &str, kind: &str, condition: &str) -> Result<(), Failure> {
        let condition = format!("--for={condition}");
        let objects: Vec<String> = self.nodes().map(|node| format!("{kind}/{}", node.name())).collect();
        let arguments: Vec<&str> =
            ["wait", WAIT, &condition].into_iter().chain(objects.iter().map(String::as_str)).collect();
        self.kubectl(component, &arguments).map_err(|failure| {
            let missing = self.nodes().find(|node| failure.problem.lines().any(|line| line.ends_with(&node.name())));
            match (failure.component.as_deref(), missing) {
                (Some(name), Some(node)) if name == component => {
                    Failure { component: Some(format!("{component}-{}", node.0)), ..failure }
                }
                _ => failure,
            }
        })
    }

    fn storage(&self) -> Result<(), Failure> {
        let (supervisor, programs) = (self.supervisor, self.supervisor.programs());
        let classes = "customresourcedefinition/volumesnapshotclasses.snapshot.storage.k8s.io";
        self.kubectl("apiserver", &["wait", WAIT, "--for=condition=Established", classes])?;
        self.kubectl("apiserver", &["create", "--validate=false", "-f", &format!("{INSIDE}/snapshots.yaml")])?;
        let socket = Path::new(INSIDE).join("csi.sock");
        self.wait("csi-controller", "it does not open its socket", || Ok(socket.exists()))?;
        for sidecar in programs.csi_sidecars() {
            supervisor.begin(sidecar)?;
        }
        self.wait("coredns", "it does not get ready", || Ok(answers(8181, "/ready")))?;
        self.wait_for_nodes("csi", "csinode", &format!("jsonpath={{.spec.drivers[0].name}}={DRIVER}"))?;
        self.kubectl("controller-manager", &["wait", WAIT, "--for=create", "serviceaccount/default"])?;
        say(&Progress::Step("volumes and DNS".into()))?;
        Ok(())
    }

    fn write_files(&self) -> Result<(), Failure> {
        certificates::write(Path::new(&format!("{INSIDE}/certificates")), self.supervisor.nodes)?;
        write(&format!("{INSIDE}/Corefile"), &config::corefile())?;
        write(&format!("{INSIDE}/objects.yaml"), include_str!("objects.yaml"))?;
        write(&format!("{INSIDE}/snapshots.yaml"), include_str!("snapshots.yaml"))?;
        fs::copy(kubeconfig("admin"), format!("{INSIDE}/kubeconfig")).context("cannot write the kubeconfig")?;
        for node in Node::all(self.supervisor.nodes) {
            let folder = node.inside();
            write(&format!("{folder}/containerd.toml"), &config::containerd(node))?;
            write(&format!("{folder}/cni/10-pods.conflist"), &config::cni(node))?;
            write(&format!("{folder}/kubelet.yaml"), &config::kubelet(node, &self.supervisor.cluster.cgroup()))?;
        }
        Ok(())
    }

    /// Every image of the cache, on all nodes at once. A node unpacks an image when it first runs it.
    fn import_images(&self) -> Result<(), Failure> {
        let folder = self.supervisor.bin.with_file_name("images");
        let mut images: Vec<_> = fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}: there are no images", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
            .collect();
        images.sort();
        let images = &images;
        thread::scope(|scope| {
            let imports: Vec<_> =
                self.nodes().map(|node| (node, scope.spawn(move || self.import(node, images)))).collect();
            imports.into_iter().try_for_each(|(node, import)| {
                let panicked = |_| Err(anyhow::anyhow!("importing images on {} panicked", node.name()).into());
                import.join().unwrap_or_else(panicked)
            })
        })
    }

    fn import(&self, node: Node, images: &[PathBuf]) -> Result<(), Failure> {
        self.wait_for_containerd(node)?;
        for image in images {
            command::output(
                Supervisor::command(Place::Node(node), "ctr")
                    .args(["--namespace", "k8s.io", "images", "import", "--no-unpack"])
                    .arg(image),
            )
            .map_err(|error| Failure {
                component: Some(format!("containerd-{}", node.0)),
                problem: format!("{} cannot be imported: {error:#}", image.display()),
            })?;
        }
        Ok(())
    }

    fn wait_for_containerd(&self, node: Node) -> Result<(), Failure> {
        let name = format!("containerd-{}", node.0);
        self.wait(&name, "it does not open its socket", || self.has_socket(node))
    }

    /// Whether containerd of a node accepts requests.
    fn has_socket(&self, node: Node) -> Result<bool, Failure> {
        let process = self.supervisor.process(&format!("containerd-{}", node.0));
        Ok(process.is_some_and(|id| Path::new(&format!("/proc/{id}/root/run/containerd/containerd.sock")).exists()))
    }

    fn api_is_ready(&self) -> Result<bool, Failure> {
        let address = SocketAddr::from(([10, 77, 0, 1], 6443));
        if TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err() {
            return Ok(false);
        }
        let status = self
            .kubectl_command(&["get", "--raw=/readyz"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot start kubectl")?;
        Ok(status.success())
    }

    fn kubectl_command(&self, arguments: &[&str]) -> std::process::Command {
        let program = self.supervisor.bin.join("kubectl");
        let mut command = Supervisor::command(Place::Control, &program.to_string_lossy());
        command.env("KUBECONFIG", format!("{INSIDE}/kubeconfig")).env("KUBECACHEDIR", format!("{INSIDE}/kubectl"));
        command.args(arguments);
        command
    }

    /// Runs kubectl to its end; when it fails or takes too long, `component` is to blame.
    fn kubectl(&self, component: &str, arguments: &[&str]) -> Result<(), Failure> {
        let log = self.supervisor.cluster.log("kubectl");
        let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut child = self
            .kubectl_command(arguments)
            .arg(format!("--request-timeout={}s", PATIENCE.as_secs()))
            .stdout(output.try_clone().context("cannot share a log")?)
            .stderr(output)
            .spawn()
            .context("cannot start kubectl")?;
        let mut status = None;
        let waited = self.wait(component, &format!("`kubectl {}` does not end", arguments.join(" ")), || {
            status = child.try_wait().context("cannot wait for kubectl")?;
            Ok(status.is_some())
        });
        if waited.is_err() {
            let _gone = child.kill();
            let _reaped = child.wait();
            return waited;
        }
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let said = tail(fs::read_to_string(&log).unwrap_or_default().trim_end(), 5);
        let problem = format!("`kubectl {}` failed: {said}", arguments.join(" "));
        Err(Failure { component: Some(component.to_owned()), problem })
    }

    /// Until `ready`; fails when any component ends meanwhile, and with `problem` of `component` when it takes too
    /// long.
    fn wait(
        &self,
        component: &str,
        problem: &str,
        mut ready: impl FnMut() -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((name, status)) = self.supervisor.fallen() {
                return Err(Failure { component: Some(name), problem: format!("it has ended: {status}") });
            }
            if ready()? {
                return Ok(());
            }
            if Instant::now() > deadline {
                let problem = format!("{problem} within {} s", PATIENCE.as_secs());
                return Err(Failure { component: Some(component.to_owned()), problem });
            }
            thread::sleep(LOOK);
        }
    }
}

/// Whether a plain HTTP server of the control plane answers a path with 200.
fn answers(port: u16, path: &str) -> bool {
    let ask = || -> io::Result<bool> {
        let address = SocketAddr::from(([10, 77, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {CONTROL_ADDRESS}\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {path}"))
}
