//! References from one object to another.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

/// Names an object of a kind that the field already fixes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Name of the object.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Namespace of the object. Default: the namespace of the object that holds the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Names an object of any kind in the same namespace: what a `Backup` protects or a `Recovery` restores into.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetReference {
    /// API group and version of the object, such as `apps/v1` or `v1`.
    #[schemars(length(min = 1))]
    pub api_version: String,
    /// Kind of the object, such as `Deployment` or `AppBinding`.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1))]
    pub name: String,
}

impl fmt::Display for TargetReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}

/// Names the `AgentTemplate` that does the work.
///
/// The canonical form is an object, `{name: stash-volume-backup}`. A plain string is read as the name, since both
/// forms stand in published examples; an API server accepts only the object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentReference {
    /// Name of the cluster-scoped `AgentTemplate`.
    #[schemars(length(min = 1))]
    pub name: String,
}

impl<'de> Deserialize<'de> for AgentReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Canonical {
            name: String,
        }
        struct StringOrObject;
        impl<'de> Visitor<'de> for StringOrObject {
            type Value = AgentReference;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the `name` of an AgentTemplate")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<AgentReference, E> {
                Ok(AgentReference { name: name.to_owned() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AgentReference, A::Error> {
                let Canonical { name } = Canonical::deserialize(MapAccessDeserializer::new(map))?;
                Ok(AgentReference { name })
            }
        }
        deserializer.deserialize_any(StringOrObject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn agent_is_read_from_object_and_from_string_and_written_as_object() {
        for given in [json!({"name": "pg-backup"}), json!("pg-backup")] {
            let agent: AgentReference = serde_json::from_value(given).unwrap();
            assert_eq!(serde_json::to_value(agent).unwrap(), json!({"name": "pg-backup"}));
        }
    }

    #[test]
    fn agent_of_another_type_says_what_was_expected() {
        let error = serde_json::from_value::<AgentReference>(json!(7)).unwrap_err().to_string();
        assert!(error.contains("expected an object with the `name` of an AgentTemplate"), "{error}");
    }
}
