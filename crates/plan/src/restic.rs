//! From a `Restic` to the workloads it protects, their repositories and their runs.
//!
//! - First generation: a workload names its Restic by the label `restic.appscode.com/config`.
//! - Second generation: a Restic selects workloads of its namespace by their labels.
//!
//! A workload that two of them claim is backed up by neither: nobody can say whose retention would win. What
//! a controller made is left to its controller: a ReplicaSet of a Deployment is protected through the
//! Deployment, and a bare Pod, which nobody would make again, is never patched; a `Backup` may name it.
//!
//! Each file group is a snapshot of its own, with its own tags and retention, in the workload's repository.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::names::{RESTIC_CONFIG_LABEL, secret_keys};
use holdfast_api::stash::{Restic, ResticForm, ResticType};
use holdfast_api::values::{Backend, BackendKind, LocalBackend, RetentionPolicy, Schedule, VolumeSource};
use k8s_openapi::api::core::v1::VolumeMount;

use crate::Place;
use crate::backup::{Scheduled, agents, id, own_tag};
use crate::host::Host;
use crate::index::{Placed, Workload};
use crate::key::{ObjectKey, Target, TargetKind};
use crate::path;
use crate::planned::{PlannedBackup, PlannedSnapshot, Retention};
use crate::report::{Finding, Report};
use crate::repository::{Draft, Repositories};
use crate::retry::Retry;
use crate::source::{Directory, DirectorySource};
use crate::target::{Containers, Lookup, Wanted, clean_paths};

/// Plans every Restic; its repositories go to `repositories`.
pub(crate) fn plan_all(lookup: Lookup<'_>, repositories: &mut Repositories, report: &mut Report) -> Vec<Scheduled> {
    let mut claims: BTreeMap<Target, Vec<&str>> = BTreeMap::new();
    claim_by_label(lookup, &mut claims, report);
    claim_by_selector(lookup, &mut claims, report);
    let mut protected: BTreeMap<(&str, &str), Vec<&Target>> = BTreeMap::new();
    for (target, restics) in &claims {
        let Some(workload) = lookup.index.workloads.get(target) else { continue };
        if !is_protected_itself(target, workload, report) {
            continue;
        }
        match restics.as_slice() {
            [one] => protected.entry((&target.namespace, one)).or_default().push(target),
            several => {
                let names: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
                let problem =
                    format!("more than one Restic claims it: {}; none of them backs it up", names.join(" and "));
                let finding = Finding::new("metadata.labels", problem);
                report.errors(workload.manifest, finding.suggest("let the label and the selectors lead to one Restic"));
            }
        }
    }
    let claiming: BTreeSet<(&str, &str)> =
        claims.iter().flat_map(|(target, by)| by.iter().map(|&name| (target.namespace.as_str(), name))).collect();
    let mut scheduled = Vec::new();
    for ((namespace, name), restic) in &lookup.index.restics {
        let targets = protected.remove(&(*namespace, *name)).unwrap_or_default();
        if !claiming.contains(&(*namespace, *name)) {
            let finding = match restic.object.spec.selector {
                Some(_) => Finding::new("spec.selector", "it matches no workload"),
                None => Finding::new("", format!("no workload carries the label `{RESTIC_CONFIG_LABEL}: {name}`")),
            };
            report.warnings(restic.manifest, finding);
        }
        let mut warnings = Vec::new();
        let mut findings = Vec::new();
        if restic.object.spec.restic_type == ResticType::Offline {
            let problem = "`offline` is not yet served: the workload is backed up while it runs";
            let way_out = "write `type: online` if that will do; otherwise use a Backup without a schedule, and add a \
                           BackupTrigger each time the workload is stopped";
            warnings.push(Finding::new("spec.type", problem).suggest(way_out));
        }
        for target in targets {
            match plan(lookup, repositories, restic, target, &mut warnings) {
                Ok(planned) => scheduled.extend(planned),
                Err(more) => findings.extend(more),
            }
        }
        report.warnings(restic.manifest, warnings);
        report.errors(restic.manifest, findings);
    }
    scheduled
}

/// Whether a controller protects this workload itself; otherwise says why it is left alone.
fn is_protected_itself(target: &Target, workload: &Workload<'_>, report: &mut Report) -> bool {
    match (target.kind, workload.controller()) {
        (TargetKind::Pod, None) => {
            let problem = "a Pod that nothing controls is not patched, and so not backed up by a Restic";
            let finding = Finding::new("metadata.labels", problem);
            report.warnings(
                workload.manifest,
                finding.suggest("name it in the targetRef of a Backup, or make it a Deployment"),
            );
            false
        }
        (TargetKind::Pod, Some(_)) => false,
        (TargetKind::ReplicaSet, Some((kind, name))) => {
            let problem =
                format!("a ReplicaSet that {kind} {name} controls is not patched: it is protected through that {kind}");
            report.warnings(workload.manifest, Finding::new("metadata.ownerReferences", problem));
            false
        }
        _ => true,
    }
}

fn claim_by_label<'a>(lookup: Lookup<'a>, claims: &mut BTreeMap<Target, Vec<&'a str>>, report: &mut Report) {
    for (target, workload) in &lookup.index.workloads {
        let Some(name) = workload.label(RESTIC_CONFIG_LABEL).filter(|_| workload.pod.is_some()) else { continue };
        let Some(restic) = lookup.index.restics.get(&(&*target.namespace, name)) else {
            let names = lookup.index.restics.range((&*target.namespace, "")..).map(|(key, _)| *key);
            let names = names.take_while(|(namespace, _)| *namespace == target.namespace).map(|(_, name)| name);
            let key = ObjectKey::new("Restic", &*target.namespace, name);
            let field = format!("metadata.labels[{RESTIC_CONFIG_LABEL}]");
            report.errors(workload.manifest, lookup.missing(field, &key, names));
            continue;
        };
        claims.entry(target.clone()).or_default().push(&restic.manifest.name);
    }
}

fn claim_by_selector<'a>(lookup: Lookup<'a>, claims: &mut BTreeMap<Target, Vec<&'a str>>, report: &mut Report) {
    for ((namespace, name), restic) in &lookup.index.restics {
        match restic.object.spec.form() {
            Ok(ResticForm::Labelled { .. }) => {}
            Ok(ResticForm::Selected { selector, .. }) => {
                for target in lookup.index.selected(namespace, selector) {
                    let restics = claims.entry(target).or_default();
                    if !restics.contains(name) {
                        restics.push(name);
                    }
                }
            }
            Err(error) => report.errors(restic.manifest, Finding::new("spec", error)),
        }
    }
}

/// What one Restic says, whichever its generation.
struct Instructions<'a> {
    backend: Backend,
    field: &'static str,
    password_keys: &'static [&'static str],
    groups: Vec<Group<'a>>,
    mounts: &'a [VolumeMount],
}

/// One snapshot of each run.
struct Group<'a> {
    wanted: Wanted,
    /// The volume that is meant whole; none: the one mounted at the path.
    volume: Option<&'a str>,
    tags: Vec<String>,
    retention: Option<Retention>,
}

fn plan(
    lookup: Lookup<'_>,
    repositories: &mut Repositories,
    restic: &Placed<'_, Restic>,
    target: &Target,
    warnings: &mut Vec<Finding>,
) -> Result<Vec<Scheduled>, Vec<Finding>> {
    let spec = &restic.object.spec;
    let object = ObjectKey::new("Restic", &*target.namespace, &*restic.manifest.name);
    let Some(workload) = lookup.index.workloads.get(target) else { return Ok(Vec::new()) };
    // A form that contradicts itself is told where selectors are read.
    let Ok(form) = spec.form() else { return Ok(Vec::new()) };
    let instructions = instructions(form, spec, &object)?;
    let hosts = lookup.hosts(target, workload, "spec")?;
    if hosts.is_empty() {
        warnings.push(Finding::new(
            "spec.selector",
            format!("{} has 0 replicas: there is nothing to back up", target.key()),
        ));
    }
    let Some(containers) = Containers::new(lookup, target, workload, instructions.mounts) else {
        return Err(Finding::new("spec", format!("{} has no pod template", target.key())).into());
    };
    let mut scheduled = Vec::new();
    for host in hosts {
        let snapshots = snapshots(&containers, &host, &instructions, &object, warnings)?;
        let name = host.instance.as_str();
        if repositories.contains(&target.namespace, name) {
            let key = ObjectKey::new("Repository", &*target.namespace, name);
            let problem = format!("{key} exists, but {object} makes a repository of that name for {}", target.key());
            return Err(Finding::new("metadata.name", problem)
                .suggest("give the written Repository another name")
                .into());
        }
        let draft = Draft {
            manifest: restic.manifest,
            namespace: &target.namespace,
            name,
            backend: &instructions.backend,
            field: instructions.field,
            below: Some(&host.path),
            password_keys: instructions.password_keys,
            made_by: Some(&object),
        };
        let repository = draft.plan(lookup, warnings)?;
        let id = id(&object, &host);
        scheduled.push(Scheduled {
            timing: spec.schedule.as_ref().map(|schedule| schedule.timing(None, None, &id)),
            created: restic.object.metadata.creation_timestamp.as_ref().map(|time| time.0),
            planned: PlannedBackup {
                id,
                object: object.clone(),
                target: target.clone(),
                host: host.name.clone(),
                repository: repository.id.clone(),
                snapshots,
                exclude: Vec::new(),
                exclude_caches: false,
                compression: Default::default(),
                agent: agents::VOLUME_BACKUP.to_owned(),
                schedule: spec.schedule.as_ref().map(Schedule::to_string),
                time_zone: None,
                paused: spec.paused,
                retry: Retry::from(None),
                time_out: None,
                next: None,
                revision: String::new(),
            },
        });
        repositories.add(&target.namespace, name, &[], Some(repository));
    }
    for node in nodes_recovered_from(lookup, target) {
        let host = Host::of_pod(target, "", node);
        if !repositories.contains(&target.namespace, &host.instance) {
            let draft = Draft {
                manifest: restic.manifest,
                namespace: &target.namespace,
                name: &host.instance,
                backend: &instructions.backend,
                field: instructions.field,
                below: Some(&host.path),
                password_keys: instructions.password_keys,
                made_by: Some(&object),
            };
            let repository = draft.plan(lookup, warnings)?;
            repositories.add(&target.namespace, &host.instance, &[], Some(repository));
        }
    }
    Ok(scheduled)
}

/// The nodes of a DaemonSet whose repositories Recoveries name: seen from outside of its pods, which nodes it has backed up
/// is not known, and any may have gone since.
fn nodes_recovered_from<'a>(lookup: Lookup<'a>, target: &Target) -> BTreeSet<&'a str> {
    if lookup.settings.place != Place::Cluster || target.kind != TargetKind::DaemonSet {
        return BTreeSet::new();
    }
    let before_node = Host::of_pod(target, "", "").instance;
    let recoveries = lookup.index.recoveries.range((target.namespace.as_str(), "")..);
    let here = recoveries.take_while(|((namespace, _), _)| *namespace == target.namespace);
    let repositories = here.map(|(_, recovery)| &recovery.object.spec.repository);
    let own = repositories.filter(|of| of.namespace.as_ref().is_none_or(|namespace| *namespace == target.namespace));
    own.filter_map(|repository| repository.name.strip_prefix(&before_node)).filter(|node| !node.is_empty()).collect()
}

fn instructions<'a>(
    form: ResticForm<'a>,
    spec: &'a holdfast_api::stash::ResticSpec,
    object: &ObjectKey,
) -> Result<Instructions<'a>, Vec<Finding>> {
    match form {
        ResticForm::Labelled { source, destination, retention, tags } => {
            let path = path::absolute(&source.path).map_err(|error| vec![Finding::new("spec.source.path", error)])?;
            let retention =
                retention.map(|policy| (policy, policy.rules())).filter(|(_, rules)| !rules.keeps_everything());
            Ok(Instructions {
                backend: Backend {
                    storage_secret_name: Some(destination.repository_secret_name.clone()),
                    kind: BackendKind::Local(Box::new(LocalBackend {
                        mount_path: destination.path.clone(),
                        sub_path: None,
                        volume: VolumeSource::from(destination.volume.clone()),
                    })),
                },
                field: "spec.destination",
                password_keys: &[secret_keys::PASSWORD, secret_keys::RESTIC_PASSWORD],
                groups: vec![Group {
                    volume: Some(&source.volume_name),
                    tags: tags.to_vec(),
                    retention: retention.map(|(policy, rules)| Retention {
                        host: policy.retain_hostname.clone().unwrap_or_default(),
                        tags: policy.retain_tags.clone(),
                        paths: vec![path.clone()],
                        // The first generation has no field for it, and forgets nothing to keep its data.
                        policy: RetentionPolicy { prune: true, ..rules },
                    }),
                    wanted: Wanted { field: "spec.source.volumeName".to_owned(), path },
                }],
                mounts: &[],
            })
        }
        ResticForm::Selected { selector: _, file_groups, backend } => {
            let wanted = clean_paths("spec.fileGroups[].path", file_groups.iter().map(|group| group.path.as_str()))?;
            let groups = wanted.into_iter().zip(file_groups).map(|(wanted, group)| {
                let policy = group.retention_policy_name.as_ref().and_then(|name| spec.retention_policy_named(name));
                Group {
                    volume: None,
                    tags: group.tags.clone(),
                    retention: policy.filter(|policy| !policy.keeps_everything()).map(|policy| Retention {
                        host: String::new(),
                        tags: vec![own_tag(object)],
                        paths: vec![wanted.path.clone()],
                        policy: policy.clone(),
                    }),
                    wanted,
                }
            });
            Ok(Instructions {
                backend: backend.clone(),
                field: "spec.backend",
                password_keys: &[secret_keys::RESTIC_PASSWORD],
                groups: groups.collect(),
                mounts: &spec.volume_mounts,
            })
        }
    }
}

fn snapshots(
    containers: &Containers<'_>,
    host: &Host,
    instructions: &Instructions<'_>,
    object: &ObjectKey,
    warnings: &mut Vec<Finding>,
) -> Result<Vec<PlannedSnapshot>, Vec<Finding>> {
    let mut snapshots = Vec::new();
    let mut findings = Vec::new();
    for group in &instructions.groups {
        let directory = match group.volume {
            None => containers.directory(host, &group.wanted, warnings),
            Some(name) => containers
                .volume(host, name)
                .map(|volume| Directory { path: group.wanted.path.clone(), source: DirectorySource::root(volume) })
                .map_err(|error| {
                    let finding = Finding::of_volume(&group.wanted.field, &error);
                    Finding { problem: format!("volume `{name}`: {error}"), ..finding }
                }),
        };
        match directory {
            Ok(directory) => snapshots.push(PlannedSnapshot {
                directories: vec![directory],
                tags: std::iter::once(own_tag(object)).chain(group.tags.iter().cloned()).collect(),
                retention: group.retention.clone().map(|retention| Retention {
                    host: if retention.host.is_empty() { host.name.clone() } else { retention.host },
                    ..retention
                }),
            }),
            Err(finding) => findings.push(finding),
        }
    }
    if findings.is_empty() { Ok(snapshots) } else { Err(findings) }
}
