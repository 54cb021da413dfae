//! The folder outside the checkout where tools, downloads and benchmark data live: `$HOLDFAST_CACHE`, by default
//! `~/.cache/holdfast`. Whatever appears in it appears whole: written under another name, then renamed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The cache folder. Programs are in `bin/`.
#[derive(Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user, created when missing.
    pub(crate) fn open() -> Result<Self> {
        let root = match std::env::var_os("HOLDFAST_CACHE") {
            Some(folder) if !folder.is_empty() => PathBuf::from(folder),
            _ => PathBuf::from(std::env::var_os("HOME").context("neither HOLDFAST_CACHE nor HOME is set")?)
                .join(".cache/holdfast"),
        };
        Self::at(&root)
    }

    /// A cache in a folder of the caller's choice.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root)?;
        fs::create_dir_all(root.join("bin")).with_context(|| format!("cannot create {}", root.display()))?;
        Ok(Self { root })
    }

    /// Where the program `name` is, whether or not it is there yet.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.root.join("bin").join(name)
    }

    /// A folder of the cache, created when missing.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// Waits until no other process works on `name`; the returned file holds the lock until it is dropped.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let path = self.folder("locks")?.join(name);
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => eprintln!("{name}: waiting for another process that works on it"),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// Whether the program is there in exactly this version.
    pub(crate) fn has(&self, name: &str, version: &str) -> bool {
        self.program(name).is_file() && fs::read_to_string(self.stamp(name)).is_ok_and(|found| found == version)
    }

    /// Where to build a program before [`Cache::install`] gives it its name.
    pub(crate) fn unfinished(&self, name: &str) -> PathBuf {
        self.program(&format!(".{name}.unfinished"))
    }

    /// Gives a finished program its name and notes its version. The stamp goes first and comes last, so a crash in
    /// between means one more build, never an old program under a new version.
    pub(crate) fn install(&self, name: &str, version: &str) -> Result<()> {
        let stamp = self.stamp(name);
        if stamp.exists() {
            fs::remove_file(&stamp).with_context(|| format!("cannot remove {}", stamp.display()))?;
        }
        let program = self.program(name);
        fs::rename(self.unfinished(name), &program).with_context(|| format!("cannot install {}", program.display()))?;
        fs::write(&stamp, version).with_context(|| format!("cannot write {}", stamp.display()))
    }

    fn stamp(&self, name: &str) -> PathBuf {
        self.program(&format!(".{name}.version"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_counts_only_in_the_version_that_was_installed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        assert!(!cache.has("tool", "1"));
        fs::write(cache.unfinished("tool"), "one").unwrap();
        assert!(!cache.has("tool", "1"), "an unfinished build is not a program");
        cache.install("tool", "1").unwrap();
        assert!(cache.has("tool", "1") && !cache.has("tool", "2"));
        fs::remove_file(cache.program("tool")).unwrap();
        assert!(!cache.has("tool", "1"), "a stamp without its program is worth nothing");
    }

    #[test]
    fn two_processes_take_turns() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let held = cache.lock("tool").unwrap();
        let other = File::open(folder.path().join("locks/tool")).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(other.try_lock().is_ok());
    }
}
