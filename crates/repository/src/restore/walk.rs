//! The walk through the snapshot: makes what has no content, and finds out what content is missing.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Mode, chmod, mkdirat, mknodat, statat, symlinkat};
use rustix::io::Errno;

use super::decide::{Action, Existing, Overwrite, UNFINISHED, decide, select};
use super::directory::Directory;
use super::files::{Batch, FileJob};
use super::metadata::Metadata;
use super::{Run, add, remove};
use crate::error::Damage;
use crate::format::node::{Node, NodeKind, mode};
use crate::format::time::Timestamp;
use crate::format::tree::{TreeError, check_name};
use crate::trees::{Step, Visit};
use crate::{Error, Id, Result};

/// A directory that the walk is in.
struct Level {
    name: Vec<u8>,
    /// What it gets in the end; none for the target itself.
    node: Option<Node>,
    here: Here,
    /// The names that the snapshot has here, where others are to be removed.
    names: HashSet<Vec<u8>>,
    /// The name of the entry before.
    last: Vec<u8>,
}

impl Level {
    fn new(name: Vec<u8>, node: Option<Node>, here: Here) -> Self {
        Self { name, node, here, names: HashSet::new(), last: Vec::new() }
    }
}

/// A directory in the target.
enum Here {
    /// Nothing below it was wanted yet.
    NotAsked,
    Open(Arc<Directory>),
    /// In a dry run: it would be made, and all in it is new.
    WouldBeMade,
    /// It could not be made or opened, which was told.
    Failed,
}

/// Where a hard-linked file was put first.
struct FirstLink {
    directory: Arc<Directory>,
    name: Vec<u8>,
    left: u64,
}

struct Walk<'a> {
    run: &'a Run<'a>,
    batch: Batch<'a>,
    levels: Vec<Level>,
    /// By device and inode number in the snapshot; each goes when its last link is made.
    links: HashMap<(u64, u64), FirstLink>,
}

/// Walks through everything; returns when the last piece was handed on.
pub(super) fn walk<'a>(run: &'a Run<'a>, tree: &Id, batch: Batch<'a>) -> Result<()> {
    let here = open_target(run)?;
    let root = Level::new(Vec::new(), None, here);
    let mut walk = Walk { run, batch, levels: vec![root], links: HashMap::new() };
    let index = run.repository.index()?;
    crate::trees::walk(run.repository, &index, tree, b"/", run.monitor, &mut |step| walk.step(step))?;
    walk.batch.flush()
}

fn open_target(run: &Run<'_>) -> Result<Here> {
    let target = &run.options.target;
    let failed = |operation| move |source| Error::Io { operation, path: target.clone(), source };
    if run.options.dry_run {
        return match Directory::open_target(target, false, None) {
            Ok(directory) => Ok(Here::Open(directory)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Here::WouldBeMade),
            Err(error) => Err(failed("open")(error)),
        };
    }
    let is_new = !target.exists();
    std::fs::create_dir_all(target).map_err(failed("make"))?;
    let node = run.options.target_metadata.as_ref();
    let node = node.filter(|node| is_new || !is_of_another(run, node));
    let metadata = node.map(|node| Metadata::of(node, &run.options.owners));
    Directory::open_target(target, is_new, metadata).map(Here::Open).map_err(failed("open"))
}

/// Whether a target that is there cannot get the metadata of `node`, since it belongs to somebody else: so do the volumes
/// that a cluster opens to a pod by a group. What differs is told.
fn is_of_another(run: &Run<'_>, node: &Node) -> bool {
    let target = &run.options.target;
    let Ok(found) = target.metadata() else { return false };
    let (found, wanted) = (found.permissions().mode() & 0o7777, mode::to_unix(node.mode) & 0o7777);
    // What changes nothing needs the same rights.
    if chmod(target, Mode::from_raw_mode(found)) != Err(Errno::PERM) {
        return false;
    }
    if found != wanted {
        let text = format!("its owner alone may change it: its mode stays {found:o}, in the snapshot it is {wanted:o}");
        run.monitor.note(target.display().to_string(), text);
    }
    true
}

impl Walk<'_> {
    fn step(&mut self, step: Step<'_>) -> Result<Visit> {
        self.run.check()?;
        match step {
            Step::Entry { path, node } => return self.entry(path, node),
            Step::Leave { path, .. } => self.leave(path, true),
            // Nothing to restore from at all.
            Step::Unreadable { error, .. } if self.levels.len() == 1 => return Err(error),
            Step::Unreadable { path, error, .. } => {
                self.run.failed(path, &error);
                self.leave(path, false);
            }
        }
        Ok(Visit::Skip)
    }

    fn entry(&mut self, path: &[u8], node: &Node) -> Result<Visit> {
        let options = self.run.options;
        if let Err(error) = check_name(node).and_then(|()| self.check_order(node)) {
            let what = format!("the listing of {}", crate::source::display_path(path));
            self.run.failed(path, &Error::damaged(what, error));
            return Ok(Visit::Skip);
        }
        if let Some(level) = self.levels.last_mut() {
            level.last.clone_from(&node.name);
            if options.delete {
                level.names.insert(node.name.clone());
            }
        }
        let selection = select(path, options);
        if node.kind == NodeKind::Dir {
            if !selection.is_selected && !selection.may_be_below {
                return Ok(Visit::Skip);
            }
            self.levels.push(Level::new(node.name.clone(), Some(node.clone()), Here::NotAsked));
            if selection.is_selected {
                self.open_level();
            }
            return Ok(Visit::Enter);
        }
        if selection.is_selected {
            self.open_level();
            match self.levels.last().map(|level| &level.here) {
                Some(Here::Open(directory)) => {
                    let directory = Arc::clone(directory);
                    self.make(path, node, &directory)?;
                }
                Some(Here::WouldBeMade) => self.would(Action::Create, path, node),
                // Why there is no directory was told.
                _ => {}
            }
        }
        Ok(Visit::Skip)
    }

    /// Refuses a second entry of a name: it would be made where the first one is.
    fn check_order(&self, node: &Node) -> std::result::Result<(), TreeError> {
        match self.levels.last() {
            Some(level) if level.last == node.name => {
                Err(TreeError::Order { name: node.display_name(), previous: node.display_name() })
            }
            _ => Ok(()),
        }
    }

    /// Makes or opens the directory that the walk is in, and those above it that were not wanted before.
    fn open_level(&mut self) {
        let Some(first) = self.levels.iter().position(|level| matches!(level.here, Here::NotAsked)) else { return };
        for n in first.max(1)..self.levels.len() {
            let here = match &self.levels[n - 1].here {
                Here::Open(parent) => {
                    let parent = Arc::clone(parent);
                    self.open_directory(&parent, n)
                }
                Here::WouldBeMade => {
                    self.count_dir("created", n);
                    Here::WouldBeMade
                }
                Here::NotAsked | Here::Failed => Here::Failed,
            };
            self.levels[n].here = here;
        }
    }

    fn count_dir(&self, action: &'static str, n: usize) {
        add(&self.run.counts.dirs, 1);
        add(&self.run.monitor.counters().dirs, 1);
        self.run.monitor.item(action, || crate::source::display_path(&self.level_path(n)));
    }

    fn level_path(&self, n: usize) -> Vec<u8> {
        let mut path = Vec::new();
        for level in &self.levels[1..=n] {
            path.push(b'/');
            path.extend_from_slice(&level.name);
        }
        path
    }

    fn open_directory(&self, parent: &Arc<Directory>, n: usize) -> Here {
        let Level { name, node, .. } = &self.levels[n];
        let dry_run = self.run.options.dry_run;
        let metadata = node.as_ref().filter(|_| !dry_run).map(|node| Metadata::of(node, &self.run.options.owners));
        let opened = parent.fd().and_then(|fd| {
            let is_new = match parent.is_new {
                true => true,
                false => match statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => false,
                    Ok(_) if matches!(self.run.options.overwrite, Overwrite::Never | Overwrite::IfNewer) => {
                        return Err(Errno::NOTDIR.into());
                    }
                    // A link to a directory, too, gives way: what it points to is not ours.
                    Ok(_) if !dry_run => {
                        remove::remove_one(fd.as_fd(), name)?;
                        true
                    }
                    Ok(_) | Err(Errno::NOENT) => true,
                    Err(error) => return Err(error.into()),
                },
            };
            if is_new && dry_run {
                return Ok((Here::WouldBeMade, true));
            }
            if is_new {
                mkdirat(&fd, name, Mode::RWXU)?;
            }
            let directory = parent.open_child(name, is_new, metadata)?;
            if !is_new && !dry_run && !rustix::process::geteuid().is_root() {
                // A restore that was killed may have left it unwritable; it gets its permissions in the end.
                let fd = directory.fd()?;
                let mode = Mode::from_raw_mode(rustix::fs::fstat(&*fd)?.st_mode);
                if !mode.contains(Mode::RWXU) {
                    let _ = rustix::fs::fchmod(&*fd, mode | Mode::RWXU);
                }
            }
            Ok((Here::Open(directory), is_new))
        });
        match opened {
            Ok((here, is_new)) => {
                self.count_dir(if is_new { "created" } else { "entered" }, n);
                here
            }
            Err(error) => {
                self.run.io_failed("make the directory", &self.level_path(n), error);
                Here::Failed
            }
        }
    }

    /// Leaves the directory that the walk is in.
    fn leave(&mut self, path: &[u8], is_complete: bool) {
        let Some(level) = self.levels.pop() else { return };
        let Here::Open(directory) = level.here else { return };
        if self.run.options.delete && is_complete && !directory.is_new {
            self.remove_others(path, &directory, &level.names);
        }
        if !self.run.options.dry_run {
            directory.end(self.run);
        }
    }

    fn remove_others(&self, path: &[u8], directory: &Arc<Directory>, wanted: &HashSet<Vec<u8>>) {
        let options = self.run.options;
        let listed = directory.fd().and_then(|fd| Ok((remove::names(fd.as_fd())?, fd)));
        let (names, fd) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.run.io_failed("list", path, error),
        };
        for name in names {
            let name = name.to_bytes();
            let path = directory.path_of(name);
            if wanted.contains(name) || !select(&path, options).is_selected {
                continue;
            }
            if !options.dry_run
                && let Err(error) = remove::remove_all(fd.as_fd(), name)
            {
                self.run.io_failed("remove", &path, error);
                continue;
            }
            add(&self.run.counts.removed, 1);
            self.run.monitor.item("removed", || crate::source::display_path(&path));
        }
    }

    /// Makes an entry that is no directory, or hands on what it lacks.
    fn make(&mut self, path: &[u8], node: &Node, directory: &Arc<Directory>) -> Result<()> {
        match self.try_make(path, node, directory) {
            Ok(()) => Ok(()),
            Err(MakeError::Io(operation, error)) => {
                self.run.io_failed(operation, path, error);
                Ok(())
            }
            Err(MakeError::Passed(error)) => {
                self.run.failed(path, &error);
                Ok(())
            }
            Err(MakeError::Fatal(error)) => Err(error),
        }
    }

    fn try_make(&mut self, path: &[u8], node: &Node, directory: &Arc<Directory>) -> std::result::Result<(), MakeError> {
        let options = self.run.options;
        if matches!(node.kind, NodeKind::Socket | NodeKind::Irregular | NodeKind::Unknown) {
            let what =
                if node.kind == NodeKind::Socket { "a socket" } else { "of a kind that this system does not have" };
            self.run.monitor.note(crate::source::display_path(path), format!("is {what}: not restored"));
            return Ok(());
        }
        let fd = directory.fd().map_err(|error| MakeError::Io("open the directory of", error))?;
        let stat = if directory.is_new {
            None
        } else {
            match statat(&fd, &node.name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(MakeError::Io("look up", error.into())),
            }
        };
        let existing = stat.as_ref().map(existing);
        let first = self.links.get(&(node.device_id, node.inode)).filter(|_| node.links > 1);
        let mut action = decide(node, existing.as_ref(), options.overwrite);
        if let (Some(first), Some(stat), false) = (first, &stat, options.dry_run)
            && action != Action::Skip
        {
            let is_linked = first
                .directory
                .fd()
                .and_then(|fd| Ok(statat(&fd, &first.name, AtFlags::SYMLINK_NOFOLLOW)?))
                .is_ok_and(|first| (first.st_dev, first.st_ino) == (stat.st_dev, stat.st_ino));
            if is_linked {
                self.linked(node);
                return Ok(());
            }
            action = Action::Replace;
        }
        if options.dry_run {
            self.would(action, path, node);
            return Ok(());
        }
        if action == Action::Skip {
            add(&self.run.counts.skipped, 1);
            self.run.monitor.item("skipped", || crate::source::display_path(path));
            // Names of it that are missing are made again as such, not as files of their own.
            if first.is_none() && node.links > 1 && existing.is_some_and(|existing| existing.is_as_in(node)) {
                self.first_link(node, directory);
            }
            return Ok(());
        }
        if action == Action::Replace {
            let remove = if options.delete { remove::remove_all } else { remove::remove_one };
            remove(fd.as_fd(), &node.name).map_err(|error| MakeError::Io("replace", error))?;
        }
        if let Some(first) = self.links.get(&(node.device_id, node.inode)).filter(|_| node.links > 1) {
            let first_fd = first.directory.fd().map_err(|error| MakeError::Io("link", error))?;
            rustix::fs::linkat(&*first_fd, &first.name, &*fd, &node.name, AtFlags::empty())
                .map_err(|error| MakeError::Io("link", error.into()))?;
            self.linked(node);
            add(&self.run.counts.others, 1);
            self.run.monitor.item("linked", || crate::source::display_path(path));
            return Ok(());
        }
        match node.kind {
            NodeKind::File => self.file(path, node, directory, action)?,
            kind => {
                let made = match kind {
                    NodeKind::Symlink => symlinkat(std::ffi::OsStr::from_bytes(&node.link_target), &*fd, &node.name),
                    NodeKind::Dev => mknodat(&*fd, &node.name, FileType::BlockDevice, Mode::RWXU, node.device),
                    NodeKind::CharDev => mknodat(&*fd, &node.name, FileType::CharacterDevice, Mode::RWXU, node.device),
                    _ => mknodat(&*fd, &node.name, FileType::Fifo, Mode::RWXU, 0),
                };
                made.map_err(|error| MakeError::Io("make", error.into()))?;
                Metadata::of(node, &options.owners).apply_to_entry(self.run, directory, &node.name, kind);
                add(&self.run.counts.others, 1);
                self.run.monitor.item("restored", || crate::source::display_path(path));
            }
        }
        if node.links > 1 {
            self.first_link(node, directory);
        }
        Ok(())
    }

    /// The first name of a file is there.
    fn first_link(&mut self, node: &Node, directory: &Arc<Directory>) {
        let first = FirstLink { directory: Arc::clone(directory), name: node.name.clone(), left: node.links - 1 };
        self.links.insert((node.device_id, node.inode), first);
    }

    /// One more link of a file is there.
    fn linked(&mut self, node: &Node) {
        let key = (node.device_id, node.inode);
        if let Some(first) = self.links.get_mut(&key) {
            first.left -= 1;
            if first.left == 0 {
                self.links.remove(&key);
            }
        }
    }

    fn file(
        &mut self,
        path: &[u8],
        node: &Node,
        directory: &Arc<Directory>,
        action: Action,
    ) -> std::result::Result<(), MakeError> {
        let size = self.batch.content_bytes(node).map_err(MakeError::Passed)?;
        if size != node.size {
            let text = format!("its listing says {} bytes, its content has {size}", node.size);
            self.run.failed(path, &Error::damaged("the file", Damage::Content(text)));
        }
        let is_new = !matches!(action, Action::Rewrite | Action::SetMetadata);
        let job = FileJob::new(self.run, node, directory, size, is_new);
        // Its other names can be made only once it is there.
        if node.links > 1 && is_new && !job.make(self.run) {
            return Ok(());
        }
        match action {
            Action::SetMetadata => self.batch.set_metadata(&job),
            _ => self.batch.add(job, node).map_err(MakeError::Fatal)?,
        }
        Ok(())
    }

    /// Counts and tells what a run that is not dry would do.
    fn would(&self, action: Action, path: &[u8], node: &Node) {
        let counts = &self.run.counts;
        let (word, counter) = match action {
            Action::Skip => ("skipped", &counts.skipped),
            Action::SetMetadata => ("unchanged", &counts.files_unchanged),
            _ if node.kind != NodeKind::File => ("restored", &counts.others),
            Action::Create => ("restored", &counts.files_restored),
            Action::Replace | Action::Rewrite => ("updated", &counts.files_restored),
        };
        add(counter, 1);
        let bytes = match action {
            Action::Skip => None,
            Action::SetMetadata => Some(&counts.bytes_unchanged),
            _ => Some(&counts.bytes_restored),
        };
        if let Some(bytes) = bytes {
            add(bytes, node.size);
        }
        self.run.monitor.item(word, || crate::source::display_path(path));
    }
}

/// Why an entry was not made.
enum MakeError {
    Io(&'static str, io::Error),
    Passed(Error),
    Fatal(Error),
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the types differ between processors")]
fn existing(stat: &rustix::fs::Stat) -> Existing {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        _ => NodeKind::Irregular,
    };
    Existing {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: Timestamp::from_unix(stat.st_mtime as i64, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        links: u64::from(stat.st_nlink),
        is_unfinished: kind == NodeKind::File && stat.st_mode & 0o7777 == UNFINISHED,
    }
}
