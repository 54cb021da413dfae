//! The programs that make a cluster: what each is called, where it runs and with which arguments. A table, no IO.

use std::path::Path;

use super::layout::{CONTROL_ADDRESS, DRIVER, FAULTS, INSIDE, Node, PODS, SERVICES, STORAGE, TOXIPROXY_PORT};
use crate::tools::CSI_DRIVER;

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the machine of the control plane, which is no node.
    Control,
    /// In the network and among the mounts of a node.
    Node(Node),
}

/// One program of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Component {
    /// What `status`, `logs`, `stop` call it.
    pub(super) name: String,
    pub(super) place: Place,
    /// A path, or a name to be found on PATH.
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

/// Programs of the project's cache by their path, those of the distribution by their name.
pub(super) struct Programs<'a> {
    /// The folder of the former.
    pub(super) bin: &'a Path,
}

impl Programs<'_> {
    fn control(&self, name: &str, program: &str, arguments: Vec<String>) -> Component {
        Component {
            name: name.to_owned(),
            place: Place::Control,
            program: self.bin.join(program).to_string_lossy().into_owned(),
            arguments,
        }
    }

    fn node(&self, node: Node, name: &str, program: &str, arguments: Vec<String>) -> Component {
        let component = self.control(&format!("{name}-{}", node.0), program, arguments);
        Component { place: Place::Node(node), ..component }
    }

    /// Keeps every object. It need not survive the machine, so it does not wait for the disk.
    pub(super) fn etcd(&self) -> Component {
        let arguments = [
            ("data-dir", format!("{INSIDE}/etcd")),
            ("listen-client-urls", "http://127.0.0.1:2379".into()),
            ("advertise-client-urls", "http://127.0.0.1:2379".into()),
            ("listen-peer-urls", "http://127.0.0.1:2380".into()),
            ("unsafe-no-fsync", "true".into()),
            ("log-level", "warn".into()),
        ];
        self.control("etcd", "etcd", flags(&arguments))
    }

    pub(super) fn apiserver(&self) -> Component {
        let certificates = format!("{INSIDE}/certificates");
        let arguments = [
            ("etcd-servers", "http://127.0.0.1:2379".into()),
            ("bind-address", CONTROL_ADDRESS.into()),
            ("advertise-address", CONTROL_ADDRESS.into()),
            ("secure-port", "6443".into()),
            ("service-cluster-ip-range", SERVICES.into()),
            ("tls-cert-file", format!("{certificates}/apiserver.crt")),
            ("tls-private-key-file", format!("{certificates}/apiserver.key")),
            ("client-ca-file", format!("{certificates}/ca.crt")),
            ("authorization-mode", "Node,RBAC".into()),
            // Beside the default ones, Pod Security among them.
            ("enable-admission-plugins", "NodeRestriction".into()),
            // Policies that change what comes in, which are off before 1.36: so a test may let pods take images that
            // they would fetch from the images that the nodes have.
            ("feature-gates", "MutatingAdmissionPolicy=true".into()),
            ("runtime-config", "admissionregistration.k8s.io/v1beta1=true".into()),
            ("allow-privileged", "true".into()),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".into()),
            ("service-account-key-file", format!("{certificates}/service-accounts.pub")),
            ("service-account-signing-key-file", format!("{certificates}/service-accounts.key")),
            ("kubelet-certificate-authority", format!("{certificates}/ca.crt")),
            ("kubelet-client-certificate", format!("{certificates}/kubelet-client.crt")),
            ("kubelet-client-key", format!("{certificates}/kubelet-client.key")),
            ("kubelet-preferred-address-types", "InternalIP".into()),
            // Webhooks are called at the addresses of pods: no kube-proxy runs beside the API server.
            ("enable-aggregator-routing", "true".into()),
            // Pods leave a node that is gone after these seconds; the default of 300 is long for a test.
            ("default-not-ready-toleration-seconds", "30".into()),
            ("default-unreachable-toleration-seconds", "30".into()),
            ("profiling", "false".into()),
        ];
        self.control("apiserver", "kube-apiserver", flags(&arguments))
    }

    pub(super) fn controller_manager(&self) -> Component {
        let certificates = format!("{INSIDE}/certificates");
        let arguments = [
            ("kubeconfig", kubeconfig("controller-manager")),
            ("bind-address", "127.0.0.1".into()),
            ("cluster-cidr", PODS.into()),
            ("allocate-node-cidrs", "false".into()),
            ("service-account-private-key-file", format!("{certificates}/service-accounts.key")),
            ("root-ca-file", format!("{certificates}/ca.crt")),
            ("cluster-signing-cert-file", format!("{certificates}/ca.crt")),
            ("cluster-signing-key-file", format!("{certificates}/ca.key")),
            ("use-service-account-credentials", "true".into()),
            ("flex-volume-plugin-dir", format!("{INSIDE}/volume-plugins")),
            ("leader-elect", "false".into()),
            // A node that says nothing for so long is gone; the default of 50 s is long for a test.
            ("node-monitor-grace-period", "20s".into()),
            // By default it would take minutes over the objects of a large test.
            ("kube-api-qps", "500".into()),
            ("kube-api-burst", "1000".into()),
            ("profiling", "false".into()),
        ];
        self.control("controller-manager", "kube-controller-manager", flags(&arguments))
    }

    pub(super) fn scheduler(&self) -> Component {
        let arguments = [
            ("kubeconfig", kubeconfig("scheduler")),
            ("bind-address", "127.0.0.1".into()),
            ("leader-elect", "false".into()),
            ("profiling", "false".into()),
        ];
        self.control("scheduler", "kube-scheduler", flags(&arguments))
    }

    pub(super) fn coredns(&self) -> Component {
        self.control("coredns", "coredns", vec!["-conf".into(), format!("{INSIDE}/Corefile")])
    }

    /// Connections that tests delay, silence, cut or refuse go through it.
    pub(super) fn toxiproxy(&self) -> Component {
        let arguments = [("host", CONTROL_ADDRESS.into()), ("port", TOXIPROXY_PORT.into())];
        self.control("toxiproxy", "toxiproxy", flags(&arguments))
    }

    /// The driver as the sidecars see it: the same program as on the nodes, over the same folder, on no node.
    pub(super) fn csi_controller(&self) -> Component {
        let arguments = [
            ("root", STORAGE.into()),
            ("faults", FAULTS.into()),
            ("socket", format!("{INSIDE}/csi.sock")),
            ("node", "control".into()),
        ];
        self.control("csi-controller", CSI_DRIVER, flags(&arguments))
    }

    /// What stands between Kubernetes and the driver. The driver and the definitions of snapshots must be there.
    pub(super) fn csi_sidecars(&self) -> [Component; 4] {
        let config = [("kubeconfig", kubeconfig("csi"))];
        let socket = ("csi-address", format!("{INSIDE}/csi.sock"));
        // With it the driver learns whose claim it works for, and can fail those of one namespace.
        let whose = ("extra-create-metadata", "true".to_owned());
        let sidecar = |name: &str, more: &[_]| self.control(name, name, flags(&[config.as_slice(), more].concat()));
        [
            sidecar("snapshot-controller", &[]),
            sidecar("csi-provisioner", &[socket.clone(), whose.clone()]),
            sidecar("csi-snapshotter", &[socket.clone(), whose]),
            sidecar("csi-resizer", &[socket]),
        ]
    }

    /// containerd with the default paths: a node has those folders for itself.
    pub(super) fn containerd(&self, node: Node) -> Component {
        let arguments = vec!["--config".into(), format!("{}/containerd.toml", node.inside())];
        Component {
            name: format!("containerd-{}", node.0),
            place: Place::Node(node),
            program: "containerd".into(),
            arguments,
        }
    }

    pub(super) fn kubelet(&self, node: Node) -> Component {
        let arguments = [
            ("config", format!("{}/kubelet.yaml", node.inside())),
            ("kubeconfig", kubeconfig(&node.name())),
            ("hostname-override", node.name()),
            ("node-ip", node.address()),
            ("v", "2".into()),
        ];
        self.node(node, "kubelet", "kubelet", flags(&arguments))
    }

    pub(super) fn proxy(&self, node: Node) -> Component {
        let arguments = [
            ("kubeconfig", kubeconfig("proxy")),
            ("proxy-mode", "iptables".into()),
            ("cluster-cidr", PODS.into()),
            ("hostname-override", node.name()),
            ("healthz-bind-address", format!("{}:10256", node.address())),
            ("iptables-min-sync-period", "200ms".into()),
            // Limits of the whole machine, which is not ours alone.
            ("conntrack-max-per-core", "0".into()),
            ("conntrack-min", "0".into()),
        ];
        self.node(node, "proxy", "kube-proxy", flags(&arguments))
    }

    pub(super) fn csi_node(&self, node: Node) -> Component {
        let folder = "/var/lib/kubelet";
        let arguments = [
            ("root", STORAGE.into()),
            ("faults", FAULTS.into()),
            ("socket", format!("{folder}/plugins/{}/csi.sock", DRIVER)),
            ("registration", format!("{folder}/plugins_registry/{}.sock", DRIVER)),
            ("node", node.name()),
        ];
        self.node(node, "csi", CSI_DRIVER, flags(&arguments))
    }
}

/// The kubeconfig of a user, as the cluster's processes see it.
pub(super) fn kubeconfig(user: &str) -> String {
    format!("{INSIDE}/certificates/{user}.kubeconfig")
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_the_identity_made_for_it() {
        let programs = Programs { bin: Path::new("/bin") };
        let has = |component: Component, argument: &str| {
            assert!(component.arguments.iter().any(|one| one == argument), "{component:?}");
        };
        has(programs.kubelet(Node(2)), "--kubeconfig=/run/cluster/certificates/node-2.kubeconfig");
        has(programs.proxy(Node(1)), "--kubeconfig=/run/cluster/certificates/proxy.kubeconfig");
        has(programs.scheduler(), "--kubeconfig=/run/cluster/certificates/scheduler.kubeconfig");
        has(programs.apiserver(), "--authorization-mode=Node,RBAC");
        for sidecar in programs.csi_sidecars() {
            has(sidecar, "--kubeconfig=/run/cluster/certificates/csi.kubeconfig");
        }
    }

    #[test]
    fn the_service_of_the_api_server_is_the_first_address_of_services() {
        assert!(SERVICES.starts_with(crate::cluster::layout::API_SERVICE.trim_end_matches('1')));
    }
}
