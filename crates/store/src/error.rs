//! What can go wrong with a store, as a caller needs to tell it apart.

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of a failure, for callers that decide on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No object, or no store, of that name.
    NotFound,
    /// An object of that name exists.
    AlreadyExists,
    /// The object ends before the wanted range does.
    Truncated,
    /// The credentials were refused, or a file may not be read or written.
    PermissionDenied,
    /// No space left, quota exceeded, or a read-only file system.
    Full,
    /// The store may answer later: time-outs, connection errors, overload.
    Unavailable,
    /// The caller wanted no more of it, see [`Cancel`](crate::Cancel).
    Interrupted,
    /// The location or a setting makes no sense.
    InvalidConfig,
    /// Anything else.
    Other,
}

/// A failed store operation: what was tried, on which object, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {name}")]
pub struct Error {
    /// The class of the failure.
    pub kind: ErrorKind,
    /// What was tried: `read`, `write`, `list`, `delete`, …
    pub operation: &'static str,
    /// The object's name with the store's location.
    pub name: String,
    /// The cause as the system told it.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// A failure of `operation` on the object or place `name`.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        name: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, operation, name: name.into(), source: source.into() }
    }
}
