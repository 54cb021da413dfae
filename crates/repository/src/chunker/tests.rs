//! Every kernel against the byte-by-byte definition, and against what restic cuts.

use super::*;
use proptest::prelude::*;

/// splitmix64, little-endian.
fn random(len: usize, mut seed: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(len + 8);
    while data.len() < len {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        data.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    data.truncate(len);
    data
}

fn polynomial() -> Polynomial {
    "3da3358b4dc173".parse().unwrap()
}

/// The definition, byte by byte: the fingerprint of a window is its bytes as a polynomial modulo P.
fn reference(data: &[u8], p: Polynomial) -> Vec<usize> {
    let tables = Tables::new(p);
    let (mut lengths, mut start) = (vec![], 0);
    while start < data.len() {
        let rest = &data[start..];
        let mut len = CHUNK_MIN.min(rest.len());
        if len == CHUNK_MIN {
            let mut fingerprint = rest[len - WINDOW..len].iter().fold(0, |f, &b| tables.push(f, b));
            while fingerprint & MASK != 0 && len < CHUNK_MAX && len < rest.len() {
                fingerprint = tables.slide(fingerprint, rest[len - WINDOW], rest[len]);
                len += 1;
            }
        }
        lengths.push(len);
        start += len;
    }
    lengths
}

fn lengths(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
    chunker.chunks(data).map(<[u8]>::len).collect()
}

#[test]
fn a_sliding_fingerprint_is_that_of_its_window_alone() {
    let p = polynomial();
    let tables = Tables::new(p);
    let data = random(1000, 1);
    let mut rolling = 0;
    for (at, &new) in data.iter().enumerate() {
        let old = if at < WINDOW { 0 } else { data[at - WINDOW] };
        rolling = tables.slide(rolling, old, new);
        let window = &data[(at + 1).saturating_sub(WINDOW)..=at];
        let direct = window.iter().fold(0, |f, &b| polynomial::modulo(f << 8 | u64::from(b), p.bits()));
        assert_eq!(rolling, direct, "byte {at}");
    }
}

#[test]
fn random_data_is_cut_where_the_definition_cuts() {
    let data = random(40 << 20, 2);
    let chunks = lengths(&Chunker::new(polynomial()), &data);
    assert_eq!(chunks, reference(&data, polynomial()));
    assert!(chunks.len() > 10);
}

#[test]
fn data_without_boundary_is_cut_at_the_maximum() {
    // Zeros have the fingerprint 0, which is a boundary; a constant 1 has another.
    let chunker = Chunker::new(polynomial());
    assert_eq!(lengths(&chunker, &vec![0; 2 * CHUNK_MIN + 5]), [CHUNK_MIN, CHUNK_MIN, 5]);
    assert_eq!(lengths(&chunker, &vec![1; CHUNK_MAX + 5]), [CHUNK_MAX, 5]);
}

#[test]
fn edges_of_length() {
    let chunker = Chunker::new(polynomial());
    let data = vec![1; CHUNK_MAX];
    for len in [0, 1, 63, 64, 65, CHUNK_MIN - 1, CHUNK_MIN, CHUNK_MIN + 1, CHUNK_MAX - 1, CHUNK_MAX] {
        assert_eq!(lengths(&chunker, &data[..len]).iter().sum::<usize>(), len);
        assert_eq!(lengths(&chunker, &data[..len]), reference(&data[..len], polynomial()), "{len} bytes");
        let more = chunker.next_boundary(&data[..len], 0, false);
        assert_eq!(more, (len == CHUNK_MAX).then_some(len), "{len} bytes and more to come");
    }
}

/// First hit, by the definition: the fold over each window alone, one byte after the other.
fn find_by_definition(tables: &Tables, data: &[u8], from: usize, to: usize) -> Option<usize> {
    let mut fingerprint = data[from - WINDOW..from].iter().fold(0, |f, &b| tables.push(f, b));
    (from..to).find(|&at| {
        fingerprint = tables.slide(fingerprint, data[at - WINDOW], data[at]);
        fingerprint & MASK == 0
    })
}

/// Data with several hits close together: pieces of 64 zeros, whose fingerprint is 0, at the given places.
fn data_with_hits(len: usize, seed: u64, hits: &[prop::sample::Index]) -> Vec<u8> {
    let mut data = random(len, seed);
    for hit in hits {
        let at = hit.index(len - WINDOW);
        data[at..at + WINDOW].fill(0);
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_kernel_finds_the_first_hit(
        seed: u64,
        len in 2 * WINDOW..600_000,
        hits in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        from: prop::sample::Index,
    ) {
        let data = data_with_hits(len, seed, &hits);
        let from = WINDOW + from.index(len - WINDOW);
        let chunker = Chunker::new(polynomial());
        let want = find_by_definition(&chunker.tables, &data, from, len);
        prop_assert_eq!(chunker.tables.find(&data, from, len), want, "four lanes");
        prop_assert_eq!(chunker.find(&data, from, len), want, "the processor's best");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_buffer_filled_piecewise_gives_the_same_boundary(
        seed: u64, pieces in prop::collection::vec(1usize..3 << 20, 1..8)
    ) {
        let chunker = Chunker::new(polynomial());
        let data = random(pieces.iter().sum(), seed);
        let whole = chunker.next_boundary(&data, 0, false);
        let (mut have, mut found) = (0, None);
        for piece in pieces {
            let searched = have;
            have += piece;
            found = chunker.next_boundary(&data[..have], searched, false);
            if found.is_some() {
                break;
            }
        }
        prop_assert_eq!(found, whole);
    }
}
