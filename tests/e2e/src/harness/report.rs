//! What is printed of a failed test's namespace: events, pods with the state of their containers and the end of their
//! logs, and claims. The object that was waited for is in the failure itself.

use serde_json::Value;

use super::Test;

/// The product's own kinds whose status tells how it went.
const OURS: [&str; 5] = ["Restic", "Repository", "Backup", "BackupTrigger", "Recovery"];

/// Prints it to the test's output, which libtest shows when the test fails.
pub(super) async fn print(test: &Test) {
    print_namespace(test).await;
    let operator = test.in_namespace(super::operator::NAMESPACE);
    for kind in OURS {
        if test.serves(kind).await {
            for object in listed(test, kind).await {
                println!("{kind}/{}: {:#}", text(&object["metadata"]["name"]), object["status"]);
            }
        }
    }
    if test.namespace != operator.namespace {
        for pod in listed(&operator, "Pod").await {
            print_pod(&operator, &pod).await;
        }
    }
}

async fn print_namespace(test: &Test) {
    println!("\n===== namespace {} =====", test.namespace);
    for event in listed(test, "Event").await {
        let object = format!("{}/{}", text(&event["involvedObject"]["kind"]), text(&event["involvedObject"]["name"]));
        let time = [&event["lastTimestamp"], &event["eventTime"]].into_iter().map(text).find(|t| !t.is_empty());
        let (reason, message) = (text(&event["reason"]), text(&event["message"]));
        println!("event  {} {object}: {reason}: {message}", time.unwrap_or_default());
    }
    for claim in listed(test, "PersistentVolumeClaim").await {
        println!("claim  {}: {}", text(&claim["metadata"]["name"]), text(&claim["status"]["phase"]));
    }
    for pod in listed(test, "Pod").await {
        print_pod(test, &pod).await;
    }
    println!("===== end of namespace {} =====", test.namespace);
}

async fn print_pod(test: &Test, pod: &Value) {
    let name = text(&pod["metadata"]["name"]);
    let status = &pod["status"];
    println!("\npod    {name} on {}: {} {}", text(&pod["spec"]["nodeName"]), text(&status["phase"]), status["message"]);
    for list in ["initContainerStatuses", "containerStatuses"] {
        for container in status[list].as_array().into_iter().flatten() {
            let (of, restarts) = (text(&container["name"]), container["restartCount"].as_u64().unwrap_or_default());
            println!("  {of}: {restarts} restarts, {}, before {}", container["state"], container["lastState"]);
            if restarts > 0 {
                print_log(of, "before", test.log_end(name, of, true).await);
            }
            print_log(of, "log", test.log_end(name, of, false).await);
        }
    }
}

fn print_log(container: &str, which: &str, log: Result<String, kube::Error>) {
    match log {
        Ok(log) => log.lines().for_each(|line| println!("    {container} {which}| {line}")),
        Err(error) => println!("    {container} {which}: cannot be read: {error}"),
    }
}

/// All of a kind, oldest first. Nothing when it cannot be read: the report must not hide the failure.
async fn listed(test: &Test, kind: &str) -> Vec<Value> {
    match test.objects.api(kind).await.list(&kube::api::ListParams::default()).await {
        Ok(list) => {
            let mut items: Vec<Value> = list.items.iter().map(super::api::value).collect();
            items.sort_by_key(|item| text(&item["metadata"]["creationTimestamp"]).to_owned());
            items
        }
        Err(error) => {
            println!("cannot list {kind}: {error}");
            Vec::new()
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
