//! The folder of manifests: read whole, and again when something in it changes.
//!
//! Data is never taken for manifests, though it may lie beside them: what a manifest names as a directory of
//! this machine (a hostPath, a local volume) is not looked into. Whoever can write into a protected volume must not
//! be able to tell this program what to do.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use holdfast_api::manifest::{self, Object, Outcome};
use notify::{RecursiveMode, Watcher};
use serde_json::Value;

/// The largest manifest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The deepest folder that is looked into.
const DEPTH_MAX: usize = 16;

/// Why a folder could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct FolderError {
    /// What was tried.
    operation: &'static str,
    /// On what.
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// What a folder holds.
pub struct Folder {
    /// The manifests.
    pub manifests: Arc<Outcome>,
    /// The folders that were looked into.
    folders: BTreeSet<PathBuf>,
    /// Differs when a file does.
    fingerprint: u64,
}

impl Folder {
    /// Whether the files of both are the same, byte by byte.
    pub fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// Reads every manifest below `folder`: files that end in `.yaml`, `.yml` or `.json`, in the order of their paths.
/// Names that begin with a dot are passed over, as are the folders `apart`, those that manifests at or above them name as
/// directories of volumes, and repositories; links to folders are not followed.
///
/// Files are named as `folder` is written, so that messages can be pasted into an editor. An unreadable file is
/// an error of the folder as a whole: what stood in it would look removed.
pub fn read(folder: &Path, apart: &[&Path]) -> Result<Folder, FolderError> {
    // Relative hostPaths are joined to the names of files: two ways to write one directory would pass for two.
    let goes_up = folder.components().any(|part| part == Component::ParentDir);
    let folder = if goes_up { &real(folder) } else { folder };
    let mut walk = Walk { root: real(folder), apart: apart.iter().map(|path| real(path)).collect(), ..Walk::default() };
    if folder.is_file() {
        walk.files.push((folder.display().to_string(), read_file(folder)?));
        // Editors replace a file: it is its folder where that is seen.
        walk.folders.insert(parent(folder).to_owned());
    } else {
        walk.visit(folder, 0)?;
    }
    walk.files.sort();
    let mut hasher = DefaultHasher::new();
    walk.files.hash(&mut hasher);
    let manifests = Arc::new(manifest::read(walk.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))));
    Ok(Folder { manifests, folders: walk.folders, fingerprint: hasher.finish() })
}

#[derive(Default)]
struct Walk {
    /// The folder that was asked for, real.
    root: PathBuf,
    /// Folders that hold no manifests, real.
    apart: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    files: Vec<(String, Vec<u8>)>,
}

impl Walk {
    fn visit(&mut self, folder: &Path, depth: usize) -> Result<(), FolderError> {
        let failed = |source| FolderError { operation: "list", path: folder.to_owned(), source };
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(path);
            } else if is_manifest(&path) && path.is_file() {
                files.push((path.display().to_string(), read_file(&path)?));
            }
        }
        if !folders.is_empty() {
            let read = manifest::read(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
            let named = read.objects.iter().flat_map(|object| data_folders(object, folder));
            // A hostPath above the folder, as `/`, says nothing about what lies in the folder.
            let within = named.filter(|path| *path != self.root && path.starts_with(&self.root)).collect::<Vec<_>>();
            self.apart.extend(within);
        }
        self.files.extend(files);
        self.folders.insert(folder.to_owned());
        for folder in folders {
            let real = real(&folder);
            let is_apart = self.apart.iter().any(|apart| real.starts_with(apart));
            if depth < DEPTH_MAX && !is_apart && !is_repository(&folder) {
                self.visit(&folder, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, FolderError> {
    let failed = |source| FolderError { operation: "read", path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(failed(std::io::Error::other("it is larger than 16 MiB: no manifest is")));
    }
    std::fs::read(path).map_err(failed)
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
}

/// A repository is never a folder of manifests, however many files in it look like it.
fn is_repository(folder: &Path) -> bool {
    folder.join("config").is_file() && folder.join("keys").is_dir()
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// The directories of this machine that an object names as volumes, real; relative ones are relative to `base`.
fn data_folders(object: &Object, base: &Path) -> Vec<PathBuf> {
    fn collect<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    match value.get("path").and_then(Value::as_str) {
                        Some(path) if field == "hostPath" || field == "local" => found.push(path),
                        _ => collect(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&object.json, &mut found);
    found.into_iter().map(|path| real(&base.join(path))).collect()
}

/// Tells of changes in folders, until it is dropped.
pub struct Watch {
    _watcher: notify::RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// Calls `changed` whenever a manifest of `folder` may have changed; several changes may come as one or as many.
    pub fn start(folder: &Folder, changed: impl Fn() + Send + 'static) -> Result<Self, notify::Error> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let relevant = match &event {
                // Names without an ending may be folders.
                Ok(event) => {
                    !event.kind.is_access()
                        && event.paths.iter().any(|path| is_manifest(path) || path.extension().is_none())
                }
                // Events may have been lost: look.
                Err(_) => true,
            };
            if relevant {
                changed();
            }
        })?;
        for folder in &folder.folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher, folders: folder.folders.clone() })
    }

    /// Whether it sees all that `folder` consists of by now.
    pub fn covers(&self, folder: &Folder) -> bool {
        self.folders == folder.folders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(folder: &Path, apart: &[&Path]) -> Vec<String> {
        let mut names: Vec<String> =
            read(folder, apart).unwrap().manifests.objects.iter().map(|object| object.name.clone()).collect();
        names.sort();
        names
    }

    fn config_map(path: &Path, name: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")).unwrap();
    }

    #[test]
    fn manifests_are_found_below_and_data_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        config_map(&at("a.yaml"), "a");
        config_map(&at("team/b.yml"), "b");
        config_map(&at("team/.hidden/c.yaml"), "c");
        config_map(&at("data/evil.yaml"), "evil");
        config_map(&at("team/files/evil.yaml"), "evil-too");
        config_map(&at("disk/evil.yaml"), "evil-three");
        config_map(&at("state/d.yaml"), "d");
        config_map(&at("repository/e.yaml"), "e");
        fs::write(at("repository/config"), "").unwrap();
        fs::create_dir(at("repository/keys")).unwrap();
        let pod = |path: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p-{}}}\nspec: {{containers: [{{name: m, image: i}}], volumes: [{{name: v, hostPath: {{path: {path}}}}}]}}\n",
                path.len()
            )
        };
        fs::write(at("pod.yaml"), pod("./data")).unwrap();
        fs::write(at("team/pod.yaml"), pod(at("team/files").to_str().unwrap())).unwrap();
        fs::write(at("root.yaml"), pod("/")).unwrap();
        let volume = "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: pv}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], local: {path: disk}}\n";
        fs::write(at("volume.yaml"), volume).unwrap();
        let found = names(folder.path(), &[&at("state")]);
        assert!(found.iter().filter(|name| !name.starts_with('p')).eq(["a", "b"]), "{found:?}");
    }

    #[test]
    fn a_change_of_bytes_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        config_map(&folder.path().join("a.yaml"), "a");
        let before = read(folder.path(), &[]).unwrap();
        assert!(before.is_same(&read(folder.path(), &[]).unwrap()));
        config_map(&folder.path().join("a.yaml"), "b");
        assert!(!before.is_same(&read(folder.path(), &[]).unwrap()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = read(&missing, &[]).err().unwrap();
        assert_eq!(error.to_string(), format!("cannot list {}", missing.display()));
    }
}
