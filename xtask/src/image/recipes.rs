//! What is in each image. All run as a user who is not root, but for what only looks around in a pod.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::layer::Layer;
use super::oci::Settings;
use super::packages::Packages;
use super::{Form, Image, binary};
use crate::cache::Cache;
use crate::command;
use crate::tools::{self, Tool};

const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin";

/// The layer of an image and what its containers start with. Builds and fetches what is missing.
pub(super) fn recipe(cache: &Cache, image: Image, form: Form) -> Result<(Settings, Layer)> {
    match image {
        Image::Holdfast => holdfast(cache, form),
        Image::Pause => pause(cache),
        Image::Busybox => busybox(cache),
        Image::Postgresql => postgresql(cache),
        Image::ObjectStore => object_store(cache),
        Image::Google => google(cache),
        Image::Restic => restic(cache),
    }
}

/// The one program, the certificates that everybody trusts, and nothing else. The folder `/holdfast` is left free: below
/// it is what the operator mounts into our containers.
fn holdfast(cache: &Cache, form: Form) -> Result<(Settings, Layer)> {
    let binary = binary::build(cache, form)?;
    let layer = Layer::default()
        .program("usr/bin/holdfast", &binary)
        .text("etc/ssl/certs/ca-certificates.crt", certificates(cache)?)
        .text("etc/passwd", users("holdfast", 65532))
        .text("etc/group", groups("holdfast", 65532))
        .folder("tmp", 0o1777, 0);
    let labels = BTreeMap::from([
        ("org.opencontainers.image.title", "Holdfast".to_owned()),
        ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("org.opencontainers.image.licenses", "Apache-2.0".to_owned()),
    ]);
    let settings =
        Settings { entrypoint: vec!["/usr/bin/holdfast"], user: "65532:65532", labels, ..Settings::default() };
    Ok((settings, layer))
}

/// The certificates of Mozilla's list. Those that were added to this machine are its own business.
fn certificates(cache: &Cache) -> Result<String> {
    let packages = Packages::fetch(cache, "ca-certificates", &["ca-certificates"], false)?;
    let mut text = String::new();
    for file in packages.files("usr/share/ca-certificates/mozilla")? {
        text += &fs::read_to_string(packages.path("").join(&file))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(text)
}

fn pause(cache: &Cache) -> Result<(Settings, Layer)> {
    let program = cache.folder("build")?.join("pause");
    let _turn = cache.lock("pause")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/pause.c");
    let unfinished = program.with_extension("unfinished");
    command::output(Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(&unfinished).arg(source))?;
    fs::rename(&unfinished, &program).with_context(|| format!("cannot create {}", program.display()))?;
    let settings = Settings { entrypoint: vec!["/pause"], user: "65532:65532", ..Settings::default() };
    Ok((settings, Layer::default().program("pause", &program)))
}

/// Runs as root unless the pod says otherwise, as busybox images do: tests make files of many owners.
fn busybox(cache: &Cache) -> Result<(Settings, Layer)> {
    let settings = Settings { entrypoint: vec![], environment: vec![PATH], ..Settings::default() };
    Ok((settings, with_busybox(cache)?))
}

fn with_busybox(cache: &Cache) -> Result<Layer> {
    let program = Packages::fetch(cache, "busybox", &["busybox-static"], false)?.path("bin/busybox");
    let commands = command::output(Command::new(&program).arg("--list"))?;
    let layer = Layer::default()
        .program("bin/busybox", &program)
        .text("etc/passwd", users("nobody", 65534))
        .text("etc/group", groups("nobody", 65534))
        .folder("tmp", 0o1777, 0);
    let commands = commands.lines().filter(|name| *name != "busybox");
    Ok(commands.fold(layer, |layer, name| layer.link(&format!("bin/{name}"), "busybox")))
}

/// Server and clients, without what compiles queries: that is LLVM, larger than all the rest.
fn postgresql(cache: &Cache) -> Result<(Settings, Layer)> {
    let names = ["postgresql-15", "postgresql-client-15", "tzdata", "libc-bin"];
    let packages = Packages::fetch(cache, "postgresql-15", &names, true)?;
    let mut files = Vec::new();
    for folder in ["usr/lib/postgresql/15", "usr/share/postgresql/15", "usr/lib/locale/C.utf8", "usr/share/zoneinfo"] {
        files.extend(packages.files(folder)?);
    }
    let unused = ["bitcode", "pgxs", "man", "locale", "right", "posix"];
    files.retain(|file| {
        let text = file.to_string_lossy();
        !file.iter().any(|part| unused.iter().any(|name| part == *name) && !text.contains("C.utf8"))
            && !text.contains("llvmjit")
            && !text.contains("/tsearch_data/") // the rest of which is in another package
    });
    files.extend(
        packages
            .files("usr/share/postgresql/15/tsearch_data")?
            .into_iter()
            .filter(|file| packages.path("").join(file).symlink_metadata().is_ok_and(|metadata| metadata.is_file())),
    );
    let mut layer = with_busybox(cache)?
        .text("etc/passwd", users("postgres", 999))
        .text("etc/group", groups("postgres", 999))
        .script("usr/local/bin/start-postgresql", include_str!("postgresql.sh"))
        .folder("var/lib/postgresql", 0o700, 999);
    packages.add(&mut layer, &files)?;
    let settings = Settings {
        entrypoint: vec!["/usr/local/bin/start-postgresql"],
        environment: vec![
            "PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/bin",
            "PGDATA=/var/lib/postgresql/data",
            "LANG=C.UTF-8",
        ],
        user: "999:999",
        ..Settings::default()
    };
    Ok((settings, layer))
}

fn object_store(cache: &Cache) -> Result<(Settings, Layer)> {
    tools::install(cache, &[Tool::Minio])?;
    let layer = with_busybox(cache)?
        .program("usr/local/bin/minio", &cache.program("minio"))
        .script("usr/local/bin/start-object-store", include_str!("object-store.sh"))
        .folder("data", 0o755, 65532);
    let entrypoint = vec!["/usr/local/bin/start-object-store"];
    let settings = Settings { entrypoint, environment: vec![PATH], user: "65532:65532", ..Settings::default() };
    Ok((settings, layer))
}

/// As the store's own tests start it. By which name clients call it is the pod's to say: `-public-host`.
fn google(cache: &Cache) -> Result<(Settings, Layer)> {
    tools::install(cache, &[Tool::FakeGcsServer])?;
    let layer = Layer::default().program("fake-gcs-server", &cache.program("fake-gcs-server")).folder("tmp", 0o1777, 0);
    let entrypoint =
        vec!["/fake-gcs-server", "-backend", "memory", "-scheme", "http", "-port", "4443", "-log-level", "error"];
    Ok((Settings { entrypoint, user: "65532:65532", ..Settings::default() }, layer))
}

/// To look into a repository from inside a cluster by somebody else's eyes.
fn restic(cache: &Cache) -> Result<(Settings, Layer)> {
    tools::install(cache, &[Tool::Restic])?;
    let program = tools::restic(cache);
    let mut layer = with_busybox(cache)?
        .program("usr/local/bin/restic", &program)
        .text("etc/ssl/certs/ca-certificates.crt", certificates(cache)?);
    Packages::fetch(cache, "libc6", &["libc6"], false)?.add_libraries(&mut layer, vec![program])?;
    let settings = Settings {
        environment: vec![PATH, "RESTIC_CACHE_DIR=/tmp/restic"],
        user: "65532:65532",
        ..Settings::default()
    };
    Ok((settings, layer))
}

fn users(name: &str, id: u32) -> String {
    format!("root:x:0:0:root:/:/bin/sh\n{name}:x:{id}:{id}:{name}:/tmp:/bin/sh\n")
}

fn groups(name: &str, id: u32) -> String {
    format!("root:x:0:\n{name}:x:{id}:\n")
}
