//! Lock files: who works on the repository.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A lock file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// When the lock was taken or last refreshed.
    pub time: Timestamp,
    /// Whether its holder removes things and must be alone.
    pub exclusive: bool,
    /// The holder's host.
    pub hostname: String,
    /// The holder's user name.
    pub username: String,
    /// The holder's process id on that host.
    pub pid: u32,
    /// The holder's user id.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// The holder's group id.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// In which numbering of processes `pid` stands: an opaque text that two processes of one system and one PID
    /// namespace share. An addition to restic's format, which passes it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_namespace: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}
