//! Amounts in the notation of Kubernetes.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An amount such as `128Mi`, `250m`, `1.5G` or `12e6`, exact to a billionth.
///
/// Suffixes: `Ki` to `Ei` are powers of 1,024; `n`, `u`, `m`, none, `k`, `M`, `G`, `T`, `P`, `E` are powers of 1,000;
/// `e` or `E` with a number is a power of ten. It prints as it was written; two are equal when their amounts are.
#[derive(Clone, Debug)]
pub struct Quantity {
    nanos: i128,
    text: String,
}

/// Why a text is no [`Quantity`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not follow the notation.
    #[error("{0:?} is not a quantity: expected a number with an optional suffix, such as 128Mi, 250m or 1.5G")]
    Syntax(String),
    /// The amount does not fit.
    #[error("{0:?} is not a quantity: expected at most 2^63-1")]
    TooLarge(String),
}

const NANOS: i128 = 1_000_000_000;

impl Quantity {
    /// A whole number without a suffix.
    pub fn from_units(units: u64) -> Self {
        Self { nanos: i128::from(units) * NANOS, text: units.to_string() }
    }

    /// The amount in whole units (bytes, cores, …), rounded up; `None` below zero.
    pub fn units(&self) -> Option<u64> {
        u64::try_from(self.nanos.div_euclid(NANOS) + i128::from(self.nanos.rem_euclid(NANOS) > 0)).ok()
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// Numerator and denominator of a suffix.
fn suffix_scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "" => Some((1, 1)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let syntax = || QuantityError::Syntax(text.to_owned());
        let too_large = || QuantityError::TooLarge(text.to_owned());
        let (sign, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(syntax());
        }
        let (numerator, denominator) = suffix_scale(suffix).ok_or_else(syntax)?;
        let digits = format!("{whole}{fraction}");
        let fraction_scale = u32::try_from(fraction.len()).ok().and_then(|n| 10_i128.checked_pow(n));
        let divisor = fraction_scale.and_then(|scale| scale.checked_mul(denominator)).ok_or_else(syntax)?;
        let scaled = digits
            .parse::<i128>()
            .ok()
            .and_then(|value| value.checked_mul(numerator))
            .and_then(|value| value.checked_mul(NANOS))
            .ok_or_else(too_large)?;
        // Smaller than a billionth is rounded up, so that a tiny request never becomes none.
        let nanos = scaled / divisor + i128::from(scaled % divisor > 0);
        if nanos > i128::from(i64::MAX) * NANOS {
            return Err(too_large());
        }
        Ok(Self { nanos: sign * nanos, text: text.to_owned() })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl de::Visitor<'_> for NumberOrText {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 128Mi, 250m or 1.5G")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "format": "holdfast-quantity",
            "pattern": r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_suffix() {
        for (text, units) in [
            ("0", 0),
            ("128Mi", 128 << 20),
            ("64Mi", 64 << 20),
            ("1Ki", 1024),
            ("1.5Gi", 3 << 29),
            ("250m", 1),
            ("1500m", 2),
            ("2k", 2_000),
            ("1.5G", 1_500_000_000),
            ("12e6", 12_000_000),
            ("12E6", 12_000_000),
            ("5e-1", 1),
            ("1E", 1_000_000_000_000_000_000),
            ("+3", 3),
            (".5Ki", 512),
            ("1.", 1),
            ("1n", 1),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!(quantity.units(), Some(units), "{text}");
            assert_eq!(quantity.to_string(), text);
        }
        assert_eq!("-1".parse::<Quantity>().unwrap().units(), None);
    }

    #[test]
    fn compares_amounts_not_spellings() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(quantity("1Ki"), quantity("1024"));
        assert_eq!(quantity("1.5"), quantity("1500m"));
        assert!(quantity("1M") < quantity("1Mi"));
        assert_eq!(serde_json::from_str::<Quantity>("1024").unwrap(), quantity("1Ki"));
        assert_eq!(serde_json::from_str::<Quantity>("0.5").unwrap(), quantity("500m"));
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "Mi", "128MiB", "128MB", "1 Gi", "one", "1.2.3", ".", "1e", "1K", "--1", "1e99"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Syntax(text.to_owned())), "{text}");
        }
        for text in ["9223372036854775808", "8Ei", "99999999999999999999999999999999999999999"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::TooLarge(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn the_error_shows_what_was_expected() {
        let error = serde_json::from_str::<Quantity>("\"128MB\"").unwrap_err().to_string();
        assert!(error.contains("\"128MB\" is not a quantity: expected a number with an optional suffix"), "{error}");
        let error = serde_json::from_str::<Quantity>("true").unwrap_err().to_string();
        assert!(error.contains("expected a quantity such as 128Mi"), "{error}");
    }
}
