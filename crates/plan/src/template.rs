//! The default backup: a Repository and a Backup made from a `BackupTemplate` for every workload that asks
//! for it by annotation.
//!
//! Both are named `<kind>-<name>` and carry a label that says who made them. They are made anew each time, so that
//! they follow their template; a made object that is found again as a manifest is not read. A template
//! without a prefix gets `<namespace>/<kind>/<name>`. What a controller made is left to its controller, whose
//! annotations Kubernetes copies to it.

use std::collections::BTreeMap;

use holdfast_api::names::{BACKUP_ANNOTATION, BACKUP_TEMPLATE_ANNOTATION, TARGET_DIRECTORIES_ANNOTATION, secret_keys};
use holdfast_api::stash::{Backup, BackupSpec, BackupTemplate, Repository, RepositorySpec};
use holdfast_api::values::{Backend, BackendKind, ObjectReference, TargetReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Place;
use crate::backup::{self, Scheduled};
use crate::index::{Placed, Workload};
use crate::key::{ObjectKey, Target};
use crate::planned::Generated;
use crate::report::{Finding, Report};
use crate::repository::{Draft, Repositories};
use crate::target::Lookup;
use crate::variables::{TemplateError, expand};

/// Label of the objects that were made from a template, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "holdfast");

const DEFAULT_PREFIX: &str = "${TARGET_NAMESPACE}/${TARGET_KIND}/${TARGET_NAME}";

/// Whether an object was made from a template, and is not to be read since it is made anew.
pub(crate) fn is_generated(lookup: Lookup<'_>, meta: &ObjectMeta) -> bool {
    let (label, value) = MANAGED_BY;
    if matches!(lookup.settings.place, Place::Pod { .. }) {
        return false;
    }
    meta.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|found| found == value)
}

/// Makes and plans the default backups; their repositories go to `repositories`, which must not hold written
/// ones yet.
pub(crate) fn plan_all(
    lookup: Lookup<'_>,
    repositories: &mut Repositories,
    report: &mut Report,
) -> (Vec<Generated>, Vec<Scheduled>) {
    let mut generated = Vec::new();
    let mut scheduled = Vec::new();
    for (target, workload) in &lookup.index.workloads {
        match asks(workload) {
            Ok(false) => {}
            Ok(true) => {
                let mut warnings = Vec::new();
                match plan(lookup, repositories, target, workload, &mut generated, &mut warnings) {
                    Ok(planned) => scheduled.extend(planned),
                    Err(findings) => report.errors(workload.manifest, at_annotations(findings)),
                }
                report.warnings(workload.manifest, at_annotations(warnings));
            }
            Err(finding) => report.errors(workload.manifest, finding),
        }
    }
    (generated, scheduled)
}

/// Whether the workload asks for the default backup.
fn asks(workload: &Workload<'_>) -> Result<bool, Finding> {
    match workload.annotation(BACKUP_ANNOTATION) {
        None => Ok(false),
        Some(_) if workload.controller().is_some() => Ok(false),
        Some(value) => value.parse().map_err(|_| {
            let problem = format!("`{value}` is neither `true` nor `false`");
            Finding::new(annotation(BACKUP_ANNOTATION), problem)
        }),
    }
}

fn annotation(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

/// Moves findings about the made objects to the annotations that they were made from.
fn at_annotations(findings: Vec<Finding>) -> Vec<Finding> {
    let moved = |finding: Finding| {
        let path = match finding.path.as_str() {
            path if path.starts_with("metadata.") => finding.path,
            path if path.starts_with("spec.targetDirectories") => annotation(TARGET_DIRECTORIES_ANNOTATION),
            path if path.starts_with("spec.targetRef") => annotation(BACKUP_ANNOTATION),
            _ => annotation(BACKUP_TEMPLATE_ANNOTATION),
        };
        Finding { path, ..finding }
    };
    findings.into_iter().map(moved).collect()
}

fn plan(
    lookup: Lookup<'_>,
    repositories: &mut Repositories,
    target: &Target,
    workload: &Workload<'_>,
    generated: &mut Vec<Generated>,
    warnings: &mut Vec<Finding>,
) -> Result<Vec<Scheduled>, Vec<Finding>> {
    let template = template(lookup, workload)?;
    let name = format!("{}-{}", target.kind.path_segment(), target.name);
    let namespace = target.namespace.as_str();
    if namespace.is_empty() {
        let problem = format!("a {} has no namespace for the objects that would be made", target.kind.name());
        let finding = Finding::new(annotation(BACKUP_ANNOTATION), problem);
        return Err(finding.suggest("annotate its claim, or write a Backup").into());
    }
    let written = [
        lookup.index.repositories.get(&(namespace, &name)).map(|found| ("Repository", &found.object.metadata)),
        lookup.index.backups.get(&(namespace, &name)).map(|found| ("Backup", &found.object.metadata)),
    ];
    if let Some((kind, _)) = written.into_iter().flatten().find(|(_, meta)| !is_generated(lookup, meta)) {
        let problem =
            format!("the default backup would make {}, which exists", ObjectKey::new(kind, namespace, &*name));
        let finding = Finding::new(annotation(BACKUP_ANNOTATION), problem);
        return Err(finding.suggest("give the written object another name, or remove the annotation").into());
    }
    let spec = &template.object.spec;
    let backend = expanded(&spec.backend, target).map_err(|error| {
        let problem = format!("the prefix of BackupTemplate {}: {error}", template.manifest.name);
        vec![Finding::new(annotation(BACKUP_TEMPLATE_ANNOTATION), problem)]
    })?;
    let directories = match workload.annotation(TARGET_DIRECTORIES_ANNOTATION) {
        None => Vec::new(),
        Some(list) => directories(list)?,
    };
    let meta = || ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
        labels: Some(BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())])),
        ..ObjectMeta::default()
    };
    let repository_spec = RepositorySpec {
        backend,
        deletion_policy: Default::default(),
        allowed_namespaces: Vec::new(),
        max_concurrent_runs: None,
    };
    let repository = Repository { metadata: meta(), spec: repository_spec, status: None };
    let backup_spec = BackupSpec {
        repository: ObjectReference { name: name.clone(), namespace: None },
        target_ref: TargetReference {
            api_version: target.kind.api_version().to_owned(),
            kind: target.kind.name().to_owned(),
            name: target.name.clone(),
        },
        target_directories: directories,
        settings: spec.settings.clone(),
    };
    let backup = Backup { metadata: meta(), spec: backup_spec, status: None };
    let template_key = ObjectKey::new("BackupTemplate", "", &*template.manifest.name);
    let draft = Draft {
        manifest: template.manifest,
        namespace,
        name: &name,
        backend: &repository.spec.backend,
        field: "spec.backend",
        below: None,
        password_keys: &[secret_keys::RESTIC_PASSWORD],
        made_by: Some(&template_key),
    };
    let planned = draft.plan(lookup, warnings);
    repositories.add(namespace, &name, &[], planned.as_ref().ok().cloned());
    generated.push(Generated::Repository(Box::new(repository)));
    generated.push(Generated::Backup(Box::new(backup.clone())));
    planned?;
    backup::plan(lookup, repositories, namespace, &backup, warnings)
}

fn template<'a>(lookup: Lookup<'a>, workload: &Workload<'_>) -> Result<Placed<'a, BackupTemplate>, Finding> {
    let field = annotation(BACKUP_TEMPLATE_ANNOTATION);
    let Some(name) = workload.annotation(BACKUP_TEMPLATE_ANNOTATION) else {
        let problem =
            format!("the default backup is asked for, but the annotation `{BACKUP_TEMPLATE_ANNOTATION}` is missing");
        return Err(Finding::new(annotation(BACKUP_ANNOTATION), problem).suggest("name a BackupTemplate by it"));
    };
    lookup.index.template(name).ok_or_else(|| {
        lookup.missing(field, &ObjectKey::new("BackupTemplate", "", name), lookup.index.template_names())
    })
}

/// The backend with the variables of its prefix replaced.
fn expanded(backend: &Backend, target: &Target) -> Result<Backend, TemplateError> {
    let mut backend = backend.clone();
    if let BackendKind::Rest(rest) = &mut backend.kind {
        rest.url = expand(&rest.url, target)?;
    }
    if let Some(prefix) = backend.kind.prefix_mut() {
        let template = prefix.as_deref().filter(|prefix| !prefix.is_empty()).unwrap_or(DEFAULT_PREFIX);
        *prefix = Some(expand(template, target)?);
    }
    Ok(backend)
}

/// Reads a list of paths: as JSON, or as published examples have it, `[/source/data, /source/more]`.
fn directories(list: &str) -> Result<Vec<String>, Finding> {
    if let Ok(paths) = serde_json::from_str(list) {
        return Ok(paths);
    }
    let list = list.trim();
    let inner = list.strip_prefix('[').map_or(Some(list), |rest| rest.strip_suffix(']'));
    let Some(inner) = inner else {
        let problem = format!("`{list}` has no closing bracket");
        return Err(Finding::new(annotation(TARGET_DIRECTORIES_ANNOTATION), problem));
    };
    let unquoted = |path: &str| path.trim().trim_matches(['"', '\'']).to_owned();
    Ok(inner.split(',').map(unquoted).filter(|path| !path.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_directories_are_read_as_json_and_as_examples_write_them() {
        for (list, expected) in [
            ("[/source/data]", Ok(vec!["/source/data"])),
            (r#"["/a","/b, c"]"#, Ok(vec!["/a", "/b, c"])),
            ("[ /a , '/b' ]", Ok(vec!["/a", "/b"])),
            ("/a,/b", Ok(vec!["/a", "/b"])),
            ("[]", Ok(vec![])),
            ("", Ok(vec![])),
            ("[/a", Err("`[/a` has no closing bracket")),
        ] {
            let found = directories(list).map_err(|finding| finding.problem);
            let expected = expected.map(|paths| paths.into_iter().map(str::to_owned).collect());
            assert_eq!(found, expected.map_err(str::to_owned), "{list}");
        }
    }
}
