//! Owners, permissions, extended attributes and times of what was restored.
//!
//! The order matters: a change of owner clears the setuid bits and capabilities, setting an ACL must come after the
//! permissions it refines, and all of them come before the times.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Run;
use super::directory::Directory;
use crate::format::node::{ExtendedAttribute, Node, NodeKind, mode};
use crate::format::time::Timestamp;

/// Whom restored files belong to.
#[derive(Clone, Default)]
pub enum Owners {
    /// The numbers that the snapshot has.
    #[default]
    Numbers,
    /// The users and groups of the snapshot's names, where this system has them; else the numbers.
    Names(Arc<OwnerLookup>),
    /// Whoever restores.
    Nobody,
}

/// Finds the numbers of users and groups on this system, and remembers them.
pub struct OwnerLookup {
    user: Ask,
    group: Ask,
    users: Known,
    groups: Known,
}

type Ask = Box<dyn Fn(&str) -> Option<u32> + Send + Sync>;
type Known = Mutex<HashMap<Arc<str>, Option<u32>>>;

impl OwnerLookup {
    /// Asks `user` and `group`, once for every name.
    pub fn new(
        user: impl Fn(&str) -> Option<u32> + Send + Sync + 'static,
        group: impl Fn(&str) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        Self { user: Box::new(user), group: Box::new(group), users: Mutex::default(), groups: Mutex::default() }
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Numbers => "Numbers",
            Self::Names(_) => "Names",
            Self::Nobody => "Nobody",
        })
    }
}

impl Owners {
    fn of(&self, node: &Node) -> Option<(u32, u32)> {
        match self {
            Self::Numbers => Some((node.uid, node.gid)),
            Self::Names(lookup) => {
                let find = |known: &Known, ask: &Ask, name: Option<&Arc<str>>| {
                    let name = name?;
                    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    *known.entry(Arc::clone(name)).or_insert_with(|| ask(name))
                };
                let user = find(&lookup.users, &lookup.user, node.user.as_ref());
                let group = find(&lookup.groups, &lookup.group, node.group.as_ref());
                Some((user.unwrap_or(node.uid), group.unwrap_or(node.gid)))
            }
            Self::Nobody => None,
        }
    }
}

/// What is set once the content is there.
pub(super) struct Metadata {
    owner: Option<(u32, u32)>,
    mode: Mode,
    atime: Timestamp,
    mtime: Timestamp,
    attributes: Vec<ExtendedAttribute>,
}

impl Metadata {
    pub(super) fn of(node: &Node, owners: &Owners) -> Self {
        Self {
            owner: owners.of(node),
            mode: Mode::from_raw_mode(mode::to_unix(node.mode)),
            atime: node.atime,
            mtime: node.mtime,
            attributes: node.extended_attributes.clone(),
        }
    }

    fn times(&self) -> Timestamps {
        let time = |time: Timestamp| Timespec { tv_sec: time.seconds(), tv_nsec: time.nanoseconds().into() };
        Timestamps { last_access: time(self.atime), last_modification: time(self.mtime) }
    }

    /// Sets everything on an opened file or directory. Failures are reported under `path`.
    pub(super) fn apply_to_fd(&self, run: &Run<'_>, fd: BorrowedFd<'_>, is_new: bool, path: &dyn Fn() -> Vec<u8>) {
        let tell = |operation: &'static str, result: Result<(), Errno>| {
            if let Err(error) = result {
                run.io_failed(operation, &path(), error.into());
            }
        };
        if let Some((uid, gid)) = self.owner {
            tell(
                "set the owner of",
                tolerate(rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))),
            );
        }
        tell("set the permissions of", rustix::fs::fchmod(fd, self.mode));
        if !is_new {
            self.remove_other_attributes(fd);
        }
        for ExtendedAttribute { name, value } in &self.attributes {
            let value = value.as_deref().unwrap_or_default();
            let result = rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty());
            self.tell_attribute(run, name, result, path);
        }
        tell("set the times of", rustix::fs::futimens(fd, &self.times()));
    }

    /// Sets everything on a symbolic link, device or pipe of a directory, never following a link.
    pub(super) fn apply_to_entry(&self, run: &Run<'_>, directory: &Arc<Directory>, name: &[u8], kind: NodeKind) {
        let path = || directory.path_of(name);
        let dir = match directory.fd() {
            Ok(dir) => dir,
            Err(error) => return run.io_failed("open", &path(), error),
        };
        let tell = |operation: &'static str, result: Result<(), Errno>| {
            if let Err(error) = result {
                run.io_failed(operation, &path(), error.into());
            }
        };
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            let result = rustix::fs::chownat(&*dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            tell("set the owner of", tolerate(result));
        }
        if kind != NodeKind::Symlink {
            // There is no call that changes an entry's permissions and follows no link; this descriptor is the entry.
            let result =
                rustix::fs::openat(&*dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                    .and_then(|fd| rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), self.mode));
            tell("set the permissions of", result);
        }
        if !self.attributes.is_empty() {
            let mut entry = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
            entry.extend_from_slice(name);
            for ExtendedAttribute { name, value } in &self.attributes {
                let value = value.as_deref().unwrap_or_default();
                let result = rustix::fs::lsetxattr(entry.as_slice(), name.as_slice(), value, XattrFlags::empty());
                self.tell_attribute(run, name, result, &path);
            }
        }
        tell("set the times of", rustix::fs::utimensat(&*dir, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW));
    }

    /// Removes what the snapshot does not have of the attributes that mean access, or that users set.
    fn remove_other_attributes(&self, fd: BorrowedFd<'_>) {
        let mut names = vec![0; 64 << 10];
        let Ok(length) = rustix::fs::flistxattr(fd, names.as_mut_slice()) else { return };
        for name in names[..length].split_inclusive(|&byte| byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            let bytes = name.to_bytes();
            let is_ours =
                [&b"user."[..], b"system.posix_acl_", b"security.capability"].iter().any(|p| bytes.starts_with(p));
            if is_ours && !self.attributes.iter().any(|attribute| attribute.name == bytes) {
                // What cannot be removed is of the file system's own making.
                let _ = rustix::fs::fremovexattr(fd, name);
            }
        }
    }

    fn tell_attribute(&self, run: &Run<'_>, name: &[u8], result: Result<(), Errno>, path: &dyn Fn() -> Vec<u8>) {
        match result {
            Ok(()) => {}
            Err(Errno::NOTSUP) => {
                if !run.attributes_noted.swap(true, Ordering::Relaxed) {
                    let text = format!(
                        "the target cannot hold extended attribute {}, nor others of its kind",
                        name.escape_ascii()
                    );
                    run.monitor.note(crate::source::display_path(&path()), text);
                }
            }
            // Only root may set those.
            Err(Errno::PERM) if !is_root() && !name.starts_with(b"user.") => {}
            Err(error) => {
                let error = io::Error::from(error);
                let text = io::Error::new(error.kind(), format!("{}: {error}", name.escape_ascii()));
                run.io_failed("set an extended attribute of", &path(), text);
            }
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Only root may give files away: for others, files belong to whoever restores.
fn tolerate(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::PERM | Errno::INVAL) if !is_root() => Ok(()),
        result => result,
    }
}
