//! A Repository with `deletionPolicy: WipeOut`: its data is deleted before the object goes, by a Job that a finalizer
//! waits for. In a namespace that is being deleted nothing can run any more: there the data stays, and that is said.

use std::collections::BTreeMap;

use holdfast_api::stash::{DeletionPolicy, Repository};
use holdfast_plan::{ObjectKey, Plan};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::access::Grant;
use crate::action::{Action, Decision};
use crate::container::{Access, Store};
use crate::event;
use crate::job::{self, Containers, Draft, Work};
use crate::objects::Objects;
use crate::settings::Settings;
use crate::world::{World, is_deleted, name, uid};

/// The finalizer.
pub(crate) const FINALIZER: &str = "holdfast/wipe";
/// Under its own manager: what else is applied to a Repository must not take it away.
const MANAGER: &str = "holdfast-finalizer";
/// How long a Job that failed is waited after.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(5);

/// What a Repository waits for while it is being deleted.
pub(crate) type Waiting = BTreeMap<String, String>;

/// Gives the finalizer to those that are to be wiped, and takes it back.
pub(crate) fn finalizers(
    world: &World<'_>,
    objects: &Objects<'_>,
    plan: &Plan,
    jobs: &[Work<'_>],
    now: Timestamp,
    settings: &Settings,
    decision: &mut Decision,
) -> (Waiting, Vec<ObjectKey>) {
    let mut waiting = Waiting::new();
    let mut working = Vec::new();
    for found in world.all("Repository") {
        let typed = objects.repositories.get(&(world.namespace, name(found))).copied();
        let wipes = found["spec"]["deletionPolicy"] == json!("WipeOut");
        debug_assert!(typed.is_none_or(|typed| (typed.spec.deletion_policy == DeletionPolicy::WipeOut) == wipes));
        match (has_finalizer(found), is_deleted(found)) {
            (false, false) if wipes => {
                decision.actions.push(set(found, true, "its data is to be wiped when it is deleted"))
            }
            (true, false) if !wipes => decision.actions.push(set(found, false, "its data stays when it is deleted")),
            (true, true) if !wipes => decision.actions.push(set(found, false, "its data stays")),
            (true, true) => {
                let state = Wiping { world, found, typed, plan, jobs, now, settings };
                if let Some(message) = state.advance(objects, decision) {
                    waiting.insert(name(found).to_owned(), message);
                }
                working.push(ObjectKey::new("Repository", world.namespace, name(found)));
            }
            _ => {}
        }
    }
    (waiting, working)
}

/// Lets go of everything in a namespace that is being deleted.
pub(crate) fn let_go(world: &World<'_>) -> Vec<Action> {
    let held = world.all("Repository").filter(|found| has_finalizer(found) && is_deleted(found));
    held.map(|found| set(found, false, "its namespace is being deleted: its data stays")).collect()
}

/// What the agent of a wipe may do.
pub(crate) fn grant(object: &ObjectKey) -> Grant {
    let mut grant = Grant::default();
    grant.write(object);
    grant
}

struct Wiping<'a> {
    world: &'a World<'a>,
    found: &'a Value,
    typed: Option<&'a Repository>,
    plan: &'a Plan,
    jobs: &'a [Work<'a>],
    now: Timestamp,
    settings: &'a Settings,
}

impl Wiping<'_> {
    /// The next step; says what is waited for.
    fn advance(&self, objects: &Objects<'_>, decision: &mut Decision) -> Option<String> {
        let (world, name) = (self.world, name(self.found));
        let uses = |reference: &holdfast_api::values::ObjectReference, namespace: &str| {
            reference.name == name && reference.namespace.as_deref().unwrap_or(namespace) == world.namespace
        };
        let users = objects.backups.iter().filter(|((namespace, _), backup)| uses(&backup.spec.repository, namespace));
        if let Some(((namespace, user), _)) = users.into_iter().next() {
            return Some(format!("it is wiped when nothing uses it any more; Backup {namespace}/{user} does"));
        }
        let planned = self.plan.repositories.iter().find(|planned| planned.id == format!("{}/{name}", world.namespace));
        let (Some(typed), Some(planned)) = (self.typed, planned) else {
            return Some(
                "it cannot be opened as it is written, so that its data cannot be wiped; correct it, or set \
                         deletionPolicy to Retain"
                    .to_owned(),
            );
        };
        let own = self.jobs.iter().filter(|work| work.object.kind == "Repository" && work.object.name == name);
        match own.max_by_key(|work| work.created()).map(|work| (work, work.ended())) {
            Some((_, Some(ended))) if ended.succeeded => {
                decision.actions.push(set(self.found, false, "its data is wiped"));
                None
            }
            Some((work, Some(ended))) => {
                match ended.at.checked_add(AGAIN_AFTER) {
                    Ok(again) if again > self.now => decision.again_at(again),
                    _ => decision.actions.push(job::delete(work.job, "it failed, and is tried again")),
                }
                Some(format!("its data could not be wiped, which is tried again: {}", ended.why))
            }
            Some((_, None)) => Some("its data is being wiped".to_owned()),
            None => {
                let store = Store::new(&typed.spec.backend, planned, false);
                let args = vec!["wipe".to_owned(), format!("--repository-name={name}")];
                let draft = Draft {
                    owner: self.found,
                    name: format!("wipe-{name}"),
                    host: "repository".to_owned(),
                    component: "wipe",
                    target: format!("Repository/{name}"),
                    object: Vec::new(),
                    containers: Containers::Own("stash-wipe", args),
                    volumes: Vec::new(),
                    access: Access::Write,
                    store: &store,
                    container: None,
                    pod: None,
                    pull_secrets: &[],
                    node_selector: BTreeMap::new(),
                };
                let because = "the Repository is deleted with its data".to_owned();
                decision.actions.extend(job::create(world, draft, because, self.settings));
                Some("its data is being wiped".to_owned())
            }
        }
    }
}

fn has_finalizer(object: &Value) -> bool {
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER))
}

fn set(found: &Value, wanted: bool, because: &str) -> Action {
    let mut metadata = json!({"name": name(found), "namespace": found["metadata"]["namespace"], "uid": uid(found)});
    if wanted {
        metadata["finalizers"] = json!([FINALIZER]);
    }
    Action::Apply {
        because: because.to_owned(),
        manager: MANAGER.to_owned(),
        subresource: None,
        object: json!({"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": metadata}),
    }
}

/// Says that data stays although it was to be wiped.
pub(crate) fn events(world: &World<'_>) -> Vec<Action> {
    let held = world.all("Repository").filter(|found| has_finalizer(found) && is_deleted(found));
    held.filter_map(|found| {
        let message = format!(
            "Repository {} is not wiped, since nothing can run any more in a namespace that is being deleted: its data \
             stays in the store",
            name(found)
        );
        event::warning_of_namespace(world, "DataKept", &message)
    })
    .collect()
}
