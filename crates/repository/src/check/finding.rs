//! What can be wrong with a repository, and what a person can do about it.

use serde::{Serialize, Serializer};

use crate::Id;
use crate::format::BlobKind;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; everything can be restored.
    Note,
    /// Something is damaged or missing.
    Error,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, for a person; names the object.
    pub what: String,
    /// What to do.
    pub advice: &'static str,
    /// The same, for a program.
    #[serde(serialize_with = "kind")]
    #[serde(rename = "kind")]
    pub problem: Problem,
}

fn kind<S: Serializer>(problem: &Problem, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(problem.kind())
}

impl Finding {
    pub(super) fn new(problem: Problem) -> Self {
        Self { severity: problem.severity(), what: problem.to_string(), advice: problem.advice(), problem }
    }
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A key file is not what was stored.
    #[error("key {id} is damaged: {reason}")]
    Key {
        /// The key.
        id: Id,
        /// How that was seen.
        reason: String,
    },
    /// A snapshot cannot be read.
    #[error("snapshot {id} cannot be read: {reason}")]
    Snapshot {
        /// The snapshot.
        id: Id,
        /// Why.
        reason: String,
    },
    /// An index cannot be read.
    #[error("index {id} cannot be read: {reason}")]
    Index {
        /// The index.
        id: Id,
        /// Why.
        reason: String,
    },
    /// An index names a pack that is not there.
    #[error("pack {id} with {blobs} blobs is missing")]
    PackMissing {
        /// The pack.
        id: Id,
        /// How many blobs the index says are in it.
        blobs: u32,
    },
    /// A pack has not the size that follows from the index.
    #[error("pack {id} has {size_bytes} bytes, it should have {expected_bytes}")]
    PackSize {
        /// The pack.
        id: Id,
        /// Its size.
        size_bytes: u64,
        /// What the index says.
        expected_bytes: u64,
    },
    /// No index names a pack.
    #[error("pack {id} of {size_bytes} bytes is in no index: an interrupted backup or prune left it")]
    PackOrphan {
        /// The pack.
        id: Id,
        /// Its size.
        size_bytes: u64,
    },
    /// A pack is not what was stored.
    #[error("pack {id} is damaged: {reason}")]
    Pack {
        /// The pack.
        id: Id,
        /// How that was seen.
        reason: String,
    },
    /// A blob in a pack is not what was stored.
    #[error("{} blob {id} in pack {pack} is damaged: {reason}", .kind.noun())]
    Blob {
        /// Data or tree.
        kind: BlobKind,
        /// The blob.
        id: Id,
        /// Where it lies.
        pack: Id,
        /// How that was seen.
        reason: String,
        /// Whether another pack has a good copy.
        has_copy: bool,
    },
    /// A snapshot needs a blob that no index names.
    #[error("{} blob {id} is needed and in no index", .kind.noun())]
    BlobMissing {
        /// Data or tree.
        kind: BlobKind,
        /// The blob.
        id: Id,
    },
    /// A directory cannot be read.
    #[error("tree {id} cannot be read: {reason}")]
    Tree {
        /// The directory's blob.
        id: Id,
        /// Why.
        reason: String,
    },
    /// A directory entry makes no sense.
    #[error("entry {name:?} of tree {tree}: {reason}")]
    TreeEntry {
        /// The directory's blob.
        tree: Id,
        /// The entry's name, escaped.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file's content is longer or shorter than its size says.
    #[error("file {name:?} of tree {tree} has {content_bytes} bytes of content, its size is given as {size_bytes}")]
    FileSize {
        /// The directory's blob.
        tree: Id,
        /// The file's name, escaped.
        name: String,
        /// The size it is listed with.
        size_bytes: u64,
        /// The bytes of its content.
        content_bytes: u64,
    },
}

impl Problem {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::PackOrphan { .. } | Self::FileSize { .. } => Severity::Note,
            _ => Severity::Error,
        }
    }

    /// A word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key { .. } => "key",
            Self::Snapshot { .. } => "snapshot",
            Self::Index { .. } => "index",
            Self::PackMissing { .. } => "pack-missing",
            Self::PackSize { .. } => "pack-size",
            Self::PackOrphan { .. } => "pack-orphan",
            Self::Pack { .. } => "pack",
            Self::Blob { .. } => "blob",
            Self::BlobMissing { .. } => "blob-missing",
            Self::Tree { .. } => "tree",
            Self::TreeEntry { .. } => "tree-entry",
            Self::FileSize { .. } => "file-size",
        }
    }

    /// What to do about it, with this program where it can do it, else with restic.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Key { .. } => {
                "add a new key with `holdfast repo key add`, then remove this one with `holdfast repo key remove`"
            }
            Self::Snapshot { .. } => {
                "restore the file from a copy of the repository, or give the snapshot up with `holdfast repo forget` and its id"
            }
            Self::Index { .. } => {
                "restore the file from a copy of the repository, or rebuild the index from the packs with `restic repair index`"
            }
            Self::PackMissing { .. } | Self::PackSize { .. } => {
                "restore the pack from a copy of the repository; else see what is affected, run `restic repair index` and back the affected files up again with `holdfast repo backup --force`"
            }
            Self::PackOrphan { .. } => "nothing needs to be done; `holdfast repo prune` removes it",
            Self::Pack { .. } | Self::Blob { has_copy: false, .. } => {
                "the storage has lost data: look for its cause first; restore the pack from a copy of the repository, else run `restic repair packs` with its id and back the affected files up again with `holdfast repo backup --force`"
            }
            Self::Blob { has_copy: true, .. } => {
                "another pack has a good copy, nothing is lost; look for the cause in the storage, then run `holdfast repo prune`"
            }
            Self::BlobMissing { .. } | Self::Tree { .. } => {
                "back the affected files up again with `holdfast repo backup --force`: if they are unchanged, that stores what is missing; else `restic repair snapshots` leaves them out of the snapshots"
            }
            Self::TreeEntry { .. } => "the backup was made so: back the folder up again with a current version",
            Self::FileSize { .. } => "nothing needs to be done: the file changed while it was backed up",
        }
    }
}
