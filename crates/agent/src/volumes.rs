//! Volumes as folders of this machine: ConfigMaps and Secrets written out as files, claims and emptyDirs made.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use holdfast_api::manifest::{Object, Typed};
use holdfast_api::values::Secret;
use holdfast_plan::{DirectorySource, Files, Volume};
use serde_json::{Value, json};

/// Why a volume's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A host path that is not there.
    #[error("{} does not exist: create it, or mend the hostPath", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// A volume of the pod that is not mounted here.
    #[error(
        "volume {volume} of the pod is not mounted into this container; the operator does that, and restarts the pod"
    )]
    NotMounted {
        /// The volume.
        volume: String,
    },
    /// The ConfigMap or Secret that fills the volume is not in the folder of manifests.
    #[error("there is no {kind} {namespace}/{name} for volume {volume}")]
    NoObject {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The volume.
        volume: String,
    },
    /// It has no such key.
    #[error("{kind} {namespace}/{name} has no key {key}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// An item's path leads out of the volume.
    #[error("the path {path:?} of key {key} leads out of its volume")]
    Escapes {
        /// The key.
        key: String,
        /// Its path.
        path: String,
    },
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What a volume's folder is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Reading: what is not there is an error, as it would be saved as empty.
    Read,
    /// Writing: what is not there is made.
    Write,
}

/// The folder of a volume on this machine, filled or made as its kind asks for.
pub fn prepare(
    source: &DirectorySource,
    volumes: &Path,
    objects: &[Object],
    usage: Use,
) -> Result<PathBuf, VolumeError> {
    let folder = source.directory(volumes);
    match &source.volume {
        Volume::ConfigMap(files) => {
            write_out(files, &source.volume.directory(volumes), "ConfigMap", config_map(objects, files).as_ref())?
        }
        Volume::Secret(files) => {
            let secret = secret(objects, &files.volume.namespace, &files.name);
            write_out(files, &source.volume.directory(volumes), "Secret", secret.as_ref().map(Secret::expose))?
        }
        // Ours to make, as the kubelet would.
        Volume::Claim { .. } | Volume::EmptyDir(_) => make(&folder)?,
        Volume::HostPath(_) if usage == Use::Write => make(&folder)?,
        Volume::Mounted(mount) if fs::symlink_metadata(source.volume.directory(volumes)).is_err() => {
            return Err(VolumeError::NotMounted { volume: mount.volume.clone() });
        }
        Volume::Mounted(_) if usage == Use::Write => make(&folder)?,
        Volume::HostPath(_) | Volume::Mounted(_) => {}
    }
    if fs::symlink_metadata(&folder).is_ok() { Ok(folder) } else { Err(VolumeError::Missing { path: folder }) }
}

fn make(folder: &Path) -> Result<(), VolumeError> {
    fs::create_dir_all(folder).map_err(io("create", folder))
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { operation, path, source }
}

fn config_map(objects: &[Object], files: &Files) -> Option<BTreeMap<String, Vec<u8>>> {
    objects.iter().find_map(|object| match &object.typed {
        Typed::ConfigMap(map)
            if object.name == files.name && object.namespace.as_deref() == Some(&files.volume.namespace) =>
        {
            let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
            let bytes = map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
            Some(texts.chain(bytes).collect())
        }
        _ => None,
    })
}

/// The keys and values of a Secret; `stringData` wins over `data`, as in the API.
pub fn secret(objects: &[Object], namespace: &str, name: &str) -> Option<Secret<BTreeMap<String, Vec<u8>>>> {
    objects.iter().find_map(|object| match &object.typed {
        Typed::Secret(secret) if object.name == name && object.namespace.as_deref() == Some(namespace) => {
            let bytes = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
            let texts = secret.string_data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
            Some(Secret::new(bytes.chain(texts).collect()))
        }
        _ => None,
    })
}

/// What stands for a Secret that cannot be read says by this annotation why.
const UNREADABLE: &str = "holdfast/unreadable";

/// What stands for a Secret that cannot be read, so that whoever needs it says why.
pub(crate) fn unreadable_secret(namespace: &str, name: &str, why: &str) -> Value {
    let metadata = json!({"name": name, "namespace": namespace, "annotations": {UNREADABLE: why}});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
}

/// Why a Secret cannot be read; none if it can.
pub(crate) fn unreadable(objects: &[Object], namespace: &str, name: &str) -> Option<String> {
    objects.iter().find_map(|object| match &object.typed {
        Typed::Secret(secret) if object.name == name && object.namespace.as_deref() == Some(namespace) => {
            // What holds something has been read, whatever it says of itself.
            let is_empty = secret.data.is_none() && secret.string_data.is_none();
            secret.metadata.annotations.as_ref()?.get(UNREADABLE).filter(|_| is_empty).cloned()
        }
        _ => None,
    })
}

/// Writes files that differ from what is there, and removes those that no key asks for any more.
fn write_out(
    files: &Files,
    folder: &Path,
    kind: &'static str,
    keys: Option<&BTreeMap<String, Vec<u8>>>,
) -> Result<(), VolumeError> {
    let Files { name, volume, items, mode, optional } = files;
    make(folder)?;
    let none = BTreeMap::new();
    let keys = match keys {
        Some(keys) => keys,
        None if *optional => &none,
        None => {
            let (namespace, volume) = (volume.namespace.clone(), volume.volume.clone());
            return Err(VolumeError::NoObject { kind, namespace, name: name.clone(), volume });
        }
    };
    let mut wanted = BTreeMap::new();
    if items.is_empty() {
        wanted.extend(keys.iter().map(|(key, value)| (PathBuf::from(key), value)));
    }
    for (key, path) in items {
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || path.is_empty() {
            return Err(VolumeError::Escapes { key: key.clone(), path: path.clone() });
        }
        match keys.get(key) {
            Some(value) => _ = wanted.insert(PathBuf::from(path), value),
            None if *optional => {}
            None => {
                let namespace = volume.namespace.clone();
                return Err(VolumeError::NoKey { kind, namespace, name: name.clone(), key: key.clone() });
            }
        }
    }
    remove_others(folder, Path::new(""), &wanted)?;
    for (path, value) in &wanted {
        let path = folder.join(path);
        // An unchanged file keeps its times, so that the next backup need not read it.
        if fs::read(&path).is_ok_and(|there| there == **value) {
            continue;
        }
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        let new = path.with_extension("holdfast-new");
        let write = || {
            let mut file = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(value)?;
            file.set_permissions(fs::Permissions::from_mode(*mode & 0o777))?;
            fs::rename(&new, &path)
        };
        write().map_err(io("write", &path))?;
    }
    Ok(())
}

fn remove_others(folder: &Path, below: &Path, wanted: &BTreeMap<PathBuf, &Vec<u8>>) -> Result<(), VolumeError> {
    let here = folder.join(below);
    for entry in fs::read_dir(&here).map_err(io("list", &here))? {
        let entry = entry.map_err(io("list", &here))?;
        let (path, relative) = (entry.path(), below.join(entry.file_name()));
        if entry.file_type().map_err(io("read", &path))?.is_dir() {
            remove_others(folder, &relative, wanted)?;
            // Fails, rightly, unless it is empty.
            let _ = fs::remove_dir(&path);
        } else if !wanted.contains_key(&relative) {
            fs::remove_file(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_plan::PodVolume;

    fn files(items: &[(&str, &str)], optional: bool) -> Files {
        Files {
            name: "settings".into(),
            volume: PodVolume { namespace: "demo".into(), pod: "deployment.web".into(), volume: "v".into() },
            items: items.iter().map(|(key, path)| (key.to_string(), path.to_string())).collect(),
            mode: 0o640,
            optional,
        }
    }

    fn keys() -> BTreeMap<String, Vec<u8>> {
        [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())].into()
    }

    #[test]
    fn keys_become_files_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/old"), "x").unwrap();
        write_out(&files(&[], false), folder.path(), "ConfigMap", Some(&keys())).unwrap();
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"1");
        assert_eq!(fs::metadata(folder.path().join("b")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!folder.path().join("sub").exists());
        write_out(&files(&[("b", "deep/er")], false), folder.path(), "ConfigMap", Some(&keys())).unwrap();
        assert_eq!(fs::read(folder.path().join("deep/er")).unwrap(), b"2");
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn what_is_missing_is_named_unless_optional() {
        let folder = tempfile::tempdir().unwrap();
        let missing = write_out(&files(&[], false), folder.path(), "Secret", None).unwrap_err();
        assert_eq!(missing.to_string(), "there is no Secret demo/settings for volume v");
        let key = write_out(&files(&[("c", "c")], false), folder.path(), "Secret", Some(&keys())).unwrap_err();
        assert_eq!(key.to_string(), "Secret demo/settings has no key c");
        write_out(&files(&[("c", "c")], true), folder.path(), "Secret", Some(&keys())).unwrap();
        write_out(&files(&[], true), folder.path(), "Secret", None).unwrap();
    }

    #[test]
    fn an_item_cannot_leave_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", ""] {
            let result = write_out(&files(&[("a", path)], false), folder.path(), "ConfigMap", Some(&keys()));
            assert!(matches!(result, Err(VolumeError::Escapes { .. })), "{path}");
        }
    }
}
