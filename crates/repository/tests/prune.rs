//! Prune: what goes, what stays, and what is left when it is cut off anywhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod oracle;

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_repository::forget::{Count, ForgetOptions, KeepPolicy, forget};
use holdfast_repository::format::FileKind;
use holdfast_repository::prune::{MaxUnused, PruneOptions, PruneReport, prune};
use holdfast_repository::{Error, Monitor, OpenOptions, Repository};
use holdfast_store::{ErrorKind, Fault, FaultyStore, LocalStore, Operation, Rule, Store};
use oracle::{Bench, PASSWORD, copy_dir};

/// Three snapshots by restic that share some of their data; the first is forgotten by us.
fn forgotten(version: u32) -> (Bench, Vec<(String, Files)>) {
    let bench = Bench::new(version);
    bench.write("shared/one", 1, 700_000);
    bench.write("shared/two", 2, 3_000_000);
    for n in 0..40 {
        bench.write(&format!("old/{n}"), 100 + n, 50_000);
    }
    bench.backup(&[]);
    std::fs::remove_dir_all(bench.data().join("old")).unwrap();
    bench.write("new/three", 3, 2_000_000);
    let second = bench.backup(&[]);
    bench.write("shared/one", 4, 600_000);
    let third = bench.backup(&["--tag", "x,y"]);
    let kept = [second, third].map(|id| (id.clone(), bench.restored(&id)));
    let options = ForgetOptions {
        policy: KeepPolicy { last: Count::Of(2), ..KeepPolicy::default() },
        ..ForgetOptions::default()
    };
    let report = forget(&bench.open(), &options, &Monitor::default()).unwrap();
    assert_eq!(report.removed.len(), 1);
    (bench, kept.into())
}

type Files = Vec<(PathBuf, Vec<u8>)>;

#[track_caller]
fn assert_whole(bench: &Bench, kept: &[(String, Files)]) {
    bench.assert_clean();
    for (id, files) in kept {
        assert!(bench.restored(id) == *files, "snapshot {id} restores otherwise than before");
    }
}

fn options(max_unused: MaxUnused) -> PruneOptions {
    PruneOptions { max_unused, ..PruneOptions::default() }
}

fn stored_bytes(bench: &Bench) -> u64 {
    bench.open().list_sizes(FileKind::Pack).unwrap().iter().map(|(_, size)| size).sum()
}

#[test]
fn what_no_snapshot_needs_goes_and_the_rest_stays() {
    for version in [1, 2] {
        let (bench, kept) = forgotten(version);
        let before = stored_bytes(&bench);
        let dry = PruneOptions { dry_run: true, ..options(MaxUnused::Bytes(0)) };
        let planned = prune(&bench.open(), &dry, &Monitor::default()).unwrap();
        assert_eq!(stored_bytes(&bench), before);
        let report = prune(&bench.open(), &options(MaxUnused::Bytes(0)), &Monitor::default()).unwrap();
        assert_eq!(PruneReport { replaced_indexes: 0, ..report }, planned);
        assert!(report.freed_bytes() >= 40 * 50_000, "{report:?}");
        assert_eq!(report.remaining_unused_bytes(), 0);
        assert!(stored_bytes(&bench) < before - 40 * 50_000);
        assert_whole(&bench, &kept);
        let again = prune(&bench.open(), &options(MaxUnused::Bytes(0)), &Monitor::default()).unwrap();
        assert_eq!(
            (again.freed_bytes(), again.repacked_packs, again.unused_blobs, again.replaced_indexes),
            (0, 0, 0, 0)
        );
        let output = bench.run(&["prune", "--dry-run", "--max-unused", "0"]);
        let total = output.lines().find(|line| line.starts_with("total prune:")).unwrap();
        assert!(total.ends_with(" 0 blobs / 0 B"), "restic finds something to prune:\n{output}");
    }
}

#[test]
fn the_limits_are_kept() {
    let (bench, _) = forgotten(2);
    let plan = |options| prune(&bench.open(), &PruneOptions { dry_run: true, ..options }, &Monitor::default()).unwrap();
    let all = plan(options(MaxUnused::Bytes(0)));
    let none = plan(options(MaxUnused::Unlimited));
    assert!(none.repacked_bytes < all.repacked_bytes);
    let limited = plan(PruneOptions { max_repack_bytes: Some(0), ..options(MaxUnused::Bytes(0)) });
    assert_eq!((limited.repacked_packs, limited.dropped_bytes), (0, 0));
    let trees = plan(PruneOptions { repack_cacheable_only: true, ..options(MaxUnused::Bytes(0)) });
    assert!(trees.repacked_bytes < 1_000_000, "{trees:?}");
}

#[test]
fn a_repository_of_small_packs_and_indexes_is_put_together() {
    let bench = Bench::new(2);
    for n in 0..12 {
        bench.write(&format!("{n}"), n, 20_000);
        bench.backup(&[]);
    }
    let report = prune(&bench.open(), &PruneOptions::default(), &Monitor::default()).unwrap();
    assert_eq!(report.repacked_packs, 24, "{report:?}");
    let repository = bench.open();
    assert_eq!(repository.list(FileKind::Pack).unwrap().len(), 2);
    assert_eq!(repository.list(FileKind::Index).unwrap().len(), 1);
    bench.assert_clean();
}

#[test]
fn uncompressed_data_is_compressed_on_demand() {
    let bench = Bench::new(1);
    std::fs::write(bench.data().join("text"), "all work and no play\n".repeat(100_000)).unwrap();
    let id = bench.backup(&[]);
    let files = bench.restored(&id);
    bench.run(&["migrate", "upgrade_repo_v2"]);
    let before = stored_bytes(&bench);
    let options = PruneOptions { repack_uncompressed: true, ..PruneOptions::default() };
    prune(&bench.open(), &options, &Monitor::default()).unwrap();
    assert!(stored_bytes(&bench) < before / 4);
    assert_whole(&bench, &[(id, files)]);
}

fn faulty(bench: &Bench) -> (Arc<FaultyStore<LocalStore>>, Arc<Repository>) {
    let store = Arc::new(FaultyStore::new(bench.store()));
    let repository = Repository::open(Arc::clone(&store) as Arc<dyn Store>, PASSWORD, OpenOptions::default()).unwrap();
    (store, Arc::new(repository))
}

#[test]
fn what_cannot_be_listed_or_read_ends_the_prune_before_anything_is_removed() {
    let (bench, kept) = forgotten(2);
    let before = stored_bytes(&bench);
    let rules: [(&str, Rule); 7] = [
        ("snapshots", Rule::on(Operation::List, Fault::Fail(ErrorKind::PermissionDenied)).under("snapshots/")),
        ("some snapshots", Rule::on(Operation::List, Fault::Torn { after: 1 }).under("snapshots/")),
        ("indexes", Rule::on(Operation::List, Fault::Fail(ErrorKind::Unavailable)).under("index/")),
        ("packs", Rule::on(Operation::List, Fault::Torn { after: 1 }).under("data/")),
        ("a snapshot", Rule::on(Operation::Get, Fault::FlipBit).under("snapshots/")),
        ("an index", Rule::on(Operation::Get, Fault::Torn { after: 10 }).under("index/")),
        ("trees", Rule::on(Operation::GetRange, Fault::FlipBit).under("data/")),
    ];
    for (what, rule) in rules {
        let (store, repository) = faulty(&bench);
        store.inject(rule);
        prune(&repository, &options(MaxUnused::Bytes(0)), &Monitor::default()).expect_err(what);
        store.clear();
        drop(repository);
        assert_eq!(stored_bytes(&bench), before, "{what}");
    }
    assert_whole(&bench, &kept);
}

#[test]
fn a_needed_pack_that_is_missing_or_short_ends_the_prune() {
    let (bench, _) = forgotten(2);
    let repository = bench.open();
    // The largest pack holds what the kept snapshots share.
    let mut packs = repository.list_sizes(FileKind::Pack).unwrap();
    packs.sort_by_key(|(_, size)| *size);
    let largest = bench.repository_path().join(FileKind::Pack.path(&packs.last().unwrap().0));
    let bytes = std::fs::read(&largest).unwrap();
    std::fs::remove_file(&largest).unwrap();
    let error = prune(&bench.open(), &options(MaxUnused::Bytes(0)), &Monitor::default()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. } | Error::Store(_)), "{error:?}");
    std::fs::write(&largest, &bytes[..bytes.len() - 1]).unwrap();
    prune(&bench.open(), &options(MaxUnused::Bytes(0)), &Monitor::default()).unwrap_err();
    assert_eq!(bench.open().list(FileKind::Pack).unwrap().len(), packs.len());
}

#[test]
fn a_needed_blob_that_is_damaged_ends_the_prune_before_anything_needed_goes() {
    let (bench, kept) = forgotten(2);
    let mut refused = 0;
    for (id, size) in bench.open().list_sizes(FileKind::Pack).unwrap() {
        let path = bench.repository_path().join(FileKind::Pack.path(&id));
        // An earlier round may have been through with it.
        let Ok(good) = std::fs::read(&path) else { continue };
        for at in (0..size as usize).step_by(size as usize / 6 + 1) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, bad).unwrap();
            // A damaged blob that nobody needs goes with the others, and its pack with it.
            if prune(&bench.open(), &options(MaxUnused::Bytes(0)), &Monitor::default()).is_ok() {
                break;
            }
            refused += 1;
            assert!(path.exists());
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &good).unwrap();
        }
        if !path.exists() {
            continue;
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &good).unwrap();
    }
    assert!(refused > 0);
    prune(&bench.open(), &options(MaxUnused::Bytes(0)), &Monitor::default()).unwrap();
    assert_whole(&bench, &kept);
}

/// Every operation of a prune fails in its turn, once before it is done and once after.
#[test]
fn cut_off_at_any_operation_the_repository_stays_whole() {
    let (bench, kept) = forgotten(2);
    let fresh = bench.dir.path().join("fresh");
    copy_dir(&bench.repository_path(), &fresh);
    let mut cut_off = 0;
    for skip in 0.. {
        std::fs::remove_dir_all(bench.repository_path()).unwrap();
        copy_dir(&fresh, &bench.repository_path());
        let (store, repository) = faulty(&bench);
        let opened = store.count_all();
        let fault = match skip % 2 {
            0 => Fault::Fail(ErrorKind::Unavailable),
            _ => Fault::FailAfter(ErrorKind::Unavailable),
        };
        // From there on nothing works, as if the process were gone.
        store.inject(Rule::any(fault).skip(skip).times(1));
        store.inject(Rule::any(Fault::Fail(ErrorKind::Unavailable)).skip(skip + 1));
        let outcome = prune(&repository, &options(MaxUnused::Bytes(0)), &Monitor::default());
        let was_struck = store.count_all() - opened > skip;
        store.clear();
        drop(repository);
        if !was_struck {
            outcome.unwrap();
            break;
        }
        cut_off += 1;
        bench.run(&["unlock", "--remove-all"]);
        bench.assert_clean();
        if skip % 8 == 0 {
            assert_whole(&bench, &kept);
            prune(&bench.open(), &options(MaxUnused::Bytes(0)), &Monitor::default()).unwrap();
            assert_whole(&bench, &kept);
        }
    }
    assert!(cut_off > 20, "only {cut_off} operations");
}
