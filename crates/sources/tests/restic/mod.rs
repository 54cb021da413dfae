//! restic itself, as the judge of what we read.

#[path = "../../../../tests/common/mod.rs"]
mod common;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use common::tool;

/// A repository of restic's in a folder of its own.
pub(crate) struct Restic {
    folder: tempfile::TempDir,
}

impl Restic {
    /// Makes a new repository.
    pub(crate) fn new() -> Self {
        let restic = Self { folder: tempfile::tempdir().unwrap() };
        restic.run(["init"]);
        restic
    }

    /// The id of the root tree that restic makes of `arguments` (options and paths).
    pub(crate) fn backup<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        self.backup_in(Path::new("."), arguments)
    }

    /// The same, where paths are relative to a folder.
    pub(crate) fn backup_in<A: AsRef<OsStr>>(&self, folder: &Path, arguments: impl IntoIterator<Item = A>) -> String {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        let all = ["backup", "--json", "--force"].map(Into::into).into_iter().chain(arguments);
        let said = self.run_in(folder, all);
        let summary: serde_json::Value =
            serde_json::from_slice(said.split(|&b| b == b'\n').rev().nth(1).unwrap()).unwrap();
        let snapshot = self.run(["cat", "snapshot", summary["snapshot_id"].as_str().unwrap()]);
        let snapshot: serde_json::Value = serde_json::from_slice(&snapshot).unwrap();
        snapshot["tree"].as_str().unwrap().to_owned()
    }

    /// A tree blob.
    pub(crate) fn tree(&self, id: &str) -> Vec<u8> {
        self.run(["cat", "blob", id])
    }

    /// What restic prints; it must succeed.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Vec<u8> {
        self.run_in(Path::new("."), arguments)
    }

    fn run_in<A: AsRef<OsStr>>(&self, folder: &Path, arguments: impl IntoIterator<Item = A>) -> Vec<u8> {
        let Output { status, stdout, stderr } = Command::new(tool("restic"))
            .current_dir(folder)
            .args(arguments)
            .arg("--no-cache")
            .env("RESTIC_REPOSITORY", self.folder.path())
            .env("RESTIC_PASSWORD", "oracle")
            .env("TMPDIR", self.folder.path())
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(status.success(), "restic: {status}: {}", String::from_utf8_lossy(&stderr));
        stdout
    }
}
