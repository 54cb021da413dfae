//! The stock restic binary, as the judge of what we write and the author of what we read.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "../../../../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

pub use common::noise;
use common::tool;
use holdfast_repository::{InitOptions, OpenOptions, Repository};
use holdfast_store::LocalStore;
use tempfile::TempDir;

pub const PASSWORD: &str = "correct horse";

/// A repository on disk, a folder to back up, and restic.
pub struct Bench {
    pub dir: TempDir,
}

impl Bench {
    /// A repository of that format version whose password check takes no time.
    pub fn new(version: u32) -> Self {
        let bench = Self { dir: TempDir::new().unwrap() };
        std::fs::create_dir(bench.data()).unwrap();
        let store = Arc::new(LocalStore::create(bench.repository_path()).unwrap());
        let init = InitOptions {
            version,
            kdf_target: Duration::from_millis(1),
            kdf_memory_bytes: 1 << 20,
            ..InitOptions::default()
        };
        Repository::init(store, PASSWORD, &init, OpenOptions::default()).unwrap();
        bench
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn repository_path(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    pub fn store(&self) -> LocalStore {
        LocalStore::open(self.repository_path()).unwrap()
    }

    pub fn open(&self) -> Arc<Repository> {
        self.open_with(OpenOptions::default())
    }

    pub fn open_with(&self, options: OpenOptions) -> Arc<Repository> {
        Arc::new(Repository::open(Arc::new(self.store()), PASSWORD, options).unwrap())
    }

    pub fn restic(&self, args: &[&str]) -> Output {
        restic(&self.repository_path(), args)
    }

    /// Runs restic, which must succeed, and gives its output.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        succeeded(args, self.restic(args))
    }

    /// Backs the folder up with restic, and gives the snapshot's id.
    #[track_caller]
    pub fn backup(&self, args: &[&str]) -> String {
        let data = self.data();
        let mut all = vec!["backup", "--json", "--quiet"];
        all.extend(args);
        all.push(data.to_str().unwrap());
        let output = self.run(&all);
        let summary = output.lines().last().unwrap();
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
        summary["snapshot_id"].as_str().unwrap().to_owned()
    }

    /// Fails unless restic finds the repository whole, every byte of it.
    #[track_caller]
    pub fn assert_clean(&self) {
        let output = self.restic(&["check", "--read-data"]);
        assert!(output.status.success(), "restic check: {}", text(&output));
    }

    /// What restic restores from a snapshot: each file's path and content, in order.
    #[track_caller]
    pub fn restored(&self, snapshot: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let target = TempDir::new().unwrap();
        self.run(&["restore", snapshot, "--target", target.path().to_str().unwrap()]);
        let mut files = Vec::new();
        read_files(target.path(), target.path(), &mut files);
        files.sort();
        files
    }

    /// The ids of the snapshots that restic lists.
    pub fn snapshots(&self) -> Vec<String> {
        let list: serde_json::Value = serde_json::from_str(&self.run(&["snapshots", "--json"])).unwrap();
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter().map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Writes a file of `bytes` bytes that compress badly and follow from `seed`.
    pub fn write(&self, name: &str, seed: u64, bytes: usize) {
        let path = self.data().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, noise(seed, bytes)).unwrap();
    }
}

pub fn restic(repository: &Path, args: &[&str]) -> Output {
    command(repository).args(args).output().expect("restic starts")
}

/// restic on a repository, with its password.
pub fn command(repository: &Path) -> Command {
    let mut command = Command::new(tool("restic"));
    command.env_remove("RESTIC_HOST").env("TZ", "UTC").env("RESTIC_PASSWORD", PASSWORD);
    command.arg("--no-cache").arg("-r").arg(repository);
    command
}

#[track_caller]
pub fn succeeded(args: &[&str], output: Output) -> String {
    assert!(output.status.success(), "restic {args:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub fn text(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn read_files(root: &Path, dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_files(root, &path, files);
        } else {
            files.push((path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap()));
        }
    }
}

/// Copies a directory and all below it.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
