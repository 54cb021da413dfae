//! Host names and repository paths: the two names under which a workload's snapshots are found again, so
//! they never depend on anything that changes: no pod suffix, no IP, no other object of the folder.
//!
//! | target | host | path in the store | one per |
//! |---|---|---|---|
//! | Deployment, ReplicaSet, ReplicationController, Pod | its name | `<kind>/<name>` | target (one replica writes) |
//! | StatefulSet | the pod, `<name>-<ordinal>` | `statefulset/<pod>` | pod |
//! | DaemonSet | the node | `daemonset/<name>/<node>` | node |
//! | PersistentVolumeClaim, PersistentVolume, AppBinding | its name | `<kind>/<name>` | target |
//!
//! A `Restic` gives each host a repository of its own at that path below the prefix of its store, or below
//! the namespace where there is no prefix. A `Backup` takes its Repository as it is, and several hosts share it;
//! there the host name tells them apart.

use crate::key::{Target, TargetKind};

/// More pods than this in one StatefulSet are taken for a typing mistake. Kubernetes sets no limit.
pub(crate) const REPLICAS_MAX: u32 = 10_000;

/// One source of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The name that snapshots carry.
    pub name: String,
    /// The path below the prefix of a store.
    pub path: String,
    /// The path with dots: unique within a namespace, and a valid name of an object.
    pub instance: String,
    /// The ordinal of a StatefulSet's pod.
    pub ordinal: Option<u32>,
}

impl Host {
    /// The host that the pod `pod` on `node` is, being one of a target.
    pub fn of_pod(target: &Target, pod: &str, node: &str) -> Self {
        let kind = target.kind.path_segment();
        match target.kind {
            TargetKind::StatefulSet => Self::new(pod, format!("{kind}/{pod}")),
            TargetKind::DaemonSet => Self::new(node, format!("{kind}/{}/{node}", target.name)),
            _ => Self::new(&target.name, format!("{kind}/{}", target.name)),
        }
    }

    fn new(name: &str, path: String) -> Self {
        Self { name: name.to_owned(), instance: path.replace('/', "."), path, ordinal: None }
    }
}

/// The hosts of a target. `replicas`, at most [`REPLICAS_MAX`], and `first_ordinal` count for a StatefulSet only, `node`
/// for a DaemonSet.
pub(crate) fn hosts(target: &Target, replicas: u32, first_ordinal: u32, node: &str) -> Vec<Host> {
    let kind = target.kind.path_segment();
    let name = &target.name;
    match target.kind {
        TargetKind::StatefulSet => (first_ordinal..)
            .take(replicas.min(REPLICAS_MAX) as usize)
            .map(|ordinal| {
                let pod = format!("{name}-{ordinal}");
                Host { ordinal: Some(ordinal), ..Host::new(&pod, format!("{kind}/{pod}")) }
            })
            .collect(),
        TargetKind::DaemonSet => vec![Host::new(node, format!("{kind}/{name}/{node}"))],
        _ => vec![Host::new(name, format!("{kind}/{name}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: TargetKind, replicas: u32, first_ordinal: u32, expected: &[(&str, &str, &str)]) {
        let hosts = hosts(&Target::new(kind, "demo", "db"), replicas, first_ordinal, "node-a");
        let found: Vec<_> =
            hosts.iter().map(|host| (host.name.as_str(), host.path.as_str(), host.instance.as_str())).collect();
        assert_eq!(found, expected, "{kind:?}");
    }

    #[test]
    fn a_pod_knows_which_host_it_is() {
        for (kind, expected) in [
            (TargetKind::Deployment, "deployment.db"),
            (TargetKind::StatefulSet, "statefulset.db-1"),
            (TargetKind::DaemonSet, "daemonset.db.node-a"),
            (TargetKind::PersistentVolumeClaim, "persistentvolumeclaim.db"),
        ] {
            assert_eq!(Host::of_pod(&Target::new(kind, "demo", "db"), "db-1", "node-a").instance, expected);
        }
    }

    #[test]
    fn every_kind_has_stable_hosts() {
        check(TargetKind::Deployment, 3, 0, &[("db", "deployment/db", "deployment.db")]);
        check(TargetKind::ReplicaSet, 3, 0, &[("db", "replicaset/db", "replicaset.db")]);
        check(
            TargetKind::ReplicationController,
            3,
            0,
            &[("db", "replicationcontroller/db", "replicationcontroller.db")],
        );
        check(TargetKind::DaemonSet, 0, 0, &[("node-a", "daemonset/db/node-a", "daemonset.db.node-a")]);
        check(TargetKind::StatefulSet, 1, 0, &[("db-0", "statefulset/db-0", "statefulset.db-0")]);
        check(
            TargetKind::StatefulSet,
            2,
            5,
            &[("db-5", "statefulset/db-5", "statefulset.db-5"), ("db-6", "statefulset/db-6", "statefulset.db-6")],
        );
        check(TargetKind::StatefulSet, 0, 0, &[]);
    }
}
