//! SHA-256, the name of everything in a repository.
//!
//! One stream runs at the speed of the `sha2` crate; two independent streams ([`update_pair`]) share a core's SHA unit
//! where there is one: while a pack is hashed the next blob is named almost for free.

#[cfg(target_arch = "x86_64")]
mod x86;

use sha2::block_api::compress256;

const BLOCK: usize = 64;

/// SHA-256's initial state (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The SHA-256 of `data`.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(data);
    hash.finalize()
}

/// A SHA-256 being computed.
#[derive(Clone)]
pub(crate) struct Sha256 {
    state: [u32; 8],
    /// Bytes fed so far; the last `len % 64` of them wait in `tail`.
    len: u64,
    tail: [u8; BLOCK],
}

impl Sha256 {
    /// Nothing fed yet.
    pub(crate) fn new() -> Self {
        Self { state: INITIAL, len: 0, tail: [0; BLOCK] }
    }

    /// Feeds `data`.
    pub(crate) fn update(&mut self, data: &[u8]) {
        let data = self.fill_tail(data);
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        if !blocks.is_empty() {
            compress256(&mut self.state, blocks);
            self.len += (blocks.len() * BLOCK) as u64;
        }
        self.fill_tail(rest);
    }

    /// The hash of all that was fed.
    pub(crate) fn finalize(mut self) -> [u8; 32] {
        let bits = self.len.wrapping_mul(8);
        let mut padding = [0; BLOCK];
        padding[0] = 0x80;
        let used = self.waiting();
        let zeros = if used < BLOCK - 8 { BLOCK - 8 - used } else { 2 * BLOCK - 8 - used };
        // `zeros` counts the 0x80 byte as well and is at most a block.
        self.update(&padding[..zeros]);
        self.update(&bits.to_be_bytes());
        let mut out = [0; 32];
        for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        out
    }

    /// Bytes waiting in `tail`.
    fn waiting(&self) -> usize {
        (self.len % BLOCK as u64) as usize
    }

    /// Takes bytes off the front of `data` until the tail is full (and compressed) or `data` empty; takes none when the
    /// tail is empty and `data` fills whole blocks. Returns what is left.
    fn fill_tail<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let waiting = self.waiting();
        if waiting == 0 && data.len() >= BLOCK {
            return data;
        }
        let take = (BLOCK - waiting).min(data.len());
        let (head, rest) = data.split_at(take);
        self.tail[waiting..waiting + take].copy_from_slice(head);
        self.len += take as u64;
        if waiting + take == BLOCK {
            compress256(&mut self.state, &[self.tail]);
        }
        rest
    }
}

/// The hashes of two texts: faster than one after the other where the processor gains by it.
pub(crate) fn sha256_pair(x: &[u8], y: &[u8]) -> [[u8; 32]; 2] {
    let (mut a, mut b) = (Sha256::new(), Sha256::new());
    update_pair(&mut a, x, &mut b, y);
    [a.finalize(), b.finalize()]
}

/// Feeds `x` to `a` and `y` to `b`, their common part interleaved where the processor gains by it.
pub(crate) fn update_pair(a: &mut Sha256, x: &[u8], b: &mut Sha256, y: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if x86::available() {
        return update_interleaved(a, x, b, y);
    }
    a.update(x);
    b.update(y);
}

/// [`update_pair`] on a processor where [`x86::available`] holds.
#[cfg(target_arch = "x86_64")]
fn update_interleaved(a: &mut Sha256, x: &[u8], b: &mut Sha256, y: &[u8]) {
    let (x, y) = (a.fill_tail(x), b.fill_tail(y));
    let (blocks_x, blocks_y) = (x.as_chunks::<BLOCK>().0, y.as_chunks::<BLOCK>().0);
    let common = blocks_x.len().min(blocks_y.len());
    if common > 0 {
        // SAFETY: the caller has asked `x86::available`.
        unsafe { x86::compress_pair(&mut a.state, &blocks_x[..common], &mut b.state, &blocks_y[..common]) };
        a.len += (common * BLOCK) as u64;
        b.len += (common * BLOCK) as u64;
    }
    a.update(&x[common * BLOCK..]);
    b.update(&y[common * BLOCK..]);
}

#[cfg(test)]
mod tests;
