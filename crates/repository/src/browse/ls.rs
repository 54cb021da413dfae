//! The entries of a snapshot.

use super::{is_within, plain_path};
use crate::format::node::Node;
use crate::snapshots::Selected;
use crate::source::display_path;
use crate::trees::{Step, Visit, walk};
use crate::{Error, Monitor, Repository, Result};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct LsOptions {
    /// Only these, and for folders what is in them. Empty: everything.
    pub paths: Vec<Vec<u8>>,
    /// Also what is in the folders in these folders, and so on.
    pub recursive: bool,
}

/// Calls `visit` with the path and the node of every entry, in the order of the trees.
///
/// A path that was asked for and is not there is an error, after all others were listed.
pub fn ls(
    repository: &Repository,
    snapshot: &Selected,
    options: &LsOptions,
    monitor: &Monitor,
    visit: &mut dyn FnMut(&[u8], &Node) -> Result<()>,
) -> Result<()> {
    let mut wanted: Vec<_> = options.paths.iter().map(|path| (plain_path(path), false)).collect();
    let lists_all = wanted.is_empty();
    let index = repository.index()?;
    walk(repository, &index, &snapshot.tree, b"/", monitor, &mut |step| {
        match step {
            Step::Entry { path, node } => {
                let parent = path.iter().rposition(|&byte| byte == b'/').map_or(&b"/"[..], |at| &path[..at.max(1)]);
                let (mut is_listed, mut leads_on) = (lists_all, lists_all);
                for (wanted, is_found) in &mut wanted {
                    *is_found |= path == wanted.as_slice() || wanted == b"/";
                    is_listed |= path == *wanted || parent == *wanted || (options.recursive && is_within(path, wanted));
                    leads_on |= is_within(wanted, path) || (options.recursive && is_within(path, wanted));
                }
                if is_listed {
                    visit(path, node)?;
                }
                return Ok(if leads_on { Visit::Enter } else { Visit::Skip });
            }
            Step::Unreadable { path: b"/", error } => return Err(error),
            Step::Unreadable { path, error } => monitor.failed(display_path(path), &error),
            Step::Leave { .. } => {}
        }
        Ok(Visit::Enter)
    })?;
    match wanted.iter().find(|(path, is_found)| !is_found && path != b"/") {
        None => Ok(()),
        Some((path, _)) => {
            Err(Error::Selection(format!("{} is not in snapshot {}", display_path(path), snapshot.saved.id.short())))
        }
    }
}
