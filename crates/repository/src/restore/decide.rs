//! What to do with an entry, from what the snapshot has and what the target has: pure, no IO.

use super::RestoreOptions;
use crate::format::node::{Node, NodeKind};
use crate::format::time::Timestamp;
use crate::pattern::PatternList;

/// What happens to files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// They get the snapshot's content; what is right already is read and compared, not written.
    #[default]
    Always,
    /// As `Always`, but files of the same size and modification time are taken for unchanged.
    IfChanged,
    /// Only files older than the snapshot's are overwritten.
    IfNewer,
    /// They stay as they are.
    Never,
}

/// What stands in the target under an entry's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) kind: NodeKind,
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) links: u64,
    /// A restore was cut off while it wrote this file.
    pub(super) is_unfinished: bool,
}

impl Existing {
    /// Whether it is taken for what the snapshot has.
    pub(super) fn is_as_in(&self, node: &Node) -> bool {
        self.kind == node.kind && self.size == node.size && self.mtime == node.mtime && !self.is_unfinished
    }
}

/// The permissions of a file while it is being written: the sticky bit means nothing on a file and nobody sets it, so
/// that a file of a restore that was killed is known by it, though its times are new.
pub(super) const UNFINISHED: u32 = 0o1600;

/// What to do with an entry that is no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing is there: make it.
    Create,
    /// Remove what is there, then make it.
    Replace,
    /// A file: compare its content and write what differs.
    Rewrite,
    /// The content is right: set the metadata.
    SetMetadata,
    /// Leave it.
    Skip,
}

pub(super) fn decide(node: &Node, existing: Option<&Existing>, overwrite: Overwrite) -> Action {
    let Some(existing) = existing else { return Action::Create };
    let are_files = node.kind == NodeKind::File && existing.kind == NodeKind::File;
    match overwrite {
        // No policy keeps what nobody made: it is neither the snapshot's file nor the user's.
        _ if are_files && existing.is_unfinished && existing.links == 1 => Action::Rewrite,
        Overwrite::Never => Action::Skip,
        Overwrite::IfNewer if node.mtime <= existing.mtime => Action::Skip,
        Overwrite::IfChanged if are_files && existing.is_as_in(node) => Action::SetMetadata,
        // Writing into a file with other names would change those, too.
        _ if are_files && existing.links == 1 => Action::Rewrite,
        _ => Action::Replace,
    }
}

/// Whether an entry is to be restored, and whether anything below it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) is_selected: bool,
    pub(super) may_be_below: bool,
}

/// What the patterns of a restore say of a path below the restored folder.
pub(super) fn select(path: &[u8], options: &RestoreOptions) -> Selection {
    let RestoreOptions { include, exclude, patterns_from, .. } = options;
    if patterns_from.is_empty() || (include.is_empty() && exclude.is_empty()) {
        return matched(path, include, exclude);
    }
    matched(&[patterns_from, path].concat(), include, exclude)
}

fn matched(path: &[u8], include: &[PatternList], exclude: &[PatternList]) -> Selection {
    let (is_included, may_be_below) = if include.iter().all(PatternList::is_empty) {
        (true, true)
    } else {
        let found = include.iter().map(|list| list.look_up(path));
        found.fold((false, false), |(is_match, below), found| {
            (is_match || found.is_match, below || found.is_match || found.may_match_below)
        })
    };
    let is_excluded = exclude.iter().any(|list| list.is_match(path));
    Selection { is_selected: is_included && !is_excluded, may_be_below: may_be_below && !is_excluded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Case;

    fn node(kind: NodeKind, mtime: i64) -> Node {
        Node { kind, size: 5, mtime: Timestamp::from_unix(mtime, 0), ..Node::default() }
    }

    fn existing(kind: NodeKind, mtime: i64) -> Existing {
        Existing { kind, size: 5, mtime: Timestamp::from_unix(mtime, 0), links: 1, is_unfinished: false }
    }

    #[test]
    fn policies() {
        use NodeKind::{Dir, File, Symlink};
        use Overwrite::{Always, IfChanged, IfNewer, Never};
        let check = |node: &Node, existing: Option<Existing>, want: [Action; 4]| {
            let got = [Always, IfChanged, IfNewer, Never].map(|policy| decide(node, existing.as_ref(), policy));
            assert_eq!(got, want, "{existing:?}");
        };
        use Action::{Create, Replace, Rewrite, SetMetadata, Skip};
        check(&node(File, 10), None, [Create; 4]);
        check(&node(File, 10), Some(existing(File, 10)), [Rewrite, SetMetadata, Skip, Skip]);
        check(&node(File, 10), Some(existing(File, 9)), [Rewrite, Rewrite, Rewrite, Skip]);
        check(&node(File, 10), Some(existing(File, 11)), [Rewrite, Rewrite, Skip, Skip]);
        let other_size = Existing { size: 6, ..existing(File, 10) };
        check(&node(File, 10), Some(other_size), [Rewrite, Rewrite, Skip, Skip]);
        let linked = Existing { links: 2, ..existing(File, 9) };
        check(&node(File, 10), Some(linked), [Replace, Replace, Replace, Skip]);
        let unfinished = Existing { is_unfinished: true, ..existing(File, 11) };
        check(&node(File, 10), Some(unfinished), [Rewrite; 4]);
        check(&node(File, 10), Some(existing(Symlink, 9)), [Replace, Replace, Replace, Skip]);
        check(&node(File, 10), Some(existing(Dir, 9)), [Replace, Replace, Replace, Skip]);
        check(&node(Symlink, 10), Some(existing(Symlink, 10)), [Replace, Replace, Skip, Skip]);
    }

    #[test]
    fn selections() {
        // The last one whatever its case.
        let list = |patterns: &[&str]| {
            let (last, others) = patterns
                .split_last()
                .map_or((&[][..], patterns), |(last, others)| (std::slice::from_ref(last), others));
            [(others, Case::Sensitive), (last, Case::Ignored)]
                .map(|(patterns, case)| PatternList::new(patterns, case).unwrap())
        };
        let check = |path: &str, include: &[&str], exclude: &[&str], want: (bool, bool)| {
            let Selection { is_selected, may_be_below } = matched(path.as_bytes(), &list(include), &list(exclude));
            assert_eq!((is_selected, may_be_below), want, "{path} {include:?} {exclude:?}");
        };
        check("/a", &[], &[], (true, true));
        check("/a", &["/a/b"], &[], (false, true));
        check("/a/b/c", &["/a/b"], &[], (true, true));
        check("/x", &["/a/b"], &[], (false, false));
        check("/a", &[], &["/a"], (false, false));
        check("/a/b", &["/a"], &["b"], (false, false));
        check("/B", &["/a", "/b"], &[], (true, true));
        check("/A", &["/a", "/b"], &[], (false, false));
        check("/x/B", &["/A/c", "/X/b/c"], &[], (false, true));
        check("/B", &[], &["/a", "/b"], (false, false));
        check("/A", &[], &["/a", "/b"], (true, true));
    }

    #[test]
    fn patterns_may_mean_paths_of_the_snapshot() {
        let list = |pattern: &str| vec![PatternList::new([pattern], Case::Sensitive).unwrap()];
        let check = |from: &str, path: &str, include: &str, want: (bool, bool)| {
            let options =
                RestoreOptions { include: list(include), patterns_from: from.into(), ..RestoreOptions::new("/target") };
            let Selection { is_selected, may_be_below } = select(path.as_bytes(), &options);
            assert_eq!((is_selected, may_be_below), want, "{path} of {from:?} by {include}");
        };
        check("", "/drafts", "/drafts", (true, true));
        check("/data", "/drafts", "/drafts", (false, false));
        check("/data", "/drafts", "/data/drafts", (true, true));
        check("/data", "/drafts", "/data/drafts/a", (false, true));
        check("/data", "/drafts", "/data", (true, true));
        check("/data", "/drafts", "drafts", (true, true));
    }
}
