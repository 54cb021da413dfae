//! Trees that no honest program writes, and paths that restic does not take.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use holdfast_store::{Fault, FaultyStore, MemoryStore, Operation, Rule};
use rustix::fs::{AtFlags, CWD, OFlags, openat, statat};
use tempfile::TempDir;

use rustix::fd::AsFd;

use super::*;
use crate::format::BlobKind;
use crate::format::node::{Node, NodeKind, mode};
use crate::format::time::Timestamp;
use crate::format::tree::Tree;
use crate::pack_writer::PackWriter;
use crate::{InitOptions, OpenOptions};

/// A repository in memory, and a target.
struct Bench {
    repository: Arc<Repository>,
    store: Arc<FaultyStore<MemoryStore>>,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let store = Arc::new(FaultyStore::new(MemoryStore::default()));
        let init =
            InitOptions { kdf_target: Duration::from_millis(1), kdf_memory_bytes: 1 << 20, ..InitOptions::default() };
        let repository = Repository::init(Arc::clone(&store) as _, "test", &init, OpenOptions::default()).unwrap();
        Self { repository: Arc::new(repository), store, dir: TempDir::new().unwrap() }
    }

    /// Stores trees (the last one is the root) and the content of files.
    fn save(&self, trees: &[Tree], contents: &[&[u8]]) -> Id {
        let writer = PackWriter::new(&self.repository, self.repository.index().unwrap(), false).unwrap();
        let mut encoder = writer.encoder().unwrap();
        for content in contents {
            writer.save(&mut encoder, BlobKind::Data, content).unwrap();
        }
        let mut root = None;
        for tree in trees {
            root = Some(writer.save(&mut encoder, BlobKind::Tree, &tree.to_json()).unwrap().0);
        }
        drop(encoder);
        writer.finish().unwrap();
        root.unwrap()
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    fn restore(&self, tree: &Id) -> (RestoreReport, Vec<String>) {
        let errors = Arc::new(Mutex::new(vec![]));
        let sink = Arc::clone(&errors);
        let monitor = Monitor::new(
            move |event| {
                if let crate::Event::Error { item, message } = event {
                    sink.lock().unwrap().push(format!("{item}: {message}"));
                }
            },
            false,
        );
        let mut options = RestoreOptions::new(self.target());
        // These nodes belong to root; whoever runs the test does not have to be.
        options.owners = Owners::Nobody;
        let report = restore(&self.repository, tree, &options, &monitor).unwrap();
        let errors = errors.lock().unwrap().clone();
        (report, errors)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.target())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn node(name: &str, kind: NodeKind) -> Node {
    let mtime = Timestamp::from_unix(1_000_000_000, 5);
    let content = (kind == NodeKind::File).then(Vec::new);
    Node {
        name: name.into(),
        kind,
        mode: mode::from_unix(kind, 0o750),
        mtime,
        atime: mtime,
        content,
        ..Node::default()
    }
}

fn file(name: &str, content: &[u8]) -> Node {
    Node { content: Some(vec![Id::of(content)]), size: content.len() as u64, ..node(name, NodeKind::File) }
}

fn directory(name: &str, tree: &Tree) -> Node {
    Node { subtree: Some(Id::of(&tree.to_json())), ..node(name, NodeKind::Dir) }
}

#[test]
fn names_that_would_escape_are_refused_and_told() {
    let bench = Bench::new();
    let names = ["..", "/etc/evil", "../evil", "", ".", "a\0b", "fine"];
    let mut nodes: Vec<Node> = names.iter().map(|name| file(name, b"x")).collect();
    let inner = Tree { nodes: vec![file("evil", b"x")] };
    nodes.push(directory("..", &inner));
    let root = bench.save(&[inner, Tree { nodes }], &[b"x"]);
    let (report, errors) = bench.restore(&root);
    assert_eq!((report.errors, report.files_restored), (7, 1), "{errors:?}");
    assert_eq!(bench.names(), ["fine"]);
    assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 1, "nothing beside the target");
}

#[test]
fn a_link_restored_first_does_not_lead_a_directory_of_its_name_out() {
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let link = Node { link_target: outside.to_str().unwrap().into(), ..node("a", NodeKind::Symlink) };
    let inner = Tree { nodes: vec![file("evil", b"x")] };
    let root = bench.save(&[inner.clone(), Tree { nodes: vec![link, directory("a", &inner)] }], &[b"x"]);
    let (report, errors) = bench.restore(&root);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(report.errors, 1, "{errors:?}");
}

#[test]
fn paths_longer_than_the_system_takes_and_more_directories_than_stay_open() {
    const DEPTH: usize = 300;
    let bench = Bench::new();
    let name = "d".repeat(200);
    let mut trees = vec![Tree { nodes: vec![file("file", b"content")] }];
    for _ in 0..DEPTH {
        trees.push(Tree { nodes: vec![directory(&name, &trees[trees.len() - 1]), file("file", b"content")] });
    }
    let root = bench.save(&trees, &[b"content"]);
    let (report, errors) = bench.restore(&root);
    assert_eq!((report.errors, report.dirs, report.files_restored), (0, DEPTH as u64, DEPTH as u64 + 1), "{errors:?}");
    let open =
        |dir: rustix::fd::OwnedFd, name: &str| openat(dir, name, OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let mut dir = openat(CWD, bench.target(), OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        dir = open(dir, &name);
        let stat = rustix::fs::fstat(&dir).unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_mtime, stat.st_mtime_nsec), (0o750, 1_000_000_000, 5));
        assert_eq!(statat(&dir, "file", AtFlags::empty()).unwrap().st_size, 7);
    }
    drop(dir);
    remove::remove_all(
        openat(CWD, bench.dir.path(), OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap().as_fd(),
        b"target",
    )
    .unwrap();
}

#[test]
fn what_is_missing_or_wrong_in_the_repository_is_told_and_the_rest_restored() {
    let bench = Bench::new();
    let lost = Tree { nodes: vec![file("never", b"stored")] };
    let wrong_size = Node { size: 99, ..file("wrong-size", b"here") };
    let nodes = vec![
        directory("dir-lost", &lost),
        file("file-lost", b"lost"),
        file("good", b"here"),
        node("socket", NodeKind::Socket),
        wrong_size,
    ];
    let root = bench.save(&[Tree { nodes }], &[b"here"]);
    let (report, errors) = bench.restore(&root);
    assert_eq!(report.errors, 3, "{errors:?}");
    assert_eq!(bench.names(), ["dir-lost", "good", "wrong-size"]);
    for (error, item) in errors.iter().zip(["/dir-lost", "/file-lost", "/wrong-size"]) {
        assert!(error.starts_with(item), "{error}");
    }
    let gone = bench.repository.load_tree(&Id([7; 32]));
    assert!(
        gone.is_err()
            && restore(&bench.repository, &Id([7; 32]), &RestoreOptions::new(bench.target()), &Monitor::default())
                .is_err()
    );
}

#[test]
fn a_read_that_fails_once_is_tried_again_and_one_that_fails_always_is_an_error_of_its_files() {
    let bench = Bench::new();
    let root = bench.save(&[Tree { nodes: vec![file("a", b"one"), file("b", b"two")] }], &[b"one", b"two"]);
    bench.store.inject(
        Rule::on(Operation::GetRange, Fault::Fail(holdfast_store::ErrorKind::Unavailable))
            .under("data")
            .skip(1)
            .times(1),
    );
    assert_eq!(bench.restore(&root).0.errors, 0);
    std::fs::remove_dir_all(bench.target()).unwrap();
    // The tree is read; the files are not.
    bench.store.inject(
        Rule::on(Operation::GetRange, Fault::Fail(holdfast_store::ErrorKind::Unavailable)).under("data").skip(1),
    );
    let (report, errors) = bench.restore(&root);
    assert_eq!((report.errors, report.files_restored), (2, 0), "{errors:?}");
}
