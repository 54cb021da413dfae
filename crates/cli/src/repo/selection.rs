//! Which snapshots are meant: restic's `--host`, `--tag` and `--path`.

use std::path::Path;

use clap::Args;
use holdfast_repository::format::snapshot::{SnapshotFilter, TagList};
use holdfast_repository::snapshots::{self, SavedSnapshot, Selected};
use holdfast_repository::{Error as RepositoryError, Monitor, Repository};

use crate::failure::{Failure, Result};

/// Only snapshots that have all of this. With an id of a snapshot it means nothing.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which snapshots")]
pub(crate) struct SelectionArgs {
    /// Only of this host; may be given several times for any of them, empty for all
    #[arg(short = 'H', long, env = "RESTIC_HOST")]
    host: Vec<String>,
    /// Only with these tags (a,b: all of them); may be given several times for any of them
    #[arg(long, value_name = "TAG[,TAG…]")]
    tag: Vec<TagList>,
    /// Only with this absolute path; may be given several times for all of them
    #[arg(long)]
    path: Vec<String>,
}

impl SelectionArgs {
    pub(crate) fn filter(&self) -> SnapshotFilter {
        filter(&self.host, &self.tag, &self.path)
    }
}

/// The snapshot that is named; see [`snapshots::select`].
pub(crate) fn select(repository: &Repository, name: &str, filter: &SnapshotFilter) -> Result<Selected> {
    snapshots::select(repository, name, filter).map_err(not_selected)
}

/// The snapshots that are named, or else all that fit; see [`snapshots::select_all`].
pub(crate) fn select_all(
    repository: &Repository,
    names: &[String],
    filter: &SnapshotFilter,
    monitor: &Monitor,
) -> Result<Vec<SavedSnapshot>> {
    snapshots::select_all(repository, names, filter, monitor).map_err(not_selected)
}

/// A failure that may be because there is no such snapshot.
pub(crate) fn not_selected(error: RepositoryError) -> Failure {
    let is_missing = match &error {
        RepositoryError::Selection(_) => true,
        RepositoryError::Store(error) => error.kind == holdfast_store::ErrorKind::NotFound,
        _ => false,
    };
    let failure = Failure::from(error);
    if is_missing { failure.hinting("`holdfast repo snapshots` lists the snapshots there are") } else { failure }
}

/// A filter from what `--host`, `--tag` and `--path` say.
pub(crate) fn filter(hosts: &[String], tags: &[TagList], paths: &[String]) -> SnapshotFilter {
    SnapshotFilter {
        hosts: hosts.iter().filter(|host| !host.is_empty()).cloned().collect(),
        tags: tags.to_vec(),
        paths: paths.iter().map(|path| plain(path)).collect(),
    }
}

/// The path as snapshots hold it: absolute, and without what changes nothing.
fn plain(path: &str) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    match holdfast_sources::Root::at(Path::new(&absolute)) {
        Some(root) => String::from_utf8_lossy(root.name()).into_owned(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_snapshots_hold_them() {
        for (path, want) in [("/a/b/", "/a/b"), ("/a//b/../c/.", "/a/c"), ("/", "/")] {
            assert_eq!(plain(path), want);
        }
        assert!(plain("x").ends_with("/x") && plain("x").starts_with('/'));
    }

    #[test]
    fn an_empty_host_stands_for_all() {
        assert_eq!(filter(&[String::new()], &[], &[]), SnapshotFilter::default());
    }
}
