//! `cargo xtask cluster`: a real Kubernetes on this machine, for tests and for trying things out. API server with RBAC,
//! nodes with kubelet and containerd, DNS, volumes with snapshots; from programs that `cargo xtask tools` builds,
//! without a registry, Docker or a network. It lives in namespaces and cgroups of its own: the machine's addresses,
//! mounts and packet filter stay as they are, and several clusters do not meet.

mod certificates;
mod cgroup;
mod components;
mod config;
mod control;
mod inside;
mod layout;
mod lifecycle;
mod namespaces;
mod start;
mod status;
mod supervisor;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::cache::Cache;
use crate::image;
use control::{Request, ask};
use layout::{Cluster, MAX_NODES, Node};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Start a cluster, unless it is up already
    Up {
        #[command(flatten)]
        name: Name,
        /// How many nodes
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
        nodes: u8,
    },
    /// End a cluster and remove all it has left, even after a crash
    Down {
        #[command(flatten)]
        name: Name,
        /// Every cluster of this cache
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// What runs: components with process id, age and memory; nodes
    Status {
        #[command(flatten)]
        name: Name,
    },
    /// Run a command (a shell, when none is given) inside, with KUBECONFIG set and kubectl and helm on PATH
    Exec {
        #[command(flatten)]
        name: Name,
        /// On this node instead of beside the API server: its network, mounts and containerd
        #[arg(long, value_parser = Node::parse)]
        node: Option<Node>,
        /// The command and its arguments, after `--`
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Pack container images and import them on the nodes of a cluster that is up
    Image {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        choice: image::Choice,
    },
    /// Show the log of a component; without one, which there are
    Logs {
        #[command(flatten)]
        name: Name,
        /// As `status` calls it
        component: Option<String>,
        /// Go on as it grows
        #[arg(long, short)]
        follow: bool,
    },
    /// Fault: end a component and leave it so
    Stop {
        #[command(flatten)]
        name: Name,
        /// As `status` calls it
        component: String,
        /// With SIGKILL instead of SIGTERM
        #[arg(long)]
        kill: bool,
    },
    /// Start a component that was stopped
    Start {
        #[command(flatten)]
        name: Name,
        /// As `status` calls it
        component: String,
    },
    /// Fault: end a component and start it again
    Restart {
        #[command(flatten)]
        name: Name,
        /// As `status` calls it
        component: String,
        /// With SIGKILL instead of SIGTERM
        #[arg(long)]
        kill: bool,
    },
    /// Fault: cut a node off the network
    Cut {
        #[command(flatten)]
        name: Name,
        /// Which
        #[arg(value_parser = Node::parse)]
        node: Node,
    },
    /// Connect a node that was cut off
    Heal {
        #[command(flatten)]
        name: Name,
        /// Which
        #[arg(value_parser = Node::parse)]
        node: Node,
    },
    /// How `up` calls itself on the way into the cluster
    #[command(hide = true)]
    Enter { stage: lifecycle::Stage, folder: PathBuf, nodes: u8 },
}

#[derive(clap::Args)]
pub(crate) struct Name {
    /// Which cluster
    #[arg(long, default_value = "default")]
    name: String,
}

impl Name {
    fn cluster(&self, cache: &Cache) -> Result<Cluster> {
        Cluster::new(&clusters(cache)?, &self.name)
    }
}

/// The folder of all clusters, by its real name: that is how the cluster's own processes find it.
fn clusters(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.folder("clusters")?;
    fs::canonicalize(&folder).with_context(|| format!("cannot find {}", folder.display()))
}

/// The task itself.
pub(crate) fn run(task: &Task) -> Result<()> {
    if let Task::Enter { stage, folder, nodes } = task {
        return lifecycle::enter(*stage, folder, *nodes);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("a cluster needs root: namespaces, mounts and cgroups are made for it");
    }
    let cache = Cache::open()?;
    match task {
        Task::Up { name, nodes } => lifecycle::up(&cache, &name.cluster(&cache)?, *nodes),
        Task::Down { all: true, .. } => lifecycle::down_all(&cache, &clusters(&cache)?),
        Task::Down { name, .. } => lifecycle::down(&cache, &name.cluster(&cache)?),
        Task::Status { name } => status::show(&cache, &name.cluster(&cache)?),
        Task::Exec { name, node, command } => inside::exec(&cache, &name.cluster(&cache)?, *node, command),
        Task::Logs { name, component, follow } => inside::logs(&name.cluster(&cache)?, component.as_deref(), *follow),
        Task::Image { name, choice } => {
            let cluster = name.cluster(&cache)?;
            image::pack(&cache, choice)?.iter().try_for_each(|image| inside::import(&cluster, image))
        }
        Task::Stop { name, component, kill } => stop(&name.cluster(&cache)?, component, *kill),
        Task::Start { name, component } => start(&name.cluster(&cache)?, component),
        Task::Restart { name, component, kill } => {
            let cluster = name.cluster(&cache)?;
            stop(&cluster, component, *kill)?;
            start(&cluster, component)
        }
        Task::Cut { name, node } => inside::cable(&name.cluster(&cache)?, *node, "down"),
        Task::Heal { name, node } => inside::cable(&name.cluster(&cache)?, *node, "up"),
        Task::Enter { .. } => Ok(()),
    }
}

fn stop(cluster: &Cluster, component: &str, kill: bool) -> Result<()> {
    ask(cluster, &Request::Stop { component: component.to_owned(), kill }).map(drop)
}

fn start(cluster: &Cluster, component: &str) -> Result<()> {
    ask(cluster, &Request::Start { component: component.to_owned() }).map(drop)
}
