//! Reasons of conditions and events: each that the operator or an agent can give has a row in the table for people.

use std::collections::BTreeSet;

use super::Finding;

/// Where the reasons are told.
pub(super) const DOCUMENT: &str = "docs/reference/conditions.md";
/// Where they are given.
pub(super) const SOURCES: [&str; 2] = ["crates/operator/src/", "crates/agent/src/journal.rs"];

/// The reasons of a source file that no table row of the document begins with. Tests do not count.
pub(super) fn check(path: &str, content: &str, document: &str) -> Vec<Finding> {
    let code = content.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut reasons: BTreeSet<&str> = BTreeSet::new();
    if path.ends_with("journal.rs") {
        reasons.extend(variants(code, "pub enum Reason {"));
    } else if path.ends_with("/status.rs") || path.ends_with("/refusal.rs") {
        reasons.extend(literals(code).filter(|literal| !NO_REASONS.contains(literal)));
    } else {
        // The first text in a call, and of an event the first after the object that it is about.
        for call in ["Refusal::new(", "event::warning(", "event::warning_of_namespace("] {
            reasons.extend(code.split(call).skip(1).filter_map(|call| literals(call.split(';').next()?).next()));
        }
    }
    let missing = reasons.into_iter().filter(|reason| !rows(document).any(|row| row.contains(&format!("`{reason}`"))));
    missing
        .map(|reason| Finding {
            place: path.to_owned(),
            what: format!("{DOCUMENT} has no row for the reason {reason}"),
        })
        .collect()
}

/// What stands in CamelCase in `status.rs` and `refusal.rs` and is a kind, a condition or its status.
const NO_REASONS: [&str; 10] = [
    "BackedUp",
    "Backup",
    "BackupTrigger",
    "Complete",
    "DaemonSet",
    "False",
    "Pod",
    "Recovery",
    "Repository",
    "Restic",
];

/// The first cells of the rows of all tables.
fn rows(document: &str) -> impl Iterator<Item = &str> {
    document.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next())
}

/// The text literals of CamelCase.
fn literals(code: &str) -> impl Iterator<Item = &str> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let texts = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    texts.filter(|text| {
        text.starts_with(|first: char| first.is_ascii_uppercase()) && text.chars().all(|one| one.is_ascii_alphabetic())
    })
}

/// The variants of an enum without fields.
fn variants<'a>(code: &'a str, head: &str) -> impl Iterator<Item = &'a str> {
    let body = code.split(head).nth(1).and_then(|rest| rest.split('}').next()).unwrap_or_default();
    body.lines().map(str::trim).filter(|line| !line.starts_with('/')).filter_map(|line| line.strip_suffix(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "| reason | |\n|---|---|\n| `Ready`, `Waiting` | see `Invalid` |\nas `NotServed`\n";

    fn missing(path: &str, content: &str) -> Vec<String> {
        check(path, content, DOCUMENT).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_reason_has_a_row_of_its_own() {
        let path = "crates/operator/src/status.rs";
        assert_eq!(missing(path, "set(\"Ready\", true, \"Waiting\", \"it waits\"); of(\"Backup\")"), [""; 0]);
        for reason in ["Invalid", "NotServed", "Unheard"] {
            let expected = format!("docs/reference/conditions.md has no row for the reason {reason}");
            assert_eq!(missing(path, &format!("set(\"{reason}\")")), [expected], "only told elsewhere");
        }
        assert_eq!(missing(path, "#[cfg(test)]\nmod tests {\n set(\"Unheard\") }"), [""; 0]);
    }

    #[test]
    fn in_other_files_calls_count() {
        let path = "crates/operator/src/tie.rs";
        assert_eq!(missing(path, "matches!(kind, \"Deployment\")"), [""; 0]);
        assert_eq!(missing(path, "Refusal::new(\n  \"Conflict\",\n \"Words\");").len(), 1);
        assert_eq!(missing(path, "event::warning(world, found, \"DataKept\", message);").len(), 1);
        let journal = "pub enum Reason {\n    /// It is so.\n    Ready,\n    /// It is not.\n    Failed,\n}\n";
        assert_eq!(missing("crates/agent/src/journal.rs", journal).len(), 1);
    }
}
