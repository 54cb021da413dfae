//! `cargo xtask tools`: puts what the tests and benchmarks use into the cache. Each step is idempotent, says one line
//! when it works and nothing when there is nothing to do; two runs at once take turns. Never touches the checkout.

pub(crate) mod archive;
mod debian;
mod golang;
mod restic;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cache::Cache;
use crate::command;
pub(crate) use golang::check_csi_driver;

/// The version of cargo-deny; those of Go programs stand in [`golang`].
const CARGO_DENY: &str = "0.20.2";

/// The name of the CSI driver's program in the cache.
pub(crate) const CSI_DRIVER: &str = "csi-driver";

/// The file in the cache that holds the resource definitions of VolumeSnapshots.
pub(crate) const SNAPSHOT_DEFINITIONS: &str = "snapshot-definitions.yaml";

/// Arguments of `cargo xtask tools`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these; all that `cargo xtask test` needs when none is named
    names: Vec<Tool>,
}

/// One thing that tests or benchmarks run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// Debian packages: git, and what file-tree tests call (setfacl, setfattr, rsync)
    Packages,
    /// restic 0.19, the oracle of the repository format
    Restic,
    /// rclone, the S3 server of the store's tests
    Rclone,
    /// MinIO, the other S3 server of the store's tests
    Minio,
    /// fake-gcs-server, the emulator of Google Cloud Storage of the store's tests
    FakeGcsServer,
    /// cargo-deny, for the `deny` stage
    CargoDeny,
    /// PostgreSQL 15 as a package, for `cargo xtask bench engine`
    Postgresql,
    /// Debian packages of the test cluster's nodes: containerd, runc, CNI plugins, iptables
    NodePackages,
    /// Kubernetes and kubectl
    Kubernetes,
    /// etcd, where the API server keeps its objects
    Etcd,
    /// CoreDNS
    Coredns,
    /// The CSI driver, provisioner, resizer and snapshotter, the snapshot controller and its resource definitions
    Csi,
    /// Helm
    Helm,
    /// toxiproxy, which delays, cuts and refuses connections
    Toxiproxy,
}

/// What `cargo xtask test` needs beside [`FOR_CLUSTER`].
const FOR_TESTS: [Tool; 6] =
    [Tool::Packages, Tool::Restic, Tool::Rclone, Tool::Minio, Tool::FakeGcsServer, Tool::CargoDeny];

/// What a test cluster needs.
pub(crate) const FOR_CLUSTER: [Tool; 7] =
    [Tool::NodePackages, Tool::Kubernetes, Tool::Etcd, Tool::Coredns, Tool::Csi, Tool::Helm, Tool::Toxiproxy];

/// All that `cargo xtask test` needs.
pub(crate) fn for_tests() -> Vec<Tool> {
    [FOR_TESTS.as_slice(), &FOR_CLUSTER].concat()
}

/// The restic to run: the one that `HOLDFAST_RESTIC` names, else the installed one.
pub(crate) fn restic(cache: &Cache) -> PathBuf {
    std::env::var_os("HOLDFAST_RESTIC").map_or_else(|| cache.program("restic"), PathBuf::from)
}

/// The task itself.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen = if arguments.names.is_empty() { for_tests() } else { arguments.names.clone() };
    install(&Cache::open()?, &chosen)
}

/// Makes sure that all of `tools` are there; the first that cannot be installed ends it.
pub(crate) fn install(cache: &Cache, tools: &[Tool]) -> Result<()> {
    tools.iter().try_for_each(|&tool| install_one(cache, tool))?;
    golang::clean(cache)
}

fn install_one(cache: &Cache, tool: Tool) -> Result<()> {
    let name = tool.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let _turn = cache.lock(&name)?;
    match tool {
        Tool::Packages => debian::packages(debian::TESTS),
        Tool::Postgresql => debian::packages(debian::BENCH),
        Tool::Restic => restic::install(cache),
        Tool::NodePackages => debian::packages(debian::NODES),
        Tool::Rclone => golang::install(cache, &golang::RCLONE),
        Tool::Minio => golang::install(cache, &golang::MINIO),
        Tool::FakeGcsServer => golang::install(cache, &golang::FAKE_GCS_SERVER),
        Tool::Kubernetes => golang::install(cache, &golang::KUBERNETES),
        Tool::Etcd => golang::install(cache, &golang::ETCD),
        Tool::Coredns => golang::install(cache, &golang::COREDNS),
        Tool::Csi => [golang::PROVISIONER, golang::RESIZER, golang::SNAPSHOTTER]
            .iter()
            .try_for_each(|module| golang::install(cache, module))
            .and_then(|()| golang::snapshot_definitions(cache))
            .and_then(|()| golang::csi_driver(cache)),
        Tool::Helm => golang::install(cache, &golang::HELM),
        Tool::Toxiproxy => golang::install(cache, &golang::TOXIPROXY),
        Tool::CargoDeny => cargo_deny(cache),
    }
    .with_context(|| format!("cannot install {name}"))
}

/// Built in a target folder of its own, which is removed afterwards: it shares nothing with the workspace.
fn cargo_deny(cache: &Cache) -> Result<()> {
    let name = "cargo-deny";
    if cache.has(name, CARGO_DENY) {
        return Ok(());
    }
    eprintln!("{name}: building {CARGO_DENY}, once; takes some minutes");
    let build = cache.folder("build/cargo-deny")?;
    let root = build.join("root");
    command::output(
        command::cargo()
            .args(["install", "--locked", "--force", "--version", CARGO_DENY, "--root"])
            .arg(&root)
            .arg(name)
            .env("CARGO_TARGET_DIR", build.join("target")),
    )?;
    fs::rename(root.join("bin").join(name), cache.unfinished(name)).context("cannot move the finished program")?;
    command::output(Command::new(cache.unfinished(name)).arg("--version"))?;
    cache.install(name, CARGO_DENY)?;
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}
