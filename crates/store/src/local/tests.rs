//! Local directories: permissions, full and read-only file systems, leftovers of killed writers.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use super::*;
use crate::conformance::{self, pattern};

/// A store in a folder of its own, removed with it.
struct Scratch {
    store: LocalStore,
    folder: Arc<tempfile::TempDir>,
}

impl std::ops::Deref for Scratch {
    type Target = LocalStore;
    fn deref(&self) -> &LocalStore {
        &self.store
    }
}

impl Scratch {
    fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    fn within(parent: &Path) -> Self {
        let folder = Arc::new(tempfile::tempdir_in(parent).unwrap());
        let store = LocalStore::create(folder.path().join("repository")).unwrap();
        Self { store, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("repository").join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.list("", &mut |entry| names.push(entry.name)).unwrap();
        names.sort();
        names
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind
}

#[test]
fn conforms() {
    conformance::check(Scratch::new);
}

#[test]
fn conforms_on_tmpfs() {
    conformance::check(|| Scratch::within(Path::new("/dev/shm")));
}

#[test]
fn a_store_must_exist_to_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("not/here");
    let error = LocalStore::open(&missing).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(error.to_string(), format!("cannot open {}", missing.display()));
    LocalStore::create(&missing).unwrap();
    LocalStore::open(&missing).unwrap();
    let mode = fs::metadata(&missing).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    fs::write(folder.path().join("file"), "").unwrap();
    for place in ["file", "file/below"] {
        let place = folder.path().join(place);
        assert_eq!(kind(LocalStore::open(&place)), ErrorKind::InvalidConfig);
        assert_eq!(kind(LocalStore::create(&place)), ErrorKind::InvalidConfig);
    }
}

#[test]
fn a_store_that_was_removed_is_not_empty() {
    let store = Scratch::new();
    fs::remove_dir(store.path("")).unwrap();
    for prefix in ["", "data"] {
        assert_eq!(kind(store.list(prefix, &mut |_| {})), ErrorKind::NotFound);
    }
    assert_eq!(kind(store.put("config", b"x")), ErrorKind::NotFound);
}

#[test]
fn modes_are_those_of_restic() {
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let store = Scratch::new();
    store.put("config", b"x").unwrap();
    store.put("data/ab/abcd", b"x").unwrap();
    assert_eq!(mode(store.path("config")), 0o400);
    assert_eq!(mode(store.path("data/ab/abcd")), 0o400);
    assert_eq!(mode(store.path("data/ab")), 0o700);
    store.delete("data/ab/abcd").unwrap();

    fs::set_permissions(store.path("config"), Permissions::from_mode(0o440)).unwrap();
    let shared = LocalStore::open(store.path("")).unwrap();
    shared.put("data/ab/abcd", b"x").unwrap();
    shared.put("index/a", b"x").unwrap();
    assert_eq!(mode(store.path("data/ab/abcd")), 0o440);
}

#[test]
fn unfinished_files_are_not_objects() {
    let store = Scratch::new();
    store.put("data/ab/abcd", b"x").unwrap();
    let leftover = store.path("data/ab/abce-tmp-1234567890");
    fs::write(&leftover, "half").unwrap();
    fs::write(store.path("config-tmp-42"), "half").unwrap();
    assert_eq!(store.names(), ["data/ab/abcd"]);

    let hour = Duration::from_secs(3600);
    assert_eq!(store.remove_leftovers(hour).unwrap(), 0);
    let old = SystemTime::now() - 2 * hour;
    File::open(&leftover).unwrap().set_modified(old).unwrap();
    assert_eq!(store.remove_leftovers(hour).unwrap(), 1);
    assert!(!leftover.exists());
    assert!(store.path("config-tmp-42").exists());
    assert_eq!(store.names(), ["data/ab/abcd"]);
}

#[test]
fn a_failed_write_leaves_nothing() {
    let store = Scratch::new();
    store.put("data/ab/abcd", b"x").unwrap();
    // A folder of the object's name: the last step, giving the name, fails.
    fs::create_dir(store.path("data/ab/taken")).unwrap();
    for data in [pattern(10), pattern(2 << 20)] {
        assert_eq!(kind(store.put("data/ab/taken", &data)), ErrorKind::AlreadyExists);
    }
    let left: Vec<_> = fs::read_dir(store.path("data/ab")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn dangling_links_are_damage_and_links_to_folders_are_followed() {
    let store = Scratch::new();
    store.put("elsewhere/ab/abcd", b"x").unwrap();
    symlink(store.path("elsewhere"), store.path("data")).unwrap();
    let mut names = Vec::new();
    store.list("data", &mut |entry| names.push(entry.name)).unwrap();
    assert_eq!(names, ["data/ab/abcd"]);

    symlink("nowhere", store.path("elsewhere/ab/abce")).unwrap();
    let error = store.list("data", &mut |_| {}).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.to_string().ends_with("data/ab/abce"), "{error}");
}

#[test]
fn a_file_in_the_place_of_a_folder_is_an_error() {
    let store = Scratch::new();
    store.put("data", b"not a folder").unwrap();
    assert_eq!(kind(store.list("data", &mut |_| {})), ErrorKind::InvalidConfig);
    assert_eq!(kind(store.put("data/ab/abcd", b"x")), ErrorKind::InvalidConfig);
}

/// Big writes go past the page cache where the memory is aligned; every way must give the same bytes.
#[test]
fn direct_and_buffered_writes_agree() {
    const MIB: usize = 1 << 20;
    let store = Scratch::new();
    let memory = pattern(5 * MIB);
    let aligned = memory.as_ptr().align_offset(DIRECT_ALIGN);
    for (number, (start, length)) in [
        (aligned, MIB),
        (aligned, MIB - 1),
        (aligned, MIB + 1),
        (aligned, 3 * MIB + 4095),
        (aligned, 4 * MIB - 4096),
        (aligned + 1, 2 * MIB),
    ]
    .into_iter()
    .enumerate()
    {
        let (name, data) = (format!("data/{number}"), &memory[start..start + length]);
        store.put(&name, data).unwrap();
        assert!(store.get(&name).unwrap() == data, "{number}");
        assert_eq!(store.size_bytes(&name).unwrap(), length as u64);
    }
}

/// Page-aligned data on a disk's file system does leave the page cache alone.
#[test]
fn direct_writes_are_direct() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let memory = pattern(3 << 20);
    let aligned = &memory[memory.as_ptr().align_offset(DIRECT_ALIGN)..][..2 << 20];
    let file = File::create(folder.path().join("x")).unwrap();
    assert_eq!(write_direct(&file, aligned).unwrap(), aligned.len());
    assert!(!sys::fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT));
    assert!(fs::read(folder.path().join("x")).unwrap() == aligned);
}

#[test]
fn errors_of_the_system_by_kind() {
    for (errno, expected) in [
        (Errno::NOENT, ErrorKind::NotFound),
        (Errno::EXIST, ErrorKind::AlreadyExists),
        (Errno::ACCESS, ErrorKind::PermissionDenied),
        (Errno::PERM, ErrorKind::PermissionDenied),
        (Errno::NOSPC, ErrorKind::Full),
        (Errno::DQUOT, ErrorKind::Full),
        (Errno::ROFS, ErrorKind::Full),
        (Errno::STALE, ErrorKind::Unavailable),
        (Errno::IO, ErrorKind::Other),
    ] {
        assert_eq!(kind_of(&errno.into()), expected, "{errno}");
    }
}

/// As root no mode refuses anything: these run in a thread that is nobody.
#[test]
fn unreadable_folders_are_errors_and_never_empty() {
    let store = Scratch::new();
    store.put("data/ab/abcd", b"x").unwrap();
    store.put("data/ac/abce", b"x").unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        // Everything belongs to nobody; the threads of a process may have different users.
        for path in ["", "data", "data/ab", "data/ac", "data/ab/abcd", "data/ac/abce"] {
            std::os::unix::fs::chown(store.path(path), Some(NOBODY), None).unwrap();
        }
        std::os::unix::fs::chown(store.folder.path(), Some(NOBODY), None).unwrap();
    }
    let set_mode = |name: &str, mode| {
        fs::set_permissions(store.path(name), Permissions::from_mode(mode)).unwrap();
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if root {
                let nobody = rustix::thread::Uid::from_raw(NOBODY);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            let refused = ErrorKind::PermissionDenied;
            for unreadable in ["data/ab", "data"] {
                set_mode(unreadable, 0o000);
                for prefix in ["", "data"] {
                    let error = store.list(prefix, &mut |_| {}).unwrap_err();
                    assert_eq!(error.kind, refused, "{prefix}");
                    assert!(error.to_string().ends_with(unreadable), "{error}");
                }
                assert_eq!(kind(store.get("data/ab/abcd")), refused);
                assert_eq!(kind(store.size_bytes("data/ab/abcd")), refused);
                assert_eq!(kind(store.put("data/ab/new", b"x")), refused);
                assert_eq!(kind(store.delete("data/ab/abcd")), refused);
                assert_eq!(kind(store.remove_leftovers(Duration::ZERO)), refused);
                set_mode(unreadable, 0o700);
            }
            set_mode("data/ab/abcd", 0o000);
            assert_eq!(kind(store.get("data/ab/abcd")), refused);
            set_mode("", 0o000);
            assert_eq!(kind(LocalStore::open(store.path(""))), refused);
            set_mode("", 0o700);
        });
        thread.join().unwrap();
    });
}

const NOBODY: u32 = 65_534;

/// A full and a read-only file system are small tmpfs in a mount namespace: the test starts itself anew
/// in one, as `unshare` needs a process of its own.
#[test]
fn full_and_read_only_file_systems() {
    const INSIDE: &str = "HOLDFAST_TEST_INSIDE_UNSHARE";
    if let Some(folder) = std::env::var_os(INSIDE) {
        return on_a_full_file_system(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let namespaces = match rustix::process::geteuid().is_root() {
        true => "-m",
        false => "-rm",
    };
    let output = std::process::Command::new("unshare")
        .args([namespaces, "--propagation", "private", "sh", "-ec"])
        .arg(r#"mount -t tmpfs -o size=4m,mode=700 tmpfs "$0"; exec "$@""#)
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "local::tests::full_and_read_only_file_systems"])
        .env(INSIDE, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn on_a_full_file_system(folder: &Path) {
    let store = LocalStore::open(folder).unwrap();
    store.put("data/a", &pattern(2 << 20)).unwrap();
    for length in [3 << 20, 8 << 20] {
        let error = store.put("data/b", &pattern(length)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Full);
    }
    // In small pieces too, and every failed write gives its space back.
    let stored = (0..).find(|i| match store.put(&format!("small/{i}"), &pattern(100_000)) {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.kind, ErrorKind::Full);
            true
        }
    });
    assert!((10..21).contains(&stored.unwrap()), "{stored:?}");
    assert!(store.get("data/a").unwrap() == pattern(2 << 20));
    store.delete("data/a").unwrap();
    store.put("data/b", &pattern(1 << 20)).unwrap();
    let mut names = Vec::new();
    store.list("data", &mut |entry| names.push(entry.name)).unwrap();
    assert_eq!(names, ["data/b"]);
    assert_eq!(store.remove_leftovers(Duration::ZERO).unwrap(), 0);

    let mount = std::process::Command::new("mount").args(["-o", "remount,bind,ro"]).arg(folder).status().unwrap();
    assert!(mount.success());
    assert_eq!(kind(store.put("data/c", b"x")), ErrorKind::Full);
    assert_eq!(kind(store.delete("data/b")), ErrorKind::Full);
    assert!(store.get("data/b").unwrap() == pattern(1 << 20));
}
