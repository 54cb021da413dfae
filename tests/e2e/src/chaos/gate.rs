//! The gate, by which the others kill, does what it says.

use crate::harness::{Moment, test};

#[test]
fn a_gate_holds_everything_at_one_request() {
    test(async |t| {
        let store = t.object_store().await;
        t.restic(&t.url(store, "store"), "version").await;
        let gate = t.gate("front", 9000, t.object_store_address().await).await;
        let url = t.url("http://front:9000", "store");
        // restic does not wait for a node to learn of a new Service.
        t.until("the new Service leads somewhere", async || {
            let config = t.exec("restic", &["restic", "--no-cache", "-r", &url, "cat", "config"]).await;
            if config.stderr.contains("dial tcp") { Err(config.stderr) } else { Ok(()) }
        })
        .await;
        t.restic(&url, "init").await;
        let requests = gate.take();
        let is = |request: &String, method: &str, folder: &str| request.starts_with(method) && request.contains(folder);
        assert!(requests.iter().any(|request| is(request, "PUT", "/keys/")), "{requests:#?}");

        // A backup is held between its lock and whatever comes after that.
        gate.hold_at(Moment { after: Some(("PUT", "/locks/")), others: 0 });
        t.sh("restic", "mkdir /tmp/data && head -c 100000 /dev/urandom > /tmp/data/file").await;
        let backup = format!("restic --no-cache -r '{url}' backup /tmp/data > /tmp/said 2>&1; echo $? > /tmp/ended");
        t.sh("restic", &format!("({backup}) > /dev/null 2>&1 &")).await;
        gate.held().await;
        let before = gate.take();
        assert!(before.last().is_some_and(|request| is(request, "PUT", "/locks/")), "{before:#?}");
        assert_eq!(t.exec("restic", &["cat", "/tmp/ended"]).await.code, 1, "it has not ended");
        assert!(gate.take().is_empty(), "nothing passes");

        // What was held is tried again by restic, and everything passes.
        gate.open();
        t.until("the backup ends", async || {
            let ended = t.exec("restic", &["cat", "/tmp/ended"]).await;
            if ended.stdout == "0\n" { Ok(()) } else { Err(t.sh("restic", "cat /tmp/said").await) }
        })
        .await;
        assert!(gate.take().iter().any(|request| is(request, "PUT", "/snapshots/")));
        assert_eq!(t.restic(&url, "--no-lock list snapshots").await.lines().count(), 1);
    });
}
