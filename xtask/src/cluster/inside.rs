//! Entering a running cluster: commands in its namespaces, its logs, the cables of its nodes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cgroup::Cgroup;
use super::control::{Request, ask};
use super::layout::{Cluster, INSIDE, Node};
use super::supervisor::PATH;
use crate::cache::Cache;
use crate::command;
use crate::image::Packed;

/// What a caller may have set and what leads nowhere inside.
const PROXIES: [&str; 8] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// The first process inside, by the id that the caller sees; none when the cluster does not run.
pub(super) fn first_process(cluster: &Cluster) -> Option<i32> {
    let id = fs::read_to_string(cluster.path("init.pid")).ok()?.trim().parse().ok()?;
    // The file may be older than the machine's last start.
    Cgroup::new(cluster.cgroup()).ok()?.holds(id).then_some(id)
}

/// A command that runs inside, beside the API server or on a node.
fn nsenter(cluster: &Cluster, node: Option<Node>) -> Result<Command> {
    let Some(id) = first_process(cluster) else {
        bail!("cluster {0} is not up: cargo xtask cluster up --name {0}", cluster.name);
    };
    let mut command = Command::new("nsenter");
    command.arg(format!("--target={id}")).args(["--net", "--mount", "--pid", "--"]);
    if let Some(node) = node {
        command.arg("nsenter").arg(format!("--net={}", node.network()));
        command.arg(format!("--mount={}", node.mounts())).arg("--");
    }
    Ok(command)
}

/// Becomes the command: its exit code is that of the caller.
pub(super) fn exec(cache: &Cache, cluster: &Cluster, node: Option<Node>, words: &[String]) -> Result<()> {
    let mut command = with_environment(cache, cluster, node)?;
    if words.is_empty() {
        command.arg(std::env::var_os("SHELL").unwrap_or_else(|| "sh".into()));
    } else {
        command.args(words);
    }
    Err(command.exec()).context("cannot start nsenter")
}

/// What a command beside the API server writes to stdout.
pub(super) fn output(cache: &Cache, cluster: &Cluster, words: &[&str]) -> Result<String> {
    command::output(with_environment(cache, cluster, None)?.args(words))
}

/// A command that runs inside and finds kubectl, helm and the cluster.
fn with_environment(cache: &Cache, cluster: &Cluster, node: Option<Node>) -> Result<Command> {
    let mut command = nsenter(cluster, node)?;
    let folder = std::env::current_dir().context("cannot tell the current folder")?;
    // Entering leaves the current folder behind; one that the cluster does not see is no reason to fail.
    let hidden = ["/run", "/var/lib", "/var/log"].iter().any(|hidden| folder.starts_with(hidden));
    command.arg("env").arg(if hidden { "--chdir=/".into() } else { chdir(&folder) });
    PROXIES.iter().for_each(|name| {
        command.arg(format!("--unset={name}"));
    });
    let bin = cache.folder("bin")?;
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
    command.arg(format!("PATH={}:{path}:/usr/sbin:/sbin", bin.display()));
    for (name, value) in [
        ("KUBECONFIG", "kubeconfig"),
        ("KUBECACHEDIR", "kubectl"),
        ("HELM_CACHE_HOME", "helm/cache"),
        ("HELM_CONFIG_HOME", "helm/config"),
        ("HELM_DATA_HOME", "helm/data"),
    ] {
        command.arg(format!("{name}={INSIDE}/{value}"));
    }
    Ok(command)
}

/// Puts an image on every node, in place of the one that had its name. Pods that run keep theirs.
pub(super) fn import(cluster: &Cluster, image: &Packed) -> Result<()> {
    for node in Node::all(ask(cluster, &Request::Tell)?.nodes) {
        let mut command = nsenter(cluster, Some(node))?;
        command::output(
            command.args(["ctr", "--namespace", "k8s.io", "images", "import", "--no-unpack"]).arg(&image.tar),
        )?;
    }
    println!("{} {}", image.reference, image.digest);
    Ok(())
}

fn chdir(folder: &std::path::Path) -> OsString {
    let mut argument = OsString::from("--chdir=");
    argument.push(folder);
    argument
}

/// Becomes `cat` or `tail` of a component's log, or lists the components that have one.
pub(super) fn logs(cluster: &Cluster, component: Option<&str>, follow: bool) -> Result<()> {
    let folder = cluster.path("logs");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .with_context(|| format!("cluster {} has no logs in {}", cluster.name, folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
        .collect();
    names.sort();
    let Some(component) = component else {
        println!("{}", names.join("\n"));
        return Ok(());
    };
    if !names.iter().any(|name| name == component) {
        bail!("there is no log of `{component}`; there are {}", names.join(", "));
    }
    let mut command = Command::new(if follow { "tail" } else { "cat" });
    if follow {
        command.args(["-n", "50", "-F"]);
    }
    Err(command.arg(cluster.log(component)).exec()).context("cannot show the log")
}

/// Sets the cable between a node and all others up or down.
pub(super) fn cable(cluster: &Cluster, node: Node, state: &str) -> Result<()> {
    command::output(nsenter(cluster, None)?.args(["ip", "link", "set", &node.name(), state])).map(drop)
}
