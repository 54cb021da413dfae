//! Every folder of `tests/golden` is a test: the plan of `given/*` is `want.yaml`, compared whole.
//!
//! `given/` holds manifests and, where the past or the clock matter, a `situation.yaml`. A case that is
//! right but differs is rewritten with `UPDATE=1 cargo test -p holdfast-plan --test golden`, and read before it
//! is committed.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_api::manifest;
use holdfast_plan::{Observed, Settings, plan};
use jiff::Timestamp;
use serde::Deserialize;

/// What a case says besides its manifests.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Situation {
    /// The present.
    now: Timestamp,
    /// When the program started; by default just now.
    started: Option<Timestamp>,
    node: String,
    slots: usize,
    stores: Option<Vec<String>>,
    observed: Observed,
}

impl Default for Situation {
    fn default() -> Self {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        Self { now, started: None, node: "node-1".to_owned(), slots: 4, stores: None, observed: Observed::default() }
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// The plan of a case, as `holdfast plan` prints it.
fn found(case: &Path) -> String {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(case.join("given"))
        .unwrap_or_else(|error| panic!("{}: {error}", case.display()))
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    let situation = match files.iter().position(|(name, _)| name == "situation.yaml") {
        Some(at) => {
            let text = String::from_utf8(files.remove(at).1).unwrap();
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()))
        }
        None => Situation::default(),
    };
    let Situation { now, started, node, slots, stores, observed } = situation;
    let mut settings = Settings::new(now, "/manifests", "/volumes", node);
    settings.started = started.unwrap_or(now);
    settings.slots = slots;
    settings.stores = stores.unwrap_or(settings.stores);
    let outcome = manifest::read(files.iter().map(|(name, contents)| (name.as_str(), contents.as_slice())));
    serde_saphyr::to_string(&plan(&outcome, &observed, &settings)).unwrap()
}

#[test]
fn every_case_gives_the_plan_it_wants() {
    let mut cases: Vec<PathBuf> = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", golden().display());
    let mut different = Vec::new();
    for case in cases {
        let want = case.join("want.yaml");
        let found = found(&case);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&want, &found).unwrap();
        } else if fs::read_to_string(&want).ok().as_deref() != Some(&found) {
            different.push(format!("{}:\n{found}", case.file_name().unwrap().display()));
        }
    }
    assert!(different.is_empty(), "these plans are not those of want.yaml:\n{}", different.join("\n"));
}
