//! Patterns of paths, as `--exclude` and `--include` of restic take them: pure matching, no IO.
//!
//! A pattern is a path whose components may hold wildcards: `*` and `?` (never across a `/`), classes as `[a-z]` or
//! `[^0-9]`, a backslash before a character that stands for itself, and `**` alone for any number of components. A
//! pattern that starts with `/` matches from the root, any other one at every depth. What matches a directory
//! matches all below it. A `!` in front takes back what earlier patterns matched.
//!
//! Source: restic's manual, "Excluding Files"; Go's documentation of `path/filepath.Match` and `os.Expand`.

use std::borrow::Cow;

/// A pattern that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern {pattern:?}: {reason}")]
pub struct PatternError {
    /// The pattern as given.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Whether upper and lower case differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Case {
    /// They do.
    #[default]
    Sensitive,
    /// They do not.
    Ignored,
}

/// What a list of patterns says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The path matches.
    pub is_match: bool,
    /// Something below it may match, so it must be entered to know.
    pub may_match_below: bool,
}

/// A list of patterns, tried in order.
#[derive(Debug, Clone, Default)]
pub struct PatternList {
    patterns: Vec<Pattern>,
    case: Case,
}

#[derive(Debug, Clone)]
struct Pattern {
    is_negated: bool,
    is_rooted: bool,
    parts: Vec<Part>,
}

/// One component of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`
    AnyDepth,
    /// No wildcards.
    Literal(Vec<u8>),
    Glob(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    AnyChar,
    AnyText,
    Class { is_negated: bool, ranges: Vec<(char, char)> },
}

impl PatternList {
    /// Parses patterns; empty ones are passed over.
    pub fn new<P: AsRef<[u8]>>(patterns: impl IntoIterator<Item = P>, case: Case) -> Result<Self, PatternError> {
        let patterns = patterns
            .into_iter()
            .filter(|pattern| !pattern.as_ref().is_empty())
            .map(|pattern| Pattern::parse(&fold(pattern.as_ref(), case)))
            .collect::<Result<_, _>>()?;
        Ok(Self { patterns, case })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path` (absolute, or relative to what the patterns are relative to) or a directory above it matches.
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.look_up(path).is_match
    }

    /// As [`Self::is_match`], and whether anything below `path` could match.
    pub fn look_up(&self, path: &[u8]) -> Match {
        let mut found = Match { is_match: false, may_match_below: false };
        if self.patterns.is_empty() || path.is_empty() {
            return found;
        }
        let path = fold(path, self.case);
        let (is_rooted, path) = match path.strip_prefix(b"/") {
            Some(rest) => (true, rest),
            None => (false, &*path),
        };
        let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
        for pattern in &self.patterns {
            let is_match = pattern.is_match(is_rooted, &names);
            if pattern.is_negated {
                found.is_match &= !is_match;
                found.may_match_below &= !is_match;
            } else {
                found.is_match |= is_match;
                found.may_match_below |= pattern.may_match_below(is_rooted, &names);
            }
        }
        found
    }
}

/// Lower case where case is ignored.
fn fold(text: &[u8], case: Case) -> Cow<'_, [u8]> {
    match case {
        Case::Sensitive => Cow::Borrowed(text),
        Case::Ignored if text.is_ascii() => Cow::Owned(text.to_ascii_lowercase()),
        // One character for one: a few have longer lower-case forms, which Go does not use.
        Case::Ignored => {
            let lower = |char: char| char.to_lowercase().next().unwrap_or(char);
            Cow::Owned(String::from_utf8_lossy(text).chars().map(lower).collect::<String>().into_bytes())
        }
    }
}

impl Pattern {
    fn parse(text: &[u8]) -> Result<Self, PatternError> {
        let (is_negated, path) = match text.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let error = |reason| PatternError { pattern: String::from_utf8_lossy(text).into_owned(), reason };
        let is_rooted = path.starts_with(b"/");
        let mut parts = Vec::new();
        for part in clean(path) {
            parts.push(Part::parse(part).map_err(error)?);
        }
        Ok(Self { is_negated, is_rooted, parts })
    }

    fn is_match(&self, path_is_rooted: bool, names: &[&[u8]]) -> bool {
        if self.is_rooted {
            return path_is_rooted && starts_with(&self.parts, names);
        }
        // A pattern of nothing matches nothing.
        (0..names.len()).any(|start| starts_with(&self.parts, &names[start..]))
    }

    fn may_match_below(&self, path_is_rooted: bool, names: &[&[u8]]) -> bool {
        if !self.is_rooted {
            return true;
        }
        let fixed = self.parts.iter().position(|part| *part == Part::AnyDepth).unwrap_or(self.parts.len());
        let depth = fixed.min(names.len());
        path_is_rooted && starts_with(&self.parts[..depth], &names[..depth])
    }
}

/// Whether the parts match the names from the first on; more names may follow.
fn starts_with(parts: &[Part], names: &[&[u8]]) -> bool {
    let Some((first, rest)) = parts.split_first() else { return true };
    if *first == Part::AnyDepth {
        return (0..=names.len()).any(|skipped| starts_with(rest, &names[skipped..]));
    }
    names.split_first().is_some_and(|(name, names)| first.is_match(name) && starts_with(rest, names))
}

/// The components of a path without `.`, with `..` taking back the one before (as Go's `filepath.Clean`).
fn clean(path: &[u8]) -> Vec<&[u8]> {
    let is_rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if is_rooted => {}
            _ => parts.push(part),
        }
    }
    if parts.is_empty() && !is_rooted {
        parts.push(b".");
    }
    parts
}

impl Part {
    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        if text == b"**" {
            return Ok(Self::AnyDepth);
        }
        if !text.iter().any(|byte| b"\\[]*?".contains(byte)) {
            return Ok(Self::Literal(text.to_vec()));
        }
        let mut tokens = Vec::new();
        let mut rest = text;
        while let [first, tail @ ..] = rest {
            rest = tail;
            tokens.push(match first {
                b'*' => Token::AnyText,
                b'?' => Token::AnyChar,
                b'[' => {
                    let (class, tail) = parse_class(tail)?;
                    rest = tail;
                    class
                }
                b'\\' => {
                    let (&escaped, tail) = tail.split_first().ok_or("nothing follows the backslash at its end")?;
                    rest = tail;
                    Token::Byte(escaped)
                }
                byte => Token::Byte(*byte),
            });
        }
        Ok(Self::Glob(tokens))
    }

    fn is_match(&self, name: &[u8]) -> bool {
        match self {
            Self::AnyDepth => true,
            Self::Literal(text) => text == name,
            Self::Glob(tokens) => glob(tokens, name),
        }
    }
}

/// Reads a class after its `[`; returns what follows its `]`.
fn parse_class(text: &[u8]) -> Result<(Token, &[u8]), &'static str> {
    let (is_negated, mut rest) = match text.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let (Some(tail), false) = (rest.strip_prefix(b"]"), ranges.is_empty()) {
            return Ok((Token::Class { is_negated, ranges }, tail));
        }
        let (low, tail) = class_char(rest)?;
        let (high, tail) = match tail.strip_prefix(b"-") {
            Some(tail) => class_char(tail)?,
            None => (low, tail),
        };
        ranges.push((low, high));
        rest = tail;
    }
}

fn class_char(text: &[u8]) -> Result<(char, &[u8]), &'static str> {
    let text = match text {
        [] => return Err("a class is not closed with ]"),
        [b'-' | b']', ..] => return Err("a class is empty, or - or ] stand in it without a backslash"),
        [b'\\', tail @ ..] => tail,
        _ => text,
    };
    match decode(text) {
        Some((Some(character), length)) => Ok((character, &text[length..])),
        Some((None, _)) => Err("a class holds bytes that are not UTF-8"),
        None => Err("a class is not closed with ]"),
    }
}

/// The first character (`None` for a byte that is not UTF-8) and its length in bytes.
fn decode(text: &[u8]) -> Option<(Option<char>, usize)> {
    let head = &text[..text.len().min(4)];
    let chunk = head.utf8_chunks().next()?;
    Some(match chunk.valid().chars().next() {
        Some(character) => (Some(character), character.len_utf8()),
        None => (None, 1),
    })
}

fn glob(tokens: &[Token], name: &[u8]) -> bool {
    let (mut at_token, mut at_byte) = (0, 0);
    // Where to go on when a try fails: after the last `*`, one byte later.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let rest = &name[at_byte..];
        let step = match tokens.get(at_token) {
            Some(Token::AnyText) => {
                retry = Some((at_token + 1, at_byte));
                Some(0)
            }
            Some(Token::Byte(byte)) => (rest.first() == Some(byte)).then_some(1),
            Some(Token::AnyChar) => decode(rest).map(|(_, length)| length),
            Some(Token::Class { is_negated, ranges }) => decode(rest).and_then(|(character, length)| {
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                let is_in = ranges.iter().any(|&(low, high)| (low..=high).contains(&character));
                (is_in != *is_negated).then_some(length)
            }),
            None if rest.is_empty() => return true,
            None => None,
        };
        match (step, &mut retry) {
            (Some(length), _) => {
                at_token += 1;
                at_byte += length;
            }
            (None, Some((token, byte))) if *byte < name.len() => {
                *byte += 1;
                (at_token, at_byte) = (*token, *byte);
            }
            _ => return false,
        }
    }
}

/// The patterns of an exclude file: one a line, without empty lines and those that start with `#`, with `$NAME` and
/// `${NAME}` replaced by `variable` (`$$` is a dollar sign).
pub fn parse_file(text: &[u8], variable: &dyn Fn(&str) -> Option<String>) -> Vec<Vec<u8>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    text.split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| expand(line, variable))
        .collect()
}

fn expand(line: &[u8], variable: &dyn Fn(&str) -> Option<String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'$' || tail.is_empty() {
            out.push(*first);
            continue;
        }
        let (name, tail) = match tail {
            [b'{', inner @ ..] => match inner.iter().position(|&byte| byte == b'}') {
                Some(end) => (&inner[..end], &inner[end + 1..]),
                // Not closed: Go drops the two characters.
                None => (&[][..], inner),
            },
            [b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9', ..] => tail.split_at(1),
            _ => {
                let end = tail.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
                match tail.split_at(end.unwrap_or(tail.len())) {
                    ([], _) => {
                        out.push(b'$');
                        continue;
                    }
                    parts => parts,
                }
            }
        };
        rest = tail;
        match name {
            b"$" => out.push(b'$'),
            _ => {
                let value = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()).and_then(variable);
                out.extend_from_slice(value.unwrap_or_default().as_bytes());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(patterns: &[&str], path: &str, want: bool) {
        let list = PatternList::new(patterns, Case::Sensitive).unwrap();
        assert_eq!(list.is_match(path.as_bytes()), want, "{patterns:?} on {path}");
    }

    #[test]
    fn relative_patterns_match_at_every_depth() {
        check(&["foo"], "/foo", true);
        check(&["foo"], "/a/foo", true);
        check(&["foo"], "/a/foo/b", true);
        check(&["foo"], "/a/foobar", false);
        check(&["foo/bar"], "/a/foo/bar/c", true);
        check(&["foo/bar"], "/a/foo/x/bar", false);
        check(&["*.c"], "/a/b.c", true);
        check(&["*.c"], "/a.c/b", true);
        check(&["foo/"], "/x/foo", true);
        check(&["./foo"], "/x/foo", true);
        check(&["x/../foo"], "/foo", true);
        check(&["*"], "/", false);
        check(&["a*b"], "a/b", false);
    }

    #[test]
    fn rooted_patterns_match_from_the_root() {
        check(&["/foo"], "/foo/bar", true);
        check(&["/foo"], "/a/foo", false);
        check(&["/foo"], "foo", false);
        check(&["/"], "/a", true);
        check(&["/*/b"], "/a/b/c", true);
        check(&["/*/b"], "/a/x/b", false);
    }

    #[test]
    fn any_depth() {
        check(&["/a/**/b"], "/a/b", true);
        check(&["/a/**/b"], "/a/x/y/b/z", true);
        check(&["/a/**/b"], "/x/a/b", false);
        check(&["a/**/b"], "/x/a/y/b", true);
        check(&["**/b"], "/x/b", true);
        check(&["/a/**"], "/a/x", true);
        check(&["/a/**"], "/a", true);
        check(&["/**/a/**/b/**/c"], "/x/a/b/y/z/c", true);
        check(&["/**/a/**/b/**/c"], "/x/b/a/y/z/c", false);
    }

    #[test]
    fn wildcards_in_a_name() {
        for (pattern, name, want) in [
            ("abc", "abc", true),
            ("a*c", "abbbc", true),
            ("a*c*d", "axcxcd", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "éx", true),
            (r"[\]\-]", "]", true),
            (r"[\]\-]", "-", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("a]", "a]", true),
            ("*x", "xxx", true),
            ("**x", "abx", true),
            ("", "x", false),
        ] {
            check(&[pattern], name, want);
        }
        let list = PatternList::new(["a?b"], Case::Sensitive).unwrap();
        assert!(list.is_match(b"/a\xffb"));
    }

    #[test]
    fn negation_takes_back() {
        check(&["*.txt", "!keep.txt"], "/a/keep.txt", false);
        check(&["*.txt", "!keep.txt"], "/a/other.txt", true);
        check(&["!keep.txt", "*.txt"], "/a/keep.txt", true);
        check(&["*", "!*.rs", "x.rs"], "/x.rs", true);
    }

    #[test]
    fn case_can_be_ignored() {
        let list = PatternList::new(["*.JPG", "ÄÖ"], Case::Ignored).unwrap();
        for path in ["/a.jpg", "/A.Jpg", "/x/äÖ"] {
            assert!(list.is_match(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn what_may_match_below() {
        for (pattern, path, want) in [
            ("x", "/a/b", true),
            ("/a/b/c", "/a", true),
            ("/a/b/c", "/a/b", true),
            ("/a/b/c", "/a/x", false),
            ("/a/b/c", "/a/b/c/d", true),
            ("/a/**/c", "/a/x/y", true),
            ("/a/**/c", "/b", false),
            ("/a*/b", "/ax", true),
        ] {
            let list = PatternList::new([pattern], Case::Sensitive).unwrap();
            assert_eq!(list.look_up(path.as_bytes()).may_match_below, want, "{pattern} on {path}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["[", "[a", "[]a]", "[a-]", "[-a]", "a\\", "x/[/y", "[^]"] {
            assert!(PatternList::new([pattern], Case::Sensitive).is_err(), "{pattern}");
        }
    }

    #[test]
    fn exclude_files() {
        let variable = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let text = b"\xef\xbb\xbf# comment\n\n  *.o \r\n$HOME/x\n${HOME}y$$z\n$NONE/a\n${open\na$\n$/b\n";
        let want: [&[u8]; 7] = [b"*.o", b"/home/me/x", b"/home/mey$z", b"/a", b"open", b"a$", b"$/b"];
        assert_eq!(parse_file(text, &variable), want);
    }
}
