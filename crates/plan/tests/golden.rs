//! Every folder of `tests/golden` is a test: the plan of `given/*` is `want.yaml`, compared whole.
//!
//! `given/` holds manifests and, where the past or the clock matter, a `situation.yaml`, which may also name a folder
//! of examples in place of manifests of its own. There `revision: as it is` of a past run stands for what the plan gives
//! now. A case that is right but differs is rewritten with `UPDATE=1 cargo test -p holdfast-plan --test golden`, and read before it
//! is committed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_api::manifest::{self, Outcome};
use holdfast_plan::{Observed, Place, Plan, Settings, plan};
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
    /// Where it is carried out; by default in a folder.
    place: WrittenPlace,
    /// A folder of the project that holds the manifests, in place of `given` itself.
    manifests: Option<String>,
    node: String,
    slots: usize,
    stores: Option<Vec<String>>,
    observed: Observed,
}

/// A place as a situation writes it: `folder: {}`, `cluster: {}` or `pod: {host: statefulset.db-1, uid: u}`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum WrittenPlace {
    #[default]
    Folder,
    Cluster {},
    Pod {
        host: Option<String>,
        uid: String,
    },
}

impl Default for Situation {
    fn default() -> Self {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let node = "node-1".to_owned();
        let place = WrittenPlace::default();
        Self { now, started: None, place, manifests: None, node, slots: 4, stores: None, observed: Observed::default() }
    }
}

/// A case as it is given.
struct Given {
    name: String,
    folder: PathBuf,
    outcome: Outcome,
    observed: Observed,
    settings: Settings,
}

impl Given {
    fn read(folder: PathBuf) -> Self {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files = yaml_files(&folder.join("given"));
        let situation = match files.iter().position(|(file, _)| file == "situation.yaml") {
            Some(at) => {
                let text = String::from_utf8(files.remove(at).1).unwrap();
                serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
            }
            None => Situation::default(),
        };
        let Situation { now, started, place, manifests, node, slots, stores, observed } = situation;
        if let Some(manifests) = manifests {
            files.extend(yaml_files(&project().join(manifests)));
        }
        assert!(!files.is_empty(), "{name} has no manifest");
        let mut settings = match place {
            WrittenPlace::Folder => Settings::new(now, "/manifests", "/volumes", node),
            WrittenPlace::Cluster {} => Settings::on_cluster(now, Place::Cluster, node),
            WrittenPlace::Pod { host, uid } => Settings::on_cluster(now, Place::Pod { host, uid }, node),
        };
        settings.started = started.unwrap_or(now);
        settings.slots = slots;
        settings.stores = stores.unwrap_or(settings.stores);
        let outcome = manifest::read(files.iter().map(|(file, contents)| (file.as_str(), contents.as_slice())));
        let mut given = Self { name, folder, outcome, observed, settings };
        given.fill_in_revisions();
        given
    }

    fn fill_in_revisions(&mut self) {
        let Plan { backups, recoveries, .. } = self.plan();
        let fill_in = |revision: &mut Option<String>, now: String| {
            if revision.as_deref() == Some("as it is") {
                *revision = Some(now);
            }
        };
        for planned in backups {
            if let Some(history) = self.observed.backups.get_mut(&planned.id) {
                fill_in(&mut history.revision, planned.revision);
            }
        }
        for planned in recoveries {
            if let Some(history) = self.observed.recoveries.get_mut(&planned.id) {
                fill_in(&mut history.revision, planned.revision);
            }
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.outcome, &self.observed, &self.settings)
    }
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The YAML files of a folder with their contents, by name.
fn yaml_files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, Vec<u8>)> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn cases() -> impl Iterator<Item = Given> {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(project().join("tests/golden")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 40, "only {} cases are left", cases.len());
    cases.into_iter().map(Given::read)
}

#[test]
fn every_case_gives_the_plan_it_wants() {
    let mut different = Vec::new();
    for given in cases() {
        let want = given.folder.join("want.yaml");
        let found = serde_saphyr::to_string(&given.plan()).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&want, &found).unwrap();
        } else if fs::read_to_string(&want).ok().as_deref() != Some(&found) {
            different.push(format!("{}:\n{found}", given.name));
        }
    }
    assert!(different.is_empty(), "these plans are not those of want.yaml:\n{}", different.join("\n"));
}

#[test]
fn the_order_of_objects_does_not_matter() {
    for mut given in cases() {
        let plan = given.plan();
        given.outcome.objects.reverse();
        assert_eq!(given.plan(), plan, "{}", given.name);
    }
}

#[test]
fn no_secret_reaches_a_plan() {
    for given in cases() {
        let text = serde_json::to_string(&given.plan()).unwrap();
        assert!(!text.contains("never printed"), "{}", given.name);
    }
}

#[test]
fn what_starts_is_planned_and_alone_on_its_repository() {
    cases().for_each(|given| check_starts(&given));
}

#[test]
fn any_object_may_be_missing() {
    for mut given in cases() {
        for at in 0..given.outcome.objects.len() {
            let object = given.outcome.objects.remove(at);
            check_starts(&given);
            given.outcome.objects.insert(at, object);
        }
    }
}

fn check_starts(given: &Given) {
    let plan = given.plan();
    let mut busy: BTreeSet<&str> = given.observed.running.values().map(String::as_str).collect();
    let starting: Vec<_> = plan.due.iter().filter(|due| due.waits_for.is_none()).collect();
    assert!(starting.is_empty() || starting.len() + given.observed.running.len() <= given.settings.slots);
    for due in starting {
        let of_backup = plan.backups.iter().find(|backup| backup.id == due.id).map(|backup| &backup.repository);
        let of_recovery = plan.recoveries.iter().find(|other| other.id == due.id).map(|other| &other.repository);
        let repository = of_backup.or(of_recovery).unwrap_or_else(|| panic!("{}: {}", given.name, due.id));
        let location = plan.repositories.iter().find(|other| other.id == *repository).map(|found| &found.location);
        assert!(busy.insert(location.unwrap()), "{}: two runs on {repository}", given.name);
    }
}
