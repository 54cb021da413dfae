//! Every folder of `tests/golden-operator` is a test: what follows from the objects in `given/*.yaml`, as an API server
//! would have them, is `want.yaml`, compared whole. A case that is right but differs is rewritten with `UPDATE=1 cargo
//! test -p holdfast-operator --test golden`, and read before it is committed.
//!
//! Each case is also carried out on a small model of an API server until nothing is left to do: that it ends, and in
//! few rounds, is what steady state means.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_operator::{Action, Decision, SIDECAR_ANNOTATION, Settings, decide, decide_cluster, merge};
use holdfast_plan::ObjectKey;
use jiff::Timestamp;
use serde_json::{Value, json};

/// How many rounds a case may take; restarts of pods take one each.
const ROUNDS_MAX: usize = 12;

struct Case {
    name: String,
    folder: PathBuf,
    namespace: String,
    now: Timestamp,
    settings: Settings,
    objects: Vec<Value>,
}

impl Case {
    fn read(folder: PathBuf) -> Self {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let given = folder.join("given");
        let mut files: Vec<PathBuf> = fs::read_dir(&given)
            .unwrap_or_else(|error| panic!("{}: {error}", given.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let mut case = Self {
            namespace: "demo".to_owned(),
            now: "2026-11-21T12:00:00Z".parse().unwrap(),
            settings: Settings::new("registry.example/holdfast:1.0"),
            objects: Vec::new(),
            name,
            folder,
        };
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            for document in documents {
                match document["kind"].as_str() {
                    Some(_) => case.objects.push(document),
                    None => case.situation(&document),
                }
            }
        }
        let mut uid = 0;
        for object in &mut case.objects {
            uid += 1;
            complete(object, &format!("00000000-0000-0000-0000-{uid:012}"));
        }
        case
    }

    /// A document without a kind says what is not an object.
    fn situation(&mut self, document: &Value) {
        for (key, value) in document.as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            match key.as_str() {
                "now" => self.now = text.parse().unwrap(),
                "namespace" => self.namespace = text.to_owned(),
                "pushgatewayUrl" => self.settings.pushgateway_url = Some(text.to_owned()),
                "jobsMax" => self.settings.jobs_max = usize::try_from(value.as_u64().unwrap()).unwrap(),
                "runsMax" => self.settings.runs_max = value.as_u64().map(|limit| usize::try_from(limit).unwrap()),
                other => panic!("{}: {other} is nothing that a situation has", self.name),
            }
        }
    }

    fn decide(&self) -> Decision {
        decide(&self.namespace, &self.objects, self.now, &self.settings)
    }
}

/// What a server adds to what was written.
fn complete(object: &mut Value, uid: &str) {
    let kind = object["kind"].as_str().unwrap().to_owned();
    let is_clusters = ["Namespace", "AgentTemplate", "BackupTemplate"].contains(&kind.as_str());
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.entry("uid").or_insert_with(|| json!(uid));
    metadata.entry("resourceVersion").or_insert_with(|| json!("1"));
    metadata.entry("generation").or_insert_with(|| json!(1));
    metadata.entry("creationTimestamp").or_insert_with(|| json!("2026-11-21T00:00:00Z"));
    if !is_clusters {
        metadata.entry("namespace").or_insert_with(|| json!("demo"));
    }
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn cases() -> impl Iterator<Item = Case> {
    let folder = project().join("tests/golden-operator");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 25, "only {} cases are left", cases.len());
    cases.into_iter().map(Case::read)
}

#[test]
fn every_case_gives_the_actions_it_wants() {
    let mut different = Vec::new();
    for case in cases() {
        let want = case.folder.join("want.yaml");
        let found = serde_saphyr::to_string(&case.decide()).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&want, &found).unwrap();
        } else if fs::read_to_string(&want).ok().as_deref() != Some(&found) {
            different.push(format!("{}:\n{found}", case.name));
        }
    }
    assert!(different.is_empty(), "these actions are not those of want.yaml:\n{}", different.join("\n"));
}

#[test]
fn the_order_of_objects_does_not_matter() {
    for mut case in cases() {
        let decision = case.decide();
        case.objects.reverse();
        assert_eq!(case.decide(), decision, "{}", case.name);
    }
}

#[test]
fn every_case_comes_to_rest() {
    for mut case in cases() {
        let mut rounds = 0;
        loop {
            let Decision { actions, .. } = case.decide();
            if actions.is_empty() {
                break;
            }
            rounds += 1;
            let left = serde_saphyr::to_string(&actions).unwrap();
            assert!(rounds <= ROUNDS_MAX, "{} finds no rest; it is still at\n{left}", case.name);
            actions.into_iter().for_each(|action| carry_out(&mut case.objects, action));
        }
    }
}

#[test]
fn any_object_may_be_missing() {
    for mut case in cases() {
        for at in 0..case.objects.len() {
            let object = case.objects.remove(at);
            for action in case.decide().actions {
                let Action::Apply { object, subresource, .. } = action else { continue };
                // What is written to an object is never written to one that is gone.
                let is_there = case.objects.iter().any(|found| is_same(found, &object));
                let makes = ["Role", "RoleBinding", "ServiceAccount", "Backup", "Repository"];
                let makes = subresource.is_none() && makes.contains(&object["kind"].as_str().unwrap());
                assert!(is_there || makes, "{}: {object}", case.name);
            }
            case.objects.insert(at, object);
        }
    }
}

#[test]
fn the_default_templates_are_installed_once() {
    let settings = Settings::new("registry.example/holdfast:1.0");
    let mut objects = Vec::new();
    let actions = decide_cluster(&objects, &settings).actions;
    assert_eq!(actions.len(), 2);
    actions.into_iter().for_each(|action| carry_out(&mut objects, action));
    assert_eq!(decide_cluster(&objects, &settings), Decision::default());
    let newer = Settings::new("registry.example/holdfast:1.1");
    assert_eq!(decide_cluster(&objects, &newer).actions.len(), 2);
}

fn is_same(a: &Value, b: &Value) -> bool {
    a["kind"] == b["kind"] && ["name", "namespace"].iter().all(|key| a["metadata"][*key] == b["metadata"][*key])
}

/// What an API server and the controllers of Kubernetes make of an action.
fn carry_out(objects: &mut Vec<Value>, action: Action) {
    let fresh = format!("10000000-0000-0000-0000-{:012}", objects.len());
    match action {
        Action::Apply { object, manager, subresource, .. } => {
            match objects.iter_mut().find(|found| is_same(found, &object)) {
                Some(found) => {
                    take_away(found, &manager, subresource, &object);
                    merge::apply(found, &object);
                }
                None => {
                    // A status of what is gone is refused, which does no harm.
                    if subresource.is_some() {
                        return;
                    }
                    assert!(object["metadata"]["uid"].is_null(), "it is gone: {object}");
                    let mut object = object;
                    complete(&mut object, &fresh);
                    objects.push(object);
                }
            }
            objects.retain(|object| {
                let waits = object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
                waits || object["metadata"]["deletionTimestamp"].is_null()
            });
        }
        Action::Create { mut object, .. } => {
            complete(&mut object, &fresh);
            if !objects.iter().any(|found| is_same(found, &object)) {
                objects.push(object);
            }
        }
        Action::Delete { object, uid, .. } => remove(objects, &object, &uid),
        Action::Evict { object, uid, .. } => {
            let old = objects.iter().find(|found| found["metadata"]["uid"] == uid).cloned().unwrap();
            remove(objects, &object, &uid);
            // Its controller makes another from its template.
            let owner = old["metadata"]["ownerReferences"][0]["uid"].clone();
            let owner = objects.iter().find(|found| found["metadata"]["uid"] == owner).unwrap();
            let annotation = owner["spec"]["template"]["metadata"]["annotations"][SIDECAR_ANNOTATION].clone();
            let mut new = old;
            new["metadata"]["uid"] = json!(fresh);
            new["metadata"]["name"] = json!(format!("{}x", new["metadata"]["name"].as_str().unwrap()));
            new["metadata"]["annotations"] = json!({SIDECAR_ANNOTATION: annotation});
            objects.push(new);
        }
    }
}

fn remove(objects: &mut Vec<Value>, object: &ObjectKey, uid: &str) {
    let before = objects.len();
    objects.retain(|found| found["metadata"]["uid"] != uid);
    assert_eq!(objects.len() + 1, before, "{object} is not there to be removed");
}

/// Takes away what the manager applied before and does not name now.
fn take_away(found: &mut Value, manager: &str, subresource: Option<&str>, applied: &Value) {
    match (manager, subresource) {
        ("holdfast", Some(_)) => {
            let fields = found["status"].as_object().into_iter().flatten();
            let kept = fields.filter(|(field, _)| ["hosts", "runs"].contains(&field.as_str()) || is_fact(field));
            found["status"] = Value::Object(kept.map(|(field, value)| (field.clone(), value.clone())).collect());
        }
        (_, Some(_)) => {
            // A host's manager owns all of its entry.
            for field in ["hosts", "runs"] {
                let hosts = applied["status"][field].as_array().cloned().unwrap_or_default();
                if let Some(found) = found["status"][field].as_array_mut() {
                    found.retain(|found| !hosts.iter().any(|host| host["host"] == found["host"]));
                }
            }
        }
        ("holdfast-finalizer", None) => drop(found["metadata"].as_object_mut().unwrap().remove("finalizers")),
        ("holdfast", None) => {
            let spec = &mut found["spec"]["template"]["spec"];
            for field in ["containers", "initContainers"] {
                if let Some(list) = spec[field].as_array_mut() {
                    let ours = |item: &Value| {
                        item["env"].as_array().is_some_and(|env| env.iter().any(|one| one["name"] == "HOLDFAST_TARGET"))
                    };
                    list.retain(|item| !ours(item));
                }
            }
            if let Some(list) = spec["volumes"].as_array_mut() {
                list.retain(|item| !item["name"].as_str().unwrap().starts_with("holdfast-"));
            }
            if let Some(annotations) = found["spec"]["template"]["metadata"]["annotations"].as_object_mut() {
                annotations.remove(SIDECAR_ANNOTATION);
            }
            if found["kind"] == "Backup" || found["kind"] == "Repository" {
                found["spec"] = json!({});
            }
        }
        _ => {}
    }
}

/// A field of a Repository's status that its agents write.
fn is_fact(field: &str) -> bool {
    !["conditions", "phase", "observedGeneration", "history", "stats"].contains(&field) && !field.ends_with("Time")
}

#[test]
fn a_newer_operator_alone_restarts_nothing() {
    let mut updated = 0;
    for mut case in cases() {
        for _ in 0..ROUNDS_MAX {
            case.decide().actions.into_iter().for_each(|action| carry_out(&mut case.objects, action));
        }
        let touches_pods = |action: &Action| match action {
            Action::Apply { object, subresource: None, .. } => object["spec"]["template"].is_object(),
            Action::Evict { .. } => true,
            _ => false,
        };
        case.settings.image = "registry.example/holdfast:2.0".to_owned();
        let touched: Vec<Action> = case.decide().actions.into_iter().filter(touches_pods).collect();
        assert!(touched.is_empty(), "{}: {touched:#?}", case.name);
        // Told to, it brings its image everywhere.
        case.settings.is_image_said = true;
        updated += case.decide().actions.iter().filter(|action| touches_pods(action)).count();
    }
    assert!(updated > 20, "only {updated} workloads were brought up to date");
}
