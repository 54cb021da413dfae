//! A document as a tree whose every value and key knows its line and column. YAML and JSON both end
//! here; everything after works on this tree and reads no text.

use serde_json::{Map, Number, Value as Json};

use super::path::{Path, Step};

/// The deepest nesting a document may have. Kubernetes objects stay under 30.
pub(super) const DEPTH_MAX: usize = 100;

/// The most values one file may hold, those that aliases repeat included.
pub(super) const NODES_MAX: usize = 500_000;

/// The most bytes of text that the aliases of one file may repeat.
pub(super) const ALIAS_BYTES_MAX: usize = 8 << 20;

/// A value with the place where it begins. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) line: usize,
    pub(super) column: usize,
    /// A plain scalar as it was written, where it was read as something else than text (`0644`,
    /// `yes`): what to quote when text was wanted.
    pub(super) written: Option<String>,
}

/// The value of a [`Node`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping with its place and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) value: Node,
}

/// A mistake found while reading text, before it is known whose object it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) path: Path,
    pub(super) problem: String,
    pub(super) suggestion: Option<String>,
}

/// One document: its tree where it could be read, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Document {
    pub(super) root: Option<Node>,
    pub(super) faults: Vec<Fault>,
}

impl Node {
    pub(super) fn new(value: Value, line: usize, column: usize) -> Self {
        Self { value, line, column, written: None }
    }

    /// A text in the place of this node.
    pub(super) fn text_here(&self, text: impl Into<String>) -> Self {
        Self::new(Value::Text(text.into()), self.line, self.column)
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(super) fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entry_mut(key).map(|entry| &mut entry.value)
    }

    /// The value after these keys, if each is there.
    pub(super) fn at(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The value after these keys, if each is there.
    pub(super) fn at_mut(&mut self, keys: &[&str]) -> Option<&mut Node> {
        keys.iter().try_fold(self, |node, key| node.get_mut(key))
    }

    /// The line and column of the field at `path`: of its key in a mapping, of its value in a list.
    /// Where the path leads nowhere, those of the last field on the way.
    pub(super) fn place(&self, path: &Path) -> (usize, usize) {
        let mut node = self;
        let mut place = (self.line, self.column);
        for step in &path.0 {
            match (step, &node.value) {
                (Step::Key(key), Value::Map(entries)) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else { break };
                    place = (entry.line, entry.column);
                    node = &entry.value;
                }
                (Step::Index(index), Value::List(items)) => {
                    let Some(item) = items.get(*index) else { break };
                    place = (item.line, item.column);
                    node = item;
                }
                _ => break,
            }
        }
        place
    }

    /// The same tree without places.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(value) => Json::Number(value.clone()),
            Value::Text(value) => Json::String(value.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// How many values this tree holds and how many bytes of text.
    pub(super) fn weight(&self) -> (usize, usize) {
        let add = |(a, b): (usize, usize), (c, d): (usize, usize)| (a + c, b + d);
        match &self.value {
            Value::Null | Value::Bool(_) | Value::Number(_) => (1, 0),
            Value::Text(text) => (1, text.len()),
            Value::List(items) => items.iter().map(Node::weight).fold((1, 0), add),
            Value::Map(entries) => {
                entries.iter().map(|entry| add(entry.value.weight(), (0, entry.key.len()))).fold((1, 0), add)
            }
        }
    }

    /// What this value is, in a reader's words: `a list`, `the number 5`, `the text "x"`.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => match &self.written {
                Some(written) if written != if *value { "true" } else { "false" } => {
                    format!("{written} (read as {value})")
                }
                _ => value.to_string(),
            },
            Value::Number(value) => match &self.written {
                Some(written) if *written != value.to_string() => {
                    format!("{} (read as {value})", shorten(written))
                }
                _ => value.to_string(),
            },
            Value::Text(text) => format!("{:?}", shorten(text)),
            Value::List(items) if items.is_empty() => "an empty list".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// A scalar as the text a person wrote, for quoting it.
    pub(super) fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(self.written.clone().unwrap_or_else(|| value.to_string())),
            Value::Number(value) => Some(self.written.clone().unwrap_or_else(|| value.to_string())),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }
}

/// At most 60 characters of a text, for a message.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
