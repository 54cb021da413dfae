//! What can go wrong with a repository, as a caller needs to tell it apart.

use std::path::PathBuf;

use crate::Id;
use crate::format::lock::LockFile;
use crate::format::pack::HeaderError;

/// The result of a repository operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on a repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage did not do what was asked.
    #[error(transparent)]
    Store(holdfast_store::Error),
    /// There is no repository at that location.
    #[error("no repository at {location}")]
    NoRepository {
        /// Where one was looked for.
        location: String,
        /// What the storage said.
        #[source]
        source: holdfast_store::Error,
    },
    /// There is a repository already.
    #[error("{location} already holds a repository")]
    AlreadyInitialized {
        /// Where.
        location: String,
    },
    /// None of the keys opens with the password.
    #[error("wrong password for the repository at {location}: none of its {keys} keys opens with it")]
    WrongPassword {
        /// Where.
        location: String,
        /// How many keys were tried.
        keys: usize,
    },
    /// The repository has no keys at all.
    #[error("the repository at {location} has no key: it cannot be opened by any password")]
    NoKeys {
        /// Where.
        location: String,
    },
    /// A key file with settings that make no sense, or none that this engine would run.
    #[error("key {id} cannot be used: {reason}")]
    BadKey {
        /// The key file.
        id: Id,
        /// Why.
        reason: String,
    },
    /// A format version that this engine does not know.
    #[error("the repository has format version {0}; this engine knows versions 1 and 2")]
    UnsupportedVersion(u32),
    /// Bytes in the repository are not what was stored.
    #[error("{what} is damaged")]
    Damaged {
        /// Which file or blob.
        what: String,
        /// How that was seen.
        #[source]
        damage: Damage,
    },
    /// No index names the blob.
    #[error("{kind} blob {id} is in no index: `holdfast repo check` tells what is affected")]
    MissingBlob {
        /// `data` or `tree`.
        kind: &'static str,
        /// Which.
        id: Id,
    },
    /// Another process works on the repository.
    #[error("the repository is locked{} by process {} of {} on {} since {} (lock {id})", if .lock.exclusive { " exclusively" } else { "" }, .lock.pid, .lock.username, .lock.hostname, .lock.time)]
    Locked {
        /// The other's lock.
        lock: Box<LockFile>,
        /// The lock file.
        id: Id,
    },
    /// Our own lock could not be kept; going on could damage the repository.
    #[error("the lock on the repository was lost: {reason}; stopped before anything was done without it")]
    LockLost {
        /// Why.
        reason: String,
    },
    /// The operation was asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The file system under a source or a restore did not do what was asked.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What was to be backed up could not be read.
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    /// A source of which a part is worth nothing, as a command's output, could not be read to its end.
    #[error("what was to be backed up could not be read to its end: no snapshot was made")]
    IncompleteSource,
    /// No, or more than one, snapshot fits what was asked for.
    #[error("{0}")]
    Selection(String),
    /// Memory or a thread could not be had, or a library failed on valid input.
    #[error("cannot {operation}: {reason}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        reason: String,
    },
}

/// How damage was recognised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The authentication code is wrong: the bytes changed, or another key sealed them.
    #[error("the bytes do not authenticate")]
    Unauthentic,
    /// The content is not what its name says.
    #[error("its hash is {actual}")]
    WrongHash {
        /// The hash of what was read.
        actual: Id,
    },
    /// Too short to be what it should be.
    #[error("it ends too early")]
    Truncated,
    /// Decompression failed.
    #[error("it does not decompress: {0}")]
    Compression(String),
    /// The JSON in it is not what the format asks for.
    #[error("it does not parse")]
    Json(#[from] serde_json::Error),
    /// A pack's header.
    #[error("its header does not parse")]
    Header(#[from] HeaderError),
    /// A tree.
    #[error("its listing does not parse")]
    Tree(#[from] crate::format::tree::TreeError),
    /// A tree or snapshot that says what cannot be.
    #[error("{0}")]
    Content(String),
}

impl From<holdfast_store::Error> for Error {
    fn from(error: holdfast_store::Error) -> Self {
        match error.kind {
            holdfast_store::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Store(error),
        }
    }
}

impl Error {
    /// A damaged file or blob.
    pub(crate) fn damaged(what: impl Into<String>, damage: impl Into<Damage>) -> Self {
        Self::Damaged { what: what.into(), damage: damage.into() }
    }
}

/// An error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let next = cause.to_string();
        // Some libraries name the cause in the message, too.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn a_chain_tells_every_cause_once() {
        let layers = |texts: &[&'static str]| {
            texts.iter().rfold(None, |source, text| Some(Box::new(Layer { text, source }))).unwrap()
        };
        for (texts, expected) in [
            (&["cannot open"][..], "cannot open"),
            (&["cannot open", "no such file"], "cannot open: no such file"),
            (&["one", "two", "three"], "one: two: three"),
            (&["cannot open: no such file", "no such file", "code 2"], "cannot open: no such file: code 2"),
        ] {
            assert_eq!(chain(&layers(texts)), expected);
        }
    }
}
