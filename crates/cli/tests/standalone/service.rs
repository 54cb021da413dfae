//! `holdfast standalone` as a service: it follows its folder, serves pages, stops cleanly and survives being killed.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::machine::{Machine, PASSWORD, Service, eventually, get};
use super::manifest::{backup, deployment_at, recovery, repository, secret, secret_with, trigger, web};
use super::servers::tool;

/// A machine whose data takes long to read and next to no room.
fn with_much_data(manifests: &[String]) -> Machine {
    let machine = Machine::with(manifests);
    machine.write("m/data/file", "text");
    std::fs::File::create(machine.path("m/data/large")).unwrap().set_len(64 << 30).unwrap();
    machine
}

/// Waits until somebody holds a lock of the repository; a file on its way there has another name.
fn wait_for_lock(machine: &Machine) {
    let locks = machine.path("m/repo/locks");
    let is_lock = |entry: std::fs::DirEntry| entry.file_name().len() == 64;
    eventually("a lock", || std::fs::read_dir(&locks).is_ok_and(|entries| entries.flatten().any(is_lock)));
}

#[test]
fn pages_tell_how_it_stands() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    let mut service = machine.start();
    let address = service.address();
    assert!(address.ip().is_loopback());
    service.wait_for_end("Backup default/web");
    service.wait_for_type("waiting");
    assert_eq!(get(address, "/healthz"), (200, "ok\n".to_owned()));
    let (code, status) = get(address, "/status");
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(code, 200);
    let web = &status["backups"][0];
    assert_eq!(
        (&web["object"], &web["schedule"], &web["runs"]),
        (&"Backup default/web".into(), &"@every 1h".into(), &1.into())
    );
    assert_eq!(status["repositories"][0]["snapshotCount"], 1);
    assert_eq!(status["repositories"][0]["integrity"], true);
    let (code, metrics) = get(address, "/metrics");
    assert_eq!(code, 200);
    let labels = r#"{namespace="default",kind="Backup",name="web",host="web"}"#;
    for (name, value) in [
        (format!("stash_appscode_com_backupsession_success{labels}"), " 1"),
        (format!("stash_appscode_com_backupsession_duration_seconds{labels}"), " "),
        (format!("stash_appscode_com_backupsession_last_success_time_seconds{labels}"), " 1"),
        (format!("stash_appscode_com_backupsession_host_backup_success{labels}"), " 1"),
        (format!("stash_appscode_com_backupsession_host_data_size_bytes{labels}"), " 4"),
        (format!("stash_appscode_com_backupsession_host_data_uploaded_bytes{labels}"), " "),
        (format!("restic_session_success{labels}"), " 1"),
        (format!("restic_session_fail{labels}"), " 0"),
        (format!("restic_session_duration_seconds_total{labels}"), " "),
        (format!("restic_session_duration_seconds{labels}"), " "),
        (r#"stash_appscode_com_repository_integrity{namespace="default",name="repo"}"#.to_owned(), " 1"),
        (r#"stash_appscode_com_repository_size_bytes{namespace="default",name="repo"}"#.to_owned(), " "),
        (r#"stash_appscode_com_repository_snapshot_count{namespace="default",name="repo"}"#.to_owned(), " 1"),
        ("holdfast_manifest_errors".to_owned(), " 0"),
    ] {
        let sample = format!("{name}{value}");
        assert!(metrics.lines().any(|line| line.starts_with(&sample)), "no {sample} in:\n{metrics}");
    }
    service.stops();
    assert_eq!(service.said().last().unwrap()["messageType"], "summary");
}

#[test]
fn changes_of_the_folder_are_followed() {
    let machine = Machine::with(&[secret("secret"), repository("repo", "repo"), deployment_at("web", "data")]);
    machine.write("m/data/file", "text");
    let mut service = machine.start();
    let planned = |service: &mut Service| service.wait_for_type("planned")["plan"].clone();
    assert_eq!(planned(&mut service)["backups"], serde_json::json!([]));
    // A new Backup runs at once.
    machine.manifests("backup.yaml", &[backup("web", "web", "repo", "")]);
    assert_eq!(planned(&mut service)["backups"][0]["schedule"], "@every 1h");
    service.wait_for_end("Backup default/web");
    // In a new folder, too.
    machine.manifests("more/trigger.yaml", &[trigger("now", "web")]);
    service.wait_for_end("Backup default/web");
    // Files of a folder that was made while the program runs.
    machine.manifests("more/trigger.yaml", &[trigger("again", "web")]);
    service.wait_for_end("Backup default/web");
    // A mistake is told, and what is right goes on.
    machine.manifests("bad.yaml", &[backup("bad", "nobody", "repo", "")]);
    service.wait_for("the mistake", |message| {
        message["plan"]["errors"][0].as_str().is_some_and(|error| error.contains("nobody"))
            && message["plan"]["backups"][0]["host"] == "web"
    });
    // A changed schedule, and a removed object.
    machine.manifests("backup.yaml", &[backup("web", "web", "repo", "").replace("1h", "2h")]);
    service.wait_for("the schedule", |message| message["plan"]["backups"][0]["schedule"] == "@every 2h");
    std::fs::remove_file(machine.path("m/backup.yaml")).unwrap();
    service.wait_for("the removal", |message| message["plan"]["backups"] == serde_json::json!([]));
    service.stops();
    assert_eq!(machine.restic("m/repo").snapshots().len(), 3);
}

#[test]
fn files_of_a_protected_folder_are_no_manifests() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/evil.yaml", recovery("evil", "volume: {mountPath: /data, hostPath: {path: evil}}", ""));
    machine.once().succeeded();
    machine.once().succeeded();
    assert!(!machine.path("m/evil").exists(), "data was obeyed");
    machine.restic("m/repo").assert_holds("/data", &machine.path("m/data"));
}

#[test]
fn a_trigger_counts_over_restarts() {
    let mut manifests = web("paused: true");
    manifests.push(trigger("now", "web"));
    let machine = Machine::with(&manifests);
    machine.write("m/data/file", "text");
    let mut service = machine.start();
    service.wait_for_end("Backup default/web");
    service.stops();
    let mut service = machine.start();
    service.wait_for_type("waiting");
    service.stops();
    assert_eq!(machine.restic("m/repo").snapshots().len(), 1);
}

#[test]
fn told_to_stop_in_the_middle_it_leaves_no_lock() {
    for signal in ["TERM", "INT"] {
        let machine = with_much_data(&web(""));
        let mut service = machine.start();
        wait_for_lock(&machine);
        let (status, took) = service.stop_by(signal);
        assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
        service.wait_for_type("stopped");
        assert_eq!(machine.restic("m/repo").run(&["list", "locks"]), "");
        assert_eq!(machine.state()["running"], serde_json::json!({}));
        // It is as if the run had not begun: due again.
        machine.run(&["status", "m"]).succeeded().says(&["Backup default/web", "never", "now"]);
    }
}

#[test]
fn told_to_stop_with_once_it_says_so_by_its_exit_code() {
    let machine = with_much_data(&web(""));
    let mut service = Service::start(machine.command(&["standalone", "m", "--once"]));
    wait_for_lock(&machine);
    let (status, _) = service.stop();
    assert_eq!(status.code(), Some(130));
    machine.restic("m/repo").check();
}

#[test]
fn killed_in_the_middle_it_goes_on_at_the_next_start() {
    let mut manifests = web("paused: true");
    manifests.push(trigger("now", "web"));
    let machine = with_much_data(&manifests);
    let mut service = machine.start();
    wait_for_lock(&machine);
    service.kill();
    let killed = machine.read("m/.holdfast/state.json");
    std::fs::remove_file(machine.path("m/data/large")).unwrap();
    // Nothing runs now, whatever was written down.
    machine.run(&["status", "m"]).succeeded().says(&["Backup default/web", "never"]);
    assert_ne!(machine.restic("m/repo").run(&["list", "locks"]), "");
    let mut service = machine.start();
    service.wait_for("a word about the lock", |message| {
        message["messageType"] == "note"
            && message["message"].as_str().unwrap().contains("lock")
            && message["message"].as_str().unwrap().contains("removed")
    });
    let run = service.wait_for_end("Backup default/web");
    assert_eq!(run["outcome"], "Succeeded");
    assert!(run["notes"][0].as_str().unwrap().contains("removed"), "{run}");
    service.stops();
    let event = &machine.events()[0];
    assert!(event["message"].as_str().unwrap().contains("removed"), "{event}");
    let restic = machine.restic("m/repo");
    restic.check();
    assert_eq!(restic.snapshots().len(), 1);
    // Had the first run been killed when its snapshot was stored already, that would be the one, until something changes.
    for (content, expected) in [("text", 1), ("other text", 2)] {
        machine.write("m/.holdfast/state.json", &killed);
        if content != "text" {
            machine.write("m/data/file", content);
        }
        let mut service = machine.start();
        let run = service.wait_for_end("Backup default/web");
        assert_eq!(run["outcome"], "Succeeded");
        service.stops();
        let snapshots = restic.snapshots();
        let says_so = run["notes"].to_string().contains("nothing has changed since");
        assert_eq!((snapshots.len(), says_so), (expected, expected == 1), "{run}");
        let told = run["snapshots"][0].as_str().unwrap();
        assert!(snapshots.iter().any(|snapshot| snapshot["id"].as_str().unwrap().starts_with(told)), "{run}");
    }
}

#[test]
fn a_failed_run_is_tried_again_and_others_go_on() {
    let mut manifests = web("retryConfig: {maxRetry: 3, delay: 1s}");
    manifests.extend([repository("repo2", "repo2"), deployment_at("ok", "ok"), backup("ok", "ok", "repo2", "")]);
    let machine = Machine::with(&manifests);
    machine.write("m/ok/file", "text");
    let mut service = machine.start();
    let run = service.wait_for_end("Backup default/web");
    assert_eq!(run["outcome"], "Failed");
    let error = run["error"].as_str().unwrap();
    assert!(error.contains("/m/data does not exist") && error.contains("create it"), "{error}");
    assert_eq!(service.wait_for_end("Backup default/web")["outcome"], "Failed");
    machine.run(&["status", "m"]).succeeded().says(&["Backup default/web", "does not exist"]);
    machine.write("m/data/file", "text");
    assert_eq!(service.wait_for_end("Backup default/web")["outcome"], "Succeeded");
    service.stops();
    let state = machine.state();
    let starts: Vec<jiff::Timestamp> = state["runs"]["Backup/default/web/deployment.web"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|run| run["start"].as_str().unwrap().parse().unwrap())
        .collect();
    let pause = |n: usize| starts[n + 1].duration_since(starts[n]).as_millis();
    assert!(pause(0) >= 1_000 && pause(1) >= 2_000, "{starts:?}");
    assert_eq!(state["runs"]["Backup/default/ok/deployment.ok"]["succeeded"], 1);
    assert_eq!(state["observed"]["backups"]["Backup/default/web/deployment.web"]["attempts"], 0);
}

#[test]
fn a_mended_secret_is_not_waited_for() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.once().succeeded();
    let mut manifests = web("retryConfig: {maxRetry: 1, delay: 1h}");
    manifests[0] = secret_with("secret", "RESTIC_PASSWORD: wrong");
    manifests.push(trigger("now", "web"));
    machine.manifests("all.yaml", &manifests);
    let mut service = machine.start();
    assert_eq!(service.wait_for_end("Backup default/web")["outcome"], "Failed");
    manifests[0] = secret("secret");
    machine.manifests("all.yaml", &manifests);
    assert_eq!(service.wait_for_end("Backup default/web")["outcome"], "Succeeded");
    service.stops();
    let history = &machine.state()["observed"]["backups"]["Backup/default/web/deployment.web"];
    assert_eq!(history["attempts"], 0);
}

#[test]
fn a_restart_mends_nothing() {
    let machine = Machine::with(&web("retryConfig: {maxRetry: 1, delay: 1h}"));
    machine.once().exits(1);
    machine.once().succeeded();
    assert_eq!(machine.state()["runs"]["Backup/default/web/deployment.web"]["count"], 1);
}

#[test]
fn another_program_on_the_repository_is_waited_for() {
    let machine = Machine::with(&web("retentionPolicy: {keepLast: 1, prune: true}"));
    machine.write("m/data/file", "text");
    machine.once().succeeded();
    // restic, in the middle of a backup: it reads until its input ends.
    let mut restic = Command::new(tool("restic"));
    restic
        .args(["--no-cache", "-q", "-r"])
        .arg(machine.path("m/repo"))
        .args(["backup", "--stdin"])
        .env("RESTIC_PASSWORD", PASSWORD);
    let mut restic = restic.stdin(Stdio::piped()).spawn().unwrap();
    restic.stdin.as_mut().unwrap().write_all(b"some").unwrap();
    wait_for_lock(&machine);
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    let mut service = machine.start();
    let pid = restic.id().to_string();
    service.wait_for("a word about the wait", |message| {
        message["message"].as_str().is_some_and(|note| note.contains("is locked by") && note.contains(&pid))
    });
    drop(restic.stdin.take());
    assert!(restic.wait().unwrap().success());
    let run = service.wait_for_end("Backup default/web");
    assert_eq!((&run["outcome"], &run["forgotten"]), (&"Succeeded".into(), &1.into()));
    service.stops();
    machine.restic("m/repo").check();
}

#[test]
fn a_run_that_waits_for_a_silent_store_is_stopped() {
    // A server that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let s3 = format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: Repository\nmetadata: {{name: repo}}\nspec:\n  backend:\n    storageSecretName: secret\n    \
         s3: {{endpoint: 'http://{}', bucket: b, region: us-east-1}}\n",
        silent.local_addr().unwrap()
    );
    let machine = Machine::with(&[
        secret_with("secret", "RESTIC_PASSWORD: x, AWS_ACCESS_KEY_ID: a, AWS_SECRET_ACCESS_KEY: b"),
        s3,
        deployment_at("web", "data"),
        backup("web", "web", "repo", ""),
    ]);
    machine.write("m/data/file", "text");
    let mut service = machine.start();
    service.wait_for_type("started");
    let connection = silent.accept().unwrap();
    let (status, took) = service.stop();
    // Before it is given up, which takes 9 s.
    assert!(status.success() && took < Duration::from_secs(8), "{status} after {took:?}");
    assert_eq!(service.wait_for_type("stopped")["object"], "Backup default/web");
    drop(connection);
}

#[test]
fn two_programs_on_one_folder_are_refused() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    let mut service = machine.start();
    service.wait_for_type("waiting");
    machine.once().exits(1).says(&["another holdfast works with m/.holdfast"]).says(&["hint", "one is enough"]);
    // Looking is always possible.
    machine.run(&["status", "m"]).succeeded();
    machine.run(&["plan", "m"]).succeeded();
    service.stops();
    machine.once().succeeded();
}

#[test]
fn an_address_in_use_is_an_error_with_a_way_out() {
    let machine = Machine::with(&web(""));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = machine.run(&["standalone", "m", "--listen", &address]);
    ran.exits(1).says(&["cannot serve metrics and status at", &address, "in use"]).says(&["hint", "--listen"]);
}

#[test]
fn a_damaged_state_is_set_aside() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.once().succeeded();
    machine.write("m/.holdfast/state.json", "{\"runs\": [");
    machine.run(&["status", "m"]).exits(1).says(&["m/.holdfast/state.json is damaged", "remove it"]);
    machine.once().succeeded().says(&["note", "state.json.damaged", "history starts afresh"]);
    assert_eq!(machine.read("m/.holdfast/state.json.damaged"), "{\"runs\": [");
    machine.run(&["status", "m"]).succeeded();
    assert_eq!(machine.restic("m/repo").snapshots().len(), 2);
}

#[test]
fn a_folder_that_cannot_be_read_for_a_while_changes_nothing() {
    let machine = Machine::with(&web("paused: true"));
    machine.write("m/data/file", "text");
    let mut service = machine.start();
    let address = service.address();
    service.wait_for_type("planned");
    // No manifest is that large: the folder as a whole counts as unreadable.
    let large = machine.path("m/large.yaml");
    std::fs::File::create(&large).unwrap().set_len(17 << 20).unwrap();
    let message = service.wait_for_type("error");
    assert!(message["message"].as_str().unwrap().contains("m/large.yaml"), "{message}");
    eventually("trouble on the page", || get(address, "/healthz").0 == 503);
    let status: Value = serde_json::from_str(&get(address, "/status").1).unwrap();
    assert_eq!(status["backups"][0]["object"], "Backup default/web", "what was read before goes on");
    std::fs::remove_file(large).unwrap();
    eventually("no trouble on the page", || get(address, "/healthz").0 == 200);
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    service.wait_for_end("Backup default/web");
    service.stops();
}

#[test]
fn a_repository_that_restic_made_is_used() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    let restic = machine.restic("m/repo");
    restic.run(&["init"]);
    machine.once().succeeded();
    restic.check();
    assert_eq!(restic.snapshots().len(), 1);
}

#[test]
fn a_state_that_cannot_be_saved_is_told_and_stops_no_backup() {
    let machine = Machine::with(&web("paused: true"));
    machine.write("m/data/file", "text");
    let mut service = machine.start();
    let address = service.address();
    service.wait_for_type("waiting");
    // In the way of the new state, also for root.
    let in_the_way = machine.path("m/.holdfast/state.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    let message = service.wait_for_type("error");
    assert!(message["message"].as_str().unwrap().contains("cannot write m/.holdfast/state.json"), "{message}");
    assert_eq!(service.wait_for_end("Backup default/web")["outcome"], "Succeeded");
    eventually("trouble on the page", || get(address, "/healthz").0 == 503);
    std::fs::remove_dir(&in_the_way).unwrap();
    machine.manifests("trigger.yaml", &[trigger("again", "web")]);
    service.wait_for_end("Backup default/web");
    eventually("no trouble on the page", || get(address, "/healthz").0 == 200);
    service.stops();
    assert_eq!(machine.state()["runs"]["Backup/default/web/deployment.web"]["count"], 2);
}
