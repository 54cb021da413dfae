//! Events of the operator's own: what is wrong with an object, once for each thing that is wrong.

use holdfast_api::names::pod as names;
use serde_json::{Value, json};

use crate::action::Action;
use crate::world::{World, name, text, uid};

/// A warning about an object of the namespace; none if it was told already.
pub(crate) fn warning(world: &World<'_>, object: &Value, reason: &str, message: &str) -> Option<Action> {
    event(world, world.namespace, object, reason, message)
}

/// A warning about the namespace itself, which can take no event any more: as with everything outside namespaces, it is
/// in `default`.
pub(crate) fn warning_of_namespace(world: &World<'_>, reason: &str, message: &str) -> Option<Action> {
    let namespace = world.elsewhere("Namespace", "", world.namespace)?;
    event(world, "default", namespace, reason, message)
}

fn event(world: &World<'_>, place: &str, object: &Value, reason: &str, message: &str) -> Option<Action> {
    // The same thing said of the same object has the same name, and so is there already.
    let hash = names::hash(&format!("{}/{reason}/{message}", uid(object)));
    let event = format!("{}.{hash}", name(object));
    if world.elsewhere("Event", place, &event).is_some() {
        return None;
    }
    // An event's message has at most 1,024 bytes.
    let mut end = message.len().min(1000);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    Some(Action::Create {
        because: format!("a person should know: {reason}"),
        object: json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": event, "namespace": place},
            "involvedObject": {
                "apiVersion": text(object, "/apiVersion"),
                "kind": text(object, "/kind"),
                "namespace": text(object, "/metadata/namespace"),
                "name": name(object),
                "uid": uid(object),
            },
            "type": "Warning",
            "reason": reason,
            "message": &message[..end],
            "source": {"component": "holdfast"},
            "reportingComponent": "holdfast",
            "count": 1,
        }),
    })
}
