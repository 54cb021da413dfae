//! The examples of the seeds are right as they stand: read without a mistake, a correction or a note.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_api::manifest;

/// Reads a folder of examples and counts its objects by kind.
fn check(folder: &str, expect: &[(&str, usize)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/seeds").join(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()));
    }
    files.sort();
    let outcome = manifest::read(files.iter().map(|(name, contents)| (name.as_str(), contents.as_slice())));
    let problems: Vec<_> = [&outcome.errors, &outcome.warnings, &outcome.notes].into_iter().flatten().collect();
    assert!(problems.is_empty(), "{problems:#?}");
    let mut kinds = BTreeMap::new();
    for object in &outcome.objects {
        *kinds.entry(object.identity().kind).or_insert(0) += 1;
    }
    let expect: BTreeMap<String, usize> = expect.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    assert_eq!(kinds, expect);
}

#[test]
fn seed_000() {
    check(
        "000",
        &[
            ("DaemonSet", 1),
            ("Deployment", 2),
            ("ReplicaSet", 1),
            ("ReplicationController", 1),
            ("Restic", 2),
            ("Secret", 2),
            ("StatefulSet", 1),
        ],
    );
}

#[test]
fn seed_001() {
    check(
        "001",
        &[
            ("AgentTemplate", 4),
            ("AppBinding", 2),
            ("Backup", 2),
            ("BackupTemplate", 2),
            ("BackupTrigger", 1),
            ("ConfigMap", 1),
            ("Deployment", 2),
            ("PersistentVolumeClaim", 2),
            ("Recovery", 4),
            ("Repository", 1),
            ("Secret", 2),
            ("Service", 1),
        ],
    );
}
