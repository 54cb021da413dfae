//! `docs/reference/kinds.md` says what the definitions of the kinds say; `UPDATE=1 cargo test -p holdfast-api crds` writes
//! it anew.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use holdfast_api::crds::crds;
use holdfast_api::values::VolumeSource;
use serde_json::{Value, json};

const HEAD: &str = "\
# Kinds

Every kind with every field, from the definitions that `holdfast crds` prints. What a field does from a folder of
manifests is in [manifests](manifests.md); what the conditions of a status mean, in [conditions](conditions.md).

A field in **bold** is required where the one above it is given. `[]` is a list, `{}` a map from names. Types of
Kubernetes' own, such as a container, are `kubectl explain pod`'s to tell. A `volume` is one of Kubernetes' sources of
volumes, written inline: `persistentVolumeClaim`, `hostPath`, `nfs`, `csi`, …

This page is generated: `UPDATE=1 cargo test -p holdfast-api crds`.
";

#[test]
fn the_reference_of_the_crds_is_fresh() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/kinds.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let copy = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(copy == page, "docs/reference/kinds.md is stale: run UPDATE=1 cargo test -p holdfast-api crds");
}

fn page() -> String {
    let crds = crds();
    let mut page = Page { text: HEAD.to_owned(), sources: volume_sources(), ..Page::default() };
    let kinds: Vec<&str> = crds.iter().map(|crd| crd.spec.names.kind.as_str()).collect();
    let links: Vec<String> = kinds.iter().map(|kind| format!("[{kind}](#{})", kind.to_lowercase())).collect();
    page.line(&format!("\n{}", links.join(" · ")));
    for crd in &crds {
        page.kind(&serde_json::to_value(crd).unwrap());
    }
    page.text
}

/// The names of Kubernetes' sources of volumes.
fn volume_sources() -> BTreeSet<String> {
    let schema = json!(schemars::schema_for!(VolumeSource));
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

#[derive(Default)]
struct Page {
    text: String,
    sources: BTreeSet<String>,
    /// Objects with many fields that were told already: the kind and path of each.
    told: BTreeMap<String, (String, String)>,
    kind: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").unwrap();
    }

    fn kind(&mut self, crd: &Value) {
        let spec = &crd["spec"];
        let names = &spec["names"];
        let versions = spec["versions"].as_array().unwrap();
        let stored = versions.iter().find(|version| version["storage"] == true).unwrap();
        let schema = &stored["schema"]["openAPIV3Schema"];
        self.kind = names["kind"].as_str().unwrap().to_owned();
        let group = spec["group"].as_str().unwrap();
        let api: Vec<String> =
            versions.iter().map(|one| format!("`{group}/{}`", one["name"].as_str().unwrap())).collect();
        let short: Vec<String> =
            names["shortNames"].as_array().unwrap().iter().map(|one| format!("`{}`", one.as_str().unwrap())).collect();
        let scope = match spec["scope"].as_str().unwrap() {
            "Namespaced" => "in a namespace",
            _ => "in no namespace",
        };
        let heading = format!("\n## {}\n\n{}", self.kind, description(schema));
        self.line(&heading);
        let plural = names["plural"].as_str().unwrap();
        self.line(&format!("\n{}, {scope}; `kubectl get {plural}`, or {}.", api.join(", "), short.join(", ")));
        for part in ["spec", "status"] {
            if schema["properties"][part].is_object() {
                self.line(&format!("\n| field of `{part}` | type | |\n|---|---|---|"));
                self.fields("", &schema["properties"][part]);
            }
        }
    }

    /// The fields of an object, and those below them.
    fn fields(&mut self, path: &str, object: &Value) {
        let required: BTreeSet<&str> =
            object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let fields = object["properties"].as_object().unwrap();
        let is_volume = self.sources.iter().all(|source| fields.contains_key(source));
        for (name, field) in fields {
            if is_volume && self.sources.contains(name) {
                continue;
            }
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let shown = if required.contains(name.as_str()) { format!("**`{path}`**") } else { format!("`{path}`") };
            let mut inner = field;
            let mut inner_path = path.clone();
            while let Some((next, suffix)) = below(inner) {
                inner = next;
                inner_path.push_str(suffix);
            }
            // Kubernetes' own types have no descriptions here.
            let is_ours = inner["properties"]
                .as_object()
                .is_some_and(|fields| fields.values().any(|field| field["description"].is_string()));
            let told = if is_ours { self.told_before(&inner_path, inner) } else { None };
            let mut meaning = description(field);
            if let Some((kind, at)) = &told {
                write!(meaning, " Fields as those of `{at}` of [{kind}](#{}).", kind.to_lowercase()).unwrap();
            }
            self.line(&format!("| {shown} | {} | {meaning} |", type_of(field, &self.sources)));
            if is_ours && told.is_none() {
                self.fields(&inner_path, inner);
            }
        }
    }

    /// Where an object with these very fields was told before, if it is worth a reference.
    fn told_before(&mut self, path: &str, object: &Value) -> Option<(String, String)> {
        if object["properties"].as_object().is_none_or(|fields| fields.len() < 5) {
            return None;
        }
        let fields = object["properties"].to_string();
        let known = self.told.get(&fields).cloned();
        if known.is_none() {
            self.told.insert(fields, (self.kind.clone(), path.to_owned()));
        }
        known
    }
}

/// The schema of the items of a list or map.
fn below(schema: &Value) -> Option<(&Value, &'static str)> {
    if schema["items"].is_object() {
        Some((&schema["items"], "[]"))
    } else if schema["additionalProperties"].is_object() {
        Some((&schema["additionalProperties"], "{}"))
    } else {
        None
    }
}

fn type_of(schema: &Value, sources: &BTreeSet<String>) -> String {
    if let Some((items, suffix)) = below(schema) {
        return format!("{}{suffix}", type_of(items, sources));
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        return values.join(", ");
    }
    let is_volume =
        schema["properties"].as_object().is_some_and(|fields| sources.iter().all(|source| fields.contains_key(source)));
    match (schema["type"].as_str(), schema["format"].as_str(), schema["pattern"].as_str()) {
        (Some("object"), ..) if is_volume => "volume".to_owned(),
        (Some("string"), Some("date-time"), _) => "time".to_owned(),
        // The one unit of spans that are no part of the calendar.
        (Some("string"), _, Some(pattern)) if pattern.contains("µs") => "duration".to_owned(),
        (Some(name), ..) => name.to_owned(),
        (None, ..) if schema["x-kubernetes-int-or-string"] == true => "quantity".to_owned(),
        (None, ..) => "any".to_owned(),
    }
}

/// What the definition says, as the cell of a table.
fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
