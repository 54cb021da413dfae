//! From a target and the paths asked for to the hosts and directories that a run reads.
//!
//! - A workload's paths are paths of its containers, mapped through their volume mounts.
//! - A claim or a volume has no containers: the one directory that may be named is where it is mounted, and
//!   all of it is meant; without a name it is mounted at [`CLAIM_MOUNT_PATH`].
//!
//! One wrong path fails the whole target: a run that silently saved less than it was told to would be taken
//! for a backup.

use std::collections::HashMap;

use holdfast_api::manifest::{Cause, Object};
use holdfast_api::names;
use holdfast_api::values::VolumeSource;
use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};

use crate::host::{Host, REPLICAS_MAX, hosts};
use crate::index::{Index, Workload};
use crate::key::{ObjectKey, Target, TargetKind};
use crate::mount;
use crate::path;
use crate::report::Finding;
use crate::source::{Directory, DirectorySource, Volume};
use crate::volume::{self, Pod, VolumeError};
use crate::{Place, Settings};

/// Where a claim or volume is mounted if its backup names no directory.
pub const CLAIM_MOUNT_PATH: &str = "/stash-data";

/// How many names an error offers in place of one that does not exist.
const SUGGESTIONS_MAX: usize = 5;

/// A path and the field that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) field: String,
    pub(crate) path: String,
}

/// A host and its directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) host: Host,
    pub(crate) directories: Vec<Directory>,
}

/// Cleans the paths of a list field and refuses duplicates and paths within each other.
pub(crate) fn clean_paths<'p>(
    field: &str,
    paths: impl IntoIterator<Item = &'p str>,
) -> Result<Vec<Wanted>, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut wanted: Vec<Wanted> = Vec::new();
    for (number, path) in paths.into_iter().enumerate() {
        let field = field.replace("[]", &format!("[{number}]"));
        match path::absolute(path) {
            Ok(path) => wanted.push(Wanted { field, path }),
            Err(error) => findings.push(Finding::new(field, error)),
        }
    }
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for Wanted { field, path } in &wanted {
        if let Some(first) = seen.insert(path, field) {
            findings.push(
                Finding::new(field, format!("`{path}` stands already in {first}")).suggest("remove one of the two"),
            );
        }
    }
    for Wanted { field, path } in &wanted {
        if let Some(outer) = ancestors(path).find(|outer| seen.contains_key(outer)) {
            let problem = format!("`{path}` lies within `{outer}`, which is named as well");
            findings.push(Finding::new(field, problem).suggest("remove one of the two"));
        }
    }
    if findings.is_empty() { Ok(wanted) } else { Err(findings) }
}

/// The folders above a clean absolute path, the nearest first.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let end = |path: &str| path.rfind('/').filter(|_| path != "/").map(|at| at.max(1));
    std::iter::successors(end(path).map(|at| &path[..at]), move |path| end(path).map(|at| &path[..at]))
}

/// What the planning of a target needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) index: &'a Index<'a>,
    pub(crate) settings: &'a Settings,
}

impl<'a> Lookup<'a> {
    /// The hosts of a workload, each with the directories `wanted`, through `mounts` instead of the
    /// containers' own if there are any.
    pub(crate) fn sources(
        self,
        target: &Target,
        workload: &Workload<'_>,
        wanted: &[Wanted],
        mounts: &[VolumeMount],
        warnings: &mut Vec<Finding>,
    ) -> Result<Vec<Source>, Vec<Finding>> {
        match target.kind {
            TargetKind::AppBinding => Err(not_served(target).into()),
            TargetKind::PersistentVolumeClaim | TargetKind::PersistentVolume => self.volume_source(target, wanted),
            _ => {
                let containers = Containers::new(self, target, workload, mounts)
                    .ok_or_else(|| Finding::new("spec.targetRef", format!("{} has no pod template", target.key())))?;
                let hosts = self.hosts(target, workload, "spec.targetRef")?;
                let mut findings = Vec::new();
                let mut sources = Vec::new();
                for host in hosts {
                    let mut directories = Vec::new();
                    for wanted in wanted {
                        match containers.directory(&host, wanted, warnings) {
                            Ok(directory) => directories.push(directory),
                            Err(finding) => findings.push(finding),
                        }
                    }
                    sources.push(Source { host, directories });
                }
                if findings.is_empty() { Ok(sources) } else { Err(findings) }
            }
        }
    }

    fn volume_source(self, target: &Target, wanted: &[Wanted]) -> Result<Vec<Source>, Vec<Finding>> {
        let path = match wanted {
            [] => CLAIM_MOUNT_PATH.to_owned(),
            [one] => one.path.clone(),
            [_, second, ..] => {
                let problem = format!("a {} is mounted at one path, and all of it is meant", target.kind.name());
                return Err(Finding::new(&second.field, problem)
                    .suggest("name one directory, and leave out parts by `exclude`")
                    .into());
            }
        };
        let volume = match target.kind {
            _ if self.settings.place.has_mounts() => volume::mounted_claim(self.index, target),
            TargetKind::PersistentVolume => match self.index.persistent_volume(&target.name) {
                Some(volume) => volume::resolve_persistent_volume(self.index, volume),
                None => Err(VolumeError::Missing(target.key())),
            },
            _ => volume::resolve_claim(self.index, &target.namespace, &target.name),
        };
        let volume = volume.map_err(|error| {
            let cause = if matches!(error, VolumeError::Missing(_)) { Cause::MissingTarget } else { Cause::Invalid };
            Finding::new("spec.targetRef", error).because(cause)
        })?;
        let directory = Directory { path, source: DirectorySource::root(volume) };
        let hosts = self.only_planned(hosts(target, 1, 0, &self.settings.node));
        Ok(hosts.into_iter().map(|host| Source { host, directories: vec![directory.clone()] }).collect())
    }

    /// The hosts of a target; `field` is what ties it.
    pub(crate) fn hosts(self, target: &Target, workload: &Workload<'_>, field: &str) -> Result<Vec<Host>, Finding> {
        if workload.replicas > REPLICAS_MAX {
            let problem =
                format!("{} has {} replicas; at most {REPLICAS_MAX} can be backed up", target.key(), workload.replicas);
            return Err(Finding::new(field, problem));
        }
        // Scaled to none, it is prepared all the same, so that scaling it up again does not restart it.
        let at_least = u32::from(self.settings.place == Place::Cluster);
        let replicas = workload.replicas.max(at_least);
        Ok(self.only_planned(hosts(target, replicas, workload.first_ordinal, &self.settings.node)))
    }

    /// Leaves out hosts that other pods plan.
    fn only_planned(self, mut hosts: Vec<Host>) -> Vec<Host> {
        if let Place::Pod { host: Some(own), .. } = &self.settings.place {
            hosts.retain(|host| host.instance == *own);
        }
        hosts
    }

    /// The target that a reference names, or why there is none.
    pub(crate) fn target(
        self,
        namespace: &str,
        api_version: &str,
        kind: &str,
        name: &str,
        field: &str,
    ) -> Result<(Target, &'a Workload<'a>), Finding> {
        let Some(kind) = TargetKind::parse(kind) else {
            let kinds = TargetKind::ALL.map(TargetKind::name).join(", ");
            return Err(Finding::new(
                format!("{field}.kind"),
                format!("`{kind}` cannot be backed up or recovered; kinds that can are {kinds}"),
            ));
        };
        if kind.group() != api_version.rsplit_once('/').map_or("", |(group, _)| group) {
            let problem = format!("`{api_version}` has no {}", kind.name());
            return Err(
                Finding::new(format!("{field}.apiVersion"), problem).suggest(format!("write `{}`", kind.api_version()))
            );
        }
        let namespace = if kind == TargetKind::PersistentVolume { "" } else { namespace };
        let target = Target::new(kind, namespace, name);
        match self.index.workloads.get(&target) {
            Some(workload) => Ok((target, workload)),
            None => {
                let first = Target::new(kind, namespace, "");
                let of_kind = self.index.workloads.range(first..).map(|(other, _)| other);
                let names = of_kind
                    .take_while(|other| other.kind == kind && other.namespace == namespace)
                    .map(|other| &*other.name);
                let finding = self.missing(format!("{field}.name"), &target.key(), names);
                // One that is there and wrong says so itself.
                Err(match finding.cause {
                    Cause::MissingReference => finding.because(Cause::MissingTarget),
                    _ => finding,
                })
            }
        }
    }

    /// The manifest of a planned object; of one that was made from a template, that of its target.
    pub(crate) fn manifest(self, object: &ObjectKey, target: &Target) -> Option<&'a Object> {
        let name = (object.namespace.as_str(), object.name.as_str());
        let written = match object.kind.as_str() {
            "Restic" => self.index.restics.get(&name).map(|restic| restic.manifest),
            _ => self.index.backups.get(&name).map(|backup| backup.manifest),
        };
        written.or_else(|| self.index.workloads.get(target).map(|workload| workload.manifest))
    }

    /// A reference to something that is not there.
    pub(crate) fn missing<'n>(
        self,
        field: impl Into<String>,
        key: &ObjectKey,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Finding {
        if self.index.is_rejected(key) {
            let finding = Finding::new(field, format!("{key} has errors of its own"));
            return finding.because(Cause::InvalidReference).suggest("correct those first");
        }
        let mut names: Vec<&str> = names.into_iter().take(SUGGESTIONS_MAX + 1).collect();
        names.sort_unstable();
        let finding = Finding::new(field, format!("{key} not found")).because(Cause::MissingReference);
        match names.as_slice() {
            [] => finding.suggest("add it, or correct the name"),
            [only] => finding.suggest(format!("did you mean `{only}`?")),
            few if few.len() <= SUGGESTIONS_MAX => finding.suggest(format!("there are {}", quoted(few))),
            many => finding.suggest(format!("there are {} and more", quoted(&many[..SUGGESTIONS_MAX]))),
        }
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The containers of a workload, to look up their paths.
#[derive(Debug)]
pub(crate) struct Containers<'a> {
    lookup: Lookup<'a>,
    target: &'a Target,
    workload: &'a Workload<'a>,
    pod: &'a PodSpec,
    /// A container with other mounts, whose paths count instead.
    sidecar: Option<PodSpec>,
}

impl<'a> Containers<'a> {
    /// The containers of `workload`; with `mounts`, one container that has those. None if it has no pods.
    pub(crate) fn new(
        lookup: Lookup<'a>,
        target: &'a Target,
        workload: &'a Workload<'a>,
        mounts: &[VolumeMount],
    ) -> Option<Self> {
        let sidecar = |mounts: &[VolumeMount]| {
            let volume_mounts = Some(mounts.to_vec());
            let container = Container { name: "sidecar".to_owned(), volume_mounts, ..Container::default() };
            PodSpec { containers: vec![container], ..PodSpec::default() }
        };
        let sidecar = Some(mounts).filter(|mounts| !mounts.is_empty()).map(sidecar);
        Some(Self { lookup, target, workload, pod: workload.pod?, sidecar })
    }

    /// Where a path of the containers is on `host`.
    pub(crate) fn directory(
        &self,
        host: &Host,
        Wanted { field, path }: &Wanted,
        warnings: &mut Vec<Finding>,
    ) -> Result<Directory, Finding> {
        let place = mount::locate(self.sidecar.as_ref().unwrap_or(self.pod), path)
            .map_err(|error| Finding::new(field, format!("{}: {error}", self.target.key())))?;
        for beneath in &place.beneath {
            let problem = format!("`{beneath}` beneath `{path}` is another volume, which is not part of it");
            let way_out = "name it in a backup of its own if it is to be saved";
            warnings.push(Finding::new(field, problem).suggest(way_out));
        }
        let volume = self.volume(host, place.volume).map_err(|error| {
            Finding::new(field, format!("`{path}` is on volume `{}` of {}: {error}", place.volume, self.target.key()))
        })?;
        Ok(Directory { path: path.clone(), source: DirectorySource { volume, sub_path: place.sub_path } })
    }

    /// The volume `name` of the pod on `host`.
    pub(crate) fn volume(&self, host: &Host, name: &str) -> Result<Volume, VolumeError> {
        let (index, namespace) = (self.lookup.index, self.target.namespace.as_str());
        // A claim template takes the place of a pod's volume of the same name, as in Kubernetes.
        if self.workload.claim_templates.iter().any(|claim| claim.metadata.name.as_deref() == Some(name)) {
            let claim = format!("{name}-{}", host.name);
            if self.lookup.settings.place.has_mounts() {
                return Ok(volume::mounted(
                    name,
                    &names::pod::target_mount(name),
                    &volume::claim_identity(namespace, &claim),
                ));
            }
            return match index.claim(namespace, &claim) {
                Some(_) => volume::resolve_claim(index, namespace, &claim),
                None => volume::claim_by_reference(index, namespace, &claim),
            };
        }
        let Some(volume) = self.pod.volumes.iter().flatten().find(|volume| volume.name == name) else {
            return Err(VolumeError::Undeclared(name.to_owned()));
        };
        if self.lookup.settings.place.has_mounts() {
            let owner = format!("{namespace}/{}/{name}", host.instance);
            let identity = volume::identity(namespace, &owner, &VolumeSource::from(volume.clone()))?;
            return Ok(volume::mounted(name, &names::pod::target_mount(name), &identity));
        }
        let base = index.base(self.workload.manifest);
        let instance = Pod { namespace, instance: &host.instance, name: &host.name, base: &base };
        volume::resolve(index, instance, name, &VolumeSource::from(volume.clone()))
    }
}

/// What is said of databases for now.
fn not_served(target: &Target) -> Finding {
    let problem = format!("{}: databases are not yet served, nothing is backed up or recovered", target.key());
    Finding::new("spec.targetRef", problem).because(Cause::NotServed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paths: &[&str], expected: Result<&[&str], &[&str]>) {
        let found = clean_paths("spec.paths[]", paths.iter().copied());
        let found = match &found {
            Ok(wanted) => Ok(wanted.iter().map(|wanted| wanted.path.as_str()).collect::<Vec<_>>()),
            Err(findings) => Err(findings.iter().map(|f| format!("{}: {}", f.path, f.problem)).collect::<Vec<_>>()),
        };
        let expected = expected.map(<[_]>::to_vec).map_err(|e| e.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expected, "{paths:?}");
    }

    #[test]
    fn paths_are_cleaned_and_told_apart() {
        check(&["/a/", "/b"], Ok(&["/a", "/b"]));
        check(&["/a", "/a-b", "/ab"], Ok(&["/a", "/a-b", "/ab"]));
        check(&["/a", "/a/"], Err(&["spec.paths[1]: `/a` stands already in spec.paths[0]"]));
        check(&["/a/b/c", "/a"], Err(&["spec.paths[0]: `/a/b/c` lies within `/a`, which is named as well"]));
        check(&["/", "/a"], Err(&["spec.paths[1]: `/a` lies within `/`, which is named as well"]));
        check(&["/a", "x"], Err(&["spec.paths[1]: `x` is not absolute; write it with a leading `/`"]));
    }

    #[test]
    fn ancestors_end_at_the_root() {
        assert_eq!(ancestors("/a/b").collect::<Vec<_>>(), ["/a", "/"]);
        assert_eq!(ancestors("/a").collect::<Vec<_>>(), ["/"]);
        assert_eq!(ancestors("/").count(), 0);
    }
}
