//! Is the repository whole, and if not, what is affected?
//!
//! Always: every key, index and snapshot is read; every pack that an index names is there with the size it must have;
//! every directory of every snapshot is read, makes sense, and all that it names is there. On demand also all packs,
//! or some: their hash, their header against the index, and every blob in them.
//!
//! Nothing is changed. A shared lock keeps others from removing anything meanwhile; what a backup adds at the same
//! time is not looked at: snapshots are listed before indexes, and indexes before packs.
//!
//! Memory: the index, two bits for each blob, some 16 bytes for each pack, a few packs at a time.

mod affected;
mod finding;
mod read_data;
mod subset;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_store::ErrorKind;
use serde::Serialize;

pub use self::affected::Affected;
pub use self::finding::{Finding, Problem, Severity};
pub use self::subset::{ReadData, SubsetError};
use crate::chain;
use crate::crypto::OVERHEAD;
use crate::format::node::{Node, NodeKind};
use crate::format::pack::TRAILER_BYTES;
use crate::format::tree::{self, check_name};
use crate::format::{BlobKind, FileKind};
use crate::index::Marks;
use crate::lock::{Lock, LockMode, LockOptions};
use crate::monitor::Counters;
use crate::prune::header_entry_bytes;
use crate::repository::in_parallel;
use crate::snapshots::{SavedSnapshot, Snapshots};
use crate::trees::visit_trees;
use crate::{Id, Index, Monitor, Repository, Result, memory};

/// More findings than this are counted only.
const FINDINGS_MAX: usize = 10_000;

/// How a check goes about it.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Which packs are read. Default: none.
    pub read_data: ReadData,
    /// How the repository is locked. `None`: not at all, as for a read-only repository; what others remove meanwhile
    /// is then found missing.
    pub lock: Option<LockOptions>,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { read_data: ReadData::default(), lock: Some(LockOptions::default()) }
    }
}

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct CheckReport {
    /// Everything that is not as it should be; at most 10,000.
    pub findings: Vec<Finding>,
    /// How many errors there were in all.
    pub errors: u64,
    /// How many notes there were in all.
    pub notes: u64,
    /// Files and folders that cannot be restored as they were backed up; at most 1,000.
    pub affected: Vec<Affected>,
    /// How many there are in all.
    pub affected_count: u64,
    /// Snapshots checked.
    pub snapshots: u64,
    /// Directories checked.
    pub trees: u64,
    /// Packs that indexes name.
    pub packs: u64,
    /// Packs that were read as a whole.
    pub packs_read: u64,
    /// Blobs that no snapshot needs, copies not counted.
    pub unused_blobs: u64,
}

impl CheckReport {
    /// Whether nothing is wrong; notes do not count.
    pub fn is_clean(&self) -> bool {
        self.errors == 0
    }
}

/// Checks a repository. What is wrong with it is in the report; an error is that the check could not be made.
pub fn check(repository: &Arc<Repository>, options: &CheckOptions, monitor: &Monitor) -> Result<CheckReport> {
    // It reads the indexes for itself: two of a large repository are more memory than a small container has.
    repository.refresh_index();
    let lock = options.lock.as_ref();
    let lock = lock.map(|lock| Lock::acquire(repository, LockMode::Shared, lock, monitor)).transpose()?;
    let check = Check {
        repository,
        monitor,
        lock: lock.as_ref(),
        index: Index::default(),
        state: Mutex::default(),
        buffers: Mutex::default(),
    };
    check.run(options)
}

struct Check<'a> {
    repository: &'a Repository,
    monitor: &'a Monitor,
    lock: Option<&'a Lock>,
    /// Of all indexes that can be read.
    index: Index,
    state: Mutex<State>,
    /// Room for packs, used again and again.
    buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    report: CheckReport,
    /// Blobs that cannot be had.
    bad_blobs: HashSet<(BlobKind, Id)>,
    /// Packs whose blobs cannot be relied on.
    bad_packs: HashSet<Id>,
}

/// What the index says of a pack.
#[derive(Clone, Copy)]
struct Expected {
    size_bytes: u64,
    blobs: u32,
}

impl Check<'_> {
    fn run(mut self, options: &CheckOptions) -> Result<CheckReport> {
        self.check_keys()?;
        let snapshots = self.load_snapshots()?;
        self.load_indexes()?;
        let packs = self.index.packs();
        let expected = self.expected(packs.len());
        let sizes = self.check_packs(&packs, &expected)?;
        let used = self.check_trees(&snapshots)?;
        let known = self.index.len(BlobKind::Data) + self.index.len(BlobKind::Tree);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.report.unused_blobs = (known as u64).saturating_sub(used.count());
        state.report.snapshots = snapshots.len() as u64;
        state.report.packs = packs.len() as u64;
        drop(used);
        let chosen = options.read_data.choose(&sizes);
        let counts: HashMap<Id, u32> = packs.into_iter().zip(expected.iter().map(|pack| pack.blobs)).collect();
        self.read_packs(&chosen, &counts)?;
        self.find_affected(&snapshots)?;
        self.monitor.check()?;
        Ok(self.state.into_inner().unwrap_or_else(PoisonError::into_inner).report)
    }

    fn check_lock(&self) -> Result<()> {
        self.lock.map_or(Ok(()), Lock::check)
    }

    fn found(&self, problem: Problem) {
        // What cannot be read any more is no finding; the check ends as interrupted.
        if self.monitor.check().is_err() {
            return;
        }
        let finding = Finding::new(problem);
        let is_error = finding.severity == Severity::Error;
        if is_error {
            self.monitor.error("check", &finding.problem);
        } else {
            self.monitor.note("check", finding.what.clone());
        }
        let mut state = self.state();
        let report = &mut state.report;
        *(if is_error { &mut report.errors } else { &mut report.notes }) += 1;
        if report.findings.len() < FINDINGS_MAX {
            report.findings.push(finding);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_keys(&self) -> Result<()> {
        for id in self.repository.list(FileKind::Key)? {
            let reason = match self.repository.store().get(&FileKind::Key.path(&id)) {
                // Keys are removed without a lock: by who removes a password, and by an init that another one has forestalled.
                Err(error)
                    if error.kind == ErrorKind::NotFound && !self.repository.list(FileKind::Key)?.contains(&id) =>
                {
                    continue;
                }
                Err(error) => chain(&error),
                Ok(bytes) if Id::of(&bytes) == id => continue,
                Ok(bytes) => format!("its hash is {}", Id::of(&bytes)),
            };
            self.found(Problem::Key { id, reason });
        }
        Ok(())
    }

    fn load_snapshots(&self) -> Result<Vec<SavedSnapshot>> {
        let Snapshots { saved, unreadable } = Snapshots::load(self.repository)?;
        for (id, error) in unreadable {
            self.found(Problem::Snapshot { id, reason: chain(&error) });
        }
        Ok(saved)
    }

    fn load_indexes(&self) -> Result<()> {
        let ids = self.repository.list(FileKind::Index)?;
        in_parallel(&ids, memory::index_readers(), |id| {
            self.monitor.check()?;
            let mut packs = Vec::new();
            match self.repository.load_index_file(id, &mut |pack| packs.push(pack)) {
                Ok(()) => packs.iter().for_each(|pack| self.index.add_pack(pack)),
                Err(error) => self.found(Problem::Index { id: *id, reason: chain(&error) }),
            }
            Ok(())
        })
    }

    /// What the index says of each of `count` packs.
    fn expected(&self, count: usize) -> Vec<Expected> {
        let mut expected = vec![Expected { size_bytes: (OVERHEAD + TRAILER_BYTES) as u64, blobs: 0 }; count];
        self.index.for_each(&mut |pack, blob| {
            let pack = &mut expected[pack as usize];
            pack.size_bytes += u64::from(blob.length) + header_entry_bytes(&blob);
            pack.blobs += 1;
        });
        expected
    }

    /// Compares the packs there are with those there should be; returns the former, with their sizes.
    fn check_packs(&self, packs: &[Id], expected: &[Expected]) -> Result<Vec<(Id, u64)>> {
        let mut stored: HashMap<Id, u64> = self.repository.list_sizes(FileKind::Pack)?.into_iter().collect();
        let mut sizes = Vec::with_capacity(packs.len());
        for (id, expected) in packs.iter().zip(expected) {
            match stored.remove(id) {
                Some(size_bytes) if size_bytes == expected.size_bytes => sizes.push((*id, size_bytes)),
                Some(size_bytes) => {
                    self.found(Problem::PackSize { id: *id, size_bytes, expected_bytes: expected.size_bytes });
                    self.state().bad_packs.insert(*id);
                    sizes.push((*id, size_bytes));
                }
                None => {
                    self.found(Problem::PackMissing { id: *id, blobs: expected.blobs });
                    self.state().bad_packs.insert(*id);
                }
            }
        }
        let mut orphans: Vec<(Id, u64)> = stored.into_iter().collect();
        orphans.sort_unstable();
        for (id, size_bytes) in orphans {
            self.found(Problem::PackOrphan { id, size_bytes });
        }
        Ok(sizes)
    }

    /// Reads every directory; returns what is used.
    fn check_trees(&self, snapshots: &[SavedSnapshot]) -> Result<Marks> {
        let used = Marks::default();
        let roots = snapshots.iter().map(|saved| saved.snapshot.tree);
        let roots = roots.filter(|tree| self.is_new(&used, BlobKind::Tree, tree)).collect();
        visit_trees(roots, self.monitor, &|id, found| {
            self.check_lock()?;
            match self.repository.load_blob_by(&self.index, BlobKind::Tree, id) {
                Ok(json) => self.check_tree(id, &json, &used, found),
                Err(error) => {
                    self.state().bad_blobs.insert((BlobKind::Tree, *id));
                    self.found(Problem::Tree { id: *id, reason: chain(&error) });
                }
            }
            self.state().report.trees += 1;
            Counters::add(&self.monitor.counters().dirs, 1);
            Ok(())
        })?;
        Ok(used)
    }

    /// Notes that a blob is used; whether for the first time. One that no index has is a finding.
    fn is_new(&self, used: &Marks, kind: BlobKind, id: &Id) -> bool {
        used.set(&self.index, kind, id).unwrap_or_else(|| {
            if self.state().bad_blobs.insert((kind, *id)) {
                self.found(Problem::BlobMissing { kind, id: *id });
            }
            false
        })
    }

    fn check_tree(&self, id: &Id, json: &[u8], used: &Marks, found: &mut Vec<Id>) {
        let mut previous: Option<Node> = None;
        for node in tree::nodes(json) {
            let node = match node {
                Ok(node) => node,
                Err(error) => {
                    self.state().bad_blobs.insert((BlobKind::Tree, *id));
                    return self.found(Problem::Tree { id: *id, reason: chain(&error) });
                }
            };
            let wrong =
                |reason: String| self.found(Problem::TreeEntry { tree: *id, name: node.display_name(), reason });
            if check_name(&node).is_err() {
                wrong("no file can have that name".into());
            }
            if let Some(previous) = previous.filter(|previous| previous.name >= node.name) {
                wrong(format!("it stands after {:?}: not sorted, or there twice", previous.display_name()));
            }
            match (node.kind, &node.subtree, &node.content) {
                (NodeKind::Dir, None, _) => wrong("it is a folder without a tree".into()),
                (NodeKind::Dir, Some(subtree), _) if self.is_new(used, BlobKind::Tree, subtree) => found.push(*subtree),
                (NodeKind::File, _, None) => wrong("it is a file without a list of its content".into()),
                (NodeKind::File, _, Some(content)) => self.check_content(id, &node, content, used),
                (NodeKind::Unknown, _, _) => wrong("it is of a kind that this program does not know".into()),
                _ => {}
            }
            previous = Some(Node { name: node.name, ..Node::default() });
        }
    }

    fn check_content(&self, tree: &Id, node: &Node, content: &[Id], used: &Marks) {
        let mut content_bytes = Some(0u64);
        for id in content {
            self.is_new(used, BlobKind::Data, id);
            let length = self.index.find(BlobKind::Data, id).map(|location| u64::from(location.plain_length()));
            content_bytes = content_bytes.zip(length).map(|(sum, length)| sum.saturating_add(length));
        }
        if let Some(content_bytes) = content_bytes.filter(|bytes| *bytes != node.size) {
            let name = node.display_name();
            self.found(Problem::FileSize { tree: *tree, name, size_bytes: node.size, content_bytes });
        }
    }

    /// Whether a blob cannot be had, as far as this check has looked.
    fn is_bad(&self, kind: BlobKind, id: &Id) -> bool {
        let State { bad_blobs, bad_packs, .. } = &*self.state();
        if bad_blobs.contains(&(kind, *id)) {
            return true;
        }
        // A look at every copy only where it can matter.
        !bad_packs.is_empty() && self.index.find_all(kind, id).iter().all(|copy| bad_packs.contains(&copy.pack))
    }
}
