//! What the kernel says of a process and of its container's cgroup, of either version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A container, by its first process.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pid: u32,
    /// Of the memory controller.
    cgroup: PathBuf,
    is_unified: bool,
}

/// What a container has in memory, in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Pages that the process has mapped, whoever else has them.
    pub(crate) rss: f64,
    /// Of these, those that no file holds: what nobody else can have.
    pub(crate) anonymous: f64,
    /// Each page divided by how many processes map it.
    pub(crate) pss: f64,
    /// What the kernel charges the container with: its own pages, files that it read first, kernel structures.
    pub(crate) charged: f64,
    /// The same without files that were not used lately: what Kubernetes calls the working set.
    pub(crate) working_set: f64,
}

/// How often memory was short, as far as the kernel counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Processes that were killed for it.
    pub(crate) kills: u64,
    /// Times at which the limit was met and something was given back, such as read files.
    pub(crate) at_limit: u64,
}

const MIB: f64 = (1 << 20) as f64;

impl Container {
    /// The one whose first process was started with these words; none while there is none.
    pub(crate) fn find(words: &[&str]) -> Option<Self> {
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let pid = pids.find(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line: Vec<&str> = line.split('\0').collect();
            words.iter().enumerate().all(|(place, word)| line.get(place) == Some(word))
        })?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let (cgroup, is_unified) = memory_cgroup(&groups)?;
        Some(Self { pid, cgroup, is_unified })
    }

    /// What is in memory now; none once it has ended.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).ok()?;
        let of = |field: &str| kib(&rollup, field).map(|kib| kib / 1024.0);
        let (usage, inactive) = match self.is_unified {
            true => ("memory.current", "inactive_file"),
            false => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let charged = self.number(usage)? as f64 / MIB;
        let inactive = counted(&self.text("memory.stat"), inactive) as f64 / MIB;
        Some(Memory {
            rss: of("Rss")?,
            anonymous: of("Anonymous")?,
            pss: of("Pss")?,
            charged,
            working_set: (charged - inactive).max(0.0),
        })
    }

    /// The most that it was charged with since [`Container::forget_peak`], in MiB, where the kernel keeps that.
    pub(crate) fn peak_charged(&self) -> Option<f64> {
        let file = if self.is_unified { "memory.peak" } else { "memory.max_usage_in_bytes" };
        self.number(file).map(|bytes| bytes as f64 / MIB)
    }

    /// The most that the process had mapped since [`Container::forget_peak`], in MiB.
    pub(crate) fn peak_rss(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        kib(&status, "VmHWM").map(|kib| kib / 1024.0)
    }

    /// Has peaks counted anew.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        let file = format!("/proc/{}/clear_refs", self.pid);
        fs::write(&file, "5").with_context(|| format!("cannot write {file}"))?;
        if !self.is_unified {
            let file = self.cgroup.join("memory.max_usage_in_bytes");
            fs::write(&file, "0").with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    pub(crate) fn pressure(&self) -> Pressure {
        if self.is_unified {
            let events = self.text("memory.events");
            return Pressure { kills: counted(&events, "oom_kill"), at_limit: counted(&events, "max") };
        }
        let kills = counted(&self.text("memory.oom_control"), "oom_kill");
        Pressure { kills, at_limit: self.number("memory.failcnt").unwrap_or(0) }
    }

    /// Processor time of the process so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        fs::read_to_string(format!("/proc/{}/stat", self.pid)).map_or(0.0, |stat| crate::process::cpu_seconds(&stat))
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.cgroup.join(file)).unwrap_or_default()
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file).trim().parse().ok()
    }
}

/// Where the memory of a process is counted, from its `cgroup` file, and whether that is version 2.
fn memory_cgroup(groups: &str) -> Option<(PathBuf, bool)> {
    let lines = || groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let place = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
    let first = lines().find(|(controllers, _)| controllers.split(',').any(|one| one == "memory"));
    if let Some((_, path)) = first {
        return Some((place("/sys/fs/cgroup/memory", path), false));
    }
    lines().find(|(controllers, _)| controllers.is_empty()).map(|(_, path)| (place("/sys/fs/cgroup", path), true))
}

/// The number beside a name, in lines as `name 12`.
fn counted(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(found, _)| *found == name).and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(0)
}

/// The number of a field, in lines as `Rss:   12 kB`.
fn kib(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_is_found_in_both_versions() {
        let first = "5:cpu,cpuacct:/a\n3:memory:/holdfast/node-1/pod\n0::/\n";
        assert_eq!(memory_cgroup(first), Some(("/sys/fs/cgroup/memory/holdfast/node-1/pod".into(), false)));
        assert_eq!(memory_cgroup("0::/kubepods/pod\n"), Some(("/sys/fs/cgroup/kubepods/pod".into(), true)));
        assert_eq!(memory_cgroup("5:cpu:/a\n"), None);
    }

    #[test]
    fn numbers_are_read_by_their_whole_name() {
        let stat = "inactive_file 1\ntotal_inactive_file 4096\n";
        assert_eq!(counted(stat, "total_inactive_file"), 4096);
        assert_eq!(counted(stat, "active_file"), 0);
        assert_eq!(kib("Pss_Anon: 7 kB\nPss:   12 kB\n", "Pss"), Some(12.0));
    }
}
