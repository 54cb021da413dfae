//! What stands in published examples but an API server refuses: put right before the object is checked, each with a
//! warning that shows the right form.
//!
//! - `annotations` nested under `labels`, and the reverse;
//! - labels and annotations whose values are no texts, as an unquoted `true`, or whose colon lacks its space;
//! - `backupAgent` and `recoveryAgent` as a text instead of an object;
//! - names of Holdfast's own objects in camelCase, where they are given and where they are referred to.

use crate::names::{BACKUP_TEMPLATE_ANNOTATION, RESTIC_CONFIG_LABEL};

use super::finding::Finding;
use super::path::Path;
use super::tree::{Entry, Node, Value};

/// Puts `object` right and says what was changed. `ours`: whether it is of a kind of Holdfast's own.
pub(super) fn correct(object: &mut Node, ours: bool) -> Vec<Finding> {
    let mut corrections = Corrections { warnings: Vec::new() };
    for key in ["metadata", "spec"] {
        if let Some(node) = object.get_mut(key) {
            corrections.texts(node, &mut Path::default().key(key));
        }
    }
    if ours {
        corrections.agents(object);
        corrections.own_names(object);
    }
    corrections.names_in_metadata(object);
    corrections.warnings
}

/// A name as Kubernetes takes it: `stashVolumeBackup` is `stash-volume-backup`.
pub(super) fn kebab_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut kebab = String::new();
    for (i, &c) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| letters[i]);
        if c.is_ascii_uppercase() {
            let after_word = before.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let ends_acronym = before.is_some_and(|b| b.is_ascii_uppercase())
                && letters.get(i + 1).is_some_and(char::is_ascii_lowercase);
            if after_word || ends_acronym {
                kebab.push('-');
            }
            kebab.push(c.to_ascii_lowercase());
        } else if c == '_' || c == ' ' {
            kebab.push('-');
        } else {
            kebab.push(c);
        }
    }
    kebab
}

struct Corrections {
    warnings: Vec<Finding>,
}

impl Corrections {
    fn warn(&mut self, node: &Node, path: &Path, problem: &str, found: String, suggestion: String) {
        let finding = Finding::new((node.line, node.column), path, problem);
        self.warnings.push(finding.found(found).suggest(suggestion));
    }

    /// Maps of texts, wherever one stands.
    fn texts(&mut self, node: &mut Node, path: &mut Path) {
        if path.last_key() == Some("metadata") {
            self.nested(node, path);
        }
        match &mut node.value {
            Value::Map(entries) => {
                for entry in entries {
                    path.push_key(&entry.key);
                    match entry.key.as_str() {
                        "labels" | "annotations" | "matchLabels" | "nodeSelector" => {
                            self.missing_space(&mut entry.value, path);
                            self.unquoted(&mut entry.value, path);
                        }
                        _ => self.texts(&mut entry.value, path),
                    }
                    path.pop();
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    path.push_index(index);
                    self.texts(item, path);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// `annotations` inside `labels`, or the reverse: moved out beside it.
    fn nested(&mut self, metadata: &mut Node, path: &Path) {
        for (outer, inner) in [("labels", "annotations"), ("annotations", "labels")] {
            let Some(Value::Map(entries)) = metadata.get_mut(outer).map(|node| &mut node.value) else { continue };
            let Some(at) = entries.iter().position(|e| e.key == inner && matches!(e.value.value, Value::Map(_))) else {
                continue;
            };
            let nested = entries.remove(at);
            let finding = Finding::new((nested.line, nested.column), &path.key(outer).key(inner), "wrong place");
            self.warnings.push(
                finding
                    .found(format!("{inner} under {outer}"))
                    .suggest(format!("read as {path}.{inner}: indent it as {outer} is")),
            );
            match metadata.get_mut(inner).map(|node| &mut node.value) {
                Some(Value::Map(there)) => {
                    for entry in nested.value.entries() {
                        if !there.iter().any(|other| other.key == entry.key) {
                            there.push(entry.clone());
                        }
                    }
                }
                Some(there) => *there = nested.value.value,
                None => {
                    if let Value::Map(entries) = &mut metadata.value {
                        entries.push(nested);
                    }
                }
            }
        }
    }

    /// `labels: {key:value}` written as one text `key:value`.
    fn missing_space(&mut self, node: &mut Node, path: &Path) {
        let Some((key, value)) = node.as_text().and_then(|text| text.rsplit_once(':')) else { return };
        if key.is_empty() || value.is_empty() || key.contains(char::is_whitespace) {
            return;
        }
        let (key, value) = (key.to_owned(), node.text_here(value.trim()));
        let suggestion =
            format!("read as {key}: {}: write a space after the colon", value.as_text().unwrap_or_default());
        self.warn(node, path, "not a mapping", node.describe(), suggestion);
        node.value = Value::Map(vec![Entry { key, line: node.line, column: node.column, value }]);
    }

    /// Numbers and booleans that must be texts.
    fn unquoted(&mut self, node: &mut Node, path: &mut Path) {
        let Value::Map(entries) = &mut node.value else { return };
        for entry in entries {
            if matches!(entry.value.value, Value::Bool(_) | Value::Number(_))
                && let Some(text) = entry.value.scalar_text()
            {
                let path = path.key(&entry.key);
                let suggestion = format!("read as {text:?}: write it in quotes");
                self.warn(&entry.value, &path, "not a text", text.clone(), suggestion);
                entry.value = entry.value.text_here(text);
            }
        }
    }

    fn agents(&mut self, object: &mut Node) {
        for field in ["backupAgent", "recoveryAgent"] {
            let Some(agent) = object.at_mut(&["spec", field]) else { continue };
            let Value::Text(name) = &agent.value else { continue };
            let path = Path::parse("spec").key(field);
            let suggestion = format!("read as {field}: {{name: {}}}", kebab_case(name));
            let (found, line, column) = (format!("{name:?}"), agent.line, agent.column);
            self.warn(agent, &path, "not an object", found, suggestion);
            let value = agent.clone();
            agent.value = Value::Map(vec![Entry { key: "name".to_owned(), line, column, value }]);
        }
    }

    /// The names of and references to objects of Holdfast's own kinds.
    fn own_names(&mut self, object: &mut Node) {
        for keys in [
            &["metadata", "name"][..],
            &["spec", "backupAgent", "name"],
            &["spec", "recoveryAgent", "name"],
            &["spec", "repository", "name"],
            &["spec", "targetBackup", "name"],
        ] {
            self.own_name(object, keys);
        }
        for target in [&["spec", "targetRef"][..], &["spec", "recoverTo", "workload"]] {
            if object.at(target).and_then(|target| target.get("kind")).and_then(Node::as_text) == Some("AppBinding") {
                self.own_name(object, &[target, &["name"]].concat());
            }
        }
    }

    /// References to objects of Holdfast's own kinds by label and annotation.
    fn names_in_metadata(&mut self, object: &mut Node) {
        for above in [&[][..], &["spec", "template"]] {
            for end in
                [&["metadata", "labels", RESTIC_CONFIG_LABEL], &["metadata", "annotations", BACKUP_TEMPLATE_ANNOTATION]]
            {
                self.own_name(object, &[above, end].concat());
            }
        }
    }

    fn own_name(&mut self, object: &mut Node, keys: &[&str]) {
        let Some(node) = object.at_mut(keys) else { return };
        let Some(name) = node.as_text() else { return };
        // A placeholder is another mistake.
        if !name.contains(|c: char| c.is_ascii_uppercase()) || name.contains('<') {
            return;
        }
        let (kebab, found) = (kebab_case(name), format!("{name:?}"));
        let path = keys.iter().fold(Path::default(), |path, key| path.key(key));
        self.warn(node, &path, "not a name that Kubernetes takes", found, format!("read as {kebab}"));
        node.value = Value::Text(kebab);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_kebab_case() {
        for (name, want) in [
            ("stashVolumeBackup", "stash-volume-backup"),
            ("stashVolumeRecovery", "stash-volume-recovery"),
            ("pgBackup", "pg-backup"),
            ("pgRecovery", "pg-recovery"),
            ("StashDemo", "stash-demo"),
            ("myDBBackup", "my-db-backup"),
            ("v2Backup", "v2-backup"),
            ("my_Repo", "my-repo"),
            ("a-B", "a-b"),
            ("plain-name", "plain-name"),
            ("", ""),
        ] {
            assert_eq!(kebab_case(name), want);
        }
    }
}
