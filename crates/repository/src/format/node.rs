//! One entry of a directory, as a tree stores it.
//!
//! Source: restic's design document, section "Trees and Data", and what restic 0.19 writes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::go_text::{self, UnquoteError, write_json_string, write_number, write_quoted_name};
use super::time::Timestamp;
use crate::Id;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NodeKind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Dev,
    /// A character device.
    CharDev,
    /// A named pipe.
    Fifo,
    /// A socket. restic does not store sockets; old repositories may hold them.
    Socket,
    /// A file that the system of the backup could not name (Windows).
    Irregular,
    /// A kind that this program does not know.
    Unknown,
}

impl NodeKind {
    const NAMES: [(Self, &str); 9] = [
        (Self::File, "file"),
        (Self::Dir, "dir"),
        (Self::Symlink, "symlink"),
        (Self::Dev, "dev"),
        (Self::CharDev, "chardev"),
        (Self::Fifo, "fifo"),
        (Self::Socket, "socket"),
        (Self::Irregular, "irregular"),
        (Self::Unknown, ""),
    ];

    /// The name in the format, as `file` or `chardev`.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    fn from_name(name: &str) -> Self {
        Self::NAMES.iter().find(|(_, known)| *known == name).map_or(Self::Unknown, |(kind, _)| *kind)
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// File modes as the format holds them: Go's `os.FileMode`, whose bits above the nine permission bits are not
/// those of Unix.
pub mod mode {
    use super::NodeKind;

    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    const IRREGULAR: u32 = 1 << 19;

    const SPECIAL: [(u32, u32); 3] = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];

    /// The format's mode for a kind and the lower twelve bits of a Unix `st_mode`.
    pub fn from_unix(kind: NodeKind, permissions: u32) -> u32 {
        let kind = match kind {
            NodeKind::File | NodeKind::Unknown => 0,
            NodeKind::Dir => DIR,
            NodeKind::Symlink => SYMLINK,
            NodeKind::Dev => DEVICE,
            NodeKind::CharDev => DEVICE | CHAR_DEVICE,
            NodeKind::Fifo => NAMED_PIPE,
            NodeKind::Socket => SOCKET,
            NodeKind::Irregular => IRREGULAR,
        };
        let special = SPECIAL.iter().filter(|(unix, _)| permissions & unix != 0).map(|(_, bit)| bit);
        special.fold(kind | permissions & 0o777, |mode, bit| mode | bit)
    }

    /// The lower twelve bits of a Unix `st_mode`: permissions, setuid, setgid, sticky.
    pub fn to_unix(mode: u32) -> u32 {
        let special = SPECIAL.iter().filter(|(_, bit)| mode & bit != 0).map(|(unix, _)| unix);
        special.fold(mode & 0o777, |permissions, bit| permissions | bit)
    }
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedAttribute {
    /// Its name with the namespace, as `user.comment`.
    pub name: Vec<u8>,
    /// Its value; `None` is JSON's `null`, which an empty value read by an older restic became.
    pub value: Option<Vec<u8>>,
}

/// One entry of a directory.
///
/// Empty texts and zero numbers are those that the format leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// The file name: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What the entry is.
    pub kind: NodeKind,
    /// Kind, permissions, setuid, setgid and sticky bits, in the bits of [`mode`].
    pub mode: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last access; the same as `mtime` unless access times were asked for.
    pub atime: Timestamp,
    /// Last change of the metadata.
    pub ctime: Timestamp,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Owner's name, if there was one.
    pub user: Option<Arc<str>>,
    /// Group's name, if there was one.
    pub group: Option<Arc<str>>,
    /// Inode number.
    pub inode: u64,
    /// Number of the file system's device (`st_dev`).
    pub device_id: u64,
    /// Bytes of content; files only.
    pub size: u64,
    /// Number of hard links; not for directories, FIFOs and sockets.
    pub links: u64,
    /// What a symbolic link points to: any bytes.
    pub link_target: Vec<u8>,
    /// Extended attributes, POSIX ACLs among them, in the order the system lists them.
    pub extended_attributes: Vec<ExtendedAttribute>,
    /// Attributes of other systems (Windows): the JSON object as it stands in the tree.
    pub generic_attributes: Option<Box<str>>,
    /// Number of the device that the entry is (`st_rdev`); devices only.
    pub device: u64,
    /// Blobs of the content in their order; `Some` for files, empty for an empty one.
    pub content: Option<Vec<Id>>,
    /// The directory's own tree.
    pub subtree: Option<Id>,
    /// What went wrong when the entry was read, as old versions of restic stored it.
    pub error: String,
}

impl Node {
    /// Appends the node's JSON, byte for byte as restic writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        // In full, so that a new field cannot be forgotten here.
        let Self {
            name,
            kind,
            mode,
            mtime,
            atime,
            ctime,
            uid,
            gid,
            user,
            group,
            inode,
            device_id,
            size,
            links,
            link_target,
            extended_attributes,
            generic_attributes,
            device,
            content,
            subtree,
            error,
        } = self;
        out.extend_from_slice(b"{\"name\":");
        write_quoted_name(out, name);
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(kind.name().as_bytes());
        out.push(b'"');
        write_unless_zero(out, b",\"mode\":", (*mode).into());
        for (key, time) in [(&b",\"mtime\":\""[..], mtime), (b",\"atime\":\"", atime), (b",\"ctime\":\"", ctime)] {
            out.extend_from_slice(key);
            time.write(out);
            out.push(b'"');
        }
        out.extend_from_slice(b",\"uid\":");
        write_number(out, (*uid).into());
        out.extend_from_slice(b",\"gid\":");
        write_number(out, (*gid).into());
        write_unless_empty(out, b",\"user\":", user.as_deref().unwrap_or_default().as_bytes());
        write_unless_empty(out, b",\"group\":", group.as_deref().unwrap_or_default().as_bytes());
        write_unless_zero(out, b",\"inode\":", *inode);
        write_unless_zero(out, b",\"device_id\":", *device_id);
        write_unless_zero(out, b",\"size\":", *size);
        write_unless_zero(out, b",\"links\":", *links);
        write_unless_empty(out, b",\"linktarget\":", link_target);
        if std::str::from_utf8(link_target).is_err() {
            out.extend_from_slice(b",\"linktarget_raw\":");
            write_base64(out, link_target);
        }
        write_extended_attributes(out, extended_attributes);
        if let Some(attributes) = generic_attributes {
            out.extend_from_slice(b",\"generic_attributes\":");
            out.extend_from_slice(attributes.as_bytes());
        }
        write_unless_zero(out, b",\"device\":", *device);
        write_content(out, content.as_deref());
        if let Some(subtree) = subtree {
            out.extend_from_slice(b",\"subtree\":\"");
            out.extend_from_slice(&subtree.hex());
            out.push(b'"');
        }
        write_unless_empty(out, b",\"error\":", error.as_bytes());
        out.push(b'}');
    }

    /// The name for messages; bytes that are not UTF-8 are escaped as Go's `%q` does.
    pub fn display_name(&self) -> String {
        match std::str::from_utf8(&self.name) {
            Ok(name) if !name.chars().any(char::is_control) => name.to_owned(),
            _ => String::from_utf8_lossy(&go_text::quote(&self.name)).into_owned(),
        }
    }
}

fn write_unless_zero(out: &mut Vec<u8>, key: &[u8], value: u64) {
    if value != 0 {
        out.extend_from_slice(key);
        write_number(out, value);
    }
}

fn write_unless_empty(out: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    if !text.is_empty() {
        out.extend_from_slice(key);
        write_json_string(out, text);
    }
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
    out.push(b'"');
}

fn write_extended_attributes(out: &mut Vec<u8>, attributes: &[ExtendedAttribute]) {
    if attributes.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"extended_attributes\":");
    let mut separator = b'[';
    for ExtendedAttribute { name, value } in attributes {
        out.push(separator);
        separator = b',';
        out.extend_from_slice(b"{\"name\":");
        write_json_string(out, name);
        out.extend_from_slice(b",\"value\":");
        match value {
            Some(value) => write_base64(out, value),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
    }
    out.push(b']');
}

fn write_content(out: &mut Vec<u8>, content: Option<&[Id]>) {
    out.extend_from_slice(b",\"content\":");
    let Some(ids) = content else {
        out.extend_from_slice(b"null");
        return;
    };
    out.reserve(ids.len() * 67 + 2);
    out.push(b'[');
    for (position, id) in ids.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(&id.hex());
        out.push(b'"');
    }
    out.push(b']');
}

/// Gives nodes read one after the other the same owner names in memory.
#[derive(Debug, Default)]
pub(super) struct NameCache {
    user: Option<Arc<str>>,
    group: Option<Arc<str>>,
}

fn intern(last: &mut Option<Arc<str>>, name: &str) -> Option<Arc<str>> {
    if name.is_empty() {
        return None;
    }
    if last.as_deref() != Some(name) {
        *last = Some(name.into());
    }
    last.clone()
}

/// A node as the JSON has it. Unknown fields are passed over.
#[derive(Deserialize)]
pub(super) struct NodeJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(default)]
    mode: u32,
    #[serde(default)]
    mtime: Timestamp,
    #[serde(default)]
    atime: Timestamp,
    #[serde(default)]
    ctime: Timestamp,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(borrow, default)]
    user: Cow<'a, str>,
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(default)]
    inode: u64,
    #[serde(default)]
    device_id: u64,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    links: u64,
    #[serde(borrow, default)]
    linktarget: Cow<'a, str>,
    #[serde(default)]
    linktarget_raw: Option<Base64>,
    #[serde(borrow, default)]
    extended_attributes: Vec<ExtendedAttributeJson<'a>>,
    #[serde(borrow, default)]
    generic_attributes: Option<&'a RawValue>,
    #[serde(default)]
    device: u64,
    #[serde(default)]
    content: Option<Vec<Id>>,
    #[serde(default)]
    subtree: Option<Id>,
    #[serde(borrow, default)]
    error: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ExtendedAttributeJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    value: Option<Base64>,
}

struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

impl NodeJson<'_> {
    pub(super) fn into_node(self, names: &mut NameCache) -> Result<Node, UnquoteError> {
        Ok(Node {
            name: go_text::unquote(&self.name)?,
            kind: NodeKind::from_name(&self.kind),
            mode: self.mode,
            mtime: self.mtime,
            atime: self.atime,
            ctime: self.ctime,
            uid: self.uid,
            gid: self.gid,
            user: intern(&mut names.user, &self.user),
            group: intern(&mut names.group, &self.group),
            inode: self.inode,
            device_id: self.device_id,
            size: self.size,
            links: self.links,
            link_target: match self.linktarget_raw {
                Some(Base64(raw)) => raw,
                None => self.linktarget.into_owned().into_bytes(),
            },
            extended_attributes: self
                .extended_attributes
                .into_iter()
                .map(|attribute| ExtendedAttribute {
                    name: attribute.name.into_owned().into_bytes(),
                    value: attribute.value.map(|Base64(value)| value),
                })
                .collect(),
            generic_attributes: self.generic_attributes.map(|raw| raw.get().into()),
            device: self.device,
            content: self.content,
            subtree: self.subtree,
            error: self.error.into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (kind, unix, ours) in [
            (NodeKind::File, 0o644, 420),
            (NodeKind::Dir, 0o1777, 2_148_532_735),
            (NodeKind::Dev, 0o644, 67_109_284),
            (NodeKind::CharDev, 0o644, 69_206_436),
            (NodeKind::Fifo, 0o644, 33_554_852),
            (NodeKind::Symlink, 0o777, 134_218_239),
            (NodeKind::File, 0o4775, 8_389_117),
            (NodeKind::File, 0o2000, 1 << 22),
            (NodeKind::Socket, 0, 1 << 24),
        ] {
            assert_eq!(mode::from_unix(kind, unix), ours, "{kind} {unix:o}");
            assert_eq!(mode::to_unix(ours), unix);
        }
    }

    #[test]
    fn kinds() {
        for (kind, name) in NodeKind::NAMES {
            assert_eq!((NodeKind::from_name(name), kind.name()), (kind, name));
        }
        assert_eq!(NodeKind::from_name("whiteout"), NodeKind::Unknown);
    }
}
