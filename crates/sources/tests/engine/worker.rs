//! This test program again, as a process of its own that does one operation, to be killed or stopped in it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use holdfast_repository::backup::{BackupOptions, backup};
use holdfast_repository::forget::{Count, ForgetOptions, KeepPolicy, forget};
use holdfast_repository::prune::prune;
use holdfast_repository::{Monitor, OpenOptions, Repository};
use holdfast_store::LocalStore;

use crate::oracle::PASSWORD;
use crate::{bring_back, prune_all, tree};

const ROLE: &str = "HOLDFAST_TEST_ROLE";
const DIR: &str = "HOLDFAST_TEST_DIR";
/// What a worker prints once it has opened the repository.
const READY: &str = "worker is ready";

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Backup,
    Forget,
    Prune,
    Restore,
}

impl Role {
    pub(crate) const ALL: [Self; 4] = [Self::Backup, Self::Forget, Self::Prune, Self::Restore];
}

/// A worker that is ready to start, or has started already.
pub(crate) struct Worker {
    pub(crate) process: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a process that works on `dir` as a [`crate::oracle::Bench`] lays it out: `data`, `repository`, and `target` for restores.
    pub(crate) fn start(role: Role, dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker::work", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{role:?}"))
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(READY) {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the worker ended before it began");
        }
        Self { process, _stdout: stdout }
    }

    /// Kills it; whether it was still at work.
    pub(crate) fn kill(mut self) -> bool {
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success() || status.code().is_none(), "the worker failed by itself: {status}");
        !status.success()
    }

    /// Waits for its success.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

/// The worker's side. Run as a test, it has no role and nothing to do.
#[test]
fn work() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = std::env::var_os(DIR).unwrap();
    let dir = Path::new(&dir);
    let store = Arc::new(LocalStore::open(dir.join("repository")).unwrap());
    let options = OpenOptions { pack_bytes: 4 << 20, ..OpenOptions::default() };
    let repository = Arc::new(Repository::open(store, PASSWORD, options).unwrap());
    let (data, monitor) = (dir.join("data"), Monitor::default());
    writeln!(std::io::stdout(), "{READY}").unwrap();
    match role.as_str() {
        "Backup" => assert_eq!(backup(&repository, &tree(&data), &BackupOptions::new(), &monitor).unwrap().errors, 0),
        "Forget" => assert_eq!(forget(&repository, &keep_two(), &monitor).unwrap().failed, 0),
        "Prune" => assert_eq!(prune(&repository, &prune_all(), &monitor).unwrap().failed_removals, 0),
        "Restore" => {
            let report = bring_back(&repository, "latest", &data, &dir.join("target"), &monitor).unwrap();
            assert_eq!(report.errors, 0);
        }
        other => panic!("no role {other}"),
    }
}

/// What the workers forget.
pub(crate) fn keep_two() -> ForgetOptions {
    ForgetOptions { policy: KeepPolicy { last: Count::Of(2), ..KeepPolicy::default() }, ..ForgetOptions::default() }
}
