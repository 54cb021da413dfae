//! Who is who in a cluster: a certificate authority, the certificates of its servers, and a kubeconfig with a client
//! certificate for each of its users. Made anew for every cluster; nobody skips a verification.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::layout::{API_SERVICE, CONTROL_ADDRESS, Node};

/// Users beside the nodes: the name of the kubeconfig, the user, its group. What each may do stands in Kubernetes' own
/// roles or in `cluster/objects.yaml`.
const USERS: &[(&str, &str, Option<&str>)] = &[
    ("admin", "admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("proxy", "system:kube-proxy", None),
    ("coredns", "coredns", None),
    ("csi", "csi", None),
];

/// The user that the API server is to kubelets; its role stands in `cluster/objects.yaml`.
const KUBELET_CLIENT: &str = "apiserver-kubelet-client";

/// The authority of one cluster and the folder for what it signs.
struct Authority<'a> {
    folder: &'a Path,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Writes all of it into `folder`: `ca`, `apiserver`, `kubelet-client`, `service-accounts` and one pair for each node
/// as `.crt` and `.key`, and the kubeconfigs.
pub(super) fn write(folder: &Path, nodes: u8) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let authority = Authority::new(folder)?;
    let names = [
        API_SERVICE,
        CONTROL_ADDRESS,
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    authority.server("apiserver", "kube-apiserver", &names)?;
    let (certificate, key) = authority.client(KUBELET_CLIENT, None)?;
    authority.write("kubelet-client.crt", &certificate)?;
    authority.write("kubelet-client.key", &key)?;
    for &(file, user, group) in USERS {
        authority.kubeconfig(file, user, group)?;
    }
    for node in Node::all(nodes) {
        let name = node.name();
        authority.server(&name, &format!("system:node:{name}"), &[&name, &node.address()])?;
        authority.kubeconfig(&name, &format!("system:node:{name}"), Some("system:nodes"))?;
    }
    let tokens = KeyPair::generate().context("cannot make the key of service accounts")?;
    authority.write("service-accounts.key", &tokens.serialize_pem())?;
    authority.write("service-accounts.pub", &tokens.public_key_pem())
}

impl<'a> Authority<'a> {
    fn new(folder: &'a Path) -> Result<Self> {
        let key = KeyPair::generate().context("cannot make the authority's key")?;
        let mut parameters = named("holdfast test cluster", None);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = parameters.self_signed(&key).context("cannot sign the authority's certificate")?.pem();
        let secret = key.serialize_pem();
        let authority = Self { folder, issuer: Issuer::new(parameters, key), certificate };
        authority.write("ca.crt", &authority.certificate)?;
        authority.write("ca.key", &secret)?;
        Ok(authority)
    }

    fn server(&self, file: &str, name: &str, names: &[&str]) -> Result<()> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).with_context(|| format!("the names of {name}"))?;
        parameters.distinguished_name = named(name, None).distinguished_name;
        let (certificate, key) = self.sign(parameters, ExtendedKeyUsagePurpose::ServerAuth)?;
        self.write(&format!("{file}.crt"), &certificate)?;
        self.write(&format!("{file}.key"), &key)
    }

    fn client(&self, user: &str, group: Option<&str>) -> Result<(String, String)> {
        self.sign(named(user, group), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut parameters: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<(String, String)> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = parameters.signed_by(&key, &self.issuer).context("cannot sign a certificate")?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// With everything in it, so that it can be read from anywhere. JSON is YAML too.
    fn kubeconfig(&self, file: &str, user: &str, group: Option<&str>) -> Result<()> {
        let (certificate, key) = self.client(user, group)?;
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "cluster",
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
            "clusters": [{"name": "cluster", "cluster": {
                "server": format!("https://{CONTROL_ADDRESS}:6443"),
                "certificate-authority-data": base64(&self.certificate),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": base64(&certificate),
                "client-key-data": base64(&key),
            }}],
        });
        self.write(&format!("{file}.kubeconfig"), &format!("{config:#}\n"))
    }

    /// Keys are read by their owner alone.
    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn named(name: &str, group: Option<&str>) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        parameters.distinguished_name.push(DnType::OrganizationName, group);
    }
    parameters
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_user_has_a_kubeconfig_that_verifies_the_server() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 2).unwrap();
        for user in ["admin", "controller-manager", "scheduler", "proxy", "coredns", "csi", "node-1", "node-2"] {
            let text = fs::read_to_string(folder.path().join(format!("{user}.kubeconfig"))).unwrap();
            let config: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(config["clusters"][0]["cluster"]["certificate-authority-data"].is_string(), "{text}");
            assert!(!text.contains("insecure"), "{text}");
        }
        for key in ["ca.key", "node-2.key", "service-accounts.key", "admin.kubeconfig"] {
            let mode = fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{key}");
        }
    }
}
