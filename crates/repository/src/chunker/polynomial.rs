//! Polynomials over GF(2) as the repository's `config` holds one: bit i is the coefficient of x^i.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

/// An irreducible polynomial of degree 53: the seed of a repository's chunk boundaries.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Polynomial(u64);

/// The degree that restic gives every polynomial.
pub(super) const DEGREE: u32 = 53;

/// Why a `chunker_polynomial` is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolynomialError {
    /// Not a hexadecimal number of 64 bits.
    #[error("chunker polynomial {0:?} is not a hexadecimal number of at most 16 digits")]
    NotHex(String),
    /// A number that is not fit to chunk with.
    #[error("chunker polynomial {0:x} is not an irreducible polynomial of degree 53")]
    Unfit(u64),
}

impl Polynomial {
    /// A random one for a new repository, from a cryptographic generator: boundaries then tell an observer nothing.
    pub fn random() -> Self {
        let mut rng = rand::rng();
        // One candidate in 53/2 is irreducible.
        loop {
            let bits = rng.next_u64() & ((1 << DEGREE) - 1);
            if let Ok(polynomial) = Self::new(bits | 1 << DEGREE | 1) {
                return polynomial;
            }
        }
    }

    /// Accepts `bits` when they are fit to chunk with.
    pub fn new(bits: u64) -> Result<Self, PolynomialError> {
        if bits != 0 && degree(bits) == DEGREE && irreducible(bits) {
            Ok(Self(bits))
        } else {
            Err(PolynomialError::Unfit(bits))
        }
    }

    /// Its coefficients.
    pub(super) fn bits(self) -> u64 {
        self.0
    }
}

impl FromStr for Polynomial {
    type Err = PolynomialError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` takes a sign, which is no digit.
        match u64::from_str_radix(text, 16) {
            Ok(bits) if !text.starts_with('+') => Self::new(bits),
            _ => Err(PolynomialError::NotHex(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Polynomial {
    type Error = PolynomialError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Polynomial> for String {
    fn from(polynomial: Polynomial) -> Self {
        polynomial.to_string()
    }
}

impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Polynomial({self})")
    }
}

/// The degree of `x`, which is not 0.
pub(super) fn degree(x: u64) -> u32 {
    x.ilog2()
}

/// `x` modulo `p`.
pub(super) fn modulo(mut x: u64, p: u64) -> u64 {
    while x != 0 && degree(x) >= degree(p) {
        x ^= p << (degree(x) - degree(p));
    }
    x
}

/// `a · b` modulo `p`, both already reduced.
fn multiply(mut a: u64, mut b: u64, p: u64) -> u64 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        b >>= 1;
        a <<= 1;
        if a >> degree(p) & 1 == 1 {
            a ^= p;
        }
    }
    product
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, modulo(a, b));
    }
    a
}

/// Ben-Or's test: `p` of degree n is irreducible when it shares no factor with x^(2^i) - x for i up to n/2.
/// The degree of `p` is between 2 and 62.
fn irreducible(p: u64) -> bool {
    const X: u64 = 0b10;
    let mut power = X;
    (0..degree(p) / 2).all(|_| {
        power = multiply(power, power, p);
        gcd(p, power ^ X) == 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_irreducible_polynomials_are_those_that_no_other_divides() {
        for p in 0b100..1 << 10 {
            let divisible = (2..p).any(|d| degree(d) < degree(p) && degree(d) > 0 && modulo(p, d) == 0);
            assert_eq!(irreducible(p), !divisible, "{p:b}");
        }
    }

    #[test]
    fn unfit_numbers_are_refused() {
        for bits in [0, 1, 2, 0b111, 1 << 53, (1 << 53) | 1, u64::MAX, 0x3d_a335_8b4d_c172] {
            assert_eq!(Polynomial::new(bits), Err(PolynomialError::Unfit(bits)));
        }
    }

    #[test]
    fn text_is_bare_hexadecimal() {
        let p: Polynomial = "3da3358b4dc173".parse().unwrap();
        assert_eq!(p.to_string(), "3da3358b4dc173");
        assert_eq!(serde_json::to_string(&p).unwrap(), "\"3da3358b4dc173\"");
        for bad in ["", "0x3da3358b4dc173", "+3da3358b4dc173", "xyz", "13da3358b4dc17300000"] {
            assert_eq!(bad.parse::<Polynomial>(), Err(PolynomialError::NotHex(bad.to_owned())));
        }
    }

    #[test]
    fn random_ones_are_fit_and_differ() {
        let (a, b) = (Polynomial::random(), Polynomial::random());
        assert!(Polynomial::new(a.bits()).is_ok());
        assert_ne!(a, b);
    }
}
