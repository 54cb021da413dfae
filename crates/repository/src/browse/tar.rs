//! Writes tar archives in the POSIX (PAX) form: long names, times to the nanosecond, extended attributes.
//!
//! Source: POSIX.1-2017, "pax", sections "ustar Interchange Format" and "pax Extended Header"; `SCHILY.xattr` as GNU
//! tar and star write it.

use std::io::{self, Write};

use crate::format::node::{Node, NodeKind, mode};

const BLOCK: usize = 512;
/// The most that the eleven octal digits of a size or a time, and the seven of an id, can say.
const SIZE_MAX: u64 = 0o77_777_777_777;
const ID_MAX: u32 = 0o7_777_777;

/// Writes an archive, entry by entry.
pub(super) struct TarWriter<'a> {
    out: &'a mut dyn Write,
    /// Bytes of the current entry's content.
    written: u64,
}

impl<'a> TarWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, written: 0 }
    }

    /// Begins an entry; `size_bytes` bytes of content are to follow for a file, then [`Self::pad`].
    pub(super) fn entry(&mut self, path: &[u8], node: &Node, size_bytes: u64) -> io::Result<()> {
        let mut name = path.strip_prefix(b"/").unwrap_or(path).to_vec();
        if node.kind == NodeKind::Dir {
            name.push(b'/');
        }
        let records = records(&name, node, size_bytes);
        let mut header = Header::new(type_flag(node.kind), &name);
        header.number(100, 8, mode::to_unix(node.mode).into());
        header.number(108, 8, node.uid.min(ID_MAX).into());
        header.number(116, 8, node.gid.min(ID_MAX).into());
        header.number(124, 12, size_bytes.min(SIZE_MAX));
        header.number(136, 12, u64::try_from(node.mtime.seconds()).unwrap_or_default().min(SIZE_MAX));
        header.text(157, 100, &node.link_target);
        header.text(265, 32, node.user.as_deref().unwrap_or_default().as_bytes());
        header.text(297, 32, node.group.as_deref().unwrap_or_default().as_bytes());
        if matches!(node.kind, NodeKind::Dev | NodeKind::CharDev) {
            header.number(329, 8, rustix::fs::major(node.device).min(ID_MAX).into());
            header.number(337, 8, rustix::fs::minor(node.device).min(ID_MAX).into());
        }
        if !records.is_empty() {
            let mut extended = Header::new(b'x', b"PaxHeaders/entry");
            extended.number(100, 8, 0o644);
            extended.number(124, 12, records.len() as u64);
            self.out.write_all(&extended.finish())?;
            self.written = 0;
            self.write_all(&records)?;
            self.pad()?;
        }
        self.written = 0;
        self.out.write_all(&header.finish())
    }

    /// Ends an entry's content.
    pub(super) fn pad(&mut self) -> io::Result<()> {
        let padding = self.written.next_multiple_of(BLOCK as u64) - self.written;
        self.out.write_all(&[0; BLOCK][..padding as usize])
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }
}

impl Write for TarWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn type_flag(kind: NodeKind) -> u8 {
    match kind {
        NodeKind::Symlink => b'2',
        NodeKind::CharDev => b'3',
        NodeKind::Dev => b'4',
        NodeKind::Dir => b'5',
        NodeKind::Fifo => b'6',
        _ => b'0',
    }
}

/// What does not fit the plain header.
fn records(name: &[u8], node: &Node, size_bytes: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| record(&mut records, key, value);
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    if !is_text(name) || !is_text(&node.link_target) {
        add(b"hdrcharset", b"BINARY");
    }
    if name.len() > 100 || !name.is_ascii() {
        add(b"path", name);
    }
    if node.link_target.len() > 100 || !node.link_target.is_ascii() {
        add(b"linkpath", &node.link_target);
    }
    for (key, id) in [(&b"uid"[..], node.uid), (b"gid", node.gid)] {
        if id > ID_MAX {
            add(key, id.to_string().as_bytes());
        }
    }
    for (key, name) in [(&b"uname"[..], &node.user), (b"gname", &node.group)] {
        if let Some(name) = name.as_deref().filter(|name| name.len() > 31 || !name.is_ascii()) {
            add(key, name.as_bytes());
        }
    }
    if size_bytes > SIZE_MAX {
        add(b"size", size_bytes.to_string().as_bytes());
    }
    let (seconds, nanoseconds) = (node.mtime.seconds(), node.mtime.nanoseconds());
    if nanoseconds > 0 || seconds < 0 || seconds as u64 > SIZE_MAX {
        add(b"mtime", decimal_time(seconds, nanoseconds).as_bytes());
    }
    for attribute in &node.extended_attributes {
        let key = [b"SCHILY.xattr.", attribute.name.as_slice()].concat();
        add(&key, attribute.value.as_deref().unwrap_or_default());
    }
    records
}

/// Seconds with a fraction; before 1970 the fraction counts away from zero, as the whole does.
fn decimal_time(seconds: i64, nanoseconds: u32) -> String {
    match (seconds < 0, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanoseconds:09}"),
        (true, _) => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    }
}

/// `length key=value\n`, where the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(type_flag: u8, name: &[u8]) -> Self {
        let mut header = Self([0; BLOCK]);
        header.text(0, 100, name);
        header.number(108, 8, 0);
        header.number(116, 8, 0);
        header.number(136, 12, 0);
        header.0[156] = type_flag;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header.number(329, 8, 0);
        header.number(337, 8, 0);
        header
    }

    fn text(&mut self, at: usize, room: usize, text: &[u8]) {
        let length = text.len().min(room);
        self.0[at..at + length].copy_from_slice(&text[..length]);
    }

    /// Octal digits and a NUL.
    fn number(&mut self, at: usize, room: usize, value: u64) {
        let digits = format!("{value:0width$o}", width = room - 1);
        self.text(at, room - 1, digits.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        // The checksum is taken with blanks in its own place.
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        let digits = format!("{sum:06o}\0 ");
        self.text(148, 8, digits.as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for (value, want) in [("1", "6 a=1\n"), ("1234", "9 a=1234\n"), ("12345", "11 a=12345\n")] {
            let mut out = Vec::new();
            record(&mut out, b"a", value.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(decimal_time(5, 7), "5.000000007");
        assert_eq!(decimal_time(-5, 0), "-5");
        assert_eq!(decimal_time(-5, 250_000_000), "-4.750000000");
        assert_eq!(decimal_time(-1, 999_999_999), "-0.000000001");
    }
}
