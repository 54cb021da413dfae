//! Test servers from the Go module proxy. Each has a Go module in `xtask/go/` whose `go.sum` pins every byte; the
//! machine's own Go client and proxy settings fetch it. Test only: nothing of them is linked into or shipped with us.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::command;

/// Builds the main package `package` with the module `xtask/go/NAME`.
pub(crate) fn install(cache: &Cache, name: &str, package: &str, version: &str) -> Result<()> {
    if cache.has(name, version) {
        return Ok(());
    }
    let go = command::find("go").context("Go is missing: install it (1.26 or newer) and have `go` on PATH")?;
    eprintln!("{name}: building {version}, once; takes some minutes");
    command::output(
        Command::new(go)
            .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w", "-o"])
            .arg(cache.unfinished(name))
            .arg(package)
            .env("CGO_ENABLED", "0")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(name)),
    )?;
    command::output(Command::new(cache.unfinished(name)).arg("--version"))?;
    cache.install(name, version)
}

#[cfg(test)]
mod tests {
    use super::super::{MINIO, RCLONE};

    #[test]
    fn the_table_of_versions_and_the_go_modules_agree() {
        let rclone = include_str!("../../go/rclone/go.mod");
        let minio = include_str!("../../go/minio/go.mod");
        assert!(rclone.contains(&format!("\tgithub.com/rclone/rclone {RCLONE} ")), "{rclone}");
        assert!(minio.contains(&format!("\tgithub.com/minio/minio {MINIO} ")), "{minio}");
    }
}
