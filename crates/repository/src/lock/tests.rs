//! Whose locks are respected, whose are removed, and what waiting for one costs.

use std::process::{Command, Stdio};
use std::sync::atomic::AtomicUsize;

use holdfast_store::{FaultyStore, MemoryStore, Operation, Store};
use jiff::SignedDuration;

use super::*;
use crate::{InitOptions, OpenOptions};

struct Bench {
    repository: Arc<Repository>,
    store: Arc<FaultyStore<MemoryStore>>,
}

impl Bench {
    fn new() -> Self {
        let store = Arc::new(FaultyStore::new(MemoryStore::default()));
        let init =
            InitOptions { kdf_target: Duration::from_millis(1), kdf_memory_bytes: 1 << 20, ..InitOptions::default() };
        let repository = Repository::init(Arc::clone(&store) as _, "test", &init, OpenOptions::default()).unwrap();
        Self { repository: Arc::new(repository), store }
    }

    /// Puts a lock there that somebody else holds, or held.
    fn lock(&self, lock: &LockFile) -> Id {
        self.repository.save_file(FileKind::Lock, &serde_json::to_vec(lock).unwrap()).unwrap()
    }

    fn acquire(&self, options: &LockOptions) -> Result<Lock> {
        Lock::acquire(&self.repository, LockMode::Exclusive, options, &Monitor::default())
    }

    #[track_caller]
    fn assert_respected(&self, options: &LockOptions) {
        assert!(matches!(self.acquire(options), Err(Error::Locked { .. })));
        assert_eq!(self.repository.list(FileKind::Lock).unwrap().len(), 1);
    }

    #[track_caller]
    fn assert_removed(&self, options: &LockOptions) {
        drop(self.acquire(options).unwrap());
        assert_eq!(self.repository.list(FileKind::Lock).unwrap(), []);
    }
}

/// A lock as process `pid` of this host and this numbering writes it.
fn of_process(pid: u32) -> LockFile {
    LockFile {
        time: Timestamp::now(),
        exclusive: false,
        hostname: Identity::current().hostname,
        username: "somebody".into(),
        pid,
        uid: 0,
        gid: 0,
        process_namespace: Some(process_namespace().unwrap().clone()),
    }
}

/// A process number that was used and is free.
fn dead() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[test]
fn what_this_system_says_counts_only_for_locks_of_the_same_numbering() {
    let (dead, ours) = (dead(), std::process::id());
    let elsewhere = |boot: &str| Some(format!("{boot}/{}", u32::MAX));
    let boot = process_namespace().unwrap().split_once('/').unwrap().0;
    for pid in [dead, ours] {
        let bench = Bench::new();
        bench.lock(&of_process(pid));
        bench.assert_removed(&LockOptions::default());
        // Another container of this host name, the same system after another start, restic.
        for process_namespace in [elsewhere(boot), elsewhere("before"), None] {
            let bench = Bench::new();
            bench.lock(&LockFile { process_namespace, ..of_process(pid) });
            bench.assert_respected(&LockOptions::default());
        }
        let bench = Bench::new();
        bench.lock(&LockFile { hostname: "elsewhere".into(), ..of_process(pid) });
        bench.assert_respected(&LockOptions::default());
    }
}

#[test]
fn a_living_process_is_respected_and_a_later_one_of_its_number_is_not() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let bench = Bench::new();
    let id = bench.lock(&of_process(child.id()));
    bench.assert_respected(&LockOptions::default());
    bench.store.delete(&FileKind::Lock.path(&id)).unwrap();
    bench.lock(&LockFile { time: Timestamp::now() - SignedDuration::from_mins(10), ..of_process(child.id()) });
    bench.assert_removed(&LockOptions::default());
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn thirty_minutes_without_renewal_are_the_end_of_any_lock() {
    let bench = Bench::new();
    let lock = |minutes| LockFile {
        time: Timestamp::now() - SignedDuration::from_mins(minutes),
        hostname: "elsewhere".into(),
        ..of_process(1)
    };
    let id = bench.lock(&lock(29));
    bench.assert_respected(&LockOptions::default());
    bench.store.delete(&FileKind::Lock.path(&id)).unwrap();
    bench.lock(&lock(31));
    bench.assert_removed(&LockOptions::default());
}

#[test]
fn a_caller_who_knows_the_holder_is_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let knowing = |gone: &'static str| {
        let asked = Arc::clone(&asked);
        let is_gone = move |lock: &LockFile| {
            asked.fetch_add(1, Ordering::Relaxed);
            lock.hostname == gone
        };
        LockOptions { holder_is_gone: Some(HolderIsGone::new(is_gone)), ..LockOptions::default() }
    };
    let bench = Bench::new();
    bench.lock(&LockFile { hostname: "pod-1".into(), ..of_process(1) });
    bench.assert_respected(&knowing("pod-2"));
    // Nobody asks for one that is not in the way.
    let asked_before = asked.load(Ordering::Relaxed);
    drop(Lock::acquire(&bench.repository, LockMode::Shared, &knowing("pod-1"), &Monitor::default()).unwrap());
    assert_eq!(asked.load(Ordering::Relaxed), asked_before);
    bench.assert_removed(&knowing("pod-1"));
}

#[test]
fn a_person_may_remove_what_looks_dead_by_host_and_number() {
    let bench = Bench::new();
    let dead = dead();
    let gone = bench.lock(&LockFile { process_namespace: None, ..of_process(dead) });
    bench.lock(&LockFile { process_namespace: Some("other/1".into()), ..of_process(dead) });
    let removed = unlock(&bench.repository, false).unwrap();
    assert_eq!(removed.iter().map(|lock| lock.id).collect::<Vec<_>>(), [gone]);
    assert_eq!(unlock(&bench.repository, true).unwrap().len(), 1);
}

#[test]
fn waiting_costs_a_listing_now_and_then() {
    let bench = Bench::new();
    bench.lock(&LockFile { hostname: "elsewhere".into(), ..of_process(1) });
    let before = bench.store.count_all();
    bench.assert_respected(&LockOptions { wait: Duration::from_secs(2), ..LockOptions::default() });
    // 0.1 to 0.2 s, then twice that, and so on; and the listing of the assertion.
    assert!(bench.store.count_all() - before <= 8, "{}", bench.store.count_all() - before);
    assert_eq!(bench.store.count(Operation::Get), 1);
}
