//! Repositories that restic made, of both formats, with several keys and tags: read, extended and thinned out by us,
//! and restic goes on with them.

use std::sync::Arc;

use holdfast_repository::check::ReadData;
use holdfast_repository::forget::forget;
use holdfast_repository::prune::prune;
use holdfast_repository::snapshots::Snapshots;
use holdfast_repository::{Error, Lock, LockMode, LockOptions, Monitor, OpenOptions, Repository};
use tempfile::TempDir;

use crate::look::{assert_same, look};
use crate::oracle::{Bench, PASSWORD, command, succeeded};
use crate::worker::keep_two;
use crate::{assert_whole, bring_back_all, prune_all, save_all};

const SECOND: &str = "second password";

/// A repository that restic made, with two keys and two tagged snapshots.
fn made_by_restic(version: u32) -> Bench {
    let bench = Bench { dir: TempDir::new().unwrap() };
    bench.run(&["init", "--repository-version", &version.to_string()]);
    let file = bench.dir.path().join("second");
    std::fs::write(&file, SECOND).unwrap();
    bench.run(&["key", "add", "--new-password-file", file.to_str().unwrap(), "--user", "bob", "--host", "box"]);
    bench.write("a/large", 1, 9 << 20);
    for n in 0..50 {
        bench.write(&format!("b/{n}"), n + 10, 2_000);
    }
    std::fs::write(bench.data().join("text"), "all work and no play\n".repeat(200_000)).unwrap();
    bench.backup(&["--tag", "one,two", "--tag", "three"]);
    bench.write("b/3", 99, 5_000);
    bench.backup(&["--tag", "later", "--host", "elsewhere"]);
    bench
}

fn open(bench: &Bench, password: &str) -> Result<Arc<Repository>, Error> {
    Repository::open(Arc::new(bench.store()), password, OpenOptions::default()).map(Arc::new)
}

#[test]
fn restics_repositories_are_ours_to_work_on_in_format_1() {
    check(1);
}

#[test]
fn restics_repositories_are_ours_to_work_on_in_format_2() {
    check(2);
}

fn check(version: u32) {
    let bench = made_by_restic(version);
    let repository = open(&bench, SECOND).unwrap();
    assert_eq!(repository.config().version, version);
    assert!(matches!(open(&bench, "third"), Err(Error::WrongPassword { keys: 2, .. })));
    let keys = repository.keys().unwrap();
    let bob = keys.iter().find(|key| key.current).unwrap();
    assert_eq!((bob.username.as_str(), bob.hostname.as_str(), keys.len()), ("bob", "box", 2));

    // List, check, restore.
    let saved = Snapshots::load(&repository).unwrap().complete().unwrap();
    let tags: Vec<_> = saved.iter().map(|saved| saved.snapshot.tags.join(" ")).collect();
    assert_eq!(tags, ["one two three", "later"]);
    assert_eq!(saved[1].snapshot.hostname, "elsewhere");
    assert_whole(&repository, ReadData::All);
    let target = bench.dir.path().join("target");
    bring_back_all(&repository, &saved[1].id.to_string(), &bench.data(), &target);
    assert_same(&look(&bench.data()), &look(&target), "restic's second snapshot");

    // Extend: nothing that restic has stored is stored again.
    let (_, same) = save_all(&repository, &bench.data());
    assert_eq!(same.summary.data_blobs, 0);
    bench.write("b/4", 77, 300_000);
    std::fs::write(bench.data().join("text"), "jack is a dull boy\n".repeat(200_000)).unwrap();
    let (ours, report) = save_all(&repository, &bench.data());
    assert!(report.summary.data_blobs > 0);
    if version == 1 {
        assert!(report.summary.data_added_packed > report.summary.data_added, "format 1 does not compress");
    }
    bench.assert_clean();
    let restored = bench.dir.path().join("restored");
    let folder = format!("{ours}:{}", bench.data().display());
    bench.run(&["restore", &folder, "--target", restored.to_str().unwrap()]);
    assert_same(&look(&bench.data()), &look(&restored), "our snapshot, by restic");

    // restic goes on from our snapshot, and finds everything there.
    bench.backup(&[]);
    let last = Snapshots::load(&repository).unwrap().complete().unwrap().pop().unwrap();
    assert_eq!(last.snapshot.parent.unwrap().to_string(), ours, "restic takes ours for the parent");
    assert_eq!(last.snapshot.summary.unwrap().data_blobs, 0);

    // Forget and prune; restic's host `elsewhere` is a group of its own.
    let forgotten = forget(&repository, &keep_two(), &Monitor::default()).unwrap();
    assert_eq!((forgotten.removed.len(), forgotten.groups.len()), (2, 2));
    let pruned = prune(&repository, &prune_all(), &Monitor::default()).unwrap();
    assert_eq!(pruned.remaining_unused_bytes(), 0);
    bench.assert_clean();
    assert_eq!(bench.snapshots().len(), 3);
    let again = bench.dir.path().join("again");
    bring_back_all(&repository, &ours, &bench.data(), &again);
    assert_same(&look(&bench.data()), &look(&again), "after the prune");

    // restic removes what is ours.
    bench.run(&["forget", "--keep-last", "1", "--group-by", "", "--prune"]);
    assert_whole(&open(&bench, PASSWORD).unwrap(), ReadData::All);
}

#[test]
fn passwords_that_we_set_open_for_restic() {
    let bench = Bench::new(2);
    let with = |password: &str| {
        command(&bench.repository_path()).arg("snapshots").env("RESTIC_PASSWORD", password).output().unwrap()
    };
    let repository = bench.open();
    repository.add_key(SECOND).unwrap();
    succeeded(&["snapshots"], with(SECOND));
    let lock = Lock::acquire(&repository, LockMode::Exclusive, &LockOptions::default(), &Monitor::default()).unwrap();
    repository.change_password(&lock, "päss \u{1f511}").unwrap();
    drop(lock);
    succeeded(&["snapshots"], with("päss \u{1f511}"));
    assert_eq!(with(PASSWORD).status.code(), Some(12));
    assert!(matches!(open(&bench, PASSWORD), Err(Error::WrongPassword { keys: 2, .. })));
    let bob = open(&bench, SECOND).unwrap();
    assert_eq!(bob.keys().unwrap().len(), 2);
}
