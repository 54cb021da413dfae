//! Every path to a hash gives the same hash.

use super::*;
use proptest::prelude::*;
use sha2::Digest;

fn oracle(data: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(data).into()
}

fn data(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed ^ (i >> 8) as u8).collect()
}

#[test]
fn the_empty_message_and_abc() {
    let hex = |d: &[u8]| hex::encode(sha256(d));
    assert_eq!(hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn every_length_around_the_padding() {
    for len in 0..300 {
        assert_eq!(sha256(&data(len, 1)), oracle(&data(len, 1)), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn a_stream_in_pieces_is_the_whole(pieces in prop::collection::vec(0usize..300, 0..10)) {
        let all = data(pieces.iter().sum(), 2);
        let (mut hash, mut at) = (Sha256::new(), 0);
        for len in pieces {
            hash.update(&all[at..at + len]);
            at += len;
        }
        prop_assert_eq!(hash.finalize(), oracle(&all));
    }

    #[test]
    fn two_streams_do_not_mix(lens in prop::collection::vec((0usize..400, 0usize..400), 0..6)) {
        let (x, y) = (data(2400, 3), data(2400, 4));
        let (mut a, mut b, mut i, mut j) = (Sha256::new(), Sha256::new(), 0, 0);
        for (m, n) in lens {
            update_pair(&mut a, &x[i..i + m], &mut b, &y[j..j + n]);
            (i, j) = (i + m, j + n);
        }
        prop_assert_eq!(a.finalize(), oracle(&x[..i]));
        prop_assert_eq!(b.finalize(), oracle(&y[..j]));
    }
}
