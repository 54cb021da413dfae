//! Making a repository: once, whoever else does so at the same moment, and after whoever died in it.

use std::thread;

use holdfast_store::MemoryStore;

use super::*;

const PASSWORD: &str = "a password";

fn init(store: &Arc<MemoryStore>) -> Result<Repository> {
    let cheap =
        InitOptions { kdf_target: Duration::from_millis(1), kdf_memory_bytes: 1 << 20, ..InitOptions::default() };
    Repository::init(store.clone(), PASSWORD, &cheap, OpenOptions::default())
}

fn keys(store: &MemoryStore) -> Vec<Id> {
    list_ids(store, FileKind::Key).unwrap()
}

#[test]
fn of_many_who_init_at_once_one_makes_the_repository_and_all_can_open_it() {
    for _ in 0..6 {
        let store = Arc::new(MemoryStore::default());
        let made = thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| init(&store))).collect();
            let ended = all.into_iter().map(|one| one.join().unwrap());
            ended
                .filter(|one| match one {
                    Ok(_) => true,
                    Err(Error::AlreadyInitialized { .. }) => false,
                    Err(error) => panic!("{error:?}"),
                })
                .count()
        });
        assert_eq!((made, keys(&store).len()), (1, 1));
        Repository::open(store, PASSWORD, OpenOptions::default()).unwrap();
    }
}

#[test]
fn the_key_of_an_init_that_was_killed_goes_with_the_next() {
    let (store, other) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
    init(&other).unwrap();
    copy_key(&other, &store);
    init(&store).unwrap();
    assert_eq!(keys(&store).len(), 1);
    Repository::open(store, PASSWORD, OpenOptions::default()).unwrap();
}

#[test]
fn a_key_that_opens_nothing_hides_no_other() {
    // Keys are tried by their random names: some of these come first.
    for _ in 0..6 {
        let (store, other) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
        init(&store).unwrap();
        init(&other).unwrap();
        copy_key(&other, &store);
        Repository::open(store, PASSWORD, OpenOptions::default()).unwrap();
    }
}

#[test]
fn a_second_init_says_that_there_is_a_repository_and_changes_nothing() {
    let store = Arc::new(MemoryStore::default());
    init(&store).unwrap();
    let before = keys(&store);
    assert!(matches!(init(&store), Err(Error::AlreadyInitialized { .. })));
    assert_eq!(keys(&store), before);
}

fn copy_key(from: &MemoryStore, to: &MemoryStore) {
    let name = FileKind::Key.path(&keys(from)[0]);
    to.put(&name, &from.get(&name).unwrap()).unwrap();
}
