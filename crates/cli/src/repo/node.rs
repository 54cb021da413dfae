//! Entries of a snapshot as people and programs see them.

use holdfast_repository::format::node::{Node, NodeKind};
use holdfast_repository::format::time::Timestamp;
use holdfast_repository::source::display_path;
use indicatif::HumanBytes;
use serde::Serialize;

use super::snapshots::local_time;

/// An entry for programs, with restic's names.
#[derive(Debug, Serialize)]
pub(crate) struct NodeJson {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    path: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mode: u32,
    permissions: String,
    mtime: Timestamp,
    atime: Timestamp,
    ctime: Timestamp,
    inode: u64,
    links: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget: Option<String>,
}

impl NodeJson {
    pub(crate) fn new(path: &[u8], node: &Node) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            name: text(&node.name),
            kind: node.kind.name(),
            path: text(path),
            uid: node.uid,
            gid: node.gid,
            user: node.user.as_deref().map(Into::into),
            group: node.group.as_deref().map(Into::into),
            size: (node.kind == NodeKind::File).then_some(node.size),
            mode: node.mode,
            permissions: permissions(node.mode),
            mtime: node.mtime,
            atime: node.atime,
            ctime: node.ctime,
            inode: node.inode,
            links: node.links,
            linktarget: (node.kind == NodeKind::Symlink).then(|| text(&node.link_target)),
        }
    }
}

/// A line for a person: the path, and with `long` what `ls -l` shows.
pub(crate) fn line(path: &[u8], node: &Node, long: bool, human_readable: bool) -> String {
    let path = display_path(path);
    if !long {
        return path;
    }
    let size = if human_readable { HumanBytes(node.size).to_string() } else { node.size.to_string() };
    let target = match node.kind {
        NodeKind::Symlink => format!(" -> {}", display_path(&node.link_target)),
        _ => String::new(),
    };
    format!(
        "{} {:>5} {:>5} {size:>10} {} {path}{target}",
        permissions(node.mode),
        node.uid,
        node.gid,
        local_time(node.mtime)
    )
}

/// The format's mode as restic shows it: letters for its upper bits, then the permissions.
fn permissions(mode: u32) -> String {
    let mut text: String =
        "dalTLDpSugct?".chars().enumerate().filter(|(bit, _)| mode & (1 << (31 - bit)) != 0).map(|(_, c)| c).collect();
    if text.is_empty() {
        text.push('-');
    }
    text.extend("rwxrwxrwx".chars().enumerate().map(|(bit, c)| if mode & (1 << (8 - bit)) != 0 { c } else { '-' }));
    text
}

#[cfg(test)]
mod tests {
    use holdfast_repository::format::node::mode::from_unix;

    use super::*;

    #[test]
    fn permissions_read_as_restic_writes_them() {
        for (kind, unix, want) in [
            (NodeKind::File, 0o644, "-rw-r--r--"),
            (NodeKind::Dir, 0o1777, "dtrwxrwxrwx"),
            (NodeKind::Symlink, 0o777, "Lrwxrwxrwx"),
            (NodeKind::File, 0o4711, "urwx--x--x"),
            (NodeKind::CharDev, 0o600, "Dcrw-------"),
        ] {
            assert_eq!(permissions(from_unix(kind, unix)), want);
        }
    }
}
