//! Two SHA-256 streams through one core's SHA unit: a round of one waits for the round before it, so a second,
//! independent stream fills the gaps.

use std::arch::x86_64::*;

use super::BLOCK;

/// SHA-256's round constants (FIPS 180-4, 4.2.2).
const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
];

/// Whether [`compress_pair`] runs on this processor.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3")
}

/// Compresses as many blocks of `x` into `a` and of `y` into `b` as the shorter of the two holds.
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub(super) fn compress_pair(a: &mut [u32; 8], x: &[[u8; BLOCK]], b: &mut [u32; 8], y: &[[u8; BLOCK]]) {
    let mut state = [Stream::new(a), Stream::new(b)];
    for (x, y) in x.iter().zip(y) {
        let before = state;
        let mut words = [load(x), load(y)];
        for round in 0..16 {
            let k = constants(round);
            // Straight-line code for both, so that the processor overlaps them.
            let sums = [_mm_add_epi32(words[0][round % 4], k), _mm_add_epi32(words[1][round % 4], k)];
            state[0].rounds(sums[0]);
            state[1].rounds(sums[1]);
            if round < 12 {
                extend(&mut words[0], round);
                extend(&mut words[1], round);
            }
        }
        state[0].add(before[0]);
        state[1].add(before[1]);
    }
    *a = state[0].words();
    *b = state[1].words();
}

/// A state in the order the SHA instructions want it: words A, B, E, F and C, D, G, H from the top.
#[derive(Clone, Copy)]
struct Stream {
    abef: __m128i,
    cdgh: __m128i,
}

impl Stream {
    #[inline]
    #[target_feature(enable = "sse2")]
    fn new(words: &[u32; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = words.map(u32::cast_signed);
        Self { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn words(self) -> [u32; 8] {
        let Self { abef, cdgh } = self;
        [
            _mm_extract_epi32::<3>(abef),
            _mm_extract_epi32::<2>(abef),
            _mm_extract_epi32::<3>(cdgh),
            _mm_extract_epi32::<2>(cdgh),
            _mm_extract_epi32::<1>(abef),
            _mm_extract_epi32::<0>(abef),
            _mm_extract_epi32::<1>(cdgh),
            _mm_extract_epi32::<0>(cdgh),
        ]
        .map(i32::cast_unsigned)
    }

    /// Four rounds with the sums of message words and constants.
    #[inline]
    #[target_feature(enable = "sha")]
    fn rounds(&mut self, sums: __m128i) {
        self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, sums);
        self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, _mm_shuffle_epi32::<0x0e>(sums));
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn add(&mut self, before: Self) {
        self.abef = _mm_add_epi32(self.abef, before.abef);
        self.cdgh = _mm_add_epi32(self.cdgh, before.cdgh);
    }
}

/// The 16 big-endian words of a block.
#[inline]
#[target_feature(enable = "ssse3")]
fn load(block: &[u8; BLOCK]) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    // SAFETY: four unaligned loads of 16 bytes cover exactly the 64 bytes of `block`.
    std::array::from_fn(|i| unsafe { _mm_shuffle_epi8(_mm_loadu_si128(block.as_ptr().add(16 * i).cast()), swap) })
}

/// The constants of the four rounds `4 · round ..`.
#[inline]
#[target_feature(enable = "sse2")]
fn constants(round: usize) -> __m128i {
    let [a, b, c, d] = std::array::from_fn(|i| K[4 * round + i].cast_signed());
    _mm_set_epi32(d, c, b, a)
}

/// Replaces the four words just used by those needed 16 rounds later.
#[inline]
#[target_feature(enable = "sha,ssse3")]
fn extend(words: &mut [__m128i; 4], round: usize) {
    let [w0, w1, w2, w3] = std::array::from_fn(|i| words[(round + i) % 4]);
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
    words[round % 4] = _mm_sha256msg2_epu32(sum, w3);
}
