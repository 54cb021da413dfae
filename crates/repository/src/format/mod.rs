//! The repository format: what its files are called and what their bytes mean. Pure: no IO.
//!
//! Source: restic's design document, sections "Repository Format" and "Pack Format".

pub mod config;
pub mod go_text;
pub mod index;
pub mod key;
pub mod lock;
pub mod node;
pub mod pack;
mod printable;
pub mod snapshot;
pub mod time;
pub mod tree;

use crate::Id;

/// The kinds of files in a repository that are named by their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Packed blobs, `data/xx/…`.
    Pack,
    /// Which blob is in which pack, `index/…`.
    Index,
    /// A password's access to the master key, `keys/…`.
    Key,
    /// Who works on the repository, `locks/…`.
    Lock,
    /// A backup, `snapshots/…`.
    Snapshot,
}

/// The name of the configuration file.
pub const CONFIG_NAME: &str = "config";

impl FileKind {
    /// The folder that files of this kind live in.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Pack => "data",
            Self::Index => "index",
            Self::Key => "keys",
            Self::Lock => "locks",
            Self::Snapshot => "snapshots",
        }
    }

    /// What a person calls a file of this kind.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Index => "index",
            Self::Key => "key",
            Self::Lock => "lock",
            Self::Snapshot => "snapshot",
        }
    }

    /// The store's name of a file.
    pub fn path(self, id: &Id) -> String {
        match self {
            Self::Pack => format!("data/{:02x}/{id}", id.0[0]),
            _ => format!("{}/{id}", self.folder()),
        }
    }
}

/// The two kinds of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A piece of a file.
    Data,
    /// A directory.
    Tree,
}

impl BlobKind {
    /// `data` or `tree`.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }
}
