//! Authenticated encryption as the restic format document defines it: AES-256 in counter mode, then Poly1305-AES over
//! the ciphertext. Every file and blob of a repository is `nonce (16) ‖ ciphertext ‖ MAC (16)`.
//!
//! Works in place, so that a pack is encrypted inside its own buffer. Never hands out bytes whose MAC does not match,
//! and never prints key material.

mod kdf;

pub use kdf::{KdfError, KdfParams};

use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher};
use aes::{Aes128, Aes256};
use ctr::{Ctr128BE, CtrCore};
use poly1305::Poly1305;
use poly1305::universal_hash::UniversalHash;
use rand::Rng;

/// Bytes that sealing adds: the nonce before and the MAC behind the ciphertext.
pub const OVERHEAD: usize = NONCE + MAC;
const NONCE: usize = 16;
const MAC: usize = 16;

/// The MAC runs over each piece right after (or before) the cipher did, while the piece is still in the first cache.
/// A multiple of Poly1305's block.
const PIECE: usize = 32 << 10;

/// The bits of `r` that Poly1305 uses; restic stores `r` already masked.
const POLY1305_CLAMP: u128 = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;

/// Sealed data did not authenticate: it was damaged, or sealed with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message authentication code does not match: damaged data or another key")]
pub struct Unauthentic;

/// The secret bytes of a [`Key`], as key files store them.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyParts {
    /// AES-256 key.
    pub encrypt: [u8; 32],
    /// Poly1305-AES: the AES-128 key that encrypts the nonce.
    pub mac_k: [u8; 16],
    /// Poly1305-AES: the clamped multiplier.
    pub mac_r: [u8; 16],
}

/// A key that seals and opens: a repository's master key or one derived from a password.
#[derive(Clone)]
pub struct Key {
    parts: KeyParts,
    cipher: Aes256,
    nonce_cipher: Aes128,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(redacted)")
    }
}

impl Key {
    /// A fresh key, from a cryptographic generator that the operating system seeds.
    pub fn generate() -> Self {
        let (mut encrypt, mut mac_k, mut mac_r) = ([0; 32], [0; 16], [0; 16]);
        let mut rng = rand::rng();
        rng.fill_bytes(&mut encrypt);
        rng.fill_bytes(&mut mac_k);
        rng.fill_bytes(&mut mac_r);
        Self::from_parts(&encrypt, &mac_k, &mac_r)
    }

    /// The key made of these secrets; `mac_r` is clamped.
    pub fn from_parts(encrypt: &[u8; 32], mac_k: &[u8; 16], mac_r: &[u8; 16]) -> Self {
        let mac_r = (u128::from_le_bytes(*mac_r) & POLY1305_CLAMP).to_le_bytes();
        Self {
            cipher: Aes256::new(encrypt.into()),
            nonce_cipher: Aes128::new(mac_k.into()),
            parts: KeyParts { encrypt: *encrypt, mac_k: *mac_k, mac_r },
        }
    }

    /// The secrets, for writing a key file.
    pub fn parts(&self) -> &KeyParts {
        &self.parts
    }

    /// Encrypts `buf[16..len-16]` in place under a random nonce, which goes before it, and puts the MAC behind it.
    ///
    /// # Panics
    /// When `buf` is shorter than [`OVERHEAD`]: the caller laid it out wrongly.
    pub fn seal_in_place(&self, buf: &mut [u8]) {
        assert!(buf.len() >= OVERHEAD, "a buffer to seal has room for nonce and MAC");
        let (nonce, rest) = buf.split_at_mut(NONCE);
        let (text, mac) = rest.split_at_mut(rest.len() - MAC);
        let nonce = fill_nonce(nonce);
        let (mut cipher, mut poly) = self.start(&nonce);
        let mut pieces = text.chunks_exact_mut(PIECE);
        for piece in &mut pieces {
            cipher.apply_keystream(piece);
            poly.update_padded(piece);
        }
        let last = pieces.into_remainder();
        cipher.apply_keystream(last);
        mac.copy_from_slice(&finish(poly, last));
    }

    /// Checks and decrypts `nonce ‖ ciphertext ‖ MAC` in place and returns the plaintext.
    /// When the MAC does not match, `buf` is wiped.
    pub fn open_in_place<'a>(&self, buf: &'a mut [u8]) -> Result<&'a mut [u8], Unauthentic> {
        let (nonce, rest) = buf.split_first_chunk_mut::<NONCE>().ok_or(Unauthentic)?;
        let (text, mac) = rest.split_last_chunk_mut::<MAC>().ok_or(Unauthentic)?;
        let (mut cipher, mut poly) = self.start(nonce);
        let mut pieces = text.chunks_exact_mut(PIECE);
        for piece in &mut pieces {
            poly.update_padded(piece);
            cipher.apply_keystream(piece);
        }
        let last = pieces.into_remainder();
        let found = u128::from_ne_bytes(finish(poly, last));
        cipher.apply_keystream(last);
        // One comparison of two registers: its time does not depend on where they differ.
        if found ^ u128::from_ne_bytes(*mac) == 0 {
            Ok(text)
        } else {
            text.fill(0);
            Err(Unauthentic)
        }
    }

    /// `plaintext` sealed in a buffer of its own.
    pub fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD);
        sealed.extend_from_slice(&[0; NONCE]);
        sealed.extend_from_slice(plaintext);
        sealed.extend_from_slice(&[0; MAC]);
        self.seal_in_place(&mut sealed);
        sealed
    }

    /// The plaintext of `sealed`, in the same allocation.
    pub fn open(&self, mut sealed: Vec<u8>) -> Result<Vec<u8>, Unauthentic> {
        let len = self.open_in_place(&mut sealed)?.len();
        sealed.copy_within(NONCE..NONCE + len, 0);
        sealed.truncate(len);
        Ok(sealed)
    }

    fn start(&self, nonce: &[u8; NONCE]) -> (Ctr128BE<Aes256>, Poly1305) {
        let cipher = Ctr128BE::from_core(CtrCore::inner_iv_init(self.cipher.clone(), nonce.into()));
        let mut pad = (*nonce).into();
        self.nonce_cipher.encrypt_block(&mut pad);
        let mut mac_key = [0; 32];
        mac_key[..16].copy_from_slice(&self.parts.mac_r);
        mac_key[16..].copy_from_slice(&pad);
        (cipher, Poly1305::new(&mac_key.into()))
    }
}

fn fill_nonce(room: &mut [u8]) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    rand::rng().fill_bytes(&mut nonce);
    room.copy_from_slice(&nonce);
    nonce
}

/// Feeds the last piece of a message (whose end Poly1305 marks rather than pads) and returns the MAC.
fn finish(mut poly: Poly1305, last: &[u8]) -> [u8; MAC] {
    let (blocks, tail) = last.split_at(last.len() / poly1305::BLOCK_SIZE * poly1305::BLOCK_SIZE);
    poly.update_padded(blocks);
    poly.compute_unpadded(tail).into()
}

#[cfg(test)]
mod tests;
