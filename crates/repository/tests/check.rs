//! Check: damage of every kind of file is found, named, and never more than that; what restic wrote is clean.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod oracle;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_repository::check::{CheckOptions, CheckReport, Problem, ReadData, check};
use holdfast_repository::format::FileKind;
use holdfast_repository::{Id, Monitor, OpenOptions, Repository};
use oracle::{Bench, PASSWORD};

fn filled(version: u32) -> Bench {
    let bench = Bench::new(version);
    bench.write("a/large", 1, 3_000_000);
    bench.write("a/small", 2, 5_000);
    bench.write("b/c/text", 3, 100);
    std::fs::write(bench.data().join("empty"), "").unwrap();
    bench.backup(&["--tag", "one"]);
    bench.write("a/small", 4, 6_000);
    bench.backup(&["--tag", "two"]);
    bench
}

fn run(bench: &Bench, read_data: ReadData) -> CheckReport {
    check(&bench.open(), &CheckOptions { read_data, ..CheckOptions::default() }, &Monitor::default()).unwrap()
}

#[test]
fn what_restic_wrote_is_clean() {
    for version in [1, 2] {
        let bench = filled(version);
        let report = run(&bench, ReadData::All);
        assert!(report.is_clean() && report.findings.is_empty(), "{:?}", report.findings);
        assert_eq!((report.snapshots, report.unused_blobs), (2, 0));
        assert_eq!(report.packs_read, report.packs);
        assert!(report.trees >= 6, "{report:?}");
        assert_eq!(run(&bench, ReadData::None).packs_read, 0);
        let parts: u64 = (1..=3).map(|part| run(&bench, ReadData::Part { part, of: 3 }).packs_read).sum();
        assert_eq!(parts, report.packs);
        assert!(bench.open().list(FileKind::Lock).unwrap().is_empty());
    }
}

#[test]
fn a_repository_that_restic_made_is_checked_with_any_of_its_keys() {
    let bench = Bench::new(2);
    std::fs::remove_dir_all(bench.repository_path()).unwrap();
    bench.run(&["init"]);
    bench.write("file", 1, 10_000);
    bench.backup(&[]);
    let file = bench.dir.path().join("password");
    std::fs::write(&file, "other").unwrap();
    bench.run(&["key", "add", "--new-password-file", file.to_str().unwrap()]);
    let repository = Repository::open(Arc::new(bench.store()), "other", OpenOptions::default()).unwrap();
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check(&Arc::new(repository), &options, &Monitor::default()).unwrap();
    assert!(report.is_clean() && report.findings.is_empty(), "{:?}", report.findings);
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    FlipFirst,
    FlipMiddle,
    FlipLast,
    Truncate,
    Empty,
    Append,
    Remove,
}

const DAMAGES: [Damage; 7] = [
    Damage::FlipFirst,
    Damage::FlipMiddle,
    Damage::FlipLast,
    Damage::Truncate,
    Damage::Empty,
    Damage::Append,
    Damage::Remove,
];

/// Damages a file and gives back what puts it right again.
fn damage(path: &Path, how: Damage) -> impl FnOnce() + use<> {
    let good = std::fs::read(path).unwrap();
    let mut bad = good.clone();
    let (middle, last) = (bad.len() / 2, bad.len() - 1);
    std::fs::remove_file(path).unwrap();
    match how {
        Damage::FlipFirst => bad[0] ^= 1,
        Damage::FlipMiddle => bad[middle] ^= 0x40,
        Damage::FlipLast => bad[last] ^= 0x80,
        Damage::Truncate => bad.truncate(last),
        Damage::Empty => bad.clear(),
        Damage::Append => bad.push(0),
        Damage::Remove => {}
    }
    if !matches!(how, Damage::Remove) {
        std::fs::write(path, bad).unwrap();
    }
    let path = path.to_owned();
    move || {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, good).unwrap();
    }
}

fn object(problem: &Problem) -> String {
    match problem {
        Problem::Key { id, .. }
        | Problem::Snapshot { id, .. }
        | Problem::Index { id, .. }
        | Problem::PackMissing { id, .. }
        | Problem::PackSize { id, .. }
        | Problem::Pack { id, .. } => id.to_string(),
        other => other.to_string(),
    }
}

/// Damage × kind of file: found by name, with the same verdict as restic's.
#[test]
fn damage_of_every_kind_of_file_is_found() {
    let bench = filled(2);
    // So that a damaged key does not lock everybody out.
    let spare = bench.open().add_key("spare").unwrap();
    for kind in [FileKind::Key, FileKind::Snapshot, FileKind::Index, FileKind::Pack] {
        for id in bench.open().list(kind).unwrap() {
            if kind == FileKind::Key && id != spare {
                continue;
            }
            for how in DAMAGES {
                // Without it there is nothing to be missed: keys and snapshots may be removed by anybody who may write.
                if matches!((kind, how), (FileKind::Key | FileKind::Snapshot, Damage::Remove)) {
                    continue;
                }
                let heal = damage(&bench.repository_path().join(kind.path(&id)), how);
                let report = run(&bench, ReadData::All);
                assert!(!report.is_clean(), "{how:?} of {} {id} was not found", kind.noun());
                let names_it = report.findings.iter().any(|finding| object(&finding.problem) == id.to_string());
                let is_index = kind == FileKind::Index && matches!(how, Damage::Remove);
                assert!(names_it || is_index, "{how:?} of {} {id}: {:#?}", kind.noun(), report.findings);
                // restic reads the key it was opened with only.
                let asks_restic = matches!(how, Damage::FlipMiddle | Damage::Truncate | Damage::Remove);
                if kind != FileKind::Key && asks_restic {
                    let restic = bench.restic(&["check", "--read-data"]);
                    assert!(!restic.status.success(), "{how:?} of {} {id}: restic finds nothing", kind.noun());
                }
                heal();
            }
        }
    }
    assert!(run(&bench, ReadData::All).is_clean());
}

#[test]
fn a_damaged_configuration_is_an_error_at_once() {
    let bench = filled(2);
    for how in DAMAGES {
        let heal = damage(&bench.repository_path().join("config"), how);
        let opened = Repository::open(Arc::new(bench.store()), PASSWORD, OpenOptions::default());
        assert!(opened.is_err(), "{how:?}");
        heal();
    }
}

fn largest_pack(bench: &Bench) -> (Id, PathBuf) {
    let mut packs = bench.open().list_sizes(FileKind::Pack).unwrap();
    packs.sort_by_key(|(_, size)| *size);
    let id = packs.last().unwrap().0;
    (id, bench.repository_path().join(FileKind::Pack.path(&id)))
}

#[test]
fn the_affected_files_are_named() {
    let bench = filled(2);
    let (_, path) = largest_pack(&bench);
    // In the middle of it lies the large file, which both snapshots have.
    let heal = damage(&path, Damage::FlipMiddle);
    let report = run(&bench, ReadData::All);
    heal();
    let data = bench.data();
    let want = data.join("a/large").to_str().unwrap().to_owned();
    let paths: Vec<_> = report.affected.iter().map(|affected| affected.path.clone()).collect();
    assert_eq!(paths, [want.clone(), want]);
    assert_ne!(report.affected[0].snapshot, report.affected[1].snapshot);

    let heal = damage(&path, Damage::Remove);
    let report = run(&bench, ReadData::None);
    heal();
    let first = bench.snapshots();
    let of_first = report.affected.iter().filter(|affected| affected.snapshot.to_string() == first[0]);
    let mut names: Vec<_> = of_first.map(|affected| affected.path.rsplit('/').next().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["large", "small", "text"]);
    assert_eq!(report.affected_count, report.affected.len() as u64);
}

#[test]
fn what_an_interrupted_backup_left_is_a_note() {
    let bench = filled(2);
    let bytes = b"left over".as_slice();
    let id = Id::of(bytes);
    let path = bench.repository_path().join(FileKind::Pack.path(&id));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
    let report = run(&bench, ReadData::All);
    assert!(report.is_clean());
    assert_eq!(report.findings[0].problem, Problem::PackOrphan { id, size_bytes: 9 });
}
