//! What is on disk, compared by all that a backup has to keep.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use holdfast_repository::Id;
use rustix::fs::FileType;

/// All that is kept of an entry.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Hash of a file's content, target of a link, number of a device.
    pub(crate) content: String,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in order, of the same file.
    same_as: PathBuf,
}

pub(crate) type Sight = BTreeMap<PathBuf, Seen>;

/// Everything below `root`.
pub(crate) fn look(root: &Path) -> Sight {
    let (mut seen, mut first) = (Sight::new(), HashMap::new());
    look_below(root, Path::new(""), &mut first, &mut seen);
    seen
}

fn look_below(root: &Path, dir: &Path, first: &mut HashMap<u64, PathBuf>, seen: &mut Sight) {
    let mut names: Vec<_> = fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for name in names {
        look_at(root, dir.join(name), first, seen);
    }
}

fn look_at(root: &Path, relative: PathBuf, first: &mut HashMap<u64, PathBuf>, seen: &mut Sight) {
    let path = root.join(&relative);
    let metadata = fs::symlink_metadata(&path).unwrap();
    let content = match FileType::from_raw_mode(metadata.mode()) {
        FileType::RegularFile => Id::of(&fs::read(&path).unwrap()).to_string(),
        FileType::Symlink => format!("{:?}", fs::read_link(&path).unwrap()),
        _ => metadata.rdev().to_string(),
    };
    let entry = Seen {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        content,
        attributes: attributes(&path),
        same_as: first.entry(metadata.ino()).or_insert_with(|| relative.clone()).clone(),
    };
    seen.insert(relative.clone(), entry);
    if metadata.is_dir() {
        look_below(root, &relative, first, seen);
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 8192];
    let length = rustix::fs::llistxattr(path, list.as_mut_slice()).unwrap_or(0);
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 8192];
            let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// Fails with the first entry that differs.
#[track_caller]
pub(crate) fn assert_same(want: &Sight, got: &Sight, what: &str) {
    for (path, want) in want {
        let got = got.get(path).unwrap_or_else(|| panic!("{what}: {path:?} is missing"));
        assert_eq!(want, got, "{what}: {path:?}");
    }
    for path in got.keys() {
        assert!(want.contains_key(path), "{what}: {path:?} should not be there");
    }
}
