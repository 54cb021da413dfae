//! Storage that fails at any one operation: an error or a complete result, and a repository that is whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_repository::backup::{BackupOptions, BackupReport, backup};
use holdfast_repository::check::{CheckReport, ReadData};
use holdfast_repository::format::FileKind;
use holdfast_repository::{Error, Monitor, OpenOptions, Repository, Result};
use holdfast_store::{ErrorKind, Fault, FaultyStore, LocalStore, Operation, Retry, RetryPolicy, Rule, Store};

use crate::look::{assert_same, look};
use crate::oracle::{Bench, PASSWORD, copy_dir, noise};
use crate::{assert_whole, bring_back, bring_back_all, errors, examine, save, save_all, tree};

type Faulty = Arc<FaultyStore<LocalStore>>;

fn faulty(bench: &Bench) -> (Faulty, Arc<Repository>) {
    let store = Arc::new(FaultyStore::new(bench.store()));
    let options = OpenOptions { pack_bytes: 4 << 20, ..OpenOptions::default() };
    let repository = Repository::open(Arc::clone(&store) as Arc<dyn Store>, PASSWORD, options).unwrap();
    (store, Arc::new(repository))
}

/// One snapshot, and data that has changed since.
fn changed() -> Bench {
    let bench = Bench::new(2);
    for n in 0..30 {
        bench.write(&format!("small/{n}"), n, 2_000);
    }
    bench.write("large", 99, 200_000);
    save_all(&bench.open(), &bench.data());
    for n in 0..6 {
        bench.write(&format!("more/{n}"), 200 + n, 3_500_000);
    }
    bench.write("small/7", 1_000, 5_000);
    bench
}

/// The snapshot that a backup says it made restores in full.
#[track_caller]
fn assert_restores(bench: &Bench, report: &BackupReport, what: &str) {
    assert_eq!(report.errors, 0);
    let target = tempfile::TempDir::new().unwrap();
    bring_back_all(&bench.open(), &report.snapshot.unwrap().to_string(), &bench.data(), target.path());
    assert_same(&look(&bench.data()), &look(target.path()), what);
}

/// Runs `act` again and again on the same repository, with each of its operations failing in its turn in the ways of
/// `faults`; gives how often it was struck.
fn strike_each(bench: &Bench, faults: &[Fault], mut act: impl FnMut(&Faulty, &Arc<Repository>, u64)) -> u64 {
    let fresh = bench.dir.path().join("fresh");
    copy_dir(&bench.repository_path(), &fresh);
    let mut struck = 0;
    for skip in 0.. {
        let mut reached = false;
        for fault in faults {
            std::fs::remove_dir_all(bench.repository_path()).unwrap();
            copy_dir(&fresh, &bench.repository_path());
            let (store, repository) = faulty(bench);
            let opened = store.count_all();
            store.inject(Rule::any(*fault).skip(skip).times(1));
            act(&store, &repository, skip);
            reached |= store.count_all() - opened > skip;
        }
        if !reached {
            break;
        }
        struck += 1;
    }
    struck
}

const UNAVAILABLE: ErrorKind = ErrorKind::Unavailable;

#[test]
fn an_interrupted_backup_waits_for_no_store_and_gives_back_its_lock() {
    let bench = changed();
    let (store, monitor) = (Arc::new(FaultyStore::new(bench.store())), Monitor::default());
    let hour = Duration::from_secs(3600);
    let policy = RetryPolicy { delay_first: hour, delay_max: hour, elapsed_max: 10 * hour, ..RetryPolicy::default() };
    let retrying = Retry::new(Arc::clone(&store), policy).cancelled_by(monitor.cancel().clone());
    let repository = Arc::new(Repository::open(Arc::new(retrying), PASSWORD, OpenOptions::default()).unwrap());
    store.inject(Rule::on(Operation::Put, Fault::Fail(UNAVAILABLE)).under("data/"));
    let begin = std::thread::scope(|scope| {
        let run = || backup(&repository, &tree(&bench.data()), &BackupOptions::new(), &monitor);
        let running = scope.spawn(run);
        // The lock, and then a pack that is not taken.
        while store.count(Operation::Put) < 2 {
            assert!(!running.is_finished(), "it does not wait");
            std::thread::yield_now();
        }
        let begin = Instant::now();
        monitor.interrupt();
        assert!(matches!(running.join().unwrap(), Err(Error::Interrupted)));
        begin
    });
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(bench.open().list(FileKind::Lock).unwrap().is_empty());
    assert_whole(&bench.open(), ReadData::None);
}

#[test]
fn a_backup_fails_or_is_complete_whichever_operation_fails() {
    let bench = changed();
    let faults = [Fault::Fail(UNAVAILABLE), Fault::FailAfter(UNAVAILABLE)];
    let mut failed = 0;
    let struck = strike_each(&bench, &faults, |store, repository, skip| {
        let result = save(repository, &bench.data());
        store.clear();
        // A lock that could not be given back is in nobody's way but an exclusive one's, of this very process.
        holdfast_repository::unlock(repository, true).unwrap();
        assert_whole(&bench.open(), ReadData::None);
        match &result {
            Ok(report) => assert_restores(&bench, report, "struck, and said to be complete"),
            Err(Error::Store(error)) => {
                assert_eq!(error.kind, UNAVAILABLE);
                failed += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
        if skip % 8 == 0 {
            bench.assert_clean();
            let (_, report) = save_all(&bench.open(), &bench.data());
            assert_restores(&bench, &report, "after a failure");
        }
    });
    eprintln!("backup: {struck} operations, {failed} failures");
    assert!(struck > 15 && failed > 15, "{struck} {failed}");
}

#[test]
fn a_store_that_is_gone_from_some_moment_on_leaves_a_whole_repository() {
    let bench = changed();
    let fresh = bench.dir.path().join("fresh");
    copy_dir(&bench.repository_path(), &fresh);
    for skip in 0.. {
        std::fs::remove_dir_all(bench.repository_path()).unwrap();
        copy_dir(&fresh, &bench.repository_path());
        let (store, repository) = faulty(&bench);
        store.inject(Rule::any(Fault::Fail(UNAVAILABLE)).skip(skip));
        let result = save(&repository, &bench.data());
        store.clear();
        holdfast_repository::unlock(&repository, true).unwrap();
        assert_whole(&bench.open(), ReadData::None);
        if let Ok(report) = result {
            assert_restores(&bench, &report, "only the lock was left");
            assert!(skip > 15, "{skip}");
            break;
        }
        if skip % 8 == 0 {
            bench.assert_clean();
        }
    }
}

#[test]
fn a_full_disk_is_told_as_such_and_what_is_stored_is_used_once_there_is_room() {
    let bench = changed();
    let mut room = 1_000;
    let mut failures = 0;
    loop {
        let (store, repository) = faulty(&bench);
        store.full_after(room);
        let result = save(&repository, &bench.data());
        store.clear();
        assert_whole(&bench.open(), ReadData::None);
        match result {
            Ok(report) => break assert_restores(&bench, &report, "room at last"),
            Err(Error::Store(error)) => assert_eq!(error.kind, ErrorKind::Full, "{error}"),
            Err(error) => panic!("{error:?}"),
        }
        failures += 1;
        room += 1_500_000;
    }
    assert!(failures >= 3, "{failures}");
    bench.assert_clean();
}

#[test]
fn a_restore_says_what_it_lacks_whichever_operation_fails() {
    let bench = changed();
    let (id, _) = save_all(&bench.open(), &bench.data());
    let want = look(&bench.data());
    let faults = [Fault::Fail(UNAVAILABLE), Fault::FlipBit, Fault::Torn { after: 20 }];
    let mut told = 0;
    let struck = strike_each(&bench, &faults, |store, repository, _| {
        let target = tempfile::TempDir::new().unwrap();
        let (monitor, errors) = errors();
        let result = bring_back(repository, &id, &bench.data(), target.path(), &monitor);
        store.clear();
        holdfast_repository::unlock(repository, true).unwrap();
        match result {
            Ok(report) if report.errors == 0 => assert_same(&want, &look(target.path()), "a complete restore"),
            Ok(report) => {
                told += 1;
                assert_eq!(report.errors, errors.lock().unwrap().len() as u64);
            }
            Err(_) => told += 1,
        }
        // Run again, it is complete.
        bring_back_all(&bench.open(), &id, &bench.data(), target.path());
        assert_same(&want, &look(target.path()), "restored again");
    });
    eprintln!("restore: {struck} operations, {told} told");
    assert!(struck > 8 && told > 8, "{struck} {told}");
}

#[test]
fn a_check_is_never_clean_when_something_could_not_be_read() {
    let bench = changed();
    save_all(&bench.open(), &bench.data());
    let faults = [Fault::Fail(UNAVAILABLE), Fault::Torn { after: 1 }];
    let counts = |report: &CheckReport| [report.snapshots, report.trees, report.packs, report.packs_read];
    let healthy = counts(&examine(&bench.open(), ReadData::All).unwrap());
    let mut found = 0;
    let struck = strike_each(&bench, &faults, |store, repository, _| {
        match examine(repository, ReadData::All) {
            // What failed had a second look, or was the lock's removal.
            Ok(report) if report.is_clean() => assert_eq!(counts(&report), healthy),
            _ => found += 1,
        }
        store.clear();
        holdfast_repository::unlock(repository, true).unwrap();
    });
    eprintln!("check: {struck} operations, {found} found");
    assert!(struck > 10 && found > struck / 2, "{struck} {found}");
}

#[test]
fn an_init_that_fails_can_be_begun_again() {
    let dir = tempfile::TempDir::new().unwrap();
    let init = holdfast_repository::InitOptions {
        kdf_target: std::time::Duration::from_millis(1),
        kdf_memory_bytes: 1 << 20,
        ..Default::default()
    };
    for skip in 0.. {
        let path = dir.path().join(skip.to_string());
        let store = Arc::new(FaultyStore::new(LocalStore::create(&path).unwrap()));
        store.inject(Rule::any(Fault::Fail(UNAVAILABLE)).skip(skip).times(1));
        let make = || -> Result<Repository> {
            Repository::init(Arc::clone(&store) as Arc<dyn Store>, PASSWORD, &init, OpenOptions::default())
        };
        if make().is_ok() {
            assert!(skip > 3, "{skip}");
            break;
        }
        store.clear();
        let repository = Arc::new(make().unwrap());
        assert_eq!(repository.keys().unwrap().len(), 1);
        std::fs::write(dir.path().join("file"), noise(skip, 1_000)).unwrap();
        save_all(&repository, &dir.path().join("file"));
        let output = crate::oracle::restic(&path, &["check", "--read-data"]);
        assert!(output.status.success(), "{}", crate::oracle::text(&output));
    }
}
