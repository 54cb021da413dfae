//! The default backup: the Repository and the Backup of every workload that asks for them by annotation.
//!
//! The Backup goes when its workload does not ask any more. The Repository stays: it is what a recovery names.

use holdfast_api::names::{BACKUP_ANNOTATION, managers};
use holdfast_plan::{Generated, MANAGED_BY, ObjectKey, Plan};
use serde_json::{Value, json};

use crate::action::Action;
use crate::merge;
use crate::world::{World, is_deleted, name, text, uid};

/// What is to be made, brought up to date, or removed.
pub(crate) fn actions(world: &World<'_>, plan: &Plan) -> Vec<Action> {
    let wanted: Vec<Value> = plan.generated.iter().filter_map(object).collect();
    let (label, value) = MANAGED_BY;
    let ours = |object: &&Value| object.pointer("/metadata/labels").is_some_and(|labels| labels[label] == value);
    let unwanted = world.all("Backup").filter(ours).filter(|found| !wanted.iter().any(|one| is_same(one, found)));
    let unwanted = unwanted.filter(|found| !is_asked_for(world, found) && !is_deleted(found));
    let gone = unwanted.map(|found| Action::Delete {
        because: "its workload does not ask for the default backup any more".to_owned(),
        api_version: text(found, "/apiVersion").to_owned(),
        object: ObjectKey::new("Backup", world.namespace, name(found)),
        uid: uid(found).to_owned(),
    });
    let missing = wanted.iter().filter(|wanted| {
        let found = world.get(text(wanted, "/kind"), name(wanted));
        !found.is_some_and(|found| merge::contains(found, wanted) && !has_more(&found["spec"], &wanted["spec"]))
    });
    let made = missing.map(|wanted| Action::Apply {
        because: "its workload asks for the default backup".to_owned(),
        manager: managers::OPERATOR.to_owned(),
        subresource: None,
        object: wanted.clone(),
    });
    made.chain(gone).collect()
}

fn object(generated: &Generated) -> Option<Value> {
    let mut object = match generated {
        Generated::Repository(repository) => serde_json::to_value(repository),
        Generated::Backup(backup) => serde_json::to_value(backup),
    }
    .ok()?;
    // An apply that names the status would own it.
    object.as_object_mut()?.remove("status");
    Some(object)
}

fn is_same(wanted: &Value, found: &Value) -> bool {
    wanted["kind"] == found["kind"] && name(wanted) == name(found)
}

/// Whether something stands in what was made that its template does not say any more.
fn has_more(found: &Value, wanted: &Value) -> bool {
    let fields = |value: &Value| value.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    let (found, wanted) = (fields(found).unwrap_or_default(), fields(wanted).unwrap_or_default());
    // What the server fills in is written by us as well.
    found.iter().any(|field| !wanted.contains(field))
}

/// Whether the workload of a made Backup is there and asks for it, be it in a way that cannot be followed for now.
fn is_asked_for(world: &World<'_>, backup: &Value) -> bool {
    let target = &backup["spec"]["targetRef"];
    let workload = world.get(text(target, "/kind"), text(target, "/name"));
    let annotation = workload.and_then(|workload| workload.pointer("/metadata/annotations")?.get(BACKUP_ANNOTATION));
    annotation.is_some_and(|value| *value != json!("false"))
}
