//! Killed at random moments: the repository is clean, finished snapshots are there and whole, and the next run goes on.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_repository::check::ReadData;
use holdfast_repository::format::FileKind;
use holdfast_repository::format::snapshot::SnapshotFilter;
use holdfast_repository::snapshots::select;
use holdfast_repository::{Id, OpenOptions, Repository};
use tempfile::TempDir;

use crate::look::{Sight, assert_same, look};
use crate::oracle::{Bench, noise};
use crate::worker::{Role, Worker};
use crate::{Random, assert_whole, bring_back_all, save_all};

/// How often, unless `HOLDFAST_KILLS` says otherwise.
const KILLS: usize = 200;
/// Trials beside each other, each with a repository of its own: a trial waits for its workers most of the time.
const TRIALS: usize = 2;
/// restic looks at everything after every so many kills.
const ORACLE_EVERY: usize = 10;
const LARGE_FILES: u64 = 5;
const LARGE_BYTES: usize = 3_600_000;
const SMALL_FILES: u64 = 300;

struct Trial {
    bench: Bench,
    /// Opened once: checking a password takes longer than most of what is done here.
    repository: Arc<Repository>,
    random: Random,
    /// Every finished snapshot, with what it must restore to; oldest first.
    finished: Vec<(String, Sight)>,
    /// How long each operation takes when it is let alone.
    durations: [Duration; 4],
    kills: [usize; 4],
    /// How often each operation is to be killed.
    wanted: usize,
    /// Whether restic is to look at what the last kill has left.
    oracle_is_due: bool,
    resumed: usize,
}

#[test]
fn killed_at_any_moment() {
    let wanted: usize = std::env::var("HOLDFAST_KILLS").map_or(KILLS, |count| count.parse().unwrap());
    let begun = Instant::now();
    let resumed: usize = std::thread::scope(|scope| {
        let trial = |number| scope.spawn(move || Trial::new(number, wanted.div_ceil(TRIALS)).run());
        let trials: Vec<_> = (0..TRIALS).map(trial).collect();
        trials.into_iter().map(|trial| trial.join().unwrap_or_else(|panic| resume_unwind(panic))).sum()
    });
    assert!(resumed > 0 || wanted < 50, "no killed backup had written an index for the next");
    eprintln!("kill: {wanted} kills, {resumed} backups resumed, {:?}", begun.elapsed());
}

impl Trial {
    fn new(number: usize, kills: usize) -> Self {
        let bench = Bench::new(2);
        Self {
            repository: bench.open_with(OpenOptions { pack_bytes: 4 << 20, ..OpenOptions::default() }),
            bench,
            random: Random::new(&format!("kill {number}")),
            finished: Vec::new(),
            durations: [Duration::ZERO; 4],
            kills: [0; 4],
            wanted: kills.div_ceil(4),
            oracle_is_due: false,
            resumed: 0,
        }
    }

    /// Kills until each operation was killed often enough; how many backups found what a killed one had stored.
    fn run(mut self) -> usize {
        self.change_data(LARGE_FILES);
        self.backup();
        for role in Role::ALL {
            self.measure(role);
        }
        let mut rounds = 0;
        while Role::ALL.iter().any(|role| self.is_wanted(*role)) {
            rounds += 1;
            assert!(rounds <= 10 + 20 * self.wanted, "the workers end before they can be killed: {:?}", self.kills);
            self.kill_backup();
            self.kill_forget();
            self.kill_prune();
            self.kill_restore();
        }
        self.ask_restic();
        self.resumed
    }

    fn is_wanted(&self, role: Role) -> bool {
        self.kills[role as usize] < self.wanted
    }

    fn dir(&self) -> &Path {
        self.bench.dir.path()
    }

    /// So many large files are new, and some of the small ones.
    fn change_data(&mut self, large_files: u64) {
        for n in 0..large_files {
            self.bench.write(&format!("large-{n}"), self.random.next(), LARGE_BYTES);
        }
        for n in 0..SMALL_FILES {
            let name = format!("small/{}/{n}", n % 20);
            if !self.bench.data().join(&name).exists() || self.random.below(4) == 0 {
                let bytes = self.random.below(8_000) as usize;
                std::fs::write(self.path_of(&name), noise(self.random.next(), bytes)).unwrap();
            }
        }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        let path = self.bench.data().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// The repository as it is now.
    fn open(&self) -> Arc<Repository> {
        self.repository.refresh_index();
        Arc::clone(&self.repository)
    }

    /// A backup that is let alone; gives the bytes that it added.
    fn backup(&mut self) -> u64 {
        let (id, report) = save_all(&self.open(), &self.bench.data());
        self.finished.push((id, look(&self.bench.data())));
        report.summary.data_added
    }

    fn measure(&mut self, role: Role) {
        if role == Role::Forget {
            self.add_snapshots();
        }
        if role == Role::Backup {
            self.change_data(LARGE_FILES);
        }
        let worker = Worker::start(role, self.dir());
        let begun = Instant::now();
        worker.finish();
        self.durations[role as usize] = begun.elapsed();
        self.learn();
        let _ = std::fs::remove_dir_all(self.dir().join("target"));
    }

    /// Snapshots that cost nothing, for a forget to have some work.
    fn add_snapshots(&mut self) {
        let repository = self.open();
        for _ in 0..4 {
            let (id, _) = save_all(&repository, &self.bench.data());
            let sight = self.finished.last().unwrap().1.clone();
            self.finished.push((id, sight));
        }
    }

    /// Starts an operation and kills it after a random time, unless it was killed often enough.
    fn strike(&mut self, role: Role) {
        if !self.is_wanted(role) {
            return;
        }
        let delay = self.durations[role as usize].mul_f64(self.random.fraction());
        let worker = Worker::start(role, self.dir());
        // Not to wait for anything: the moment of the kill is what is tried.
        std::thread::sleep(delay);
        if worker.kill() {
            self.kills[role as usize] += 1;
            self.oracle_is_due = self.kills.iter().sum::<usize>().is_multiple_of(ORACLE_EVERY);
        }
        // Takes away the dead process's lock, too, as any next run does.
        assert_whole(&self.open(), ReadData::None);
        let locks = self.open().list(FileKind::Lock).unwrap();
        assert!(locks.is_empty(), "a dead process keeps its lock");
    }

    fn stored(&self) -> Vec<String> {
        self.open().list(FileKind::Snapshot).unwrap().iter().map(ToString::to_string).collect()
    }

    /// Takes in the snapshot that a backup wrote just before it was killed, and that one alone.
    fn learn(&mut self) {
        let stored = self.stored();
        let new: Vec<_> = stored.iter().filter(|id| self.finished.iter().all(|(known, _)| known != *id)).collect();
        assert!(new.len() <= 1, "{new:?}");
        for id in new {
            self.finished.push((id.clone(), look(&self.bench.data())));
        }
        self.finished.retain(|(id, _)| stored.contains(id));
    }

    #[track_caller]
    fn assert_all_there(&self) {
        let stored = self.stored();
        for (id, _) in &self.finished {
            assert!(stored.contains(id), "the finished snapshot {id} is gone");
        }
    }

    fn kill_backup(&mut self) {
        // Four packs of data are in the first index that a run writes: not each has so many.
        let large_files = if self.random.below(3) == 0 { LARGE_FILES } else { 2 };
        self.change_data(large_files);
        let indexes = self.open().list(FileKind::Index).unwrap().len();
        self.strike(Role::Backup);
        self.assert_all_there();
        self.learn();
        self.ask_restic_if_due();
        let has_new_index = self.open().list(FileKind::Index).unwrap().len() > indexes;
        let changed = large_files * LARGE_BYTES as u64;
        let added = self.backup();
        if has_new_index {
            self.resumed += 1;
            assert!(added < changed / 2, "{added} bytes were stored again of {changed}");
        }
    }

    fn kill_forget(&mut self) {
        self.add_snapshots();
        self.strike(Role::Forget);
        let stored = self.stored();
        for (id, _) in self.finished.iter().rev().take(2) {
            assert!(stored.contains(id), "snapshot {id} was to be kept");
        }
        self.learn();
        self.ask_restic_if_due();
        Worker::start(Role::Forget, self.dir()).finish();
        self.learn();
        assert_eq!(self.finished.len(), 2);
    }

    fn kill_prune(&mut self) {
        self.strike(Role::Prune);
        self.assert_all_there();
        self.ask_restic_if_due();
        Worker::start(Role::Prune, self.dir()).finish();
        assert_whole(&self.open(), ReadData::None);
        self.assert_all_there();
    }

    fn kill_restore(&mut self) {
        let target = self.dir().join("target");
        self.strike(Role::Restore);
        self.assert_all_there();
        self.ask_restic_if_due();
        let (id, want) = self.finished.last().unwrap();
        bring_back_all(&self.open(), id, &self.bench.data(), &target);
        assert_same(want, &look(&target), "restored again after a kill");
        std::fs::remove_dir_all(&target).unwrap();
    }

    fn ask_restic_if_due(&mut self) {
        if std::mem::take(&mut self.oracle_is_due) {
            self.ask_restic();
        }
    }

    /// restic finds everything whole, and restores every finished snapshot as it was.
    fn ask_restic(&self) {
        self.bench.assert_clean();
        // Those of one content once.
        let repository = self.open();
        let trees: BTreeMap<_, _> =
            self.finished.iter().map(|saved| (folder_tree(&repository, &saved.0, &self.bench.data()), saved)).collect();
        for (id, want) in trees.values() {
            let target = TempDir::new_in(self.dir()).unwrap();
            let folder = format!("{id}:{}", self.bench.data().display());
            self.bench.run(&["restore", &folder, "--target", target.path().to_str().unwrap()]);
            assert_same(want, &look(target.path()), "restored by restic");
        }
    }
}

fn folder_tree(repository: &Repository, snapshot: &str, dir: &Path) -> Id {
    select(repository, &format!("{snapshot}:{}", dir.display()), &SnapshotFilter::default()).unwrap().tree
}
