//! A repository, a folder to back up, the program under test and restic.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_repository::{InitOptions, OpenOptions, Repository};
use holdfast_store::LocalStore;
use serde_json::Value;
use tempfile::TempDir;

use crate::servers::{noise, tool};

pub(crate) const PASSWORD: &str = "correct horse";
/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
}

impl Bench {
    /// A folder with some of everything, and no repository yet.
    pub(crate) fn bare() -> Self {
        let bench = Self { dir: TempDir::new().unwrap() };
        let data = bench.data();
        std::fs::create_dir_all(data.join("folder/deep")).unwrap();
        std::fs::create_dir(data.join("empty")).unwrap();
        std::fs::write(data.join("large"), noise(1, 3_000_000)).unwrap();
        std::fs::write(data.join("folder/text"), "some words\n".repeat(1000)).unwrap();
        std::fs::write(data.join("folder/deep/nothing"), "").unwrap();
        std::fs::write(data.join("folder/deep/ü name"), "x").unwrap();
        symlink("folder/text", data.join("link")).unwrap();
        bench
    }

    /// The same with a repository of that format version, whose password check takes no time.
    pub(crate) fn new(version: u32) -> Self {
        let bench = Self::bare();
        init(&bench.repository(), version);
        bench
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// The program under test, with the repository and the password in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        self.set_up(&mut command);
        command.arg("repo").args(args);
        command
    }

    pub(crate) fn restic_command(&self, args: &[&str]) -> Command {
        let binary = tool("restic");
        let mut command = Command::new(binary);
        self.set_up(&mut command);
        command.arg("--no-cache").args(args);
        command
    }

    fn set_up(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["RESTIC_", "HOLDFAST_", "AWS_", "GOOGLE_", "STORAGE_EMULATOR_HOST"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(&*name);
            }
        }
        command.env("TZ", "UTC").env("RESTIC_PASSWORD", PASSWORD).env("RESTIC_REPOSITORY", self.repository());
        command.current_dir(self.dir.path()).stdin(Stdio::null());
    }

    /// Runs the program under test.
    pub(crate) fn holdfast(&self, args: &[&str]) -> Run {
        Run::of("holdfast", args, self.command(args))
    }

    pub(crate) fn restic(&self, args: &[&str]) -> Run {
        Run::of("restic", args, self.restic_command(args))
    }

    /// Backs up the folder with the program under test; the snapshot's id.
    #[track_caller]
    pub(crate) fn backup(&self, args: &[&str]) -> String {
        let data = self.data();
        let run = self.holdfast(&[&["backup", "--json", data.to_str().unwrap()], args].concat());
        run.succeeded().json()["snapshot_id"].as_str().unwrap().to_owned()
    }

    /// Backs up the folder with restic; the snapshot's id.
    #[track_caller]
    pub(crate) fn restic_backup(&self, args: &[&str]) -> String {
        let data = self.data();
        let run = self.restic(&[&["backup", "--json", "--quiet", data.to_str().unwrap()], args].concat());
        run.succeeded().json_lines().last().unwrap()["snapshot_id"].as_str().unwrap().to_owned()
    }

    /// Fails unless restic finds the repository whole, every byte of it.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        self.restic(&["check", "--read-data"]).succeeded();
    }

    /// The files of a kind in the repository; not those that are being written under another name.
    pub(crate) fn files(&self, kind: &str) -> Vec<PathBuf> {
        let is_done = |path: &PathBuf| path.is_dir() || path.file_name().unwrap().len() == 64;
        match std::fs::read_dir(self.repository().join(kind)) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).filter(is_done).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// The folder's own tree in a snapshot, as it is stored: those above it change with everything that others do there.
    #[track_caller]
    pub(crate) fn tree(&self, snapshot: &str) -> String {
        let folder = format!("{snapshot}:{}", self.data().display());
        self.restic(&["--quiet", "cat", "tree", &folder]).succeeded().stdout
    }

    /// Starts `command`, which backs up its standard input, and waits until it has locked the repository.
    #[track_caller]
    pub(crate) fn start_locked(&self, mut command: Command) -> Child {
        let before = self.files("locks").len();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the repository is locked", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it locked");
            self.files("locks").len() > before
        });
        child
    }
}

/// Makes a repository whose password check takes no time.
pub(crate) fn init(path: &Path, version: u32) {
    let store = Arc::new(LocalStore::create(path).unwrap());
    let init = InitOptions {
        version,
        kdf_target: Duration::from_millis(1),
        kdf_memory_bytes: 1 << 20,
        ..InitOptions::default()
    };
    Repository::init(store, PASSWORD, &init, OpenOptions::default()).unwrap();
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a program printed, and how it ended.
pub(crate) struct Run {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(program: &str, args: &[&str], mut command: Command) -> Self {
        Self::from_output(format!("{program} {}", args.join(" ")), command.output().expect("it starts"))
    }

    pub(crate) fn from_output(what: String, output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { what, code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        let Self { what, code: actual, stdout, stderr } = &self;
        assert_eq!(*actual, Some(code), "{what}\nstdout: {stdout}\nstderr: {stderr}");
        self
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        self.ended(0)
    }

    /// Fails unless standard error holds all of this.
    #[track_caller]
    pub(crate) fn said(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{}\nlacks {text:?}:\n{}", self.what, self.stderr);
        }
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{}: {error}: {}", self.what, self.stdout))
    }

    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// What a restore must bring back of an entry.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Restored {
    path: PathBuf,
    mode: u32,
    uid: u32,
    mtime: (i64, i64),
    /// Of a file its bytes, of a link its target.
    content: Vec<u8>,
}

/// All that is below a folder, sorted.
fn contents(folder: &Path) -> Vec<Restored> {
    fn visit(root: &Path, folder: &Path, found: &mut Vec<Restored>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if metadata.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            found.push(Restored {
                path: path.strip_prefix(root).unwrap().to_owned(),
                mode: metadata.mode(),
                uid: metadata.uid(),
                mtime: (metadata.mtime(), metadata.mtime_nsec()),
                content,
            });
            if metadata.is_dir() {
                visit(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    visit(folder, folder, &mut found);
    found.sort();
    found
}

/// Fails unless both folders hold the same.
#[track_caller]
pub(crate) fn assert_same(folder: &Path, other: &Path) {
    let (left, right) = (contents(folder), contents(other));
    let names = |list: &[Restored]| list.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&left), names(&right));
    for (left, right) in left.iter().zip(&right) {
        assert!(left == right, "{} differs", left.path.display());
    }
}

/// Where a snapshot of the whole path lies below a restore's target.
pub(crate) fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap())
}
