//! Where the bytes of a directory are: named symbolically, so that a plan reads the same on every machine,
//! and turned into a path of the file system by one rule, [`DirectorySource::directory`].
//!
//! Below the folder of volumes (`--volumes`) lies one folder per namespace, and in it:
//!
//! | what | folder |
//! |---|---|
//! | a claim without a PersistentVolume | `<claim>` |
//! | an emptyDir | `.empty-dir/<pod>/<volume>` |
//! | a ConfigMap, written out as files | `.config-map/<pod>/<volume>` |
//! | a Secret, written out as files | `.secret/<pod>/<volume>` |
//!
//! No name of Kubernetes starts with a dot, so a claim never meets the others. `<pod>` is the name of
//! [`Host::instance`](crate::Host), such as `statefulset.db-0`, stable over restarts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A directory as a container sees it, and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Directory {
    /// The container's path, absolute and clean; snapshots carry it.
    pub path: String,
    /// Where its bytes are.
    pub source: DirectorySource,
}

/// A volume and a path within it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectorySource {
    /// The volume.
    #[serde(flatten)]
    pub volume: Volume,
    /// The path within the volume, relative and clean; empty for all of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub_path: String,
}

/// A volume that is, or can be made, a directory of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Volume {
    /// A directory of the machine: a hostPath, or a PersistentVolume of type hostPath or local. A path
    /// relative to its manifest is already joined to the manifest's folder.
    HostPath(String),
    /// A claim that no PersistentVolume is bound to: a folder of ours.
    #[serde(rename_all = "camelCase")]
    Claim {
        /// The claim's namespace.
        namespace: String,
        /// The claim's name.
        name: String,
    },
    /// An emptyDir: a folder of ours per pod.
    #[serde(rename_all = "camelCase")]
    EmptyDir(PodVolume),
    /// A ConfigMap, to be written out as files before it is read.
    #[serde(rename_all = "camelCase")]
    ConfigMap(Files),
    /// A Secret, to be written out as files before it is read.
    #[serde(rename_all = "camelCase")]
    Secret(Files),
    /// On a cluster: a volume of the pod that does the work.
    Mounted(Mount),
}

/// A volume as it is mounted into the pod that does the work.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// The name of the pod's volume.
    pub volume: String,
    /// Where all of it is mounted, below [`names::pod::ROOT`](holdfast_api::names::pod::ROOT).
    pub at: String,
    /// What stands for the volume itself: equal for one volume in several pods.
    #[serde(skip)]
    pub identity: String,
}

/// A volume that belongs to one pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodVolume {
    /// The pod's namespace.
    pub namespace: String,
    /// The host's unique name, for example `statefulset.db-0`.
    pub pod: String,
    /// The volume's name in the pod.
    pub volume: String,
}

/// A ConfigMap or Secret as the files of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Files {
    /// The ConfigMap's or Secret's name, in the pod's namespace.
    pub name: String,
    /// The volume it fills.
    #[serde(flatten)]
    pub volume: PodVolume,
    /// Key to relative path of the file; empty means every key under its own name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, String>,
    /// Permission bits of the files; written in octal, as `0644`.
    #[serde(serialize_with = "octal")]
    pub mode: u32,
    /// Whether the object, or a key of `items`, may be missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

fn octal<S: serde::Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mode:04o}"))
}

impl DirectorySource {
    /// What tells directories apart: as [`directory`](Self::directory), but the same for one volume in several pods.
    pub(crate) fn identity(&self, volumes: &Path) -> PathBuf {
        match &self.volume {
            Volume::Mounted(mount) => Path::new("/").join(&mount.identity).join(&self.sub_path),
            _ => self.directory(volumes),
        }
    }

    /// All of `volume`.
    pub fn root(volume: Volume) -> Self {
        Self { volume, sub_path: String::new() }
    }

    /// The directory on this machine; `volumes` is the folder given by `--volumes`. Links inside the
    /// volume are the caller's concern: this looks at names only.
    pub fn directory(&self, volumes: &Path) -> PathBuf {
        let root = self.volume.directory(volumes);
        if self.sub_path.is_empty() { root } else { root.join(&self.sub_path) }
    }

    /// Whether the volume's content comes from manifests alone, so that nothing can be restored into it.
    pub fn read_only(&self) -> bool {
        matches!(self.volume, Volume::ConfigMap(_) | Volume::Secret(_))
    }
}

impl Volume {
    /// The volume's own directory on this machine.
    pub fn directory(&self, volumes: &Path) -> PathBuf {
        match self {
            Self::HostPath(path) => PathBuf::from(path),
            Self::Claim { namespace, name } => volumes.join(namespace).join(name),
            Self::EmptyDir(volume) => volume.directory(volumes, ".empty-dir"),
            Self::ConfigMap(files) => files.volume.directory(volumes, ".config-map"),
            Self::Secret(files) => files.volume.directory(volumes, ".secret"),
            Self::Mounted(mount) => volumes.join(&mount.at),
        }
    }
}

impl PodVolume {
    fn directory(&self, volumes: &Path, kind: &str) -> PathBuf {
        volumes.join(&self.namespace).join(kind).join(&self.pod).join(&self.volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(volume: Volume, sub_path: &str, expected: &str) {
        let source = DirectorySource { volume, sub_path: sub_path.to_owned() };
        assert_eq!(source.directory(Path::new("/volumes")), Path::new(expected));
    }

    #[test]
    fn each_volume_has_its_own_directory() {
        let volume = || PodVolume { namespace: "demo".into(), pod: "deployment.web".into(), volume: "cache".into() };
        let files =
            || Files { name: "c".into(), volume: volume(), items: BTreeMap::new(), mode: 0o644, optional: false };
        check(Volume::HostPath("/srv".into()), "", "/srv");
        check(Volume::HostPath("/srv".into()), "a/b", "/srv/a/b");
        check(Volume::Claim { namespace: "demo".into(), name: "data".into() }, "x", "/volumes/demo/data/x");
        check(Volume::EmptyDir(volume()), "", "/volumes/demo/.empty-dir/deployment.web/cache");
        check(Volume::ConfigMap(files()), "", "/volumes/demo/.config-map/deployment.web/cache");
        check(Volume::Secret(files()), "k", "/volumes/demo/.secret/deployment.web/cache/k");
    }
}
