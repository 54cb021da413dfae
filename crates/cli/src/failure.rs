//! How a command fails: a message with its causes, a hint, and restic's exit code for it.

use std::fmt;

use holdfast_repository::{Error as RepositoryError, chain};
use holdfast_store::ErrorKind;

/// Exit codes, the same as restic's.
pub(crate) mod code {
    /// Done.
    pub(crate) const SUCCESS: u8 = 0;
    /// Failed.
    pub(crate) const FAILED: u8 = 1;
    /// Done, but not all of it: files were not read, snapshots not removed.
    pub(crate) const INCOMPLETE: u8 = 3;
    /// There is no repository.
    pub(crate) const NO_REPOSITORY: u8 = 10;
    /// The repository is locked.
    pub(crate) const LOCKED: u8 = 11;
    /// The password is wrong.
    pub(crate) const WRONG_PASSWORD: u8 = 12;
    /// Stopped by a signal.
    pub(crate) const INTERRUPTED: u8 = 130;
    /// Who was to read the output has gone: as a program that SIGPIPE ends.
    pub(crate) const BROKEN_PIPE: u8 = 141;
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    error: anyhow::Error,
    code: u8,
    hint: Option<String>,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure that says all in its message.
    pub(crate) fn new(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), code: code::FAILED, hint: None }
    }

    /// A failure with a way out.
    pub(crate) fn with_hint(message: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self::new(anyhow::anyhow!("{message}")).hinting(hint)
    }

    /// Standard output took no more.
    pub(crate) fn output(error: std::io::Error) -> Self {
        let code = if error.kind() == std::io::ErrorKind::BrokenPipe { code::BROKEN_PIPE } else { code::FAILED };
        Self { error: anyhow::Error::new(error).context("cannot write to standard output"), code, hint: None }
    }

    /// The same failure with a way out.
    pub(crate) fn hinting(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether nobody wants to be told, as when `head` has read enough.
    pub(crate) fn is_silent(&self) -> bool {
        self.code == code::BROKEN_PIPE
    }

    /// The message and all its causes in one line.
    pub(crate) fn message(&self) -> String {
        chain(self.error.as_ref())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<RepositoryError>() {
            Ok(error) => error.into(),
            Err(error) => Self::new(error),
        }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        let (code, hint) = match &error {
            RepositoryError::NoRepository { .. } => {
                (code::NO_REPOSITORY, Some("is the location right? `holdfast repo init` makes a new repository"))
            }
            RepositoryError::AlreadyInitialized { .. } => {
                (code::FAILED, Some("use it as it is, or choose another place for the new one"))
            }
            RepositoryError::Locked { .. } => (
                code::LOCKED,
                Some(
                    "wait for it with --retry-lock 10m; if that process is gone, `holdfast repo unlock` removes its lock",
                ),
            ),
            RepositoryError::WrongPassword { .. } | RepositoryError::NoKeys { .. } => (
                code::WRONG_PASSWORD,
                Some(
                    "passwords come from --password-file (RESTIC_PASSWORD_FILE), --password-command \
                     (RESTIC_PASSWORD_COMMAND) or RESTIC_PASSWORD, in this order",
                ),
            ),
            RepositoryError::Interrupted => (code::INTERRUPTED, None),
            RepositoryError::Damaged { .. } | RepositoryError::MissingBlob { .. } => {
                (code::FAILED, Some("`holdfast repo check --read-data` tells what is affected"))
            }
            RepositoryError::Store(error) => (code::FAILED, storage_hint(error)),
            RepositoryError::Io { source, .. } => (code::FAILED, disk_hint(source)),
            _ => (code::FAILED, None),
        };
        Self { error: error.into(), code, hint: hint.map(Into::into) }
    }
}

/// The way out of a failure of the storage under a repository.
fn storage_hint(error: &holdfast_store::Error) -> Option<&'static str> {
    let system = error.source.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    match (error.kind, system) {
        (ErrorKind::Full, Some(std::io::ErrorKind::ReadOnlyFilesystem)) => {
            Some("mount it writable; --no-lock lets you read a repository on read-only storage")
        }
        (ErrorKind::Full, _) => Some("make room and run it again: what was stored so far is used then"),
        (ErrorKind::PermissionDenied, _) => {
            Some("may this user (with these credentials) write there? --no-lock lets you read without writing a lock")
        }
        (ErrorKind::Unavailable, _) => Some("is the server up and its address right?"),
        _ => None,
    }
}

/// The way out of a failure of the file system that is restored to.
fn disk_hint(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => Some("make room and run it again: what was written so far is used then"),
        ReadOnlyFilesystem => Some("mount it writable, or choose another target"),
        PermissionDenied => Some("may this user read and write there?"),
        _ => None,
    }
}

impl From<holdfast_store::Error> for Failure {
    fn from(error: holdfast_store::Error) -> Self {
        RepositoryError::from(error).into()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}
