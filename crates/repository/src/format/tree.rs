//! A directory as a tree blob stores it: its entries, sorted by the bytes of their names.

use serde::Deserialize;
use serde::de::IgnoredAny;

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
            let key: String = self.text.value()?;
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Id;
    use crate::format::node::{ExtendedAttribute, NodeKind};
    use crate::format::time::Timestamp;

    /// Trees of restic 0.19.1.
    const FILE: &str = concat!(
        r#"{"name":"h1\\n","type":"file","mode":8389117,"mtime":"2300-01-01T00:00:00Z","atime":"2300-01-01T00:00:00Z","#,
        r#""ctime":"2026-11-21T08:03:35.625300019Z","uid":0,"gid":7,"user":"root","inode":10535859,"device_id":65024,"#,
        r#""size":2,"links":2,"extended_attributes":[{"name":"user.z","value":"eno="},{"name":"user.a","value":""}],"#,
        r#""content":["6d7ebc44c5bc26207e62f4f628f912e1a0f41ed11764891aa7dd99eab83228e7"]}"#
    );
    const LINK: &str = concat!(
        r#"{"name":"ln","type":"symlink","mode":134218239,"mtime":"2026-11-21T08:03:08.8Z","#,
        r#""atime":"2026-11-21T08:03:08.8+01:00","ctime":"2026-11-21T08:03:08.8Z","uid":1,"gid":0,"user":"a","#,
        r#""group":"b","inode":1,"links":1,"linktarget":"tgt\ufffd","linktarget_raw":"dGd0/w==","content":null}"#
    );
    const DIR: &str = concat!(
        r#"{"name":"sub","type":"dir","mode":2148532735,"mtime":"1960-01-02T03:04:05.123456789Z","#,
        r#""atime":"1960-01-02T03:04:05.123456789Z","ctime":"2026-11-21T08:03:35Z","uid":0,"gid":0,"user":"root","#,
        r#""generic_attributes":{"windows.creation_time":"x" , "z":1},"content":null,"#,
        r#""subtree":"ac08ce34ba4f8123618661bef2425f7028ffb9ac740578a3ee88684d2523fee8","error":"e"}"#
    );

    fn tree_of(nodes: &[&str]) -> String {
        format!("{{\"nodes\":[{}]}}\n", nodes.join(","))
    }

    #[test]
    fn what_restic_wrote_comes_back_byte_for_byte() {
        for nodes in [&[][..], &[FILE], &[DIR], &[FILE, LINK, DIR]] {
            let json = tree_of(nodes);
            let tree = Tree::parse(json.as_bytes()).unwrap();
            assert_eq!(tree.nodes.len(), nodes.len());
            assert_eq!(String::from_utf8(tree.to_json()).unwrap(), json);
            assert!(tree.check_names().is_empty());
        }
        let tree = Tree::parse(tree_of(&[FILE, LINK, DIR]).as_bytes()).unwrap();
        assert_eq!(tree.find(b"h1\n").unwrap().size, 2);
        assert_eq!(tree.find(b"ln").unwrap().link_target, b"tgt\xff");
        assert_eq!(tree.find(b"sub").unwrap().kind, NodeKind::Dir);
        assert_eq!(tree.find(b"x"), None);
    }

    #[test]
    fn unknown_fields_and_white_space_are_passed_over() {
        let nodes = tree_of(&[&FILE.replacen('{', r#"{"new":{"a":[1,{}]},"#, 1), LINK]);
        let list = nodes.trim_end().strip_prefix("{").unwrap().strip_suffix("}").unwrap();
        let json = format!(" {{ \"a\" : 1.5e3 , \"b\":\"]}}\",\n{list} , \"c\":[null] }} \t");
        assert_eq!(Tree::parse(json.as_bytes()).unwrap(), Tree::parse(tree_of(&[FILE, LINK]).as_bytes()).unwrap());
        for empty in ["{}", r#"{"nodes":null}"#, r#"{"nodes":[]}"#, r#"{"x":1}"#] {
            assert_eq!(Tree::parse(empty.as_bytes()).unwrap(), Tree::default(), "{empty}");
        }
    }

    #[test]
    fn no_beginning_of_a_tree_is_a_tree() {
        let json = tree_of(&[FILE, LINK, DIR]);
        for length in 0..json.trim_end().len() {
            assert!(Tree::parse(&json.as_bytes()[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn no_damaged_byte_makes_a_panic() {
        let json = tree_of(&[FILE, LINK, DIR]).into_bytes();
        for position in 0..json.len() {
            for damage in [0, b'"', b'\\', b'{', b'}', b']', b',', 0xff] {
                let mut json = json.clone();
                json[position] = damage;
                if let Ok(tree) = Tree::parse(&json) {
                    tree.check_names();
                    tree.to_json();
                }
            }
        }
    }

    #[test]
    fn malformed_trees_are_refused() {
        let tree = tree_of(&[FILE]);
        for json in [
            tree.replace("\"uid\":0", "\"uid\":-1"),
            tree.replace("6d7ebc", "6d7eb"),
            tree.replace("eno=", "en"),
            tree.replace("2300-01-01", "2300-01-41"),
            tree.replace(r"h1\\n", r"h1\\q"),
            tree.replace("]}\n", "]}x"),
            tree.replace("]}\n", "],\"nodes\":[]}"),
            tree.replace("]}\n", ",]}"),
            tree_of(&[FILE, ""]),
            "[]".into(),
            "null".into(),
        ] {
            assert!(Tree::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    fn named(name: &[u8]) -> Node {
        Node { name: name.into(), ..Node::default() }
    }

    #[test]
    fn names_that_are_unsafe_or_out_of_order() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert!(check_name(&named(name)).is_err());
            assert!(TreeBuilder::default().push(&named(name)).is_err());
        }
        let mut builder = TreeBuilder::default();
        builder.push(&named(b"b")).unwrap();
        assert!(matches!(builder.push(&named(b"b")), Err(TreeError::Order { .. })));
        assert!(matches!(builder.push(&named(b"a")), Err(TreeError::Order { .. })));
        builder.push(&named(b"b\xff")).unwrap();
        assert_eq!(Tree::parse(&builder.finish()).unwrap().nodes.len(), 2);

        let tree = Tree { nodes: [&b"b"[..], b"a", b"a", b"..", b"c"].map(named).to_vec() };
        let read = Tree::parse(&tree.to_json()).unwrap();
        assert_eq!(read.check_names().len(), 4, "{:?}", read.check_names());
    }

    proptest::proptest! {
        #[test]
        fn every_node_comes_back(
            name in proptest::collection::vec(1u8.., 1..40),
            target in proptest::collection::vec(0u8.., 0..40),
            value in proptest::collection::vec(0u8.., 0..40),
            numbers in proptest::array::uniform6(0u64..),
            seconds in -62_135_596_800i64..253_402_300_800,
            nanoseconds in 0u32..1_000_000_000,
            user in ".{0,8}",
            content in proptest::option::of(proptest::collection::vec(proptest::array::uniform32(0u8..), 0..3)),
        ) {
            let time = Timestamp::from_unix(seconds, nanoseconds);
            let node = Node {
                name,
                kind: NodeKind::CharDev,
                mode: numbers[0] as u32,
                mtime: time,
                ctime: time,
                uid: numbers[1] as u32,
                user: Some(user.as_str().into()).filter(|_| !user.is_empty()),
                inode: numbers[2],
                size: numbers[3],
                links: numbers[4],
                device: numbers[5],
                link_target: target,
                extended_attributes: vec![ExtendedAttribute { name: b"user.\xc3\xa9".to_vec(), value: Some(value) }],
                content: content.map(|ids| ids.into_iter().map(Id).collect()),
                subtree: Some(Id::of(b"")),
                ..Node::default()
            };
            let tree = Tree { nodes: vec![node] };
            proptest::prop_assert_eq!(Tree::parse(&tree.to_json()).unwrap(), tree);
        }
    }
}
