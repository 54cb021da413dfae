//! Packs: blobs one after the other, then an encrypted header that lists them, then its length.
//!
//! `Blob1 ‖ … ‖ BlobN ‖ sealed(header) ‖ u32 length of the sealed header, little endian`. A header entry is
//! `type u8 ‖ length u32 ‖ [raw length u32] ‖ id`, with types 0 data, 1 tree, and, for compressed blobs that
//! also carry the raw length, 2 data, 3 tree.

use super::BlobKind;
use crate::Id;
use crate::crypto::OVERHEAD;

/// The most bytes that a header entry takes.
pub const ENTRY_BYTES_MAX: usize = 1 + 4 + 4 + 32;
const ENTRY_BYTES_MIN: usize = 1 + 4 + 32;
/// The length that follows the header.
pub const TRAILER_BYTES: usize = 4;
/// The longest header that is read: what stock tools accept.
pub const HEADER_BYTES_MAX: usize = 16 << 20;

/// One blob of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedBlob {
    /// The hash of its plaintext.
    pub id: Id,
    /// Data or tree.
    pub kind: BlobKind,
    /// Where it starts in the pack, in bytes.
    pub offset: u32,
    /// How many bytes it takes there, sealed.
    pub length: u32,
    /// How long it is once decompressed; 0 for a blob that is not compressed.
    pub raw_length: u32,
}

impl PackedBlob {
    /// The plaintext's length in bytes.
    pub fn plain_length(&self) -> u32 {
        if self.raw_length > 0 { self.raw_length } else { self.length.saturating_sub(OVERHEAD as u32) }
    }
}

/// Why bytes are no pack header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The length at the end does not fit the pack.
    #[error("header length {length} does not fit a pack of {pack_bytes} bytes")]
    Length {
        /// The header's length as the pack tells it.
        length: u64,
        /// The pack's size.
        pack_bytes: u64,
    },
    /// The header ends within an entry.
    #[error("header ends within an entry")]
    Truncated,
    /// An entry of a type that the format does not have.
    #[error("entry of unknown type {0}")]
    Type(u8),
    /// The blobs do not fill the pack up to its header.
    #[error("blobs end at byte {blobs_end}, the header starts at {header_start}")]
    Gap {
        /// Where the last blob ends.
        blobs_end: u64,
        /// Where the header starts.
        header_start: u64,
    },
}

/// Writes the header of a pack, in the clear.
pub fn encode_header(blobs: &[PackedBlob], out: &mut Vec<u8>) {
    for blob in blobs {
        let tree = u8::from(blob.kind == BlobKind::Tree);
        out.push(if blob.raw_length > 0 { 2 + tree } else { tree });
        out.extend_from_slice(&blob.length.to_le_bytes());
        if blob.raw_length > 0 {
            out.extend_from_slice(&blob.raw_length.to_le_bytes());
        }
        out.extend_from_slice(&blob.id.0);
    }
}

/// Where the sealed header starts and how long it is, from the pack's size and its last four bytes.
pub fn header_range(pack_bytes: u64, trailer: [u8; TRAILER_BYTES]) -> Result<(u64, usize), HeaderError> {
    let length = u64::from(u32::from_le_bytes(trailer));
    let error = HeaderError::Length { length, pack_bytes };
    if length < (OVERHEAD + ENTRY_BYTES_MIN) as u64 || length > HEADER_BYTES_MAX as u64 {
        return Err(error);
    }
    match pack_bytes.checked_sub(length + TRAILER_BYTES as u64) {
        Some(start) => Ok((start, length as usize)),
        None => Err(error),
    }
}

/// Reads a decrypted header; `header_start` is where the sealed header begins in the pack.
pub fn decode_header(mut header: &[u8], header_start: u64) -> Result<Vec<PackedBlob>, HeaderError> {
    let mut blobs = Vec::with_capacity(header.len() / ENTRY_BYTES_MIN);
    let mut offset: u64 = 0;
    while let Some((&kind, rest)) = header.split_first() {
        header = rest;
        let length = take_u32(&mut header)?;
        let raw_length = match kind {
            0 | 1 => 0,
            2 | 3 => take_u32(&mut header)?,
            _ => return Err(HeaderError::Type(kind)),
        };
        let (id, rest) = header.split_first_chunk::<32>().ok_or(HeaderError::Truncated)?;
        header = rest;
        let end = offset + u64::from(length);
        if end > header_start || u64::from(u32::MAX) < end || (length as usize) < OVERHEAD {
            return Err(HeaderError::Gap { blobs_end: end, header_start });
        }
        let kind = if kind & 1 == 1 { BlobKind::Tree } else { BlobKind::Data };
        blobs.push(PackedBlob { id: Id(*id), kind, offset: offset as u32, length, raw_length });
        offset = end;
    }
    if offset != header_start {
        return Err(HeaderError::Gap { blobs_end: offset, header_start });
    }
    Ok(blobs)
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, HeaderError> {
    let (value, rest) = bytes.split_first_chunk::<4>().ok_or(HeaderError::Truncated)?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> Vec<PackedBlob> {
        let blob =
            |n: u8, kind, offset, length, raw_length| PackedBlob { id: Id([n; 32]), kind, offset, length, raw_length };
        vec![
            blob(1, BlobKind::Data, 0, 100, 0),
            blob(2, BlobKind::Data, 100, 50, 300),
            blob(3, BlobKind::Tree, 150, 32, 0),
            blob(4, BlobKind::Tree, 182, 40, 77),
        ]
    }

    #[test]
    fn header_and_back() {
        let mut header = vec![];
        encode_header(&blobs(), &mut header);
        assert_eq!(decode_header(&header, 222), Ok(blobs()));
    }

    #[test]
    fn damage_is_an_error() {
        let mut header = vec![];
        encode_header(&blobs(), &mut header);
        assert_eq!(decode_header(&header[..header.len() - 1], 222), Err(HeaderError::Truncated));
        assert_eq!(decode_header(&header, 223), Err(HeaderError::Gap { blobs_end: 222, header_start: 223 }));
        assert_eq!(decode_header(&header, 221), Err(HeaderError::Gap { blobs_end: 222, header_start: 221 }));
        header[0] = 4;
        assert_eq!(decode_header(&header, 222), Err(HeaderError::Type(4)));
    }

    #[test]
    fn header_length_is_checked_against_the_pack() {
        assert_eq!(header_range(1000, 100u32.to_le_bytes()), Ok((896, 100)));
        for (size, length) in [(1000, 0), (1000, 68), (100, 100), (1000, u32::MAX), (u64::MAX, 17 << 20)] {
            assert!(header_range(size, length.to_le_bytes()).is_err(), "{size} {length}");
        }
    }
}
