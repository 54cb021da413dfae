//! Jobs: the backup of a claim that is backed up on its own, a recovery into volumes, the wiping of a repository.
//!
//! A Job is tried once; when it is due again is the planner's to say. It is owned by its object, and deleted some time
//! after it ended.

use std::collections::BTreeMap;

use holdfast_api::names::pod as names;
use holdfast_api::stash::AgentTemplateSpec;
use holdfast_api::values::{ContainerAttributes, PodAttributes, VolumeSource};
use holdfast_plan::{MANAGED_BY, ObjectKey, TargetKind};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Container, LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use crate::access;
use crate::action::Action;
use crate::container::{self, Access, Attributes, Needs, Purpose, Store};
use crate::restart::is_finished;
use crate::settings::Settings;
use crate::sidecar::bounded;
use crate::world::{World, controller, moment, name, text, uid};

/// How long a Job that ended can be looked at, in seconds.
const KEPT_FOR: i32 = 24 * 3600;
/// How many Jobs that ended are kept of each object.
const KEPT: usize = 3;

/// A Job of ours and what it is for.
#[derive(Debug, Clone)]
pub(crate) struct Work<'a> {
    /// The object that it works for.
    pub(crate) object: ObjectKey,
    /// The host as the object's status knows it.
    pub(crate) host: String,
    pub(crate) job: &'a Value,
}

impl Work<'_> {
    /// When and why it ended; none while it goes on.
    pub(crate) fn ended(&self) -> Option<Ended> {
        let conditions = self.job.pointer("/status/conditions").and_then(Value::as_array)?;
        let of = |kind: &str| conditions.iter().find(|one| one["type"] == kind && one["status"] == "True");
        let (condition, succeeded) = match (of("Complete"), of("Failed")) {
            (Some(condition), _) => (condition, true),
            (None, Some(condition)) => (condition, false),
            (None, None) => return None,
        };
        Some(Ended {
            at: moment(condition, "/lastTransitionTime").or_else(|| self.created()).unwrap_or_default(),
            succeeded,
            why: text(condition, "/message").to_owned(),
        })
    }

    pub(crate) fn created(&self) -> Option<Timestamp> {
        moment(self.job, "/metadata/creationTimestamp")
    }
}

/// How a Job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) at: Timestamp,
    pub(crate) succeeded: bool,
    pub(crate) why: String,
}

/// The Jobs of the namespace that are ours.
pub(crate) fn all<'a>(world: &World<'a>) -> Vec<Work<'a>> {
    let ours = world.all("Job").filter_map(|job| {
        let (kind, owner, owner_uid) = controller(job)?;
        let host = text(job, "/metadata/annotations/holdfast~1host").to_owned();
        // One of an object that was made anew since goes with the one before.
        let is_of_another = world.get(kind, owner).is_some_and(|object| uid(object) != owner_uid);
        let is_ours = matches!(kind, "Backup" | "Recovery" | "Repository") && !is_of_another;
        is_ours.then(|| Work { object: ObjectKey::new(kind, world.namespace, owner), host, job })
    });
    ours.collect()
}

/// What the planner calls the run of a Job.
pub(crate) fn planned_id(namespace: &str, work: &Work<'_>) -> String {
    format!("{}/{namespace}/{}/{}", work.object.kind, work.object.name, work.host)
}

/// The host of a claim in a status.
pub(crate) fn host_of_claim(claim: &str) -> String {
    format!("{}.{claim}", TargetKind::PersistentVolumeClaim.path_segment())
}

/// Deletes Jobs that ended, beyond the last few of each object.
pub(crate) fn clean(jobs: &[Work<'_>]) -> Vec<Action> {
    let mut by_object: BTreeMap<&ObjectKey, Vec<(Timestamp, &Work<'_>)>> = BTreeMap::new();
    for work in jobs {
        if let Some(ended) = work.ended() {
            by_object.entry(&work.object).or_default().push((ended.at, work));
        }
    }
    let beyond = by_object.into_values().flat_map(|mut ended| {
        ended.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| name(b.1.job).cmp(name(a.1.job))));
        ended.into_iter().skip(KEPT)
    });
    beyond.map(|(_, work)| delete(work.job, "later ones have ended")).collect()
}

/// Whether a pod of a Job of this name still runs: it may outlive the Job by some seconds.
pub(crate) fn is_at_work(world: &World<'_>, name: &str) -> bool {
    let is_of_job = |pod: &&Value| controller(pod).is_some_and(|(kind, owner, _)| kind == "Job" && owner == name);
    world.all("Pod").filter(is_of_job).any(|pod| !is_finished(pod))
}

/// Deletes one.
pub(crate) fn delete(job: &Value, because: &str) -> Action {
    Action::Delete {
        because: because.to_owned(),
        api_version: "batch/v1".to_owned(),
        object: ObjectKey::new("Job", text(job, "/metadata/namespace"), name(job)),
        uid: uid(job).to_owned(),
    }
}

/// What a Job is to be made of.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// The object that owns it.
    pub(crate) owner: &'a Value,
    /// Its name.
    pub(crate) name: String,
    /// The host under which the object's status has it.
    pub(crate) host: String,
    /// `backup`, `recovery` or `wipe`.
    pub(crate) component: &'static str,
    /// `PersistentVolumeClaim/data`.
    pub(crate) target: String,
    /// The variable that names the object.
    pub(crate) object: Vec<(&'static str, String)>,
    /// The containers, or the one of ours.
    pub(crate) containers: Containers<'a>,
    /// The volumes that are read or written.
    pub(crate) volumes: Vec<Volume>,
    pub(crate) access: Access,
    pub(crate) store: &'a Store,
    pub(crate) container: Option<&'a ContainerAttributes>,
    pub(crate) pod: Option<&'a PodAttributes>,
    pub(crate) pull_secrets: &'a [LocalObjectReference],
    pub(crate) node_selector: BTreeMap<String, String>,
}

/// The containers of a Job.
#[derive(Debug)]
pub(crate) enum Containers<'a> {
    /// Those of a template.
    Template(&'a AgentTemplateSpec),
    /// One of our image with these arguments.
    Own(&'static str, Vec<String>),
}

/// A claim as a volume.
pub(crate) fn claim(name: &str) -> Volume {
    let source = PersistentVolumeClaimVolumeSource { claim_name: name.to_owned(), read_only: None };
    Volume { name: names::TARGET_VOLUME.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }
}

/// The volume of a recovery, by its place in the list.
pub(crate) fn recovered(place: usize, source: &VolumeSource) -> Volume {
    source.clone().into_volume(names::recovered_volume(place))
}

/// Creates the Job.
pub(crate) fn create(world: &World<'_>, draft: Draft<'_>, because: String, settings: &Settings) -> Option<Action> {
    let mut needs = Needs::new();
    needs.store(draft.store);
    for volume in &draft.volumes {
        needs.mount(
            volume.clone(),
            &format!("{}/{}", names::ROOT, names::target_mount(&volume.name)),
            draft.access == Access::Read,
        );
    }
    let mut attributes = Attributes::default();
    draft.container.iter().for_each(|container| attributes.add(container));
    let purpose = Purpose {
        target: draft.target.clone(),
        object: draft.object.clone(),
        follow_schedule: false,
        user: container::user_of_job(world.is_restricted(), draft.access),
    };
    let complete =
        |container: &Container| container::complete(container.clone(), &purpose, &needs, &attributes, settings);
    let (init_containers, containers, mut volumes) = match &draft.containers {
        Containers::Template(AgentTemplateSpec { init_containers, containers, volumes }) => (
            init_containers.iter().map(complete).collect::<Vec<_>>(),
            containers.iter().map(complete).collect::<Vec<_>>(),
            volumes.clone(),
        ),
        Containers::Own(name, args) => {
            let own = container::own(name, &settings.image, args.clone(), settings);
            (Vec::new(), vec![complete(&own)], Vec::new())
        }
    };
    volumes.extend(needs.volumes().cloned());
    let default = PodAttributes::default();
    let PodAttributes {
        node_selector,
        affinity,
        tolerations,
        service_account_name,
        security_context,
        image_pull_secrets,
        priority_class_name,
    } = draft.pod.unwrap_or(&default).clone();
    let pull_secrets = if image_pull_secrets.is_empty() { draft.pull_secrets.to_vec() } else { image_pull_secrets };
    let node_selector = if node_selector.is_empty() { draft.node_selector } else { node_selector };
    let service_account =
        service_account_name.unwrap_or_else(|| access::name_for(text(draft.owner, "/kind"), name(draft.owner)));
    let pod = PodSpec {
        init_containers: some(init_containers),
        containers,
        volumes: some(volumes),
        restart_policy: Some("Never".to_owned()),
        service_account_name: Some(service_account),
        automount_service_account_token: Some(false),
        affinity: affinity.or_else(|| beside_other_pods(world, &draft.volumes)),
        node_selector: (!node_selector.is_empty()).then_some(node_selector),
        tolerations: some(tolerations),
        security_context,
        image_pull_secrets: some(pull_secrets),
        priority_class_name,
        ..PodSpec::default()
    };
    let labels = BTreeMap::from([
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        ("app.kubernetes.io/name".to_owned(), "holdfast".to_owned()),
        ("app.kubernetes.io/component".to_owned(), draft.component.to_owned()),
    ]);
    let owner = OwnerReference {
        api_version: text(draft.owner, "/apiVersion").to_owned(),
        kind: text(draft.owner, "/kind").to_owned(),
        name: name(draft.owner).to_owned(),
        uid: uid(draft.owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let job = Job {
        metadata: ObjectMeta {
            name: Some(bounded(&draft.name)),
            namespace: Some(world.namespace.to_owned()),
            labels: Some(labels.clone()),
            annotations: Some(BTreeMap::from([("holdfast/host".to_owned(), draft.host)])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            ttl_seconds_after_finished: Some(KEPT_FOR),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    };
    let object = serde_json::to_value(&job).ok()?;
    Some(Action::Create { because, object })
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// A claim that only one node can mount is mounted where a pod has it already.
fn beside_other_pods(world: &World<'_>, volumes: &[Volume]) -> Option<Affinity> {
    let claims: Vec<&str> = volumes
        .iter()
        .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
        .filter(|claim| {
            let modes = world.get("PersistentVolumeClaim", claim).and_then(|claim| claim.pointer("/spec/accessModes"));
            modes.and_then(Value::as_array).is_some_and(|modes| modes.iter().all(|mode| mode == "ReadWriteOnce"))
        })
        .collect();
    let uses = |pod: &&Value| {
        let of_pod = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
        of_pod.into_iter().any(|volume| claims.contains(&text(volume, "/persistentVolumeClaim/claimName")))
    };
    let lives = |pod: &&Value| !crate::restart::is_finished(pod) && !text(pod, "/spec/nodeName").is_empty();
    let pod = world.all("Pod").filter(lives).find(uses)?;
    let node = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![text(pod, "/spec/nodeName").to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![node]), match_expressions: None };
    let required = NodeSelector { node_selector_terms: vec![term] };
    let node_affinity =
        NodeAffinity { required_during_scheduling_ignored_during_execution: Some(required), ..NodeAffinity::default() };
    Some(Affinity { node_affinity: Some(node_affinity), ..Affinity::default() })
}
