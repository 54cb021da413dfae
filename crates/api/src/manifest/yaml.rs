//! YAML text to trees, one per document.
//!
//! The text is cut at its `---` lines first and each document is read alone, so that one that cannot be
//! read costs no other. Anchors, aliases and merge keys are followed within bounds; a tag that changes
//! what a value is (`!!str 5`) is honoured, others are refused.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::path::Path;
use super::scalar;
use super::tree::{ALIAS_BYTES_MAX, DEPTH_MAX, Document, Entry, Fault, NODES_MAX, Node, Value};

/// Every document of a YAML file that is not empty.
pub(super) fn read(contents: &[u8]) -> Vec<Document> {
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    let mut budget = Budget { nodes: NODES_MAX, alias_bytes: ALIAS_BYTES_MAX };
    let mut documents = Vec::new();
    for Chunk { bytes, line } in chunks(contents) {
        match text(bytes, line) {
            Ok(text) => documents.extend(documents_of(text, line, &mut budget)),
            Err(fault) => documents.push(Document { root: None, faults: vec![fault] }),
        }
    }
    documents
}

/// What one file may still use up.
struct Budget {
    nodes: usize,
    alias_bytes: usize,
}

/// The bytes between two document markers, with the file's line (from 1) they begin on. A leading
/// `---` line is part of it.
struct Chunk<'a> {
    bytes: &'a [u8],
    line: usize,
}

fn chunks(contents: &[u8]) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    let mut push = |range: std::ops::Range<usize>, line| {
        let bytes = &contents[range];
        if bytes.split(|b| *b == b'\n').any(says_something) {
            chunks.push(Chunk { bytes, line });
        }
    };
    for (index, line) in contents.split_inclusive(|b| *b == b'\n').enumerate() {
        let is = |marker: &[u8]| {
            line.strip_prefix(marker).is_some_and(|rest| rest.first().is_none_or(|b| b" \t\r\n".contains(b)))
        };
        if is(b"---") {
            push(start..offset, start_line);
            (start, start_line) = (offset, index + 1);
        } else if is(b"...") {
            push(start..offset, start_line);
            (start, start_line) = (offset + line.len(), index + 2);
        }
        offset += line.len();
    }
    push(start..contents.len(), start_line);
    chunks
}

/// Whether a line is more than a comment, a directive, a bare `---` or blank.
fn says_something(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"---").unwrap_or(line).trim_ascii_start();
    line.first().is_some_and(|b| !b"#%".contains(b))
}

/// The text of a document, if it is UTF-8 without control characters.
fn text(bytes: &[u8], first_line: usize) -> Result<&str, Fault> {
    let fault = |before: &[u8], problem: String| {
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Fault {
            line: first_line + before.iter().filter(|b| **b == b'\n').count(),
            column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
            path: Path::default(),
            problem,
            suggestion: Some("save the file as UTF-8 text".to_owned()),
        }
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (before, after) = bytes.split_at(error.valid_up_to());
        let byte = after.first().copied().unwrap_or_default();
        fault(before, format!("not UTF-8: found the byte 0x{byte:02x}"))
    })?;
    // The scanner would take a NUL for the end of the text and drop the rest in silence.
    match text.char_indices().find(|(_, c)| c.is_control() && !"\t\r\n\u{85}".contains(*c)) {
        Some((at, c)) => Err(fault(&bytes[..at], format!("a control character, U+{:04X}", u32::from(c)))),
        None => Ok(text),
    }
}

fn documents_of(text: &str, first_line: usize, budget: &mut Budget) -> Vec<Document> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        line_offset: first_line - 1,
        anchors: HashMap::new(),
        budget,
        faults: Vec::new(),
        path: Path::default(),
    };
    let mut documents = Vec::new();
    loop {
        let root = reader.document(text);
        let faults = std::mem::take(&mut reader.faults);
        match root {
            Ok(None) => return documents,
            Ok(Some(root)) => {
                if root.value != Value::Null || !faults.is_empty() {
                    documents.push(Document { root: Some(root), faults });
                }
            }
            Err(fault) => {
                let faults = faults.into_iter().chain([fault]).collect();
                documents.push(Document { root: None, faults });
                return documents;
            }
        }
    }
}

struct Reader<'a, 'b> {
    parser: Parser<'a, StrInput<'a>>,
    line_offset: usize,
    /// Finished anchored values: one that is still open is not here, so none contains itself.
    anchors: HashMap<usize, Node>,
    budget: &'b mut Budget,
    faults: Vec<Fault>,
    path: Path,
}

impl<'a> Reader<'a, '_> {
    /// The next document, or `None` at the end.
    fn document(&mut self, text: &str) -> Result<Option<Node>, Fault> {
        loop {
            let (event, span) = match self.parser.next_event() {
                None => return Ok(None),
                Some(Ok(next)) => next,
                Some(Err(error)) => return Err(self.syntax(&error, text)),
            };
            match event {
                Event::StreamEnd => return Ok(None),
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => return self.node(event, span, 0, text).map(Some),
            }
        }
    }

    fn next(&mut self, text: &str) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error, text)),
            None => Err(self.fault(Span::default(), "the document ends in the middle")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize, text: &str) -> Result<Node, Fault> {
        if depth > DEPTH_MAX {
            return Err(self.fault(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.charge(1, 0, span)?;
        let (line, column) = self.place(span);
        let (mut node, anchor) = match event {
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id) else {
                    return Err(self.fault(span, "an alias inside its own anchor"));
                };
                let (nodes, bytes) = node.weight();
                let node = node.clone();
                self.charge(nodes, bytes, span)?;
                return Ok(node);
            }
            Event::Scalar(scalar, style, anchor, tag) => (self.scalar(&scalar, style, tag.as_deref(), span)?, anchor),
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span)?;
                (Value::List(self.items(depth, text)?).into(), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span)?;
                (Value::Map(self.mapping(depth, text)?).into(), anchor)
            }
            _ => return Err(self.fault(span, "the document ends in the middle")),
        };
        (node.line, node.column) = (line, column);
        if anchor != 0 {
            let (nodes, bytes) = node.weight();
            self.charge(nodes, bytes, span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self, depth: usize, text: &str) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next(text)?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            self.path.push_index(items.len());
            items.push(self.node(event, span, depth + 1, text)?);
            self.path.pop();
        }
    }

    fn mapping(&mut self, depth: usize, text: &str) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next(text)?;
            if event == Event::MappingEnd {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(key, ScalarStyle::Plain, ..) if key == "<<");
            let key_node = self.node(event, span, depth + 1, text)?;
            let key = match &key_node.value {
                Value::Text(key) => key.clone(),
                Value::Bool(key) => key.to_string(),
                Value::Number(key) => key.to_string(),
                Value::Null => return Err(self.fault(span, "a key is missing before the colon")),
                Value::List(_) | Value::Map(_) => {
                    return Err(self.fault(span, "a key that is no plain text"));
                }
            };
            let (line, column) = self.place(span);
            let (event, value_span) = self.next(text)?;
            self.path.push_key(&key);
            let value = self.node(event, value_span, depth + 1, text)?;
            if is_merge {
                merged.push((value, value_span));
            } else if let Some(first_line) = lines.get(&key) {
                let problem = format!("the key stands twice, first on line {first_line}");
                let fault = self.fault(span, problem);
                self.faults.push(fault);
            } else {
                lines.insert(key.clone(), line);
                entries.push(Entry { key, line, column, value });
            }
            self.path.pop();
        }
        for (value, span) in merged {
            let maps = match value.value {
                Value::List(maps) => maps,
                _ => vec![value],
            };
            for map in maps {
                let Value::Map(map) = map.value else {
                    return Err(self.fault(span, "the merge key << takes a mapping or a list of mappings"));
                };
                for entry in map {
                    if !lines.contains_key(&entry.key) {
                        lines.insert(entry.key.clone(), entry.line);
                        entries.push(entry);
                    }
                }
            }
        }
        Ok(entries)
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Node, Fault> {
        let as_text = || Node::from(Value::Text(text.to_owned()));
        let resolved = || {
            scalar::resolve(text).ok_or_else(|| self.fault(span, format!("{text} is no number that JSON can carry")))
        };
        let Some(tag) = tag else {
            if style != ScalarStyle::Plain {
                return Ok(as_text());
            }
            let mut node = Node::from(resolved()?);
            if !matches!(node.value, Value::Text(_) | Value::Null) {
                node.written = Some(text.to_owned());
            }
            return Ok(node);
        };
        let value = match core_tag(tag) {
            Some("str" | "!") => return Ok(as_text()),
            Some("null" | "bool" | "int" | "float") => resolved()?,
            _ => return Err(self.fault(span, format!("the tag {tag} is not supported"))),
        };
        match (core_tag(tag), &value) {
            (Some("null"), Value::Null)
            | (Some("bool"), Value::Bool(_))
            | (Some("int" | "float"), Value::Number(_)) => Ok(value.into()),
            _ => Err(self.fault(span, format!("the value is not what its tag {tag} says"))),
        }
    }

    fn collection_tag(&self, tag: Option<&Tag>, wanted: &str, span: Span) -> Result<(), Fault> {
        match tag {
            Some(tag) if !matches!(core_tag(tag), Some(name) if name == wanted || name == "!") => {
                Err(self.fault(span, format!("the tag {tag} is not supported")))
            }
            _ => Ok(()),
        }
    }

    fn charge(&mut self, nodes: usize, bytes: usize, span: Span) -> Result<(), Fault> {
        match (self.budget.nodes.checked_sub(nodes), self.budget.alias_bytes.checked_sub(bytes)) {
            (Some(nodes), Some(alias_bytes)) => {
                *self.budget = Budget { nodes, alias_bytes };
                Ok(())
            }
            (None, _) => {
                self.budget.nodes = 0;
                Err(self.fault(span, format!("the file holds more than {NODES_MAX} values")))
            }
            (_, None) => {
                let problem = format!("its aliases repeat more than {ALIAS_BYTES_MAX} bytes");
                Err(self.fault(span, problem))
            }
        }
    }

    fn place(&self, span: Span) -> (usize, usize) {
        (span.start.line().max(1) + self.line_offset, span.start.col() + 1)
    }

    fn fault(&self, span: Span, problem: impl Into<String>) -> Fault {
        let (line, column) = self.place(span);
        Fault { line, column, path: self.path.clone(), problem: problem.into(), suggestion: None }
    }

    fn syntax(&self, error: &ScanError, text: &str) -> Fault {
        let line = error.marker().line().max(1);
        let here = text.lines().nth(line - 1).unwrap_or_default();
        // The scanner often notices on the line after the one that is wrong.
        let before = line.checked_sub(2).and_then(|n| text.lines().nth(n)).unwrap_or_default();
        Fault {
            line: line + self.line_offset,
            column: error.marker().col() + 1,
            path: Path::default(),
            problem: format!("cannot be read as YAML: {}", error.info()),
            suggestion: [here, before].into_iter().find_map(hint),
        }
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self::new(value, 0, 0)
    }
}

/// The name of a tag of YAML's core schema, `!` for the one that says "as it stands".
fn core_tag(tag: &Tag) -> Option<&str> {
    if tag.is_yaml_core_schema() {
        Some(&tag.suffix)
    } else if format!("{}{}", tag.handle, tag.suffix) == "!" {
        Some("!")
    } else {
        None
    }
}

/// What is most likely wrong with a line that cannot be read. Shows no value: it may be a secret.
fn hint(line: &str) -> Option<String> {
    let indent = &line[..line.len() - line.trim_start().len()];
    if indent.contains('\t') {
        return Some("a tab indents this line: use spaces".to_owned());
    }
    if let Some(c) = ['@', '`', '%'].into_iter().find(|c| line.contains(&format!(": {c}"))) {
        return Some(format!("put a value that begins with {c} in quotes"));
    }
    let item = line.trim_start().trim_start_matches("- ");
    if let Some((key, value)) = item.split_once(": ") {
        let plain = !value.trim_start().starts_with(['"', '\'', '[', '{', '|', '>', '&']);
        return (plain && value.contains(": "))
            .then(|| format!("put the value of {key} in quotes, since it has a colon"));
    }
    let (key, value) = item.split_once(':')?;
    (!key.is_empty() && !value.is_empty() && !item.contains(char::is_whitespace))
        .then(|| format!("write a space after {key}:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn check(text: &str, want: &[Json]) {
        let documents = read(text.as_bytes());
        let faults: Vec<_> = documents.iter().flat_map(|d| &d.faults).collect();
        assert!(faults.is_empty(), "{faults:?}");
        let got: Vec<_> = documents.iter().filter_map(|d| d.root.as_ref()).map(Node::to_json).collect();
        assert_eq!(got, want, "{text}");
    }

    /// The faults as `line:column path: problem (suggestion)`, and how many documents could be read.
    fn faults(text: impl AsRef<[u8]>) -> (Vec<String>, usize) {
        let documents = read(text.as_ref());
        let faults = documents.iter().flat_map(|d| &d.faults).map(|f| {
            let suggestion = f.suggestion.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
            format!("{}:{} {}: {}{suggestion}", f.line, f.column, f.path, f.problem)
        });
        (faults.collect(), documents.iter().filter(|d| d.root.is_some()).count())
    }

    #[test]
    fn several_documents_and_empty_ones() {
        check("", &[]);
        check("# only a comment\n---\n---\n# another\n...\n", &[]);
        check("%YAML 1.2\n---\na: 1\n...\n---\n\n---\nb: 2\n", &[json!({"a": 1}), json!({"b": 2})]);
        check("---\r\na: 1\r\n---\r\nb: 2\r\n", &[json!({"a": 1}), json!({"b": 2})]);
        check("\u{feff}a: 1\n", &[json!({"a": 1})]);
        check("--- {a: 1}\n--- # c\nb: |\n  ---\n  x\n", &[json!({"a": 1}), json!({"b": "---\nx\n"})]);
    }

    #[test]
    fn every_place_is_that_of_the_file() {
        let documents = read(b"# c\n---\na:\n- b: 1\n  c: [x, y]\n---\nd:\n  e: 1\n");
        let place = |document: usize, path: &str| documents[document].root.as_ref().unwrap().place(&Path::parse(path));
        assert_eq!(place(0, "a"), (3, 1));
        assert_eq!(place(0, "a[0]"), (4, 3));
        assert_eq!(place(0, "a[0].c"), (5, 3));
        assert_eq!(place(0, "a[0].c[1]"), (5, 10));
        assert_eq!(place(0, "a[0].missing.x"), (4, 3));
        assert_eq!(place(1, "d.e"), (8, 3));
    }

    #[test]
    fn anchors_and_merge_keys() {
        check("a: &x {b: 1, c: 2}\nd: *x\n", &[json!({"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 2}})]);
        check("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n", &[json!({"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}})]);
        check(
            "a: &x {b: 1}\nc: &y {b: 2, d: 3}\ne: {<<: [*x, *y]}\n",
            &[json!({"a": {"b": 1}, "c": {"b": 2, "d": 3}, "e": {"b": 1, "d": 3}})],
        );
        check("\"<<\": 1\n", &[json!({"<<": 1})]);
        let (found, _) = faults("a: {<<: 5}\n");
        assert_eq!(found, ["1:9 a: the merge key << takes a mapping or a list of mappings"]);
    }

    #[test]
    fn tags() {
        check("a: !!str 5\nb: !!int 7\nc: ! yes\n", &[json!({"a": "5", "b": 7, "c": "yes"})]);
        assert_eq!(faults("a: !!int x\n").0.len(), 1);
        assert_eq!(faults("a: !!binary aGk=\n").0.len(), 1);
        assert_eq!(faults("a: !mine x\n").0.len(), 1);
    }

    #[test]
    fn keys_are_texts() {
        check("1: a\nyes: b\n0x10: c\n", &[json!({"1": "a", "true": "b", "16": "c"})]);
        assert_eq!(faults("? [a]\n: b\n").0, ["1:3 : a key that is no plain text"]);
        assert_eq!(faults(": b\n").0, ["1:1 : a key is missing before the colon"]);
    }

    #[test]
    fn a_key_that_stands_twice_is_named_and_reading_goes_on() {
        let (found, read) = faults("a:\n  b: 1\n  b: 2\nc: 3\nc: 4\n");
        assert_eq!(
            found,
            ["3:3 a.b: the key stands twice, first on line 2", "5:1 c: the key stands twice, first on line 4"]
        );
        assert_eq!(read, 1);
    }

    #[test]
    fn a_broken_document_costs_no_other() {
        let (found, read) = faults("a: 1\n---\nb: [1\n---\nc: 2\n");
        assert_eq!(read, 2);
        assert_eq!(found.len(), 1, "{found:?}");
        let (found, read) = faults(b"a: 1\n---\nb: \xff\n---\nc: 2\n".as_slice());
        assert_eq!(found, ["3:4 : not UTF-8: found the byte 0xff (save the file as UTF-8 text)"]);
        assert_eq!(read, 2);
        let (found, read) = faults("a: 1\n---\nb: x\0y\n---\nc: 2\n");
        assert_eq!(found, ["3:5 : a control character, U+0000 (save the file as UTF-8 text)"]);
        assert_eq!(read, 2);
    }

    #[test]
    fn hints_for_what_cannot_be_read() {
        for (text, line, hint) in [
            ("a:\n\tb: 1\n", 2, "a tab indents this line: use spaces"),
            ("a: @every 1h\n", 1, "put a value that begins with @ in quotes"),
            ("a: b: c\n", 1, "put the value of a in quotes, since it has a colon"),
            ("a:\n  b: 1\n  c:d\ne: 1\n", 3, "write a space after c:"),
        ] {
            let (found, _) = faults(text);
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert!(found[0].ends_with(&format!("({hint})")), "{text:?}: {found:?}");
            let at: usize = found[0].split(':').next().unwrap().parse().unwrap();
            assert!(at.abs_diff(line) <= 1, "{text:?}: {found:?}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let list = vec![format!("*a{}", i - 1); 10].join(", ");
            laughs += &format!("a{i}: &a{i} [{list}]\n");
        }
        assert_eq!(faults(&laughs).0.len(), 1);
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 1000].join(", "));
        assert_eq!(faults(&long).0.len(), 1);
        assert_eq!(faults("a: &a [*a]\n").0, ["1:8 a[0]: an alias inside its own anchor"]);
        assert_eq!(faults("[".repeat(10_000)).0.len(), 1);
        assert_eq!(faults("- ".repeat(10_000)).0.len(), 1);
        assert_eq!(faults("{a: ".repeat(10_000)).0.len(), 1);
    }
}
