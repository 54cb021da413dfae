//! The one layer of an image: a tar whose bytes follow from its entries alone. No time, no owner's name and no order of
//! a folder on this machine gets into it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Files by their path in the image, without a leading `/`.
#[derive(Default)]
pub(super) struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
}

struct Entry {
    content: Content,
    mode: u32,
    /// User and group.
    owner: u32,
}

enum Content {
    Folder,
    Text(String),
    /// The content of a file of this machine.
    File(PathBuf),
    Link(PathBuf),
}

impl Layer {
    /// A text that everybody reads.
    pub(super) fn text(mut self, path: &str, text: impl Into<String>) -> Self {
        self.put(path, Content::Text(text.into()), 0o644, 0);
        self
    }

    /// A text that is a program.
    pub(super) fn script(mut self, path: &str, text: &str) -> Self {
        self.put(path, Content::Text(text.to_owned()), 0o755, 0);
        self
    }

    /// A program of this machine.
    pub(super) fn program(mut self, path: &str, file: &Path) -> Self {
        self.put(path, Content::File(file.to_owned()), 0o755, 0);
        self
    }

    /// A symbolic link.
    pub(super) fn link(mut self, path: &str, target: impl Into<PathBuf>) -> Self {
        self.put(path, Content::Link(target.into()), 0o777, 0);
        self
    }

    /// An empty folder. The folders above a file need not be named.
    pub(super) fn folder(mut self, path: &str, mode: u32, owner: u32) -> Self {
        self.put(path, Content::Folder, mode, owner);
        self
    }

    /// A file of this machine with what its mode says of reading and executing, or a link as it is.
    pub(super) fn copy(&mut self, path: &Path, from: &Path) -> Result<()> {
        let metadata = from.symlink_metadata().with_context(|| format!("cannot read {}", from.display()))?;
        if metadata.is_symlink() {
            self.put(path, Content::Link(fs::read_link(from)?), 0o777, 0);
        } else if metadata.is_file() {
            let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            self.put(path, Content::File(from.to_owned()), mode, 0);
        } else {
            bail!("{} is neither a file nor a link", from.display());
        }
        Ok(())
    }

    fn put(&mut self, path: impl AsRef<Path>, content: Content, mode: u32, owner: u32) {
        self.entries.insert(path.as_ref().to_owned(), Entry { content, mode, owner });
    }

    /// The tar, folders before what is in them.
    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let folder = Entry { content: Content::Folder, mode: 0o755, owner: 0 };
        let above = self.entries.keys().flat_map(|path| path.ancestors().skip(1)).filter(|path| *path != Path::new(""));
        let mut all: BTreeMap<&Path, &Entry> = above.map(|path| (path, &folder)).collect();
        all.extend(self.entries.iter().map(|(path, entry)| (path.as_path(), entry)));
        for (path, entry) in all {
            entry.append(path, &mut tar).with_context(|| format!("cannot pack {}", path.display()))?;
        }
        Ok(tar.into_inner()?)
    }
}

impl Entry {
    fn append(&self, path: &Path, tar: &mut tar::Builder<impl Write>) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(self.mode);
        header.set_uid(self.owner.into());
        header.set_gid(self.owner.into());
        header.set_mtime(0);
        header.set_size(0);
        let content = match &self.content {
            Content::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                return Ok(tar.append_data(&mut header, path, std::io::empty())?);
            }
            Content::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                return Ok(tar.append_link(&mut header, path, target)?);
            }
            Content::Text(text) => text.clone().into_bytes(),
            Content::File(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
        };
        header.set_size(content.len().try_into()?);
        Ok(tar.append_data(&mut header, path, content.as_slice())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_depends_on_content_alone() {
        let folder = tempfile::tempdir().unwrap();
        let pack = |name: &str, mode: u32, reverse: bool| {
            let file = folder.path().join(name);
            fs::write(&file, "program").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let mut layer = Layer::default().program("bin/tool", &file).link("bin/alias", "tool");
            let mut names = ["etc/b", "etc/a", "usr/share/deep/c"];
            if reverse {
                names.reverse();
            }
            names.iter().for_each(|name| layer.copy(Path::new(name), &file).unwrap());
            layer.folder("tmp", 0o1777, 0).tar().unwrap()
        };
        assert_eq!(pack("one", 0o644, false), pack("two", 0o600, true));
        assert_ne!(pack("one", 0o644, false), pack("two", 0o700, true), "what can be executed matters");
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_are_open_to_all() {
        let bytes = Layer::default().text("etc/ssl/a", "x").folder("data", 0o700, 7).tar().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (
                    entry.path().unwrap().to_string_lossy().into_owned(),
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    header.mtime().unwrap(),
                )
            })
            .collect();
        let wanted =
            [("data", 0o700, 7, 0), ("etc", 0o755, 0, 0), ("etc/ssl", 0o755, 0, 0), ("etc/ssl/a", 0o644, 0, 0)];
        assert_eq!(found, wanted.map(|(path, mode, owner, time)| (path.to_owned(), mode, owner, time)));
    }
}
