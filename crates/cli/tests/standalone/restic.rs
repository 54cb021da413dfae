//! The kind `Restic`, in both its generations.

use super::machine::Machine;
use super::manifest::{host_path, secret, secret_with, workload};

#[test]
fn by_label_as_in_the_first_generation() {
    let restic = "apiVersion: stash.appscode.com/v1alpha1\nkind: Restic\nmetadata: {name: config}\nspec:\n  \
                  source: {volumeName: data, path: /mypath}\n  \
                  destination: {path: /stashrepo, repositorySecretName: secret, volume: {name: r, hostPath: {path: repos}}}\n  \
                  schedule: '@every 1h'\n  tags: [nightly]\n  retentionPolicy: {keepLastSnapshots: 1}\n";
    let label = "labels: {restic.appscode.com/config: config}";
    let machine = Machine::with(&[
        secret_with("secret", "password: 'correct horse'"),
        restic.to_owned(),
        workload("Deployment", "web", label, "", &host_path("data")),
        workload("DaemonSet", "agent", label, "", &host_path("other")),
    ]);
    machine.write("m/data/file", "text");
    machine.write("m/other/file", "other");
    machine.run(&["standalone", "m", "--once", "--node", "here"]).succeeded().says(&["done: 2 runs succeeded"]);
    let web = machine.restic("m/repos/default/deployment/web");
    web.check();
    let snapshot = &web.snapshots()[0];
    assert_eq!((&snapshot["hostname"], &snapshot["paths"]), (&"web".into(), &serde_json::json!(["/mypath"])));
    assert!(snapshot["tags"].as_array().unwrap().contains(&"nightly".into()), "{snapshot}");
    web.assert_holds("/mypath", &machine.path("m/data"));
    machine.restic("m/repos/default/daemonset/agent/here").check();
    // The seed's events: the Restic's name and a count, in its namespace.
    let event = |name: &str, reason: &str| (name.to_owned(), reason.to_owned());
    assert_eq!(
        machine.events_of("Restic default/config"),
        [event("config-1", "Success"), event("config-2", "Success")]
    );
    // A failure is the next number.
    std::fs::remove_dir_all(machine.path("m/data")).unwrap();
    for id in ["Restic/default/config/deployment.web", "Restic/default/config/daemonset.agent.here"] {
        machine.edit_state(|state| {
            if let Some(history) = state["observed"]["backups"].get_mut(id) {
                history["lastStart"] = "2026-01-02T03:04:05Z".into();
            }
        });
    }
    machine.run(&["standalone", "m", "--once", "--node", "here"]).exits(1).says(&[
        "Restic default/config",
        "FAILED",
        "data",
    ]);
    let events = machine.events_of("Restic default/config");
    assert!(
        events.contains(&event("config-3", "Failed")) || events.contains(&event("config-4", "Failed")),
        "{events:?}"
    );
    assert_eq!(web.snapshots().len(), 1, "what is there stays");
}

#[test]
fn by_selector_as_in_the_second_generation() {
    let restic = "apiVersion: stash.appscode.com/v1alpha1\nkind: Restic\nmetadata: {name: config}\nspec:\n  \
                  selector: {matchLabels: {tier: front}}\n  \
                  fileGroups: [{path: /data/a, tags: [important], retentionPolicyName: few}, {path: /data/b}]\n  \
                  retentionPolicies: [{name: few, keepLast: 1, prune: true}]\n  \
                  backend: {storageSecretName: secret, local: {mountPath: /r, hostPath: {path: repos}, subPath: team}}\n  \
                  schedule: '@every 1h'\n";
    let machine = Machine::with(&[
        secret("secret"),
        restic.to_owned(),
        workload("Deployment", "web", "labels: {tier: front}", "", &host_path("data")),
        workload("Deployment", "not", "labels: {tier: back}", "", &host_path("data")),
    ]);
    machine.write("m/data/a/file", "a");
    machine.write("m/data/b/file", "b");
    for _ in 0..2 {
        machine.once().succeeded();
        machine.edit_state(|state| {
            state["observed"]["backups"]["Restic/default/config/deployment.web"]["lastStart"] =
                "2026-01-02T03:04:05Z".into();
        });
    }
    let web = machine.restic("m/repos/team/deployment/web");
    web.check();
    let mut paths: Vec<_> = web.snapshots().iter().map(|snapshot| snapshot["paths"][0].to_string()).collect();
    paths.sort();
    assert_eq!(paths, ["\"/data/a\"", "\"/data/b\"", "\"/data/b\""], "one of /data/a is kept, all of /data/b");
    assert!(!machine.path("m/repos/team/deployment/not").exists());
}

#[test]
fn two_claims_on_one_workload_are_an_error() {
    let restic = |name: &str| {
        format!(
            "apiVersion: stash.appscode.com/v1alpha1\nkind: Restic\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {{tier: front}}}}\n  \
             fileGroups: [{{path: /data}}]\n  backend: {{storageSecretName: secret, local: {{mountPath: /r, hostPath: {{path: repos}}}}}}\n  \
             schedule: '@every 1h'\n"
        )
    };
    let machine = Machine::with(&[
        secret("secret"),
        restic("one"),
        restic("two"),
        workload("Deployment", "web", "labels: {tier: front}", "", &host_path("data")),
    ]);
    machine.write("m/data/file", "text");
    machine.once().exits(1).says(&[
        "Deployment default/web",
        "`one` and `two`",
        "let the label and the selectors lead to one",
    ]);
    assert!(!machine.path("m/repos").exists());
}
