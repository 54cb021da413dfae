//! From a volume as a manifest writes it to the directory that holds its bytes.
//!
//! - `hostPath`: that path; a relative one is relative to the folder of its manifest.
//! - `persistentVolumeClaim`: the hostPath or local path of its PersistentVolume, found by the claim's
//!   `volumeName` or else by the volume's `claimRef`; without one, a folder per claim.
//! - `emptyDir`: a folder per pod. `configMap`, `secret`: files written out before they are read.
//! - `ephemeral`: the claim `<pod>-<volume>` that Kubernetes would make of it.
//! - Everything else needs a driver that only a node of a cluster has: an error that says the way out.

use std::collections::BTreeMap;

use holdfast_api::names;
use holdfast_api::values::VolumeSource;
use k8s_openapi::api::core::v1::{KeyToPath, PersistentVolume};

use crate::index::{Index, Placed};
use crate::key::{ObjectKey, Target, TargetKind};
use crate::path::{self, PathError};
use crate::source::{Files, Mount, PodVolume, Volume};

/// Permission bits of the files of a ConfigMap or Secret where the manifest says nothing.
const DEFAULT_FILE_MODE: u32 = 0o644;

/// Why a volume cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The volume names no source.
    #[error("the volume names no source; add for example `hostPath` or `persistentVolumeClaim`")]
    NoSource,
    /// A mount of a volume that the pod does not have.
    #[error("`{0}` is not among the pod's volumes")]
    Undeclared(String),
    /// The volume names several sources.
    #[error("the volume names several sources ({0}); keep one")]
    SeveralSources(String),
    /// A driver is needed.
    #[error(
        "a volume of type `{0}` needs a node of a cluster; mount it on this machine and name that directory by `hostPath`"
    )]
    Unsupported(String),
    /// A block device.
    #[error("{0} is a raw block volume, which holds no files")]
    Block(ObjectKey),
    /// A reference to an object that is not there.
    #[error("{0} not found")]
    Missing(ObjectKey),
    /// A claim and a PersistentVolume that do not agree.
    #[error("PersistentVolume {volume}, which the claim names, is bound to the claim {bound}")]
    BoundElsewhere {
        /// The volume that the claim names.
        volume: String,
        /// `namespace/name` of the claim that the volume names.
        bound: String,
    },
    /// A PersistentVolume as a target on a cluster.
    #[error("a pod reaches a volume only through its claim; name {0} as the target")]
    ThroughClaim(ObjectKey),
    /// One that no claim is bound to.
    #[error("{0} is bound to no claim, through which a pod could reach it")]
    Unclaimed(ObjectKey),
    /// A path that cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The pod, real or to come, whose volumes are mapped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pod<'a> {
    /// Its namespace.
    pub(crate) namespace: &'a str,
    /// The host's unique name: the folder of what belongs to this pod alone.
    pub(crate) instance: &'a str,
    /// The name that claims of `ephemeral` volumes start with.
    pub(crate) name: &'a str,
    /// Folder of the manifest, for relative hostPaths.
    pub(crate) base: &'a str,
}

/// Maps a volume of `pod` called `name`.
pub(crate) fn resolve(
    index: &Index<'_>,
    pod: Pod<'_>,
    name: &str,
    source: &VolumeSource,
) -> Result<Volume, VolumeError> {
    match source.set_fields().as_slice() {
        [_] => {}
        [] => return Err(VolumeError::NoSource),
        several => return Err(VolumeError::SeveralSources(several.join(", "))),
    }
    let pod_volume =
        || PodVolume { namespace: pod.namespace.to_owned(), pod: pod.instance.to_owned(), volume: name.to_owned() };
    if let Some(host_path) = &source.host_path {
        return Ok(Volume::HostPath(host_path_in(pod.base, &host_path.path)?));
    }
    if let Some(claim) = &source.persistent_volume_claim {
        return resolve_claim(index, pod.namespace, &claim.claim_name);
    }
    if source.empty_dir.is_some() {
        return Ok(Volume::EmptyDir(pod_volume()));
    }
    if let Some(config_map) = &source.config_map {
        let optional = config_map.optional == Some(true);
        let name = &config_map.name;
        if !optional && index.config_map(pod.namespace, name).is_none() {
            return Err(VolumeError::Missing(ObjectKey::new("ConfigMap", pod.namespace, name)));
        }
        let items = items(config_map.items.as_deref())?;
        let mode = mode(config_map.default_mode);
        return Ok(Volume::ConfigMap(Files { name: name.clone(), volume: pod_volume(), items, mode, optional }));
    }
    if let Some(secret) = &source.secret {
        let optional = secret.optional == Some(true);
        let name = secret.secret_name.clone().unwrap_or_default();
        if !optional && index.secret(pod.namespace, &name).is_none() {
            return Err(VolumeError::Missing(ObjectKey::new("Secret", pod.namespace, name)));
        }
        let items = items(secret.items.as_deref())?;
        let mode = mode(secret.default_mode);
        return Ok(Volume::Secret(Files { name, volume: pod_volume(), items, mode, optional }));
    }
    if source.ephemeral.is_some() {
        return Ok(Volume::Claim { namespace: pod.namespace.to_owned(), name: format!("{}-{name}", pod.name) });
    }
    Err(VolumeError::Unsupported(source.set_fields().join(", ")))
}

/// Maps a claim that must exist as an object.
pub(crate) fn resolve_claim(index: &Index<'_>, namespace: &str, name: &str) -> Result<Volume, VolumeError> {
    let key = || ObjectKey::new("PersistentVolumeClaim", namespace, name);
    let claim = index.claim(namespace, name).ok_or_else(|| VolumeError::Missing(key()))?;
    let spec = claim.object.spec.as_ref();
    if spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return Err(VolumeError::Block(key()));
    }
    match spec.and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty()) {
        None => claim_by_reference(index, namespace, name),
        Some(volume_name) => {
            let Some(volume) = index.persistent_volume(volume_name) else {
                return Err(VolumeError::Missing(ObjectKey::new("PersistentVolume", "", volume_name)));
            };
            match claim_of(volume.object) {
                Some((bound_namespace, bound)) if (bound_namespace, bound) != (namespace, name) => {
                    Err(VolumeError::BoundElsewhere {
                        volume: volume_name.to_owned(),
                        bound: format!("{bound_namespace}/{bound}"),
                    })
                }
                _ => resolve_persistent_volume(index, volume),
            }
        }
    }
}

/// Maps a claim that need not exist as an object: the PersistentVolume whose `claimRef` names it, or else a
/// folder of ours.
pub(crate) fn claim_by_reference(index: &Index<'_>, namespace: &str, name: &str) -> Result<Volume, VolumeError> {
    match index.persistent_volume_of_claim(namespace, name) {
        Some(volume) => resolve_persistent_volume(index, volume),
        None => Ok(Volume::Claim { namespace: namespace.to_owned(), name: name.to_owned() }),
    }
}

/// Maps a PersistentVolume.
pub(crate) fn resolve_persistent_volume(
    index: &Index<'_>,
    volume: Placed<'_, PersistentVolume>,
) -> Result<Volume, VolumeError> {
    let name = volume.object.metadata.name.as_deref().unwrap_or_default();
    let spec = volume.object.spec.as_ref().ok_or(VolumeError::NoSource)?;
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(VolumeError::Block(ObjectKey::new("PersistentVolume", "", name)));
    }
    match (&spec.host_path, &spec.local) {
        (Some(host_path), _) => Ok(Volume::HostPath(host_path_in(&index.base(volume.manifest), &host_path.path)?)),
        (None, Some(local)) => Ok(Volume::HostPath(host_path_in(&index.base(volume.manifest), &local.path)?)),
        (None, None) => Err(VolumeError::Unsupported(source_of(volume.object))),
    }
}

/// A volume of the pod that does the work.
pub(crate) fn mounted(volume: &str, at: &str, identity: &str) -> Volume {
    Volume::Mounted(Mount { volume: volume.to_owned(), at: at.to_owned(), identity: identity.to_owned() })
}

/// A claim as the target of a Job.
pub(crate) fn mounted_claim(index: &Index<'_>, target: &Target) -> Result<Volume, VolumeError> {
    let Target { kind, namespace, name } = target;
    if *kind == TargetKind::PersistentVolume {
        let claim = index.persistent_volume(name).and_then(|volume| claim_of(volume.object));
        return Err(match claim {
            Some((namespace, name)) => {
                VolumeError::ThroughClaim(ObjectKey::new("PersistentVolumeClaim", namespace, name))
            }
            None => VolumeError::Unclaimed(target.key()),
        });
    }
    let claim = index.claim(namespace, name).ok_or_else(|| VolumeError::Missing(target.key()))?;
    if claim.object.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return Err(VolumeError::Block(target.key()));
    }
    Ok(mounted(
        names::pod::TARGET_VOLUME,
        &names::pod::target_mount(names::pod::TARGET_VOLUME),
        &claim_identity(namespace, name),
    ))
}

/// What stands for a volume whichever pod mounts it; `owner` is whose an emptyDir is. A path would not do, as one volume
/// may be mounted at several.
pub(crate) fn identity(namespace: &str, owner: &str, source: &VolumeSource) -> Result<String, VolumeError> {
    match source.set_fields().as_slice() {
        [_] => {}
        [] => return Err(VolumeError::NoSource),
        several => return Err(VolumeError::SeveralSources(several.join(", "))),
    }
    if let Some(claim) = &source.persistent_volume_claim {
        return Ok(claim_identity(namespace, &claim.claim_name));
    }
    if let Some(host_path) = &source.host_path {
        return Ok(format!("host{}", path::absolute(&host_path.path)?));
    }
    if source.empty_dir.is_some() || source.ephemeral.is_some() {
        return Ok(format!("pod/{owner}"));
    }
    let text = serde_json::to_string(source).unwrap_or_default();
    Ok(format!("other/{namespace}/{}", names::pod::hash(&text)))
}

/// What stands for a claim.
pub(crate) fn claim_identity(namespace: &str, name: &str) -> String {
    format!("claim/{namespace}/{name}")
}

/// Namespace and name of the claim that a PersistentVolume says it is bound to.
pub(crate) fn claim_of(volume: &PersistentVolume) -> Option<(&str, &str)> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some((claim.namespace.as_deref()?, claim.name.as_deref()?))
}

/// The name of a PersistentVolume's source, as its manifest writes it.
fn source_of(volume: &PersistentVolume) -> String {
    const OTHER_FIELDS: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let spec = serde_json::to_value(&volume.spec).unwrap_or_default();
    let fields = spec.as_object().into_iter().flat_map(|fields| fields.keys());
    let sources: Vec<&str> = fields.map(String::as_str).filter(|field| !OTHER_FIELDS.contains(field)).collect();
    if sources.is_empty() { "none".to_owned() } else { sources.join(", ") }
}

/// A hostPath, joined to `base` where it is relative.
pub(crate) fn host_path_in(base: &str, host_path: &str) -> Result<String, PathError> {
    if host_path.is_empty() {
        Err(PathError::Empty)
    } else if host_path.starts_with('/') {
        path::absolute(host_path)
    } else {
        Ok(path::join(base, &path::relative(host_path)?))
    }
}

fn items(items: Option<&[KeyToPath]>) -> Result<BTreeMap<String, String>, PathError> {
    items.unwrap_or_default().iter().map(|item| Ok((item.key.clone(), path::relative(&item.path)?))).collect()
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(DEFAULT_FILE_MODE) & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_host_paths_are_relative_to_their_manifest() {
        for (base, path, expected) in [
            ("/manifests/demo", "/srv//data/", Ok("/srv/data")),
            ("/manifests/demo", "data", Ok("/manifests/demo/data")),
            ("/manifests/demo", "./data/.", Ok("/manifests/demo/data")),
            ("/manifests/demo", ".", Ok("/manifests/demo")),
            ("/", "data", Ok("/data")),
            ("/manifests", "../data", Err(PathError::Escapes("../data".to_owned()))),
            ("/manifests", "/srv/../etc", Err(PathError::Escapes("/srv/../etc".to_owned()))),
            ("/manifests", "", Err(PathError::Empty)),
        ] {
            assert_eq!(host_path_in(base, path), expected.map(str::to_owned), "{path} in {base}");
        }
    }

    #[test]
    fn modes_are_permission_bits() {
        assert_eq!(mode(None), 0o644);
        assert_eq!(mode(Some(0o400)), 0o400);
        assert_eq!(mode(Some(0o100_600)), 0o600);
        assert_eq!(mode(Some(-1)), 0o644);
    }
}
