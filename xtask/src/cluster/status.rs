//! What runs in a cluster, as seen from outside.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};

use super::cgroup::Cgroup;
use super::control::{Answer, Request, State, ask};
use super::inside::{self, first_process};
use super::layout::Cluster;
use crate::cache::Cache;

/// One process, by what /proc tells of it.
struct Process {
    id: i32,
    memory_bytes: u64,
    age_seconds: u64,
}

/// Prints components, memory and nodes.
pub(super) fn show(cache: &Cache, cluster: &Cluster) -> Result<()> {
    if first_process(cluster).is_none() {
        bail!("cluster {0} is not up: cargo xtask cluster up --name {0}", cluster.name);
    }
    let answer = ask(cluster, &Request::Tell)?;
    let processes = processes(&Cgroup::new(cluster.cgroup())?)?;
    let mut text = report(&cluster.name, &answer, processes);
    match inside::output(cache, cluster, &["kubectl", "--request-timeout=5s", "get", "nodes"]) {
        Ok(nodes) => text += &format!("\n{nodes}"),
        Err(_) => text += "\nthe API server does not answer\n",
    }
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// The table of components; other processes are those of pods, and what holds it all together.
fn report(name: &str, answer: &Answer, mut processes: BTreeMap<u32, Process>) -> String {
    let state = if answer.up { "up" } else { "starting" };
    let sum = |processes: &BTreeMap<u32, Process>| processes.values().map(|process| process.memory_bytes).sum::<u64>();
    let mut lines = vec![
        format!("cluster {name}: {state}, nodes: {}, {} MiB", answer.nodes, sum(&processes) >> 20),
        format!("{:<22}{:>9}{:>9}{:>10}{:>10}", "COMPONENT", "PID", "AGE", "MEMORY", "RESTARTS"),
    ];
    for State { name, process, wanted, restarts } in &answer.components {
        lines.push(match process.and_then(|id| processes.remove(&id)) {
            Some(Process { id, memory_bytes, age_seconds }) => {
                format!("{name:<22}{id:>9}{:>9}{:>6} MiB{restarts:>10}", age(age_seconds), memory_bytes >> 20)
            }
            None => format!("{name:<22}{:>38}", if *wanted { "DEAD" } else { "stopped" }),
        });
    }
    lines.push(format!("{:<22}{:>18}{:>6} MiB", "other processes", processes.len(), sum(&processes) >> 20));
    lines.join("\n") + "\n"
}

/// Every process of the cluster, by its id as seen from inside.
fn processes(cgroup: &Cgroup) -> Result<BTreeMap<u32, Process>> {
    let uptime = fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
    let found = cgroup.processes().into_iter().filter_map(|id| {
        // A process may end while it is looked at.
        let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).ok();
        let inner = inner_id(&read("status")?)?;
        let memory_bytes = memory(&read("smaps_rollup").unwrap_or_default());
        let age_seconds = age_of(&read("stat")?, uptime)?;
        Some((inner, Process { id, memory_bytes, age_seconds }))
    });
    Ok(found.collect())
}

/// The last of `NSpid:`, which the cluster itself sees when it is the second.
fn inner_id(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

/// `Pss:` of smaps_rollup in bytes: memory shared by several processes is divided among them.
fn memory(rollup: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Seconds since the start that field 22 of `stat` tells, in ticks of which Linux shows 100 a second.
fn age_of(stat: &str, uptime: u64) -> Option<u64> {
    // The name of the program may hold spaces and brackets.
    let start: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    Some(uptime.saturating_sub(start / 100))
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_tells_is_understood() {
        assert_eq!(inner_id("Name:\tetcd\nNSpid:\t4711\t17\nVmRSS: 1 kB\n"), Some(17));
        assert_eq!(inner_id("Name:\tpause\nNSpid:\t4712\t18\t1\n"), Some(18));
        assert_eq!(inner_id("NSpid:\t4711\n"), None);
        assert_eq!(memory("00400000-7fff ---p [rollup]\nRss:  90 kB\nPss:  12 kB\nPss_Dirty: 3 kB\n"), 12 * 1024);
        let stat = "17 (a) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 5 0 6000 1 1";
        assert_eq!(age_of(stat, 100), Some(40));
    }

    #[test]
    fn a_component_without_a_process_is_dead_or_stopped() {
        let state = |name: &str, process, wanted| State { name: name.into(), process, wanted, restarts: 0 };
        let components =
            vec![state("etcd", Some(3), true), state("scheduler", None, false), state("coredns", None, true)];
        let process = |id, memory_bytes| Process { id, memory_bytes, age_seconds: 5 };
        let processes = BTreeMap::from([(3, process(103, 7 << 20)), (1, process(101, 2 << 20))]);
        let text = report("a", &Answer { up: true, nodes: 2, components }, processes);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["cluster", "a:", "up,", "nodes:", "2,", "9", "MiB"]);
        assert_eq!(lines[2], ["etcd", "103", "5s", "7", "MiB", "0"]);
        assert_eq!((lines[3][1], lines[4][1]), ("stopped", "DEAD"));
        assert_eq!(lines[5], ["other", "processes", "1", "2", "MiB"]);
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([5, 61, 3660, 90_000].map(age), ["5s", "1m01s", "1h01m", "25h00m"]);
    }
}
