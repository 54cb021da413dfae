//! Starting and ending clusters, from outside. A start goes through three stages of this same program: `launch` enters
//! the cluster's cgroups and then fresh namespaces, `init` is their first process, `supervise` does the work.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::cgroup::{Cgroup, SYSTEM};
use super::control::{Progress, Request, ask};
use super::inside::first_process;
use super::layout::{Cluster, Node};
use super::supervisor;
use crate::cache::Cache;
use crate::command::{self, tail};
use crate::image::{self, Choice, Image};
use crate::tools;

/// Where a process of `up` is on its way into the cluster.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    Launch,
    Init,
    Supervise,
}

/// How much of a log is shown when its component is why a cluster did not come up.
const LOG_LINES: usize = 25;

/// Starts the cluster unless it is up; clears away first what a crash has left of it.
pub(super) fn up(cache: &Cache, cluster: &Cluster, nodes: u8) -> Result<()> {
    tools::install(cache, &tools::FOR_CLUSTER)?;
    let choice = Choice { names: vec![Image::Pause, Image::Busybox], debug: false };
    image::pack(cache, &choice)?;
    let _turn = cache.lock(&format!("cluster-{}", cluster.name))?;
    if first_process(cluster).is_some()
        && let Ok(answer) = ask(cluster, &Request::Tell)
        && answer.up
    {
        if answer.nodes != nodes {
            bail!("cluster {} is up, its nodes are {}: take it down first", cluster.name, answer.nodes);
        }
        eprintln!("cluster {} is up already", cluster.name);
        return Ok(());
    }
    clear(cluster)?;
    let begun = Instant::now();
    let result = bring_up(cluster, nodes, begun);
    if result.is_err() {
        clear(cluster).context("and what it has left cannot be removed")?;
    }
    result?;
    eprintln!(
        "cluster {0} is up after {1:.1} s, nodes: {nodes}; use it by: cargo xtask cluster exec --name {0}",
        cluster.name,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn bring_up(cluster: &Cluster, nodes: u8, begun: Instant) -> Result<()> {
    let logs = cluster.path("logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let mut children: Vec<String> = Node::all(nodes).map(Node::name).collect();
    children.push(SYSTEM.to_owned());
    Cgroup::new(cluster.cgroup())?.create(&children)?;
    let log = OpenOptions::new().create(true).append(true).open(cluster.log("supervisor"));
    let mut child = stage(Stage::Launch, &cluster.folder, nodes)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.context("cannot create the supervisor's log")?)
        .spawn()
        .context("cannot start the supervisor")?;
    let output = child.stdout.take().context("the supervisor has no stdout")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read from the supervisor")?;
        match serde_json::from_str(&line).with_context(|| format!("the supervisor said `{line}`"))? {
            Progress::Step(step) => eprintln!("{:5.1} s  {step}", begun.elapsed().as_secs_f64()),
            Progress::Up => return Ok(()),
            Progress::Failed { component, problem } => {
                let name = component.as_deref().unwrap_or("supervisor");
                bail!("{name}: {problem}\n{}", end_of_log(cluster, name));
            }
        }
    }
    bail!("the supervisor ended before the cluster was up\n{}", end_of_log(cluster, "supervisor"))
}

fn end_of_log(cluster: &Cluster, component: &str) -> String {
    let text = fs::read(cluster.log(component)).unwrap_or_default();
    format!("the end of its log:\n{}", tail(&String::from_utf8_lossy(&text), LOG_LINES))
}

/// Ends the cluster, in whatever state it is.
pub(super) fn down(cache: &Cache, cluster: &Cluster) -> Result<()> {
    let _turn = cache.lock(&format!("cluster-{}", cluster.name))?;
    let there = cluster.folder.exists() || Cgroup::new(cluster.cgroup())?.exists();
    clear(cluster)?;
    eprintln!("cluster {} {}", cluster.name, if there { "is down" } else { "is not there" });
    Ok(())
}

/// Ends every cluster that has a folder in this cache.
pub(super) fn down_all(cache: &Cache, clusters: &Path) -> Result<()> {
    for entry in fs::read_dir(clusters).with_context(|| format!("cannot read {}", clusters.display()))? {
        let name = entry?.file_name();
        if let Some(Ok(cluster)) = name.to_str().map(|name| Cluster::new(clusters, name)) {
            down(cache, &cluster)?;
        }
    }
    Ok(())
}

/// Its processes, which take networks and mounts with them, then its cgroups, then its folder.
fn clear(cluster: &Cluster) -> Result<()> {
    let cgroup = Cgroup::new(cluster.cgroup())?;
    cgroup.kill()?;
    cgroup.remove()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    if let Some(mount) = mount_below(&mounts, &cluster.folder) {
        bail!("{mount} is mounted: its content is not the cluster's, unmount it");
    }
    match fs::remove_dir_all(&cluster.folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", cluster.folder.display()))
        }
        _ => Ok(()),
    }
}

/// The first mount point in `folder`.
fn mount_below<'a>(mountinfo: &'a str, folder: &Path) -> Option<&'a str> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).find(|point| Path::new(point).starts_with(folder))
}

/// This program again, at `stage`.
fn stage(stage: Stage, folder: &Path, nodes: u8) -> Command {
    let mut command = Command::new(command::this());
    stage_arguments(&mut command, stage, folder, nodes);
    command
}

fn stage_arguments(command: &mut Command, stage: Stage, folder: &Path, nodes: u8) {
    let name = stage.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    command.args(["cluster", "enter", &name]).arg(folder).arg(nodes.to_string());
}

/// One stage of the way.
pub(super) fn enter(at: Stage, folder: &Path, nodes: u8) -> Result<()> {
    let (clusters, name) = folder.parent().zip(folder.file_name()).context("a cluster has a folder of its name")?;
    let cluster = Cluster::new(clusters, &name.to_string_lossy())?;
    match at {
        Stage::Launch => {
            Cgroup::new(cluster.cgroup())?.enter(SYSTEM)?;
            rustix::process::setsid().context("cannot leave the terminal")?;
            let mut command = Command::new("unshare");
            command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--"]).arg(command::this());
            stage_arguments(&mut command, Stage::Init, folder, nodes);
            Err(command.exec()).context("cannot start unshare")
        }
        Stage::Init => supervisor::init(&cluster, stage(Stage::Supervise, folder, nodes)),
        Stage::Supervise => {
            let cache = clusters.parent().context("clusters are in the cache")?;
            supervisor::supervise(cluster, nodes, cache.join("bin"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_in_the_folder_of_a_cluster_is_noticed() {
        let mounts = "27 1 254:0 / / rw - ext4 /dev/vda rw\n60 27 0:40 / /c/clusters/a/node-1/x rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_below(mounts, Path::new("/c/clusters/a")), Some("/c/clusters/a/node-1/x"));
        assert_eq!(mount_below(mounts, Path::new("/c/clusters/b")), None);
    }
}
