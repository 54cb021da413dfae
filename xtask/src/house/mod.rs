//! House rules that no compiler and no linter holds: which crate may use which ([`edges`]), what a file may hold
//! ([`text`]), whether documents link to what is there ([`links`]), and whether each reason of a condition is told
//! ([`reasons`]). Each rule is a function from what it looks at to its findings; only this file reads the checkout.

mod edges;
mod links;
mod reasons;
mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{self, cargo};
use crate::test::root;

/// One broken rule: where, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A crate, a file, or a file with a line.
    pub(crate) place: String,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// Every rule against this checkout.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let metadata =
        command::output(cargo().args(["metadata", "--format-version=1", "--no-deps", "--locked"]).current_dir(root()))?;
    let crates = edges::crates(&metadata)?;
    let mut findings = edges::check(&crates);
    for (name, banned) in edges::BANNED_BELOW {
        let tree = command::output(
            cargo()
                .args([
                    "tree",
                    "--locked",
                    "--edges",
                    "normal",
                    "--prefix",
                    "none",
                    "--format",
                    "{p}",
                    "--package",
                    name,
                ])
                .current_dir(root()),
        )?;
        findings.extend(edges::check_tree(name, banned, &tree));
    }
    let files = files()?;
    let told = fs::read_to_string(root().join(reasons::DOCUMENT)).with_context(|| reasons::DOCUMENT)?;
    for path in &files {
        // What is not UTF-8 is data, not source.
        let Ok(content) = fs::read_to_string(root().join(path)) else { continue };
        findings.extend(text::check(path, &content));
        if path.ends_with(".md") {
            findings.extend(links::check(path, &content, &files));
        }
        if reasons::SOURCES.iter().any(|source| path.starts_with(source)) {
            findings.extend(reasons::check(path, &content, &told));
        }
    }
    Ok(findings)
}

/// Every file that is or could be committed, by its path in the checkout.
fn files() -> Result<BTreeSet<String>> {
    let listed = command::output(
        Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root()),
    )
    .context("cannot list the files of the checkout")?;
    Ok(listed.split_terminator('\0').filter(|path| root().join(path).is_file()).map(str::to_owned).collect())
}
