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
    /// None, or nearly a known one.
    Wrong(Vec<Finding>),
}

pub(super) fn recognise(object: &Node) -> Recognised {
    if !matches!(object.value, Value::Map(_)) {
        let finding = Finding::new((object.line, object.column), &Path::default(), "not an object");
        return Recognised::Wrong(vec![
            finding.found(object.describe()).expected("a mapping with apiVersion, kind and metadata"),
        ]);
    }
    let (api_version, kind) = match (text(object, "apiVersion"), text(object, "kind")) {
        (Ok(api_version), Ok(kind)) => (api_version, kind),
        (api_version, kind) => {
            let kind_alone = kind.as_ref().ok().map(|node| node.as_text().unwrap_or_default().to_owned());
            let mut findings: Vec<Finding> = [api_version.err(), kind.err()].into_iter().flatten().collect();
            // Someone who wrote `kind: Backup` alone can be told the rest.
            if let Some(known) = kind_alone.and_then(|kind| KNOWN.iter().find(|known| known.kind == kind))
                && let Some(finding) = findings.first_mut()
                && finding.problem == "missing field"
            {
                finding.suggestion = Some(format!("write apiVersion: {}", known.api_version()));
            }
            return Recognised::Wrong(findings);
        }
    };
    let (written_version, written_kind) =
        (api_version.as_text().unwrap_or_default(), kind.as_text().unwrap_or_default());
    if let Some(known) = kinds::find(written_version, written_kind) {
        return Recognised::Known(known);
    }
    near_miss(api_version, kind)
}

fn text<'a>(object: &'a Node, field: &str) -> Result<&'a Node, Finding> {
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
            Err(finding.expected(expected))
        }
        Some(node) => {
            let finding = Finding::new((node.line, node.column), &path, "wrong value");
            Err(finding.found(node.describe()).expected("a text"))
        }
    }
}

/// A kind that is not known: nearly one that is, or one of others.
fn near_miss(api_version: &Node, kind: &Node) -> Recognised {
    let (written_version, written_kind) =
        (api_version.as_text().unwrap_or_default(), kind.as_text().unwrap_or_default());
    let (group, version) = written_version.rsplit_once('/').unwrap_or(("", written_version));
    let own_groups = [crate::stash::GROUP, crate::appcatalog::GROUP];
    let meant_group = nearest(group, own_groups).filter(|_| group.contains('.'));
    // Groups of Kubernetes itself have no dot or end in k8s.io; a bare version may also be a group left out.
    let of_kubernetes = !group.contains('.') || group.ends_with(".k8s.io");

    let candidates = || {
        KNOWN.iter().filter(|known| match meant_group {
            Some(_) => known.ours,
            None => of_kubernetes && (!known.ours || group.is_empty()),
        })
    };
    let names = candidates().flat_map(|known| [known.kind, known.plural]);
    let meant = if meant_group.is_some() {
        nearest(written_kind, names)
    } else {
        // Kubernetes has many kinds besides: only a name that is the same but for a letter or two is meant.
        nearest(written_kind, names).filter(|near| {
            near.to_lowercase().trim_end_matches('s') == written_kind.to_lowercase().trim_end_matches('s')
                || written_kind.len() > 8
                    && near.len().abs_diff(written_kind.len()) <= 2
                    && !OTHERS.contains(&written_kind)
        })
    };
    let meant = meant.and_then(|near| {
        let same_version = |known: &&KindInfo| known.version == version;
        let is = |known: &&KindInfo| known.kind == near || known.plural == near;
        candidates().filter(is).find(same_version).or_else(|| candidates().find(is))
    });
    match meant {
        Some(known) => {
            let mut findings = Vec::new();
            if known.kind != written_kind {
                let finding = Finding::new((kind.line, kind.column), &Path::parse("kind"), "unknown kind");
                let suggestion = format!("did you mean {}?", known.kind);
                findings.push(finding.found(written_kind).suggest(suggestion));
            }
            if known.api_version() != written_version {
                let place = (api_version.line, api_version.column);
                let finding = Finding::new(place, &Path::parse("apiVersion"), "wrong version");
                let suggestion = format!("{} is of {}", known.kind, known.api_version());
                findings.push(finding.found(written_version).expected(known.api_version()).suggest(suggestion));
            }
            Recognised::Wrong(findings)
        }
        None if meant_group.is_some() => {
            let finding = Finding::new((kind.line, kind.column), &Path::parse("kind"), "unknown kind");
            let kinds: Vec<&str> = KNOWN.iter().filter(|known| known.ours).map(|known| known.kind).collect();
            let mut kinds = kinds;
            kinds.dedup();
            Recognised::Wrong(vec![finding.found(written_kind).expected(format!("one of {}", kinds.join(", ")))])
        }
        None => {
            let finding = Finding::new((kind.line, kind.column), &Path::parse("kind"), "ignored");
            let found = format!("{written_kind} of {written_version}");
            Recognised::Foreign(
                finding.found(found).suggest("Holdfast does nothing with objects of this kind".to_owned()),
            )
        }
    }
}

/// Kinds of Kubernetes that are near a known one in letters and yet are themselves.
const OTHERS: [&str; 3] = ["PodTemplate", "PersistentVolumeClaimTemplate", "ControllerRevision"];
