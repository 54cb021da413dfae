//! The definitions are what an API server takes, and the copies in `deploy` are fresh.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::json;

use super::*;

static CRDS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(crds);

/// Every schema of every version with the path to it.
fn check_every_schema(mut check: impl FnMut(&str, &Value)) {
    fn walk(path: &str, schema: &Value, check: &mut impl FnMut(&str, &Value)) {
        check(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, check);
        }
        if schema["items"].is_object() {
            walk(&format!("{path}[]"), &schema["items"], check);
        }
        if schema["additionalProperties"].is_object() {
            walk(&format!("{path}{{}}"), &schema["additionalProperties"], check);
        }
    }
    for crd in CRDS.iter() {
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()).unwrap();
            walk(&crd.spec.names.kind, &serde_json::to_value(schema).unwrap(), &mut check);
        }
    }
}

/// For plain manifests, and inside the chart: a link between the two would not survive every way of copying a checkout.
const COPIES: [&str; 2] = ["deploy/crds", "deploy/helm/holdfast/definitions"];

#[test]
fn the_copies_in_deploy_are_fresh() {
    let update = std::env::var_os("UPDATE").is_some();
    for copies in COPIES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(copies);
        let mut wanted = BTreeSet::new();
        for crd in CRDS.iter() {
            let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            let yaml = serde_saphyr::to_string(crd).unwrap();
            if update {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join(&name), &yaml).unwrap();
            }
            let copy = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
            assert!(copy == yaml, "{copies}/{name} is stale: run UPDATE=1 cargo test -p holdfast-api crds");
            wanted.insert(name);
        }
        let found = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{copies}: {error}"));
        let found = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(found.collect::<BTreeSet<_>>(), wanted, "{copies}");
    }
}

#[test]
fn the_stream_holds_every_definition() {
    let yaml = to_yaml().unwrap();
    assert_eq!(yaml.matches("---\napiVersion: apiextensions.k8s.io/v1\n").count(), CRDS.len());
    let read: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&yaml).unwrap();
    assert_eq!(read, *CRDS);
}

#[test]
fn every_kind_has_category_short_name_and_columns() {
    for crd in CRDS.iter() {
        let names = &crd.spec.names;
        assert_eq!(names.categories.as_deref(), Some(["holdfast".to_owned()].as_slice()), "{}", names.kind);
        assert!(names.short_names.as_ref().is_some_and(|names| !names.is_empty()), "{}", names.kind);
        assert_eq!(crd.spec.versions.iter().filter(|version| version.storage).count(), 1, "{}", names.kind);
        for version in &crd.spec.versions {
            assert!(version.additional_printer_columns.as_ref().is_some_and(|columns| !columns.is_empty()));
            let has_status = json!(version.schema)["openAPIV3Schema"]["properties"]["status"].is_object();
            assert_eq!(version.subresources.is_some(), has_status, "{}", names.kind);
        }
    }
    let short: Vec<&String> = CRDS.iter().flat_map(|crd| crd.spec.names.short_names.iter().flatten()).collect();
    assert_eq!(short.iter().collect::<BTreeSet<_>>().len(), short.len(), "{short:?}");
}

#[test]
fn printer_columns_lead_to_fields() {
    for crd in CRDS.iter() {
        for version in &crd.spec.versions {
            let schema = json!(version.schema)["openAPIV3Schema"].clone();
            for column in version.additional_printer_columns.iter().flatten() {
                let path = column.json_path.replace('.', "/properties/");
                let leads = column.json_path.starts_with(".metadata.") || schema.pointer(&path).is_some();
                assert!(leads, "{} {}", crd.spec.names.kind, column.json_path);
            }
        }
    }
}

/// The rules by which an API server refuses a schema.
#[test]
fn schemas_are_structural() {
    check_every_schema(|path, schema| {
        let int_or_string = schema["x-kubernetes-int-or-string"] == true;
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        assert!(schema["type"].is_string() || int_or_string || open, "{path} has no type");
        assert!(schema.get("$ref").is_none(), "{path} refers");
        assert!(schema["type"] != "array" || schema["items"].is_object(), "{path} has no items");
        let both = schema["properties"].is_object() && schema["additionalProperties"].is_object();
        assert!(!both, "{path} has properties and additionalProperties");
        for key in ["allOf", "anyOf", "oneOf", "not"] {
            assert!(schema.get(key).is_none(), "{path} has {key}");
        }
        if let Some(format) = schema["format"].as_str() {
            assert!(KNOWN_FORMATS.contains(&format), "{path} has the format {format}");
        }
    });
}

#[test]
fn every_field_of_ours_is_described() {
    let embedded = [
        "affinity",
        "conditions",
        "containers",
        "env",
        "envFrom",
        "imagePullSecrets",
        "initContainers",
        "securityContext",
        "selector",
        "tolerations",
        "volumeMounts",
        "volumes",
    ];
    let sources: Vec<String> =
        serde_json::to_value(schemars::schema_for!(crate::values::VolumeSource)).unwrap()["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
    check_every_schema(|path, schema| {
        let fields: Vec<&str> = path.split('.').skip(1).collect();
        let outer = &fields[..fields.len().saturating_sub(1)];
        let is_embedded = outer.iter().any(|field| {
            let field = field.trim_end_matches("[]").trim_end_matches("{}");
            embedded.contains(&field) || sources.iter().any(|source| source == field)
        }) || path.starts_with("Restic.spec.destination.volume.")
            || path.ends_with("[]")
            || path.ends_with("{}");
        let root = path.contains('.') && fields != ["spec"];
        assert!(!root || is_embedded || schema["description"].is_string(), "{path} has no description");
    });
}
