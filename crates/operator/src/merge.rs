//! Whether an object is already as an apply would make it, without asking the server.
//!
//! Server-side apply merges lists whose items have a key, and replaces every other. The keys are those of the kinds
//! that are applied here; the API server fills in defaults, so that more may stand in the object than was applied.

use holdfast_api::values::Quantity;
use serde_json::{Map, Value};

/// What tells apart the items of the list of this field; none for a list that is replaced whole.
pub fn key_of_items(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "conditions" => Some("type"),
        "hosts" | "runs" => Some("host"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

/// Whether everything of `wanted` stands in `found`.
pub fn contains(found: &Value, wanted: &Value) -> bool {
    contains_field("", found, wanted)
}

fn contains_field(field: &str, found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| match found.get(name) {
            Some(found) => contains_field(name, found, wanted),
            None => is_empty(wanted),
        }),
        (Value::Array(found), Value::Array(wanted)) => match key_of_items(field) {
            Some(key) => wanted.iter().all(|wanted| {
                found.iter().any(|found| found.get(key) == wanted.get(key) && contains_field("", found, wanted))
            }),
            // Every item of it, in its order, each perhaps with defaults.
            None => {
                found.len() == wanted.len()
                    && found.iter().zip(wanted).all(|(found, wanted)| contains_field("", found, wanted))
            }
        },
        (Value::String(found), Value::String(wanted)) => found == wanted || is_same_amount(found, wanted),
        _ => found == wanted,
    }
}

/// Whether two texts are the same amount: a server writes `0.25` as `250m`. Where either is no amount, they differ.
fn is_same_amount(a: &str, b: &str) -> bool {
    let amount = |text: &str| text.parse::<Quantity>().ok();
    amount(a).zip(amount(b)).is_some_and(|(a, b)| a == b)
}

/// What the server leaves out of what it stores.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Puts `applied` into `object`, as server-side apply does. What was applied before and is not now is not taken away.
pub fn apply(object: &mut Value, applied: &Value) {
    apply_field("", object, applied);
}

fn apply_field(field: &str, object: &mut Value, applied: &Value) {
    match (&mut *object, applied) {
        (Value::Object(object), Value::Object(applied)) => {
            for (name, applied) in applied {
                apply_field(name, object.entry(name.clone()).or_insert_with(|| empty_like(applied)), applied);
            }
        }
        (Value::Array(items), Value::Array(applied)) if key_of_items(field).is_some() => {
            let key = key_of_items(field).unwrap_or_default();
            for applied in applied {
                match items.iter_mut().find(|item| item.get(key) == applied.get(key)) {
                    Some(item) => apply_field("", item, applied),
                    None => items.push(applied.clone()),
                }
            }
        }
        _ => *object = applied.clone(),
    }
}

fn empty_like(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_of_the_server_are_no_difference() {
        let found = json!({"spec": {"containers": [{"name": "app"}, {"name": "x", "image": "i", "policy": "Always"}]}});
        for (wanted, expected) in [
            (json!({"spec": {"containers": [{"name": "x", "image": "i"}]}}), true),
            (json!({"spec": {"containers": [{"name": "x", "image": "i", "env": []}], "volumes": []}}), true),
            (json!({"spec": {"containers": [{"name": "x", "image": "j"}]}}), false),
            (json!({"spec": {"containers": [{"name": "y"}]}}), false),
            (json!({"spec": {"volumes": [{"name": "v"}]}}), false),
        ] {
            assert_eq!(contains(&found, &wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn amounts_are_compared_by_what_they_are() {
        let found = json!({"limits": {"cpu": "250m", "memory": "1Gi"}});
        assert!(contains(&found, &json!({"limits": {"cpu": "0.25", "memory": "1024Mi"}})));
        assert!(!contains(&found, &json!({"limits": {"cpu": "0.5"}})));
    }

    #[test]
    fn a_list_without_a_key_is_compared_whole() {
        let found = json!({"args": ["a", "b"]});
        assert!(contains(&found, &json!({"args": ["a", "b"]})));
        assert!(!contains(&found, &json!({"args": ["a"]})));
        assert!(!contains(&found, &json!({"args": ["b", "a"]})));
    }

    #[test]
    fn what_is_applied_is_contained() {
        let mut object = json!({"containers": [{"name": "app", "args": ["1"]}], "a": {"b": 1}});
        let applied = json!({"containers": [{"name": "x", "args": ["2"]}, {"name": "app", "args": []}], "a": {"c": 2}});
        apply(&mut object, &applied);
        assert!(contains(&object, &applied));
        assert_eq!(
            object,
            json!({"containers": [{"name": "app", "args": []}, {"name": "x", "args": ["2"]}], "a": {"b": 1, "c": 2}})
        );
    }
}
