//! Restores of what restic backed up, compared entry by entry with what was there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod oracle;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use holdfast_repository::format::FileKind;
use holdfast_repository::format::snapshot::SnapshotFilter;
use holdfast_repository::pattern::{Case, PatternList};
use holdfast_repository::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use holdfast_repository::snapshots::select;
use holdfast_repository::{Error, Event, Monitor};
use oracle::{Bench, noise};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};

/// A target beside the data, and what restores into it.
struct Restore<'a> {
    bench: &'a Bench,
    options: RestoreOptions,
    events: Arc<Mutex<Vec<Event>>>,
}

impl<'a> Restore<'a> {
    fn new(bench: &'a Bench) -> Self {
        Self { bench, options: RestoreOptions::new(bench.dir.path().join("target")), events: Arc::default() }
    }

    fn target(&self) -> &Path {
        &self.options.target
    }

    fn run(&self) -> Result<RestoreReport, Error> {
        let repository = self.bench.open();
        let folder = format!("latest:{}", self.bench.data().display());
        let tree = select(&repository, &folder, &SnapshotFilter::default()).unwrap().tree;
        let events = Arc::clone(&self.events);
        restore(&repository, &tree, &self.options, &Monitor::new(move |event| events.lock().unwrap().push(event), true))
    }

    #[track_caller]
    fn succeed(&self) -> RestoreReport {
        let report = self.run().unwrap();
        assert_eq!(report.errors, 0, "{:?}", self.events.lock().unwrap());
        report
    }

    fn errors(&self) -> Vec<String> {
        let error = |event: &Event| match event {
            Event::Error { item, message } => Some(format!("{item}: {message}")),
            _ => None,
        };
        self.events.lock().unwrap().iter().filter_map(error).collect()
    }
}

/// All that is to be restored of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Content of a file, target of a link, number of a device.
    content: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, of the same file.
    same_as: PathBuf,
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut first = HashMap::new();
    look_below(root, Path::new(""), &mut first, &mut seen);
    seen
}

fn look_below(root: &Path, dir: &Path, first: &mut HashMap<u64, PathBuf>, seen: &mut BTreeMap<PathBuf, Seen>) {
    let mut names: Vec<_> = fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let (relative, path) = (dir.join(&name), root.join(dir).join(&name));
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = match FileType::from_raw_mode(metadata.mode()) {
            FileType::RegularFile => fs::read(&path).unwrap(),
            FileType::Symlink => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
            _ => metadata.rdev().to_string().into_bytes(),
        };
        let mut list = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, list.as_mut_slice()).unwrap_or(0);
        let attributes = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
        let attributes = attributes.map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(&path, name, value.as_mut_slice()).unwrap();
            (name.to_vec(), value[..length].to_vec())
        });
        let entry = Seen {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            attributes: attributes.collect(),
            same_as: first.entry(metadata.ino()).or_insert_with(|| relative.clone()).clone(),
        };
        seen.insert(relative.clone(), entry);
        if metadata.is_dir() {
            look_below(root, &relative, first, seen);
        }
    }
}

#[track_caller]
fn assert_same(want: &Path, got: &Path) {
    let (want, got) = (look(want), look(got));
    assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (path, want) in &want {
        assert!(got[path] == *want, "{}:\nwant {want:?}\ngot  {:?}", path.display(), got[path]);
    }
}

fn set_mtime(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// One of everything.
fn fill(bench: &Bench) {
    let data = bench.data();
    bench.write("big", 1, 20 << 20);
    bench.write("dir/one", 2, 3_000);
    bench.write("dir/two", 3, 700_000);
    bench.write("dir/deep/er/three", 4, 10);
    for n in 0..200 {
        bench.write(&format!("many/{n}"), 100 + n, 500);
    }
    fs::write(data.join("empty"), "").unwrap();
    fs::create_dir(data.join("empty-dir")).unwrap();
    fs::copy(data.join("big"), data.join("copy-of-big")).unwrap();
    fs::hard_link(data.join("dir/one"), data.join("linked")).unwrap();
    fs::hard_link(data.join("dir/one"), data.join("dir/deep/linked too")).unwrap();
    symlink("dir/one", data.join("link")).unwrap();
    symlink("/nowhere/\u{e4}", data.join("dangling")).unwrap();
    symlink("dir", data.join("link-to-dir")).unwrap();
    fs::write(data.join(OsStr::from_bytes(b"not \xff utf-8 \n")), "x").unwrap();
    mknodat(CWD, data.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    for (name, value) in [("user.note", &b"some \0 value"[..]), ("user.empty", b"")] {
        for path in ["dir", "dir/two"] {
            rustix::fs::setxattr(data.join(path), name, value, XattrFlags::empty()).unwrap();
        }
    }
    for (path, mode) in [
        ("dir/two", 0o4755),
        ("dir/deep", 0o2750),
        ("empty-dir", 0o1777),
        ("empty", 0o400),
        ("dir/deep/er/three", 0o444),
        ("many", 0o500),
    ] {
        fs::set_permissions(data.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        mknodat(
            CWD,
            data.join("null"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            rustix::fs::makedev(1, 3),
        )
        .unwrap();
        std::os::unix::fs::chown(data.join("dir/one"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(data.join("link"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::chown(data.join("dir/deep"), Some(1234), Some(4321)).unwrap();
    }
    for (n, path) in
        ["dir/deep/er/three", "dir/deep/er", "dir/deep", "dir", "big", "many", "empty-dir"].iter().enumerate()
    {
        set_mtime(&data.join(path), 1_000_000_000 + n as u64);
    }
}

fn filled(version: u32) -> Bench {
    let bench = Bench::new(version);
    fill(&bench);
    bench.backup(&[]);
    bench
}

#[test]
fn everything_comes_back_as_it_was() {
    for version in [1, 2] {
        let bench = filled(version);
        let mut all = Restore::new(&bench);
        all.options.verify = true;
        let report = all.succeed();
        assert_same(&bench.data(), all.target());
        assert_eq!((report.skipped, report.files_unchanged, report.removed), (0, 0, 0));
    }
}

#[test]
fn a_second_restore_writes_no_content_and_mends_what_changed() {
    let bench = filled(2);
    let all = Restore::new(&bench);
    let first = all.succeed();
    let again = all.succeed();
    assert_same(&bench.data(), all.target());
    // The hard-linked file is made anew: its other names could be anybody's.
    assert_eq!(again.bytes_restored, 3_000);
    assert_eq!(again.bytes_unchanged, first.bytes_restored - 3_000);

    let target = all.target();
    let big = File::options().write(true).open(target.join("big")).unwrap();
    big.write_all_at(b"damage", 10 << 20).unwrap();
    big.set_len(21 << 20).unwrap();
    fs::write(target.join("dir/two"), "short").unwrap();
    fs::remove_file(target.join("link")).unwrap();
    fs::write(target.join("link"), "a file where a link was").unwrap();
    fs::remove_dir(target.join("empty-dir")).unwrap();
    symlink("/", target.join("empty-dir")).unwrap();
    rustix::fs::setxattr(target.join("dir"), "user.other", b"x", XattrFlags::empty()).unwrap();
    let mended = all.succeed();
    assert_same(&bench.data(), target);
    assert!(mended.bytes_restored < 10 << 20, "{mended:?}");
}

#[test]
fn overwrite_policies() {
    let bench = Bench::new(2);
    for name in ["same", "older", "newer"] {
        bench.write(name, 1, 10);
        set_mtime(&bench.data().join(name), 1_000_000);
    }
    bench.backup(&[]);
    let original = noise(1, 10);
    let check = |overwrite, want: [bool; 3]| {
        let mut into = Restore::new(&bench);
        into.options.overwrite = overwrite;
        for (name, seconds) in [("same", 1_000_000), ("older", 999_999), ("newer", 1_000_001)] {
            fs::create_dir_all(into.target()).unwrap();
            fs::write(into.target().join(name), "other text").unwrap();
            set_mtime(&into.target().join(name), seconds);
        }
        into.succeed();
        let restored = ["same", "older", "newer"].map(|name| fs::read(into.target().join(name)).unwrap() == original);
        assert_eq!(restored, want, "{overwrite:?}");
    };
    check(Overwrite::Always, [true; 3]);
    check(Overwrite::IfChanged, [false, true, true]);
    check(Overwrite::IfNewer, [false, true, false]);
    check(Overwrite::Never, [false; 3]);
}

fn patterns(patterns: &[&str]) -> PatternList {
    PatternList::new(patterns, Case::Sensitive).unwrap()
}

fn paths(root: &Path) -> Vec<String> {
    look(root).keys().map(|path| path.display().to_string()).collect()
}

#[test]
fn patterns_choose_and_only_needed_directories_are_made() {
    let bench = filled(2);
    let mut some = Restore::new(&bench);
    some.options.include = vec![patterns(&["/dir/deep/er", "empty*"])];
    some.succeed();
    assert_eq!(paths(some.target()), ["dir", "dir/deep", "dir/deep/er", "dir/deep/er/three", "empty", "empty-dir"]);
    let (want, got) = (look(&bench.data()), look(some.target()));
    assert_eq!(got[Path::new("dir")], want[Path::new("dir")], "directories above have their metadata");

    fs::remove_dir_all(some.target()).unwrap();
    some.options.include = Vec::new();
    some.options.exclude = vec![patterns(&["/dir", "many", "*big*"])];
    some.succeed();
    let left = paths(some.target());
    assert!(left.iter().all(|path| !["dir", "many", "big"].iter().any(|gone| path.starts_with(gone))), "{left:?}");
    assert!(left.contains(&"linked".to_owned()), "the first name of a hard-linked file was left out");
    assert_eq!(fs::read(some.target().join("linked")).unwrap(), noise(2, 3_000));
}

#[test]
fn what_the_snapshot_lacks_is_removed_on_demand_and_only_there() {
    let bench = filled(2);
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let mut into = Restore::new(&bench);
    into.succeed();
    let target = into.target().to_owned();
    let litter = || {
        fs::create_dir_all(target.join("dir/extra/below")).unwrap();
        fs::write(target.join("dir/extra/below/file"), "x").unwrap();
        fs::write(target.join("extra-kept"), "x").unwrap();
        symlink(&outside, target.join("extra-link")).unwrap();
    };
    litter();
    into.succeed();
    assert!(target.join("extra-link").is_symlink(), "nothing goes unasked");
    into.options.delete = true;
    into.options.exclude = vec![patterns(&["extra-kept"])];
    into.options.dry_run = true;
    assert_eq!(into.succeed().removed, 2);
    assert!(target.join("dir/extra/below/file").exists());
    into.options.dry_run = false;
    assert_eq!(into.succeed().removed, 2);
    assert!(!target.join("dir/extra").exists() && !target.join("extra-link").is_symlink());
    assert!(target.join("extra-kept").exists() && outside.join("precious").exists());
    fs::remove_file(target.join("extra-kept")).unwrap();
    assert_same(&bench.data(), &target);
}

#[test]
fn a_dry_run_tells_and_touches_nothing() {
    let bench = filled(2);
    let mut dry = Restore::new(&bench);
    dry.options.dry_run = true;
    let would = dry.succeed();
    assert!(!dry.target().exists());
    dry.options.dry_run = false;
    let did = dry.succeed();
    assert_eq!((would.files_restored, would.dirs, would.others), (did.files_restored + 2, did.dirs, did.others - 2));
    let before = look(dry.target());
    dry.options.dry_run = true;
    dry.succeed();
    assert!(look(dry.target()) == before);
}

#[test]
fn links_in_the_target_lead_nowhere() {
    let bench = filled(2);
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("one"), "precious").unwrap();
    let into = Restore::new(&bench);
    fs::create_dir(into.target()).unwrap();
    symlink(&outside, into.target().join("dir")).unwrap();
    symlink(outside.join("one"), into.target().join("big")).unwrap();
    fs::hard_link(outside.join("one"), into.target().join("empty")).unwrap();
    into.succeed();
    assert_same(&bench.data(), into.target());
    assert_eq!(fs::read(outside.join("one")).unwrap(), b"precious");
    assert_eq!(paths(&outside), ["one"]);
}

#[test]
fn holes_where_zeros_are() {
    let bench = Bench::new(2);
    let mut data = vec![0; 9 << 20];
    data[5_000_000..5_000_100].fill(7);
    data[0] = 1;
    fs::write(bench.data().join("file"), &data).unwrap();
    fs::write(bench.data().join("zeros"), vec![0; 1 << 20]).unwrap();
    bench.backup(&[]);
    let mut sparse = Restore::new(&bench);
    sparse.options.sparse = true;
    sparse.options.verify = true;
    sparse.succeed();
    assert_same(&bench.data(), sparse.target());
    let blocks = |name| fs::metadata(sparse.target().join(name)).unwrap().blocks() * 512;
    assert!(blocks("file") <= 64 << 10 && blocks("zeros") == 0, "{} {}", blocks("file"), blocks("zeros"));
}

#[test]
fn a_damaged_blob_fails_its_files_and_no_other() {
    let bench = filled(2);
    let all = Restore::new(&bench);
    // The largest pack holds the large file, mostly: a byte in its middle is flipped.
    let repository = bench.open();
    let packs = repository.list_sizes(FileKind::Pack).unwrap();
    let (pack, size) = packs.into_iter().max_by_key(|(_, size)| *size).unwrap();
    let path = bench.repository_path().join(FileKind::Pack.path(&pack));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, size / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 1], size / 2).unwrap();
    let report = all.run().unwrap();
    let errors = all.errors();
    assert!(
        report.errors > 0 && errors.iter().all(|error| error.contains("big") && error.contains("authenticate")),
        "{errors:?}"
    );
    let (want, got) = (look(&bench.data()), look(all.target()));
    for (path, want) in want.iter().filter(|(path, _)| !path.to_string_lossy().contains("big")) {
        assert_eq!(got[path], *want, "{}", path.display());
    }
    assert_ne!(got[Path::new("big")].mtime, want[Path::new("big")].mtime, "must not look finished");
}

#[test]
fn an_interrupted_restore_goes_on() {
    let bench = filled(2);
    let into = Restore::new(&bench);
    let repository = bench.open();
    let folder = format!("latest:{}", bench.data().display());
    let tree = select(&repository, &folder, &SnapshotFilter::default()).unwrap().tree;
    let flag: Arc<Mutex<Option<Monitor>>> = Arc::default();
    let listener = Arc::clone(&flag);
    let monitor = Monitor::new(
        move |event| {
            if matches!(event, Event::Item { action: "restored", .. })
                && let Some(monitor) = &*listener.lock().unwrap()
            {
                monitor.interrupt();
            }
        },
        true,
    );
    *flag.lock().unwrap() = Some(monitor.clone());
    let outcome = restore(&repository, &tree, &into.options, &monitor);
    assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
    into.succeed();
    assert_same(&bench.data(), into.target());
}

#[test]
fn no_policy_keeps_what_a_killed_restore_left_half_written() {
    for overwrite in [Overwrite::IfNewer, Overwrite::Never] {
        let bench = filled(2);
        let mut restore = Restore::new(&bench);
        restore.succeed();
        let file = restore.target().join("big");
        let whole = fs::read(&file).unwrap();
        // As a kill in the middle leaves it: a part of the content, new times, the permissions of a file under way.
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o1600)).unwrap();
        restore.options.overwrite = overwrite;
        restore.succeed();
        assert_eq!(fs::read(&file).unwrap(), whole, "{overwrite:?}");
        assert_same(&bench.data(), restore.target());
    }
}

/// A small tmpfs in a mount namespace is a full disk: the test starts itself anew in one.
#[test]
fn a_full_disk_ends_the_restore_with_its_reason() {
    const INSIDE: &str = "HOLDFAST_TEST_INSIDE_UNSHARE";
    if let Some(folder) = std::env::var_os(INSIDE) {
        let bench = Bench::new(2);
        for n in 0..4 {
            bench.write(&format!("{n}"), n, 3 << 20);
        }
        bench.backup(&[]);
        let mut into = Restore::new(&bench);
        into.options.target = Path::new(&folder).join("target");
        let error = into.run().unwrap_err();
        let Error::Io { path, source, .. } = &error else { panic!("{error:?}") };
        assert!(path.starts_with(into.target()) && source.kind() == std::io::ErrorKind::StorageFull, "{error:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let output = std::process::Command::new("unshare")
        .args([namespaces, "--propagation", "private", "sh", "-ec"])
        .arg(r#"mount -t tmpfs -o size=8m,mode=700 tmpfs "$0"; exec "$@""#)
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "a_full_disk_ends_the_restore_with_its_reason"])
        .env(INSIDE, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
