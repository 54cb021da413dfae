//! The rolling Rabin fingerprint by tables, on any machine.

use super::polynomial::{DEGREE, Polynomial, modulo};
use super::{MASK, WINDOW};

/// Where in a fingerprint the byte lies that the next shift carries past the polynomial's degree.
const TOP_SHIFT: u32 = DEGREE - 8;

/// What a byte does to the fingerprint when it leaves the window and when it is shifted over the top.
pub(super) struct Tables {
    /// `byte · x^(8·(WINDOW-1)) mod P`: takes the oldest byte out.
    pub(super) out: [u64; 256],
    /// `byte · x^53 mod P`, together with the bits that it cancels.
    pub(super) reduce: [u64; 256],
}

impl Tables {
    pub(super) fn new(polynomial: Polynomial) -> Box<Self> {
        let p = polynomial.bits();
        let mut tables = Box::new(Self {
            out: [0; 256],
            reduce: [0; 256],
        });
        for byte in 0..=255_u8 {
            let mut leaving = u64::from(byte);
            for _ in 1..WINDOW {
                leaving = modulo(leaving << 8, p);
            }
            tables.out[usize::from(byte)] = leaving;
            let over = u64::from(byte) << DEGREE;
            tables.reduce[usize::from(byte)] = modulo(over, p) | over;
        }
        tables
    }

    /// The fingerprint after `byte` came in.
    #[inline(always)]
    pub(super) fn push(&self, fingerprint: u64, byte: u8) -> u64 {
        let top = (fingerprint >> TOP_SHIFT) as u8;
        ((fingerprint << 8) | u64::from(byte)) ^ self.reduce[usize::from(top)]
    }

    /// The fingerprint after `old` left and `new` came in.
    #[inline(always)]
    pub(super) fn slide(&self, fingerprint: u64, old: u8, new: u8) -> u64 {
        self.push(fingerprint ^ self.out[usize::from(old)], new)
    }

    /// See [`super::Chunker::find`].
    pub(super) fn find(&self, data: &[u8], from: usize, to: usize) -> Option<usize> {
        let mut fingerprint = data[from - WINDOW..from]
            .iter()
            .fold(0, |f, &b| self.push(f, b));
        for at in from..to {
            fingerprint = self.slide(fingerprint, data[at - WINDOW], data[at]);
            if fingerprint & MASK == 0 {
                return Some(at);
            }
        }
        None
    }
}
