//! Manifests: from the text of files to typed objects that know their lines, with every mistake found in one pass.
//!
//! [`read`] takes YAML (several documents, `kind: List` too) and JSON, checks every object against the schema of its
//! kind and against the typed values, puts right what published examples write but an API server refuses, and tells
//! apart what is an error (the object is left out, the others go on), a warning (the object is used as shown) and a
//! note (an object of a kind that Holdfast leaves alone).
//!
//! The way of an object: text → [`tree`] ([`yaml`], [`json`]) → [`kind`] → [`corrections`] → [`schema`] and [`rules`]
//! → [`object`]. This module never reads a file and never follows a reference from one object to another.

mod corrections;
mod finding;
mod format;
mod json;
mod kind;
mod object;
mod path;
mod problem;
mod rules;
mod scalar;
mod schema;
mod suggest;
mod tree;
mod typed;
mod yaml;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Serialize;
use serde_json::Value as Json;

pub use object::Object;
pub use problem::{Cause, Identity, Problem};
pub use typed::Typed;

use finding::Finding;
use object::{Origin, Reading};
use path::Step;
use tree::{Document, Node, Value};

/// What manifests hold, and what is wrong with them.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The objects without a mistake, in the order in which they stand.
    pub objects: Vec<Object>,
    /// The mistakes. The objects they stand in are not among [`Outcome::objects`].
    pub errors: Vec<Problem>,
    /// What was put right, with the right form.
    pub warnings: Vec<Problem>,
    /// Objects of kinds that are left alone.
    pub notes: Vec<Problem>,
    /// The objects left out because of their mistakes, so that a reference to one of them need not be told as a
    /// second mistake.
    pub rejected: Vec<Rejected>,
}

/// An object that has mistakes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Which one it is, as far as it says.
    #[serde(flatten)]
    pub identity: Identity,
    /// The file, as it was named to [`read`].
    pub file: String,
    /// The line it begins on, from 1; 0 in an object of an API server.
    pub line: usize,
}

/// Reads files, each given by its name and its contents. A name that ends in `.json` is read as JSON, any other as
/// YAML. Of two objects of one kind, namespace and name the first stays and the second is an error.
pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Outcome {
    let mut reader = Reader::new(Origin::File);
    for (file, contents) in files {
        let documents =
            if file.to_ascii_lowercase().ends_with(".json") { json::read(contents) } else { yaml::read(contents) };
        for Document { root, faults } in documents {
            let faults = faults.into_iter().map(Finding::from).collect();
            match root {
                Some(root) => reader.document(file, root, faults),
                None => reader.outcome.errors.extend(in_file(faults, file, None)),
            }
        }
    }
    reader.outcome
}

/// Reads objects as an API server gives them. The `file` of each is `Kind namespace/name`. What they say of their status
/// and of who manages which field is left out.
///
/// Kinds of Kubernetes are taken as they are; of Holdfast's own, whatever a server let pass is checked as a file would be.
pub fn read_objects(objects: impl IntoIterator<Item = Json>) -> Outcome {
    let mut reader = Reader::new(Origin::Server);
    for mut object in objects {
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Json::as_object_mut) {
            metadata.remove("managedFields");
        }
        let text = |field: &Json| field.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let file = match (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"])) {
            (kind, _, name) if kind.is_empty() || name.is_empty() => "an object without kind or name".to_owned(),
            (kind, namespace, name) if namespace.is_empty() => format!("{kind} {name}"),
            (kind, namespace, name) => format!("{kind} {namespace}/{name}"),
        };
        for Document { root, faults } in json::read(object.to_string().as_bytes()) {
            if let Some(root) = root {
                reader.document(&file, root, faults.into_iter().map(Finding::from).collect());
            }
        }
    }
    let Outcome { errors, warnings, notes, rejected, .. } = &mut reader.outcome;
    for problem in errors.iter_mut().chain(warnings).chain(notes) {
        // Lines of a text that nobody wrote.
        (problem.line, problem.column) = (0, 0);
    }
    rejected.iter_mut().for_each(|rejected| rejected.line = 0);
    reader.outcome
}

struct Reader {
    origin: Origin,
    outcome: Outcome,
    /// Where the first object of each group, kind, namespace and name stands.
    places: HashMap<(String, Identity), (String, usize)>,
}

impl Reader {
    fn new(origin: Origin) -> Self {
        Self { origin, outcome: Outcome::default(), places: HashMap::new() }
    }

    /// Reads the object, or the objects of a list.
    fn document(&mut self, file: &str, root: Node, mut faults: Vec<Finding>) {
        let is_list = root.get("kind").and_then(Node::as_text).is_some_and(|kind| kind.ends_with("List"));
        let Some(Value::List(_)) = root.get("items").map(|items| &items.value).filter(|_| is_list) else {
            return self.object(file, root, faults);
        };
        let Value::Map(entries) = root.value else { return };
        let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.value.value);
        let Some(Value::List(items)) = items else { return };
        let mut of_items: HashMap<usize, Vec<Finding>> = HashMap::new();
        faults.retain_mut(|fault| match fault.path.0.as_slice() {
            [Step::Key(key), Step::Index(index), ..] if key == "items" => {
                let index = *index;
                fault.path.0.drain(..2);
                of_items.entry(index).or_default().push(fault.clone());
                false
            }
            _ => true,
        });
        for (index, item) in items.into_iter().enumerate() {
            self.document(file, item, of_items.remove(&index).unwrap_or_default());
        }
        self.outcome.errors.extend(in_file(faults, file, None));
    }

    fn object(&mut self, file: &str, tree: Node, faults: Vec<Finding>) {
        let line = tree.line;
        match object::read(file, tree, faults, self.origin) {
            Reading::Ignored(identity, note) => {
                self.outcome.notes.extend(in_file(vec![note], file, Some(&identity)));
            }
            Reading::Wrong { identity, errors, warnings } => {
                self.outcome.errors.extend(in_file(errors, file, identity.as_ref()));
                self.outcome.warnings.extend(in_file(warnings, file, identity.as_ref()));
                let rejected = identity.map(|identity| Rejected { identity, file: file.to_owned(), line });
                self.outcome.rejected.extend(rejected);
            }
            Reading::Right(object, warnings) => {
                let identity = object.identity();
                self.outcome.warnings.extend(in_file(warnings, file, Some(&identity)));
                let group = object.api_version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
                let (first_file, first_line) = match self.places.entry((group, identity)) {
                    Entry::Vacant(vacant) => {
                        vacant.insert((file.to_owned(), line));
                        self.outcome.objects.push(*object);
                        return;
                    }
                    Entry::Occupied(occupied) => occupied.into_mut(),
                };
                let problem = format!("the same object stands already at {first_file}:{first_line}");
                let problem = object.problem("metadata.name", problem);
                let suggestion = Some("give it another name or remove it".to_owned());
                self.outcome.errors.push(Problem { suggestion, ..problem });
            }
        }
    }
}

/// The findings as problems, in the order of their lines.
fn in_file(mut findings: Vec<Finding>, file: &str, object: Option<&Identity>) -> Vec<Problem> {
    findings.sort_by_key(|finding| (finding.line, finding.column));
    findings.into_iter().map(|finding| finding.in_file(file, object)).collect()
}

#[cfg(test)]
mod tests;
