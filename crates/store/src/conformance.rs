//! What every store must do, as one suite: each store's tests run it against the real thing.

use std::collections::BTreeMap;
use std::sync::Barrier;

use crate::{Entry, ErrorKind, Result, Store};

/// Runs every case, each against a store of its own that `fresh` makes; the store must be empty.
pub(crate) fn check<S: Store>(fresh: impl Fn() -> S) {
    let cases: &[fn(&dyn Store)] = &[
        objects_come_back,
        an_object_is_never_replaced,
        empty_objects,
        big_objects,
        ranges,
        absent_objects,
        deleting,
        listing_by_folder,
        listing_many,
        listing_while_working,
        names_of_many_levels_and_odd_letters,
        names_that_are_refused,
        one_writer_wins,
        many_threads,
        nothing_left_over,
    ];
    for case in cases {
        case(&fresh());
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind
}

fn listed(store: &dyn Store, prefix: &str) -> BTreeMap<String, u64> {
    let mut entries = BTreeMap::new();
    let mut visit = |Entry { name, size_bytes }| {
        assert_eq!(entries.insert(name.clone(), size_bytes), None, "{name} twice");
    };
    store.list(prefix, &mut visit).unwrap();
    entries
}

/// Bytes that differ from place to place, so that a shifted or repeated part shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let word = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let mut data: Vec<u8> = (0..length.div_ceil(8)).flat_map(word).collect();
    data.truncate(length);
    data
}

fn objects_come_back(store: &dyn Store) {
    assert!(!store.location().is_empty());
    for (name, length) in [("config", 155), ("keys/0a", 1), ("data/ab/abcd", 100_001)] {
        let data = pattern(length);
        store.put(name, &data).unwrap();
        assert_eq!(store.get(name).unwrap(), data);
        assert_eq!(store.size_bytes(name).unwrap(), length as u64);
    }
}

fn an_object_is_never_replaced(store: &dyn Store) {
    store.put("locks/a", b"first").unwrap();
    for second in [b"other".as_slice(), b"first", b"", &pattern(2 << 20)] {
        assert_eq!(kind(store.put("locks/a", second)), ErrorKind::AlreadyExists);
    }
    assert_eq!(store.get("locks/a").unwrap(), b"first");
    assert_eq!(listed(store, "").len(), 1);
    store.delete("locks/a").unwrap();
    store.put("locks/a", b"second").unwrap();
    assert_eq!(store.get("locks/a").unwrap(), b"second");
}

fn empty_objects(store: &dyn Store) {
    store.put("empty", b"").unwrap();
    assert_eq!(store.get("empty").unwrap(), b"");
    assert_eq!(store.size_bytes("empty").unwrap(), 0);
    assert_eq!(listed(store, "")["empty"], 0);
    store.get_range("empty", 0, &mut []).unwrap();
    let range = store.get_range("empty", 0, &mut [0]);
    assert_eq!(kind(range), ErrorKind::Truncated);
}

fn big_objects(store: &dyn Store) {
    let data = pattern((40 << 20) + 13);
    store.put("data/ff/big", &data).unwrap();
    assert_eq!(store.size_bytes("data/ff/big").unwrap(), data.len() as u64);
    assert!(store.get("data/ff/big").unwrap() == data);
    let mut middle = vec![0; 9 << 20];
    let start = (17 << 20) + 5;
    store.get_range("data/ff/big", start as u64, &mut middle).unwrap();
    assert!(middle == data[start..start + middle.len()]);
}

fn ranges(store: &dyn Store) {
    let data = pattern(1000);
    store.put("x", &data).unwrap();
    for (start, length) in [(0, 0), (0, 1), (0, 1000), (1, 998), (999, 1), (500, 0)] {
        let mut buffer = vec![0xee; length];
        store.get_range("x", start as u64, &mut buffer).unwrap();
        assert_eq!(buffer, data[start..start + length]);
    }
    for (start, length) in [(0, 1001), (999, 2), (1000, 1), (5000, 10), (u64::MAX >> 1, 1)] {
        let range = store.get_range("x", start, &mut vec![0; length]);
        assert_eq!(kind(range), ErrorKind::Truncated, "{start}+{length}");
    }
}

fn absent_objects(store: &dyn Store) {
    store.put("data/ab/abcd", b"x").unwrap();
    for name in ["config", "data/ab/abce", "data/cd/abcd", "data/ab/abc"] {
        assert_eq!(kind(store.get(name)), ErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.get_range(name, 0, &mut [0])), ErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.get_range(name, 0, &mut [])), ErrorKind::NotFound, "{name}");
        assert_eq!(kind(store.size_bytes(name)), ErrorKind::NotFound, "{name}");
    }
    let error = store.get("data/ab/abce").unwrap_err();
    assert!(error.to_string().contains("data/ab/abce"), "{error}");
    assert!(error.to_string().contains(&store.location()), "{error}");
}

fn deleting(store: &dyn Store) {
    store.put("index/a", b"x").unwrap();
    store.put("index/b", b"y").unwrap();
    store.delete("index/a").unwrap();
    assert_eq!(kind(store.get("index/a")), ErrorKind::NotFound);
    store.delete("index/a").unwrap();
    store.delete("never/was").unwrap();
    assert_eq!(listed(store, ""), BTreeMap::from([("index/b".to_owned(), 1)]));
}

fn listing_by_folder(store: &dyn Store) {
    assert!(listed(store, "").is_empty());
    assert!(listed(store, "snapshots").is_empty());
    for name in ["config", "data/aa/1", "data/aa/2", "data/ab/3", "database/4", "dat/5"] {
        store.put(name, name.as_bytes()).unwrap();
    }
    let names = |prefix| listed(store, prefix).into_keys().collect::<Vec<_>>();
    assert_eq!(names("data"), ["data/aa/1", "data/aa/2", "data/ab/3"]);
    assert_eq!(names("data/aa"), ["data/aa/1", "data/aa/2"]);
    assert_eq!(names("data/ac"), [""; 0]);
    assert_eq!(names("").len(), 6);
    assert_eq!(listed(store, "data")["data/aa/1"], 9);
}

fn listing_many(store: &dyn Store) {
    // More than two pages of an object store's listing.
    const COUNT: usize = 2_500;
    const THREADS: usize = 16;
    let name = |i: usize| format!("data/{:02x}/{i:05}", i % 7);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for i in (thread..COUNT).step_by(THREADS) {
                    store.put(&name(i), &pattern(i % 5)).unwrap();
                }
            });
        }
    });
    let expected = (0..COUNT).map(|i| (name(i), (i % 5) as u64)).collect();
    assert_eq!(listed(store, "data"), expected);
}

fn listing_while_working(store: &dyn Store) {
    for i in 0..10 {
        store.put(&format!("locks/{i}"), b"x").unwrap();
    }
    // The visitor may use the store itself.
    let mut seen = 0;
    let mut visit = |entry: Entry| {
        assert_eq!(store.get(&entry.name).unwrap(), b"x");
        store.delete(&entry.name).unwrap();
        seen += 1;
    };
    store.list("locks", &mut visit).unwrap();
    assert_eq!(seen, 10);
    assert!(listed(store, "").is_empty());
}

fn names_of_many_levels_and_odd_letters(store: &dyn Store) {
    let hex = "0123456789abcdef".repeat(4);
    let names = [
        format!("data/01/{hex}"),
        "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p".to_owned(),
        "with space/and+plus/a%41/ä&ö=ü?#x".to_owned(),
        "x-tmp-y".to_owned(),
    ];
    for name in &names {
        store.put(name, name.as_bytes()).unwrap();
    }
    for name in &names {
        assert_eq!(store.get(name).unwrap(), name.as_bytes());
    }
    assert_eq!(listed(store, "").into_keys().collect::<Vec<_>>(), {
        let mut sorted = names.to_vec();
        sorted.sort();
        sorted
    });
    for name in &names {
        store.delete(name).unwrap();
    }
    assert!(listed(store, "").is_empty());
}

fn names_that_are_refused(store: &dyn Store) {
    for name in ["", "/config", "../config", "data//x", "x-tmp-1"] {
        assert_eq!(kind(store.put(name, b"x")), ErrorKind::InvalidConfig, "{name}");
        assert_eq!(kind(store.get(name)), ErrorKind::InvalidConfig, "{name}");
        assert_eq!(kind(store.delete(name)), ErrorKind::InvalidConfig, "{name}");
    }
    assert_eq!(kind(store.list("../x", &mut |_| {})), ErrorKind::InvalidConfig);
    assert!(listed(store, "").is_empty());
}

fn one_writer_wins(store: &dyn Store) {
    const WRITERS: u8 = 8;
    for round in 0..5 {
        let name = format!("locks/{round}");
        let start = Barrier::new(usize::from(WRITERS));
        let won: Vec<u8> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (name, start) = (&name, &start);
                    scope.spawn(move || {
                        start.wait();
                        match store.put(name, &[writer; 5000]) {
                            Ok(()) => Some(writer),
                            Err(error) if error.kind == ErrorKind::AlreadyExists => None,
                            Err(error) => panic!("{error}: {}", error.source),
                        }
                    })
                })
                .collect();
            let done = writers.into_iter().map(|writer| writer.join().unwrap());
            done.flatten().collect()
        });
        let [winner] = won[..] else {
            panic!("writers {won:?} all believe to have written {name}");
        };
        assert_eq!(store.get(&name).unwrap(), [winner; 5000]);
    }
}

fn many_threads(store: &dyn Store) {
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            scope.spawn(move || {
                for i in 0..10 {
                    let (name, data) = (format!("{thread}/{i}"), pattern(1000 * thread + i));
                    store.put(&name, &data).unwrap();
                    assert_eq!(store.get(&name).unwrap(), data);
                    let folder = listed(store, &thread.to_string());
                    assert_eq!(folder.len(), i + 1);
                }
            });
        }
    });
}

fn nothing_left_over(store: &dyn Store) {
    store.put("data/aa/1", &pattern(3 << 20)).unwrap();
    kind(store.put("data/aa/1", &pattern(3 << 20)));
    assert_eq!(store.remove_leftovers(std::time::Duration::ZERO).unwrap(), 0);
    assert_eq!(listed(store, "").len(), 1);
}
