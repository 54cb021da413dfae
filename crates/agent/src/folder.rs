//! The folder of manifests: read whole, and again when something in it changes.

use std::path::{Path, PathBuf};

use holdfast_api::manifest::{self, Outcome};
use notify::{RecursiveMode, Watcher};

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

/// Reads every manifest below `folder`: files that end in `.yaml`, `.yml` or `.json`, in the order of their paths.
/// Names that begin with a dot are passed over, and links to folders not followed: what backups keep beside
/// the manifests must not be taken for one.
///
/// Files are named as `folder` is written, so that messages can be pasted into an editor. An unreadable file is
/// an error of the folder as a whole: what stood in it would look removed.
pub fn read(folder: &Path) -> Result<Outcome, FolderError> {
    let mut paths = Vec::new();
    if folder.is_file() {
        paths.push(folder.to_owned());
    } else {
        find(folder, 0, &mut paths)?;
    }
    paths.sort();
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let failed = |operation| move |source| FolderError { operation, path: PathBuf::new(), source };
        let bytes = std::fs::metadata(&path).map_err(failed("read")).and_then(|metadata| {
            if metadata.len() > FILE_BYTES_MAX {
                return Err(failed("read")(std::io::Error::other("it is larger than 16 MiB: no manifest is")));
            }
            std::fs::read(&path).map_err(failed("read"))
        });
        let bytes = bytes.map_err(|error| FolderError { path: path.clone(), ..error })?;
        files.push((path.display().to_string(), bytes));
    }
    Ok(manifest::read(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))))
}

fn find(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), FolderError> {
    let failed = |source| FolderError { operation: "list", path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(failed)?;
        let is_manifest =
            path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known));
        if kind.is_dir() {
            // Data that lies beside the manifests is not looked through: a manifest's folder is marked by having one.
            if depth < DEPTH_MAX && !is_data(&path) {
                find(&path, depth + 1, paths)?;
            }
        } else if is_manifest && path.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

/// A repository is never a folder of manifests, however many files in it look like it.
fn is_data(folder: &Path) -> bool {
    folder.join("config").is_file() && folder.join("keys").is_dir()
}

/// Tells of changes below a folder, until it is dropped.
pub struct Watch {
    _watcher: notify::RecommendedWatcher,
}

impl Watch {
    /// Calls `changed` whenever a manifest may have changed; several changes may come as one or as many.
    pub fn start(folder: &Path, changed: impl Fn() + Send + 'static) -> Result<Self, notify::Error> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let relevant = match &event {
                Ok(event) => {
                    !event.kind.is_access()
                        && event.paths.iter().any(|path| {
                            path.extension()
                                .is_none_or(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
                        })
                }
                // Events may have been lost: look.
                Err(_) => true,
            };
            if relevant {
                changed();
            }
        })?;
        // Sub-folders that hold no manifests (data, repositories) are not watched: they may be huge and busy.
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        let mut folders = Vec::new();
        if folder.is_dir() {
            sub_folders(folder, 0, &mut folders);
        }
        for folder in folders {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher })
    }
}

fn sub_folders(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && !hidden && depth < DEPTH_MAX && !is_data(&path) && has_manifests(&path) {
            sub_folders(&path, depth + 1, found);
            found.push(path);
        }
    }
}

fn has_manifests(folder: &Path) -> bool {
    let mut paths = Vec::new();
    find(folder, 0, &mut paths).is_ok() && !paths.is_empty()
}
