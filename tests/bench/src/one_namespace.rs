//! How long the judgement takes over ten thousand objects of one namespace, without any cluster.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Result, bail};
use holdfast_operator::{Action, Settings, decide, merge};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::made;
use crate::process;
use crate::table::Table;

const NAMESPACE: &str = "bench-0";
/// How many groups there are, each in the end of ten objects: a Deployment, four Backups, a BackupTrigger, a Recovery, a
/// pod, and the Role and RoleBinding of its agent.
const GROUPS: usize = 1000;

/// Decides on all of them, twice: with nothing done, and with everything done.
pub(crate) fn measure(table: &mut Table) -> Result<()> {
    let settings = Settings::new("registry.example/holdfast:bench");
    let now: Timestamp = "2026-11-21T12:00:00Z".parse()?;
    let mut objects = given();
    let fresh = time(|| decide(NAMESPACE, &objects, now, &settings));
    let mut rounds = 0;
    loop {
        let actions = decide(NAMESPACE, &objects, now, &settings).actions;
        if actions.is_empty() {
            break;
        }
        rounds += 1;
        if rounds > 3 {
            bail!("{} actions are still asked for, as {:?}", actions.len(), actions.first());
        }
        carry_out(&mut objects, actions);
    }
    let settled = time(|| decide(NAMESPACE, &objects, now, &settings));
    let what = format!("a decision over {} objects of one namespace", objects.len());
    table.row(&format!("{what}, everything to be done"), "≤ 1 s", fresh);
    table.row(&format!("{what}, everything done"), "≤ 1 s", settled);
    Ok(())
}

/// The shortest of a few runs, and how much of it a processor worked: what the machine does besides only ever adds.
fn time<T>(run: impl Fn() -> T) -> String {
    let once = || {
        let (began, cpu) = (Instant::now(), process::own_cpu());
        let _result = std::hint::black_box(run());
        (began.elapsed().as_secs_f64(), process::own_cpu() - cpu)
    };
    let runs: Vec<(f64, f64)> = (0..3).map(|_| once()).collect();
    let least = |of: fn(&(f64, f64)) -> f64| runs.iter().map(of).fold(f64::INFINITY, f64::min);
    format!("{:.2} s ({:.2} s of a processor)", least(|run| run.0), least(|run| run.1))
}

fn given() -> Vec<Value> {
    let api_version = "stash.appscode.com/v1alpha2";
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        made::repository(NAMESPACE),
    ];
    for i in 0..GROUPS {
        objects.push(made::workload(NAMESPACE, i));
        objects.extend((0..4).map(|k| made::of_workload(NAMESPACE, i * 4 + k, i)));
        objects.push(json!({
            "apiVersion": api_version,
            "kind": "BackupTrigger",
            "metadata": {"name": format!("now-{i}"), "namespace": NAMESPACE},
            "spec": {"targetBackup": {"name": made::backup(i * 4)}},
        }));
        objects.push(json!({
            "apiVersion": api_version,
            "kind": "Recovery",
            "metadata": {"name": format!("back-{i}"), "namespace": NAMESPACE},
            "spec": {
                "repository": {"name": "store"},
                "paths": [format!("/data/{}", i * 4)],
                "recoverTo": {"workload": {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("app-{i}")}},
            },
        }));
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("app-{i}-x"), "namespace": NAMESPACE},
            "spec": {"nodeName": "node-1"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }));
    }
    let mut number = 0;
    for object in &mut objects {
        number += 1;
        complete(object, number);
    }
    objects
}

/// What a server adds to what was written.
fn complete(object: &mut Value, number: usize) {
    let metadata = &mut object["metadata"];
    metadata["uid"] = json!(format!("00000000-0000-0000-0000-{number:012}"));
    metadata["resourceVersion"] = json!("1");
    metadata["generation"] = json!(1);
    metadata["creationTimestamp"] = json!("2026-11-21T00:00:00Z");
}

/// Applies and creates, as an API server would.
fn carry_out(objects: &mut Vec<Value>, actions: Vec<Action>) {
    let key = |object: &Value| format!("{}/{}", object["kind"], object["metadata"]["name"]);
    let mut places: HashMap<String, usize> =
        objects.iter().enumerate().map(|(place, object)| (key(object), place)).collect();
    for action in actions {
        let (Action::Apply { mut object, .. } | Action::Create { mut object, .. }) = action else { continue };
        // Events are not watched.
        if object["kind"] == "Event" {
            continue;
        }
        match places.get(&key(&object)).copied() {
            Some(place) => merge::apply(&mut objects[place], &object),
            None => {
                places.insert(key(&object), objects.len());
                complete(&mut object, objects.len() + 1);
                objects.push(object);
            }
        }
    }
}
