//! What is put into the pods of a workload: the sidecar that backs up, the init containers that recover, their volumes.
//!
//! All Backups and Restics of a workload that use the default template share one sidecar, which mounts every volume of
//! the application: another Backup, or other directories, restart nothing. What a tie that cannot be carried out for
//! now may still need stays where it is, since taking it away restarts pods as well.

use std::collections::BTreeSet;

use holdfast_api::names::{RESTIC_SIDECAR, managers, pod as names};
use holdfast_plan::Target;
use k8s_openapi::api::core::v1::{Container, LocalObjectReference, PodSpec, Volume};
use serde_json::{Value, json};

use crate::action::Action;
use crate::container::{self, Access, Attributes, Needs, Purpose};
use crate::merge;
use crate::objects::Objects;
use crate::settings::Settings;
use crate::templates;
use crate::tie::{Tie, Work};
use crate::world::{World, is_our_volume, is_ours, text, uid};

/// Annotation of a pod template with the hash of what was put into it.
pub const SIDECAR_ANNOTATION: &str = "holdfast/sidecar";

/// What the names of the init containers of recoveries start with.
const RECOVERY_PREFIX: &str = "restic-recover-";

/// A workload and what works on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protected<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) target: &'a Target,
    pub(crate) workload: &'a Value,
    pub(crate) backups: &'a [Tie<'a>],
    pub(crate) recoveries: &'a [Tie<'a>],
}

/// The difference between a workload and what it should be; none in steady state.
pub(crate) fn inject(protected: Protected<'_>, objects: &Objects<'_>, settings: &Settings) -> Option<Action> {
    let Protected { target, workload, backups, recoveries, .. } = protected;
    let found_template = &workload["spec"]["template"];
    let found = ours(&found_template["spec"]);
    let held = held(&found, backups, recoveries);
    let is_held = names_of(&found).is_subset(&names_of(&held));
    let (because, template) = match Injection::new(protected, objects, settings) {
        None if is_held => return None,
        None if names_of(&held).is_empty() => {
            (format!("nothing backs up or recovers {} any more", target.key()), json!({}))
        }
        None => (format!("nothing backs up {} any more", target.key()), template(held)),
        Some(injection) => {
            let wanted = injection.spec();
            let follows = &injection.images_of_operator;
            let waits = backups.iter().chain(recoveries).any(|tie| tie.work.is_none());
            let has_more = !names_of(&held).is_subset(&names_of(&wanted));
            let complete = |mut spec: Value| {
                if has_more {
                    let mut all = held.clone();
                    merge::apply(&mut all, &spec);
                    spec = all;
                }
                spec
            };
            let is_there = |spec: Value| {
                let is_all = names_of(&found).is_subset(&names_of(&spec));
                let is_there = is_all && merge::contains(&found_template["spec"], &spec);
                is_there && (waits || merge::contains(found_template, &template(spec)))
            };
            // A newer operator alone restarts no pod: its image comes with the next change.
            let as_it_is = with_images_of(&found, wanted.clone(), follows, settings);
            let wanted = complete(wanted);
            if is_there(wanted.clone()) || as_it_is.is_some_and(|as_it_is| is_there(complete(as_it_is))) {
                return None;
            }
            (format!("{} is protected", target.key()), template(wanted))
        }
    };
    Some(Action::Apply {
        because,
        manager: managers::OPERATOR.to_owned(),
        subresource: None,
        object: json!({
            "apiVersion": workload["apiVersion"],
            "kind": workload["kind"],
            // With its UID: one that is gone is not made anew.
            "metadata": {
                "name": workload["metadata"]["name"],
                "namespace": workload["metadata"]["namespace"],
                "uid": workload["metadata"]["uid"],
            },
            "spec": {"template": template},
        }),
    })
}

/// What stands in the spec of a pod or template and is ours.
fn ours(spec: &Value) -> Value {
    let list = |field: &str, is_ours: fn(&Value) -> bool| -> Value {
        spec[field].as_array().into_iter().flatten().filter(|item| is_ours(item)).cloned().collect()
    };
    json!({
        "containers": list("containers", is_ours),
        "initContainers": list("initContainers", is_ours),
        "volumes": list("volumes", is_our_volume),
    })
}

/// What stays of what is `found`, since ties that cannot be carried out for now may need it: for Backups all of it, for
/// Recoveries what runs before the workload starts and what that mounts.
fn held(found: &Value, backups: &[Tie<'_>], recoveries: &[Tie<'_>]) -> Value {
    let waits = |ties: &[Tie<'_>]| ties.iter().any(|tie| tie.work.is_none());
    if waits(backups) {
        return found.clone();
    }
    if !waits(recoveries) {
        return json!({});
    }
    let init_containers = found["initContainers"].as_array().map_or(&[][..], Vec::as_slice);
    let mounts = init_containers.iter().filter_map(|container| container["volumeMounts"].as_array()).flatten();
    let mounted: BTreeSet<&str> = mounts.map(|mount| text(mount, "/name")).collect();
    let is_mounted = |volume: &&Value| mounted.contains(text(volume, "/name"));
    let volumes: Vec<&Value> = found["volumes"].as_array().into_iter().flatten().filter(is_mounted).collect();
    json!({"initContainers": init_containers, "volumes": volumes})
}

/// What is wanted, with the images that are there of the containers for which nobody chose one; none where the image is
/// said, or nothing differs by it.
fn with_images_of(found: &Value, mut wanted: Value, follows: &BTreeSet<String>, settings: &Settings) -> Option<Value> {
    if settings.is_image_said {
        return None;
    }
    let mut differs = false;
    for field in ["containers", "initContainers"] {
        // Not by an index, which would put in what is missing.
        let list = wanted.get_mut(field).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten().filter(|container| follows.contains(text(container, "/name"))) {
            let name = text(container, "/name").to_owned();
            let there = found[field].as_array().into_iter().flatten().find(|there| text(there, "/name") == name);
            if let Some(there) = there.filter(|there| there["image"] != container["image"]) {
                container["image"] = there["image"].clone();
                differs = true;
            }
        }
    }
    differs.then_some(wanted)
}

/// Whether a workload's pods hold a container of ours with another image than the operator would give it now.
pub(crate) fn is_outdated(workload: &Value, image: &str) -> bool {
    let ours = ours(&workload["spec"]["template"]["spec"]);
    let containers = ["containers", "initContainers"].into_iter().flat_map(|field| ours[field].as_array()).flatten();
    let name = |image: &str| image.rsplit_once(':').map_or(image, |(name, _)| name).to_owned();
    // Images of templates are their owners' to choose.
    let mut images = containers.map(|container| text(container, "/image"));
    images.any(|found| found != image && name(found) == name(image))
}

/// The names of the containers and volumes of a spec.
fn names_of(spec: &Value) -> BTreeSet<String> {
    let lists = ["containers", "initContainers", "volumes"].into_iter().flat_map(|field| spec[field].as_array());
    lists.flatten().map(|item| text(item, "/name").to_owned()).collect()
}

/// A pod template with what is ours.
fn template(spec: Value) -> Value {
    let hash = names::hash(&spec.to_string());
    json!({"metadata": {"annotations": {SIDECAR_ANNOTATION: hash}}, "spec": spec})
}

/// What is put into a pod template.
#[derive(Debug, Default)]
struct Injection {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    volumes: Vec<Volume>,
    pull_secrets: Vec<LocalObjectReference>,
    /// The containers that have the operator's image, since neither a Restic nor a template chooses one.
    images_of_operator: BTreeSet<String>,
}

impl Injection {
    /// None if nothing is to be put in.
    fn new(protected: Protected<'_>, objects: &Objects<'_>, settings: &Settings) -> Option<Self> {
        let Protected { world, target, workload, backups, recoveries } = protected;
        // A template that is no pod's belongs to an object that the server would not have taken.
        let mut pod: PodSpec = serde_json::from_value(workload["spec"]["template"]["spec"].clone()).ok()?;
        pod.containers.retain(|container| !container::is_ours(container));
        pod.init_containers.iter_mut().for_each(|list| list.retain(|container| !container::is_ours(container)));
        let making = Making { world, target, pod: &pod, objects, settings };
        let mut injection = Self::default();
        injection.sidecar(making, backups);
        injection.templates(making, backups);
        injection.recoveries(making, recoveries);
        injection.volumes.sort_by(|a, b| a.name.cmp(&b.name));
        injection.volumes.dedup_by(|a, b| a.name == b.name);
        injection.pull_secrets.sort_by(|a, b| a.name.cmp(&b.name));
        injection.pull_secrets.dedup_by(|a, b| a.name == b.name);
        (!injection.containers.is_empty() || !injection.init_containers.is_empty()).then_some(injection)
    }

    /// The sidecar that all objects with the default template share.
    fn sidecar(&mut self, making: Making<'_>, ties: &[Tie<'_>]) {
        let works: Vec<&Work<'_>> =
            ties.iter().filter_map(|tie| tie.work.as_ref()).filter(|work| templates::is_default(work.agent)).collect();
        if works.is_empty() {
            return;
        }
        let mut needs = making.needs(&works, Access::Read);
        let mut attributes = Attributes::default();
        for work in &works {
            needs.store(&work.store);
            work.container.iter().for_each(|container| attributes.add(container));
            work.resources.iter().for_each(|resources| attributes.add_resources(resources));
            self.pull_secrets.extend(work.pull_secrets.iter().cloned());
        }
        let chosen = works.iter().find_map(|work| work.image.filter(|image| !image.is_empty()));
        if chosen.is_none() {
            self.images_of_operator.insert(RESTIC_SIDECAR.to_owned());
        }
        let image = making.settings.image(chosen);
        let args = vec!["watch".to_owned(), format!("--target={}", making.whom())];
        let own = container::own(RESTIC_SIDECAR, &image, args, making.settings);
        let purpose = making.purpose(Access::Read, Vec::new());
        self.add(false, own, &purpose, &needs, &attributes, making.settings);
    }

    /// The containers of Backups with a template of their own.
    fn templates(&mut self, making: Making<'_>, ties: &[Tie<'_>]) {
        for tie in ties {
            let Some(work) = tie.work.as_ref().filter(|work| !templates::is_default(work.agent)) else { continue };
            let object = vec![(names::BACKUP_NAME, tie.object.name.clone())];
            let purpose = Purpose { follow_schedule: true, ..making.purpose(Access::Read, object) };
            self.of_template(making, tie, work, &purpose, Access::Read);
        }
    }

    /// The init containers of Recoveries.
    fn recoveries(&mut self, making: Making<'_>, ties: &[Tie<'_>]) {
        for tie in ties {
            let Some(work) = &tie.work else { continue };
            let uid = making.world.of(&tie.object).map(|recovery| (names::RECOVERY_UID, uid(recovery).to_owned()));
            let object = [(names::RECOVERY_NAME, tie.object.name.clone())].into_iter().chain(uid).collect();
            let purpose = making.purpose(Access::Write, object);
            if !templates::is_default(work.agent) {
                self.of_template(making, tie, work, &purpose, Access::Write);
                continue;
            }
            let mut needs = making.needs(&[work], Access::Write);
            needs.store(&work.store);
            let mut attributes = Attributes::default();
            work.container.iter().for_each(|container| attributes.add(container));
            self.pull_secrets.extend(work.pull_secrets.iter().cloned());
            let name = bounded(&format!("{RECOVERY_PREFIX}{}", tie.object.name));
            if work.image.is_none() {
                self.images_of_operator.insert(name.clone());
            }
            let args = templates::recovery_arguments();
            let own = container::own(&name, &making.settings.image(work.image), args, making.settings);
            self.add(true, own, &purpose, &needs, &attributes, making.settings);
        }
    }

    /// The containers of a template, named after the object that uses it.
    fn of_template(&mut self, making: Making<'_>, tie: &Tie<'_>, work: &Work<'_>, purpose: &Purpose, access: Access) {
        let Some(template) = making.objects.agents.get(work.agent) else { return };
        let mut needs = making.needs(&[work], access);
        needs.store(&work.store);
        let mut attributes = Attributes::default();
        work.container.iter().for_each(|container| attributes.add(container));
        self.pull_secrets.extend(work.pull_secrets.iter().cloned());
        let volume = |name: &str| format!("holdfast-volume-{}", names::hash(&format!("{}/{name}", tie.object)));
        let spec = &template.spec;
        let is_shared = |name: &str| spec.volumes.iter().any(|volume| volume.name == name);
        let init = spec.init_containers.iter().map(|container| (true, container));
        // Before the workload starts, everything of a recovery ends, one after the other.
        let rest = spec.containers.iter().map(|container| (access == Access::Write, container));
        for (before_start, container) in init.chain(rest) {
            let mut container = container.clone();
            container.name = bounded(&format!("{}-{}", container.name, tie.object.name));
            for mount in container.volume_mounts.iter_mut().flatten().filter(|mount| is_shared(&mount.name)) {
                mount.name = volume(&mount.name);
            }
            self.add(before_start, container, purpose, &needs, &attributes, making.settings);
        }
        let shared = spec.volumes.iter().map(|shared| Volume { name: volume(&shared.name), ..shared.clone() });
        self.volumes.extend(shared);
    }

    fn add(
        &mut self,
        before_start: bool,
        container: Container,
        purpose: &Purpose,
        needs: &Needs,
        attributes: &Attributes,
        settings: &Settings,
    ) {
        let container = container::complete(container, purpose, needs, attributes, settings);
        let list = if before_start { &mut self.init_containers } else { &mut self.containers };
        list.push(container);
        self.volumes.extend(needs.volumes().cloned());
    }

    /// What is applied to the pods' spec.
    fn spec(&self) -> Value {
        let mut spec = serde_json::Map::new();
        for (field, list) in [
            ("containers", json!(self.containers)),
            ("initContainers", json!(self.init_containers)),
            ("volumes", json!(self.volumes)),
            ("imagePullSecrets", json!(self.pull_secrets)),
        ] {
            if list.as_array().is_some_and(|list| !list.is_empty()) {
                spec.insert(field.to_owned(), list);
            }
        }
        Value::Object(spec)
    }
}

/// What is the same for all containers of one workload.
#[derive(Debug, Clone, Copy)]
struct Making<'a> {
    world: &'a World<'a>,
    target: &'a Target,
    /// The pods as their owner wrote them.
    pod: &'a PodSpec,
    objects: &'a Objects<'a>,
    settings: &'a Settings,
}

impl Making<'_> {
    /// `Deployment/web`.
    fn whom(&self) -> String {
        format!("{}/{}", self.target.kind.name(), self.target.name)
    }

    fn purpose(&self, access: Access, object: Vec<(&'static str, String)>) -> Purpose {
        let user = container::user_beside(self.pod, access);
        Purpose { target: self.whom(), object, follow_schedule: false, user }
    }

    /// The volumes of the application: those that its containers mount, and those that an object names.
    fn needs(&self, works: &[&Work<'_>], access: Access) -> Needs {
        let stays = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
        let sidecars = self.pod.init_containers.iter().flatten().filter(stays);
        let mounts = self.pod.containers.iter().chain(sidecars).flat_map(|app| app.volume_mounts.iter().flatten());
        let mounted = mounts.map(|mount| mount.name.as_str());
        let named = works.iter().flat_map(|work| work.volumes.iter().map(String::as_str));
        let mut needs = Needs::new();
        for name in mounted.chain(named).collect::<BTreeSet<_>>() {
            needs.target(name, access);
        }
        needs
    }
}

/// A name of at most 63 characters, as containers have it, in which what is cut off still counts.
pub(crate) fn bounded(name: &str) -> String {
    // Names of objects may hold dots; those of containers may not.
    let name = name.replace('.', "-");
    if name.len() <= 63 { name } else { format!("{}-{}", name[..54].trim_end_matches('-'), names::hash(&name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_are_bounded_and_stay_apart() {
        assert_eq!(bounded("restic-recover-a.b"), "restic-recover-a-b");
        let long = |last: &str| bounded(&format!("restic-recover-{}{last}", "x".repeat(80)));
        assert_eq!(long("1").len(), 63);
        assert_ne!(long("1"), long("2"));
    }
}
