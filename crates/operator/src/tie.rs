//! Which objects work on which workload: what makes a sidecar come, stay and go.
//!
//! A tie lasts as long as its object names the workload, whether or not the object can be carried out as it stands: a
//! Repository that is missing for a moment must not restart the pods of an application.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_api::manifest::Problem;
use holdfast_api::names::{RESTIC_CONFIG_LABEL, RESTIC_IMAGE_ANNOTATION};
use holdfast_api::stash::{RecoverTo, ResticForm};
use holdfast_api::values::{
    AgentReference, Backend, BackendKind, ContainerAttributes, LocalBackend, ObjectReference, PodAttributes, Resources,
    TargetReference, VolumeSource,
};
use holdfast_plan::{ObjectKey, Plan, PlannedRepository, Target, TargetKind};
use k8s_openapi::api::core::v1::LocalObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::container::Store;
use crate::objects::Objects;
use crate::refusal::{Refusal, Refusals};
use crate::templates;
use crate::world::{WORKLOADS, World, controller};

/// An object and a workload that it works on.
#[derive(Debug)]
pub(crate) struct Tie<'a> {
    pub(crate) object: ObjectKey,
    /// What it takes; none while the object cannot be carried out as it stands.
    pub(crate) work: Option<Work<'a>>,
}

/// What the work of one object takes.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    /// The AgentTemplate.
    pub(crate) agent: &'a str,
    /// What opens the repository.
    pub(crate) store: Store,
    /// The Repository of another namespace, whose Secret cannot be mounted.
    pub(crate) foreign: Option<ObjectKey>,
    pub(crate) container: Option<&'a ContainerAttributes>,
    pub(crate) resources: Option<&'a Resources>,
    pub(crate) pull_secrets: &'a [LocalObjectReference],
    /// The tag or image that a Restic asks for.
    pub(crate) image: Option<&'a str>,
    /// Volumes of the pod that are read although no container may mount them.
    pub(crate) volumes: Vec<String>,
}

/// The ties of a namespace by workload; those of Recoveries are apart, since they run before the workload starts.
#[derive(Debug, Default)]
pub(crate) struct Ties<'a> {
    pub(crate) backups: BTreeMap<Target, Vec<Tie<'a>>>,
    pub(crate) recoveries: BTreeMap<Target, Vec<Tie<'a>>>,
}

/// What is needed to find the ties.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finder<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) objects: &'a Objects<'a>,
    pub(crate) plan: &'a Plan,
    /// Those of the plan, by id.
    pub(crate) repositories: &'a HashMap<&'a str, &'a PlannedRepository>,
}

impl<'a> Finder<'a> {
    /// Every tie; what cannot be carried out on a cluster is added to `refusals`.
    pub(crate) fn ties(self, refusals: &mut Refusals) -> Ties<'a> {
        let mut ties = Ties::default();
        self.restics(&mut ties, refusals);
        self.backups(&mut ties, refusals);
        self.recoveries(&mut ties, refusals);
        ties
    }

    fn backups(self, ties: &mut Ties<'a>, refusals: &mut Refusals) {
        let planned: BTreeSet<&ObjectKey> = self.plan.backups.iter().map(|planned| &planned.object).collect();
        for ((namespace, name), backup) in &self.objects.backups {
            let object = ObjectKey::new("Backup", *namespace, *name);
            let reference = &backup.spec.target_ref;
            let target = match self.target(namespace, reference) {
                Ok(target) => target,
                Err(refusal) => {
                    refusals.add(object, refusal);
                    continue;
                }
            };
            let settings = &backup.spec.settings;
            let work = self
                .work(
                    namespace,
                    &backup.spec.repository,
                    settings.backup_agent.as_ref(),
                    templates::VOLUME_BACKUP,
                    settings.container_attributes.as_ref(),
                    pull_secrets(settings.pod_attributes.as_ref()),
                )
                .map_err(|refusal| refusals.add(object.clone(), refusal))
                .ok()
                .flatten()
                .filter(|_| planned.contains(&object));
            if let Some(target) = target {
                ties.backups.entry(target).or_default().push(Tie { object, work });
            }
        }
    }

    fn recoveries(self, ties: &mut Ties<'a>, refusals: &mut Refusals) {
        let planned: BTreeSet<&ObjectKey> = self.plan.recoveries.iter().map(|planned| &planned.object).collect();
        for ((namespace, name), recovery) in &self.objects.recoveries {
            let object = ObjectKey::new("Recovery", *namespace, *name);
            let spec = &recovery.spec;
            let target = match &spec.recover_to {
                Some(RecoverTo::Workload(reference)) => match self.target(namespace, reference) {
                    Ok(target) => target,
                    Err(refusal) => {
                        refusals.add(object, refusal);
                        continue;
                    }
                },
                _ => None,
            };
            let secrets = match pull_secrets(spec.pod_attributes.as_ref()) {
                [] => &spec.image_pull_secrets,
                secrets => secrets,
            };
            let agent = spec.recovery_agent.as_ref();
            let container = spec.container_attributes.as_ref();
            let work = self
                .work(namespace, &spec.repository, agent, templates::VOLUME_RECOVERY, container, secrets)
                .map_err(|refusal| refusals.add(object.clone(), refusal))
                .ok()
                .flatten()
                .filter(|_| planned.contains(&object));
            if let Some(target) = target {
                ties.recoveries.entry(target).or_default().push(Tie { object, work });
            }
        }
    }

    fn restics(self, ties: &mut Ties<'a>, refusals: &mut Refusals) {
        let planned: BTreeMap<(&ObjectKey, &Target), &str> = self
            .plan
            .backups
            .iter()
            .map(|planned| ((&planned.object, &planned.target), planned.repository.as_str()))
            .collect();
        for (target, workload) in self.world.workloads() {
            if controller(workload).is_some() {
                continue;
            }
            let label = workload.pointer("/metadata/labels").and_then(|labels| labels.get(RESTIC_CONFIG_LABEL));
            let claiming: Vec<_> = self
                .objects
                .restics
                .iter()
                .filter(|((namespace, name), restic)| {
                    *namespace == self.world.namespace
                        && (label.and_then(Value::as_str) == Some(name)
                            || restic.spec.selector.as_ref().is_some_and(|selector| selects(selector, workload)))
                })
                .collect();
            if claiming.len() > 1 {
                let names: Vec<String> = claiming.iter().map(|((_, name), _)| format!("`{name}`")).collect();
                let message =
                    format!("{} is claimed by {}; none of them backs it up", target.key(), names.join(" and "));
                for ((namespace, name), _) in &claiming {
                    let refusal = Refusal::new("Conflict", message.clone());
                    refusals.add(ObjectKey::new("Restic", *namespace, *name), refusal);
                }
            }
            for ((namespace, name), restic) in claiming {
                let object = ObjectKey::new("Restic", *namespace, *name);
                let spec = &restic.spec;
                let planned = planned.get(&(&object, &target)).and_then(|id| self.repository(id));
                let work = spec.form().ok().zip(planned).map(|(form, planned)| {
                    let volumes = match form {
                        ResticForm::Labelled { source, .. } => vec![source.volume_name.clone()],
                        ResticForm::Selected { .. } => {
                            spec.volume_mounts.iter().map(|mount| mount.name.clone()).collect()
                        }
                    };
                    let backend = backend_of(form);
                    Work {
                        agent: templates::VOLUME_BACKUP,
                        store: Store::new(&backend, planned, false),
                        foreign: None,
                        container: None,
                        resources: spec.resources.as_ref(),
                        pull_secrets: &spec.image_pull_secrets,
                        image: restic
                            .metadata
                            .annotations
                            .as_ref()
                            .and_then(|annotations| annotations.get(RESTIC_IMAGE_ANNOTATION).map(String::as_str)),
                        volumes,
                    }
                });
                ties.backups.entry(target.clone()).or_default().push(Tie { object, work });
            }
        }
    }

    /// Why there is no such template: it is missing, or has mistakes, which are told by whoever uses it. A template has no
    /// status.
    fn no_agent(self, agent: &str) -> Refusal {
        let is_about = |problem: &&Problem| {
            problem.object.as_ref().is_some_and(|object| object.kind == "AgentTemplate" && object.name == agent)
        };
        let mistakes: Vec<String> =
            self.plan.errors.iter().filter(is_about).map(|problem| Refusal::from_problem(problem).message).collect();
        if mistakes.is_empty() {
            return Refusal::new("MissingReference", format!("AgentTemplate {agent} not found"));
        }
        let message = format!("AgentTemplate {agent} has errors of its own: {}", mistakes.join("; "));
        Refusal::new("InvalidReference", message)
    }

    fn repository(self, id: &str) -> Option<&'a PlannedRepository> {
        self.repositories.get(id).copied()
    }

    /// Where a Restic keeps the repositories that are its hosts' own, and no objects.
    fn backend_of_restic(self, id: &str) -> Option<Backend> {
        let restic = self.repository(id)?.made_by.as_ref().filter(|made_by| made_by.kind == "Restic")?;
        let restic = self.objects.restics.get(&(restic.namespace.as_str(), restic.name.as_str()))?;
        restic.spec.form().ok().map(backend_of)
    }

    /// The workload that gets a container; none for a claim, which gets a Job, and for one that does not exist.
    fn target(self, namespace: &str, reference: &TargetReference) -> Result<Option<Target>, Refusal> {
        let TargetReference { kind, name, .. } = reference;
        let Some(kind) = TargetKind::parse(kind) else { return Ok(None) };
        let target = Target::new(kind, namespace, name);
        match kind {
            TargetKind::Pod => Err(Refusal::new(
                "NotServed",
                format!(
                    "{} cannot be patched once it runs; name the Deployment or StatefulSet that makes it",
                    target.key()
                ),
            )),
            TargetKind::PersistentVolume => Err(Refusal::new(
                "NotServed",
                format!("PersistentVolume {name} is reached through its claim only; name the PersistentVolumeClaim"),
            )),
            kind if WORKLOADS.contains(&kind) => {
                let workload = self.world.elsewhere(kind.name(), namespace, name);
                match workload.and_then(controller) {
                    Some((kind, owner, _)) => Err(Refusal::new(
                        "NotServed",
                        format!("{} is controlled by {kind} {owner} and not patched; name that {kind}", target.key()),
                    )),
                    None => Ok(workload.map(|_| target)),
                }
            }
            _ => Ok(None),
        }
    }

    /// What the work takes; none if the repository has errors, which are told elsewhere.
    pub(crate) fn work(
        self,
        namespace: &str,
        repository: &ObjectReference,
        agent: Option<&'a AgentReference>,
        default_agent: &'static str,
        container: Option<&'a ContainerAttributes>,
        pull_secrets: &'a [LocalObjectReference],
    ) -> Result<Option<Work<'a>>, Refusal> {
        let agent = agent.map_or(default_agent, |agent| agent.name.as_str());
        if !templates::is_default(agent) && !self.objects.agents.contains_key(agent) {
            return Err(self.no_agent(agent));
        }
        let of = repository.namespace.as_deref().unwrap_or(namespace);
        let id = format!("{of}/{}", repository.name);
        let backend = match self.objects.repositories.get(&(of, repository.name.as_str())) {
            Some(found) => found.spec.backend.clone(),
            None => match self.backend_of_restic(&id) {
                Some(backend) => backend,
                None => return Ok(None),
            },
        };
        let key = ObjectKey::new("Repository", of, repository.name.as_str());
        let is_foreign = of != namespace;
        if let BackendKind::Local(local) = &backend.kind
            && is_foreign
            && local.volume.set_fields().iter().any(|field| NAMESPACED.contains(field))
        {
            let message =
                format!("{key} lies in a volume of its namespace, which only pods of that namespace can mount");
            return Err(Refusal::new("NotServed", message));
        }
        let Some(planned) = self.repository(&id) else { return Ok(None) };
        let store = Store::new(&backend, planned, is_foreign);
        let foreign = is_foreign.then_some(key);
        Ok(Some(Work {
            agent,
            store,
            foreign,
            container,
            resources: None,
            pull_secrets,
            image: None,
            volumes: Vec::new(),
        }))
    }
}

/// The store of a Restic.
fn backend_of(form: ResticForm<'_>) -> Backend {
    match form {
        ResticForm::Labelled { destination, .. } => {
            let store = LocalBackend {
                mount_path: destination.path.clone(),
                sub_path: None,
                volume: VolumeSource::from(destination.volume.clone()),
            };
            Backend {
                storage_secret_name: Some(destination.repository_secret_name.clone()),
                kind: BackendKind::Local(Box::new(store)),
            }
        }
        ResticForm::Selected { backend, .. } => backend.clone(),
    }
}

/// The volume sources that name an object of their namespace.
const NAMESPACED: [&str; 6] = ["persistentVolumeClaim", "configMap", "secret", "projected", "ephemeral", "downwardAPI"];

pub(crate) fn pull_secrets(attributes: Option<&PodAttributes>) -> &[LocalObjectReference] {
    attributes.map_or(&[], |attributes| &attributes.image_pull_secrets)
}

/// Whether the labels of an object match, as Kubernetes has it.
fn selects(selector: &LabelSelector, object: &Value) -> bool {
    let label = |key: &str| object.pointer("/metadata/labels").and_then(|labels| labels.get(key)?.as_str());
    selector.match_labels.iter().flatten().all(|(key, value)| label(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = label(&expression.key);
            let listed = || value.is_some_and(|value| expression.values.iter().flatten().any(|other| other == value));
            match expression.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
