//! Names, addresses and folders of a cluster: what follows from its name alone. No IO but making folders absolute.
//!
//! Every cluster has a network of its own, so all of them use the same addresses.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Where the processes of a cluster find its folder, whatever the folder is called outside. Short, because the paths of
/// sockets must be.
pub(super) const INSIDE: &str = "/run/cluster";
/// What volumes hold, for all nodes.
pub(super) const STORAGE: &str = "/run/cluster/storage";
/// Where tests ask the CSI driver for faults.
pub(super) const FAULTS: &str = "/run/cluster/faults";
/// The API server, CoreDNS and everything else that no node runs.
pub(super) const CONTROL_ADDRESS: &str = "10.77.0.1";
/// Where toxiproxy takes its orders, at [`CONTROL_ADDRESS`].
pub(super) const TOXIPROXY_PORT: &str = "8474";
pub(super) const NODE_PREFIX: &str = "10.77.0";
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The first address of [`SERVICES`], which Kubernetes gives to the API server.
pub(super) const API_SERVICE: &str = "10.96.0.1";
pub(super) const PODS: &str = "10.88.0.0/16";
pub(super) const DOMAIN: &str = "cluster.local";
/// The name of the CSI driver, of its StorageClasses and of its VolumeSnapshotClass is made of this.
pub(super) const DRIVER: &str = "dir.holdfast.test";
/// The more nodes, the more addresses; more than this never fits a machine.
pub(super) const MAX_NODES: u8 = 20;

/// A cluster by its name, whether it runs or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(super) name: String,
    /// Everything it keeps, as seen from outside.
    pub(super) folder: PathBuf,
}

impl Cluster {
    /// The cluster `name` with its folder below `clusters`. A name is what a network device may be called.
    pub(super) fn new(clusters: &Path, name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || name.starts_with('-') || !name.chars().all(fits) {
            bail!("`{name}` cannot name a cluster: at most 40 of a-z, 0-9 and -, and not - first");
        }
        // These are hidden from the cluster's processes by folders of their own.
        for hidden in ["/run", "/var/run", "/var/lib", "/var/log", "/proc", "/sys"] {
            if clusters.starts_with(hidden) {
                bail!("{} is below {hidden}: set HOLDFAST_CACHE to a folder elsewhere", clusters.display());
            }
        }
        Ok(Self { name: name.to_owned(), folder: clusters.join(name) })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn log(&self, component: &str) -> PathBuf {
        self.path("logs").join(format!("{component}.log"))
    }

    /// The name of its cgroup. Clusters of one name in different folders are different clusters.
    pub(super) fn cgroup(&self) -> String {
        let hash = self
            .folder
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        format!("holdfast-{}-{hash:08x}", self.name)
    }
}

/// One node, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node(pub(super) u8);

impl Node {
    pub(super) fn all(count: u8) -> impl Iterator<Item = Self> {
        (1..=count).map(Self)
    }

    /// From `2` or `node-2`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("node-").unwrap_or(text);
        match number.parse() {
            Ok(number) if (1..=MAX_NODES).contains(&number) => Ok(Self(number)),
            _ => Err(format!("`{text}` is no node: they are called node-1, node-2 …")),
        }
    }

    /// Its name in Kubernetes, and of the network device that leads to it.
    pub(super) fn name(self) -> String {
        format!("node-{}", self.0)
    }

    pub(super) fn address(self) -> String {
        format!("{NODE_PREFIX}.{}", u16::from(self.0) + 10)
    }

    /// The addresses of its pods.
    pub(super) fn pods(self) -> String {
        format!("10.88.{}.0/24", self.0)
    }

    /// Its own folder, as the cluster's processes see it.
    pub(super) fn inside(self) -> String {
        format!("{INSIDE}/{}", self.name())
    }

    pub(super) fn network(self) -> String {
        format!("/run/netns/{}", self.name())
    }

    pub(super) fn mounts(self) -> String {
        format!("/run/mntns/{}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_before_it_becomes_a_path() {
        let clusters = Path::new("/home/a/clusters");
        assert_eq!(Cluster::new(clusters, "e2e-1").unwrap().folder, clusters.join("e2e-1"));
        for name in ["", "..", "a/b", "-a", "A", "a b", &"a".repeat(41)] {
            assert!(Cluster::new(clusters, name).is_err(), "{name}");
        }
        assert!(Cluster::new(Path::new("/var/lib/ci/clusters"), "a").is_err());
        assert!(Cluster::new(Path::new("/var/library/clusters"), "a").is_ok());
    }

    #[test]
    fn two_clusters_never_share_a_cgroup() {
        let cgroup = |folder: &str, name: &str| Cluster::new(Path::new(folder), name).unwrap().cgroup();
        assert_eq!(cgroup("/a", "x"), cgroup("/a", "x"));
        assert_ne!(cgroup("/a", "x"), cgroup("/a", "y"));
        assert_ne!(cgroup("/a", "x"), cgroup("/b", "x"));
        assert!(cgroup("/a", "x").starts_with("holdfast-x-"));
    }

    #[test]
    fn nodes_are_numbered_from_one() {
        assert_eq!(Node::parse("2"), Ok(Node(2)));
        assert_eq!(Node::parse("node-2"), Ok(Node(2)));
        for text in ["0", "node-0", "21", "node-", "kubelet", "-1"] {
            assert!(Node::parse(text).is_err(), "{text}");
        }
        assert_eq!((Node(2).address(), Node(2).pods()), ("10.77.0.12".into(), "10.88.2.0/24".into()));
    }
}
