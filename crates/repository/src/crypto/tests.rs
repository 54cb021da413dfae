//! Published vectors, and damage that must not pass.

use super::*;
use proptest::prelude::*;

fn key() -> Key {
    Key::from_parts(&[1; 32], &[2; 16], &[3; 16])
}

/// The Poly1305-AES vectors of D. J. Bernstein's paper: (r, k, nonce, message, MAC).
const POLY1305_AES: [[&str; 5]; 3] = [
    [
        "851fc40c3467ac0be05cc20404f3f700",
        "ec074c835580741701425b623235add6",
        "fb447350c4e868c52ac3275cf9d4327e",
        "f3f6",
        "f4c633c3044fc145f84f335cb81953de",
    ],
    [
        "a0f3080000f46400d0c7e9076c834403",
        "75deaa25c09f208e1dc4ce6b5cad3fbf",
        "61ee09218d29b0aaed7e154a2c5509cc",
        "",
        "dd3fab2251f11ac759f0887129cc2ee7",
    ],
    [
        "48443d0bb0d21109c89a100b5ce2c208",
        "6acb5f61a7176dd320c5c1eb2edcdc74",
        "ae212a55399729595dea458bc621ff0e",
        "663cea190ffb83d89593f3f476b6bc24d7e679107ea26adb8caf6652d0656136",
        "0ee1c16bb73f0f4fd19881753c01cdbe",
    ],
];

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

#[test]
fn the_mac_is_poly1305_aes() {
    for [r, k, nonce, message, mac] in POLY1305_AES {
        let key = Key::from_parts(&[0; 32], &bytes(k), &bytes(r));
        let (_, poly) = key.start(&bytes(nonce));
        assert_eq!(hex::encode(finish(poly, &hex::decode(message).unwrap())), mac);
    }
}

#[test]
fn the_cipher_is_aes_256_ctr_with_a_counter_of_128_bits() {
    // NIST SP 800-38A, F.5.5
    let key = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let (mut cipher, _) = Key::from_parts(&key, &[0; 16], &[0; 16]).start(&bytes("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"));
    let mut text = bytes::<32>("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    cipher.apply_keystream(&mut text);
    assert_eq!(hex::encode(text), "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5");
}

#[test]
fn the_multiplier_is_clamped_as_restic_stores_it() {
    let key = Key::from_parts(&[0; 32], &[0; 16], &[0xff; 16]);
    assert_eq!(hex::encode(key.parts().mac_r), "ffffff0ffcffff0ffcffff0ffcffff0f");
}

#[test]
fn a_key_derived_by_scrypt_has_the_parts_in_restics_order() {
    // RFC 7914, section 12: scrypt("password", "NaCl", N=1024, r=8, p=16, 64)
    let key = KdfParams::new(1024, 8, 16).unwrap().derive(b"password", b"NaCl");
    let KeyParts { encrypt, mac_k, mac_r } = key.parts();
    assert_eq!(hex::encode(encrypt), "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162");
    assert_eq!(hex::encode(mac_k), "2eaf30d92e22a3886ff109279d9830da");
    let clamped = u128::from_le_bytes(bytes("c727afb94a83ee6d8360cbdfa2cc0640")) & POLY1305_CLAMP;
    assert_eq!(*mac_r, clamped.to_le_bytes());
}

#[test]
fn sealed_text_opens_at_every_piece_boundary() {
    for len in [0, 1, 15, 16, 17, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
        let text: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let sealed = key().seal(&text);
        assert_eq!(sealed.len(), len + OVERHEAD);
        assert_eq!(key().open(sealed), Ok(text), "{len} bytes");
    }
}

#[test]
fn pieces_make_the_same_mac_as_the_whole() {
    let sealed = key().seal(&vec![7; 2 * PIECE + 5]);
    let (_, poly) = key().start(sealed[..16].try_into().unwrap());
    let whole = poly.compute_unpadded(&sealed[16..sealed.len() - 16]);
    assert_eq!(sealed[sealed.len() - 16..], *whole);
}

#[test]
fn too_short_data_is_not_authentic() {
    for len in 0..OVERHEAD {
        assert_eq!(key().open(vec![0; len]), Err(Unauthentic));
    }
}

#[test]
fn two_seals_of_one_text_differ() {
    assert_ne!(key().seal(b"text"), key().seal(b"text"));
}

#[test]
fn another_key_does_not_open() {
    let sealed = key().seal(b"text");
    assert_eq!(Key::generate().open(sealed), Err(Unauthentic));
}

#[test]
fn debug_shows_no_secret() {
    assert_eq!(format!("{:?}", key()), "Key(redacted)");
}

proptest! {
    #[test]
    fn any_flipped_bit_is_found_and_no_plaintext_left(len in 0usize..200, at: prop::sample::Index, bit in 0u32..8) {
        let mut sealed = key().seal(&vec![b'x'; len]);
        let at = at.index(sealed.len());
        sealed[at] ^= 1u8 << bit;
        let mut buf = sealed.clone();
        prop_assert_eq!(key().open_in_place(&mut buf), Err(Unauthentic));
        prop_assert!(buf[16..16 + len].iter().all(|&b| b == 0));
        prop_assert_eq!(key().open(sealed), Err(Unauthentic));
    }
}
