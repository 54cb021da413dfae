//! One suite of Debian, read by apt from the machine's own mirror with a source list, lists, status and cache apart from
//! the system's: nothing is installed there, root is not needed, and apt checks the archive's signature as ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian::{Mirror, mirror};
use crate::command;

/// A suite, with everything that apt keeps of it below one folder.
pub(crate) struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// Fetches the lists of `suite` into `folder`, which belongs to the archive alone.
    pub(crate) fn open(folder: &Path, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot create {part} in {}", folder.display()))?;
        }
        let Mirror { options, uri } = mirror(Path::new("/etc/apt"), &codename()?)?;
        let list = folder.join("archive.list");
        fs::write(&list, format!("deb [{options}] {uri} {suite} main\n").replace("[] ", ""))
            .and_then(|()| fs::write(folder.join("status"), ""))
            .with_context(|| format!("cannot write {}", list.display()))?;
        let archive = Self { folder: folder.to_owned() };
        command::output(archive.apt("apt-get").arg("update"))?;
        Ok(archive)
    }

    /// Downloads `packages` into the empty folder `into`.
    pub(crate) fn download(&self, packages: &[String], into: &Path) -> Result<Vec<PathBuf>> {
        command::output(self.apt("apt-get").arg("download").args(packages).current_dir(into))?;
        let mut files: Vec<_> = fs::read_dir(into)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        files.sort();
        if files.len() != packages.len() {
            bail!("{} packages were wanted and {} came", packages.len(), files.len());
        }
        Ok(files)
    }

    /// `packages` and all that they depend on, in order.
    pub(crate) fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<String>> {
        let said = command::output(
            self.apt("apt-cache")
                .args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"])
                .args(["--no-replaces", "--no-enhances"])
                .args(packages),
        )?;
        // A name at the begin of a line is a package; what it depends on is indented, virtual packages stand in `<>`.
        let names = said.lines().filter(|line| !line.starts_with([' ', '|', '<']) && !line.is_empty());
        Ok(names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// A program of apt's that reads one source list and writes only below the folder.
    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::sourcelist", self.folder.join("archive.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", self.folder.join("lists")),
            ("Dir::State::status", self.folder.join("status")),
            ("Dir::Cache", self.folder.join("cache")),
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
        apt.current_dir(&self.folder);
        apt
    }
}

/// Unpacks a package into a folder, over what is there.
pub(crate) fn unpack(package: &Path, into: &Path) -> Result<()> {
    command::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(into)).map(drop)
}

/// The release that this machine runs, as `/etc/os-release` names it.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_matches('"').to_owned()));
    if field("ID=").as_deref() != Some("debian") {
        bail!("this is not Debian, whose packages are needed");
    }
    field("VERSION_CODENAME=").context("/etc/os-release names no VERSION_CODENAME")
}
