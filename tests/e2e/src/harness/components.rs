//! Faults of the cluster itself: its components stopped, killed and started again, its nodes cut off. They disturb every
//! test, so only one that is alone may make them; what is down comes up again when the test ends, however it ends.

use std::process::Command;
use std::time::{Duration, Instant};

use super::Alone;

/// How long the cluster may take to be itself again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A component that is down until this is dropped.
pub(crate) struct Stopped<'a> {
    component: &'a str,
}

/// A node without a network until this is dropped.
pub(crate) struct Cut<'a> {
    node: &'a str,
}

impl Alone {
    /// Ends a component (`apiserver`, `etcd`, `kubelet-1` …: `cargo xtask cluster status` lists them) by SIGKILL, and
    /// starts it again at once.
    pub(crate) fn restart(&self, component: &str) {
        drop(self.stop(component));
    }

    /// Ends a component by SIGKILL and leaves it so.
    pub(crate) fn stop<'a>(&'a self, component: &'a str) -> Stopped<'a> {
        cluster(&["stop", "--kill"], component);
        Stopped { component }
    }

    /// Takes a node's network away: what runs there goes on and reaches nobody.
    pub(crate) fn cut<'a>(&'a self, node: &'a str) -> Cut<'a> {
        run(Command::new("ip").args(["link", "set", node, "down"]));
        Cut { node }
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        cluster(&["start"], self.component);
        ready();
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        run(Command::new("ip").args(["link", "set", self.node, "up"]));
    }
}

/// Waits until the API server says that it can work.
fn ready() {
    let start = Instant::now();
    let mut ask = Command::new("kubectl");
    ask.args(["get", "--raw=/readyz", "--request-timeout=5s"]);
    loop {
        let output = ask.output().expect("kubectl, which `cargo xtask cluster exec` puts on PATH");
        if output.status.success() {
            return;
        }
        if start.elapsed() > PATIENCE {
            println!("the API server is not ready: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn cluster(task: &[&str], component: &str) {
    let variable = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests by `cargo xtask test e2e`"))
    };
    let (xtask, name) = (variable("E2E_XTASK"), variable("E2E_CLUSTER"));
    run(Command::new(xtask).arg("cluster").args(task).args(["--name", &name, component]));
}

/// A failure is told and does not panic: this also runs while a test fails.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => {}
        false if std::thread::panicking() => println!("{command:?}: {}: {said}", output.status),
        false => panic!("{command:?}: {}: {said}", output.status),
    }
}
