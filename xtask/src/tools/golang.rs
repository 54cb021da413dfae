//! Programs from the Go module proxy: test servers, and all of Kubernetes. Each group has a Go module in `xtask/go/`
//! whose `go.sum` pins every byte; the machine's own Go client and proxy settings fetch it. Test only: nothing of them
//! is linked into or shipped with us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command;

/// A Go module of ours and the programs that are built with it.
pub(super) struct Module {
    /// The folder below `xtask/go/`.
    folder: &'static str,
    /// The module whose version names the programs' version.
    module: &'static str,
    version: &'static str,
    /// What the linker writes into the programs, beside what every build has.
    link: &'static str,
    programs: &'static [Program],
}

struct Program {
    /// The name in the cache.
    name: &'static str,
    /// The main package; `.` where it is one of ours.
    package: &'static str,
    /// Arguments with which it tells its version: proof that it runs.
    version: &'static [&'static str],
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, package, version: &["--version"] }
}

pub(super) const RCLONE: Module = Module {
    folder: "rclone",
    module: "github.com/rclone/rclone",
    version: "v1.75.1",
    link: "",
    programs: &[program("rclone", ".")],
};

pub(super) const MINIO: Module = Module {
    folder: "minio",
    module: "github.com/minio/minio",
    version: "v0.0.0-20260212201848-7aac2a2c5b7c",
    link: "",
    programs: &[program("minio", "github.com/minio/minio")],
};

/// It does not tell its version.
pub(super) const FAKE_GCS_SERVER: Module = Module {
    folder: "fake-gcs-server",
    module: "github.com/fsouza/fake-gcs-server",
    version: "v1.56.0",
    link: "",
    programs: &[Program { name: "fake-gcs-server", package: "github.com/fsouza/fake-gcs-server", version: &["-help"] }],
};

/// Without `link` the API server would call itself v0.0.0 and refuse objects of newer versions.
pub(super) const KUBERNETES: Module = Module {
    folder: "kubernetes",
    module: "k8s.io/kubernetes",
    version: "v1.34.4",
    link: "-X k8s.io/component-base/version.gitVersion=v1.34.4",
    programs: &[
        program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        program("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        Program { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl", version: &["version", "--client"] },
    ],
};

pub(super) const ETCD: Module = Module {
    folder: "etcd",
    module: "go.etcd.io/etcd/server/v3",
    version: "v3.6.16",
    link: "",
    programs: &[program("etcd", "go.etcd.io/etcd/server/v3")],
};

pub(super) const COREDNS: Module = Module {
    folder: "coredns",
    module: "github.com/coredns/coredns",
    version: "v1.12.4",
    link: "",
    programs: &[program("coredns", "github.com/coredns/coredns")],
};

pub(super) const PROVISIONER: Module = Module {
    folder: "csi",
    module: "github.com/kubernetes-csi/external-provisioner/v6",
    version: "v6.3.0",
    link: "",
    programs: &[program("csi-provisioner", "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner")],
};

pub(super) const RESIZER: Module = Module {
    folder: "csi",
    module: "github.com/kubernetes-csi/external-resizer/v2",
    version: "v2.3.0",
    link: "",
    programs: &[program("csi-resizer", "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer")],
};

pub(super) const SNAPSHOTTER: Module = Module {
    folder: "csi",
    module: "github.com/kubernetes-csi/external-snapshotter/v8",
    version: "v8.6.0",
    link: "",
    programs: &[
        program("csi-snapshotter", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter"),
        program("snapshot-controller", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller"),
    ],
};

pub(super) const HELM: Module = Module {
    folder: "helm",
    module: "helm.sh/helm/v3",
    version: "v3.19.0",
    link: "-X helm.sh/helm/v3/internal/version.version=v3.19.0",
    programs: &[Program { name: "helm", package: "helm.sh/helm/v3/cmd/helm", version: &["version"] }],
};

pub(super) const TOXIPROXY: Module = Module {
    folder: "toxiproxy",
    module: "github.com/Shopify/toxiproxy/v2",
    version: "v2.5.0",
    link: "",
    programs: &[Program {
        name: "toxiproxy",
        package: "github.com/Shopify/toxiproxy/v2/cmd/server",
        version: &["-version"],
    }],
};

/// Builds those programs of `module` that are not there in its version. Sources and what is compiled of them are kept
/// apart from the user's own Go caches until [`clean`]: all modules together would leave 20 GB there.
pub(super) fn install(cache: &Cache, module: &Module) -> Result<()> {
    let missing: Vec<_> = module.programs.iter().filter(|program| !cache.has(program.name, module.version)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let _turn = cache.lock(BUILD)?;
    let kept = cache.folder("build")?.join(BUILD);
    for program in missing {
        eprintln!("{}: building {} {}, once; takes some minutes", program.name, module.module, module.version);
        let mut go = go()?;
        go.env("GOMODCACHE", kept.join("modules")).env("GOCACHE", kept.join("compiled"));
        build(go, cache, program.name, &folder(module.folder), program.package, module.link)?;
        command::output(Command::new(cache.unfinished(program.name)).args(program.version))?;
        cache.install(program.name, module.version)?;
    }
    Ok(())
}

/// Removes what [`install`] kept to build one module after the other faster.
pub(super) fn clean(cache: &Cache) -> Result<()> {
    let kept = cache.folder("build")?.join(BUILD);
    if !kept.exists() {
        return Ok(());
    }
    let _turn = cache.lock(BUILD)?;
    match fs::remove_dir_all(&kept) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", kept.display()))
        }
        _ => Ok(()),
    }
}

/// The folder, and the lock, of builds that go on.
const BUILD: &str = "go";

/// The CSI driver of test clusters, from the project's own sources; its version is what they hold.
pub(super) fn csi_driver(cache: &Cache) -> Result<()> {
    let name = super::CSI_DRIVER;
    let folder = crate::test::root().join("tests/cluster/csi");
    let version = content(&folder)?;
    if cache.has(name, &version) {
        return Ok(());
    }
    eprintln!("{name}: building it, after a change or for the first time");
    build(go()?, cache, name, &folder, ".", "")?;
    cache.install(name, &version)
}

/// Formats, vets and tests the CSI driver, against what the CSI specification asks of drivers too. Takes root: it mounts.
pub(crate) fn check_csi_driver() -> Result<()> {
    let folder = crate::test::root().join("tests/cluster/csi");
    let gofmt = command::find("gofmt").context("gofmt is missing: it comes with Go")?;
    let unformatted = command::output(Command::new(gofmt).args(["-l", "."]).current_dir(&folder))?;
    if !unformatted.is_empty() {
        bail!("not as gofmt would have it, in {}:\n{unformatted}", folder.display());
    }
    command::output(go()?.args(["vet", "-mod=readonly", "./..."]).current_dir(&folder))?;
    command::output(go()?.args(["test", "-mod=readonly", "./..."]).current_dir(&folder)).map(drop)
}

/// A name for what the Go files and `go.sum` of a folder hold.
fn content(folder: &Path) -> Result<String> {
    let mut files = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "go" || extension == "sum"));
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        for byte in name.iter().chain(&[0]).chain(&bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}

/// The resource definitions of VolumeSnapshots, in one file of the cache, from the module that belongs to the
/// snapshot controller.
pub(super) fn snapshot_definitions(cache: &Cache) -> Result<()> {
    let (name, version) = (super::SNAPSHOT_DEFINITIONS, SNAPSHOTTER.version);
    if cache.has(name, version) {
        return Ok(());
    }
    let module = "github.com/kubernetes-csi/external-snapshotter/client/v8";
    let downloaded =
        command::output(go()?.args(["mod", "download", "-json", module]).current_dir(folder(SNAPSHOTTER.folder)))?;
    let downloaded: serde_json::Value = serde_json::from_str(&downloaded).context("`go mod download` told no JSON")?;
    let found = downloaded["Dir"].as_str().with_context(|| format!("`go mod download {module}` told no folder"))?;
    let mut text = String::new();
    for kind in ["volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots"] {
        let file = Path::new(found).join(format!("config/crd/snapshot.storage.k8s.io_{kind}.yaml"));
        text += &fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text += "\n---\n";
    }
    let file = cache.unfinished(name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    cache.install(name, version)
}

fn build(mut go: Command, cache: &Cache, name: &str, folder: &Path, package: &str, link: &str) -> Result<()> {
    command::output(
        // Go's module cache is read-only unless told otherwise, and could not be removed.
        go.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-modcacherw", "-ldflags"])
            .arg(format!("-s -w {link}").trim())
            .arg("-o")
            .arg(cache.unfinished(name))
            .arg(package)
            .env("CGO_ENABLED", "0")
            .current_dir(folder),
    )
    .map(drop)
}

fn go() -> Result<Command> {
    let go = command::find("go").context("Go is missing: install it (1.26 or newer) and have `go` on PATH")?;
    Ok(Command::new(go))
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_source_is_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.go", "one");
        let first = content(folder.path()).unwrap();
        write("README.md", "words");
        assert_eq!(content(folder.path()).unwrap(), first);
        write("a.go", "two");
        let second = content(folder.path()).unwrap();
        write("b.go", "");
        let third = content(folder.path()).unwrap();
        assert!(first != second && second != third && third != first);
    }

    #[test]
    fn the_table_of_versions_and_the_go_modules_agree() {
        let modules = [
            RCLONE,
            MINIO,
            FAKE_GCS_SERVER,
            KUBERNETES,
            ETCD,
            COREDNS,
            PROVISIONER,
            RESIZER,
            SNAPSHOTTER,
            HELM,
            TOXIPROXY,
        ];
        for module in modules {
            let text = fs::read_to_string(folder(module.folder).join("go.mod")).unwrap();
            let wanted = format!("{} {}", module.module, module.version);
            let found = text.lines().any(|line| line.trim().trim_end_matches(" // indirect") == wanted);
            assert!(found, "{}: no `{wanted}`", module.folder);
            for program in module.programs {
                let is_there = match program.package {
                    "." => folder(module.folder).join("main.go").is_file(),
                    package => text.contains(&format!("tool {package}\n")),
                };
                assert!(is_there, "{}: {}", module.folder, program.package);
            }
            assert!(module.link.is_empty() || module.link.ends_with(module.version), "{}", module.link);
        }
    }
}
