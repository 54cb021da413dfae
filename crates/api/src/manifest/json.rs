//! JSON text to trees: one value or several after another, as `kubectl` takes them.
//!
//! YAML's reader would do for most JSON, but not for tabs and surrogate pairs, and its messages speak
//! of YAML.

use std::collections::HashMap;

use serde_json::Number;

use super::path::Path;
use super::tree::{DEPTH_MAX, Document, Entry, Fault, NODES_MAX, Node, Value};

/// Every value of a JSON file. Nothing after the first syntax error is read.
pub(super) fn read(contents: &[u8]) -> Vec<Document> {
    let text = match std::str::from_utf8(contents) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let before = String::from_utf8_lossy(&contents[..error.valid_up_to()]).into_owned();
            let fault = Reader::new(&before, before.len()).fault("not UTF-8");
            return vec![Document { root: None, faults: vec![fault] }];
        }
    };
    let mut reader = Reader::new(text, 0);
    let mut documents = Vec::new();
    loop {
        reader.skip_blank();
        if reader.rest().is_empty() {
            return documents;
        }
        let root = reader.value(0);
        let mut faults = std::mem::take(&mut reader.faults);
        match root {
            Ok(root) => documents.push(Document { root: Some(root), faults }),
            Err(fault) => {
                faults.push(fault);
                documents.push(Document { root: None, faults });
                return documents;
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The place of `counted`, kept so that counting stays linear.
    line: usize,
    column: usize,
    counted: usize,
    nodes: usize,
    faults: Vec<Fault>,
    path: Path,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, at: usize) -> Self {
        Self { text, at, line: 1, column: 1, counted: 0, nodes: 0, faults: Vec::new(), path: Path::default() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn place(&mut self) -> (usize, usize) {
        for c in self.text[self.counted..self.at].chars() {
            (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.counted = self.at;
        (self.line, self.column)
    }

    fn fault(&mut self, problem: impl Into<String>) -> Fault {
        let (line, column) = self.place();
        let path = self.path.clone();
        Fault { line, column, path, problem: problem.into(), suggestion: None }
    }

    fn expected(&mut self, wanted: &str) -> Fault {
        let found = match self.rest().chars().next() {
            Some(c) => format!("{c:?}"),
            None => "the end of the file".to_owned(),
        };
        self.fault(format!("cannot be read as JSON: found {found}, expected {wanted}"))
    }

    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        self.nodes += 1;
        if depth > DEPTH_MAX {
            return Err(self.fault(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        if self.nodes > NODES_MAX {
            return Err(self.fault(format!("the file holds more than {NODES_MAX} values")));
        }
        let (line, column) = self.place();
        let mut written = None;
        let value = match self.rest().as_bytes().first() {
            Some(b'{') => Value::Map(self.mapping(depth)?),
            Some(b'[') => Value::List(self.items(depth)?),
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => {
                let (number, text) = self.number()?;
                written = Some(text);
                Value::Number(number)
            }
            _ if self.take("true") => Value::Bool(true),
            _ if self.take("false") => Value::Bool(false),
            _ if self.take("null") => Value::Null,
            _ => return Err(self.expected("a value")),
        };
        Ok(Node { value, line, column, written })
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_blank();
        if self.take("]") {
            return Ok(items);
        }
        loop {
            self.skip_blank();
            self.path.push_index(items.len());
            items.push(self.value(depth + 1)?);
            self.path.pop();
            self.skip_blank();
            if self.take("]") {
                return Ok(items);
            }
            if !self.take(",") {
                return Err(self.expected("a comma or ]"));
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        self.at += 1;
        let mut entries = Vec::new();
        let mut lines = HashMap::new();
        self.skip_blank();
        if self.take("}") {
            return Ok(entries);
        }
        loop {
            self.skip_blank();
            if !self.rest().starts_with('"') {
                return Err(self.expected("a key in double quotes"));
            }
            let (line, column) = self.place();
            let key = self.string()?;
            self.skip_blank();
            if !self.take(":") {
                return Err(self.expected("a colon"));
            }
            self.skip_blank();
            self.path.push_key(&key);
            let value = self.value(depth + 1)?;
            if let Some(first_line) = lines.get(&key) {
                let problem = format!("the key stands twice, first on line {first_line}");
                let path = self.path.clone();
                self.faults.push(Fault { line, column, path, problem, suggestion: None });
            } else {
                lines.insert(key.clone(), line);
                entries.push(Entry { key, line, column, value });
            }
            self.path.pop();
            self.skip_blank();
            if self.take("}") {
                return Ok(entries);
            }
            if !self.take(",") {
                return Err(self.expected("a comma or }"));
            }
        }
    }

    /// A string, decoded by `serde_json`, which knows the escapes.
    fn string(&mut self) -> Result<String, Fault> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find_map(|(i, c)| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes.then_some(i + 1)
        });
        let Some(end) = end else {
            return Err(self.fault("cannot be read as JSON: a text without its closing quote"));
        };
        match serde_json::from_str(&rest[..end]) {
            Ok(text) => {
                self.at += end;
                Ok(text)
            }
            Err(_) => Err(self.fault("cannot be read as JSON: a text with a wrong escape or a line break")),
        }
    }

    fn number(&mut self) -> Result<(Number, String), Fault> {
        let rest = self.rest();
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        match rest[..end].parse::<Number>() {
            Ok(number) => {
                self.at += end;
                Ok((number, rest[..end].to_owned()))
            }
            Err(_) => Err(self.expected("a number")),
        }
    }
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

    fn faults(text: impl AsRef<[u8]>) -> Vec<String> {
        let documents = read(text.as_ref());
        let faults = documents.iter().flat_map(|d| &d.faults);
        faults.map(|f| format!("{}:{} {}: {}", f.line, f.column, f.path, f.problem)).collect()
    }

    #[test]
    fn values() {
        check("", &[]);
        check(
            "{\"a\":\t[1, -2.5, 1e3, true, false, null, \"\\ud83d\\ude00\\/\\\"\"]}\n{}",
            &[json!({"a": [1, -2.5, 1000.0, true, false, null, "😀/\""]}), json!({})],
        );
    }

    #[test]
    fn places() {
        let documents = read(b"{\n\t\"a\": [\n\t\t{\"b\": 1}\n\t]\n}");
        let root = documents[0].root.as_ref().unwrap();
        assert_eq!(root.place(&Path::parse("a[0].b")), (3, 4));
    }

    #[test]
    fn mistakes() {
        assert_eq!(faults("{\"a\": 1,\n \"a\": 2}"), ["2:2 a: the key stands twice, first on line 1"]);
        assert_eq!(faults("{\"a\": 1,}"), ["1:9 : cannot be read as JSON: found '}', expected a key in double quotes"]);
        assert_eq!(faults("[1 2]"), ["1:4 : cannot be read as JSON: found '2', expected a comma or ]"]);
        assert_eq!(faults("{\"a\": "), ["1:7 a: cannot be read as JSON: found the end of the file, expected a value"]);
        assert_eq!(faults("[\"a"), ["1:2 [0]: cannot be read as JSON: a text without its closing quote"]);
        assert_eq!(faults("[01]").len(), 1);
        assert_eq!(faults(b"{\"a\":\n \xff}".as_slice()), ["2:2 : not UTF-8"]);
        assert_eq!(faults("[".repeat(10_000)).len(), 1);
    }
}
