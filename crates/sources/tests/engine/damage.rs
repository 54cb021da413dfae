//! Bytes that changed, got lost or were never there, in every kind of file: each operation says so or is not touched by
//! it. None panics, none claims more than it did, and no wrong byte is restored without a word.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use holdfast_repository::check::ReadData;
use holdfast_repository::forget::forget;
use holdfast_repository::prune::prune;
use holdfast_repository::{Error, Monitor, OpenOptions, Repository};
use holdfast_store::{MemoryStore, Store};
use tempfile::TempDir;

use crate::look::{Sight, look};
use crate::oracle::{Bench, PASSWORD};
use crate::worker::keep_two;
use crate::{Random, bring_back, errors, examine, prune_all, save, save_all};

/// How many damages of each kind of file are tried.
const TRIALS: u64 = 50;

/// A small repository in memory with three snapshots, and what they restore to.
struct Original {
    bench: Bench,
    objects: BTreeMap<String, Vec<u8>>,
    snapshots: Vec<(String, Sight)>,
    /// The key that is quick to try.
    key: String,
}

fn original() -> Original {
    let bench = Bench::new(2);
    let key = bench.open().keys().unwrap().remove(0).id.to_string();
    bench.open().add_key("another").unwrap();
    let mut snapshots = Vec::new();
    for n in 0..3 {
        bench.write("a/large", 1 + n, 900_000);
        bench.write("b/same", 10, 30_000);
        bench.write(&format!("b/{n}"), 20 + n, 3_000);
        std::fs::write(bench.data().join("text"), "all work and no play\n".repeat(5_000)).unwrap();
        let (id, _) = save_all(&bench.open(), &bench.data());
        snapshots.push((id, look(&bench.data())));
    }
    let mut names = Vec::new();
    bench.store().list("", &mut |entry| names.push(entry.name)).unwrap();
    let objects = names.into_iter().map(|name| (name.clone(), bench.store().get(&name).unwrap())).collect();
    Original { bench, objects, snapshots, key }
}

impl Original {
    fn store(&self, damaged: &str, bytes: Option<&[u8]>) -> MemoryStore {
        let store = MemoryStore::new();
        for (name, original) in &self.objects {
            match bytes {
                Some(bytes) if name == damaged => store.put(name, bytes).unwrap(),
                None if name == damaged => {}
                _ => store.put(name, original).unwrap(),
            }
        }
        store
    }
}

/// Flips bits, cuts off, appends, zeroes, empties or takes away; and says which.
fn damage(random: &mut Random, original: &[u8]) -> (String, Option<Vec<u8>>) {
    let mut bytes = original.to_vec();
    let place = random.below(bytes.len() as u64) as usize;
    let what = match random.below(9) {
        0..4 => {
            bytes[place] ^= 1 << random.below(8);
            format!("bit at {place}")
        }
        4 => {
            bytes.truncate(place);
            format!("cut off at {place}")
        }
        5 => {
            bytes.extend_from_slice(&original[..place.min(100)]);
            format!("{} bytes appended", place.min(100))
        }
        6 => {
            let end = (place + 512).min(bytes.len());
            bytes[place..end].fill(0);
            format!("zeros from {place}")
        }
        7 => {
            // Length fields are at the end of packs, and numbers in the middle of keys.
            let end = bytes.len();
            bytes[end - 1 - random.below(8).min(end as u64 - 1) as usize] = random.next() as u8;
            "a byte near the end".to_owned()
        }
        _ => return ("taken away".to_owned(), None),
    };
    (what, Some(bytes))
}

/// What comes back of a snapshot. Nothing that is wrong may come back unless it is named.
fn restored(repository: &Arc<Repository>, original: &Original, id: &str, want: &Sight) -> Option<Vec<String>> {
    let target = TempDir::new().unwrap();
    let (monitor, told) = errors();
    let result = bring_back(repository, id, &original.bench.data(), target.path(), &monitor);
    let (told, got) = (told.lock().unwrap().join("\n"), look(target.path()));
    let mut good = Vec::new();
    for (path, want) in want {
        match got.get(path) {
            Some(got) if got.content == want.content => good.push(path.display().to_string()),
            _ if result.is_err() => {}
            _ => {
                let is_named = path
                    .ancestors()
                    .any(|path| path != Path::new("") && told.contains(&format!("/{}:", path.display())));
                assert!(is_named, "{path:?} is not as it was, and nobody says so: {told:?}");
            }
        }
    }
    match result {
        Ok(report) => {
            assert_eq!(report.errors == 0, good.len() == want.len(), "{report:?} {told:?}");
            Some(good)
        }
        Err(_) => None,
    }
}

/// Everything that can be done with a repository, on one that is damaged.
fn try_everything(original: &Original, kind: &str, store: &MemoryStore) {
    let open = |store: MemoryStore| -> Result<Arc<Repository>, Error> {
        let options = OpenOptions { key_hint: Some(original.key.clone()), ..OpenOptions::default() };
        Repository::open(Arc::new(store), PASSWORD, options).map(Arc::new)
    };
    let Ok(repository) = open(store.snapshot()) else {
        assert!(matches!(kind, "config" | "keys"), "{kind} is not needed to open");
        return;
    };
    let restore_all = |repository: &Arc<Repository>| -> Vec<Option<Vec<String>>> {
        original.snapshots.iter().map(|(id, want)| restored(repository, original, id, want)).collect()
    };
    let clean = examine(&repository, ReadData::All).is_ok_and(|report| report.is_clean());
    let before = restore_all(&repository);
    let is_whole = |restored: &[Option<Vec<String>>]| {
        restored.iter().zip(&original.snapshots).all(|(got, (_, want))| got.as_ref().map(Vec::len) == Some(want.len()))
    };
    // A snapshot that was taken away leaves no trace; every other damage of what is needed is found.
    let is_gone = |repository: &Arc<Repository>| original.snapshots.iter().any(|(id, _)| !store_has(repository, id));
    assert!(!clean || is_whole(&before) || is_gone(&repository), "{kind}: a clean check of what cannot be restored");

    // A new backup: damage in packs shows only when they are read, all other damage at once.
    let repository = open(store.snapshot()).unwrap();
    if let Ok(report) = save(&repository, &original.bench.data())
        && report.errors == 0
        && kind != "data"
    {
        let id = report.snapshot.unwrap().to_string();
        let (_, want) = original.snapshots.last().unwrap();
        let restored = restored(&repository, original, &id, want);
        assert_eq!(restored.map(|good| good.len()), Some(want.len()), "a new backup on damaged {kind}");
    }

    // A prune may refuse; what could be restored before can be restored after.
    let repository = open(store.snapshot()).unwrap();
    let _ = prune(&repository, &prune_all(), &Monitor::default());
    let after = restore_all(&repository);
    for (before, after) in before.iter().zip(&after) {
        let lost = |path: &&String| !after.as_ref().is_some_and(|after| after.contains(path));
        let lost: Vec<_> = before.iter().flatten().filter(lost).collect();
        assert!(lost.is_empty(), "{kind}: lost by a prune: {lost:?}");
    }

    let repository = open(store.snapshot()).unwrap();
    let _ = forget(&repository, &keep_two(), &Monitor::default());
    let kept = store_has(&repository, &original.snapshots[2].0)
        || !store_has(&open(store.snapshot()).unwrap(), &original.snapshots[2].0);
    assert!(kept, "{kind}: the newest snapshot was forgotten");
}

fn store_has(repository: &Arc<Repository>, id: &str) -> bool {
    let ids = repository.list(holdfast_repository::format::FileKind::Snapshot).unwrap();
    ids.iter().any(|stored| stored.to_string() == id)
}

#[track_caller]
fn check_kind(kind: &str) {
    let original = original();
    let mut random = Random::new(kind);
    let names: Vec<_> = original.objects.keys().filter(|name| name.starts_with(kind)).collect();
    for _ in 0..TRIALS {
        let name = names[random.below(names.len() as u64) as usize];
        let (what, bytes) = damage(&mut random, &original.objects[name]);
        eprintln!("{name}: {what}");
        try_everything(&original, kind, &original.store(name, bytes.as_deref()));
    }
}

#[test]
fn damaged_config() {
    check_kind("config");
}

#[test]
fn damaged_keys() {
    check_kind("keys");
}

#[test]
fn damaged_snapshots() {
    check_kind("snapshots");
}

#[test]
fn damaged_indexes() {
    check_kind("index");
}

#[test]
fn damaged_packs() {
    check_kind("data");
}

#[test]
fn a_damaged_lock_stops_every_operation_and_says_how_to_go_on() {
    let original = original();
    let store = original.store("", None);
    let name = format!("locks/{}", "0123456789abcdef".repeat(4));
    store.put(&name, b"what is this").unwrap();
    let repository = Arc::new(Repository::open(Arc::new(store), PASSWORD, OpenOptions::default()).unwrap());
    for error in [
        save(&repository, &original.bench.data()).map(|_| ()).unwrap_err(),
        prune(&repository, &prune_all(), &Monitor::default()).map(|_| ()).unwrap_err(),
        forget(&repository, &keep_two(), &Monitor::default()).map(|_| ()).unwrap_err(),
        examine(&repository, ReadData::All).map(|_| ()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("unlock --remove-all"), "{error}");
    }
    holdfast_repository::unlock(&repository, true).unwrap();
    save_all(&repository, &original.bench.data());
}
