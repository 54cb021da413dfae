//! What the schema cannot say: fields of which one must be chosen, generations that cannot be mixed, names, and
//! placeholders that were left standing.

use crate::stash::{RecoveredVolume, ResticSpec};
use crate::values::{Backend, LocalBackend};
use serde::de::DeserializeOwned;

use super::corrections::kebab_case;
use super::finding::Finding;
use super::path::{Path, Step};
use super::tree::{Node, Value, shorten};

/// Finds placeholders that were left in `metadata`, and in an object of Holdfast's own anywhere. A name is left to
/// [`check_names`].
pub(super) fn check_placeholders(object: &Node, ours: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let within: &[&str] = if ours { &[""] } else { &["metadata", "spec.template.metadata"] };
    for path in within {
        let mut path = Path::parse(path);
        if let Some(node) = node_at(object, &path) {
            placeholders(node, &mut path, &mut findings);
        }
    }
    findings
}

/// Checks an object of one of Holdfast's own kinds. What lies at or around `found` is passed over: it is wrong
/// already.
pub(super) fn check_own(object: &Node, kind: &str, found: &[Finding]) -> Vec<Finding> {
    let mut findings = Vec::new();
    // From the inside out: a choice that is wrong inside is not told again outside.
    typed::<LocalBackend>(object, "spec.backend.local", found, &mut findings);
    typed::<Backend>(object, "spec.backend", found, &mut findings);
    match kind {
        "Restic" => restic(object, found, &mut findings),
        "Recovery" => recovery(object, found, &mut findings),
        _ => {}
    }
    findings
}

/// Checks the name and the namespace of any object.
pub(super) fn check_names(object: &Node, found: &[Finding]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (name_path, namespace_path) = (Path::parse("metadata.name"), Path::parse("metadata.namespace"));
    let misspelt = found
        .iter()
        .any(|finding| finding.path.0.len() == 2 && finding.suggestion.as_deref() == Some("did you mean name?"));
    match object.at(&["metadata", "name"]) {
        None if !is_told(&name_path, found) && !misspelt => {
            let finding = Finding::new(object.place(&name_path), &name_path, "missing field");
            findings.push(finding.expected("the object's name"));
        }
        Some(Node { value: Value::Text(_), .. }) if is_told(&name_path, found) => {}
        Some(node @ Node { value: Value::Text(name), .. }) if is_placeholder(name) => {
            findings.push(placeholder(node, name, &name_path));
        }
        Some(node @ Node { value: Value::Text(name), .. }) if !is_subdomain(name, 253) => {
            let better = kebab_case(name).to_ascii_lowercase();
            let suggestion = is_subdomain(&better, 253).then(|| format!("did you mean {better}?"));
            let finding = Finding::new((node.line, node.column), &name_path, "not a name that Kubernetes takes");
            findings.push(
                finding
                    .found(format!("{:?}", shorten(name)))
                    .expected("lower-case letters, digits, - and ., at most 253")
                    .suggest(suggestion),
            );
        }
        _ => {}
    }
    if let Some(node @ Node { value: Value::Text(name), .. }) = object.at(&["metadata", "namespace"])
        && (name.contains('.') || !is_subdomain(name, 63))
        && !is_told(&namespace_path, found)
    {
        let finding = Finding::new((node.line, node.column), &namespace_path, "not a name that Kubernetes takes");
        findings.push(
            finding.found(format!("{:?}", shorten(name))).expected("lower-case letters, digits and -, at most 63"),
        );
    }
    findings
}

/// A DNS subdomain as in RFC 1123, of at most `length` characters.
fn is_subdomain(name: &str, length: usize) -> bool {
    name.len() <= length
        && name.split('.').all(|label| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
        })
}

/// Whether something at `path`, inside it or around it was found already.
fn is_told(path: &Path, found: &[Finding]) -> bool {
    found.iter().any(|finding| finding.path.0.starts_with(&path.0) || path.0.starts_with(&finding.path.0))
}

/// Parses the field at `path` into its type and tells why that fails.
fn typed<T: DeserializeOwned>(object: &Node, path: &str, found: &[Finding], findings: &mut Vec<Finding>) {
    let path = Path::parse(path);
    let Some(node) = node_at(object, &path) else { return };
    if is_told(&path, found) || is_told(&path, findings) {
        return;
    }
    if let Err(error) = serde_json::from_value::<T>(node.to_json()) {
        findings.push(Finding::new(object.place(&path), &path, error.to_string()));
    }
}

fn node_at<'a>(object: &'a Node, path: &Path) -> Option<&'a Node> {
    path.0.iter().try_fold(object, |node, step| match (step, &node.value) {
        (Step::Key(key), _) => node.get(key),
        (Step::Index(index), Value::List(items)) => items.get(*index),
        _ => None,
    })
}

fn restic(object: &Node, found: &[Finding], findings: &mut Vec<Finding>) {
    let path = Path::parse("spec");
    let Some(spec) = object.get("spec") else { return };
    if is_told(&path, found) || is_told(&path, findings) {
        return;
    }
    let wrong = match serde_json::from_value::<ResticSpec>(spec.to_json()) {
        Ok(spec) => spec.form().err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    findings.extend(wrong.map(|wrong| Finding::new(object.place(&path), &path, wrong)));
}

fn recovery(object: &Node, found: &[Finding], findings: &mut Vec<Finding>) {
    typed::<RecoveredVolume>(object, "spec.recoverTo.volume", found, findings);
    let volumes = object.at(&["spec", "recoveredVolumes"]);
    if let Some(Node { value: Value::List(items), .. }) = volumes {
        for index in 0..items.len() {
            typed::<RecoveredVolume>(object, &format!("spec.recoveredVolumes[{index}]"), found, findings);
        }
    }
    let path = Path::parse("spec");
    let Some(spec) = object.get("spec") else { return };
    let both = spec.get("recoverTo").is_some() && volumes.is_some();
    let neither = spec.get("recoverTo").is_none() && volumes.is_none();
    if both || neither {
        let problem = "exactly one of recoverTo and recoveredVolumes must be set";
        let found = if both { "recoverTo and recoveredVolumes" } else { "none" };
        findings.push(Finding::new(object.place(&path), &path, problem).found(found));
    }
}

fn placeholders(node: &Node, path: &mut Path, findings: &mut Vec<Finding>) {
    match &node.value {
        // The name is checked for every kind.
        Value::Text(text) if is_placeholder(text) && path.to_string() != "metadata.name" => {
            findings.push(placeholder(node, text, path));
        }
        Value::Map(entries) => {
            for entry in entries {
                path.push_key(&entry.key);
                placeholders(&entry.value, path, findings);
                path.pop();
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_index(index);
                placeholders(item, path, findings);
                path.pop();
            }
        }
        _ => {}
    }
}

fn placeholder(node: &Node, text: &str, path: &Path) -> Finding {
    Finding::new((node.line, node.column), path, "a placeholder was left")
        .found(format!("{text:?}"))
        .suggest("put the real value in its place".to_owned())
}

/// Whether a text is such as `<secret name>`.
fn is_placeholder(text: &str) -> bool {
    text.strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .is_some_and(|inside| !inside.is_empty() && inside.chars().all(|c| c.is_alphanumeric() || " _-.".contains(c)))
}
