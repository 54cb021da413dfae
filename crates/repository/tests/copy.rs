//! Copies between repositories: readable by restic, deduplicated, and never made twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod oracle;

use holdfast_repository::Monitor;
use holdfast_repository::copy::{CopyOptions, copy};
use holdfast_repository::format::FileKind;
use holdfast_repository::snapshots::Snapshots;
use oracle::Bench;

#[test]
fn copies_restore_as_the_originals_do() {
    let from = Bench::new(1);
    from.write("a/large", 1, 3_000_000);
    from.write("a/small", 2, 5_000);
    let first = from.backup(&["--tag", "x"]);
    from.write("a/small", 3, 6_000);
    from.backup(&[]);
    let to = Bench::new(2);
    let (source, target) = (from.open(), to.open());
    let snapshots = Snapshots::load(&source).unwrap().complete().unwrap();
    let run = |count: usize| {
        copy(&source, &target, &snapshots[..count], &CopyOptions::default(), &Monitor::default()).unwrap()
    };
    let copied = run(1);
    assert!(copied.len() == 1 && !copied[0].existed);
    let copied = run(2);
    assert_eq!((copied[0].existed, copied[1].existed), (true, false));
    let packs = target.list(FileKind::Pack).unwrap().len();
    assert!(run(2).iter().all(|copied| copied.existed));
    assert_eq!(target.list(FileKind::Pack).unwrap().len(), packs);
    to.assert_clean();
    for copied in &copied {
        assert!(to.restored(&copied.to.to_string()) == from.restored(&copied.from.to_string()));
    }
    // restic takes our copies for copies, too.
    let from_repo = from.repository_path();
    let password = from.dir.path().join("password");
    std::fs::write(&password, oracle::PASSWORD).unwrap();
    to.run(&["copy", "--from-repo", from_repo.to_str().unwrap(), "--from-password-file", password.to_str().unwrap()]);
    assert_eq!(to.snapshots().len(), 2);
    assert!(to.run(&["snapshots", "--json"]).contains(&first));
}
