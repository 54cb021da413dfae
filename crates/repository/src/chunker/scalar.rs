//! The rolling Rabin fingerprint by tables, on any machine: four lanes at once, since each step of one lane waits for
//! the table look-up before it.

use super::polynomial::{DEGREE, Polynomial, modulo};
use super::{MASK, WINDOW};

/// Where in a fingerprint the byte lies that the next shift carries past the polynomial's degree.
const TOP_SHIFT: u32 = DEGREE - 8;
/// Stretches searched side by side.
const LANES: usize = 4;
/// Longest stretch of one lane, in bytes: a hit in the first lane wastes what the others did.
const STRETCH_MAX: usize = 8 << 10;
/// Below this, warming up a window for each lane costs more than the lanes gain.
const STRETCH_MIN: usize = 4 * WINDOW;

/// What a byte does to the fingerprint when it leaves the window and when it is shifted over the top.
pub(super) struct Tables {
    /// `byte · x^(8·WINDOW) mod P`: takes out the byte that the shift has just carried past the window.
    pub(super) leave: [u64; 256],
    /// `byte · x^53 mod P`, together with the bits that it cancels.
    pub(super) reduce: [u64; 256],
}

impl Tables {
    pub(super) fn new(polynomial: Polynomial) -> Box<Self> {
        let p = polynomial.bits();
        let mut tables = Box::new(Self { leave: [0; 256], reduce: [0; 256] });
        for byte in 0..=255_u8 {
            let mut leaving = u64::from(byte);
            for _ in 0..WINDOW {
                leaving = modulo(leaving << 8, p);
            }
            tables.leave[usize::from(byte)] = leaving;
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
        // Looking `old` up does not wait for the fingerprint.
        self.push(fingerprint, new) ^ self.leave[usize::from(old)]
    }

    /// The fingerprint of `window`.
    fn warm_up(&self, window: &[u8]) -> u64 {
        window.iter().fold(0, |fingerprint, &byte| self.push(fingerprint, byte))
    }

    /// See [`super::Chunker::find`].
    pub(super) fn find(&self, data: &[u8], mut from: usize, to: usize) -> Option<usize> {
        while from < to {
            let stretch = ((to - from) / LANES).min(STRETCH_MAX);
            let (hit, searched) = if stretch < STRETCH_MIN {
                (self.find_in_one_lane(data, from, to), to - from)
            } else {
                (self.find_in_lanes(data, from, stretch), LANES * stretch)
            };
            if hit.is_some() {
                return hit;
            }
            from += searched;
        }
        None
    }

    fn find_in_one_lane(&self, data: &[u8], from: usize, to: usize) -> Option<usize> {
        let mut fingerprint = self.warm_up(&data[from - WINDOW..from]);
        (from..to).find(|&at| {
            fingerprint = self.slide(fingerprint, data[at - WINDOW], data[at]);
            fingerprint & MASK == 0
        })
    }

    /// Searches `LANES` stretches that follow each other from `from` on.
    fn find_in_lanes(&self, data: &[u8], from: usize, stretch: usize) -> Option<usize> {
        let [s0, s1, s2, s3] = [0, 1, 2, 3].map(|lane| from + lane * stretch);
        let [mut f0, mut f1, mut f2, mut f3] = [s0, s1, s2, s3].map(|s| self.warm_up(&data[s - WINDOW..s]));
        // What leaves and what comes in, paired: iterators need no bounds checks.
        let pairs = |s: usize| data[s - WINDOW..][..stretch].iter().zip(&data[s..][..stretch]);
        let lanes = pairs(s0).zip(pairs(s1)).zip(pairs(s2).zip(pairs(s3)));
        let mut hits = [None; LANES];
        for (i, (((o0, n0), (o1, n1)), ((o2, n2), (o3, n3)))) in lanes.enumerate() {
            f0 = self.slide(f0, *o0, *n0);
            f1 = self.slide(f1, *o1, *n1);
            f2 = self.slide(f2, *o2, *n2);
            f3 = self.slide(f3, *o3, *n3);
            // One rare branch for all four.
            let hit = |fingerprint: u64| fingerprint & MASK == 0;
            if hit(f0) | hit(f1) | hit(f2) | hit(f3) {
                for (lane, fingerprint) in [f0, f1, f2, f3].into_iter().enumerate() {
                    if hit(fingerprint) && hits[lane].is_none() {
                        hits[lane] = Some(from + lane * stretch + i);
                    }
                }
                if hits[0].is_some() {
                    break;
                }
            }
        }
        hits.into_iter().flatten().next()
    }
}
