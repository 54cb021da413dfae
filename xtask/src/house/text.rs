//! What a file of the checkout may hold: a head that says what a module is for, a length that one person reads, no
//! path or host of the machine it was written on, and in the planner neither clock nor IO.

use super::Finding;

/// Past some 600 lines a file usually tells two stories; at this many it certainly does.
const LINES_MAX: usize = 900;

/// Package archives and proxies. Which one a machine uses is its own business.
const HOSTS: [&str; 8] = [
    concat!("deb.", "debian.org"),
    concat!("security.", "debian.org"),
    concat!("snapshot.", "debian.org"),
    concat!("proxy.", "golang.org"),
    concat!("sum.", "golang.org"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("pypi.", "org"),
];

/// Folders that exist on one machine only.
const FOLDERS: [&str; 2] = [concat!("/", "work/"), concat!("/", "root/")];

/// What the planner's own code must not name: it gets the time and everything else as arguments.
const IMPURE: [&str; 12] = [
    "::now()",
    "SystemTime",
    "std::time::Instant",
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "TimeZone::system",
    "println!",
    "RandomState",
];

/// Every rule for one file, by its path in the checkout.
pub(super) fn check(path: &str, content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line: Option<usize>, what: String| {
        let place = line.map_or_else(|| path.to_owned(), |line| format!("{path}:{line}"));
        findings.push(Finding { place, what });
    };
    let pure = path.starts_with("crates/plan/src/") && !is_test(path);
    // Inline tests come last in a file; what they call is their own business.
    let mut in_tests = false;
    for (index, line) in content.lines().enumerate() {
        in_tests |= line.trim() == "#[cfg(test)]";
        let number = Some(index + 1);
        if let Some(host) = HOSTS.iter().find(|host| line.contains(**host)) {
            found(number, format!("names the package host {host}"));
        }
        if let Some(folder) = FOLDERS.iter().find(|folder| holds(line, folder)) {
            found(number, format!("names a path of one machine, {folder}"));
        }
        if pure
            && !in_tests
            && !line.trim_start().starts_with("//")
            && let Some(word) = IMPURE.iter().find(|word| line.contains(**word))
        {
            found(number, format!("the planner is pure and may not use {word}"));
        }
    }
    if path.ends_with(".rs") {
        let first = content.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if !first.starts_with("//! ") {
            found(None, "does not begin with `//!`: say what the module does and what it never does".into());
        }
        let lines = content.lines().count();
        if lines > LINES_MAX {
            found(None, format!("has {lines} lines, {LINES_MAX} are the most: look for its second story"));
        }
    }
    findings
}

/// Files that are compiled for tests alone.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Whether `line` names `folder` as an absolute path, not as the inner part of a longer one.
fn holds(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        !line[..at]
            .ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | '-' | '.' | '}' | ')' | '*'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_file(path: &str, content: &str) -> Vec<String> {
        check(path, content).iter().map(ToString::to_string).collect()
    }

    const CLEAN: [&str; 0] = [];

    #[test]
    fn a_module_begins_with_its_head() {
        assert_eq!(check_file("crates/api/src/lib.rs", "//! Kinds.\nuse std::fs;\n"), CLEAN);
        assert_eq!(check_file("crates/api/src/lib.rs", "\n//! Kinds.\n"), CLEAN);
        for content in ["use std::fs;\n", "// Kinds.\n", "", "//!\n", "mod a;\n//! Kinds.\n"] {
            assert_eq!(check_file("crates/api/src/lib.rs", content).len(), 1, "{content:?}");
        }
        assert_eq!(check_file("README.md", "Holdfast\n"), CLEAN);
    }

    #[test]
    fn a_file_is_as_long_as_one_person_reads() {
        let longest = "//! Head.\n".to_owned() + &"\n".repeat(LINES_MAX - 1);
        assert_eq!(check_file("xtask/src/a.rs", &longest), CLEAN);
        assert_eq!(check_file("xtask/src/a.rs", &(longest.clone() + "\n")).len(), 1);
        assert_eq!(check_file("deploy/crds.yaml", &(longest + "\n")), CLEAN, "generated files are as long as they are");
    }

    #[test]
    fn paths_of_one_machine_are_found_with_their_line() {
        let bad = format!("a\nsee {}main/x\n", FOLDERS[0]);
        assert_eq!(
            check_file("docs/a.md", &bad),
            [format!("docs/a.md:2: names a path of one machine, {}", FOLDERS[0])]
        );
        assert_eq!(check_file("docs/a.md", &format!("`{}`\n", FOLDERS[0])).len(), 1);
        for fine in [format!("/mnt{}x", FOLDERS[0]), format!("$HOME{}", FOLDERS[0]), "/home/user".into()] {
            assert_eq!(check_file("docs/a.md", &fine), CLEAN);
        }
    }

    #[test]
    fn package_hosts_are_found() {
        for host in HOSTS {
            assert_eq!(check_file(".ci/run", &format!("curl https://{host}/x\n")).len(), 1);
        }
        assert_eq!(check_file("Cargo.lock", "registry+https://github.com/rust-lang/crates.io-index\n"), CLEAN);
    }

    #[test]
    fn the_planner_is_pure() {
        let clock = "//! Head.\nlet now = Timestamp::now();\n";
        assert_eq!(check_file("crates/plan/src/due.rs", clock).len(), 1);
        assert_eq!(check_file("crates/plan/src/due.rs", "//! Head.\nuse std::fs;\n").len(), 1);
        assert_eq!(check_file("crates/agent/src/due.rs", clock), CLEAN, "others may ask the clock");
        assert_eq!(check_file("crates/plan/src/due.rs", "//! Head.\n// never calls Timestamp::now()\n"), CLEAN);
        assert_eq!(
            check_file("crates/plan/src/due.rs", "//! Head.\n#[cfg(test)]\nmod tests { use std::fs; }\n"),
            CLEAN
        );
        assert_eq!(check_file("crates/plan/src/due/tests.rs", "//! Head.\nuse std::fs;\n"), CLEAN);
    }
}
