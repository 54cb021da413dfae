//! Where in the snapshots something is.

use std::collections::HashSet;

use crate::format::BlobKind;
use crate::format::node::Node;
use crate::format::time::Timestamp;
use crate::pattern::PatternList;
use crate::snapshots::SavedSnapshot;
use crate::source::display_path;
use crate::trees::{Step, Visit, walk};
use crate::{Error, Id, Index, Monitor, Repository, Result};

/// What to look for. Ids may be given by their first digits.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Entries whose path, or that of a folder above them, matches.
    Paths(PatternList),
    /// Files with any of these data blobs.
    Blobs(Vec<String>),
    /// Folders with any of these trees.
    Trees(Vec<String>),
    /// Files and folders with any blob of these packs.
    Packs(Vec<String>),
}

/// How to look for it.
#[derive(Debug, Clone)]
pub struct FindOptions {
    /// What.
    pub wanted: Wanted,
    /// Only entries that were last changed at this time or later.
    pub oldest: Option<Timestamp>,
    /// Only entries that were last changed at this time or earlier.
    pub newest: Option<Timestamp>,
}

/// Something that was found.
#[derive(Debug)]
pub struct Found<'a> {
    /// In which snapshot.
    pub snapshot: &'a SavedSnapshot,
    /// Its path there.
    pub path: &'a [u8],
    /// The entry; none for the snapshot's root.
    pub node: Option<&'a Node>,
    /// The blob that was looked for, and its kind; none if a path was.
    pub blob: Option<(BlobKind, Id)>,
}

/// The blobs that are looked for.
enum Target<'a> {
    Paths(&'a PatternList),
    Prefixes(BlobKind, &'a [String]),
    Blobs(HashSet<(BlobKind, Id)>),
}

impl Target<'_> {
    fn has(&self, kind: BlobKind, id: &Id) -> bool {
        match self {
            Self::Paths(_) => false,
            Self::Prefixes(of, prefixes) => {
                *of == kind && prefixes.iter().any(|prefix| id.hex().starts_with(prefix.as_bytes()))
            }
            Self::Blobs(blobs) => blobs.contains(&(kind, *id)),
        }
    }
}

/// Calls `visit` with every place in `snapshots` where something that is wanted is.
pub fn find(
    repository: &Repository,
    snapshots: &[SavedSnapshot],
    options: &FindOptions,
    monitor: &Monitor,
    visit: &mut dyn FnMut(Found<'_>) -> Result<()>,
) -> Result<()> {
    let index = repository.index()?;
    let target = match &options.wanted {
        Wanted::Paths(patterns) => Target::Paths(patterns),
        Wanted::Blobs(prefixes) => Target::Prefixes(BlobKind::Data, prefixes),
        Wanted::Trees(prefixes) => Target::Prefixes(BlobKind::Tree, prefixes),
        Wanted::Packs(prefixes) => Target::Blobs(blobs_of_packs(&index, prefixes)?),
    };
    let is_in_range = |node: &Node| {
        options.oldest.is_none_or(|oldest| node.mtime >= oldest)
            && options.newest.is_none_or(|newest| node.mtime <= newest)
    };
    for snapshot in snapshots {
        let root = snapshot.snapshot.tree;
        if target.has(BlobKind::Tree, &root) {
            visit(Found { snapshot, path: b"/", node: None, blob: Some((BlobKind::Tree, root)) })?;
        }
        walk(repository, &index, &root, b"/", monitor, &mut |step| {
            match step {
                Step::Entry { path, node } => {
                    let mut found = |blob| visit(Found { snapshot, path, node: Some(node), blob });
                    if let Target::Paths(patterns) = &target {
                        let matched = patterns.look_up(path);
                        if matched.is_match && is_in_range(node) {
                            found(None)?;
                        }
                        let leads_on = matched.is_match || matched.may_match_below;
                        return Ok(if leads_on { Visit::Enter } else { Visit::Skip });
                    }
                    if is_in_range(node) {
                        let tree = node.subtree.iter().map(|id| (BlobKind::Tree, *id));
                        let content = node.content.iter().flatten().map(|id| (BlobKind::Data, *id));
                        for blob in tree.chain(content).filter(|(kind, id)| target.has(*kind, id)) {
                            found(Some(blob))?;
                        }
                    }
                }
                Step::Unreadable { path, error } => {
                    monitor.failed(format!("{}:{}", snapshot.id.short(), display_path(path)), &error);
                }
                Step::Leave { .. } => {}
            }
            Ok(Visit::Enter)
        })?;
    }
    Ok(())
}

fn blobs_of_packs(index: &Index, prefixes: &[String]) -> Result<HashSet<(BlobKind, Id)>> {
    let packs = index.packs();
    let is_wanted: Vec<bool> =
        packs.iter().map(|pack| prefixes.iter().any(|prefix| pack.hex().starts_with(prefix.as_bytes()))).collect();
    for prefix in prefixes {
        if !packs.iter().any(|pack| pack.hex().starts_with(prefix.as_bytes())) {
            return Err(Error::Selection(format!("no index names a pack that begins with {prefix:?}")));
        }
    }
    let mut blobs = HashSet::new();
    index.for_each(&mut |pack, blob| {
        if is_wanted[pack as usize] {
            blobs.insert((blob.kind, blob.id));
        }
    });
    Ok(blobs)
}
