//! restic as the oracle of the repository format. Debian 12's own package is too old, so the one of Debian unstable is
//! unpacked, and installed nowhere.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::{Archive, unpack};
use crate::cache::Cache;
use crate::command;

/// The oldest that counts: the fields of a snapshot and the defaults that tests compare with are those of 0.19.
const OLDEST: (u32, u32) = (0, 19);

/// Fetches restic unless it is there, or checks the one that `HOLDFAST_RESTIC` names.
pub(crate) fn install(cache: &Cache) -> Result<()> {
    if let Some(own) = std::env::var_os("HOLDFAST_RESTIC") {
        check(Path::new(&own)).context("HOLDFAST_RESTIC")?;
        return Ok(());
    }
    if check(&cache.program("restic")).is_ok() {
        return Ok(());
    }
    eprintln!("restic: fetching the package of Debian unstable");
    let folder = cache.folder("apt")?;
    fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    let (packages, unpacked) = (folder.join("packages"), folder.join("unpacked"));
    fs::create_dir_all(&packages).with_context(|| format!("cannot create {}", packages.display()))?;
    let archive =
        Archive::open(&folder, "sid").context("instead, install restic 0.19 and name it in HOLDFAST_RESTIC")?;
    for package in archive.download(&["restic".to_owned()], &packages)? {
        unpack(&package, &unpacked)?;
    }
    fs::copy(unpacked.join("usr/bin/restic"), cache.unfinished("restic"))
        .context("the package holds no usr/bin/restic")?;
    let version = check(&cache.unfinished("restic"))?;
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    cache.install("restic", &version)
}

/// The version of a restic that is new enough.
fn check(program: &Path) -> Result<String> {
    let said = command::output(Command::new(program).arg("version"))?;
    version(&said).with_context(|| format!("{} is not restic 0.19 or newer: {}", program.display(), said.trim()))
}

/// From `restic 0.19.1 compiled with …`, unless it is older than [`OLDEST`] or something else.
fn version(said: &str) -> Option<String> {
    let version = said.strip_prefix("restic ")?.split_whitespace().next()?;
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    ((numbers.next()?, numbers.next()?) >= OLDEST).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_enough_restic_is_an_oracle() {
        assert_eq!(version("restic 0.19.1 compiled with go1.26 on linux/amd64\n").as_deref(), Some("0.19.1"));
        assert_eq!(version("restic 1.0.0 compiled").as_deref(), Some("1.0.0"));
        for said in ["restic 0.14.0 compiled with go1.19", "rustic 0.19.0", "restic", "", "restic 0.19-dev (compiled)"]
        {
            assert_eq!(version(said), None, "{said}");
        }
    }
}
