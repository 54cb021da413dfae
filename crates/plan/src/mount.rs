//! From a path inside a container to a volume and a path within it, by the containers' volume mounts.
//!
//! Within one container the mount with the longest path counts, as the kernel has it. Where several
//! containers mount something over the same path, the longest mount of all counts, since a shorter one
//! shows only the empty mount point; two different volumes at the same place are an error, because the
//! manifest does not say whose data is meant. Init containers count only where they stay (restart policy
//! `Always`): what others mounted is gone when a backup runs.

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};

use crate::path::{self, PathError};

/// Where a container path lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted<'a> {
    /// The volume's name in the pod.
    pub(crate) volume: &'a str,
    /// The path within the volume, clean and relative.
    pub(crate) sub_path: String,
    /// Other volumes mounted beneath the path: a backup of this volume does not hold their data.
    pub(crate) beneath: Vec<String>,
}

/// Why a container path lies in no volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountError {
    /// No mount covers the path.
    #[error("no volume is mounted at `{path}`; {}", mounts_hint(.mounts))]
    Unmounted {
        /// The path asked for.
        path: String,
        /// The mount paths there are, sorted.
        mounts: Vec<String>,
    },
    /// Two containers mount different volumes at the same place.
    #[error(
        "`{path}` is volume `{first}` in container `{first_container}` but volume `{second}` in container `{second_container}`; back up each by a path that only one of them has"
    )]
    Ambiguous {
        /// The path asked for.
        path: String,
        /// One volume with its sub-path.
        first: String,
        /// The container that mounts it.
        first_container: String,
        /// The other volume with its sub-path.
        second: String,
        /// The container that mounts that.
        second_container: String,
    },
    /// A `subPathExpr` depends on the running container.
    #[error(
        "the mount of volume `{volume}` at `{mount_path}` has a `subPathExpr`, which only a running container can expand; use `subPath`"
    )]
    SubPathExpr {
        /// The volume.
        volume: String,
        /// Where it is mounted.
        mount_path: String,
    },
    /// The mount's own path cannot be used.
    #[error("the mount of volume `{volume}`: {reason}")]
    Mount {
        /// The volume.
        volume: String,
        /// What is wrong.
        reason: PathError,
    },
}

fn mounts_hint(mounts: &[String]) -> String {
    if mounts.is_empty() {
        "its containers mount no volume".to_owned()
    } else {
        format!("volumes are mounted at {}", mounts.iter().map(|m| format!("`{m}`")).collect::<Vec<_>>().join(", "))
    }
}

/// Finds the volume that holds the clean absolute `path`.
pub(crate) fn locate<'a>(pod: &'a PodSpec, path: &str) -> Result<Mounted<'a>, MountError> {
    let mut best: Option<(usize, Mounted<'a>, &'a str)> = None;
    let mut mounts = Vec::new();
    let mut beneath = Vec::new();
    for (container, mount) in mounts_of(pod) {
        let mount_path = mount_path(mount)?;
        if let Some(rest) = path::beneath(path, &mount_path) {
            let candidate = Mounted { volume: &mount.name, sub_path: sub_path(mount, rest)?, beneath: Vec::new() };
            match &best {
                Some((length, _, _)) if *length > mount_path.len() => {}
                Some((length, chosen, by)) if *length == mount_path.len() => {
                    if (chosen.volume, &chosen.sub_path) != (candidate.volume, &candidate.sub_path) {
                        return Err(MountError::Ambiguous {
                            path: path.to_owned(),
                            first: path::join(chosen.volume, &chosen.sub_path),
                            first_container: (*by).to_owned(),
                            second: path::join(candidate.volume, &candidate.sub_path),
                            second_container: container.name.clone(),
                        });
                    }
                }
                _ => best = Some((mount_path.len(), candidate, &container.name)),
            }
        } else if path::beneath(&mount_path, path).is_some() {
            beneath.push((mount_path.clone(), mount.name.as_str()));
        }
        mounts.push(mount_path);
    }
    let Some((_, mut mounted, _)) = best else {
        mounts.sort();
        mounts.dedup();
        return Err(MountError::Unmounted { path: path.to_owned(), mounts });
    };
    mounted.beneath =
        beneath.into_iter().filter(|(_, volume)| *volume != mounted.volume).map(|(mount_path, _)| mount_path).collect();
    mounted.beneath.sort();
    mounted.beneath.dedup();
    Ok(mounted)
}

fn mounts_of(pod: &PodSpec) -> impl Iterator<Item = (&Container, &VolumeMount)> {
    let stays = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = pod.init_containers.iter().flatten().filter(stays);
    let containers = pod.containers.iter().chain(sidecars);
    containers.flat_map(|container| container.volume_mounts.iter().flatten().map(move |mount| (container, mount)))
}

fn mount_path(mount: &VolumeMount) -> Result<String, MountError> {
    path::absolute(&mount.mount_path).map_err(|reason| MountError::Mount { volume: mount.name.clone(), reason })
}

fn sub_path(mount: &VolumeMount, rest: &str) -> Result<String, MountError> {
    if mount.sub_path_expr.as_deref().is_some_and(|expression| !expression.is_empty()) {
        let (volume, mount_path) = (mount.name.clone(), mount.mount_path.clone());
        return Err(MountError::SubPathExpr { volume, mount_path });
    }
    let root = path::relative(mount.sub_path.as_deref().unwrap_or_default())
        .map_err(|reason| MountError::Mount { volume: mount.name.clone(), reason })?;
    Ok(path::join(&root, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    type MountRow<'a> = (&'a str, &'a str, &'a str);

    /// A pod whose containers mount `(volume, mount path, sub-path)`.
    fn pod(containers: &[&[MountRow<'_>]]) -> PodSpec {
        let container = |(number, mounts): (usize, &&[MountRow<'_>])| Container {
            name: format!("c{number}"),
            volume_mounts: Some(
                mounts
                    .iter()
                    .map(|(volume, mount_path, sub_path)| VolumeMount {
                        name: (*volume).to_owned(),
                        mount_path: (*mount_path).to_owned(),
                        sub_path: Some((*sub_path).to_owned()).filter(|sub_path| !sub_path.is_empty()),
                        ..VolumeMount::default()
                    })
                    .collect(),
            ),
            ..Container::default()
        };
        PodSpec { containers: containers.iter().enumerate().map(container).collect(), ..PodSpec::default() }
    }

    fn check(containers: &[&[MountRow<'_>]], path: &str, volume: &str, sub_path: &str) {
        let pod = pod(containers);
        let mounted = locate(&pod, path).unwrap();
        assert_eq!((mounted.volume, mounted.sub_path.as_str()), (volume, sub_path), "{path}");
    }

    #[test]
    fn the_longest_mount_counts() {
        let mounts: &[&[MountRow<'_>]] = &[&[("a", "/source", ""), ("b", "/source/data/", ""), ("c", "/", "")]];
        check(mounts, "/source", "a", "");
        check(mounts, "/source/x/y", "a", "x/y");
        check(mounts, "/source/data", "b", "");
        check(mounts, "/source/data/x", "b", "x");
        check(mounts, "/source-other", "c", "source-other");
        check(mounts, "/", "c", "");
    }

    #[test]
    fn a_sub_path_goes_before_the_rest() {
        check(&[&[("a", "/data", "pg/16")]], "/data/base", "a", "pg/16/base");
        check(&[&[("a", "/data", "./pg/")]], "/data", "a", "pg");
    }

    #[test]
    fn several_containers_add_their_mounts() {
        check(&[&[("a", "/x", "")], &[("b", "/y", "")]], "/y/z", "b", "z");
        check(&[&[("a", "/x", "")], &[("a", "/x", "")]], "/x", "a", "");
        check(&[&[("a", "/x", "")], &[("b", "/x/y", "")]], "/x/y", "b", "");
    }

    #[test]
    fn different_volumes_at_one_place_are_ambiguous() {
        let pod = pod(&[&[("a", "/x", "")], &[("b", "/x", "")]]);
        let error = locate(&pod, "/x/y").unwrap_err().to_string();
        assert!(error.contains("volume `a/y` in container `c0` but volume `b/y` in container `c1`"), "{error}");
    }

    #[test]
    fn a_path_in_no_volume_names_the_mounts() {
        let pod = pod(&[&[("b", "/b", ""), ("a", "/a", "")]]);
        let error = locate(&pod, "/c").unwrap_err().to_string();
        assert_eq!(error, "no volume is mounted at `/c`; volumes are mounted at `/a`, `/b`");
    }

    #[test]
    fn volumes_beneath_are_named() {
        let pod = pod(&[&[("a", "/x", ""), ("b", "/x/cache", ""), ("a", "/x/again", "sub")]]);
        assert_eq!(locate(&pod, "/x").unwrap().beneath, ["/x/cache"]);
        assert_eq!(locate(&pod, "/x/other").unwrap().beneath, [""; 0]);
    }

    #[test]
    fn a_sub_path_that_escapes_is_refused() {
        let pod = pod(&[&[("a", "/x", "../y")]]);
        let error = locate(&pod, "/x").unwrap_err();
        assert!(matches!(&error, MountError::Mount { volume, reason: PathError::Escapes(_) } if volume == "a"));
    }

    #[test]
    fn init_containers_count_only_where_they_stay() {
        let mut pod = pod(&[&[("a", "/x", "")]]);
        let mut init = pod.containers.remove(0);
        pod.init_containers = Some(vec![init.clone()]);
        assert!(locate(&pod, "/x").is_err());
        init.restart_policy = Some("Always".to_owned());
        pod.init_containers = Some(vec![init]);
        assert_eq!(locate(&pod, "/x").unwrap().volume, "a");
    }
}
