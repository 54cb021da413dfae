//! The rolling Rabin fingerprint in 64 lanes, for processors with GFNI and AVX-512.
//!
//! Everything that happens to a fingerprint is linear over GF(2), so each table look-up becomes a few products of an
//! 8×8 bit matrix with a byte, which GFNI does for 64 bytes at once. Register k ("plane" k) holds byte k of the 64
//! lanes' fingerprints. Fingerprints have 53 bits and are kept shifted left by 3, so that the eight bits that the next
//! shift carries out are exactly the last plane.

use std::arch::x86_64::*;

use super::WINDOW;
use super::polynomial::DEGREE;
use super::scalar::Tables;

const LANES: usize = 64;
const PLANES: usize = 7;
/// Aligns a fingerprint's top bit with the last plane's top bit.
const ALIGN: u32 = 8 * PLANES as u32 - DEGREE;
/// Bytes that each lane takes between two transpositions.
const STEP: usize = 64;
/// Longest stretch of one lane, in bytes: short enough that little is wasted by a hit in an early lane, long enough to
/// pay for each lane's warm-up of a window.
const STRETCH_MAX: usize = 2 << 10;

/// The matrices for one polynomial, each in GFNI's layout.
pub(super) struct Kernel {
    /// From the byte carried over the top to each plane of what it is congruent to.
    reduce: [i64; PLANES],
    /// From the byte that leaves the window to each plane of what it contributed.
    leave: [i64; PLANES],
    /// From the byte that comes in to the two planes that it lies across.
    enter: [i64; 2],
}

impl Kernel {
    /// The kernel, where the processor has what it needs.
    pub(super) fn new(tables: &Tables) -> Option<Box<Self>> {
        let available = is_x86_feature_detected!("gfni")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw");
        let low = (1 << DEGREE) - 1;
        let reduce = |byte: u8| (tables.reduce[usize::from(byte)] & low) << ALIGN;
        let leave = |byte: u8| tables.leave[usize::from(byte)] << ALIGN;
        let enter = |byte: u8| u64::from(byte) << ALIGN;
        available.then(|| {
            Box::new(Self {
                reduce: std::array::from_fn(|plane| matrix(reduce, plane)),
                leave: std::array::from_fn(|plane| matrix(leave, plane)),
                enter: std::array::from_fn(|plane| matrix(enter, plane)),
            })
        })
    }

    /// See [`super::Chunker::find`].
    pub(super) fn find(&self, tables: &Tables, data: &[u8], mut from: usize, to: usize) -> Option<usize> {
        loop {
            let stretch = ((to - from) / LANES).min(STRETCH_MAX) / STEP * STEP;
            if stretch == 0 {
                return tables.find(data, from, to);
            }
            // SAFETY: a `Kernel` exists only where `new` found the features.
            let hit = unsafe { self.find_in_lanes(&data[from - WINDOW..from + LANES * stretch], stretch) };
            if let Some(at) = hit {
                return Some(from + at);
            }
            from += LANES * stretch;
        }
    }

    /// Searches 64 stretches that follow each other behind the first window of `data`; the place found counts from
    /// there. `stretch` is a multiple of [`STEP`].
    #[target_feature(enable = "gfni,avx512f,avx512bw")]
    fn find_in_lanes(&self, data: &[u8], stretch: usize) -> Option<usize> {
        let matrices = Matrices {
            reduce: self.reduce.map(|m| _mm512_set1_epi64(m)),
            leave: self.leave.map(|m| _mm512_set1_epi64(m)),
            enter: self.enter.map(|m| _mm512_set1_epi64(m)),
        };
        // The low 20 bits of a fingerprint, in planes 0 and 2; plane 1 is whole.
        let [mask_0, mask_2] = [_mm512_set1_epi8(0xf8_u8.cast_signed()), _mm512_set1_epi8(0x7f)];
        let zero = _mm512_setzero_si512();

        // Warm-up: the window before each lane's stretch comes in, and nothing leaves.
        let (mut old, mut fresh) = ([zero; STEP], [zero; STEP]);
        columns(data, stretch, 0, &mut old);
        let mut planes = [zero; PLANES];
        for &new in &old {
            slide(&mut planes, &matrices, None, new);
        }
        let mut hits = [usize::MAX; LANES];
        let mut seen = 0_u64;
        for start in (0..stretch).step_by(STEP) {
            columns(data, stretch, WINDOW + start, &mut fresh);
            for i in 0..STEP {
                slide(&mut planes, &matrices, Some(old[i]), fresh[i]);
                // Ternary logic 0xf8 is a | (b & c).
                let bits = _mm512_ternarylogic_epi64::<0xf8>(planes[1], planes[0], mask_0);
                let bits = _mm512_ternarylogic_epi64::<0xf8>(bits, planes[2], mask_2);
                let mut found = _mm512_testn_epi8_mask(bits, bits) & !seen;
                if found != 0 {
                    seen |= found;
                    while found != 0 {
                        hits[found.trailing_zeros() as usize] = start + i;
                        found &= found - 1;
                    }
                    if seen & 1 == 1 {
                        return Some(hits[0]);
                    }
                }
            }
            std::mem::swap(&mut old, &mut fresh);
        }
        let lane = seen.trailing_zeros() as usize;
        (seen != 0).then(|| lane * stretch + hits[lane])
    }
}

/// The fingerprints after what `leaving` contributed was taken out and the bytes of `new` came in.
#[inline]
#[target_feature(enable = "gfni,avx512f,avx512bw")]
fn slide(planes: &mut [__m512i; PLANES], m: &Matrices, leaving: Option<__m512i>, new: __m512i) {
    let over = planes[PLANES - 1];
    // From the last plane down: each takes the place of the one above it.
    for k in (0..PLANES).rev() {
        let below = if k > 0 { planes[k - 1] } else { _mm512_gf2p8affine_epi64_epi8::<0>(new, m.enter[0]) };
        let reduced = _mm512_gf2p8affine_epi64_epi8::<0>(over, m.reduce[k]);
        planes[k] = match leaving {
            // Ternary logic 0x96 is a ^ b ^ c.
            Some(old) => {
                _mm512_ternarylogic_epi64::<0x96>(below, reduced, _mm512_gf2p8affine_epi64_epi8::<0>(old, m.leave[k]))
            }
            None => _mm512_xor_si512(below, reduced),
        };
    }
    planes[1] = _mm512_xor_si512(planes[1], _mm512_gf2p8affine_epi64_epi8::<0>(new, m.enter[1]));
}

/// A [`Kernel`]'s matrices, each in every element of a register.
struct Matrices {
    reduce: [__m512i; PLANES],
    leave: [__m512i; PLANES],
    enter: [__m512i; 2],
}

/// The matrix, in GFNI's layout, of a linear map from a byte to byte `plane` of a number.
fn matrix(map: impl Fn(u8) -> u64, plane: usize) -> i64 {
    let mut bits = 0_u64;
    for column in 0..8 {
        let image = map(1 << column).to_le_bytes()[plane];
        for row in 0..8 {
            // Row i, which makes bit i of the result, is byte 7 - i.
            bits |= u64::from(image >> row & 1) << (8 * (7 - row) + column);
        }
    }
    bits.cast_signed()
}

/// Reads 64 bytes of each lane, `at` bytes behind its start (the lanes start `stretch` apart), and transposes them:
/// element i of `out` gets byte i of all lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn columns(data: &[u8], stretch: usize, at: usize, out: &mut [__m512i; STEP]) {
    assert!((LANES - 1) * stretch + at + STEP <= data.len());
    // SAFETY: an unaligned load of 64 bytes, for lanes below 64 inside `data` as just asserted.
    let row = |lane: usize| unsafe { _mm512_loadu_si512(data.as_ptr().add(lane * stretch + at).cast()) };
    // First the 16-byte quarters of rows r, r + 16, r + 32, r + 48, as a 4×4 matrix: quarter q of the four goes to
    // `quarters[q][r]`.
    let mut quarters = [[_mm512_setzero_si512(); 16]; 4];
    #[expect(clippy::needless_range_loop, reason = "r numbers four rows as well as four elements")]
    for r in 0..16 {
        let (a, b, c, d) = (row(r), row(r + 16), row(r + 32), row(r + 48));
        let (ab_low, ab_high) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b));
        let (cd_low, cd_high) = (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xee>(c, d));
        quarters[0][r] = _mm512_shuffle_i64x2::<0x88>(ab_low, cd_low);
        quarters[1][r] = _mm512_shuffle_i64x2::<0xdd>(ab_low, cd_low);
        quarters[2][r] = _mm512_shuffle_i64x2::<0x88>(ab_high, cd_high);
        quarters[3][r] = _mm512_shuffle_i64x2::<0xdd>(ab_high, cd_high);
    }
    // Then 16×16 bytes inside each quarter: four perfect shuffles are a transposition.
    for (quarter, out) in quarters.iter().zip(out.as_chunks_mut::<16>().0) {
        *out = shuffle(&shuffle(&shuffle(&shuffle(quarter))));
    }
}

/// Interleaves the first eight rows with the last eight, byte by byte in each 128-bit lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shuffle(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut out = *rows;
    for i in 0..8 {
        out[2 * i] = _mm512_unpacklo_epi8(rows[i], rows[i + 8]);
        out[2 * i + 1] = _mm512_unpackhi_epi8(rows[i], rows[i + 8]);
    }
    out
}
