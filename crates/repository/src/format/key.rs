//! Key files: the master key, sealed by a password. The only files that are not encrypted themselves.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A key file, as it is stored (JSON, in the clear).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyFile {
    /// When the key was added.
    pub created: Timestamp,
    /// Who added it.
    #[serde(default)]
    pub username: String,
    /// On which host.
    #[serde(default)]
    pub hostname: String,
    /// The key derivation function: always `scrypt`.
    pub kdf: String,
    /// scrypt's cost, a power of two.
    #[serde(rename = "N")]
    pub n: u64,
    /// scrypt's block size.
    pub r: u32,
    /// scrypt's parallelism.
    pub p: u32,
    /// 64 random bytes.
    #[serde(with = "base64_bytes")]
    pub salt: Vec<u8>,
    /// The [`MasterKey`] as JSON, sealed with the key derived from the password.
    #[serde(with = "base64_bytes")]
    pub data: Vec<u8>,
}

/// The key that everything in the repository is sealed with.
#[derive(Serialize, Deserialize)]
pub struct MasterKey {
    /// Authentication.
    pub mac: MacKey,
    /// AES-256, 32 bytes.
    #[serde(with = "base64_bytes")]
    pub encrypt: Vec<u8>,
}

/// The two halves of a Poly1305-AES key.
#[derive(Serialize, Deserialize)]
pub struct MacKey {
    /// AES-128, 16 bytes.
    #[serde(with = "base64_bytes")]
    pub k: Vec<u8>,
    /// Poly1305's r, 16 bytes.
    #[serde(with = "base64_bytes")]
    pub r: Vec<u8>,
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
