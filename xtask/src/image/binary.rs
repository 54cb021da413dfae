//! The product as one static program. Built apart from everything else, since other compiler flags would make cargo build
//! the workspace's dependencies anew each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Form;
use super::oci::sha256;
use crate::cache::Cache;
use crate::command::{self, cargo};
use crate::test::root;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds it and returns where it is: a copy, which the next build does not touch.
pub(super) fn build(cache: &Cache, form: Form) -> Result<PathBuf> {
    let folder = cache.folder("build/image")?;
    let (profile, output) = match form {
        Form::Release => ("release", "release"),
        Form::Debug => ("dev", "debug"),
    };
    let _turn = cache.lock(&format!("image-build-{output}"))?;
    eprintln!("holdfast: building the static program ({profile})");
    let mut cargo = cargo();
    cargo
        .args(["rustc", "--locked", "--package", "holdfast", "--bin", "holdfast", "--target", TARGET])
        .args(["--profile", profile])
        .env("CARGO_TARGET_DIR", &folder)
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags(form, &folder)?)
        // Names of functions stay, for a panic; tables of lines are most of the size.
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .env("CARGO_PROFILE_DEV_STRIP", "debuginfo")
        .env("CARGO_PROFILE_DEV_DEBUG", "none")
        .current_dir(root());
    if form == Form::Debug {
        cargo
            .args(["--", "-Clink-arg=-Wl,--wrap=clock_gettime"])
            .arg(format!("-Clink-arg={}", clock(cache)?.display()));
    }
    command::run(&mut cargo)?;
    let built = folder.join(TARGET).join(output).join("holdfast");
    let copy = cache.folder("build")?.join(format!("holdfast-{output}"));
    let unfinished = copy.with_extension("unfinished");
    fs::copy(&built, &unfinished)
        .and_then(|_| fs::rename(&unfinished, &copy))
        .with_context(|| format!("cannot copy {}", built.display()))?;
    let said = command::output(Command::new(&copy).arg("--version"))?;
    if !said.contains(env!("CARGO_PKG_VERSION")) {
        anyhow::bail!("{} calls itself {}", copy.display(), said.trim());
    }
    Ok(copy)
}

/// A clock that tests can move, for the linker. Its name tells its content: cargo links anew when that changes.
fn clock(cache: &Cache) -> Result<PathBuf> {
    let source = root().join("xtask/src/image/clock.c");
    let text = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let object = cache.folder("build")?.join(format!("clock-{}.o", &sha256(&text)[..16]));
    let unfinished = object.with_extension("unfinished");
    command::output(Command::new("cc").args(["-c", "-O2", "-Wall", "-Werror", "-o"]).arg(&unfinished).arg(&source))?;
    fs::rename(&unfinished, &object).with_context(|| format!("cannot create {}", object.display()))?;
    Ok(object)
}

/// Linked with the C library. A release does not tell where it was built, so two checkouts give the same program; while
/// developing, they share what is built of the dependencies instead.
fn flags(form: Form, target: &Path) -> Result<String> {
    let mut flags = "-Ctarget-feature=+crt-static".to_owned();
    if form == Form::Release {
        let home = match std::env::var_os("CARGO_HOME") {
            Some(home) => PathBuf::from(home),
            None => {
                PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?).join(".cargo")
            }
        };
        // Code that build scripts write is in the target folder. The last that fits a path counts.
        for (folder, name) in [(root(), "/holdfast"), (home.as_path(), "/cargo"), (target, "/target")] {
            flags += &format!(" --remap-path-prefix={}={name}", folder.display());
        }
    }
    Ok(flags)
}
