//! From what the system says of a file to a [`Node`]: kinds, modes, times, owners' names, links, extended attributes.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_repository::format::node::{ExtendedAttribute, Node, NodeKind, mode};
use holdfast_repository::format::time::Timestamp;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

/// Makes nodes, and remembers the names of owners.
#[derive(Debug, Default)]
pub(crate) struct NodeReader {
    users: OwnerNames,
    groups: OwnerNames,
    with_atime: bool,
}

type OwnerNames = Mutex<HashMap<u32, Option<Arc<str>>>>;

impl NodeReader {
    /// `with_atime`: record access times; otherwise they are written as the modification times.
    pub(crate) fn new(with_atime: bool) -> Self {
        Self { with_atime, ..Self::default() }
    }

    /// The node of a file of this name, without the target of a link and without extended attributes.
    pub(crate) fn node(&self, name: &[u8], stat: &Stat) -> Node {
        let kind = kind(stat);
        let mtime = timestamp(stat.st_mtime, stat.st_mtime_nsec);
        let has_links = !matches!(kind, NodeKind::Dir | NodeKind::Fifo | NodeKind::Socket);
        let is_device = matches!(kind, NodeKind::Dev | NodeKind::CharDev);
        Node {
            name: name.to_vec(),
            kind,
            mode: mode::from_unix(kind, stat.st_mode),
            mtime,
            atime: if self.with_atime { timestamp(stat.st_atime, stat.st_atime_nsec) } else { mtime },
            ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
            uid: stat.st_uid,
            gid: stat.st_gid,
            user: owner_name(&self.users, stat.st_uid, |id| Some(uzers::get_user_by_uid(id)?.name().to_owned())),
            group: owner_name(&self.groups, stat.st_gid, |id| Some(uzers::get_group_by_gid(id)?.name().to_owned())),
            inode: stat.st_ino,
            device_id: stat.st_dev,
            size: if kind == NodeKind::File { stat.st_size.try_into().unwrap_or(0) } else { 0 },
            #[allow(clippy::useless_conversion, reason = "the type differs between processors")]
            links: if has_links { stat.st_nlink.into() } else { 0 },
            device: if is_device { stat.st_rdev } else { 0 },
            content: (kind == NodeKind::File).then(Vec::new),
            ..Node::default()
        }
    }
}

fn owner_name(
    known: &OwnerNames,
    id: u32,
    look_up: impl FnOnce(u32) -> Option<std::ffi::OsString>,
) -> Option<Arc<str>> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(id).or_insert_with(|| look_up(id).map(|name| name.to_string_lossy().into())).clone()
}

pub(crate) fn kind(stat: &Stat) -> NodeKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::BlockDevice => NodeKind::Dev,
        FileType::CharacterDevice => NodeKind::CharDev,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Unknown => NodeKind::Irregular,
    }
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the types differ between processors")]
fn timestamp(seconds: impl Into<i64>, nanoseconds: impl TryInto<u32>) -> Timestamp {
    Timestamp::from_unix(seconds.into(), nanoseconds.try_into().unwrap_or(0))
}

/// Whether the metadata of an opened file is still that of the listing. The change time moves with everything that
/// a node holds, extended attributes included.
pub(crate) fn is_unchanged(node: &Node, stat: &Stat) -> bool {
    node.inode == stat.st_ino
        && node.device_id == stat.st_dev
        && node.size == u64::try_from(stat.st_size).unwrap_or(0)
        && node.mtime == timestamp(stat.st_mtime, stat.st_mtime_nsec)
        && node.ctime == timestamp(stat.st_ctime, stat.st_ctime_nsec)
}

/// Where to read extended attributes.
pub(crate) enum AttributeHolder<'a> {
    /// An opened file.
    Opened(BorrowedFd<'a>),
    /// An entry of an opened directory, links not followed.
    Entry(BorrowedFd<'a>, &'a CStr),
    /// A path, links not followed.
    Path(&'a Path),
    /// A path, links followed.
    Followed(&'a Path),
}

/// Reads all extended attributes in the order the system lists them.
///
/// A file system without them has none. Attributes that go away in between are not there; one that cannot be read is
/// an error, beside those that could.
pub(crate) fn extended_attributes(holder: &AttributeHolder<'_>) -> (Vec<ExtendedAttribute>, Option<io::Error>) {
    // There is no call for "an entry of a directory"; its path below /proc needs no long path either.
    let entry_path = match holder {
        AttributeHolder::Entry(dir, name) => {
            let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
            path.extend_from_slice(name.to_bytes());
            path
        }
        _ => Vec::new(),
    };
    let list = |buffer: &mut [u8]| match holder {
        AttributeHolder::Opened(fd) => rustix::fs::flistxattr(fd, buffer),
        AttributeHolder::Entry(..) => rustix::fs::llistxattr(entry_path.as_slice(), buffer),
        AttributeHolder::Path(path) => rustix::fs::llistxattr(path.as_os_str().as_bytes(), buffer),
        AttributeHolder::Followed(path) => rustix::fs::listxattr(path.as_os_str().as_bytes(), buffer),
    };
    let get = |name: &[u8], buffer: &mut [u8]| match holder {
        AttributeHolder::Opened(fd) => rustix::fs::fgetxattr(fd, name, buffer),
        AttributeHolder::Entry(..) => rustix::fs::lgetxattr(entry_path.as_slice(), name, buffer),
        AttributeHolder::Path(path) => rustix::fs::lgetxattr(path.as_os_str().as_bytes(), name, buffer),
        AttributeHolder::Followed(path) => rustix::fs::getxattr(path.as_os_str().as_bytes(), name, buffer),
    };
    let names = match read_grown(list) {
        Ok(names) => names,
        Err(Errno::NOTSUP | Errno::NODATA) => return (Vec::new(), None),
        Err(Errno::NOENT) if !Path::new("/proc/self/fd").exists() => {
            return (Vec::new(), Some(io::Error::other("/proc is not mounted, which is needed to read them")));
        }
        Err(error) => return (Vec::new(), Some(error.into())),
    };
    let mut attributes = Vec::new();
    let mut failed = None;
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match read_grown(|buffer| get(name, buffer)) {
            Ok(value) => attributes.push(ExtendedAttribute { name: name.to_vec(), value: Some(value) }),
            Err(Errno::NODATA) => {}
            Err(error) => {
                failed.get_or_insert_with(|| {
                    let text =
                        format!("extended attribute {}: {}", String::from_utf8_lossy(name), io::Error::from(error));
                    io::Error::new(io::Error::from(error).kind(), text)
                });
            }
        }
    }
    (attributes, failed)
}

/// Calls `read` with a buffer that is large enough. The system's own limit for both, names and a value, is 64 KiB;
/// some file systems allow more.
fn read_grown(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 1024];
    match read(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut size = 64 * 1024;
    loop {
        let mut buffer = vec![0; size];
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if size < 16 * 1024 * 1024 => size *= 4,
            Err(error) => return Err(error),
        }
    }
}

/// The node of a directory that stands in the snapshot only, where a root is kept under another path than on disk:
/// owned by root, mode 0755, times of 1970, so that it is the same in every backup.
pub(crate) fn virtual_directory(name: &[u8]) -> Node {
    let epoch = Timestamp::from_unix(0, 0);
    Node {
        name: name.to_vec(),
        kind: NodeKind::Dir,
        mode: mode::from_unix(NodeKind::Dir, 0o755),
        mtime: epoch,
        atime: epoch,
        ctime: epoch,
        ..Node::default()
    }
}
