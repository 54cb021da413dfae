//! What is to be backed up, from files that list it: restic's `--files-from` and its verbatim and raw forms.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_repository::pattern::{Case, PatternList};

use super::open::read;
use crate::failure::{Failure, Result};

/// Files that list what is to be backed up.
#[derive(Debug, Args)]
pub(crate) struct FilesFromArgs {
    /// A file of patterns of paths to back up, one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    files_from: Vec<PathBuf>,
    /// A file of paths to back up, one a line, taken literally
    #[arg(long, value_name = "FILE")]
    files_from_verbatim: Vec<PathBuf>,
    /// A file of paths to back up, each ended by a zero byte, taken literally
    #[arg(long, value_name = "FILE")]
    files_from_raw: Vec<PathBuf>,
}

impl FilesFromArgs {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { files_from, files_from_verbatim, files_from_raw } = self;
        [files_from, files_from_verbatim, files_from_raw].iter().all(|files| files.is_empty())
    }

    /// All paths that the files list.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for file in &self.files_from {
            for line in lines(&read(file, "list")?, b'\n').map(<[u8]>::trim_ascii) {
                if line.is_empty() || line.starts_with(b"#") {
                    continue;
                }
                let found = expand(line).map_err(|error| {
                    Failure::with_hint(
                        format!("{}: invalid pattern {:?}: {error}", file.display(), String::from_utf8_lossy(line)),
                        "use --files-from-verbatim for paths that are no patterns",
                    )
                })?;
                if found.is_empty() {
                    return Err(Failure::with_hint(
                        format!("{}: nothing matches {:?}", file.display(), String::from_utf8_lossy(line)),
                        "correct or remove the line",
                    ));
                }
                paths.extend(found);
            }
        }
        for (files, separator) in [(&self.files_from_verbatim, b'\n'), (&self.files_from_raw, 0)] {
            for file in files {
                let bytes = read(file, "list")?;
                paths.extend(lines(&bytes, separator).filter(|line| !line.is_empty()).map(path));
            }
        }
        Ok(paths)
    }
}

fn lines(bytes: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    bytes.split(move |&byte| byte == separator)
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

/// What is there and matches a pattern, sorted. Wildcards stand within names.
fn expand(pattern: &[u8]) -> Result<Vec<PathBuf>, String> {
    let start = if pattern.starts_with(b"/") { "/" } else { "" };
    let mut found = vec![PathBuf::from(start)];
    for part in pattern.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        if !part.iter().any(|byte| b"*?[\\".contains(byte)) {
            found.iter_mut().for_each(|found| found.push(path(part)));
            continue;
        }
        let list = PatternList::new([part], Case::Sensitive).map_err(|error| error.reason.to_owned())?;
        found = found.iter().flat_map(|folder| matching(folder, &list)).collect();
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    found.sort();
    Ok(found)
}

/// The entries of a folder that match; none if it cannot be listed.
fn matching(folder: &Path, names: &PatternList) -> Vec<PathBuf> {
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(listed).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .filter(|name| names.is_match(name.as_bytes()))
        .map(|name| folder.join(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a1", "a2", "b", "a*"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("file"), "").unwrap();
        }
        let list = |name: &str, content: String| {
            std::fs::write(at(name), content).unwrap();
            vec![at(name)]
        };
        let here = dir.path().display();
        let none = || FilesFromArgs { files_from: vec![], files_from_verbatim: vec![], files_from_raw: vec![] };
        let patterns = FilesFromArgs {
            files_from: list("list", format!("# comment\n\n  {here}/a[12]/f*\n{here}/b\n{here}/a\\*\n")),
            ..none()
        };
        assert_eq!(patterns.paths().unwrap(), [at("a1/file"), at("a2/file"), at("b"), at("a*")]);
        let verbatim = FilesFromArgs { files_from_verbatim: list("list", format!("{here}/a*\n# x\n")), ..none() };
        assert_eq!(verbatim.paths().unwrap(), [at("a*"), "# x".into()]);
        let raw = FilesFromArgs { files_from_raw: list("list", "x\ny\0z\0".into()), ..none() };
        assert_eq!(raw.paths().unwrap(), [PathBuf::from("x\ny"), "z".into()]);
        let nothing = FilesFromArgs { files_from: list("list", format!("{here}/c*")), ..none() };
        assert!(nothing.paths().unwrap_err().message().contains("nothing matches"));
    }
}
