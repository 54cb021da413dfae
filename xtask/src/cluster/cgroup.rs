//! The cgroups of a cluster: one folder of its name in every hierarchy of the machine, with `system` in it for what
//! runs the cluster and a folder for the containers of each node. Whatever a cluster started is in there and cannot
//! leave, so this is how its processes are found again, by whomever and after whatever crash.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// For what runs the cluster, as opposed to what runs on it.
pub(super) const SYSTEM: &str = "system";

/// How long processes may take to end after they were killed.
const ENDING: Duration = Duration::from_secs(20);

pub(super) struct Cgroup {
    name: String,
    hierarchies: Vec<Hierarchy>,
}

struct Hierarchy {
    /// Where it is mounted.
    root: PathBuf,
    /// Version 2, where controllers are switched on folder by folder.
    unified: bool,
}

impl Cgroup {
    pub(super) fn new(name: String) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
        let hierarchies = hierarchies(&mounts);
        if hierarchies.is_empty() {
            bail!("no cgroup hierarchy is mounted here");
        }
        Ok(Self { name, hierarchies })
    }

    /// Makes the folder of the cluster and `children` in it.
    pub(super) fn create(&self, children: &[String]) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let parent = hierarchy.root.join(&self.name);
            hierarchy.make(&parent)?;
            for child in children {
                hierarchy.make(&parent.join(child))?;
            }
        }
        Ok(())
    }

    /// Moves the calling process into `child`; what it starts from now on begins there.
    pub(super) fn enter(&self, child: &str) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let file = hierarchy.root.join(&self.name).join(child).join("cgroup.procs");
            fs::write(&file, "0").with_context(|| format!("cannot enter {}", file.display()))?;
        }
        Ok(())
    }

    /// Whether anything of it is there.
    pub(super) fn exists(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.root.join(&self.name).exists())
    }

    /// The processes in it, by the ids that the caller sees.
    pub(super) fn processes(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for hierarchy in &self.hierarchies {
            for folder in tree(&hierarchy.root.join(&self.name)) {
                // A folder may go while it is read; one that is not there has no processes.
                let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&id| id > 0));
            }
        }
        found
    }

    /// Whether the process `id` belongs to it.
    pub(super) fn holds(&self, id: i32) -> bool {
        fs::read_to_string(format!("/proc/{id}/cgroup")).is_ok_and(|text| member(&text, &self.name))
    }

    /// Ends every process in it, by its id and never another that got the same id meanwhile.
    pub(super) fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + ENDING;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("processes that do not end although killed: {left:?}");
            }
            self.thaw();
            for id in left {
                let Some(pid) = Pid::from_raw(id) else { continue };
                // The handle is taken first: it stands for one process, which is then looked at.
                let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                if self.holds(id) {
                    let _gone = pidfd_send_signal(handle, Signal::KILL);
                }
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Lets go on what was made to stand still: such a process does not end.
    fn thaw(&self) {
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| !hierarchy.unified) {
            for folder in tree(&hierarchy.root.join(&self.name)) {
                let state = folder.join("freezer.state");
                if state.exists() {
                    let _gone = fs::write(state, "THAWED");
                }
            }
        }
    }

    /// Removes it from every hierarchy. It has no processes any more.
    pub(super) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + ENDING;
        for hierarchy in &self.hierarchies {
            for folder in tree(&hierarchy.root.join(&self.name)) {
                // The kernel may still be busy with processes that have ended.
                while let Err(error) = fs::remove_dir(&folder) {
                    match error.kind() {
                        ErrorKind::NotFound => break,
                        ErrorKind::ResourceBusy if Instant::now() < deadline => sleep(Duration::from_millis(20)),
                        _ => return Err(error).with_context(|| format!("cannot remove {}", folder.display())),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Hierarchy {
    fn make(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let Some(parent) = folder.parent() else { return Ok(()) };
        if self.unified {
            // One by one: a controller that cannot be had does not keep the others away.
            let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
            for controller in controllers.split_whitespace() {
                let _unavailable = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        // A new cpuset of version 1 is empty, and nothing can enter it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (parent.join(file), folder.join(file));
            if !self.unified && from.exists() {
                fs::read(&from)
                    .and_then(|value| fs::write(&to, value))
                    .with_context(|| format!("cannot fill {}", to.display()))?;
            }
        }
        Ok(())
    }
}

/// What is mounted of type `cgroup` or `cgroup2`, whole.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, rest) = line.split_once(" - ")?;
            let kind = rest.split(' ').next()?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let fits = root == "/" && matches!(kind, "cgroup" | "cgroup2");
            fits.then(|| Hierarchy { root: PathBuf::from(point), unified: kind == "cgroup2" })
        })
        .collect()
}

/// Whether `/proc/ID/cgroup` tells of a place in the folder `name` at the top of some hierarchy.
fn member(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.splitn(3, ':').nth(2).and_then(|path| path.split('/').nth(1)) == Some(name))
}

/// `folder` and all below it, the deepest first.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    if folder.exists() {
        found.push(folder.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_and_parts_of_one_are_not() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
                    42 31 0:39 /part /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n";
        let found: Vec<_> = hierarchies(text).into_iter().map(|found| (found.root, found.unified)).collect();
        assert_eq!(found, [("/sys/fs/cgroup/memory".into(), false), ("/sys/fs/cgroup/unified".into(), true)]);
    }

    #[test]
    fn a_process_belongs_to_the_cluster_whose_whole_name_is_on_its_path() {
        let text = "3:memory:/holdfast-a-1/node-1/kubepods\n0::/\n";
        assert!(member(text, "holdfast-a-1"));
        for other in ["holdfast-a", "holdfast-a-12", "node-1", ""] {
            assert!(!member("3:memory:/holdfast-a-1/node-1\n", other), "{other}");
        }
        assert!(!member("3:memory:/user/holdfast-a-1\n", "holdfast-a-1"));
    }
}
