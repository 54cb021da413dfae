//! Trees that make no sense are found, and named.

use std::time::Duration;

use holdfast_store::{Entry, Fault, FaultyStore, MemoryStore, Operation, Rule, Store};

use super::*;
use crate::format::snapshot::Snapshot;
use crate::pack_writer::PackWriter;
use crate::{InitOptions, OpenOptions};

fn new_repository(store: Arc<dyn Store>) -> Arc<Repository> {
    let init =
        InitOptions { kdf_target: Duration::from_millis(1), kdf_memory_bytes: 1 << 20, ..InitOptions::default() };
    Arc::new(Repository::init(store, "password", &init, OpenOptions::default()).unwrap())
}

fn check_all(repository: &Arc<Repository>) -> Vec<Problem> {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check(repository, &options, &Monitor::default()).unwrap();
    report.findings.into_iter().map(|finding| finding.problem).collect()
}

/// A snapshot of a tree with these nodes, as JSON; every file's content is one blob of 5 bytes where `BLOB` stands.
fn findings(nodes: &str) -> Vec<Problem> {
    let repository = new_repository(Arc::new(MemoryStore::new()));
    let writer = PackWriter::new(&repository, repository.index().unwrap(), false).unwrap();
    let mut encoder = writer.encoder().unwrap();
    let (blob, _) = writer.save(&mut encoder, BlobKind::Data, b"hello").unwrap();
    let tree = format!(r#"{{"nodes":[{}]}}"#, nodes.replace("BLOB", &blob.to_string()));
    let (tree, _) = writer.save(&mut encoder, BlobKind::Tree, tree.as_bytes()).unwrap();
    writer.finish().unwrap();
    let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{tree}","paths":["/p"]}}"#);
    assert!(Snapshot::parse(json.as_bytes()).is_ok());
    repository.save_file(FileKind::Snapshot, json.as_bytes()).unwrap();
    check_all(&repository)
}

#[track_caller]
fn check_entry(nodes: &str, want: &str) {
    match &findings(nodes)[..] {
        [Problem::TreeEntry { reason, .. }] => assert!(reason.contains(want), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sane_tree_is_clean() {
    assert_eq!(findings(r#"{"name":"a","type":"file","size":5,"content":["BLOB"]},{"name":"b","type":"symlink"}"#), []);
}

#[test]
fn entries_that_make_no_sense_are_found() {
    check_entry(r#"{"name":"a/b","type":"symlink"}"#, "no file can have that name");
    check_entry(r#"{"name":"..","type":"symlink"}"#, "no file can have that name");
    check_entry(r#"{"name":"b","type":"symlink"},{"name":"a","type":"symlink"}"#, "not sorted");
    check_entry(r#"{"name":"a","type":"symlink"},{"name":"a","type":"symlink"}"#, "there twice");
    check_entry(r#"{"name":"a","type":"dir"}"#, "without a tree");
    check_entry(r#"{"name":"a","type":"file"}"#, "without a list of its content");
    check_entry(r#"{"name":"a","type":"wormhole"}"#, "does not know");
}

#[test]
fn what_is_missing_is_found_once() {
    let id = "5f2c2974fdc81da639b0d3d98ff674720e9ebbb31c8d12d45fa05448d0142cf0";
    let file = |name| format!(r#"{{"name":"{name}","type":"file","size":5,"content":["{id}","{id}"]}}"#);
    let found = findings(&[file("a"), file("b")].join(","));
    assert_eq!(found, [Problem::BlobMissing { kind: BlobKind::Data, id: id.parse().unwrap() }]);
    let found = findings(&format!(r#"{{"name":"a","type":"dir","subtree":"{id}"}}"#));
    assert_eq!(found, [Problem::BlobMissing { kind: BlobKind::Tree, id: id.parse().unwrap() }]);
}

#[test]
fn a_file_of_another_size_than_its_content_is_a_note() {
    let found = findings(r#"{"name":"a","type":"file","size":6,"content":["BLOB"]}"#);
    assert!(matches!(found[..], [Problem::FileSize { size_bytes: 6, content_bytes: 5, .. }]), "{found:?}");
    assert_eq!(found[0].severity(), Severity::Note);
}

/// Where the object of this name is removed by somebody else at the moment at which it is read.
struct Removed<S>(S, String);

impl<S: Store> Store for Removed<S> {
    fn location(&self) -> String {
        self.0.location()
    }
    fn put(&self, name: &str, data: &[u8]) -> holdfast_store::Result<()> {
        self.0.put(name, data)
    }
    fn get(&self, name: &str) -> holdfast_store::Result<Vec<u8>> {
        if name == self.1 {
            self.0.delete(name)?;
        }
        self.0.get(name)
    }
    fn get_range(&self, name: &str, offset: u64, buffer: &mut [u8]) -> holdfast_store::Result<()> {
        self.0.get_range(name, offset, buffer)
    }
    fn size_bytes(&self, name: &str) -> holdfast_store::Result<u64> {
        self.0.size_bytes(name)
    }
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Entry)) -> holdfast_store::Result<()> {
        self.0.list(prefix, visit)
    }
    fn delete(&self, name: &str) -> holdfast_store::Result<()> {
        self.0.delete(name)
    }
}

#[test]
fn a_key_that_is_removed_meanwhile_is_no_damage_and_one_that_cannot_be_read_is() {
    let content = b"of an init that comes too late";
    let id = Id::of(content);
    let name = FileKind::Key.path(&id);

    let repository = new_repository(Arc::new(Removed(MemoryStore::new(), name.clone())));
    repository.store().put(&name, content).unwrap();
    assert_eq!(check_all(&repository), []);
    assert_eq!(repository.list(FileKind::Key).unwrap().len(), 1);

    let store = Arc::new(FaultyStore::new(MemoryStore::new()));
    let repository = new_repository(store.clone());
    store.put(&name, content).unwrap();
    assert_eq!(check_all(&repository), []);
    store.inject(Rule::on(Operation::Get, Fault::Fail(ErrorKind::NotFound)).under(&name));
    assert!(matches!(&check_all(&repository)[..], [Problem::Key { id: found, .. }] if *found == id));
}
