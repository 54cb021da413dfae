//! A directory as a tree blob stores it: its entries, sorted by the bytes of their names.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::node::{NameCache, Node, NodeJson};

/// A tree blob that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The bytes are no JSON of a tree.
    #[error("tree is not valid JSON at byte {offset}")]
    Json {
        /// How many bytes were understood.
        offset: usize,
        /// What the parser says; its own position counts from `offset`.
        source: serde_json::Error,
    },
    /// The JSON ends early or has another shape.
    #[error("tree is malformed at byte {offset}: expected {expected}")]
    Shape {
        /// Where it is not as expected.
        offset: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// A name that is not quoted as the format asks.
    #[error("tree entry number {position} (from 0) has a malformed name")]
    Name {
        /// Which entry.
        position: usize,
        /// What is wrong.
        source: super::go_text::UnquoteError,
    },
    /// A name that could lead out of its directory.
    #[error("tree entry {name:?} has a name that no file can have")]
    UnsafeName {
        /// The name, escaped.
        name: String,
    },
    /// Nodes that do not come in the order of their names, or twice.
    #[error("tree entry {name:?} stands after {previous:?}: not sorted, or there twice")]
    Order {
        /// The entry's name, escaped.
        name: String,
        /// The name of the one before, escaped.
        previous: String,
    },
}

/// A whole directory in memory. For large ones see [`nodes`] and [`TreeBuilder`], which hold one entry at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// The entries.
    pub nodes: Vec<Node>,
}

impl Tree {
    /// Reads a tree blob. Unknown fields are passed over; the order of the names is not asked for, see
    /// [`Self::check_names`].
    pub fn parse(json: &[u8]) -> Result<Self, TreeError> {
        Ok(Self { nodes: nodes(json).collect::<Result<_, _>>()? })
    }

    /// The tree's JSON as restic writes it, the newline at its end included. Its hash is the tree's id.
    pub fn to_json(&self) -> Vec<u8> {
        let mut builder = TreeBuilder::default();
        for node in &self.nodes {
            builder.append(node);
        }
        builder.finish()
    }

    /// The entry of a name, in a tree that is sorted.
    pub fn find(&self, name: &[u8]) -> Option<&Node> {
        let position = self.nodes.binary_search_by(|node| node.name.as_slice().cmp(name)).ok()?;
        self.nodes.get(position)
    }

    /// Every name that is out of order, there twice, or that no file can have.
    pub fn check_names(&self) -> Vec<TreeError> {
        let order = self
            .nodes
            .windows(2)
            .filter(|pair| pair[0].name >= pair[1].name)
            .map(|pair| TreeError::Order { name: pair[1].display_name(), previous: pair[0].display_name() });
        self.nodes.iter().filter_map(|node| check_name(node).err()).chain(order).collect()
    }
}

/// Refuses names that could lead out of a directory when restored: empty, `.`, `..`, or with `/` or NUL.
pub fn check_name(node: &Node) -> Result<(), TreeError> {
    let name = node.name.as_slice();
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(TreeError::UnsafeName { name: node.display_name() });
    }
    Ok(())
}

/// Writes a tree, entry by entry, without holding the nodes.
#[derive(Debug)]
pub struct TreeBuilder {
    json: Vec<u8>,
    last_name: Vec<u8>,
    is_empty: bool,
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self { json: b"{\"nodes\":[".to_vec(), last_name: Vec::new(), is_empty: true }
    }
}

impl TreeBuilder {
    /// Adds an entry; names must come in ascending order of their bytes, each once.
    pub fn push(&mut self, node: &Node) -> Result<(), TreeError> {
        check_name(node)?;
        if !self.is_empty && node.name <= self.last_name {
            let previous = Node { name: self.last_name.clone(), ..Node::default() };
            return Err(TreeError::Order { name: node.display_name(), previous: previous.display_name() });
        }
        self.last_name.clear();
        self.last_name.extend_from_slice(&node.name);
        self.append(node);
        Ok(())
    }

    fn append(&mut self, node: &Node) {
        if !self.is_empty {
            self.json.push(b',');
        }
        self.is_empty = false;
        node.write(&mut self.json);
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> usize {
        self.json.len()
    }

    /// The tree's JSON, the newline at its end included. Its hash is the tree's id.
    pub fn finish(mut self) -> Vec<u8> {
        self.json.extend_from_slice(b"]}\n");
        self.json
    }
}

/// Reads the entries of a tree blob one by one. Ends after the first error.
pub fn nodes(json: &[u8]) -> Nodes<'_> {
    Nodes { text: Cursor { json, offset: 0 }, state: State::Start, position: 0, names: NameCache::default() }
}

/// The iterator of [`nodes`].
#[derive(Debug)]
pub struct Nodes<'a> {
    text: Cursor<'a>,
    state: State,
    position: usize,
    names: NameCache,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Start,
    InNodes,
    End,
}

impl Iterator for Nodes<'_> {
    type Item = Result<Node, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.state {
            State::Start => self.first(),
            State::InNodes => self.following(),
            State::End => Ok(None),
        };
        if !matches!(next, Ok(Some(_))) {
            self.state = State::End;
        }
        next.transpose()
    }
}

impl Nodes<'_> {
    /// Goes to the field `nodes` and reads its first entry.
    fn first(&mut self) -> Result<Option<Node>, TreeError> {
        self.text.expect(b'{', "'{'")?;
        if self.enter_nodes(true)? && self.text.peek() != Some(b']') {
            self.state = State::InNodes;
            return self.node().map(Some);
        }
        self.leave_nodes()
    }

    fn following(&mut self) -> Result<Option<Node>, TreeError> {
        match self.text.peek() {
            Some(b',') => {
                self.text.offset += 1;
                self.node().map(Some)
            }
            _ => self.leave_nodes(),
        }
    }

    fn node(&mut self) -> Result<Node, TreeError> {
        let json: NodeJson<'_> = self.text.value()?;
        let position = self.position;
        self.position += 1;
        json.into_node(&mut self.names).map_err(|source| TreeError::Name { position, source })
    }

    /// Passes over fields until `nodes`; whether there is one that is not null.
    fn enter_nodes(&mut self, mut is_first: bool) -> Result<bool, TreeError> {
        loop {
            match self.text.peek() {
                Some(b'}') => return Ok(false),
                Some(b',') if !is_first => self.text.offset += 1,
                _ if is_first => {}
                _ => return Err(self.text.unexpected("',' or '}'")),
            }
            is_first = false;
            let key: String = self.text.owned_value()?;
            self.text.expect(b':', "':'")?;
            if key == "nodes" && self.text.peek() == Some(b'[') {
                self.text.offset += 1;
                return Ok(true);
            }
            self.text.value::<IgnoredAny>()?;
        }
    }

    /// Reads what follows the last entry, to the end of the text.
    fn leave_nodes(&mut self) -> Result<Option<Node>, TreeError> {
        if self.text.peek() == Some(b']') {
            self.text.offset += 1;
            if self.enter_nodes(false)? {
                return Err(self.text.unexpected("one field \"nodes\""));
            }
        }
        self.text.expect(b'}', "',' or the end of the list")?;
        match self.text.peek() {
            None => Ok(None),
            Some(_) => Err(self.text.unexpected("the end")),
        }
    }
}

/// A position in JSON text.
#[derive(Debug)]
struct Cursor<'a> {
    json: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.json.get(self.offset) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(*byte);
            }
            self.offset += 1;
        }
        None
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), TreeError> {
        if self.peek() != Some(byte) {
            return Err(self.unexpected(expected));
        }
        self.offset += 1;
        Ok(())
    }

    fn unexpected(&self, expected: &'static str) -> TreeError {
        TreeError::Shape { offset: self.offset, expected }
    }

    /// Reads one value, of the length it has.
    fn value<T: Deserialize<'a>>(&mut self) -> Result<T, TreeError> {
        let rest = self.json.get(self.offset..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter();
        let value = match values.next() {
            Some(value) => value.map_err(|source| TreeError::Json { offset: self.offset, source })?,
            None => return Err(self.unexpected("a value")),
        };
        self.offset += values.byte_offset();
        Ok(value)
    }

    fn owned_value<T: DeserializeOwned>(&mut self) -> Result<T, TreeError> {
        self.value()
    }
}
