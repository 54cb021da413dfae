//! The repository's configuration file.

use serde::{Deserialize, Serialize};

use crate::Id;
use crate::chunker::Polynomial;

/// The versions of the format that this engine reads and writes: 1, and 2 which added compression.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 1..=2;

/// What every program that opens the repository must know first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Format version, 1 or 2.
    pub version: u32,
    /// The repository's own name: random, 32 bytes.
    pub id: Id,
    /// What decides where files are cut into chunks; the same for all that write here, so that they deduplicate.
    pub chunker_polynomial: Polynomial,
}
