//! What a backup of files leaves out.

use std::io::{self, Read};

use holdfast_repository::pattern::PatternList;
use rustix::fd::BorrowedFd;
use rustix::fs::{FileType, Mode, OFlags, openat};

/// What a backup of files leaves out. The default leaves out nothing.
///
/// Nothing here applies to the roots of a tree themselves, only to what is below them: who names a directory wants
/// it.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    /// Paths in the snapshot that match. Several lists, as each has its own case rule and its own negations; one
    /// match in one of them excludes.
    pub patterns: Vec<PatternList>,
    /// Files that mark the directory they are in: all else in it is left out.
    pub tag_files: Vec<TagFile>,
    /// Files of more bytes than this.
    pub larger_than_bytes: Option<u64>,
    /// What lies on another file system than its root. Mount points themselves are kept, as empty directories.
    pub other_file_systems: bool,
}

/// A file that marks the directory it is in as one to leave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFile {
    /// Its name.
    pub name: Vec<u8>,
    /// What it must start with; empty: anything.
    pub header: Vec<u8>,
}

impl TagFile {
    /// The mark of directories that programs can make anew, after the Cache Directory Tagging Specification.
    pub fn cachedir() -> Self {
        Self { name: b"CACHEDIR.TAG".to_vec(), header: b"Signature: 8a477f597d28d172789f06886806bc55".to_vec() }
    }

    /// Parses `NAME` or `NAME:HEADER`; `None` when there is no name, or one that is no file name.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (name, header) = match text.iter().position(|&byte| byte == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &[][..]),
        };
        let is_name = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
        is_name.then(|| Self { name: name.to_vec(), header: header.to_vec() })
    }

    /// Whether the file of this name in `dir` starts as it should.
    pub(crate) fn has_header(&self, dir: BorrowedFd<'_>) -> io::Result<bool> {
        if self.header.is_empty() {
            return Ok(true);
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(dir, self.name.as_slice(), flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let mut start = Vec::with_capacity(self.header.len());
        std::fs::File::from(fd).take(self.header.len() as u64).read_to_end(&mut start)?;
        Ok(start == self.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_files() {
        let tag = |name: &str, header: &str| Some(TagFile { name: name.into(), header: header.into() });
        assert_eq!(TagFile::parse(b".nobackup"), tag(".nobackup", ""));
        assert_eq!(TagFile::parse(b"a:b:c"), tag("a", "b:c"));
        for text in ["", ":x", "..", "a/b:c"] {
            assert_eq!(TagFile::parse(text.as_bytes()), None, "{text}");
        }
    }
}
