//! The layers of the workspace: which crate may use which, and which libraries a layer must never meet.
//! `ARCHITECTURE.md` says why; this table is what holds.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;

/// One row: a crate, the crates of ours it may name in its manifest (for whatever purpose, tests included), and
/// libraries it must not name.
struct Layer {
    name: &'static str,
    uses: &'static [&'static str],
    never: &'static [&'static str],
}

const KUBERNETES: [&str; 3] = ["kube", "k8s-openapi", "clap"];

const LAYERS: &[Layer] = &[
    Layer { name: "holdfast-api", uses: &[], never: &["clap", "tokio"] },
    // The planner reads no clock and asks for no randomness, and what it needs of Kubernetes it gets through `api`.
    Layer {
        name: "holdfast-plan",
        uses: &["holdfast-api"],
        never: &[
            "kube",
            "clap",
            "tokio",
            "rand",
            "getrandom",
            "fastrand",
            "chrono",
            "time",
            "reqwest",
            "rustix",
            "libc",
        ],
    },
    Layer { name: "holdfast-store", uses: &[], never: &KUBERNETES },
    Layer {
        name: "holdfast-repository",
        uses: &["holdfast-store"],
        never: &["kube", "k8s-openapi", "clap", "tokio", "object_store", "indicatif"],
    },
    // The store only in tests: they back up real files, and a repository has to be somewhere.
    Layer { name: "holdfast-sources", uses: &["holdfast-repository", "holdfast-store"], never: &KUBERNETES },
    Layer {
        name: "holdfast-agent",
        uses: &["holdfast-api", "holdfast-plan", "holdfast-store", "holdfast-repository", "holdfast-sources"],
        never: &["clap", "indicatif"],
    },
    // It decides; what it decides about is opened by the agents.
    Layer {
        name: "holdfast-operator",
        uses: &["holdfast-api", "holdfast-plan"],
        never: &["clap", "indicatif", "object_store", "rand"],
    },
    Layer {
        name: "holdfast",
        uses: &[
            "holdfast-api",
            "holdfast-plan",
            "holdfast-store",
            "holdfast-repository",
            "holdfast-sources",
            "holdfast-agent",
            "holdfast-operator",
        ],
        never: &[],
    },
    // It looks at the product from outside, as a user of the cluster.
    Layer { name: "holdfast-e2e", uses: &[], never: &[] },
    // It measures the operator, from outside and its judgement alone.
    Layer { name: "holdfast-bench", uses: &["holdfast-operator"], never: &[] },
    Layer { name: "xtask", uses: &[], never: &[] },
];

/// Libraries that must not be below a crate at any depth, as `cargo tree` shows what it links.
pub(super) const BANNED_BELOW: [(&str, &[&str]); 3] = [
    ("holdfast-plan", &["tokio", "clap", "rand"]),
    ("holdfast-store", &KUBERNETES),
    ("holdfast-repository", &KUBERNETES),
];

/// What every crate names in its manifest, by crate.
pub(super) type Crates = BTreeMap<String, Vec<String>>;

/// Reads the output of `cargo metadata --no-deps`.
pub(super) fn crates(metadata: &str) -> Result<Crates> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        dependencies: Vec<Dependency>,
    }
    #[derive(Deserialize)]
    struct Dependency {
        name: String,
    }
    let Metadata { packages } = serde_json::from_str(metadata).context("cannot read the output of cargo metadata")?;
    Ok(packages
        .into_iter()
        .map(|package| (package.name, package.dependencies.into_iter().map(|dependency| dependency.name).collect()))
        .collect())
}

/// Every crate against its row of the table; a crate without a row and a row without its crate are findings too.
pub(super) fn check(crates: &Crates) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |place: &str, what: String| findings.push(Finding { place: place.to_owned(), what });
    for (name, dependencies) in crates {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
            found(name, "has no row in the table of layers (xtask/src/house/edges.rs)".into());
            continue;
        };
        for dependency in dependencies {
            if crates.contains_key(dependency) && dependency != name && !layer.uses.contains(&dependency.as_str()) {
                found(name, format!("may not use {dependency}"));
            }
            if layer.never.contains(&dependency.as_str()) {
                found(name, format!("may not use the library {dependency}"));
            }
        }
    }
    for layer in LAYERS.iter().filter(|layer| !crates.contains_key(layer.name)) {
        found(layer.name, "stands in the table of layers and not in the workspace".into());
    }
    findings
}

/// The libraries of `banned` that `cargo tree --prefix none --format {p}` shows below a crate.
pub(super) fn check_tree(name: &str, banned: &[&str], tree: &str) -> Vec<Finding> {
    banned
        .iter()
        .filter(|library| tree.lines().any(|line| line.split(' ').next() == Some(library)))
        .map(|library| Finding {
            place: name.to_owned(),
            what: format!("may not link the library {library} (cargo tree --package {name} --invert {library})"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table's own workspace, in which every crate uses all it may.
    fn house() -> Crates {
        LAYERS
            .iter()
            .map(|layer| (layer.name.to_owned(), layer.uses.iter().map(ToString::to_string).collect()))
            .collect()
    }

    fn with(name: &str, dependency: &str) -> Vec<String> {
        let mut crates = house();
        crates.entry(name.to_owned()).or_default().push(dependency.to_owned());
        check(&crates).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_table_allows_is_allowed() {
        assert_eq!(check(&house()), []);
        assert_eq!(with("holdfast-repository", "zstd"), [""; 0]);
    }

    #[test]
    fn an_edge_upwards_is_found() {
        assert_eq!(with("holdfast-store", "holdfast-repository"), ["holdfast-store: may not use holdfast-repository"]);
        assert_eq!(with("xtask", "holdfast-api"), ["xtask: may not use holdfast-api"]);
        assert_eq!(with("holdfast-plan", "holdfast-store"), ["holdfast-plan: may not use holdfast-store"]);
    }

    #[test]
    fn a_library_in_the_wrong_layer_is_found() {
        assert_eq!(with("holdfast-repository", "tokio"), ["holdfast-repository: may not use the library tokio"]);
        assert_eq!(with("holdfast-plan", "rand"), ["holdfast-plan: may not use the library rand"]);
        assert_eq!(with("holdfast-store", "kube"), ["holdfast-store: may not use the library kube"]);
    }

    #[test]
    fn the_table_and_the_workspace_name_the_same_crates() {
        let mut crates = house();
        crates.remove("holdfast-sources");
        crates.insert("holdfast-extra".into(), Vec::new());
        let places: Vec<_> = check(&crates).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["holdfast-extra", "holdfast-sources"]);
    }

    #[test]
    fn a_library_at_any_depth_is_found() {
        let tree = "holdfast-plan v0.1.0 (/src/crates/plan)\nserde v1.0.0\ntokio v1.40.0\ntokio-util v0.7.0 (*)\n";
        let found = check_tree("holdfast-plan", &["tokio", "clap", "util"], tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("library tokio "), "{}", found[0]);
    }

    #[test]
    fn metadata_gives_every_kind_of_dependency() {
        let metadata =
            r#"{"packages":[{"name":"a","dependencies":[{"name":"b","kind":null},{"name":"c","kind":"dev"}]}]}"#;
        assert_eq!(crates(metadata).unwrap(), Crates::from([("a".into(), vec!["b".into(), "c".into()])]));
    }
}
