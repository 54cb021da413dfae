//! The CustomResourceDefinitions of Holdfast's kinds, generated from the types.
//!
//! Copies lie in `deploy/crds` and in the chart; `UPDATE=1 cargo test -p holdfast-api crds` writes them anew.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Affinity, Container, EnvFromSource, LocalObjectReference, PodSecurityContext, Toleration, Volume,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResourceExt;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::appcatalog::AppBinding;
use crate::stash::{AgentTemplate, Backup, BackupTemplate, BackupTrigger, Recovery, Repository, Restic};

/// The annotation of a definition with the version of Holdfast that it is of.
pub const VERSION_ANNOTATION: &str = "holdfast/version";

/// The definitions, as an API server takes them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        Restic::crd(),
        Repository::crd(),
        Backup::crd(),
        also_served_as(Recovery::crd(), "v1alpha1"),
        BackupTrigger::crd(),
        BackupTemplate::crd(),
        AgentTemplate::crd(),
        AppBinding::crd(),
    ];
    for crd in &mut crds {
        let version = (VERSION_ANNOTATION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        crd.metadata.annotations.get_or_insert_default().extend([version]);
    }
    let embedded = embedded_descriptions();
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            for_each_schema(schema, &mut |schema| {
                // Formats of our own would only earn a warning from the server; the patterns beside them stay.
                schema.format = schema.format.take().filter(|format| KNOWN_FORMATS.contains(&format.as_str()));
                schema.description = schema.description.take().filter(|text| !embedded.contains(text));
            });
        }
    }
    crds
}

/// The definitions as one stream of YAML documents.
///
/// # Errors
/// When a definition cannot be written as YAML, which holds for none of them.
pub fn to_yaml() -> Result<String, serde_saphyr::ser::Error> {
    crds().iter().map(|crd| Ok(format!("---\n{}", serde_saphyr::to_string(crd)?))).collect()
}

/// Serves the stored version under an older name too. Both have the same schema, so nothing needs converting.
fn also_served_as(mut crd: CustomResourceDefinition, version: &str) -> CustomResourceDefinition {
    if let [stored] = crd.spec.versions.as_slice() {
        let mut older = stored.clone();
        older.name = version.to_owned();
        older.storage = false;
        crd.spec.versions.push(older);
    }
    crd
}

/// The formats that an API server knows, as far as the schemas use them.
const KNOWN_FORMATS: [&str; 5] = ["int32", "int64", "double", "date-time", "byte"];

/// What Kubernetes says about its own types: several times as long as all the rest, and in `kubectl explain pod` anyway.
fn embedded_descriptions() -> BTreeSet<String> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if name == "description" => drop(into.insert(text.clone())),
                        _ => collect(value, into),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let mut generator = SchemaSettings::default().into_generator();
    generator.subschema_for::<Affinity>();
    generator.subschema_for::<Condition>();
    generator.subschema_for::<Container>();
    generator.subschema_for::<EnvFromSource>();
    generator.subschema_for::<LabelSelector>();
    generator.subschema_for::<LocalObjectReference>();
    generator.subschema_for::<PodSecurityContext>();
    generator.subschema_for::<Toleration>();
    generator.subschema_for::<Volume>();
    let mut descriptions = BTreeSet::new();
    generator.definitions().values().for_each(|definition| collect(definition, &mut descriptions));
    descriptions
}

/// Calls `change` for `schema` and everything below it.
fn for_each_schema(schema: &mut JSONSchemaProps, change: &mut impl FnMut(&mut JSONSchemaProps)) {
    change(schema);
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        for_each_schema(property, change);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        for_each_schema(items, change);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        for_each_schema(values, change);
    }
    for branch in [&mut schema.all_of, &mut schema.any_of, &mut schema.one_of].into_iter().flatten().flatten() {
        for_each_schema(branch, change);
    }
}

#[cfg(test)]
mod tests;
