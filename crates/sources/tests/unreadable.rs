//! What cannot be read, or changes while it is looked at, is an error that names it; the rest goes on.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use holdfast_repository::format::node::NodeKind;
use holdfast_repository::source::{DirEntries, Entry, Found, Source, SourceError, SourceErrorKind};
use holdfast_sources::{FileTree, FileTreeError, FileTreeOptions, Root};
use rustix::fs::{CWD, FileType, Mode};

/// The tree of `folder` as the whole of a snapshot.
fn tree(folder: &Path) -> FileTree {
    let roots = vec![Root::mapped(b"/".to_vec(), folder.into())];
    FileTree::new(FileTreeOptions { roots, ..FileTreeOptions::default() }).unwrap()
}

fn folder_with(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        fs::write(folder.path().join(name), format!("content of {name}")).unwrap();
    }
    folder
}

fn next_entry(entries: &mut DirEntries) -> Entry {
    match entries.next() {
        Some(Ok(Found::Entry(entry))) => entry,
        other => panic!("no entry but {other:?}"),
    }
}

fn content(tree: &FileTree, entry: &Entry) -> Vec<u8> {
    let mut content = Vec::new();
    tree.open(entry).unwrap().content.read_to_end(&mut content).unwrap();
    content
}

#[track_caller]
fn check_error<T>(result: Result<T, SourceError>, path: &str, kind: SourceErrorKind) {
    let Err(error) = result else { panic!("no error") };
    assert_eq!((error.path.as_slice(), error.kind), (path.as_bytes(), kind), "{error}: {}", error.source);
    assert!(error.to_string().contains(path), "{error}");
}

#[test]
fn a_file_that_vanishes_between_its_turn_and_the_listing() {
    let folder = folder_with(&["a", "b", "c"]);
    let mut entries = tree(folder.path()).root().unwrap();
    next_entry(&mut entries);
    fs::remove_file(folder.path().join("b")).unwrap();
    check_error(entries.next().unwrap(), "/b", SourceErrorKind::Vanished);
    assert_eq!(next_entry(&mut entries).path, b"/c");
    assert!(entries.next().is_none());
}

#[test]
fn a_file_that_is_something_else_when_it_is_opened() {
    let folder = folder_with(&["gone", "link", "pipe", "dir"]);
    let tree = tree(folder.path());
    let path = |name: &str| folder.path().join(name);
    let entries: Vec<_> = tree.root().unwrap().collect();
    for name in ["gone", "link", "pipe", "dir"] {
        fs::remove_file(path(name)).unwrap();
    }
    symlink("/etc/passwd", path("link")).unwrap();
    rustix::fs::mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::create_dir(path("dir")).unwrap();
    assert_eq!(entries.len(), 4);
    for found in entries {
        let Ok(Found::Entry(entry)) = found else { panic!("{found:?}") };
        check_error(tree.open(&entry), &String::from_utf8_lossy(&entry.path), SourceErrorKind::Vanished);
    }
}

#[test]
fn a_directory_that_is_a_link_when_it_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("dir")).unwrap();
    let tree = tree(folder.path());
    let entry = next_entry(&mut tree.root().unwrap());
    fs::remove_dir(folder.path().join("dir")).unwrap();
    symlink("/etc", folder.path().join("dir")).unwrap();
    check_error(tree.read_dir(&entry).map(|_| ()), "/dir", SourceErrorKind::Vanished);
}

#[test]
fn what_is_recorded_of_a_changed_file_is_what_is_read() {
    let folder = folder_with(&["a"]);
    let path = folder.path().join("a");
    let tree = tree(folder.path());
    let entry = next_entry(&mut tree.root().unwrap());
    fs::write(folder.path().join("new"), "another file, and longer").unwrap();
    rustix::fs::lsetxattr(folder.path().join("new"), "user.x", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    let opened = tree.open(&entry).unwrap();
    assert_ne!(opened.node.inode, entry.node.inode);
    assert_eq!(opened.node.size, 24);
    assert_eq!(opened.node.extended_attributes.len(), 1);
    assert_eq!(content(&tree, &entry), b"another file, and longer");
}

#[test]
fn a_file_that_grows_or_shrinks_while_it_is_read_is_read_to_its_end() {
    let folder = folder_with(&["a"]);
    let tree = tree(folder.path());
    let entry = next_entry(&mut tree.root().unwrap());
    let mut opened = tree.open(&entry).unwrap();
    let mut start = [0; 7];
    opened.content.read_exact(&mut start).unwrap();
    fs::File::options().append(true).open(folder.path().join("a")).unwrap().write_all(b" and more").unwrap();
    let mut rest = Vec::new();
    opened.content.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b" of a and more");

    let mut opened = tree.open(&entry).unwrap();
    fs::File::options().write(true).open(folder.path().join("a")).unwrap().set_len(3).unwrap();
    let mut all = Vec::new();
    opened.content.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"con");
}

/// Root may read everything, so what is forbidden is looked at by a thread that is somebody else.
fn as_nobody(check: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                if rustix::process::geteuid().is_root() {
                    let nobody = rustix::process::Uid::from_raw(65534);
                    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
                }
                check();
            })
            .join()
            .unwrap();
    });
}

#[test]
fn what_must_not_be_read() {
    let folder = folder_with(&["a", "z"]);
    fs::create_dir(folder.path().join("dir")).unwrap();
    let set_mode = |name: &str, bits| rustix::fs::chmod(folder.path().join(name), Mode::from_raw_mode(bits)).unwrap();
    set_mode("a", 0o000);
    set_mode("dir", 0o000);
    set_mode(".", 0o755);
    as_nobody(|| {
        let tree = tree(folder.path());
        let mut entries = tree.root().unwrap();
        let file = next_entry(&mut entries);
        check_error(tree.open(&file), "/a", SourceErrorKind::Permission);
        let dir = next_entry(&mut entries);
        assert_eq!(dir.node.kind, NodeKind::Dir);
        check_error(tree.read_dir(&dir).map(|_| ()), "/dir", SourceErrorKind::Permission);
        assert_eq!(content(&tree, &next_entry(&mut entries)), b"content of z");
    });
    set_mode("dir", 0o700);
}

#[test]
fn names_may_be_listed_where_nothing_can_be_looked_at() {
    let folder = folder_with(&["a", "b"]);
    rustix::fs::chmod(folder.path(), Mode::from_raw_mode(0o444)).unwrap();
    as_nobody(|| {
        let found: Vec<_> = tree(folder.path()).root().unwrap().collect();
        assert_eq!(found.len(), 2);
        for (found, path) in found.into_iter().zip(["/a", "/b"]) {
            check_error(found, path, SourceErrorKind::Permission);
        }
    });
    rustix::fs::chmod(folder.path(), Mode::from_raw_mode(0o755)).unwrap();
}

#[test]
fn access_times_are_left_alone() {
    let folder = folder_with(&["a"]);
    let path = folder.path().join("a");
    let past = std::time::SystemTime::UNIX_EPOCH;
    let times = fs::FileTimes::new().set_accessed(past);
    fs::File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    let tree = tree(folder.path());
    content(&tree, &next_entry(&mut tree.root().unwrap()));
    assert_eq!(fs::metadata(path).unwrap().accessed().unwrap(), past);
}

#[test]
fn trees_that_cannot_be_backed_up() {
    let new = |roots: &[(&str, &str)]| {
        let roots = roots.iter().map(|(path, real)| Root::mapped((*path).into(), real.into())).collect();
        FileTree::new(FileTreeOptions { roots, ..FileTreeOptions::default() })
    };
    assert!(matches!(new(&[]), Err(FileTreeError::NoRoots)));
    for path in ["", "a", "/a/", "/a//b", "/a/../b", "/./a", "/a\0"] {
        assert!(matches!(new(&[(path, "/")]), Err(FileTreeError::BadPath(_))), "{path:?}");
    }
    assert!(matches!(new(&[("/a", "/etc"), ("/a", "/usr")]), Err(FileTreeError::Twice { .. })));
    assert!(matches!(new(&[("/a", "/no/such")]), Err(FileTreeError::NothingThere { .. })));

    // Mounted over a part of another it may be; named relative to different folders it would hide that part.
    assert!(new(&[("/a", "/etc"), ("/a/b", "/usr")]).is_ok() && new(&[("/a/b", "/usr"), ("/a", "/etc")]).is_ok());
    for pair in [
        ["lib", "../lib/x"],
        ["../lib/x", "lib"],
        ["lib", "/lib/x"],
        ["/lib/x", "lib"],
        [".", "../lib"],
        ["../lib", "."],
    ] {
        let roots = pair.map(|path| Root::relative(Path::new(path), Path::new("/usr/local")).unwrap()).to_vec();
        let made = FileTree::new(FileTreeOptions { roots, ..FileTreeOptions::default() });
        assert!(matches!(made, Err(FileTreeError::Twice { .. })), "{pair:?}");
    }

    // One of two is there: the other is an error of its own.
    let tree = new(&[("/a", "/no/such"), ("/b", "/etc/passwd")]).unwrap();
    let mut entries = tree.root().unwrap();
    check_error(entries.next().unwrap(), "/a", SourceErrorKind::Vanished);
    assert_eq!(next_entry(&mut entries).path, b"/b");
}

#[test]
fn plain_roots() {
    for (real, want) in [("/a/b/", "/a/b"), ("/a/./b/../c", "/a/c"), ("/..", "/"), ("/", "/")] {
        assert_eq!(Root::at(Path::new(real)).unwrap().name(), want.as_bytes());
    }
    assert_eq!(Root::at(Path::new("a")), None);
}
