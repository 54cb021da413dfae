//! One object: which kind it is of, whether it is right, and what it says.

use std::fmt;
use std::sync::{Arc, LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use serde_json::{Value as Json, json};

use super::corrections;
use super::finding::Finding;
use super::kind::{self, Recognised};
use super::path::{Path, Step};
use super::problem::{Identity, Problem};
use super::rules;
use super::schema;
use super::tree::{Node, Value};
use super::typed::Typed;
use crate::kinds::KindInfo;

/// An object that was read without a mistake. Its `Debug` shows no contents, which may be those of a Secret.
#[derive(Clone)]
pub struct Object {
    /// The file, as it was named to [`read`](super::read).
    pub file: String,
    /// The line it begins on, from 1; 0 in an object of an API server.
    pub line: usize,
    /// Group and version, as `apps/v1`.
    pub api_version: String,
    /// The kind, as `Backup`.
    pub kind: String,
    /// The namespace, `default` where the manifest gives none; none for a kind that belongs to the whole cluster.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The object as an API server would take it, corrections and the namespace included.
    pub json: Json,
    /// The object as its own type.
    pub typed: Typed,
    tree: Arc<Node>,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.identity())
    }
}

impl Object {
    /// What this object is told apart by.
    pub fn identity(&self) -> Identity {
        Identity { kind: self.kind.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The line of a field such as `spec.repository.name`, from 1; where the field is not written, that of the nearest
    /// field around it that is.
    pub fn line_of(&self, path: &str) -> usize {
        self.tree.place(&Path::parse(path)).0
    }

    /// A problem with a field of this object, such as a reference to an object that does not exist.
    pub fn problem(&self, path: &str, problem: impl Into<String>) -> Problem {
        let path = Path::parse(path);
        Finding::new(self.tree.place(&path), &path, problem).in_file(&self.file, Some(&self.identity()))
    }
}

/// What became of one object of a manifest.
pub(super) enum Reading {
    /// It is right.
    Right(Box<Object>, Vec<Finding>),
    /// It is of a kind that Holdfast leaves alone.
    Ignored(Identity, Finding),
    /// It has mistakes.
    Wrong { identity: Option<Identity>, errors: Vec<Finding>, warnings: Vec<Finding> },
}

/// Who has looked at an object before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody: a person wrote it.
    File,
    /// An API server, which knows the kinds of Kubernetes better than we do: it may be newer.
    Server,
}

/// Reads one object; `faults` were found while its text was read.
pub(super) fn read(file: &str, mut tree: Node, faults: Vec<Finding>, origin: Origin) -> Reading {
    let mut errors = faults;
    let kind = match kind::recognise(&tree) {
        Recognised::Known(kind) => kind,
        Recognised::Foreign(note) => return Reading::Ignored(rough_identity(&tree), note),
        Recognised::Wrong(findings, meant) => {
            errors.extend(findings);
            match meant {
                // The rest is checked as if the right kind were written.
                Some(kind) => kind,
                None => {
                    let identity = tree.get("kind").and_then(Node::as_text).map(|_| rough_identity(&tree));
                    return Reading::Wrong { identity, errors, warnings: Vec::new() };
                }
            }
        }
    };
    let mut warnings = corrections::correct(&mut tree, kind.ours);
    if origin == Origin::File || kind.ours {
        errors.extend(against_schema(&mut tree, kind));
        errors.extend(rules::check_names(&tree, &errors));
        errors.extend(rules::check_placeholders(&tree, kind.ours));
    }
    if kind.ours {
        errors.extend(rules::check_own(&tree, kind.kind, &errors));
    }
    let namespace = namespace(&mut tree, kind, &mut warnings);
    let identity = Identity { kind: kind.kind.to_owned(), namespace, ..rough_identity(&tree) };
    if kind.kind == "Secret" {
        errors.iter_mut().for_each(hide_secret);
    }
    if errors.is_empty() {
        let json = with_namespace(tree.to_json(), identity.namespace.as_deref());
        match Typed::from_json(kind.kind, json.clone()) {
            Ok(typed) => {
                // Of many thousand objects only what is asked for: a server's have no lines.
                let tree = match origin {
                    Origin::File => tree,
                    Origin::Server => Node { value: Value::Null, line: 0, column: 0, ..tree },
                };
                let object = Object {
                    file: file.to_owned(),
                    line: tree.line,
                    api_version: kind.api_version(),
                    kind: identity.kind,
                    namespace: identity.namespace,
                    name: identity.name,
                    json,
                    typed,
                    tree: Arc::new(tree),
                };
                return Reading::Right(Box::new(object), warnings);
            }
            Err(error) => {
                let place = (tree.line, tree.column);
                errors.push(Finding::new(place, &Path::default(), error.to_string()));
            }
        }
    }
    Reading::Wrong { identity: Some(identity), errors, warnings }
}

/// Takes the value out of a finding about what a Secret holds.
fn hide_secret(finding: &mut Finding) {
    let of_data = matches!(finding.path.0.first(), Some(Step::Key(key)) if key == "data" || key == "stringData");
    if of_data && finding.found.take().is_some() {
        finding.suggestion = finding.suggestion.take().map(|_| "write it in quotes".to_owned());
    }
}

/// What an object says it is, before anything is checked.
fn rough_identity(tree: &Node) -> Identity {
    let text = |keys: &[&str]| tree.at(keys).and_then(Node::as_text).map(str::to_owned);
    Identity {
        kind: text(&["kind"]).unwrap_or_default(),
        namespace: text(&["metadata", "namespace"]),
        name: text(&["metadata", "name"]).unwrap_or_default(),
    }
}

/// Checks the fields of every object, `metadata` among them, and those of its kind.
fn against_schema(tree: &mut Node, kind: &KindInfo) -> Vec<Finding> {
    static METADATA: LazyLock<Json> =
        LazyLock::new(|| SchemaSettings::default().into_generator().into_root_schema_for::<ObjectMeta>().to_value());
    static OBJECT: LazyLock<Json> = LazyLock::new(
        || json!({"type": "object", "properties": {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}}),
    );
    let place = (tree.line, tree.column);
    let mut findings = schema::check(tree, &[&OBJECT, kind.schema()], kind.schema(), &Path::default(), place);
    // What these two say was looked at to find the kind.
    findings.retain(
        |finding| !matches!(finding.path.0.as_slice(), [Step::Key(key)] if key == "apiVersion" || key == "kind"),
    );
    // A custom kind's schema leaves metadata to the API server.
    if kind.ours
        && let Some(entry) = tree.entry_mut("metadata")
        && matches!(entry.value.value, Value::Map(_))
    {
        let place = (entry.line, entry.column);
        let path = Path::parse("metadata");
        findings.extend(schema::check(&mut entry.value, &[&METADATA], &METADATA, &path, place));
    }
    findings
}

/// The namespace the object is in. One that an object of the whole cluster names is taken away.
fn namespace(tree: &mut Node, kind: &KindInfo, warnings: &mut Vec<Finding>) -> Option<String> {
    let written = tree.at(&["metadata", "namespace"]).and_then(Node::as_text).map(str::to_owned);
    if kind.namespaced {
        return Some(written.filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".to_owned()));
    }
    if let Some(namespace) = written {
        let path = Path::parse("metadata.namespace");
        let finding = Finding::new(tree.place(&path), &path, "not in a namespace").found(format!("{namespace:?}"));
        let suggestion = format!("every {} belongs to the whole cluster: leave the namespace out", kind.kind);
        warnings.push(finding.suggest(suggestion));
        if let Some(Value::Map(metadata)) = tree.get_mut("metadata").map(|node| &mut node.value) {
            metadata.retain(|entry| entry.key != "namespace");
        }
    }
    None
}

fn with_namespace(mut json: Json, namespace: Option<&str>) -> Json {
    if let (Some(namespace), Some(metadata)) = (namespace, json["metadata"].as_object_mut()) {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    json
}
