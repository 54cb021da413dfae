//! Several at work on one repository: those who add do so together, who removes is alone, and both keep to restic's
//! locks as restic keeps to ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use holdfast_repository::backup::{BackupOptions, backup};
use holdfast_repository::check::ReadData;
use holdfast_repository::forget::forget;
use holdfast_repository::format::FileKind;
use holdfast_repository::prune::{PruneOptions, prune};
use holdfast_repository::source::{DirEntries, Entry, OpenFile, Source, SourceError};
use holdfast_repository::{Error, Event, LockOptions, Monitor};
use holdfast_sources::FileTree;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::look::{assert_same, look};
use crate::oracle::{Bench, command, copy_dir, noise, text};
use crate::worker::{Role, Worker, keep_two};
use crate::{assert_whole, bring_back_all, prune_all, save, save_all, tree};

/// A source that waits before its first listing, while its backup holds a lock.
struct Waiting {
    tree: FileTree,
    reached: mpsc::SyncSender<()>,
    go_on: std::sync::Mutex<mpsc::Receiver<()>>,
}

impl Source for Waiting {
    fn paths(&self) -> Vec<Vec<u8>> {
        self.tree.paths()
    }
    fn root(&self) -> Result<DirEntries, SourceError> {
        self.reached.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        self.tree.root()
    }
    fn read_dir(&self, dir: &Entry) -> Result<DirEntries, SourceError> {
        self.tree.read_dir(dir)
    }
    fn open(&self, file: &Entry) -> Result<OpenFile, SourceError> {
        self.tree.open(file)
    }
}

fn fill(bench: &Bench) {
    bench.write("large", 1, 12 << 20);
    for n in 0..200 {
        bench.write(&format!("small/{n}"), 100 + n, 3_000);
    }
}

/// Fails unless it is a lock of process `pid` that is in the way, and the message says so.
#[track_caller]
fn assert_locked_by<T: std::fmt::Debug>(pid: u32, exclusive: bool, result: Result<T, Error>) {
    let error = result.unwrap_err();
    let Error::Locked { lock, .. } = &error else { panic!("{error:?}") };
    assert_eq!((lock.pid, lock.exclusive), (pid, exclusive), "{error}");
    let message = error.to_string();
    assert!(message.contains(&format!("process {pid} of {}", lock.username)), "{message}");
    assert!(message.contains(&lock.hostname), "{message}");
}

#[test]
fn backups_at_once_share_what_they_have_in_common() {
    let bench = Bench::new(2);
    fill(&bench);
    let other = bench.dir.path().join("other");
    copy_dir(&bench.data(), &other);
    std::fs::write(other.join("small/extra"), noise(7, 100_000)).unwrap();
    let barrier = Barrier::new(2);
    let back_up = |dir: PathBuf| {
        let (repository, barrier) = (bench.open(), &barrier);
        move || {
            barrier.wait();
            (save_all(&repository, &dir).0, dir)
        }
    };
    let [one, two] = [bench.data(), other].map(back_up);
    let saved = std::thread::scope(|scope| [scope.spawn(one), scope.spawn(two)].map(|thread| thread.join().unwrap()));
    bench.assert_clean();
    for (n, (id, dir)) in saved.iter().enumerate() {
        let target = bench.dir.path().join(format!("target-{n}"));
        bring_back_all(&bench.open(), id, dir, &target);
        assert_same(&look(dir), &look(&target), id);
        let (_, again) = save_all(&bench.open(), dir);
        assert_eq!(again.summary.data_blobs, 0);
    }
    // What both stored at the same moment is there twice until a prune.
    prune(&bench.open(), &prune_all(), &Monitor::default()).unwrap();
    bench.assert_clean();
    let (_, again) = save_all(&bench.open(), &bench.data());
    assert_eq!(again.summary.data_blobs, 0);
}

#[test]
fn backups_of_several_processes_at_once() {
    let bench = Bench::new(2);
    fill(&bench);
    let workers: Vec<_> = (0..3).map(|_| Worker::start(Role::Backup, bench.dir.path())).collect();
    workers.into_iter().for_each(Worker::finish);
    assert_eq!(bench.snapshots().len(), 3);
    bench.assert_clean();
    assert!(bench.open().list(FileKind::Lock).unwrap().is_empty());
}

#[test]
fn nothing_is_removed_while_a_backup_runs() {
    let bench = Bench::new(2);
    fill(&bench);
    save_all(&bench.open(), &bench.data());
    let (reached, has_reached) = mpsc::sync_channel(0);
    let (go, go_on) = mpsc::channel();
    let source = Waiting { tree: tree(&bench.data()), reached, go_on: go_on.into() };
    std::thread::scope(|scope| {
        let running =
            scope.spawn(|| backup(&bench.open(), &source, &BackupOptions::new(), &Monitor::default()).unwrap());
        has_reached.recv().unwrap();
        let us = std::process::id();
        assert_locked_by(us, false, prune(&bench.open(), &prune_all(), &Monitor::default()));
        assert_locked_by(us, false, forget(&bench.open(), &keep_two(), &Monitor::default()));
        for remover in [&["prune"][..], &["forget", "--keep-last", "1"]] {
            let output = bench.restic(remover);
            assert_eq!(output.status.code(), Some(11), "restic {remover:?}");
        }
        // Others who add are welcome, ours and restic's.
        save_all(&bench.open(), &bench.data());
        bench.backup(&[]);
        go.send(()).unwrap();
        assert_eq!(running.join().unwrap().errors, 0);
    });
    prune(&bench.open(), &prune_all(), &Monitor::default()).unwrap();
    assert_eq!(bench.snapshots().len(), 4);
    bench.assert_clean();
}

#[test]
fn nobody_else_works_while_a_prune_runs() {
    let bench = Bench::new(2);
    fill(&bench);
    save_all(&bench.open(), &bench.data());
    std::fs::write(bench.data().join("large"), noise(9, 9 << 20)).unwrap();
    let (kept, _) = save_all(&bench.open(), &bench.data());
    let first = bench.snapshots().into_iter().find(|id| *id != kept).unwrap();
    bench.run(&["forget", &first]);
    let (reached, has_reached) = mpsc::sync_channel(0);
    let (go, go_on) = mpsc::channel::<()>();
    let go_on = std::sync::Mutex::new(Some(go_on));
    // Waits at the first thing that is removed.
    let monitor = Monitor::new(
        move |event| {
            if matches!(event, Event::Item { action: "removed", .. })
                && let Some(go_on) = go_on.lock().unwrap().take()
            {
                reached.send(()).unwrap();
                go_on.recv().unwrap();
            }
        },
        true,
    );
    std::thread::scope(|scope| {
        let pruning = scope.spawn(|| prune(&bench.open(), &prune_all(), &monitor).unwrap());
        has_reached.recv().unwrap();
        let us = std::process::id();
        assert_locked_by(us, true, save(&bench.open(), &bench.data()));
        assert_locked_by(us, true, prune(&bench.open(), &prune_all(), &Monitor::default()));
        let output = bench.restic(&["backup", bench.data().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(11), "{}", text(&output));
        // Who may wait does, and then goes on.
        let (told, is_told) = mpsc::channel();
        let waiting = scope.spawn(|| {
            let note = move |event| {
                if let Event::Note { item, message } = event {
                    let _ = told.send(format!("{item}: {message}"));
                }
            };
            let lock = LockOptions { wait: Duration::from_secs(60), ..LockOptions::default() };
            let options = BackupOptions { lock, ..BackupOptions::new() };
            backup(&bench.open(), &tree(&bench.data()), &options, &Monitor::new(note, false)).unwrap()
        });
        let note = is_told.recv().unwrap();
        go.send(()).unwrap();
        pruning.join().unwrap();
        let report = waiting.join().unwrap();
        assert_eq!((report.errors, report.summary.data_blobs), (0, 0));
        assert!(note.contains("waiting") && note.contains(&format!("process {us}")), "{note}");
    });
    bench.assert_clean();
}

#[test]
fn rivals_for_the_repository_never_have_it_together() {
    let bench = Bench::new(2);
    bench.write("file", 1, 100_000);
    save_all(&bench.open(), &bench.data());
    let barrier = Barrier::new(4);
    let won = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (bench, barrier) = (&bench, &barrier);
                scope.spawn(move || {
                    let repository = bench.open();
                    let mut won = 0;
                    for _ in 0..15 {
                        barrier.wait();
                        let result = match n {
                            0 => save(&repository, &bench.data()).map(|_| ()),
                            _ => prune(&repository, &prune_all(), &Monitor::default()).map(|_| ()),
                        };
                        match result {
                            Ok(()) => won += 1,
                            Err(Error::Locked { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    won
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>()
    });
    eprintln!("rivals: {won} of 60 went through");
    assert!(bench.open().list(FileKind::Lock).unwrap().is_empty());
    // And all of them, if they may wait.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let lock = LockOptions { wait: Duration::from_secs(120), ..LockOptions::default() };
                prune(&bench.open(), &PruneOptions { lock, ..prune_all() }, &Monitor::default()).unwrap();
            });
        }
    });
    bench.assert_clean();
}

/// Waits for a lock to be taken; a process that never takes one fails the test.
fn wait_for_lock(bench: &Bench) {
    let (repository, deadline) = (bench.open(), Instant::now() + Duration::from_secs(60));
    while repository.list(FileKind::Lock).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "no lock");
        std::thread::yield_now();
    }
}

/// Stops a process, and waits until it stands.
fn stop(process: u32) -> Pid {
    let pid = Pid::from_raw(process as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(status.stopped(), "the process ended before it could be stopped");
    pid
}

#[test]
fn a_live_process_of_ours_is_respected_though_it_stands_still() {
    let bench = Bench::new(2);
    fill(&bench);
    save_all(&bench.open(), &bench.data());
    std::fs::write(bench.data().join("large"), noise(5, 40 << 20)).unwrap();
    let worker = Worker::start(Role::Backup, bench.dir.path());
    wait_for_lock(&bench);
    let pid = stop(worker.process.id());
    assert_locked_by(worker.process.id(), false, prune(&bench.open(), &prune_all(), &Monitor::default()));
    assert_eq!(bench.restic(&["prune"]).status.code(), Some(11));
    kill_process(pid, Signal::CONT).unwrap();
    worker.finish();
    prune(&bench.open(), &prune_all(), &Monitor::default()).unwrap();
    assert_eq!(bench.snapshots().len(), 2);
    bench.assert_clean();
}

#[test]
fn a_live_restic_is_respected_and_a_dead_one_until_it_is_unlocked() {
    let bench = Bench::new(2);
    fill(&bench);
    save_all(&bench.open(), &bench.data());
    std::fs::write(bench.data().join("large"), noise(6, 20 << 20)).unwrap();
    let mut restic = command(&bench.repository_path())
        .args(["--limit-upload", "1000", "backup"])
        .arg(bench.data())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_lock(&bench);
    let pid = stop(restic.id());
    assert_locked_by(restic.id(), false, prune(&bench.open(), &prune_all(), &Monitor::default()));
    assert_locked_by(restic.id(), false, forget(&bench.open(), &keep_two(), &Monitor::default()));
    let (id, _) = save_all(&bench.open(), &bench.data());
    kill_process(pid, Signal::KILL).unwrap();
    restic.wait().unwrap();
    assert_locked_by(restic.id(), false, prune(&bench.open(), &prune_all(), &Monitor::default()));
    assert_eq!(holdfast_repository::unlock(&bench.open(), false).unwrap().len(), 1);
    prune(&bench.open(), &prune_all(), &Monitor::default()).unwrap();
    assert!(bench.open().list(FileKind::Lock).unwrap().is_empty());
    assert_whole(&bench.open(), ReadData::All);
    bench.assert_clean();
    let target = bench.dir.path().join("target");
    bring_back_all(&bench.open(), &id, &bench.data(), Path::new(&target));
    assert_same(&look(&bench.data()), &look(&target), &id);
}
