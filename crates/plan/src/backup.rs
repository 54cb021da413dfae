//! From a `Backup`, written or generated, to what its runs do: one planned backup per host of its target.

use holdfast_api::stash::{Backup, BackupSettings};
use holdfast_api::values::{AgentReference, Schedule, TimeZone, Timing};

use crate::Place;
use crate::host::Host;
use crate::key::{ObjectKey, TargetKind};
use crate::planned::{PlannedBackup, PlannedRepository, PlannedSnapshot, Retention};
use crate::report::{Finding, Report};
use crate::repository::Repositories;
use crate::retry::Retry;
use crate::source::Directory;
use crate::target::{Lookup, clean_paths};
use crate::template::is_generated;

/// A planned backup and when it runs.
#[derive(Debug)]
pub(crate) struct Scheduled {
    pub(crate) planned: PlannedBackup,
    pub(crate) timing: Option<Timing>,
    /// When the object was made, where that is known.
    pub(crate) created: Option<jiff::Timestamp>,
}

/// Templates that exist without being written, by what they do.
pub(crate) mod agents {
    pub(crate) const VOLUME_BACKUP: &str = "stash-volume-backup";
    pub(crate) const VOLUME_RECOVERY: &str = "stash-volume-recovery";
    pub(crate) const POSTGRES_BACKUP: &str = "pg-backup";
    pub(crate) const POSTGRES_RECOVERY: &str = "pg-recovery";
    pub(crate) const BUILT_IN: [&str; 4] = [VOLUME_BACKUP, VOLUME_RECOVERY, POSTGRES_BACKUP, POSTGRES_RECOVERY];
}

/// Plans the runs of `backup`, which stands in `manifest`, or was made from it.
pub(crate) fn plan(
    lookup: Lookup<'_>,
    repositories: &Repositories,
    namespace: &str,
    backup: &Backup,
    warnings: &mut Vec<Finding>,
) -> Result<Vec<Scheduled>, Vec<Finding>> {
    let name = backup.metadata.name.as_deref().unwrap_or_default();
    let spec = &backup.spec;
    let mut findings = Vec::new();
    let repository =
        repositories.find(lookup, namespace, &spec.repository).map_err(|finding| findings.push(finding)).ok();
    let agent = agent(lookup, spec.settings.backup_agent.as_ref(), agents::VOLUME_BACKUP, "spec.backupAgent")
        .map_err(|finding| findings.push(finding))
        .ok();
    let wanted = clean_paths("spec.targetDirectories[]", spec.target_directories.iter().map(String::as_str))
        .map_err(|more| findings.extend(more))
        .ok();
    let reference = &spec.target_ref;
    let target = lookup
        .target(namespace, &reference.api_version, &reference.kind, &reference.name, "spec.targetRef")
        .map_err(|finding| findings.push(finding))
        .ok();
    let sources = match (&target, wanted.as_deref()) {
        (Some((target, _)), Some(wanted)) if wanted.is_empty() && needs_directories(target.kind) => {
            let problem = format!("no directory of {} is named", target.key());
            findings
                .push(Finding::new("spec.targetDirectories", problem).suggest("list the container paths to back up"));
            None
        }
        (Some((target, workload)), Some(wanted)) => {
            let sources = lookup.sources(target, workload, wanted, &[], warnings);
            sources.map_err(|more| findings.extend(more)).ok()
        }
        _ => None,
    };
    let (Some(repository), Some(agent), Some((target, _)), Some(sources), true) =
        (repository, agent, target, sources, findings.is_empty())
    else {
        return Err(findings);
    };
    for (number, directory) in sources.iter().flat_map(|source| source.directories.iter().enumerate()) {
        if let Some(finding) = holds_repository(lookup, repository, directory, number, &spec.settings) {
            return Err(finding.into());
        }
    }
    if sources.is_empty() {
        let problem = format!("{} has 0 replicas: there is nothing to back up", target.key());
        warnings.push(Finding::new("spec.targetRef", problem));
    }
    let object = ObjectKey::new("Backup", namespace, name);
    let settings = &spec.settings;
    let scheduled = sources.into_iter().map(|source| {
        let id = id(&object, &source.host);
        let snapshot = snapshot(&object, &source.host, source.directories, settings);
        Scheduled {
            timing: timing(settings.schedule.as_ref(), settings, &id),
            created: backup.metadata.creation_timestamp.as_ref().map(|time| time.0),
            planned: PlannedBackup {
                id,
                object: object.clone(),
                target: target.clone(),
                host: source.host.name,
                repository: repository.id.clone(),
                snapshots: vec![snapshot],
                exclude: settings.exclude.clone(),
                exclude_caches: settings.exclude_caches,
                compression: settings.compression.unwrap_or_default(),
                agent: agent.clone(),
                schedule: settings.schedule.as_ref().map(Schedule::to_string),
                time_zone: settings.time_zone.as_ref().map(TimeZone::to_string),
                paused: settings.paused,
                retry: Retry::from(settings.retry_config.as_ref()),
                time_out: settings.time_out,
                next: None,
                revision: String::new(),
            },
        }
    });
    Ok(scheduled.collect())
}

/// Refuses a directory that the repository itself lies in, unless something is left out of it: each backup would
/// hold all those before it.
fn holds_repository(
    lookup: Lookup<'_>,
    repository: &PlannedRepository,
    directory: &Directory,
    number: usize,
    settings: &BackupSettings,
) -> Option<Finding> {
    let volume = repository.volume.as_ref()?;
    let read = directory.source.identity(lookup.settings.volumes.as_ref());
    let inside = volume.identity(lookup.settings.volumes.as_ref()).starts_with(read);
    (inside && settings.exclude.is_empty()).then(|| {
        let problem = format!("the repository lies in `{}` and would be backed up into itself", directory.path);
        let way_out = "move the repository elsewhere, or leave it out by `exclude`";
        Finding::new(format!("spec.targetDirectories[{number}]"), problem).suggest(way_out)
    })
}

fn needs_directories(kind: TargetKind) -> bool {
    !matches!(kind, TargetKind::PersistentVolumeClaim | TargetKind::PersistentVolume | TargetKind::AppBinding)
}

/// What past runs of an object on a host are recorded under.
pub(crate) fn id(object: &ObjectKey, host: &Host) -> String {
    let ObjectKey { kind, namespace, name } = object;
    format!("{kind}/{namespace}/{name}/{}", host.instance)
}

/// The tag that tells the snapshots of one object from those of others in the same repository.
pub(crate) fn own_tag(object: &ObjectKey) -> String {
    let ObjectKey { kind, namespace, name } = object;
    format!("{}={namespace}/{name}", kind.to_ascii_lowercase())
}

fn snapshot(
    object: &ObjectKey,
    host: &Host,
    directories: Vec<Directory>,
    settings: &BackupSettings,
) -> PlannedSnapshot {
    let own_tag = own_tag(object);
    let retention = settings.retention_policy.as_ref().filter(|policy| !policy.keeps_everything());
    PlannedSnapshot {
        directories,
        tags: std::iter::once(own_tag.clone()).chain(settings.tags.iter().cloned()).collect(),
        retention: retention.map(|policy| Retention {
            host: host.name.clone(),
            tags: vec![own_tag],
            paths: Vec::new(),
            policy: policy.clone(),
        }),
    }
}

fn timing(schedule: Option<&Schedule>, settings: &BackupSettings, id: &str) -> Option<Timing> {
    schedule.map(|schedule| schedule.timing(settings.time_zone.as_ref(), settings.jitter, id))
}

/// The name of the AgentTemplate to use: it must exist, written or built in. A pod sees none, and was made from it.
pub(crate) fn agent(
    lookup: Lookup<'_>,
    reference: Option<&AgentReference>,
    default: &str,
    field: &str,
) -> Result<String, Finding> {
    let Some(reference) = reference else { return Ok(default.to_owned()) };
    let is_made_from_it = matches!(lookup.settings.place, Place::Pod { .. });
    let is_built_in = agents::BUILT_IN.contains(&reference.name.as_str());
    if is_made_from_it || is_built_in || lookup.index.has_agent(&reference.name) {
        return Ok(reference.name.clone());
    }
    let key = ObjectKey::new("AgentTemplate", "", &reference.name);
    let names = agents::BUILT_IN.into_iter().chain(lookup.index.agent_names());
    Err(lookup.missing(format!("{field}.name"), &key, names))
}

/// Plans every written Backup.
pub(crate) fn plan_all(lookup: Lookup<'_>, repositories: &Repositories, report: &mut Report) -> Vec<Scheduled> {
    let mut scheduled = Vec::new();
    for ((namespace, _), backup) in &lookup.index.backups {
        if is_generated(lookup, &backup.object.metadata) {
            continue;
        }
        let mut warnings = Vec::new();
        let planned = plan(lookup, repositories, namespace, backup.object, &mut warnings);
        report.warnings(backup.manifest, warnings);
        match planned {
            Ok(planned) => scheduled.extend(planned),
            Err(findings) => report.errors(backup.manifest, findings),
        }
    }
    scheduled
}
