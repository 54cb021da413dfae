//! Configuration files that the components read, as text. No IO.

use super::components::kubeconfig;
use super::layout::{CONTROL_ADDRESS, DOMAIN, INSIDE, Node};

/// The image that holds a pod's namespaces. It is imported from the cache like every other: there is no registry.
const PAUSE: &str = "holdfast.test/pause:1";

/// containerd of a node. Its folders are the default ones.
pub(super) fn containerd(node: Node) -> String {
    let folder = node.inside();
    format!(
        r#"version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Without CAP_SYS_RESOURCE, as in many sandboxes, nobody may lower it and every pod would fail.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"#
    )
}

/// Pods are reached by routes, not through a bridge, so that every packet meets the rules of kube-proxy.
pub(super) fn cni(node: Node) -> String {
    let config = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": node.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{config:#}\n")
}

/// kubelet of a node: only the API server may use it, and users whom the API server vouches for.
pub(super) fn kubelet(node: Node, cgroup: &str) -> String {
    let certificates = format!("{INSIDE}/certificates");
    let name = node.name();
    let config = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{certificates}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("{certificates}/{name}.crt"),
        "tlsPrivateKeyFile": format!("{certificates}/{name}.key"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}/{name}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "clusterDNS": [CONTROL_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": "",
        // How soon a grown claim is seen by the pod that has it mounted; the default is a minute.
        "syncFrequency": "10s",
        // The disk is the machine's: its filling up is no reason to throw away images that cannot be fetched again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
            "imagefs.inodesFree": "1%",
        },
    });
    format!("{config:#}\n")
}

/// Names of the cluster and nothing else: there is no network outside.
pub(super) fn corefile() -> String {
    format!(
        "{DOMAIN}:53 in-addr.arpa:53 {{
  bind {CONTROL_ADDRESS}
  errors
  ready {CONTROL_ADDRESS}:8181
  kubernetes {DOMAIN} in-addr.arpa {{
    kubeconfig {} cluster
    ttl 5
  }}
  loadbalance
}}
",
        kubeconfig("coredns")
    )
}

/// How processes beside the pods resolve names.
pub(super) fn resolver() -> String {
    format!("nameserver {CONTROL_ADDRESS}\nsearch default.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\noptions ndots:5\n")
}

/// What a kubelet wants of the kernel's settings, which belong to the whole machine. It is shown these values where
/// the settings are, finds them right and leaves the machine's alone.
pub(super) const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];
