//! Golden tests of manifests: each folder of `tests/manifests` holds files and `want.txt`, which tells what became of
//! them, whole. `HOLDFAST_BLESS=1` writes what is found instead of comparing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_api::manifest::{self, Outcome};

fn told(Outcome { objects, errors, warnings, notes, rejected }: Outcome) -> String {
    let mut text = String::new();
    for (name, problems) in [("errors", errors), ("warnings", warnings), ("notes", notes)] {
        if !problems.is_empty() {
            writeln!(text, "{name}:").unwrap();
            problems.iter().for_each(|problem| writeln!(text, "  {problem}").unwrap());
        }
    }
    if !rejected.is_empty() {
        writeln!(text, "rejected:").unwrap();
        rejected.iter().for_each(|r| writeln!(text, "  {}:{}: {}", r.file, r.line, r.identity).unwrap());
    }
    for object in objects {
        writeln!(text, "---\n# {}:{}: {}", object.file, object.line, object.identity()).unwrap();
        writeln!(text, "{}", serde_json::to_string_pretty(&object.json).unwrap()).unwrap();
    }
    text
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_folder_becomes_what_it_wants() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let cases = sorted(&root);
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let files: Vec<(String, Vec<u8>)> = sorted(case)
            .into_iter()
            .filter(|path| !path.ends_with("want.txt"))
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
            .collect();
        let got = told(manifest::read(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))));
        let want_path = case.join("want.txt");
        if std::env::var_os("HOLDFAST_BLESS").is_some() {
            fs::write(&want_path, &got).unwrap();
        } else if fs::read_to_string(&want_path).unwrap_or_default() != got {
            wrong.push(format!("{}:\n{got}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
