//! Amounts of data as restic's flags take them.

use holdfast_repository::prune::MaxUnused;

/// Parses a number of bytes with one of the suffixes K, M, G and T (powers of 1024), or none.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, shift) = match lower.char_indices().last() {
        Some((at, 'b')) => (&lower[..at], 0),
        Some((at, 'k')) => (&lower[..at], 10),
        Some((at, 'm')) => (&lower[..at], 20),
        Some((at, 'g')) => (&lower[..at], 30),
        Some((at, 't')) => (&lower[..at], 40),
        _ => (&*lower, 0),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| format!("{text:?} is no amount of data: expected a number, alone or with K, M, G or T"))
}

/// Parses `5%`, `500M` or `unlimited`.
pub(crate) fn parse_max_unused(text: &str) -> Result<MaxUnused, String> {
    let text = text.trim();
    if text == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    let Some(percent) = text.strip_suffix('%') else {
        return parse_bytes(text)
            .map(MaxUnused::Bytes)
            .map_err(|error| format!("{error}, a percentage or `unlimited`"));
    };
    match percent.trim().parse() {
        Ok(percent) if (0.0..100.0).contains(&percent) => Ok(MaxUnused::Percent(percent)),
        _ => Err(format!("{text:?} is no share: expected 0% or more, below 100%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, want) in
            [("0", 0), ("12", 12), ("3k", 3072), ("2M", 2 << 20), ("1G", 1 << 30), ("1t", 1 << 40), ("7B", 7)]
        {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        for text in ["", "k", "-1", "1.5G", "1KB", "20000000T", "ä"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(parse_max_unused("unlimited"), Ok(MaxUnused::Unlimited));
        assert_eq!(parse_max_unused("2.5%"), Ok(MaxUnused::Percent(2.5)));
        assert_eq!(parse_max_unused("10M"), Ok(MaxUnused::Bytes(10 << 20)));
        for text in ["100%", "-1%", "NaN%", "x%", "x", "%"] {
            assert!(parse_max_unused(text).is_err(), "{text}");
        }
    }
}
