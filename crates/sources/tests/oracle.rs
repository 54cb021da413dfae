//! For the same directory, our root tree has the same id as restic's: every byte of all metadata is the same, and so
//! is what is left out. Contents here are small enough to be one blob; chunking is tested with the engine.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail loudly")]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use holdfast_repository::Id;
use holdfast_repository::format::node::{Node, NodeKind};
use holdfast_repository::format::time::Timestamp;
use holdfast_repository::format::tree::{Tree, TreeBuilder};
use holdfast_repository::pattern::{Case, PatternList};
use holdfast_repository::source::{DirEntries, Entry, Found, Source};
use holdfast_sources::{Excludes, FileTree, FileTreeOptions, Root, TagFile};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps};

mod restic;
use restic::Restic;

/// What a source holds: its trees as blobs, and what it says besides.
#[derive(Default)]
struct Saved {
    trees: BTreeMap<String, Vec<u8>>,
    paths: Vec<String>,
    notes: Vec<String>,
    errors: Vec<String>,
}

impl Saved {
    fn of(source: &dyn Source) -> (Self, String) {
        let mut saved = Self::default();
        let root = saved.tree(source, source.root().unwrap());
        (saved, root.to_string())
    }

    fn tree(&mut self, source: &dyn Source, entries: DirEntries) -> Id {
        let mut builder = TreeBuilder::default();
        for found in entries {
            match found {
                Ok(Found::Entry(entry)) => self.entry(source, &mut builder, entry),
                Ok(Found::Note(note)) => self.notes.push(note.to_string()),
                Err(error) => self.errors.push(format!("{error}: {}", error.source)),
            }
        }
        let json = builder.finish();
        let id = Id::of(&json);
        self.trees.insert(id.to_string(), json);
        id
    }

    fn entry(&mut self, source: &dyn Source, builder: &mut TreeBuilder, entry: Entry) {
        self.paths.push(String::from_utf8_lossy(&entry.path).into_owned());
        let mut node = entry.node.clone();
        match node.kind {
            NodeKind::Dir => node.subtree = Some(self.tree(source, source.read_dir(&entry).unwrap())),
            NodeKind::File => {
                let mut content = Vec::new();
                let mut file = source.open(&entry).unwrap();
                file.content.read_to_end(&mut content).unwrap();
                node = file.node;
                node.content = Some(if content.is_empty() { Vec::new() } else { vec![Id::of(&content)] });
            }
            _ => {}
        }
        builder.push(&node).unwrap();
    }
}

fn same_roots(paths: &[&Path]) -> FileTreeOptions {
    FileTreeOptions { roots: paths.iter().map(|path| Root::at(path).unwrap()).collect(), ..FileTreeOptions::default() }
}

/// Backs up the same with restic and compares the trees' ids.
///
/// Directories above `folder` belong to others, who may change them at any moment: when the root's id differs, these
/// must be the same but for their times, and from `folder` on down everything.
#[track_caller]
fn check(restic: &Restic, folder: &Path, arguments: &[&OsStr], options: FileTreeOptions) -> Saved {
    let (saved, mut ours) = Saved::of(&FileTree::new(options).unwrap());
    assert!(saved.errors.is_empty(), "{:?}", saved.errors);
    let mut theirs = restic.backup(arguments);
    for name in folder.components().skip(1) {
        if ours == theirs {
            break;
        }
        let json = [saved.trees[&ours].clone(), restic.tree(&theirs)];
        let [our_node, their_node] = json.each_ref().map(|json| {
            let node = Tree::parse(json).unwrap().find(name.as_os_str().as_bytes()).cloned().unwrap();
            let time = Timestamp::default();
            Node { mtime: time, atime: time, ctime: time, ..node }
        });
        (ours, theirs) = (our_node.subtree.unwrap().to_string(), their_node.subtree.unwrap().to_string());
        let above = |node| Node { subtree: None, ..node };
        assert_eq!(above(our_node), above(their_node));
    }
    show_difference(restic, &saved, &ours, &theirs);
    assert_eq!(ours, theirs, "{arguments:?}");
    saved
}

/// Prints the trees that differ.
fn show_difference(restic: &Restic, saved: &Saved, ours: &str, theirs: &str) {
    if ours == theirs {
        return;
    }
    let (our_json, their_json) = (&saved.trees[ours], restic.tree(theirs));
    eprintln!("ours: {}theirs: {}", String::from_utf8_lossy(our_json), String::from_utf8_lossy(&their_json));
    let their_tree = Tree::parse(&their_json).unwrap();
    for our_node in Tree::parse(our_json).unwrap().nodes {
        let their_node = their_tree.find(&our_node.name);
        if let (Some(ours), Some(theirs)) = (our_node.subtree, their_node.and_then(|node| node.subtree)) {
            show_difference(restic, saved, &ours.to_string(), &theirs.to_string());
        }
    }
}

fn set_times(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: Timespec { tv_sec: 1, tv_nsec: 0 }, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_attribute(path: &Path, name: &[u8], value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// A POSIX ACL as the kernel keeps it: version 2, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// A directory with one of everything that is hard.
fn nasty(top: &Path) {
    let file = |name: &[u8], content: &str| {
        let path = top.join(OsStr::from_bytes(name));
        fs::write(&path, content).unwrap();
        path
    };
    for name in [
        &b"plain"[..],
        b"a<b>&c\"d\\e'f",
        b"\x01\x07\x08\x09\x0a\x0b\x0c\x0d\x1b\x7f",
        b"\xff\xfe\xe2\x82x\xc0\xaf\xed\xa0\x80",
        "\u{2028}\u{2029}\u{a0}\u{ad}\u{feff}\u{fffd}".as_bytes(),
        "é 日本 😀👩\u{200d}👩 \u{e000}\u{10ffff}\u{378}".as_bytes(),
        b"-rf",
        b" ",
        b"...",
        &[b'x'; 255],
    ] {
        file(name, "content");
    }
    file(b"empty", "");
    set_times(&file(b"before 1970", "1"), -300_000_000, 123_456_789);
    set_times(&file(b"far ahead", "2"), 10_000_000_000, 120_000_000);
    set_times(&file(b"at 1970", "2"), 0, 0);
    for (bits, name) in [(0o4755, "setuid"), (0o2755, "setgid"), (0o1644, "sticky"), (0o0, "none"), (0o7777, "all")] {
        let path = file(name.as_bytes(), name);
        rustix::fs::chmod(&path, Mode::from_raw_mode(bits)).unwrap();
    }
    fs::File::create(top.join("sparse")).unwrap().set_len(300_000).unwrap();

    let linked = file(b"hard link 1", "linked");
    fs::hard_link(&linked, top.join("hard link 2")).unwrap();
    for (name, target) in [
        (&b"link"[..], &b"plain"[..]),
        (b"link to nowhere", b"/no/such/file"),
        (b"link to bytes", b"\xff\n\xe2\x80\xa8<>&\"\\"),
        (b"link to separators", "\u{2028}\u{8}\u{c}\u{1}\u{7f}".as_bytes()),
        (b"long link", &[b'y'; 4000]),
    ] {
        symlink(OsStr::from_bytes(target), top.join(OsStr::from_bytes(name))).unwrap();
    }
    set_times(&top.join("link"), 1_000_000_000, 1);

    let attributed = file(b"attributes", "x");
    for (name, value) in [
        (&b"user.z"[..], &b"last first"[..]),
        (b"user.empty", b""),
        (b"user.a", &[0, 255]),
        (b"user.\xff<", &[7; 2000]),
    ] {
        set_attribute(&attributed, name, value);
    }
    let own = u32::MAX;
    let entries = [(1, 7, own), (2, 6, 1234), (4, 5, own), (0x10, 7, own), (0x20, 5, own)];
    set_attribute(&attributed, b"system.posix_acl_access", &acl(&entries));
    let dir = top.join("directory");
    fs::create_dir(&dir).unwrap();
    set_attribute(&dir, b"system.posix_acl_default", &acl(&entries));
    fs::create_dir_all(top.join("deep/er/and/empty")).unwrap();
    fs::write(top.join("deep/er/file"), "deep").unwrap();
    rustix::fs::chmod(dir, Mode::from_raw_mode(0o3755)).unwrap();
    set_times(&top.join("deep/er"), 1_600_000_000, 999_999_999);

    rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    drop(UnixListener::bind(top.join("socket")).unwrap());
    if rustix::process::geteuid().is_root() {
        let devices = [("block", FileType::BlockDevice, 7, 300), ("char", FileType::CharacterDevice, 1, 3)];
        for (name, kind, major, minor) in devices {
            // Not every container may.
            let _ = rustix::fs::mknodat(CWD, top.join(name), kind, Mode::RUSR, rustix::fs::makedev(major, minor));
        }
        let owned = file(b"owned by nobody known", "x");
        std::os::unix::fs::chown(owned, Some(54321), Some(65432)).unwrap();
    }
}

#[test]
fn a_nasty_directory_has_restics_tree_id() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("nasty");
    fs::create_dir(&top).unwrap();
    nasty(&top);
    let restic = Restic::new();
    let saved = check(&restic, folder.path(), &[top.as_os_str()], same_roots(&[&top]));
    assert_eq!(saved.notes, [format!("{} is a socket: not saved", top.join("socket").display())]);

    // And restic's trees, read and written again, are the same bytes.
    let is_top = |json: &[u8]| String::from_utf8_lossy(json).contains(r#""name":"plain""#);
    let mut wanted = vec![saved.trees.iter().find(|(_, json)| is_top(json)).unwrap().0.clone()];
    let mut count = 0;
    while let Some(id) = wanted.pop() {
        let theirs = restic.tree(&id);
        let tree = Tree::parse(&theirs).unwrap();
        // Bytes that are not UTF-8 in the name of an attribute are lost in JSON, to restic as to us.
        let text = String::from_utf8(theirs).unwrap().replace(r"user.\ufffd", "user.\u{fffd}");
        assert_eq!(String::from_utf8(tree.to_json()).unwrap(), text);
        assert!(tree.check_names().is_empty());
        wanted.extend(tree.nodes.iter().filter_map(|node| Some(node.subtree?.to_string())));
        count += 1;
    }
    assert_eq!(count, 6);
}

#[test]
fn access_times_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "x").unwrap();
    set_times(&folder.path().join("a"), 5, 5);
    let options = FileTreeOptions { with_atime: true, ..same_roots(&[&folder.path().join("a")]) };
    let (saved, _) = Saved::of(&FileTree::new(options).unwrap());
    let json = saved.trees.values().map(|json| String::from_utf8_lossy(json)).collect::<String>();
    assert!(json.contains(r#""atime":"1970-01-01T00:00:01Z""#), "{json}");
}

/// A tree for excludes.
fn project(top: &Path) {
    for (path, content) in [
        ("src/main.c", "int main;"),
        ("src/main.o", "\x7fELF"),
        ("src/deep/er/x.o", "o"),
        ("src/deep/er/keep.o", "kept"),
        ("Photos/A.JPG", "jpeg"),
        ("Photos/b.jpg", "jpeg"),
        ("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# cache"),
        ("cache/content", "gone"),
        ("cache/sub/content", "gone"),
        ("fake/CACHEDIR.TAG", "no signature"),
        ("fake/content", "stays"),
        ("marked/.nobackup", ""),
        ("marked/x", "gone"),
        ("marked/sub/y", "gone"),
        ("headed/.skip", "yes, skip"),
        ("headed/x", "gone"),
        ("large", "0123456789"),
        ("small", "012345678"),
        ("[odd]/x", "x"),
    ] {
        let path = top.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    symlink("0123456789/a long target", top.join("link")).unwrap();
}

#[test]
fn excludes_leave_out_what_restic_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("project");
    project(&top);
    let restic = Restic::new();
    let patterns = |case, patterns: &[&str]| PatternList::new(patterns, case).unwrap();
    let rooted = format!("{}/src/*/er", top.display());
    let any_depth = format!("{}/**/er", top.display());
    let mut count = 0;
    let mut check = |flags: &[&str], excludes: Excludes| {
        let mut arguments: Vec<_> = flags.iter().map(OsStr::new).collect();
        arguments.push(top.as_os_str());
        let saved = check(&restic, folder.path(), &arguments, FileTreeOptions { excludes, ..same_roots(&[&top]) });
        count += 1;
        saved
    };
    for list in [
        &["*.o"][..],
        &["*.o", "!keep.o"],
        &["src/deep"],
        &["/src"],
        &["project"],
        &[&rooted],
        &[&any_depth],
        &["src/**/x.o"],
        &["[A-Q]*", "?mall"],
        &[r"\[odd\]"],
        &["deep/", "./large"],
    ] {
        let flags: Vec<_> = list.iter().flat_map(|pattern| ["--exclude", pattern]).collect();
        check(&flags, Excludes { patterns: vec![patterns(Case::Sensitive, list)], ..Excludes::default() });
    }
    check(
        &["--iexclude", "*.JPG", "--exclude", "large"],
        Excludes {
            patterns: vec![patterns(Case::Ignored, &["*.JPG"]), patterns(Case::Sensitive, &["large"])],
            ..Excludes::default()
        },
    );
    let saved = check(&["--exclude-caches"], Excludes { tag_files: vec![TagFile::cachedir()], ..Excludes::default() });
    assert!(saved.paths.iter().any(|path| path.ends_with("cache/CACHEDIR.TAG")));
    assert!(!saved.paths.iter().any(|path| path.ends_with("cache/content")));
    assert!(saved.notes.len() == 1 && saved.notes[0].contains("fake/CACHEDIR.TAG"), "{:?}", saved.notes);
    check(
        &["--exclude-if-present", ".nobackup", "--exclude-if-present", ".skip:yes"],
        Excludes {
            tag_files: vec![TagFile::parse(b".nobackup").unwrap(), TagFile::parse(b".skip:yes").unwrap()],
            ..Excludes::default()
        },
    );
    check(&["--exclude-larger-than", "9"], Excludes { larger_than_bytes: Some(9), ..Excludes::default() });
    check(&["--one-file-system"], Excludes { other_file_systems: true, ..Excludes::default() });
    assert_eq!(count, 16);
}

#[test]
fn several_roots_nested_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("project");
    project(&top);
    symlink(&top, folder.path().join("alias")).unwrap();
    let restic = Restic::new();
    let path = |path: &str| folder.path().join(path);
    for roots in [
        &["project/src", "project/large"][..],
        &["project", "project/src/deep"],
        &["project/cache/sub", "project/cache"],
        &["alias/src"],
        &["alias", "project/link"],
        &["project/large"],
        &["project/src", "project/src"],
    ] {
        let roots: Vec<PathBuf> = roots.iter().map(|root| path(root)).collect();
        let arguments: Vec<_> = roots.iter().map(|root| root.as_os_str()).collect();
        let roots: Vec<_> = roots.iter().map(PathBuf::as_path).collect();
        check(&restic, folder.path(), &arguments, same_roots(&roots));
    }
    // What is named is never left out; what is below it may be.
    let root = path("project/cache/sub");
    let excludes = Excludes {
        patterns: vec![PatternList::new(["sub"], Case::Sensitive).unwrap()],
        tag_files: vec![TagFile::cachedir()],
        ..Excludes::default()
    };
    let flags = ["--exclude-caches", "--exclude", "sub"].map(OsStr::new);
    let arguments = [&flags[..], &[root.as_os_str()]].concat();
    check(&restic, folder.path(), &arguments, FileTreeOptions { excludes, ..same_roots(&[&root]) });
}

#[test]
fn relative_paths() {
    let restic = Restic::new();
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    project(&top.join("project"));
    fs::write(top.join("beside"), "x").unwrap();
    let inside = top.join("project/src");
    for (at, paths) in [
        (&top, &["project"][..]),
        (&top, &["./project/src/", "beside"]),
        (&top, &["."]),
        (&inside, &[".."]),
        (&inside, &["../../project", "deep"]),
        (&inside, &["../src", "../../project/src/main.c"]),
    ] {
        let roots = paths.iter().map(|path| Root::relative(Path::new(path), at).unwrap()).collect();
        let patterns =
            vec![PatternList::new([top.join("project/src/deep").to_str().unwrap()], Case::Sensitive).unwrap()];
        let excludes = Excludes { patterns, ..Excludes::default() };
        let tree = FileTree::new(FileTreeOptions { roots, excludes, with_atime: false }).unwrap();
        let (saved, ours) = Saved::of(&tree);
        assert!(saved.errors.is_empty(), "{:?}", saved.errors);
        let excluded = top.join("project/src/deep");
        let arguments: Vec<&OsStr> =
            [OsStr::new("--exclude"), excluded.as_os_str()].into_iter().chain(paths.iter().map(OsStr::new)).collect();
        let theirs = restic.backup_in(at, &arguments);
        show_difference(&restic, &saved, &ours, &theirs);
        assert_eq!(ours, theirs, "{paths:?}");
        assert!(saved.paths.iter().all(|path| Path::new(path).starts_with(&top)), "{:?}", saved.paths);
        let named = tree.paths().into_iter().map(|path| PathBuf::from(OsStr::from_bytes(&path)));
        assert!(
            named.zip(paths.iter()).all(|(named, path)| named == at.join(path).canonicalize().unwrap()),
            "{paths:?}"
        );
    }
}

#[test]
fn a_root_under_another_path() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("project");
    project(&top);
    let lying_over = folder.path().join("volume");
    fs::create_dir(&lying_over).unwrap();
    fs::write(lying_over.join("inside"), "x").unwrap();
    let roots =
        [("/source/data", &top), ("/source/data/src/deep", &lying_over), ("/source/data/new/mount", &lying_over)];
    let roots = roots.map(|(path, real)| Root::mapped(path.into(), real.clone()));
    let options = FileTreeOptions { roots: roots.to_vec(), ..FileTreeOptions::default() };
    let (saved, id) = Saved::of(&FileTree::new(options.clone()).unwrap());
    assert!(saved.errors.is_empty());
    for path in ["/source", "/source/data/large", "/source/data/src/deep/inside", "/source/data/new/mount/inside"] {
        assert!(saved.paths.iter().any(|saved| saved == path), "{path} in {:?}", saved.paths);
    }
    assert!(!saved.paths.iter().any(|path| path.contains("deep/er")), "covered by the other root");
    assert_eq!(Saved::of(&FileTree::new(options).unwrap()).1, id, "the same twice");
}

#[test]
fn paths_longer_than_the_system_takes() {
    let folder = tempfile::tempdir().unwrap();
    let name = CString::new([b'd'; 200]).unwrap();
    let mut dir = rustix::fs::openat(CWD, folder.path(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..200 {
        rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, &name, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&dir, c"file", flags, Mode::RUSR | Mode::WUSR).unwrap();
    rustix::io::write(&file, b"content").unwrap();
    rustix::fs::fsetxattr(&file, "user.name", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    let (saved, _) = Saved::of(&FileTree::new(same_roots(&[folder.path()])).unwrap());
    assert!(saved.errors.is_empty(), "{:?}", saved.errors);
    let deepest = saved.paths.last().unwrap();
    assert!(deepest.len() > 40_000 && deepest.ends_with("/file"));
    let content = Id::of(b"content").to_string();
    let trees: Vec<_> = saved.trees.values().map(|json| String::from_utf8_lossy(json)).collect();
    let has_all = |json: &str| json.contains(&content) && json.contains("user.name");
    assert!(trees.iter().any(|json| has_all(json)), "content and attributes of the deepest file");
}

#[test]
fn restics_own_order_of_arguments_is_kept_in_paths() {
    let folder = tempfile::tempdir().unwrap();
    let [b, a] = ["b", "a"].map(|name| {
        fs::write(folder.path().join(name), name).unwrap();
        folder.path().join(name)
    });
    let paths = FileTree::new(same_roots(&[&b, &a, &b])).unwrap().paths();
    let paths: Vec<_> = paths.iter().map(|path| OsString::from(OsStr::from_bytes(path))).collect();
    assert_eq!(paths, [b.into_os_string(), a.into_os_string()]);
}
