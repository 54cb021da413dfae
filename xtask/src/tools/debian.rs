//! Debian packages, by apt, and only those whose command is missing: a machine that has them needs neither root nor
//! Debian. Never upgrades or removes anything.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// A package, known to be there by one program in it.
pub(super) struct Package {
    name: &'static str,
    /// A name on PATH, or an absolute path for programs that Debian keeps off it.
    program: &'static str,
}

/// What the tests call. A C compiler is not among them: without one this program could not have been built.
pub(super) const TESTS: &[Package] = &[
    Package { name: "git", program: "git" },
    Package { name: "acl", program: "setfacl" },
    Package { name: "attr", program: "setfattr" },
    Package { name: "rsync", program: "rsync" },
    Package { name: "openssl", program: "openssl" },
];

/// What the benchmark's data comes from.
pub(super) const BENCH: &[Package] = &[
    Package { name: "postgresql-15", program: "/usr/lib/postgresql/15/bin/initdb" },
    Package { name: "rsync", program: "rsync" },
];

/// What a node of the test cluster is made of, beside Kubernetes itself.
pub(super) const NODES: &[Package] = &[
    Package { name: "containerd", program: "containerd" },
    Package { name: "runc", program: "runc" },
    Package { name: "containernetworking-plugins", program: "/usr/lib/cni/ptp" },
    Package { name: "iproute2", program: "ip" },
    Package { name: "iptables", program: "iptables" },
    Package { name: "conntrack", program: "conntrack" },
    Package { name: "util-linux", program: "nsenter" },
    Package { name: "mount", program: "mount" },
    Package { name: "socat", program: "socat" },
    Package { name: "curl", program: "curl" },
    Package { name: "busybox-static", program: "busybox" },
];

/// Installs those of `packages` that are missing.
pub(super) fn packages(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|package| !package.is_there()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("packages: installing {}", missing.join(" "));
    if command::find("apt-get").is_none() {
        bail!("there is no apt-get here: install by hand what Debian calls {}", missing.join(", "));
    }
    command::output(apt_get()?.arg("update"))?;
    command::output(apt_get()?.args(["install", "--yes", "--no-install-recommends"]).args(&missing))?;
    match packages.iter().find(|package| !package.is_there()) {
        Some(package) => bail!("{} is installed and yet {} is missing", package.name, package.program),
        None => Ok(()),
    }
}

impl Package {
    fn is_there(&self) -> bool {
        // Joining an absolute path to a folder of PATH gives that path, so `find` serves both.
        command::find(self.program).is_some()
    }
}

/// `apt-get` with the rights to install, asking nothing and waiting for a package manager that is at work.
fn apt_get() -> Result<Command> {
    let settings = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300", "--quiet=2"];
    let root = command::output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut apt = if root {
        Command::new("env")
    } else {
        let mut sudo =
            Command::new(command::find("sudo").context("installing packages takes root, and there is no sudo")?);
        sudo.args(["--non-interactive", "env"]);
        sudo
    };
    apt.args(settings);
    Ok(apt)
}

/// Where a machine gets Debian from, as it would stand in a one-line source list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    /// The bracketed options of the entry (keyring, trust), or nothing.
    pub(super) options: String,
    pub(super) uri: String,
}

/// The mirror of the release `codename`, from apt's own configuration under `apt` (`/etc/apt`): the first entry in
/// either of apt's formats whose suite is the release itself, so neither its security nor its updates archive, nor
/// anything that is not Debian.
pub(super) fn mirror(apt: &Path, codename: &str) -> Result<Mirror> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(apt.join("sources.list.d")) {
        let mut parts: Vec<_> = entries.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    files
        .iter()
        .filter_map(|file| {
            let text = std::fs::read_to_string(file).ok()?;
            match file.extension()?.to_str()? {
                "list" => text.lines().find_map(|line| one_line(line, codename)),
                "sources" => text.split("\n\n").find_map(|stanza| deb822(stanza, codename)),
                _ => None,
            }
        })
        .next()
        .with_context(|| format!("no source of Debian {codename} in {}", apt.display()))
}

/// `deb [options] URI suite component…`
fn one_line(line: &str, codename: &str) -> Option<Mirror> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(options, rest)| (options.trim(), rest))?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    (suite == codename && words.any(|component| component == "main")).then(|| Mirror {
        options: options.split_whitespace().filter(|option| !option.starts_with("arch=")).collect::<Vec<_>>().join(" "),
        uri: uri.to_owned(),
    })
}

/// `Types:`, `URIs:`, `Suites:`, `Components:`, `Signed-By:`, one to a line. A key written into the stanza itself
/// spans lines and is left to apt's own key ring.
fn deb822(stanza: &str, codename: &str) -> Option<Mirror> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    let has =
        |name: &str, word: &str| field(name).is_some_and(|value| value.split_whitespace().any(|item| item == word));
    let enabled = !field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if !(enabled && has("Types", "deb") && has("Suites", codename) && has("Components", "main")) {
        return None;
    }
    let keyring = field("Signed-By").filter(|value| value.starts_with('/'));
    Some(Mirror {
        options: keyring.map(|file| format!("signed-by={file}")).unwrap_or_default(),
        uri: field("URIs")?.split_whitespace().next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expect: Option<(&str, &str)>) {
        let apt = tempfile::tempdir().unwrap();
        std::fs::create_dir(apt.path().join("sources.list.d")).unwrap();
        std::fs::write(apt.path().join(name), text).unwrap();
        let expect = expect.map(|(options, uri)| Mirror { options: options.into(), uri: uri.into() });
        assert_eq!(mirror(apt.path(), "bookworm").ok(), expect);
    }

    #[test]
    fn the_release_itself_is_taken_from_a_one_line_list() {
        check(
            "sources.list",
            "# deb http://old bookworm main\n\
             deb-src http://source bookworm main\n\
             deb http://security bookworm-security main\n\
             deb [arch=amd64 signed-by=/key.gpg] http://mirror/debian bookworm main contrib\n",
            Some(("signed-by=/key.gpg", "http://mirror/debian")),
        );
    }

    #[test]
    fn and_from_a_deb822_file() {
        check(
            "sources.list.d/debian.sources",
            "Types: deb\nURIs: http://security\nSuites: bookworm-security\nComponents: main\n\n\
             Types: deb deb-src\n# note\nURIs: http://mirror/debian http://second\nSuites: bookworm bookworm-updates\n\
             Components: main\nSigned-By: /key.gpg\n",
            Some(("signed-by=/key.gpg", "http://mirror/debian")),
        );
    }

    #[test]
    fn what_is_not_debian_or_switched_off_is_passed_over() {
        check("sources.list.d/tool.list", "deb https://vendor/apt tool-bookworm main\n", None);
        check(
            "sources.list.d/debian.sources",
            "Enabled: no\nTypes: deb\nURIs: http://mirror\nSuites: bookworm\nComponents: main\n",
            None,
        );
        check("sources.list.d/debian.sources.bak", "deb http://mirror bookworm main\n", None);
    }

    #[test]
    fn a_program_with_an_absolute_path_is_looked_for_there_alone() {
        assert!(Package { name: "sh", program: "/bin/sh" }.is_there());
        assert!(!Package { name: "sh", program: "/no/such/sh" }.is_there());
    }
}
