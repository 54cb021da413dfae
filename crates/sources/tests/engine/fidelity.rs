//! Everything that a file system holds comes back as it was: by us and by restic, whoever of us saved it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_repository::backup::{BackupOptions, backup};
use holdfast_repository::check::ReadData;
use holdfast_repository::format::snapshot::{SnapshotFilter, SnapshotSummary};
use holdfast_repository::restore::{Overwrite, RestoreOptions, restore};
use holdfast_repository::snapshots::select;
use holdfast_repository::source::{DirEntries, Entry, OpenFile, Source, SourceError};
use holdfast_repository::{Id, Monitor};
use holdfast_sources::FileTree;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, mkdirat, mknodat, openat, utimensat};

use crate::look::{assert_same, look};
use crate::oracle::{Bench, noise};
use crate::{assert_whole, bring_back_all, errors, save_all, tree};

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run: cargo xtask tools"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One of everything.
fn fill(bench: &Bench) {
    let data = bench.data();
    bench.write("large", 1, 9 << 20);
    bench.write("dir/large too", 2, 3_000_001);
    for n in 0..300 {
        bench.write(&format!("many/{n}"), 10 + n, n as usize * 17);
    }
    fs::copy(data.join("large"), data.join("dir/copy")).unwrap();
    fs::write(data.join("text"), "all work and no play\n".repeat(100_000)).unwrap();
    fs::create_dir_all(data.join("empty/in/empty")).unwrap();
    let sparse = File::create(data.join("sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 10_000_000).unwrap();
    File::create(data.join("hole")).unwrap().set_len(5_000_000).unwrap();

    for name in [
        &b"\xff\xfe\x80"[..],
        b"tab\t newline\n",
        b"\x01\x7f",
        b"quote\"back\\slash",
        b" ",
        b"-rf",
        b"$(x)`",
        &[b'n'; 255],
    ] {
        fs::write(data.join("dir").join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(data.join("dir/\u{2028}\u{1f511} e\u{301} \u{fffd}"), "x").unwrap();
    for (name, target) in [
        ("link", &b"large"[..]),
        ("link to dir", b"dir"),
        ("dangling", b"/no/such/\xff"),
        ("long link", &[b'l'; 4000]),
        ("loop", b"loop"),
    ] {
        symlink(OsStr::from_bytes(target), data.join(name)).unwrap();
    }
    for name in ["zz-linked", "dir/linked", "empty/linked"] {
        fs::hard_link(data.join("many/299"), data.join(name)).unwrap();
    }
    mknodat(CWD, data.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();

    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(data.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    for path in ["many/5", "dir", "empty/in"] {
        set(path, "user.bytes", b"\0\xff\n");
        set(path, "user.empty", b"");
        set(path, "user.long", &[7; 3000]);
    }
    let facl = |arguments: &[&str], path: &str| run(Command::new("setfacl").args(arguments).arg(data.join(path)));
    facl(&["-m", "u:1234:rwx,g:4321:r-x,m::rx"], "many/6");
    facl(&["-m", "u:1234:rwx", "-d", "-m", "u:1234:rx,g::-,o::-"], "empty");
    for (path, mode) in [
        ("many/10", 0o4755),
        ("many/11", 0o2711),
        ("many/12", 0o1600),
        ("many/13", 0),
        ("many/14", 0o7777),
        ("empty/in/empty", 0o1777),
        ("empty/in", 0o2550),
    ] {
        rustix::fs::chmod(data.join(path), Mode::from_raw_mode(mode)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        for (name, kind, major, minor) in [
            ("null", FileType::CharacterDevice, 1, 3),
            ("disk", FileType::BlockDevice, 253, 70_000),
            ("far", FileType::CharacterDevice, 4_000, 1_000_000),
        ] {
            mknodat(CWD, data.join(name), kind, Mode::from_raw_mode(0o620), rustix::fs::makedev(major, minor)).unwrap();
        }
        for path in ["many/20", "dangling", "dir", "fifo", "null"] {
            std::os::unix::fs::lchown(data.join(path), Some(12_345), Some(54_321)).unwrap();
        }
        // A change of owner takes these bits away.
        std::os::unix::fs::chown(data.join("many/21"), Some(12_345), Some(54_321)).unwrap();
        rustix::fs::chmod(data.join("many/21"), Mode::from_raw_mode(0o6755)).unwrap();
        rustix::fs::lsetxattr(data.join("link"), "trusted.x", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let mut time = 1;
    for (path, seconds) in [
        ("large", 1_000_000_000),
        ("many/1", -1),
        ("many/2", 0),
        ("many/3", -2_000_000_000),
        ("many/4", 5_000_000_000),
        ("link", 1_111_111_111),
        ("dangling", 1_222_222_222),
        ("fifo", 1_333_333_333),
        ("empty/in/empty", 1_444_444_444),
        ("empty/in", 1_444_444_443),
        ("empty", 1_444_444_442),
        ("many", 1_444_444_441),
        ("dir", 1_444_444_440),
    ] {
        time = (time * 48_271) % 999_999_999;
        set_mtime(&data.join(path), seconds, time);
    }
}

/// Nothing differs, as rsync and as we see it.
#[track_caller]
fn assert_identical(want: &Path, got: &Path, what: &str) {
    let slash = |path: &Path| [path.as_os_str().as_bytes(), b"/"].concat();
    let differences = run(Command::new("rsync")
        .args(["-naHAXc", "--delete", "-i"])
        .arg(OsStr::from_bytes(&slash(want)))
        .arg(OsStr::from_bytes(&slash(got))));
    // Of the folders themselves only what is in them was restored.
    let differences: Vec<_> = differences.lines().filter(|line| !line.ends_with(" ./")).collect();
    assert!(differences.is_empty(), "{what}: {differences:#?}");
    assert_same(&look(want), &look(got), what);
}

/// The tree that a snapshot has for a directory.
fn folder(bench: &Bench, snapshot: &str, dir: &Path) -> Id {
    select(&bench.open(), &format!("{snapshot}:{}", dir.display()), &SnapshotFilter::default()).unwrap().tree
}

fn restic_restore(bench: &Bench, snapshot: &str, target: &Path) {
    let folder = format!("{snapshot}:{}", bench.data().display());
    bench.run(&["restore", &folder, "--target", target.to_str().unwrap()]);
}

#[test]
fn everything_comes_back_whoever_saves_and_whoever_restores() {
    for (version, we_are_first) in [(2, true), (2, false), (1, true)] {
        let bench = Bench::new(version);
        fill(&bench);
        let data = bench.data();
        let ours = |bench: &Bench| save_all(&bench.open(), &data).0;
        let theirs = |bench: &Bench| bench.backup(&[]);
        let (first, second) = if we_are_first {
            let first = ours(&bench);
            (first, theirs(&bench))
        } else {
            let first = theirs(&bench);
            (first, ours(&bench))
        };
        // Who comes second finds everything there: identical chunks, identical metadata.
        assert_eq!(folder(&bench, &first, &data), folder(&bench, &second, &data), "format {version}");
        let load = |id: &str| bench.open().load_snapshot(&id.parse().unwrap()).unwrap();
        let added = load(&second).summary.unwrap();
        assert_eq!(added.data_blobs, 0);
        let counted = load(&first).summary.unwrap();
        let totals = |summary: &SnapshotSummary| (summary.total_files_processed, summary.total_bytes_processed);
        assert_eq!(totals(&added), totals(&counted));
        let (one, two) = (load(&first), load(&second));
        // Directories above ours belong to others, too.
        if one.tree == two.tree {
            assert_eq!(added.data_added, 0);
        }
        bench.assert_clean();
        assert_whole(&bench.open(), ReadData::All);

        for (name, snapshot) in [("first", &first), ("second", &second)] {
            let target = bench.dir.path().join(name);
            bring_back_all(&bench.open(), snapshot, &data, &target);
            assert_identical(&data, &target, &format!("format {version}, {name}, restored by us"));
        }
        let mine = if we_are_first { &first } else { &second };
        let target = bench.dir.path().join("theirs");
        restic_restore(&bench, mine, &target);
        assert_identical(&data, &target, &format!("format {version}, restored by restic"));
    }
}

#[test]
fn sparse_files_come_back_sparse_and_every_hard_link_linked() {
    let bench = Bench::new(2);
    fill(&bench);
    // restic makes two of these; we link them, as the snapshot says.
    fs::hard_link(bench.data().join("link"), bench.data().join("link linked")).unwrap();
    if rustix::process::geteuid().is_root() {
        fs::hard_link(bench.data().join("null"), bench.data().join("null linked")).unwrap();
    }
    let (id, _) = save_all(&bench.open(), &bench.data());
    let target = bench.dir.path().join("target");
    let options = RestoreOptions { sparse: true, verify: true, ..RestoreOptions::new(&target) };
    let (monitor, told) = errors();
    let report = restore(&bench.open(), &folder(&bench, &id, &bench.data()), &options, &monitor).unwrap();
    assert_eq!(report.errors, 0, "{:?}", told.lock().unwrap());
    assert_identical(&bench.data(), &target, "sparse");
    for name in ["sparse", "hole"] {
        let bytes = fs::metadata(target.join(name)).unwrap().blocks() * 512;
        assert!(bytes <= 2 << 20, "{name} takes {bytes} bytes");
    }
}

#[test]
fn a_name_that_is_missing_is_linked_to_the_one_that_is_there() {
    let bench = Bench::new(2);
    bench.write("a", 1, 10_000);
    fs::hard_link(bench.data().join("a"), bench.data().join("b")).unwrap();
    let (id, _) = save_all(&bench.open(), &bench.data());
    let target = bench.dir.path().join("target");
    let bring_back = || {
        let options = RestoreOptions { overwrite: Overwrite::IfNewer, ..RestoreOptions::new(&target) };
        let tree = folder(&bench, &id, &bench.data());
        assert_eq!(restore(&bench.open(), &tree, &options, &Monitor::default()).unwrap().errors, 0);
        let of = |name: &str| (fs::read(target.join(name)).unwrap(), fs::metadata(target.join(name)).unwrap().ino());
        (of("a"), of("b"))
    };
    let (first, second) = bring_back();
    assert_eq!(first, second, "one file with two names");
    fs::remove_file(target.join("b")).unwrap();
    assert_eq!(bring_back(), (first.clone(), first.clone()), "b is another name of the same file again");
    // What was changed since is left alone, and is no content for the other name.
    fs::write(target.join("a"), "newer").unwrap();
    fs::remove_file(target.join("b")).unwrap();
    let (a, b) = bring_back();
    assert_eq!((a.0.as_slice(), b.0), (b"newer".as_slice(), first.0));
}

/// Directories so deep that no path reaches the last of them; the handle of that one.
fn dig(top: &Path, make: bool) -> rustix::fd::OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = openat(CWD, top, flags, Mode::empty()).unwrap();
    for n in 0..50 {
        let name = format!("{n:0>200}");
        if make {
            mkdirat(&dir, &name, Mode::from_raw_mode(0o751)).unwrap();
        }
        dir = openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    dir
}

#[test]
fn paths_longer_than_the_system_takes_come_back() {
    let bench = Bench::new(2);
    let deepest = dig(&bench.data(), true);
    let file = openat(&deepest, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o604)).unwrap();
    File::from(file).write_all(&noise(5, 2_000_000)).unwrap();
    rustix::fs::symlinkat("file", &deepest, "link").unwrap();
    rustix::fs::linkat(&deepest, "file", &deepest, "linked", AtFlags::empty()).unwrap();
    mkdirat(&deepest, "empty", Mode::RWXU).unwrap();
    let time = Timespec { tv_sec: 1_234_567_890, tv_nsec: 987_654_321 };
    let times = Timestamps { last_access: time, last_modification: time };
    for name in ["file", "link", "empty"] {
        utimensat(&deepest, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    rustix::fs::futimens(&deepest, &times).unwrap();

    let (id, _) = save_all(&bench.open(), &bench.data());
    bench.assert_clean();
    let target = bench.dir.path().join("target");
    for _ in 0..2 {
        bring_back_all(&bench.open(), &id, &bench.data(), &target);
        let restored = dig(&target, false);
        let stat = |name| rustix::fs::statat(&restored, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        for name in ["file", "link", "empty", "."] {
            assert_eq!((stat(name).st_mtime, stat(name).st_mtime_nsec), (1_234_567_890, 987_654_321), "{name}");
        }
        assert_eq!(stat("file").st_ino, stat("linked").st_ino);
        assert_eq!(stat("file").st_mode & 0o7777, 0o604);
        let mut content = Vec::new();
        let file = File::from(openat(&restored, "file", OFlags::RDONLY, Mode::empty()).unwrap());
        std::io::Read::read_to_end(&mut { file }, &mut content).unwrap();
        assert!(content == noise(5, 2_000_000));
    }
    // And the second backup reads nothing again.
    let (_, again) = save_all(&bench.open(), &bench.data());
    assert_eq!((again.summary.files_new, again.summary.files_changed, again.summary.data_blobs), (0, 0, 0));
}

/// A source under which files change at the moment they are opened.
struct Restless {
    tree: FileTree,
    top: PathBuf,
}

impl Source for Restless {
    fn paths(&self) -> Vec<Vec<u8>> {
        self.tree.paths()
    }
    fn root(&self) -> Result<DirEntries, SourceError> {
        self.tree.root()
    }
    fn read_dir(&self, dir: &Entry) -> Result<DirEntries, SourceError> {
        if dir.path.ends_with(b"/folder-vanishes") {
            fs::remove_dir_all(self.top.join("folder-vanishes")).unwrap();
        }
        self.tree.read_dir(dir)
    }
    fn open(&self, file: &Entry) -> Result<OpenFile, SourceError> {
        let path = self.top.join(OsStr::from_bytes(&file.node.name));
        match file.node.name.as_slice() {
            b"vanishes" => fs::remove_file(&path).unwrap(),
            b"becomes-a-link" => {
                fs::remove_file(&path).unwrap();
                symlink("/etc/passwd", &path).unwrap();
            }
            b"rewritten" => fs::write(&path, "other content").unwrap(),
            _ => {}
        }
        let opened = self.tree.open(file);
        match file.node.name.as_slice() {
            b"grows" | b"grows-large" => {
                File::options().append(true).open(&path).unwrap().write_all(&noise(8, 3_000_000)).unwrap();
            }
            b"shrinks" | b"shrinks-large" => File::options().write(true).open(&path).unwrap().set_len(100).unwrap(),
            b"removed-while-open" => fs::remove_file(&path).unwrap(),
            _ => {}
        }
        opened
    }
}

#[test]
fn files_that_change_while_they_are_read() {
    let bench = Bench::new(2);
    let names = [
        "becomes-a-link",
        "grows",
        "plain",
        "removed-while-open",
        "rewritten",
        "shrinks",
        "vanishes",
        "folder-vanishes/file",
    ];
    for name in names {
        bench.write(name, 3, 10_000);
    }
    for name in ["grows-large", "shrinks-large"] {
        bench.write(name, 4, 6_000_000);
    }
    let before = look(&bench.data());
    let source = Restless { tree: tree(&bench.data()), top: bench.data() };
    let (monitor, told) = errors();
    let report = backup(&bench.open(), &source, &BackupOptions::new(), &monitor).unwrap();
    let told = told.lock().unwrap().clone();
    for name in ["becomes-a-link", "folder-vanishes", "vanishes"] {
        let path = bench.data().join(name).display().to_string();
        assert!(told.iter().any(|error| error.contains(&path)), "{name} in {told:?}");
    }
    assert_eq!(report.errors, 3, "{told:?}");
    bench.assert_clean();
    assert_whole(&bench.open(), ReadData::All);

    let id = report.snapshot.unwrap().to_string();
    let mine = bench.dir.path().join("mine");
    bring_back_all(&bench.open(), &id, &bench.data(), &mine);
    let theirs = bench.dir.path().join("theirs");
    restic_restore(&bench, &id, &theirs);
    let restored = look(&mine);
    assert_same(&restored, &look(&theirs), "restored by restic");
    let files = restored.keys().filter(|path| mine.join(path).symlink_metadata().unwrap().is_file()).count() as u64;
    assert_eq!((report.summary.total_files_processed, report.summary.files_new), (files, files), "what is in it");
    let has = |name: &str| restored.contains_key(Path::new(name));
    assert!(!has("becomes-a-link") && !has("vanishes") && !has("folder-vanishes/file"));
    for name in ["plain", "removed-while-open"] {
        assert_eq!(restored[Path::new(name)], before[Path::new(name)], "{name}");
    }
    assert_eq!(fs::read(mine.join("rewritten")).unwrap(), b"other content");
    let grown = fs::read(mine.join("grows")).unwrap();
    assert!(grown == [noise(3, 10_000), noise(8, 3_000_000)].concat(), "{}", grown.len());
    assert_eq!(fs::read(mine.join("shrinks")).unwrap(), noise(3, 100));
    assert_eq!(fs::metadata(mine.join("grows-large")).unwrap().len(), 9_000_000);

    // What grew or vanished is seen as changed by the next backup, and then saved as it is.
    let (_, next) = save_all(&bench.open(), &bench.data());
    assert!(next.summary.files_changed >= 4, "{:?}", next.summary);
    let after = bench.dir.path().join("after");
    bring_back_all(&bench.open(), &next_id(&bench), &bench.data(), &after);
    assert_identical(&bench.data(), &after, "the next backup");
}

fn next_id(bench: &Bench) -> String {
    select(&bench.open(), "latest", &SnapshotFilter::default()).unwrap().saved.id.to_string()
}
