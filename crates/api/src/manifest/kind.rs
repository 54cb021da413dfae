//! Which kind an object says it is of, and what to tell a person whose object is of none.

use super::finding::Finding;
use super::path::Path;
use super::suggest::nearest;
use super::tree::{Node, Value};
use crate::kinds::{self, KNOWN, KindInfo};

/// What the `apiVersion` and `kind` of an object come to.
pub(super) enum Recognised {
    /// A kind that is known.
    Known(&'static KindInfo),
    /// A kind of others, with the note that it is left alone.
    Foreign(Finding),
    /// None, or nearly the one that is named.
    Wrong(Vec<Finding>, Option<&'static KindInfo>),
}

pub(super) fn recognise(object: &Node) -> Recognised {
    if !matches!(object.value, Value::Map(_)) {
        let finding = Finding::new((object.line, object.column), &Path::default(), "not an object");
        let finding = finding.found(object.describe()).expected("a mapping with apiVersion, kind and metadata");
        return Recognised::Wrong(vec![finding], None);
    }
    let (api_version, kind) = match (text(object, "apiVersion"), text(object, "kind")) {
        (Ok(api_version), Ok(kind)) => (api_version, kind),
        (Err(mut finding), Ok(kind)) => {
            // Someone who wrote `kind: Backup` alone can be told the rest.
            let known = KNOWN.iter().find(|known| Some(known.kind) == kind.as_text());
            if let Some(known) = known {
                finding.suggestion = Some(format!("write apiVersion: {}", known.api_version()));
            }
            return Recognised::Wrong(vec![*finding], known);
        }
        (api_version, kind) => {
            return Recognised::Wrong(
                [api_version.err(), kind.err()].into_iter().flatten().map(|f| *f).collect(),
                None,
            );
        }
    };
    let written_version = api_version.as_text().unwrap_or_default();
    let written_kind = kind.as_text().unwrap_or_default();
    if let Some(known) = kinds::find(written_version, written_kind) {
        return Recognised::Known(known);
    }
    let wrong_kind = |problem| Finding::new((kind.line, kind.column), &Path::parse("kind"), problem);
    match meant(written_version, written_kind) {
        Meant::Kind(known) => {
            let mut findings = Vec::new();
            if known.kind != written_kind {
                let suggestion = format!("did you mean {}?", known.kind);
                findings.push(wrong_kind("unknown kind").found(written_kind).suggest(suggestion));
            }
            if known.api_version() != written_version {
                let place = (api_version.line, api_version.column);
                let finding = Finding::new(place, &Path::parse("apiVersion"), "wrong group or version");
                let suggestion = format!("{} is of {}", known.kind, known.api_version());
                findings.push(finding.found(written_version).suggest(suggestion));
            }
            Recognised::Wrong(findings, Some(known))
        }
        Meant::Group(group) => {
            let mut names: Vec<&str> = KNOWN.iter().filter(|k| k.group == group).map(|known| known.kind).collect();
            names.dedup();
            let expected = format!("one of {}", names.join(", "));
            Recognised::Wrong(vec![wrong_kind("unknown kind").found(written_kind).expected(expected)], None)
        }
        Meant::Other => {
            let found = format!("{written_kind} of {written_version}");
            let suggestion = "Holdfast does nothing with objects of this kind".to_owned();
            Recognised::Foreign(wrong_kind("ignored").found(found).suggest(suggestion))
        }
    }
}

fn text<'a>(object: &'a Node, field: &str) -> Result<&'a Node, Box<Finding>> {
    let path = Path::parse(field);
    match object.get(field) {
        Some(node) if node.as_text().is_some_and(|text| !text.is_empty()) => Ok(node),
        None | Some(Node { value: Value::Null, .. }) => {
            let finding = Finding::new(object.place(&path), &path, "missing field");
            let expected = if field == "kind" {
                "the object's kind, such as Backup"
            } else {
                "the object's group and version, such as stash.appscode.com/v1alpha2"
            };
            Err(Box::new(finding.expected(expected)))
        }
        Some(node) => {
            let finding = Finding::new((node.line, node.column), &path, "wrong value");
            Err(Box::new(finding.found(node.describe()).expected("a text")))
        }
    }
}

/// What a person meant whose kind is not known.
enum Meant {
    /// Nearly this one.
    Kind(&'static KindInfo),
    /// One of a group of Holdfast's own.
    Group(&'static str),
    /// One of others.
    Other,
}

fn meant(api_version: &str, kind: &str) -> Meant {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let named = |name: Option<&str>, of: &dyn Fn(&KindInfo) -> bool| {
        let is = |known: &&KindInfo| Some(known.kind) == name || Some(known.plural) == name;
        let mut all: Vec<&'static KindInfo> = KNOWN.iter().filter(|known| of(known)).filter(is).collect();
        // Of two versions of a kind rather the one that is written.
        all.sort_by_key(|known| known.version != version);
        all.first().copied()
    };
    let names = |of: &dyn Fn(&KindInfo) -> bool| -> Vec<&str> {
        KNOWN.iter().filter(|known| of(known)).flat_map(|known| [known.kind, known.plural]).collect()
    };
    let own_group = nearest(group, [crate::stash::GROUP, crate::appcatalog::GROUP]).filter(|_| group.contains('.'));
    if let Some(own_group) = own_group {
        let ours = |known: &KindInfo| known.ours;
        return named(nearest(kind, names(&ours)), &ours).map_or(Meant::Group(own_group), Meant::Kind);
    }
    // Groups of Kubernetes itself have no dot or end in k8s.io. Where the group was left out, it may be one of ours.
    if group.contains('.') && !group.ends_with(".k8s.io") {
        return Meant::Other;
    }
    let candidate = |known: &KindInfo| !known.ours || group.is_empty();
    // Kubernetes has many kinds besides: only one that is the same but for case, plural or two letters is meant.
    let same = |near: &str| near.to_lowercase().trim_end_matches('s') == kind.to_lowercase().trim_end_matches('s');
    let near = nearest(kind, names(&candidate))
        .filter(|near| same(near) || (kind.len() > 8 && near.len().abs_diff(kind.len()) <= 2));
    named(near, &candidate).map_or(Meant::Other, Meant::Kind)
}
