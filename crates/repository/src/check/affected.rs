//! Which files of which snapshots cannot be restored as they were.

use serde::Serialize;

use super::Check;
use crate::format::BlobKind;
use crate::format::node::NodeKind;
use crate::index::Marks;
use crate::snapshots::SavedSnapshot;
use crate::source::display_path;
use crate::trees::{Step, Visit, walk};
use crate::{Id, Result};

/// More are counted only.
const AFFECTED_MAX: usize = 1000;

/// A file or folder that cannot be restored as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// The snapshot that it is in.
    pub snapshot: Id,
    /// Its path there; bytes that are no text are escaped.
    pub path: String,
    /// Whether it is a folder: then nothing below it can be restored.
    pub is_folder: bool,
}

impl Check<'_> {
    /// Looks for everything that needs what was found bad.
    pub(super) fn find_affected(&self, snapshots: &[SavedSnapshot]) -> Result<()> {
        let is_whole = {
            let state = self.state();
            state.bad_blobs.is_empty() && state.bad_packs.is_empty()
        };
        if is_whole {
            return Ok(());
        }
        // Most directories are in many snapshots: what is whole is walked once.
        let whole = Marks::default();
        for saved in snapshots {
            self.find_affected_in(saved, &whole)?;
        }
        Ok(())
    }

    fn find_affected_in(&self, saved: &SavedSnapshot, whole: &Marks) -> Result<()> {
        let affected = |path: &[u8], is_folder| {
            let mut state = self.state();
            state.report.affected_count += 1;
            if state.report.affected.len() < AFFECTED_MAX {
                state.report.affected.push(Affected { snapshot: saved.id, path: display_path(path), is_folder });
            }
        };
        let root = &saved.snapshot.tree;
        if whole.has(&self.index, BlobKind::Tree, root) {
            return Ok(());
        }
        // For each directory that the walk is in: whether something in it is affected.
        let mut levels = vec![false];
        walk(self.repository, &self.index, root, b"/", self.monitor, &mut |step| {
            match step {
                Step::Entry { node, .. } if node.kind == NodeKind::Dir => {
                    if node.subtree.is_some_and(|tree| whole.has(&self.index, BlobKind::Tree, &tree)) {
                        return Ok(Visit::Skip);
                    }
                    levels.push(false);
                }
                Step::Entry { path, node } => {
                    if node.content.iter().flatten().any(|id| self.is_bad(BlobKind::Data, id)) {
                        affected(path, false);
                        levels.last_mut().into_iter().for_each(|level| *level = true);
                    }
                }
                Step::Leave { tree, .. } => {
                    let is_affected = levels.pop().unwrap_or(true);
                    if !is_affected {
                        whole.set(&self.index, BlobKind::Tree, tree);
                    }
                    levels.last_mut().into_iter().for_each(|level| *level |= is_affected);
                }
                Step::Unreadable { path, .. } => {
                    affected(path, true);
                    levels.pop();
                    levels.last_mut().into_iter().for_each(|level| *level = true);
                }
            }
            Ok(Visit::Enter)
        })
    }
}
