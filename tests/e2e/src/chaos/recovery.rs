//! The Job of a recovery killed at any request of its.

use std::time::Instant;

use super::{Random, Rounds, SUM, kills, spread};
use crate::harness::{Moment, Value, test};

/// A folder of which a part is gone, and a part older than what is recovered.
const PART: &str = "cd /data && rm -r small large-3 && : > large-2 && touch -d '2020-02-02 02:02:02' large-2";

#[test]
fn a_recovery_killed_at_any_request_is_made_up_for() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.protect_db(store, 1000).await;
        let mut rounds = Rounds::new();
        t.change_data("db-0/app", &mut rounds, 1).await;
        t.trigger("one", "db").await;
        t.condition("BackupTrigger/one", "Complete").await;
        t.claim("recovered").await;
        t.look_into("reader", "recovered", "/data").await;

        // The same repository, by a way on which it can be held.
        let gate = t.gate("front", 9000, t.object_store_address().await).await;
        t.apply(
            "{apiVersion: stash.appscode.com/v1alpha2, kind: Repository, metadata: {name: held}, spec: {backend: {
              s3: {endpoint: 'http://front:9000', bucket: backups, prefix: $NAMESPACE/store}, storageSecretName: storage}}}",
        )
        .await;
        let mut random = Random::new("recovery");
        let recover = async |name: &str| t.recover(name, "held", "recovered", 5).await;
        let recovered = async |name: &str| {
            t.condition(&format!("Recovery/{name}"), "Complete").await;
            t.sh("reader", &format!("cd /data && {SUM}")).await.trim().to_owned()
        };
        recover("alone").await;
        assert_eq!(Some(&recovered("alone").await), rounds.get(&1));
        let requests = gate.take().len();

        let (mut told, mut healed) = (Vec::new(), Vec::new());
        let mut round = 0;
        while told.len() < kills() {
            round += 1;
            assert!(round <= 2 * kills() + 5, "recoveries end before they can be killed: {} of {round}", told.len());
            // Sometimes onto what the last one left, sometimes with a part of it gone, sometimes into an empty volume.
            let before = ["true", PART, "rm -rf /data/*"];
            t.sh("reader", before[random.below(before.len())]).await;
            let name = format!("round-{round}");
            // The first one leaves its lock, whatever the numbers are.
            let moment = match round {
                1 => Moment { after: Some(("PUT", "/locks/")), others: 0 },
                _ => Moment { after: None, others: random.below(requests) },
            };
            gate.hold_at(moment.clone());
            recover(&name).await;
            // With less to restore it takes fewer requests.
            let object = format!("Recovery/{name}");
            let done = tokio::select! {
                () = gate.held() => false,
                _ = t.condition(&object, "Complete") => true,
            };
            if !done {
                let labels = "app.kubernetes.io/component=recovery";
                let running = |pods: &[Value]| pods.iter().any(|pod| pod["status"]["phase"] == "Running");
                let pods = t.wait_all("Pod", labels, "one that runs", running).await;
                let pod = pods.iter().find(|pod| pod["status"]["phase"] == "Running").expect("just seen");
                let (pod, container) = (&pod["metadata"]["name"], &pod["spec"]["containers"][0]["name"]);
                let begun = Instant::now();
                t.kill_processes(pod.as_str().expect("a name"), container.as_str().expect("a name"), "").await;
                gate.open();
                let is_over = |recovery: &Value| recovery["status"]["hosts"][0]["count"].as_u64() >= Some(1);
                let (failed, took) = t.told(&object, is_over).await;
                assert!(failed["status"]["hosts"][0]["error"].is_string(), "it says why: {failed:#}");
                t.condition(&object, "Complete").await;
                println!("recovery killed at {moment:?}: told {took:.1?}, recovered {:.1?}", begun.elapsed());
                told.push(took);
                healed.push(begun.elapsed());
            }
            gate.open();
            assert_eq!(Some(&recovered(&name).await), rounds.get(&1), "{name} at {moment:?}");
            let host = t.get(&object).await["status"]["hosts"][0].clone();
            assert_eq!(host["count"], if done { 1 } else { 2 }, "one run for each try of {name}: {host:#}");
            t.delete(&object).await;
        }
        // Retention is alone in the repository: the locks of those that were killed are in its way.
        t.change_data("db-0/app", &mut rounds, 2).await;
        t.trigger("two", "db").await;
        t.condition("BackupTrigger/two", "Complete").await;
        t.judge(&t.url(store, "store"), &rounds).await;
        let (killed, told, healed) = (told.len(), spread(&told), spread(&healed));
        println!("recovery: {killed} of {round} killed; told as failed after {told}; recovered again after {healed}");
    });
}
