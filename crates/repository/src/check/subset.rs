//! Which packs a check reads.

use std::str::FromStr;

use rand::seq::SliceRandom;

use crate::Id;

/// Which packs are read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ReadData {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// The `part`-th of `of` parts, counted from 1: all parts together are all packs.
    Part {
        /// Which part, 1 to `of`.
        part: u32,
        /// How many parts there are, 1 to 256.
        of: u32,
    },
    /// So many per cent of the packs, chosen at random.
    Percent(f64),
    /// Packs of about so many bytes together, chosen at random.
    Bytes(u64),
}

/// A text that names no subset of packs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no part of the data: expected a form like 1/5 (up to 256 parts), 2.5% or 10G")]
pub struct SubsetError(String);

impl FromStr for ReadData {
    type Err = SubsetError;

    /// `n/t`, `x%`, or a size with the suffixes K, M, G or T (powers of 1024).
    fn from_str(text: &str) -> Result<Self, SubsetError> {
        let error = || SubsetError(text.to_owned());
        if let Some((part, of)) = text.split_once('/') {
            let (part, of) = (part.parse().map_err(|_| error())?, of.parse().map_err(|_| error())?);
            return if (1..=256).contains(&of) && (1..=of).contains(&part) {
                Ok(Self::Part { part, of })
            } else {
                Err(error())
            };
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| error())?;
            return if percent > 0.0 && percent <= 100.0 { Ok(Self::Percent(percent)) } else { Err(error()) };
        }
        let (digits, shift) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (&text[..at], 10),
            Some((at, 'm' | 'M')) => (&text[..at], 20),
            Some((at, 'g' | 'G')) => (&text[..at], 30),
            Some((at, 't' | 'T')) => (&text[..at], 40),
            _ => (text, 0),
        };
        let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        bytes.filter(|bytes| *bytes > 0).map(Self::Bytes).ok_or_else(error)
    }
}

impl ReadData {
    /// The packs to read, of all there are.
    pub(super) fn choose(self, packs: &[(Id, u64)]) -> Vec<(Id, u64)> {
        let all_bytes: u64 = packs.iter().map(|(_, bytes)| bytes).sum();
        let count = match self {
            Self::None => 0,
            Self::All => return packs.to_vec(),
            Self::Part { part, of } => {
                let chosen = packs.iter().filter(|(id, _)| u32::from(id.0[0]) % of == part - 1);
                return chosen.copied().collect();
            }
            Self::Percent(percent) => (packs.len() as f64 * percent / 100.0).ceil() as usize,
            Self::Bytes(bytes) => (packs.len() as f64 * bytes as f64 / all_bytes.max(1) as f64).ceil() as usize,
        };
        let mut packs = packs.to_vec();
        packs.shuffle(&mut rand::rng());
        packs.truncate(count);
        packs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!("1/5".parse(), Ok(ReadData::Part { part: 1, of: 5 }));
        assert_eq!("2.5%".parse(), Ok(ReadData::Percent(2.5)));
        assert_eq!("10G".parse(), Ok(ReadData::Bytes(10 << 30)));
        assert_eq!("700".parse(), Ok(ReadData::Bytes(700)));
        for text in ["", "0/5", "6/5", "1/257", "0%", "101%", "NaN%", "x", "-1", "0", "9999999999T", "ä"] {
            assert!(text.parse::<ReadData>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_are_everything_once() {
        let packs: Vec<_> = (0u8..100).map(|n| (Id::of(&[n]), 5)).collect();
        let mut all: Vec<_> = (1..=7).flat_map(|part| ReadData::Part { part, of: 7 }.choose(&packs)).collect();
        all.sort();
        let mut want = packs.clone();
        want.sort();
        assert_eq!(all, want);
        assert_eq!(ReadData::Percent(10.0).choose(&packs).len(), 10);
        assert_eq!(ReadData::Bytes(23).choose(&packs).len(), 5);
        assert_eq!(ReadData::All.choose(&packs), packs);
        assert!(ReadData::None.choose(&packs).is_empty());
    }
}
