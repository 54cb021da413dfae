//! What a plain YAML scalar means: as `kubectl` reads it, not as YAML 1.2 would, so that a manifest
//! means the same here and there.
//!
//! `kubectl` follows the YAML 1.1 rules with some exceptions: `yes`, `on`, `y` and their kin are booleans,
//! `0644`, `0o644`, `0x1f`, `0b11` and `1_000` are integers, dates are texts, and so is `12:30:45`, which
//! YAML 1.1 would take for a number in base 60.

use serde_json::Number;

use super::tree::Value;

/// The value of a plain scalar, or `None` for a number that JSON cannot carry (`.nan`, `.inf`).
pub(super) fn resolve(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Some(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Some(Value::Bool(false));
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return None,
        _ => {}
    }
    let number = match text.as_bytes().first() {
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let plain = text.replace('_', "");
            integer(&plain).or_else(|| float(&plain))
        }
        Some(b'.') => float(text),
        _ => None,
    };
    Some(number.map_or_else(|| Value::Text(text.to_owned()), Value::Number))
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None; // a second sign
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if !negative {
        return Some(Number::from(magnitude));
    }
    0i64.checked_sub_unsigned(magnitude).map(Number::from)
}

fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !is_digits(whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if digits.is_empty() || !is_digits(digits) {
            return None;
        }
    }
    let value: f64 = text.parse().ok()?;
    // On its way through JSON kubectl's 5.0 becomes 5: an integer as long as a float can count them.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        return Some(Number::from(value as i64));
    }
    // Out of range becomes infinite, which `from_f64` refuses: then it is text, as for kubectl.
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, want: serde_json::Value) {
        let got = resolve(text).map(|value| super::super::tree::Node::new(value, 1, 1).to_json());
        assert_eq!(got, Some(want), "{text:?}");
    }

    #[test]
    fn booleans_of_yaml_1_1() {
        for text in ["yes", "Yes", "on", "ON", "true", "True", "y", "Y"] {
            check(text, json!(true));
        }
        for text in ["no", "NO", "off", "Off", "false", "FALSE", "n", "N"] {
            check(text, json!(false));
        }
        for text in ["yEs", "tRue", "oN", "yess"] {
            check(text, json!(text));
        }
    }

    #[test]
    fn nothing() {
        for text in ["", "~", "null", "Null", "NULL"] {
            check(text, json!(null));
        }
    }

    #[test]
    fn integers_in_every_base() {
        check("0644", json!(420));
        check("0o644", json!(420));
        check("0x1F", json!(31));
        check("0b11", json!(3));
        check("1_000", json!(1000));
        check("-7", json!(-7));
        check("+7", json!(7));
        check("0", json!(0));
        check("-0", json!(0));
        check("18446744073709551615", json!(18_446_744_073_709_551_615_u64));
        check("-9223372036854775808", json!(i64::MIN));
    }

    #[test]
    fn floats() {
        check("1.5", json!(1.5));
        check("1e3", json!(1000));
        check(".5", json!(0.5));
        check("5.", json!(5));
        check("0.8", json!(0.8));
        check("0899", json!(899)); // no octal number, so a decimal one
    }

    #[test]
    fn texts() {
        for text in [
            "12:30:45",
            "190:20:30",
            "2026-01-02",
            "1.2.3",
            "0.8.2",
            "--",
            "-",
            "+",
            ".",
            "1e",
            "64Mi",
            "@every 1h",
            "0xZZ",
            "1e999",
            "-+5",
            "+-5",
            "0x",
            "0b",
            "0o",
            "é",
        ] {
            check(text, json!(text));
        }
    }

    #[test]
    fn what_json_cannot_carry() {
        for text in [".nan", ".inf", "-.inf", "+.INF"] {
            assert_eq!(resolve(text), None);
        }
    }
}
