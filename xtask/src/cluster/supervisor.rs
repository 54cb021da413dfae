//! The process that runs a cluster from the inside: starts the components, starts again what dies, and does what it is
//! asked over its socket. The first process of the cluster's PID namespace is its parent, which does nothing but take
//! in orphans: when either ends, by whatever cause, the kernel ends all the others.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use super::components::{Component, Place, Programs};
use super::control::{Answer, Request, State};
use super::layout::{Cluster, INSIDE};
use super::{namespaces, start};

/// The environment of every component. The caller's is not theirs: there may be proxies in it.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often it looks whether something died.
const LOOK: Duration = Duration::from_millis(50);
/// How long before what died is started again, the first time; doubles up to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_LONGEST: Duration = Duration::from_secs(10);
/// How long a component may take to end when asked to, before it is killed. The API server would take a minute.
const ENDING: Duration = Duration::from_secs(5);

pub(super) struct Supervisor {
    pub(super) cluster: Cluster,
    pub(super) nodes: u8,
    pub(super) bin: PathBuf,
    table: Mutex<Table>,
}

struct Table {
    entries: Vec<Entry>,
    /// Nothing is started again before the cluster is up: whatever dies then is why it cannot come up.
    up: bool,
}

struct Entry {
    component: Component,
    child: Option<Child>,
    /// Whether it is to run.
    wanted: bool,
    restarts: u32,
    started: Instant,
    ended: Option<(ExitStatus, Instant)>,
}

/// The first process of the PID namespace: notes its id as seen from outside, starts the supervisor, takes in orphans.
/// Returns when the supervisor has ended.
pub(super) fn init(cluster: &Cluster, mut supervisor: Command) -> Result<()> {
    // /proc is still the one of outside here.
    let id = fs::read_link("/proc/self").context("cannot read /proc/self")?;
    let file = cluster.path("init.pid");
    fs::write(&file, id.as_os_str().as_encoded_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    let child = supervisor.spawn().context("cannot start the supervisor")?;
    // The pipe to whoever started the cluster is the supervisor's alone.
    drop(supervisor);
    let id = Pid::from_child(&child);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, _))) if ended == id => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for processes"),
        }
    }
}

/// The supervisor: brings the cluster up, tells how it went on stdout, then keeps it up for as long as it lives.
pub(super) fn supervise(cluster: Cluster, nodes: u8, bin: PathBuf) -> Result<()> {
    let _mounts_of_nodes = namespaces::prepare(&cluster, nodes)?;
    let listener = UnixListener::bind(format!("{INSIDE}/control.sock")).context("cannot listen for commands")?;
    let table = Mutex::new(Table { entries: Vec::new(), up: false });
    let supervisor = Arc::new(Supervisor { cluster, nodes, bin, table });
    let listening = Arc::clone(&supervisor);
    thread::spawn(move || listening.listen(&listener));
    start::all(&supervisor)?;
    loop {
        supervisor.look();
        thread::sleep(LOOK);
    }
}

impl Supervisor {
    pub(super) fn programs(&self) -> Programs<'_> {
        Programs { bin: &self.bin }
    }

    /// Starts a new component.
    pub(super) fn begin(&self, component: Component) -> Result<()> {
        let child = self.spawn(&component)?;
        let entry =
            Entry { component, child: Some(child), wanted: true, restarts: 0, started: Instant::now(), ended: None };
        self.table().entries.push(entry);
        Ok(())
    }

    /// From now on what dies is started again.
    pub(super) fn is_up(&self) {
        self.table().up = true;
    }

    /// The first component that has ended although nobody asked it to, and how.
    pub(super) fn fallen(&self) -> Option<(String, ExitStatus)> {
        self.look();
        self.table()
            .entries
            .iter()
            .find(|entry| entry.wanted && entry.child.is_none())
            .and_then(|entry| Some((entry.component.name.clone(), entry.ended?.0)))
    }

    /// The process of a component, as seen from inside.
    pub(super) fn process(&self, name: &str) -> Option<u32> {
        self.table().entries.iter().find(|entry| entry.component.name == name)?.child.as_ref().map(Child::id)
    }

    /// A command of a node or of the control plane, with the environment of components.
    pub(super) fn command(place: Place, program: &str) -> Command {
        let mut command = match place {
            Place::Control => Command::new(program),
            Place::Node(node) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", node.network())).arg(format!("--mount={}", node.mounts()));
                command.arg("--").arg(program);
                command
            }
        };
        command.env_clear().env("PATH", PATH).env("HOME", INSIDE).current_dir("/").stdin(Stdio::null());
        command
    }

    fn spawn(&self, component: &Component) -> Result<Child> {
        let path = self.cluster.log(&component.name);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot open {}", path.display()))?;
        Self::command(component.place, &component.program)
            .args(&component.arguments)
            .stdout(log.try_clone().context("cannot share a log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", component.name))
    }

    /// Notes what has ended and starts it again when its time has come.
    fn look(&self) {
        let mut table = self.table();
        let up = table.up;
        for entry in &mut table.entries {
            if let Some(status) = entry.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                entry.child = None;
                entry.ended = Some((status, Instant::now()));
                eprintln!("{} has ended: {status}", entry.component.name);
            }
            let waits = entry.ended.is_some_and(|(_, when)| when.elapsed() < pause(entry.restarts));
            if up && entry.wanted && entry.child.is_none() && !waits {
                entry.restarts += 1;
                match self.spawn(&entry.component) {
                    Ok(child) => entry.child = Some(child),
                    Err(error) => eprintln!("{error:#}"),
                }
                entry.started = Instant::now();
            }
        }
    }

    fn listen(&self, listener: &UnixListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let mut line = String::new();
            if BufReader::new(&stream).read_line(&mut line).is_err() {
                continue;
            }
            let answer = match serde_json::from_str(&line) {
                Ok(request) => self.answer(&request).map_err(|error| format!("{error:#}")),
                Err(error) => Err(format!("not a request: {error}")),
            };
            let text = serde_json::to_string(&answer).unwrap_or_default();
            // Who asked may have gone.
            let _gone = (&stream).write_all(format!("{text}\n").as_bytes());
        }
    }

    fn answer(&self, request: &Request) -> Result<Answer> {
        match request {
            Request::Stop { component, kill } => self.stop(component, *kill)?,
            Request::Start { component } => self.start(component)?,
            Request::Tell => {}
        }
        let table = self.table();
        let components = table.entries.iter().map(|entry| State {
            name: entry.component.name.clone(),
            process: entry.child.as_ref().map(Child::id),
            wanted: entry.wanted,
            restarts: entry.restarts,
        });
        Ok(Answer { up: table.up, nodes: self.nodes, components: components.collect() })
    }

    /// Ends a component and leaves it so. Its process is asked to end, once (a second time would mean: at once), and
    /// killed when that takes too long.
    fn stop(&self, name: &str, kill: bool) -> Result<()> {
        let process = {
            let mut table = self.table();
            let entry = table.find(name)?;
            entry.wanted = false;
            entry.child.as_ref().map(Pid::from_child)
        };
        let Some(process) = process else { return Ok(()) };
        if !kill && self.signal(name, process, Signal::TERM)? {
            let deadline = Instant::now() + ENDING;
            while Instant::now() < deadline && self.runs(name, process)? {
                thread::sleep(LOOK);
            }
        }
        self.signal(name, process, Signal::KILL)?;
        while self.runs(name, process)? {
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether the component's process is still this one.
    fn runs(&self, name: &str, process: Pid) -> Result<bool> {
        self.look();
        Ok(self.table().find(name)?.child.as_ref().map(Pid::from_child) == Some(process))
    }

    /// Signals the component's process, unless it has ended; says whether it did.
    fn signal(&self, name: &str, process: Pid, signal: Signal) -> Result<bool> {
        let mut table = self.table();
        // A process is reaped under the same lock, so the id is still its own.
        if table.find(name)?.child.as_ref().map(Pid::from_child) != Some(process) {
            return Ok(false);
        }
        kill_process(process, signal).with_context(|| format!("cannot end {name}"))?;
        Ok(true)
    }

    fn start(&self, name: &str) -> Result<()> {
        let mut table = self.table();
        let entry = table.find(name)?;
        entry.wanted = true;
        if entry.child.is_none() {
            entry.child = Some(self.spawn(&entry.component)?);
            entry.started = Instant::now();
            entry.restarts = 0;
        }
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn find(&mut self, name: &str) -> Result<&mut Entry> {
        let names: Vec<String> = self.entries.iter().map(|entry| entry.component.name.clone()).collect();
        match self.entries.iter_mut().find(|entry| entry.component.name == name) {
            Some(entry) => Ok(entry),
            None => bail!("there is no component `{name}`; there are {}", names.join(", ")),
        }
    }
}

/// How long something stays down that has been started again `restarts` times.
fn pause(restarts: u32) -> Duration {
    AGAIN.saturating_mul(1 << restarts.min(8)).min(AGAIN_LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dies_again_and_again_is_started_ever_later() {
        assert_eq!([0, 1, 2, 9].map(|restarts| pause(restarts).as_secs()), [1, 2, 4, 10]);
        assert_eq!(pause(u32::MAX), AGAIN_LONGEST);
    }
}
