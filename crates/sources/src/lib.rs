//! What is backed up: file trees, and streams as the output of a command.
//!
//! Each is a [`holdfast_repository::source::Source`]. A source only reads: it never changes what it reads (access
//! times included, where the system allows), never follows a symbolic link out of its tree, and never writes to a
//! repository.

mod directory;
mod exclude;
mod file_tree;
mod listing;
mod metadata;
mod stream;

pub use exclude::{Excludes, TagFile};
pub use file_tree::{FileTree, FileTreeError, FileTreeOptions, Root};
pub use stream::Stream;
