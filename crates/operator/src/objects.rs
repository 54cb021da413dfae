//! The objects of a namespace as their own types: what was written, and what the planner makes of templates.

use std::collections::BTreeMap;

use holdfast_api::manifest::{Outcome, Typed};
use holdfast_api::stash::{AgentTemplate, Backup, BackupTrigger, Recovery, Repository, Restic};
use holdfast_plan::{Generated, Plan};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Namespace and name.
pub(crate) type Name<'a> = (&'a str, &'a str);

/// Typed objects by name. One that was made from a template is here as the planner would make it now.
#[derive(Debug, Default)]
pub(crate) struct Objects<'a> {
    pub(crate) restics: BTreeMap<Name<'a>, &'a Restic>,
    pub(crate) repositories: BTreeMap<Name<'a>, &'a Repository>,
    pub(crate) backups: BTreeMap<Name<'a>, &'a Backup>,
    pub(crate) recoveries: BTreeMap<Name<'a>, &'a Recovery>,
    pub(crate) triggers: BTreeMap<Name<'a>, &'a BackupTrigger>,
    pub(crate) agents: BTreeMap<&'a str, &'a AgentTemplate>,
}

impl<'a> Objects<'a> {
    pub(crate) fn new(outcome: &'a Outcome, plan: &'a Plan) -> Self {
        let mut objects = Self::default();
        for object in &outcome.objects {
            let name = (object.namespace.as_deref().unwrap_or_default(), object.name.as_str());
            match &object.typed {
                Typed::Restic(restic) => drop(objects.restics.insert(name, restic)),
                Typed::Repository(repository) => drop(objects.repositories.insert(name, repository)),
                Typed::Backup(backup) => drop(objects.backups.insert(name, backup)),
                Typed::Recovery(recovery) => drop(objects.recoveries.insert(name, recovery)),
                Typed::BackupTrigger(trigger) => drop(objects.triggers.insert(name, trigger)),
                Typed::AgentTemplate(agent) => drop(objects.agents.insert(name.1, agent)),
                _ => {}
            }
        }
        for generated in &plan.generated {
            match generated {
                Generated::Repository(repository) => {
                    objects.repositories.insert(name_of(&repository.metadata), repository);
                }
                Generated::Backup(backup) => drop(objects.backups.insert(name_of(&backup.metadata), backup)),
            }
        }
        objects
    }
}

fn name_of(meta: &ObjectMeta) -> Name<'_> {
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
