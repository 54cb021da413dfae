//! The engine with real files: killed at any moment, run against itself and against restic, given bad bytes and bad
//! storage. What it says it did must be true, and the repository whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests fail loudly")]

#[path = "../../../repository/tests/oracle/mod.rs"]
mod oracle;

mod concurrency;
mod damage;
mod faults;
mod fidelity;
mod formats;
mod kill;
mod look;
mod worker;

use std::path::Path;
use std::sync::{Arc, Mutex};

use holdfast_repository::backup::{BackupOptions, BackupReport, backup};
use holdfast_repository::check::{CheckOptions, CheckReport, ReadData, check};
use holdfast_repository::format::snapshot::SnapshotFilter;
use holdfast_repository::prune::{MaxUnused, PruneOptions};
use holdfast_repository::restore::{RestoreOptions, RestoreReport, restore};
use holdfast_repository::snapshots::select;
use holdfast_repository::{Event, Monitor, Repository, Result};
use holdfast_sources::{FileTree, FileTreeOptions, Root};

/// The directory as a source, under its own path.
fn tree(dir: &Path) -> FileTree {
    let roots = vec![Root::at(dir).unwrap()];
    FileTree::new(FileTreeOptions { roots, ..FileTreeOptions::default() }).unwrap()
}

/// Backs a directory up, with all defaults.
fn save(repository: &Arc<Repository>, dir: &Path) -> Result<BackupReport> {
    backup(repository, &tree(dir), &BackupOptions::new(), &Monitor::default())
}

/// As [`save`], and nothing may be missing; gives the snapshot's id.
#[track_caller]
fn save_all(repository: &Arc<Repository>, dir: &Path) -> (String, BackupReport) {
    let report = save(repository, dir).unwrap();
    assert_eq!(report.errors, 0);
    (report.snapshot.unwrap().to_string(), report)
}

/// Restores the folder `dir` of a snapshot into `target`.
fn bring_back(
    repository: &Arc<Repository>,
    snapshot: &str,
    dir: &Path,
    target: &Path,
    monitor: &Monitor,
) -> Result<RestoreReport> {
    let folder = format!("{snapshot}:{}", dir.display());
    let tree = select(repository, &folder, &SnapshotFilter::default())?.tree;
    restore(repository, &tree, &RestoreOptions::new(target), monitor)
}

/// As [`bring_back`], and nothing may be missing.
#[track_caller]
fn bring_back_all(repository: &Arc<Repository>, snapshot: &str, dir: &Path, target: &Path) -> RestoreReport {
    let (monitor, errors) = errors();
    let report = bring_back(repository, snapshot, dir, target, &monitor).unwrap();
    assert_eq!(report.errors, 0, "{:?}", errors.lock().unwrap());
    report
}

/// Our own check of the repository.
fn examine(repository: &Arc<Repository>, read_data: ReadData) -> Result<CheckReport> {
    check(repository, &CheckOptions { read_data, ..CheckOptions::default() }, &Monitor::default())
}

#[track_caller]
fn assert_whole(repository: &Arc<Repository>, read_data: ReadData) {
    let report = examine(repository, read_data).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// A prune that leaves nothing that is not needed.
fn prune_all() -> PruneOptions {
    PruneOptions { max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

/// A monitor, and the errors that it is told of.
fn errors() -> (Monitor, Arc<Mutex<Vec<String>>>) {
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&errors);
    let listener = move |event| {
        if let Event::Error { item, message } = event {
            told.lock().unwrap().push(format!("{item}: {message}"));
        }
    };
    (Monitor::new(listener, false), errors)
}

/// Numbers that follow from a seed (SplitMix64).
struct Random(u64);

impl Random {
    /// Seeded by `HOLDFAST_SEED`, or else by the clock; the seed is printed, so that a failure can be had again.
    fn new(test: &str) -> Self {
        let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = std::env::var("HOLDFAST_SEED").map_or_else(|_| clock(), |seed| seed.parse().unwrap());
        eprintln!("{test}: HOLDFAST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number from 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
