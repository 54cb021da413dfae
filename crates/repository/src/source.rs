//! What a backup reads: the border between the backup pipeline and where the data comes from.
//!
//! Implemented by the crate `holdfast-sources`. Nothing here does any IO.

use std::any::Any;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::format::go_text;
use crate::format::node::Node;

/// A tree of entries under virtual (snapshot) paths.
///
/// Entries come one by one and are looked at only when asked for, so that a directory of a million files costs
/// the memory of its names.
pub trait Source: Send + Sync {
    /// The snapshot's `paths`.
    fn paths(&self) -> Vec<Vec<u8>>;

    /// The entries of the snapshot's root, `/`, as [`Self::read_dir`] gives them.
    fn root(&self) -> Result<DirEntries, SourceError>;

    /// The entries of a directory, sorted by the bytes of their names, already without what is excluded.
    ///
    /// `dir` is an entry of this source whose node is a directory. Fails when the directory cannot be read at all.
    fn read_dir(&self, dir: &Entry) -> Result<DirEntries, SourceError>;

    /// Opens a file for reading, never following a symbolic link.
    fn open(&self, file: &Entry) -> Result<OpenFile, SourceError>;

    /// Whether an error of any single entry makes the whole backup worthless, as for the output of a command: then
    /// no snapshot must be written. Otherwise errors are recorded and the backup goes on.
    fn is_all_or_nothing(&self) -> bool {
        false
    }
}

/// The entries of one directory, sorted by the bytes of their names.
///
/// An error concerns one entry only (its path is in the error) and the rest follows: it is to be recorded, and the
/// backup to go on. An entry may follow its own error, when only a part of its metadata could not be read.
pub type DirEntries = Box<dyn Iterator<Item = Result<Found, SourceError>> + Send>;

/// One thing found in a directory.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are entries: a box would only cost")]
pub enum Found {
    /// Something to back up.
    Entry(Entry),
    /// Something that is left out and that a person should know of; no error.
    Note(Note),
}

/// Something to back up.
#[derive(Debug, Clone)]
pub struct Entry {
    /// All metadata as of the listing; `subtree` is empty, `content` is `None`, but for files it is empty.
    pub node: Node,
    /// The path by which a person knows it, absolute: `/` and names joined by `/`. That in the snapshot, or on disk.
    pub path: Vec<u8>,
    /// The source's own handle of the directory that holds the entry.
    pub parent: Arc<dyn Any + Send + Sync>,
}

/// An opened file.
pub struct OpenFile {
    /// Metadata of the opened file itself, so that what is recorded belongs to what is read. `size` is that of
    /// the moment of opening: when another number of bytes was read, that number is to be recorded.
    pub node: Node,
    /// The content. Errors on the way are plain IO errors; see [`SourceError::reading`].
    pub content: Box<dyn Read + Send>,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What a person should know of something that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The path in the snapshot.
    pub path: Vec<u8>,
    /// What it is about.
    pub kind: NoteKind,
}

/// The kinds of [`Note`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// A socket: it has no content, and no program could use a restored one.
    Socket,
    /// A file that marks its directory as excluded by its name, but does not start as it should (as a
    /// `CACHEDIR.TAG` without the signature). The directory is not excluded.
    TagFileWithoutHeader,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = display_path(&self.path);
        match self.kind {
            NoteKind::Socket => write!(f, "{path} is a socket: not saved"),
            NoteKind::TagFileWithoutHeader => {
                write!(f, "{path} does not start with its signature: its directory is not excluded")
            }
        }
    }
}

/// Why something could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceErrorKind {
    /// It was listed and is gone, or is something else now.
    Vanished,
    /// Reading it is not allowed.
    Permission,
    /// The device or file system failed.
    Io,
    /// Anything else, as a command that failed.
    Other,
}

impl SourceErrorKind {
    /// The kind of a failed system call.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            // A component that became a link or a file gives ENOTDIR or ELOOP; a replaced network mount ESTALE.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::StaleNetworkFileHandle => {
                Self::Vanished
            }
            io::ErrorKind::PermissionDenied => Self::Permission,
            io::ErrorKind::Other | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Self::Other,
            _ => Self::Io,
        }
    }
}

/// Something that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", display_path(.path))]
pub struct SourceError {
    /// The path in the snapshot.
    pub path: Vec<u8>,
    /// The verb, as `open` or `list`.
    pub operation: &'static str,
    /// Why, coarsely.
    pub kind: SourceErrorKind,
    /// Why, as the system says.
    pub source: io::Error,
}

impl SourceError {
    /// Of a failed system call; the kind follows from the error.
    pub fn new(operation: &'static str, path: impl Into<Vec<u8>>, source: io::Error) -> Self {
        let kind = SourceErrorKind::of(&source);
        Self { path: path.into(), operation, kind, source }
    }

    /// Of a failed read of a file's content.
    pub fn reading(path: impl Into<Vec<u8>>, source: io::Error) -> Self {
        Self::new("read", path, source)
    }

    /// As [`Self::new`] with a kind that the error does not tell.
    pub fn of_kind(
        kind: SourceErrorKind,
        operation: &'static str,
        path: impl Into<Vec<u8>>,
        source: io::Error,
    ) -> Self {
        Self { path: path.into(), operation, kind, source }
    }
}

/// A path for messages: as it is when it is text, else escaped.
pub fn display_path(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(path) if !path.chars().any(char::is_control) => path.to_owned(),
        _ => String::from_utf8_lossy(&go_text::quote(path)).into_owned(),
    }
}
