//! From a `BackupTrigger` to the backups it starts: every host of the `Backup` it names, each once.
//!
//! A trigger is told apart by its name: what ran for it is recorded under that name, and another run takes a
//! trigger of another name.

use std::collections::BTreeMap;

use holdfast_api::manifest::Cause;

use crate::backup::Scheduled;
use crate::key::ObjectKey;
use crate::observed::Observed;
use crate::planned::PlannedTrigger;
use crate::report::{Finding, Report};
use crate::target::Lookup;

const FIELD: &str = "spec.targetBackup";

/// Plans every BackupTrigger.
pub(crate) fn plan_all(
    lookup: Lookup<'_>,
    backups: &[Scheduled],
    observed: &Observed,
    report: &mut Report,
) -> Vec<PlannedTrigger> {
    let mut by_object: BTreeMap<&ObjectKey, Vec<&str>> = BTreeMap::new();
    for backup in backups {
        by_object.entry(&backup.planned.object).or_default().push(&backup.planned.id);
    }
    let mut triggers = Vec::new();
    for ((namespace, name), trigger) in &lookup.index.triggers {
        let reference = &trigger.object.spec.target_backup;
        if reference.namespace.as_deref().is_some_and(|other| other != *namespace) {
            let problem = "a trigger starts only backups of its own namespace";
            report.errors(trigger.manifest, Finding::new(format!("{FIELD}.namespace"), problem));
            continue;
        }
        let key = ObjectKey::new("Backup", *namespace, &*reference.name);
        match by_object.get(&key) {
            Some(ids) => {
                let id = format!("{namespace}/{name}");
                let done = ids.iter().all(|backup| observed.is_served(&id, backup));
                triggers.push(PlannedTrigger { id, backups: ids.iter().map(|&id| id.to_owned()).collect(), done });
            }
            None if lookup.index.backups.contains_key(&(*namespace, &*reference.name)) => {
                let finding = Finding::new(FIELD, format!("{key} cannot run")).because(Cause::InvalidReference);
                report.errors(trigger.manifest, finding.suggest("correct its own errors first"));
            }
            None => {
                let names = lookup.index.backups.range((*namespace, "")..).map(|(key, _)| *key);
                let names = names.take_while(|(other, _)| other == namespace).map(|(_, name)| name);
                report.errors(trigger.manifest, lookup.missing(format!("{FIELD}.name"), &key, names));
            }
        }
    }
    triggers
}
