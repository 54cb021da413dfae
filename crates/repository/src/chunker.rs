//! Content-defined chunking: where restic would cut a file, so that both deduplicate against each other.
//!
//! A chunk ends behind the first byte, from [`CHUNK_MIN`] on, where the Rabin fingerprint of the last 64 bytes has its
//! low 20 bits zero, and at [`CHUNK_MAX`] at the latest. The fingerprint depends on these 64 bytes alone, so a stretch
//! can be searched from any place and by several lanes at once.
//!
//! Pure: no IO. The same polynomial gives the same boundaries on every machine, whichever kernel runs.

#[cfg(target_arch = "x86_64")]
mod gfni;
mod polynomial;
mod scalar;

pub use polynomial::{Polynomial, PolynomialError};

use scalar::Tables;

/// Shortest chunk, except the last of a file.
pub const CHUNK_MIN: usize = 512 << 10;
/// Longest chunk.
pub const CHUNK_MAX: usize = 8 << 20;
/// A boundary is where these bits of the fingerprint are zero: on average one in a mebibyte.
const MASK: u64 = (1 << 20) - 1;
/// Bytes that the fingerprint covers.
const WINDOW: usize = 64;

/// Finds boundaries for one polynomial. The tables are built once: share it between threads.
pub struct Chunker {
    tables: Box<Tables>,
    #[cfg(target_arch = "x86_64")]
    gfni: Option<Box<gfni::Kernel>>,
}

impl Chunker {
    /// Builds the tables for `polynomial`.
    pub fn new(polynomial: Polynomial) -> Self {
        let tables = Tables::new(polynomial);
        Self {
            #[cfg(target_arch = "x86_64")]
            gfni: gfni::Kernel::new(&tables),
            tables,
        }
    }

    /// Length of the chunk at the start of `data`, or `None` when more data is needed to know.
    ///
    /// `data` begins where a chunk begins. `searched` is how much of it earlier calls for this chunk have seen (0 at
    /// first). `last` says that nothing follows `data`: then what is left is a chunk, unless it is empty.
    pub fn next_boundary(&self, data: &[u8], searched: usize, last: bool) -> Option<usize> {
        // A chunk of length c has its last byte at c - 1.
        let from = searched.max(CHUNK_MIN - 1);
        let to = data.len().min(CHUNK_MAX);
        let hit = if from < to { self.find(data, from, to) } else { None };
        match hit {
            Some(at) => Some(at + 1),
            None if data.len() >= CHUNK_MAX => Some(CHUNK_MAX),
            None if last && !data.is_empty() => Some(data.len()),
            None => None,
        }
    }

    /// The chunks of `data`, in order.
    pub fn chunks<'a>(&'a self, mut data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        std::iter::from_fn(move || {
            let (chunk, rest) = data.split_at(self.next_boundary(data, 0, true)?);
            data = rest;
            Some(chunk)
        })
    }

    /// First place in `from..to` where a window ends whose fingerprint calls for a cut. `from` is at least [`WINDOW`].
    fn find(&self, data: &[u8], from: usize, to: usize) -> Option<usize> {
        #[cfg(target_arch = "x86_64")]
        if let Some(kernel) = &self.gfni {
            return kernel.find(&self.tables, data, from, to);
        }
        self.tables.find(data, from, to)
    }
}

#[cfg(test)]
mod tests;
