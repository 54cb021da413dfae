//! restic as the oracle of the repository format. Debian 12's own package is too old, so the one of Debian unstable is
//! fetched by apt from the machine's own mirror, with a source list, lists and cache apart from the system's: nothing
//! is installed there, root is not needed, and apt checks the archive's signature as ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian::{Mirror, mirror};
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
    let package = download(&folder)?;
    let unpacked = package.with_extension("unpacked");
    command::output(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked))?;
    fs::copy(unpacked.join("usr/bin/restic"), cache.unfinished("restic"))
        .context("the package holds no usr/bin/restic")?;
    let version = check(&cache.unfinished("restic"))?;
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    cache.install("restic", &version)
}

/// The package file, the only one in `folder`.
fn download(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(part))
            .with_context(|| format!("cannot create {part} in {}", folder.display()))?;
    }
    let Mirror { options, uri } = mirror(Path::new("/etc/apt"), &codename()?)?;
    let list = folder.join("unstable.list");
    fs::write(&list, format!("deb [{options}] {uri} sid main\n").replace("[] ", ""))
        .with_context(|| format!("cannot write {}", list.display()))?;
    command::output(apt_get(folder).arg("update"))?;
    command::output(apt_get(folder).args(["download", "restic"]))?;
    fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")
}

/// `apt-get` that reads one source list and writes only below `folder`.
fn apt_get(folder: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    for (option, value) in [
        ("Dir::Etc::sourcelist", folder.join("unstable.list")),
        ("Dir::Etc::sourceparts", "-".into()),
        ("Dir::State::lists", folder.join("lists")),
        ("Dir::Cache", folder.join("cache")),
        // The system's hooks and lists of names, translations and icons are of no use here.
        ("Dir::Etc::preferencesparts", "-".into()),
        ("Acquire::Languages", "none".into()),
        ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".into()),
        // The folder may be closed to the user that apt would become.
        ("APT::Sandbox::User", "root".into()),
        ("APT::Update::Post-Invoke-Success", "".into()),
        ("APT::Update::Post-Invoke", "".into()),
    ] {
        apt.arg("-o").arg(format!("{option}={}", value.display()));
    }
    apt.current_dir(folder);
    apt
}

/// The release that this machine runs, as `/etc/os-release` names it.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_matches('"').to_owned()));
    if field("ID=").as_deref() != Some("debian") {
        bail!("this is not Debian: install restic 0.19 by hand and name it in HOLDFAST_RESTIC");
    }
    field("VERSION_CODENAME=").context("/etc/os-release names no VERSION_CODENAME")
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
