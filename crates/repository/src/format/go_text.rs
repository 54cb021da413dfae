//! Text as Go writes it: `encoding/json` strings, `strconv.Quote`, RFC 3339 times.
//!
//! restic names trees and snapshots by the hash of their JSON, so the same directory gets the same id only when
//! every byte of the text is the same. Here are the rules of Go's standard library that its bytes follow
//! (documentation of packages `encoding/json`, `strconv` and `time`); nothing here knows of nodes or snapshots.

use super::printable::PRINTABLE;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A text that `strconv.Unquote` would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid escape sequence in a quoted name")]
pub struct UnquoteError;

/// Whether a byte stands for itself both in `strconv.Quote` and in a JSON string.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// Appends a JSON string in double quotes: HTML-escaped, every byte that is not UTF-8 as `\ufffd`.
pub fn write_json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    write_json_text(out, text);
    out.push(b'"');
}

/// As [`write_json_string`], without the quotes around.
fn write_json_text(out: &mut Vec<u8>, text: &[u8]) {
    if text.iter().all(|&byte| is_plain(byte)) {
        out.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            write_json_char(out, character);
        }
        // Go replaces every single byte, not every broken sequence.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn write_json_char(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
            out.extend_from_slice(b"\\u");
            write_hex(out, character.into(), 4);
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends the JSON string of `strconv.Quote(name)` without its quotes: how restic stores file names, which may
/// hold any byte.
pub fn write_quoted_name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(b'"');
    if name.iter().all(|&byte| is_plain(byte)) {
        out.extend_from_slice(name);
    } else {
        write_json_text(out, &quote(name));
    }
    out.push(b'"');
}

/// Go's `strconv.Quote` without the quotes around; the result is UTF-8.
pub fn quote(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            quote_char(&mut out, character);
        }
        for &byte in chunk.invalid() {
            out.extend_from_slice(b"\\x");
            write_hex(&mut out, byte.into(), 2);
        }
    }
    out
}

fn quote_char(out: &mut Vec<u8>, character: char) {
    let code = u32::from(character);
    match character {
        '"' | '\\' => out.extend_from_slice(&[b'\\', code as u8]),
        '\u{7}' => out.extend_from_slice(b"\\a"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\u{b}' => out.extend_from_slice(b"\\v"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ if is_printable(character) => {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        '\0'..='\u{1f}' | '\u{7f}' => {
            out.extend_from_slice(b"\\x");
            write_hex(out, code, 2);
        }
        _ if code < 0x1_0000 => {
            out.extend_from_slice(b"\\u");
            write_hex(out, code, 4);
        }
        _ => {
            out.extend_from_slice(b"\\U");
            write_hex(out, code, 8);
        }
    }
}

/// Go's `strconv.IsPrint`.
fn is_printable(character: char) -> bool {
    let code = u32::from(character);
    let after = PRINTABLE.partition_point(|&(first, _)| first <= code);
    after > 0 && code <= PRINTABLE[after - 1].1
}

/// Reads back what [`quote`] wrote: Go's `strconv.Unquote` of `text` in double quotes.
pub fn unquote(text: &str) -> Result<Vec<u8>, UnquoteError> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        return Ok(bytes.to_vec());
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'"' | b'\n' => return Err(UnquoteError),
            b'\\' => rest = unquote_escape(tail, &mut out)?,
            byte => out.push(*byte),
        }
    }
    Ok(out)
}

/// Reads the escape sequence that `rest` starts with (after the backslash); returns what follows it.
fn unquote_escape<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], UnquoteError> {
    let (&kind, tail) = rest.split_first().ok_or(UnquoteError)?;
    let byte = match kind {
        b'a' => 7,
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 0xb,
        b'f' => 0xc,
        b'r' => b'\r',
        b'\\' | b'"' => kind,
        b'x' => {
            let (code, tail) = read_digits(tail, 2, 16)?;
            out.push(code as u8);
            return Ok(tail);
        }
        b'0'..=b'7' => {
            let (code, tail) = read_digits(rest, 3, 8)?;
            out.push(u8::try_from(code).map_err(|_| UnquoteError)?);
            return Ok(tail);
        }
        b'u' | b'U' => {
            let (code, tail) = read_digits(tail, if kind == b'u' { 4 } else { 8 }, 16)?;
            let character = char::from_u32(code).ok_or(UnquoteError)?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(tail);
        }
        _ => return Err(UnquoteError),
    };
    out.push(byte);
    Ok(tail)
}

fn read_digits(text: &[u8], count: usize, radix: u32) -> Result<(u32, &[u8]), UnquoteError> {
    let (digits, tail) = text.split_at_checked(count).ok_or(UnquoteError)?;
    let code = digits
        .iter()
        .try_fold(0u32, |code, &digit| code.checked_mul(radix)?.checked_add(char::from(digit).to_digit(radix)?));
    Ok((code.ok_or(UnquoteError)?, tail))
}

fn write_hex(out: &mut Vec<u8>, value: u32, digits: u32) {
    out.extend((0..digits).rev().map(|digit| DIGITS[(value >> (4 * digit) & 15) as usize]));
}

/// Appends a decimal number.
pub fn write_number(out: &mut Vec<u8>, value: u64) {
    write_padded(out, value, 1);
}

/// Appends a decimal number with at least `width` (1 to 20) digits.
pub(super) fn write_padded(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while value > 0 || digits.len() - start < width {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_name(name: &[u8], json: &str) {
        let mut out = Vec::new();
        write_quoted_name(&mut out, name);
        assert_eq!(String::from_utf8(out).unwrap(), json);
        let text: String = serde_json::from_str(json).unwrap();
        assert_eq!(unquote(&text).unwrap(), name);
    }

    /// The right sides are what Go prints for `json.Marshal` of the inside of `strconv.Quote`.
    #[test]
    fn names() {
        check_name(b"plain name.txt", r#""plain name.txt""#);
        check_name(b"a<>&\"\\b'", r#""a\u003c\u003e\u0026\\\"\\\\b'""#);
        check_name(b"\x07\x08\x09\x0a\x0b\x0c\x0d", r#""\\a\\b\\t\\n\\v\\f\\r""#);
        check_name(b"\x01\x1f\x7f", r#""\\x01\\x1f\\x7f""#);
        check_name(b"\xff\xe2\x82x\xf0\x9f\x92", r#""\\xff\\xe2\\x82x\\xf0\\x9f\\x92""#);
        check_name("é😀\u{fffd}".as_bytes(), "\"é😀\u{fffd}\"");
        check_name("\u{2028}\u{a0}\u{ad}\u{feff}".as_bytes(), r#""\\u2028\\u00a0\\u00ad\\ufeff""#);
        check_name("\u{10ffff}\u{e000}".as_bytes(), r#""\\U0010ffff\\ue000""#);
        check_name(b"", r#""""#);
    }

    #[test]
    fn json_strings() {
        let mut out = Vec::new();
        write_json_string(&mut out, b"\x00\x08\x0c\x1f\x7f\"\\/<>&\xe2\x80\xa8\xe2\x82\xff");
        let want = r#""\u0000\b\f\u001fDEL\"\\/\u003c\u003e\u0026\u2028\ufffd\ufffd\ufffd""#;
        assert_eq!(String::from_utf8(out).unwrap(), want.replace("DEL", "\u{7f}"));
    }

    #[test]
    fn unquote_reads_octal_and_refuses_nonsense() {
        assert_eq!(unquote(r"\101\x41").unwrap(), b"AA");
        for text in ["\\", "\\x", "\\x4", "\\xg0", "\\u12", "\\ud800", "\\U00110000", "\\'", "\\q", "\\400", "\"", "\n"]
        {
            assert_eq!(unquote(text), Err(UnquoteError), "{text:?}");
        }
    }

    #[test]
    fn numbers() {
        for (value, want) in [(0, "0"), (7, "7"), (1050412, "1050412"), (u64::MAX, "18446744073709551615")] {
            let mut out = Vec::new();
            write_number(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
