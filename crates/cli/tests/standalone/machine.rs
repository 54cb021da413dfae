//! A machine of its own for each test: a folder, the program in it, and what it left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::servers::tool;

/// The password of every repository of these tests.
pub(crate) const PASSWORD: &str = "correct horse";
/// How long anything is waited for that should come soon.
const SOON: Duration = Duration::from_secs(60);

/// A temporary folder with manifests in `m`.
pub(crate) struct Machine {
    folder: TempDir,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Both outputs, for a message or a search.
    pub(crate) fn text(&self) -> String {
        format!("exit {}\n{}{}", self.code, self.stdout, self.stderr)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text());
        self
    }

    /// Says all of `words` on one line.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        let said = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(self.text().lines().any(said), "no line with {words:?} in:\n{}", self.text());
        self
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("m")).unwrap();
        Self { folder }
    }

    /// A machine whose folder of manifests holds one file.
    pub(crate) fn with(manifests: &[String]) -> Self {
        let machine = Self::new();
        machine.manifests("all.yaml", manifests);
        machine
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file, whole at once, and the folders above it.
    pub(crate) fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        fs::write(&new, contents).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Writes a file of the folder of manifests.
    pub(crate) fn manifests(&self, file: &str, documents: &[String]) {
        self.write(&format!("m/{file}"), documents.join("---\n"));
    }

    /// `holdfast`, with nothing of this process's settings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["RESTIC_", "HOLDFAST_", "AWS_", "GOOGLE_", "STORAGE_EMULATOR_HOST"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        command.env("TZ", "UTC").current_dir(self.folder.path()).args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }

    /// `holdfast standalone m --once`.
    pub(crate) fn once(&self) -> Ran {
        self.run(&["standalone", "m", "--once"])
    }

    /// Starts `holdfast standalone m` as a service.
    pub(crate) fn start(&self) -> Service {
        Service::start(self.command(&["standalone", "m", "--listen", "127.0.0.1:0", "--output", "json"]))
    }

    /// A repository made by the program.
    pub(crate) fn restic(&self, repository: &str) -> Restic {
        Restic {
            repository: self.path(repository).display().to_string(),
            password: PASSWORD.to_owned(),
            env: Vec::new(),
        }
    }

    /// The event log, oldest first.
    pub(crate) fn events(&self) -> Vec<Value> {
        let log = self.read("m/.holdfast/events.jsonl");
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Name and reason of the events of an object, as `Kind namespace/name`.
    pub(crate) fn events_of(&self, object: &str) -> Vec<(String, String)> {
        let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
        let events = self.events();
        let of_it = events.iter().filter(|event| event["involvedObject"] == object);
        of_it.map(|event| (text(event, "name"), text(event, "reason"))).collect()
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.read("m/.holdfast/state.json")).unwrap()
    }

    /// Changes what is remembered.
    pub(crate) fn edit_state(&self, edit: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        edit(&mut state);
        self.write("m/.holdfast/state.json", serde_json::to_vec(&state).unwrap());
    }
}

pub(crate) fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // A signal as shells tell it.
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap());
    Ran { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Fails unless both folders hold the same, with all that belongs to a file.
#[track_caller]
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let mut command = Command::new("rsync");
    command.args(["-naHAXci", "--delete", "--numeric-ids"]).arg(one.join("")).arg(other.join(""));
    let ran = ran(command);
    assert!(
        ran.code == 0 && ran.stdout.is_empty(),
        "{} and {} differ:\n{}",
        one.display(),
        other.display(),
        ran.text()
    );
}

/// restic, the judge.
pub(crate) struct Restic {
    pub(crate) repository: String,
    pub(crate) password: String,
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Restic {
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new(tool("restic"));
        command
            .args(["--no-cache", "--quiet", "-r", &self.repository])
            .args(args)
            .env("RESTIC_PASSWORD", &self.password);
        command.env("TZ", "UTC").envs(self.env.iter().map(|(name, value)| (name, value)));
        ran(command).succeeded().stdout
    }

    /// The snapshots, oldest first.
    #[track_caller]
    pub(crate) fn snapshots(&self) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.run(&["snapshots", "--json"])).unwrap();
        list.as_array().unwrap().clone()
    }

    /// Nothing is wrong with it, byte by byte, and nobody holds a lock.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.run(&["list", "locks"]), "", "a lock is left");
        self.run(&["check", "--read-data"]);
    }

    /// Fails unless the latest snapshot's `path` restores to what `folder` holds.
    #[track_caller]
    pub(crate) fn assert_holds(&self, path: &str, folder: &Path) {
        let target = tempfile::tempdir().unwrap();
        // The snapshot as a whole: restic sets nothing on a target itself.
        self.run(&["restore", "latest", "--target", target.path().to_str().unwrap()]);
        assert_same(folder, &target.path().join(path.trim_start_matches('/')));
    }
}

/// A running `holdfast standalone`; killed when dropped.
pub(crate) struct Service {
    process: Child,
    said: Arc<(Mutex<Vec<Value>>, Condvar)>,
    /// How many messages were read by [`Service::wait_for`].
    read: usize,
}

impl Service {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said: Arc<(Mutex<Vec<Value>>, Condvar)> = Arc::default();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).unwrap_or(Value::String(line));
                heard.0.lock().unwrap().push(message);
                heard.1.notify_all();
            }
        });
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                heard.0.lock().unwrap().push(Value::String(line));
                heard.1.notify_all();
            }
        });
        Self { process, said, read: 0 }
    }

    /// Waits for a message that was not yet waited for.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        let mut messages = self.said.0.lock().unwrap();
        loop {
            if let Some(at) = messages.iter().skip(self.read).position(&is_it) {
                self.read += at + 1;
                return messages[self.read - 1].clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come; there was: {messages:#?}");
            messages = self.said.1.wait_timeout(messages, left).unwrap().0;
        }
    }

    #[track_caller]
    pub(crate) fn wait_for_type(&mut self, kind: &str) -> Value {
        self.wait_for(kind, |message| message["messageType"] == kind)
    }

    /// Waits until a run of an object ends, and gives it.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, object: &str) -> Value {
        let ended = |message: &Value| message["messageType"] == "ended" && message["object"] == object;
        self.wait_for(&format!("the end of {object}"), ended)["run"].clone()
    }

    pub(crate) fn address(&mut self) -> SocketAddr {
        self.wait_for_type("serving")["address"].as_str().unwrap().parse().unwrap()
    }

    /// All that was said so far.
    pub(crate) fn said(&self) -> Vec<Value> {
        self.said.0.lock().unwrap().clone()
    }

    /// Stops it as a service manager does; gives how it ended, and after how long.
    pub(crate) fn stop(&mut self) -> (ExitStatus, Duration) {
        self.stop_by("TERM")
    }

    pub(crate) fn stop_by(&mut self, signal: &str) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        let status = self.process.wait().unwrap();
        (status, start.elapsed())
    }

    /// Stops it, with no trouble.
    #[track_caller]
    pub(crate) fn stops(&mut self) {
        let (status, took) = self.stop();
        assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}: {:#?}", self.said());
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Most have ended by now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Status and body of a page.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(20));
    }
}
