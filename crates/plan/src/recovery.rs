//! From a `Recovery` to what is restored where: one planned recovery per host of a workload, or one into
//! volumes.
//!
//! - Without a snapshot, each path comes from the latest snapshot of the host that holds it.
//! - Without paths, everything that backups of the target store in that repository is restored; into a volume,
//!   what they store at or below its mount path. One that has restored a workload keeps the paths of that run when
//!   such a backup is gone.
//! - `IfNotRecovered` is one occasion for ever. `Always` is a new one at each start of the program and each
//!   change of the workload's `spec`, which is what a restart is on a single machine.
//! - Where several workloads, or several hosts, store one path, a person has to say whose data is meant.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_api::manifest::Object;
use holdfast_api::names;
use holdfast_api::stash::{RecoverTo, RecoveredVolume, Recovery, RecoveryPolicy, RecoverySpec};
use holdfast_api::values::TargetReference;

use crate::Place;
use crate::backup::{self, Scheduled, agents};
use crate::index::Placed;
use crate::key::{ObjectKey, Target, TargetKind};
use crate::observed::Observed;
use crate::path;
use crate::planned::{PlannedRecovery, PlannedRepository, RecoveryState, Restore, SnapshotChoice};
use crate::report::{Finding, Report};
use crate::repository::Repositories;
use crate::retry::Retry;
use crate::source::{DirectorySource, Volume};
use crate::target::{Lookup, Wanted, ancestors, clean_paths};
use crate::volume::{self, Pod};

/// Who stores which path under which host name, by location of the repository.
#[derive(Debug, Default)]
pub(crate) struct Writers<'a> {
    by_location: HashMap<&'a str, Stored<'a>>,
    nobody: Stored<'a>,
}

/// What is stored in one repository.
#[derive(Debug, Default)]
struct Stored<'a> {
    by_target: HashMap<&'a Target, Vec<Writer<'a>>>,
    by_path: BTreeMap<&'a str, BTreeSet<(&'a Target, &'a str)>>,
    by_host_and_path: HashMap<(&'a str, &'a str), BTreeSet<(&'a Target, &'a str)>>,
}

#[derive(Debug)]
struct Writer<'a> {
    host: &'a str,
    repository: &'a str,
    path: &'a str,
}

impl<'a> Writers<'a> {
    /// Collects what `backups` store; two repositories of one location count as one.
    pub(crate) fn new(backups: &'a [Scheduled], location: impl Fn(&str) -> &'a str) -> Self {
        let mut writers = Self::default();
        for Scheduled { planned, .. } in backups {
            let (target, host, repository) = (&planned.target, planned.host.as_str(), planned.repository.as_str());
            let stored = writers.by_location.entry(location(repository)).or_default();
            for directory in planned.snapshots.iter().flat_map(|snapshot| &snapshot.directories) {
                let path = directory.path.as_str();
                stored.by_target.entry(target).or_default().push(Writer { host, repository, path });
                stored.by_path.entry(path).or_default().insert((target, host));
                stored.by_host_and_path.entry((host, path)).or_default().insert((target, host));
            }
        }
        writers
    }

    fn of(&self, repository: &PlannedRepository) -> &Stored<'a> {
        self.by_location.get(repository.location.as_str()).unwrap_or(&self.nobody)
    }
}

impl<'a> Stored<'a> {
    /// What is stored of a target.
    fn of(&self, target: &Target) -> &[Writer<'a>] {
        self.by_target.get(target).map_or(&[], Vec::as_slice)
    }

    /// The paths at or below a mount path.
    fn below(&self, mount_path: &'a str) -> impl Iterator<Item = &'a str> {
        let from = self.by_path.range(mount_path..).map(|(path, _)| *path);
        let near = from.take_while(move |path| path.starts_with(mount_path));
        near.filter(move |path| path::beneath(path, mount_path).is_some())
    }

    /// Who stores a path, itself or within a folder above it: a few of them.
    fn who(&self, host: Option<&'a str>, path: &'a str) -> BTreeSet<(&'a Target, &'a str)> {
        const FEW: usize = 4;
        let found = std::iter::once(path).chain(ancestors(path)).filter_map(|path| match host {
            Some(host) => self.by_host_and_path.get(&(host, path)),
            None => self.by_path.get(path),
        });
        found.flat_map(|who| who.iter().take(FEW)).copied().collect()
    }
}

/// Plans every Recovery.
pub(crate) fn plan_all(
    lookup: Lookup<'_>,
    repositories: &Repositories,
    writers: &Writers<'_>,
    observed: &Observed,
    report: &mut Report,
) -> Vec<PlannedRecovery> {
    let mut recoveries = Vec::new();
    for ((namespace, _), recovery) in &lookup.index.recoveries {
        let mut warnings = Vec::new();
        match plan(lookup, repositories, writers, observed, namespace, recovery, &mut warnings) {
            Ok(planned) => recoveries.extend(planned),
            Err(findings) => report.errors(recovery.manifest, findings),
        }
        report.warnings(recovery.manifest, warnings);
    }
    recoveries
}

/// Where one host's data goes.
struct Destination {
    /// The last part of the id.
    instance: String,
    target: Option<Target>,
    /// Only snapshots of this host count.
    host: Option<String>,
    restore: Vec<Restore>,
    /// What counts as a restart under `Always`.
    restarts_with: String,
}

fn plan(
    lookup: Lookup<'_>,
    repositories: &Repositories,
    writers: &Writers<'_>,
    observed: &Observed,
    namespace: &str,
    recovery: &Placed<'_, Recovery>,
    warnings: &mut Vec<Finding>,
) -> Result<Vec<PlannedRecovery>, Vec<Finding>> {
    let spec = &recovery.object.spec;
    let repository = repositories.find(lookup, namespace, &spec.repository)?;
    let agent = backup::agent(lookup, spec.recovery_agent.as_ref(), agents::VOLUME_RECOVERY, "spec.recoveryAgent")?;
    let wanted = clean_paths("spec.paths[]", spec.paths.iter().map(String::as_str))?;
    let (manifest, stored) = (recovery.manifest, writers.of(repository));
    let request = Request { lookup, namespace, spec, manifest, stored, observed, repository };
    let destinations = match (&spec.recover_to, spec.recovered_volumes.as_slice()) {
        (Some(RecoverTo::Workload(reference)), []) => request.workload_destinations(reference, wanted, warnings)?,
        (Some(RecoverTo::Volume(volume)), []) => {
            request.volume_destinations("spec.recoverTo.volume", std::slice::from_ref(&**volume), wanted, warnings)?
        }
        (None, volumes @ [_, ..]) => request.volume_destinations("spec.recoveredVolumes", volumes, wanted, warnings)?,
        (None, []) => return Err(Finding::new("spec", "recoverTo is missing: nothing says where the data goes").into()),
        (Some(_), _) => {
            return Err(Finding::new("spec.recoveredVolumes", "recoverTo stands beside it; keep one of the two").into());
        }
    };
    let snapshot = spec.snapshot.as_deref().map_or("latest", snapshot_id);
    if snapshot != "latest" && spec.host.is_none() && destinations.len() > 1 {
        let problem =
            format!("one snapshot is of one host, but {} hosts would be restored from it", destinations.len());
        let way_out = "leave out `snapshot`, or name the `host` whose data all of them are to get";
        return Err(Finding::new("spec.snapshot", problem).suggest(way_out).into());
    }
    let object = ObjectKey::new("Recovery", namespace, &*manifest.name);
    let planned = destinations.into_iter().map(|destination| PlannedRecovery {
        occasion: match spec.recovery_policy {
            RecoveryPolicy::IfNotRecovered => "once".to_owned(),
            RecoveryPolicy::Always => occasion(lookup, &destination),
        },
        id: format!("{}/{}", id(namespace, manifest), destination.instance),
        object: object.clone(),
        target: destination.target,
        repository: repository.id.clone(),
        snapshot: SnapshotChoice { id: snapshot.to_owned(), host: destination.host },
        restore: destination.restore,
        include: spec.include.clone(),
        exclude: spec.exclude.clone(),
        overwrite_newer: spec.overwrite_newer,
        delete_extra: spec.delete_extra,
        agent: agent.clone(),
        policy: spec.recovery_policy,
        retry: Retry::from(spec.retry_config.as_ref()),
        time_out: spec.time_out,
        state: RecoveryState::Pending,
        revision: String::new(),
    });
    Ok(planned.collect())
}

/// What the ids of all planned recoveries of an object begin with.
fn id(namespace: &str, manifest: &Object) -> String {
    format!("Recovery/{namespace}/{}", manifest.name)
}

/// One start of what is recovered into.
fn occasion(lookup: Lookup<'_>, Destination { target, restarts_with, .. }: &Destination) -> String {
    match (&lookup.settings.place, target) {
        (Place::Folder, _) => format!("{} {restarts_with}", lookup.settings.started),
        (Place::Pod { uid, .. }, Some(_)) => format!("pod {uid}"),
        (Place::Cluster, Some(_)) => "each start of a pod".to_owned(),
        // A volume has no start: a change of the Recovery is one.
        (Place::Cluster | Place::Pod { .. }, None) => format!("spec {restarts_with}"),
    }
}

/// The id in `<workload>-<8 hex digits>`, as `v1alpha1` names snapshots; anything else is the id already.
fn snapshot_id(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((_, id)) if id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => id,
        _ => name,
    }
}

/// A Recovery while it is planned.
struct Request<'a> {
    lookup: Lookup<'a>,
    namespace: &'a str,
    spec: &'a RecoverySpec,
    manifest: &'a Object,
    repository: &'a PlannedRepository,
    stored: &'a Stored<'a>,
    observed: &'a Observed,
}

impl Request<'_> {
    fn workload_destinations(
        &self,
        reference: &TargetReference,
        mut wanted: Vec<Wanted>,
        warnings: &mut Vec<Finding>,
    ) -> Result<Vec<Destination>, Vec<Finding>> {
        const FIELD: &str = "spec.recoverTo.workload";
        let TargetReference { api_version, kind, name } = reference;
        let (target, workload) = self.lookup.target(self.namespace, api_version, kind, name, FIELD)?;
        let stored = self.stored.of(&target);
        if wanted.is_empty() {
            let mut paths: BTreeSet<&str> = stored.iter().map(|writer| writer.path).collect();
            if paths.is_empty() {
                paths = self.restored_before();
            }
            wanted = outermost(paths)
                .into_iter()
                .map(|path| Wanted { field: FIELD.to_owned(), path: path.to_owned() })
                .collect();
        }
        let is_volume = matches!(target.kind, TargetKind::PersistentVolumeClaim | TargetKind::PersistentVolume);
        if wanted.is_empty() && !is_volume && target.kind != TargetKind::AppBinding {
            let problem = format!("no Backup of {} in this repository says which paths there are", target.key());
            return Err(Finding::new("spec.paths", problem).suggest("list the paths to restore").into());
        }
        let sources = self.lookup.sources(&target, workload, &wanted, &[], warnings).map_err(at_workload)?;
        let mut destinations = Vec::new();
        for source in sources {
            // The repository of a Restic is that of one host: the others have nothing in it.
            let restic = self.repository.made_by.as_ref().is_some_and(|object| object.kind == "Restic");
            let mut hosts = stored.iter().filter(|writer| writer.repository == self.repository.id);
            if restic && !hosts.any(|writer| writer.host == source.host.name) {
                continue;
            }
            let host = self.spec.host.clone().unwrap_or(source.host.name);
            let restore = source.directories.into_iter().map(|d| Restore { path: d.path, into: d.source }).collect();
            self.check(Some(&host), &restore, FIELD)?;
            destinations.push(Destination {
                instance: source.host.instance,
                target: Some(target.clone()),
                host: Some(host),
                restore,
                restarts_with: fingerprint(workload.manifest),
            });
        }
        if destinations.is_empty() {
            let problem = format!("{} stores nothing in this repository", target.key());
            return Err(Finding::new(FIELD, problem).into());
        }
        Ok(destinations)
    }

    /// The paths that its last runs restored, of whichever host.
    fn restored_before(&self) -> BTreeSet<&str> {
        let of_this = format!("{}/", id(self.namespace, self.manifest));
        let known = self.observed.recoveries.range(of_this.clone()..);
        let own = known.take_while(|(id, _)| id.starts_with(&of_this));
        own.flat_map(|(_, history)| history.restored.iter().map(String::as_str)).collect()
    }

    fn volume_destinations(
        &self,
        field: &str,
        volumes: &[RecoveredVolume],
        mut wanted: Vec<Wanted>,
        warnings: &mut Vec<Finding>,
    ) -> Result<Vec<Destination>, Vec<Finding>> {
        let mounts = volumes
            .iter()
            .enumerate()
            .map(|(number, volume)| self.mount(field, number, volume, warnings))
            .collect::<Result<Vec<(String, Volume)>, Finding>>()?;
        let mounted_at = |path: &str| {
            let covering = mounts.iter().filter_map(|(at, volume)| Some((at, volume, path::beneath(path, at)?)));
            covering.max_by_key(|(at, _, _)| at.len()).map(|(_, volume, rest)| (volume, rest.to_owned()))
        };
        if wanted.is_empty() {
            let stored: BTreeSet<&str> = mounts.iter().flat_map(|(at, _)| self.stored.below(at)).collect();
            let derived = |path: &str| Wanted { field: field.to_owned(), path: path.to_owned() };
            wanted = outermost(stored).into_iter().map(derived).collect();
            if wanted.is_empty() {
                wanted = mounts.iter().map(|(at, _)| derived(at)).collect();
            }
        }
        let mut restore = Vec::new();
        for Wanted { field, path } in wanted {
            let Some((volume, sub_path)) = mounted_at(&path) else {
                let at: Vec<String> = mounts.iter().map(|(at, _)| format!("`{at}`")).collect();
                let problem = format!("`{path}` lies in no recovered volume; they are mounted at {}", at.join(", "));
                return Err(Finding::new(field, problem).into());
            };
            restore.push(Restore { path, into: DirectorySource { volume: volume.clone(), sub_path } });
        }
        self.check(self.spec.host.as_deref(), &restore, field)?;
        Ok(vec![Destination {
            instance: "volume".to_owned(),
            target: None,
            host: self.spec.host.clone(),
            restore,
            restarts_with: fingerprint(self.manifest),
        }])
    }

    fn mount(
        &self,
        field: &str,
        number: usize,
        RecoveredVolume { mount_path, volume }: &RecoveredVolume,
        warnings: &mut Vec<Finding>,
    ) -> Result<(String, Volume), Finding> {
        let at = path::absolute(mount_path).map_err(|error| Finding::new(format!("{field}.mountPath"), error))?;
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str());
        if self.lookup.settings.place.has_mounts() {
            if let Some(claim) = claim
                && self.lookup.settings.place == Place::Cluster
                && self.lookup.index.claim(self.namespace, claim).is_none()
            {
                let key = ObjectKey::new("PersistentVolumeClaim", self.namespace, claim);
                let problem = format!("{key} does not exist; the recovery waits for it");
                warnings.push(Finding::new(format!("{field}.persistentVolumeClaim"), problem));
            }
            let name = names::pod::recovered_volume(number);
            let owner = format!("{}/recovery.{}/{name}", self.namespace, self.manifest.name);
            let identity =
                volume::identity(self.namespace, &owner, volume).map_err(|error| Finding::of_volume(field, &error))?;
            return Ok((at, volume::mounted(&name, &names::pod::target_mount(&name), &identity)));
        }
        let volume = match claim {
            // A claim to restore into need not be declared: it may be made for this very purpose.
            Some(claim) if self.lookup.index.claim(self.namespace, claim).is_none() => {
                let key = ObjectKey::new("PersistentVolumeClaim", self.namespace, claim);
                let problem = format!("{key} is not declared; a folder of that name is used");
                warnings.push(Finding::new(format!("{field}.persistentVolumeClaim"), problem));
                volume::claim_by_reference(self.lookup.index, self.namespace, claim)
            }
            _ => {
                let base = self.lookup.index.base(self.manifest);
                let instance = format!("recovery.{}", self.manifest.name);
                let pod =
                    Pod { namespace: self.namespace, instance: &instance, name: &self.manifest.name, base: &base };
                volume::resolve(self.lookup.index, pod, "recovered", volume)
            }
        };
        Ok((at, volume.map_err(|error| Finding::of_volume(field, &error))?))
    }

    /// Refuses what cannot be restored into, and paths of which nobody can say whose data is meant.
    fn check(&self, host: Option<&str>, restore: &Vec<Restore>, field: &str) -> Result<(), Finding> {
        for Restore { path, into } in restore {
            if into.read_only() {
                let problem = format!("`{path}` is a ConfigMap or Secret, which cannot be restored into");
                return Err(Finding::new(field, problem));
            }
            if self.spec.snapshot.as_deref().is_some_and(|snapshot| snapshot != "latest") {
                continue;
            }
            let several = self.stored.who(host, path);
            if several.len() > 1 {
                let names: Vec<String> =
                    several.iter().map(|(target, host)| format!("{} as host `{host}`", target.key())).collect();
                let problem = format!("`{path}` is stored in this repository by {}", names.join(" and by "));
                let hosts: BTreeSet<&str> = several.iter().map(|(_, host)| *host).collect();
                let way_out = if hosts.len() > 1 { "name one of them by `host`" } else { "name the `snapshot`" };
                return Err(Finding::new(field, problem).suggest(way_out));
            }
        }
        Ok(())
    }
}

/// The paths that lie in no other of them.
fn outermost(paths: BTreeSet<&str>) -> Vec<&str> {
    paths.iter().filter(|path| !ancestors(path).any(|outer| paths.contains(outer))).copied().collect()
}

/// Moves findings about a target to the field that names it here.
fn at_workload(findings: Vec<Finding>) -> Vec<Finding> {
    let moved = |finding: Finding| match finding.path.strip_prefix("spec.targetRef") {
        Some(rest) => Finding { path: format!("spec.recoverTo.workload{rest}"), ..finding },
        None => finding,
    };
    findings.into_iter().map(moved).collect()
}

/// Changes whenever the `spec` of a manifest does, and only then: status and bookkeeping in `metadata` restart nothing
/// (FNV-1a, 64 bits).
fn fingerprint(manifest: &Object) -> String {
    let text = manifest.json["spec"].to_string();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_named_by_id_or_as_the_first_generation_did() {
        for (name, expected) in [
            ("latest", "latest"),
            ("0a1b2c3d", "0a1b2c3d"),
            ("deployment.stash-demo-0a1b2c3d", "0a1b2c3d"),
            ("not-a-hexid", "not-a-hexid"),
            ("a-12345", "a-12345"),
        ] {
            assert_eq!(snapshot_id(name), expected);
        }
    }

    #[test]
    fn paths_within_others_are_left_out() {
        let paths = BTreeSet::from(["/a/b", "/a", "/ab", "/c/d"]);
        assert_eq!(outermost(paths), ["/a", "/ab", "/c/d"]);
    }
}
