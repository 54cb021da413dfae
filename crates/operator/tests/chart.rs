//! The Helm chart: it renders, its values are checked, the plain manifests are rendered from it, and the operator's role
//! holds whatever the operator gives to agents: an API server refuses to give what one does not have.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The version of Kubernetes that is rendered for.
const KUBERNETES: &str = "1.34";

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Helm, of the project's own tools.
fn helm() -> PathBuf {
    let program = match std::env::var_os("HOLDFAST_CACHE") {
        Some(cache) => Path::new(&cache).join("bin/helm"),
        None => Path::new(&std::env::var_os("HOME").expect("HOME is not set")).join(".cache/holdfast/bin/helm"),
    };
    assert!(program.exists(), "{} is missing; run: cargo xtask tools", program.display());
    program
}

fn render(arguments: &[&str]) -> Result<String, String> {
    let Output { status, stdout, stderr } = Command::new(helm())
        .args(["template", "holdfast", "--namespace=holdfast", "--kube-version", KUBERNETES])
        .args(arguments)
        .arg(project().join("deploy/helm/holdfast"))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
}

fn documents(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn kinds(arguments: &[&str]) -> BTreeSet<String> {
    let rendered = documents(&render(arguments).unwrap());
    rendered.iter().map(|document| document["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_plain_manifests_are_rendered_from_the_chart() {
    let path = project().join("deploy/manifests/holdfast.yaml");
    let rendered = render(&["--set=crds.install=false"]).unwrap();
    let head = "# Rendered from deploy/helm/holdfast: `UPDATE=1 cargo test -p holdfast-operator --test chart` writes it anew.\n\
                # The definitions of the kinds are in deploy/crds and come first: kubectl apply --server-side -f deploy/crds\n\
                apiVersion: v1\nkind: Namespace\nmetadata:\n  name: holdfast\n  labels:\n    pod-security.kubernetes.io/enforce: restricted\n";
    let wanted = format!(
        "{head}{}",
        rendered.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl")
    );
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, wanted).unwrap();
    } else {
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), wanted, "{} is not fresh", path.display());
    }
}

#[test]
fn what_is_optional_is_rendered_when_asked_for() {
    let default = kinds(&[]);
    for kind in ["CustomResourceDefinition", "Deployment", "ClusterRole", "ServiceAccount", "Service"] {
        assert!(default.contains(kind), "{kind}");
    }
    let monitoring =
        ["serviceMonitor", "prometheusRule", "dashboard"].map(|part| format!("--set=metrics.{part}.enabled=true"));
    let all = kinds(&monitoring.each_ref().map(String::as_str));
    for kind in ["ServiceMonitor", "PrometheusRule", "ConfigMap"] {
        assert!(all.contains(kind) && !default.contains(kind), "{kind}");
    }
    assert!(!kinds(&["--set=crds.install=false"]).contains("CustomResourceDefinition"));
}

#[test]
fn definitions_outlive_the_chart() {
    let rendered = documents(&render(&[]).unwrap());
    let definitions: Vec<&Value> =
        rendered.iter().filter(|document| document["kind"] == "CustomResourceDefinition").collect();
    assert_eq!(definitions.len(), fs::read_dir(project().join("deploy/crds")).unwrap().count());
    for definition in definitions {
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
}

#[test]
fn values_that_are_none_are_refused() {
    for value in
        ["replica=2", "operator.pushgatewayUrl=push:9091", "image.pullPolicy=Sometimes", "metrics.service.port=0"]
    {
        let error = render(&[&format!("--set={value}")]).unwrap_err();
        assert!(error.contains("don't meet the specifications of the schema"), "{value}: {error}");
    }
}

/// Group, resource and verb.
type Right = (String, String, String);

fn rights(rules: &Value) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        let list = |field: &str| -> Vec<String> {
            rule[field].as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
        };
        for group in list("apiGroups") {
            for resource in list("resources") {
                rights.extend(list("verbs").into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    rights
}

#[test]
fn the_operator_holds_what_it_gives_and_sees_no_secret() {
    let rendered = documents(&render(&[]).unwrap());
    let role = rendered.iter().find(|document| document["kind"] == "ClusterRole").unwrap();
    let held = rights(&role["rules"]);
    assert!(held.iter().all(|(_, resource, verb)| !resource.starts_with("secrets") && resource != "*" && verb != "*"));
    let mut given = 0;
    for case in fs::read_dir(project().join("tests/golden-operator")).unwrap() {
        let path = case.unwrap().path().join("want.yaml");
        let want: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let roles = want["actions"].as_array().into_iter().flatten().map(|action| &action["object"]);
        for role in roles.filter(|object| object["kind"] == "Role") {
            for right in rights(&role["rules"]) {
                assert!(held.contains(&right), "{}: {right:?} is given and not held", path.display());
                given += 1;
            }
        }
    }
    assert!(given > 100);
}
