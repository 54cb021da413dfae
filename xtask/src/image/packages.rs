//! Images from Debian's packages: which packages, unpacked where, and of them the programs with the shared libraries that
//! they need. Nothing is installed and no package's own script is run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::layer::Layer;
use crate::cache::Cache;
use crate::command;
use crate::tools::archive::{Archive, unpack};

/// The release that images are made of, whatever this machine runs.
const RELEASE: &str = "bookworm";

/// Large libraries that are loaded only when somebody asks for them.
const UNUSED: [&str; 2] = ["libllvm", "libperl"];

/// Packages unpacked into one folder.
pub(super) struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// Those of `names`; with `libraries` those, too, that they depend on and that hold shared libraries, which their
    /// names tell. Fetched once.
    pub(super) fn fetch(cache: &Cache, set: &str, names: &[&str], libraries: bool) -> Result<Self> {
        let folder = cache.folder("packages")?.join(set);
        let _turn = cache.lock("packages-of-images")?;
        let (asked, stamp) = (format!("{RELEASE} {names:?} {libraries} {UNUSED:?}"), folder.with_extension("stamp"));
        if folder.is_dir() && fs::read_to_string(&stamp).is_ok_and(|found| found == asked) {
            return Ok(Self { folder });
        }
        eprintln!("{set}: fetching packages of Debian {RELEASE}, once");
        let archive = Archive::open(&cache.folder("apt-images")?, RELEASE)?;
        let mut wanted: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        if libraries {
            let needed = archive.with_dependencies(names)?;
            let is_library = |name: &String| name.contains("lib") && !UNUSED.iter().any(|no| name.starts_with(no));
            wanted.extend(needed.into_iter().filter(is_library));
        }
        let unfinished = folder.with_extension("unfinished");
        let downloads = folder.with_extension("downloads");
        for left in [&folder, &unfinished, &downloads] {
            if left.exists() {
                fs::remove_dir_all(left).with_context(|| format!("cannot remove {}", left.display()))?;
            }
        }
        for made in [&unfinished, &downloads] {
            fs::create_dir_all(made).with_context(|| format!("cannot create {}", made.display()))?;
        }
        for package in archive.download(&wanted.into_iter().collect::<Vec<_>>(), &downloads)? {
            unpack(&package, &unfinished)?;
        }
        fs::remove_dir_all(&downloads)?;
        fs::rename(&unfinished, &folder)
            .and_then(|()| fs::write(&stamp, asked))
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Where a file of the packages is on this machine.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Every file and link below `folder`, by its path in the packages; in order.
    pub(super) fn files(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut open = vec![self.folder.join(folder)];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else {
                    found.push(entry.path().strip_prefix(&self.folder)?.to_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Puts `files` into a layer, and what they need to run.
    pub(super) fn add(&self, layer: &mut Layer, files: &[PathBuf]) -> Result<()> {
        for file in files {
            layer.copy(file, &self.folder.join(file))?;
        }
        self.add_libraries(layer, files.iter().map(|file| self.folder.join(file)).collect())
    }

    /// Puts the loader and the shared libraries that `programs` need into a layer, and those that libraries need.
    pub(super) fn add_libraries(&self, layer: &mut Layer, programs: Vec<PathBuf>) -> Result<()> {
        let libraries = self.libraries()?;
        let mut present = BTreeSet::new();
        let mut open = programs;
        while !open.is_empty() {
            let mut next = Vec::new();
            for name in needed(&open)?.into_iter().filter(|name| present.insert(name.clone())) {
                let (path, file) = libraries
                    .get(&name)
                    .with_context(|| format!("no package holds the library {name}, which a program needs"))?;
                layer.copy(path, file)?;
                next.push(file.clone());
            }
            open = next;
        }
        Ok(())
    }

    /// Shared libraries by the name under which they are needed: where they go, and the file itself.
    fn libraries(&self) -> Result<BTreeMap<String, (PathBuf, PathBuf)>> {
        let mut found = BTreeMap::new();
        for folder in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64"] {
            for path in self.files(folder)? {
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
                if !name.contains(".so") || path.parent() != Some(Path::new(folder)) {
                    continue;
                }
                // A link within the packages; that of the loader begins with `/`.
                let mut file = self.folder.join(&path);
                if let Ok(target) = fs::read_link(&file) {
                    let within =
                        target.strip_prefix("/").map_or_else(|_| Path::new(folder).join(&target), Path::to_owned);
                    file = self.folder.join(within);
                }
                if file.is_file() {
                    found.insert(name.to_owned(), (path, file.canonicalize()?));
                }
            }
        }
        Ok(found)
    }
}

/// The libraries that programs and libraries name as needed, and the loader that programs name. Other files name none.
fn needed(files: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut programs = Vec::new();
    for file in files {
        let is_program = file.is_file()
            && fs::read(file).with_context(|| format!("cannot read {}", file.display()))?.starts_with(b"\x7fELF");
        if is_program {
            programs.push(file);
        }
    }
    if programs.is_empty() {
        return Ok(BTreeSet::new());
    }
    let readelf = command::find("readelf").context("readelf is missing: install binutils")?;
    let said =
        command::output(Command::new(readelf).args(["--wide", "--dynamic", "--program-headers"]).args(programs))?;
    Ok(said.lines().filter_map(library).map(str::to_owned).collect())
}

/// `… (NEEDED)  Shared library: [libpq.so.5]` and `[Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]`.
fn library(line: &str) -> Option<&str> {
    if line.contains("(NEEDED)") {
        return line.split_once('[')?.1.strip_suffix(']');
    }
    line.trim().strip_prefix("[Requesting program interpreter: ")?.strip_suffix(']')?.rsplit('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_read_from_readelf() {
        let said = " 0x0000000000000001 (NEEDED)             Shared library: [libpq.so.5]\n\
                     0x000000000000000e (SONAME)             Library soname: [libecpg.so.6]\n\
                           [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n";
        assert_eq!(said.lines().filter_map(library).collect::<Vec<_>>(), ["libpq.so.5", "ld-linux-x86-64.so.2"]);
    }
}
