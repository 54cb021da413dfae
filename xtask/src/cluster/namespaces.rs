//! What a cluster sees of the machine: a network of its own with a bridge and a network for each node, and mounts of
//! its own. All of it is gone with the cluster's last process; outside nothing changes.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::config::{self, KERNEL_SETTINGS};
use super::layout::{CONTROL_ADDRESS, Cluster, FAULTS, INSIDE, Node, SERVICES, STORAGE};
use crate::command;

/// Called in fresh namespaces, before any component runs. What it returns keeps the mounts of the nodes.
pub(super) fn prepare(cluster: &Cluster, nodes: u8) -> Result<Vec<File>> {
    mounts(cluster).context("cannot arrange the mounts")?;
    network(nodes).context("cannot make the network")?;
    Node::all(nodes)
        .map(|node| node_mounts(node).with_context(|| format!("cannot arrange the mounts of {}", node.name())))
        .collect()
}

/// Those of the control plane, from which the nodes' are derived.
fn mounts(cluster: &Cluster) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    // Sockets and locks of the machine's own container runtime, iptables and so on are not ours to meet.
    let run = fs::read_link("/etc/resolv.conf").ok();
    mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
    for folder in [INSIDE, "/run/netns", "/run/mntns", "/run/containerd", "/run/lock"] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
    }
    mount_bind(&cluster.folder, INSIDE).with_context(|| format!("cannot mount on {INSIDE}"))?;
    // Volumes of a limited size are mounts; what the driver mounts in one place is there in all.
    for folder in [STORAGE, FAULTS] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
    }
    mount_bind(STORAGE, STORAGE).with_context(|| format!("cannot mount on {STORAGE}"))?;
    mount_change(STORAGE, MountPropagationFlags::SHARED)?;
    resolver(run)?;
    let settings = format!("{INSIDE}/kernel");
    fs::create_dir_all(&settings)?;
    for (index, (path, value)) in KERNEL_SETTINGS.iter().enumerate().filter(|(_, (path, _))| Path::new(path).exists()) {
        let file = format!("{settings}/{index}");
        fs::write(&file, format!("{value}\n")).with_context(|| format!("cannot write {file}"))?;
        mount_bind(&file, *path).with_context(|| format!("cannot mount on {path}"))?;
    }
    Ok(())
}

/// Where `/etc/resolv.conf` is a link into /run, as with systemd, it leads to nothing now: the file is made there.
fn resolver(link: Option<PathBuf>) -> Result<()> {
    let etc = Path::new("/etc/resolv.conf");
    let file = format!("{INSIDE}/resolv.conf");
    fs::write(&file, config::resolver()).with_context(|| format!("cannot write {file}"))?;
    if etc.exists() {
        return mount_bind(&file, etc).context("cannot mount on /etc/resolv.conf");
    }
    let Some(target) = link else { return Ok(()) };
    let target =
        Path::new("/etc").join(target.strip_prefix("../").map_or(target.clone(), |rest| Path::new("/").join(rest)));
    if target.starts_with("/run") {
        target.parent().map(fs::create_dir_all).transpose()?;
        fs::copy(&file, &target).with_context(|| format!("cannot write {}", target.display()))?;
    }
    Ok(())
}

/// A bridge with the control plane's address on it, and a cable to each node.
fn network(nodes: u8) -> Result<()> {
    ip("link set lo up")?;
    ip("link add cluster type bridge")?;
    ip(&format!("addr add {CONTROL_ADDRESS}/24 dev cluster"))?;
    ip("link set cluster up")?;
    // Programs want a default route to find out their own address by.
    ip("route add default dev cluster")?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch on forwarding")?;
    for node in Node::all(nodes) {
        let name = node.name();
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {name} type veth peer name eth0 netns {name}"))?;
        ip(&format!("link set {name} master cluster up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} addr add {}/24 dev eth0", node.address()))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} route add default via {CONTROL_ADDRESS}"))?;
        ip(&format!("route add {} via {}", node.pods(), node.address()))?;
        for other in Node::all(nodes).filter(|&other| other != node) {
            ip(&format!("-n {name} route add {} via {}", other.pods(), other.address()))?;
        }
        command::output(
            Command::new("ip").args(["netns", "exec", &name, "sh", "-c"]).arg("echo 1 >/proc/sys/net/ipv4/ip_forward"),
        )?;
    }
    // Services are the nodes' business; what asks for them beside the nodes goes by way of the first.
    ip(&format!("route add {SERVICES} via {}", Node(1).address()))
}

/// A node has the usual folders of kubelet, containerd and CNI for itself. They are made by a thread that leaves the
/// others' mounts; the file that stays stands for what it made.
///
/// `unshare --mount=FILE` would do so too, but for a kernel that numbers namespaces in no order of time and then
/// refuses to keep some, seemingly at random (Linux 6.18).
fn node_mounts(node: Node) -> Result<File> {
    let made = thread::spawn(move || -> Result<File> {
        // SAFETY: only files that are shared no more could harm other threads, and they go on being shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("cannot leave the mounts of others")?;
        let folder = node.inside();
        for part in ["lib/kubelet", "lib/containerd", "lib/cni", "log/pods", "log/containers", "cni"] {
            let part = format!("{folder}/{part}");
            fs::create_dir_all(&part).with_context(|| format!("cannot create {part}"))?;
        }
        mount_bind(format!("{folder}/lib"), "/var/lib").context("cannot mount on /var/lib")?;
        mount_bind(format!("{folder}/log"), "/var/log").context("cannot mount on /var/log")?;
        mount("tmpfs", "/run/containerd", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)
            .context("cannot mount on /run/containerd")?;
        // Mounts that a pod makes are seen by the node and by other pods, if they ask for it.
        mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
        File::open("/proc/thread-self/ns/mnt").context("cannot open the new mounts")
    });
    let file = made.join().unwrap_or_else(|_| bail!("the thread panicked"))?;
    let (own, link) = (format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()), node.mounts());
    symlink(&own, &link).with_context(|| format!("cannot create {link}"))?;
    Ok(file)
}

fn ip(arguments: &str) -> Result<()> {
    command::output(Command::new("ip").args(arguments.split(' '))).map(drop)
}
