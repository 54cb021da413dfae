//! Killed at random moments: the repository is clean, finished snapshots are there and whole, and the next run goes on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_repository::backup::BackupOptions;
use holdfast_repository::check::ReadData;
use holdfast_repository::format::FileKind;
use holdfast_repository::{Monitor, OpenOptions};
use tempfile::TempDir;

use crate::look::{Sight, assert_same, look};
use crate::oracle::{Bench, noise};
use crate::worker::{Role, Worker};
use crate::{Random, assert_whole, bring_back_all, save_all, tree};

/// How often, unless `HOLDFAST_KILLS` says otherwise.
const KILLS: usize = 200;
/// restic looks at everything after every so many kills.
const ORACLE_EVERY: usize = 10;
const LARGE_FILES: u64 = 5;
const LARGE_BYTES: usize = 3_600_000;
const SMALL_FILES: u64 = 300;

struct Trial {
    bench: Bench,
    random: Random,
    /// Every finished snapshot, with what it must restore to; oldest first.
    finished: Vec<(String, Sight)>,
    /// How long each operation takes when it is let alone.
    durations: [Duration; 4],
    kills: [usize; 4],
    resumed: usize,
}

#[test]
fn killed_at_any_moment() {
    let wanted = std::env::var("HOLDFAST_KILLS").map_or(KILLS, |count| count.parse().unwrap());
    let mut trial = Trial {
        bench: Bench::new(2),
        random: Random::new("kill"),
        finished: Vec::new(),
        durations: [Duration::ZERO; 4],
        kills: [0; 4],
        resumed: 0,
    };
    let begun = Instant::now();
    trial.change_data();
    trial.backup();
    for role in Role::ALL {
        trial.measure(role);
    }
    let mut attempts = 0;
    while trial.kills.iter().any(|kills| *kills < wanted.div_ceil(4)) {
        attempts += 1;
        assert!(attempts <= 10 * wanted.max(10), "the workers end before they can be killed: {:?}", trial.kills);
        trial.kill_backup();
        trial.kill_forget();
        trial.kill_prune();
        trial.kill_restore();
    }
    trial.ask_restic();
    assert!(trial.resumed > 0 || wanted < 50, "no killed backup had written an index for the next");
    eprintln!("kill: {:?} kills, {} backups resumed, {:?}", trial.kills, trial.resumed, begun.elapsed());
}

impl Trial {
    fn dir(&self) -> &Path {
        self.bench.dir.path()
    }

    /// New large files, and some of the small ones changed.
    fn change_data(&mut self) {
        for n in 0..LARGE_FILES {
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

    fn path_of(&self, name: &str) -> std::path::PathBuf {
        let path = self.bench.data().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn open(&self) -> std::sync::Arc<holdfast_repository::Repository> {
        self.bench.open_with(OpenOptions { pack_bytes: 4 << 20, ..OpenOptions::default() })
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
            self.change_data();
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
            let options = BackupOptions::new();
            let source = tree(&self.bench.data());
            let report = holdfast_repository::backup::backup(&repository, &source, &options, &Monitor::default());
            let id = report.unwrap().snapshot.unwrap().to_string();
            let sight = self.finished.last().unwrap().1.clone();
            self.finished.push((id, sight));
        }
    }

    /// Starts an operation and kills it after a random time; whether it was still at work.
    fn strike(&mut self, role: Role) -> bool {
        let delay = self.durations[role as usize].mul_f64(self.random.fraction());
        let worker = Worker::start(role, self.dir());
        // Not to wait for anything: the moment of the kill is what is tried.
        std::thread::sleep(delay);
        let killed = worker.kill();
        self.kills[role as usize] += usize::from(killed);
        if killed && self.kills.iter().sum::<usize>() % ORACLE_EVERY == 0 {
            self.bench.run(&["unlock"]);
            self.bench.assert_clean();
        }
        // Takes away the dead process's lock, too, as any next run does.
        assert_whole(&self.open(), ReadData::None);
        let locks = self.open().list(FileKind::Lock).unwrap();
        assert!(locks.is_empty(), "a dead process keeps its lock");
        killed
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
        self.change_data();
        let indexes = self.open().list(FileKind::Index).unwrap().len();
        self.strike(Role::Backup);
        self.assert_all_there();
        self.learn();
        let has_new_index = self.open().list(FileKind::Index).unwrap().len() > indexes;
        let changed = LARGE_FILES * LARGE_BYTES as u64;
        let added = self.backup();
        // Four packs of data are in the first index that a run writes.
        if has_new_index {
            self.resumed += 1;
            assert!(added < changed / 2, "{added} bytes were stored again of {changed}");
        }
        self.oracle_if_due();
    }

    fn kill_forget(&mut self) {
        self.add_snapshots();
        self.strike(Role::Forget);
        let stored = self.stored();
        for (id, _) in self.finished.iter().rev().take(2) {
            assert!(stored.contains(id), "snapshot {id} was to be kept");
        }
        self.learn();
        Worker::start(Role::Forget, self.dir()).finish();
        self.learn();
        assert_eq!(self.finished.len(), 2);
        self.oracle_if_due();
    }

    fn kill_prune(&mut self) {
        self.strike(Role::Prune);
        self.assert_all_there();
        Worker::start(Role::Prune, self.dir()).finish();
        assert_whole(&self.open(), ReadData::None);
        self.assert_all_there();
        self.oracle_if_due();
    }

    fn kill_restore(&mut self) {
        let target = self.dir().join("target");
        self.strike(Role::Restore);
        self.assert_all_there();
        let (id, want) = self.finished.last().unwrap();
        bring_back_all(&self.open(), id, &self.bench.data(), &target);
        assert_same(want, &look(&target), "restored again after a kill");
        std::fs::remove_dir_all(&target).unwrap();
        self.oracle_if_due();
    }

    fn oracle_if_due(&mut self) {
        if self.kills.iter().sum::<usize>() % ORACLE_EVERY == 0 {
            self.ask_restic();
        }
    }

    /// restic finds everything whole, and restores every finished snapshot as it was.
    fn ask_restic(&self) {
        self.bench.assert_clean();
        // Those of one content once.
        let trees: BTreeMap<_, _> = self
            .finished
            .iter()
            .map(|saved| (self.open().load_snapshot(&saved.0.parse().unwrap()).unwrap().tree, saved))
            .collect();
        for (id, want) in trees.values() {
            let target = TempDir::new_in(self.dir()).unwrap();
            let folder = format!("{id}:{}", self.bench.data().display());
            self.bench.run(&["restore", &folder, "--target", target.path().to_str().unwrap()]);
            assert_same(want, &look(target.path()), "restored by restic");
        }
    }
}
