//! The repository engine: encrypted, deduplicated backups in the restic repository format, versions 1 and 2.
//!
//! Knows files, trees and snapshots, and stores them through a [`holdfast_store::Store`]. It never talks to
//! Kubernetes, never parses a command line, never prints, and never asks for a password: what it has to
//! say goes to a [`Monitor`], what went wrong is an [`Error`].
//!
//! Order that keeps a repository whole, whatever is killed and when: packs are stored before the index
//! that names them, indexes before the snapshot that needs them; removal goes the other way round and
//! under an exclusive lock.

/// So that what tests share names the library the same way from within and without.
#[cfg(test)]
extern crate self as holdfast_repository;

pub mod backup;
pub mod browse;
pub mod check;
pub mod chunker;
pub mod copy;
pub mod crypto;
mod error;
mod failure;
pub mod forget;
pub mod format;
mod hash;
mod id;
mod identity;
mod index;
mod lock;
pub mod memory;
mod monitor;
mod pack_writer;
pub mod pattern;
pub mod prune;
mod repository;
pub mod restore;
pub mod snapshots;
pub mod source;
pub mod tag;
mod trees;

pub use error::{Error, Result, chain};
pub use id::{Id, IdError, ShortId};
pub use identity::Identity;
pub use index::{Index, Location};
pub use lock::{HolderIsGone, Lock, LockMode, LockOptions, StaleLock, is_of_this_system, unlock};
pub use monitor::{Counters, Event, Monitor};
pub use repository::{Compression, InitOptions, KeyInfo, OpenOptions, Repository};
