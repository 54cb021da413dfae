//! Child processes whose failure names the command that failed. Never through a shell.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Runs to the end with the caller's own terminal; anything but exit code 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs to the end and returns what it wrote to stdout; on failure the error carries the end of its stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let talk = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        bail!("`{line}` failed: {}\n{}", output.status, tail(&String::from_utf8_lossy(talk), 30));
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` wrote something that is not UTF-8"))
}

/// Runs to the end and returns what it wrote to stdout; its stderr is the caller's own terminal.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` wrote something that is not UTF-8"))
}

/// The command as a person would type it, without its environment.
pub(crate) fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last `count` lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

static THIS: OnceLock<PathBuf> = OnceLock::new();

/// Remembers where this program is, before a stage lets cargo build the workspace: cargo then puts a new file in its
/// place, and Linux calls the program that still runs `xtask (deleted)`.
pub(crate) fn remember_this() -> Result<()> {
    let path = std::env::current_exe().context("cannot tell which program this is")?;
    THIS.set(path).ok().context("this program is remembered once")
}

/// This program again.
pub(crate) fn this() -> &'static PathBuf {
    #[expect(clippy::expect_used, reason = "`main` begins with it")]
    THIS.get().expect("main remembers where the program is")
}

/// Where a program is found: on PATH, then in the folders that installers use without adding them to it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/bin", "/usr/local/go/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The cargo that runs this program, or the one on PATH when started by hand. What it told this program of its package
/// is not passed on: build scripts look at such variables, and with others than before they, and all that stands on
/// them, are built again.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if is_of_a_package(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn is_of_a_package(variable: &str) -> bool {
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_") || variable == "OUT_DIR"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_the_command_its_code_and_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("exit status: 3") && error.ends_with("broken"), "{error}");
    }

    /// cargo sets such variables for tests, too.
    #[test]
    fn cargo_is_not_told_of_the_package_of_this_program() {
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && std::env::var_os("CARGO_PKG_NAME").is_some());
        let cargo = cargo();
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION_MAJOR"] {
            assert!(cargo.get_envs().any(|set| set == (name.as_ref(), None)), "{name}");
        }
        assert!(!is_of_a_package("CARGO_TARGET_DIR") && !is_of_a_package("CARGO_HOME"));
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = format!("{:#}", run(&mut Command::new("no-such-program")).unwrap_err());
        assert!(error.starts_with("cannot start `no-such-program`"), "{error}");
    }

    #[test]
    fn tail_keeps_the_end() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}
