//! Links between the documents of the checkout: each leads to a file or folder that is there. Never asks the network.

use std::collections::BTreeSet;

use super::Finding;

/// The relative links of a Markdown file that lead nowhere. `files` are all paths of the checkout.
pub(super) fn check(path: &str, content: &str, files: &BTreeSet<String>) -> Vec<Finding> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    let mut in_code = false;
    for (index, line) in content.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        // What stands between the parentheses, without a title after it.
        for target in line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            let target = target.split('#').next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !resolve(folder, target).is_some_and(|found| exists(&found, files)) {
                let what = format!("links to {target}, which is not there");
                findings.push(Finding { place: format!("{path}:{}", index + 1), what });
            }
        }
    }
    findings
}

/// The path in the checkout that `target` means in `folder`; nothing when it leads out of the checkout.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { folder.split('/').collect() };
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop().filter(|part| !part.is_empty())?),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !matches!(*part, "" | "."));
    Some(parts.join("/"))
}

/// A file, or a folder with a file in it.
fn exists(path: &str, files: &BTreeSet<String>) -> bool {
    let folder = format!("{path}/");
    path.is_empty()
        || files.contains(path)
        || files.range(folder.clone()..).next().is_some_and(|file| file.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, content: &str) -> Vec<String> {
        let files = ["README.md", "docs/how-to/restore.md", "docs/index.md", "docs.md"].map(str::to_owned).into();
        check(path, content, &files).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_that_lead_somewhere() {
        for content in [
            "[a](docs/index.md)",
            "[a](docs/how-to/restore.md#in-place) and [b](docs)",
            "[a](https://example.org/none.md), [b](#here), [c](mailto:a@b)",
            "![a](./docs/index.md \"title\")",
            "```\n[a](none.md)\n```\n",
        ] {
            assert_eq!(broken("README.md", content), [""; 0], "{content}");
        }
        assert_eq!(broken("docs/how-to/restore.md", "[a](../index.md) [b](../../README.md) [c](/docs)"), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere() {
        assert_eq!(broken("README.md", "a\n[a](none.md)"), ["README.md:2: links to none.md, which is not there"]);
        assert_eq!(broken("docs/index.md", "[a](docs/index.md) [b](how-to/none.md)").len(), 2);
        assert_eq!(broken("docs/index.md", "[a](../../README.md)").len(), 1, "outside the checkout");
        assert_eq!(broken("README.md", "[a](doc)").len(), 1, "the beginning of a name is not the name");
        assert_eq!(broken("README.md", "```\n```\n[a](none.md)").len(), 1, "after code");
    }
}
