//! The faults that tests make do what they say.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Flow, container_status, test};

#[test]
fn a_killed_process_restarts_its_container() {
    test(async |t| {
        t.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: two}, spec: {terminationGracePeriodSeconds: 0, containers: [
              {name: a, image: $BUSYBOX, command: [sleep, '3601']},
              {name: b, image: $BUSYBOX, command: [sleep, '3602']}]}}",
        )
        .await;
        let run = |pod: &crate::harness::Value, of: &str| container_status(pod, of)["state"]["running"].is_object();
        t.wait("Pod/two", "both containers run", |pod| run(pod, "a") && run(pod, "b")).await;
        assert_eq!(t.kill_processes("two", "b", "sleep 3602").await, 1);
        let pod = t
            .wait("Pod/two", "b runs again", |pod| {
                container_status(pod, "b")["restartCount"] == 1 && run(pod, "b") && run(pod, "a")
            })
            .await;
        assert_eq!(container_status(&pod, "b")["lastState"]["terminated"]["exitCode"], json!(137));
        assert_eq!(container_status(&pod, "a")["restartCount"], json!(0));
    });
}

#[test]
fn a_service_is_refused_silent_slow_and_cut() {
    test(async |t| {
        t.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {
              terminationGracePeriodSeconds: 0, containers: [{name: app, image: $BUSYBOX,
              command: [sh, -c, 'head -c 100000 /dev/zero > /tmp/big; echo hello > /tmp/index.html; httpd -f -p 8080 -h /tmp'],
              readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}]}}
             \n---\n
             {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 8080}]}}",
        )
        .await;
        t.wait("Pod/web", "ready", |pod| container_status(pod, "app")["ready"] == true).await;
        let proxy = t.proxy("front", 80, t.endpoint("web").await).await;
        let front = t.get("Service/front").await["spec"]["clusterIP"].as_str().unwrap().to_owned();
        let get = async |page: &str| t.http_get("web", &front, 80, page).await;
        t.until("the proxy passes", async || get("/").await).await;

        proxy.set(Flow::Refuse);
        // A connection that was taken a moment before is closed.
        t.until("refused", async || match get("/").await {
            Err(error) if error.contains("refused") => Ok(()),
            Err(error) => Err(error),
            Ok(page) => panic!("a proxy that refuses lets {page:?} through"),
        })
        .await;
        proxy.set(Flow::Silent);
        let silent = t.http_get_within(Duration::from_secs(3), "web", &front, 80, "/").await.unwrap_err();
        assert!(silent.contains("Terminated"), "{silent}");
        proxy.set(Flow::Slow(Duration::from_millis(500)));
        let start = Instant::now();
        assert_eq!(get("/").await.unwrap(), "hello\n");
        assert!(start.elapsed() >= Duration::from_secs(1), "request and answer wait half a second each");
        proxy.set(Flow::CutAfter(20_000));
        assert_eq!(get("/").await.unwrap(), "hello\n");
        let cut = get("/big").await.unwrap();
        assert!(cut.len() < 100_000, "{} bytes came through", cut.len());
        proxy.set(Flow::Open);
        assert_eq!(get("/big").await.unwrap().len(), 100_000);
    });
}

#[test]
fn a_volume_is_full_at_the_size_asked_for() {
    test(async |t| {
        t.small_claim("small", "4Mi").await;
        t.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: writer}, spec: {terminationGracePeriodSeconds: 0,
              containers: [{name: app, image: $BUSYBOX, command: [sleep, '3600'],
                volumeMounts: [{name: data, mountPath: /data}]}],
              volumes: [{name: data, persistentVolumeClaim: {claimName: small}}]}}",
        )
        .await;
        t.wait("Pod/writer", "running", |pod| pod["status"]["phase"] == "Running").await;
        let bytes = t.fill("writer", "/data").await;
        assert!((1 << 20..=4 << 20).contains(&bytes), "{bytes}");
        assert!(t.exec("writer", &["sh", "-c", "echo more > /data/more"]).await.stderr.contains("No space"));
        t.sh("writer", "rm /data/filler; echo more > /data/more").await;
    });
}

#[test]
fn storage_refuses_fails_and_recovers() {
    test(async |t| {
        let claim = |name: &str| {
            format!(
                "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{storageClassName:
                  dir-immediate, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}}}"
            )
        };
        let bound = |claim: &crate::harness::Value| claim["status"]["phase"] == "Bound";
        let failing = t.storage_fault("fail-create-volume");
        t.apply(&claim("origin")).await;
        t.wait_all("Event", "", "the failure of the volume", |events| {
            events.iter().any(|event| event["reason"] == "ProvisioningFailed")
        })
        .await;
        assert!(!bound(&t.get("PersistentVolumeClaim/origin").await));
        drop(failing);
        t.wait("PersistentVolumeClaim/origin", "bound", bound).await;

        let refusing = t.storage_fault("refuse-snapshots");
        t.apply(
            "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: shot},
              spec: {source: {persistentVolumeClaimName: origin}}}",
        )
        .await;
        let shot = t.wait("VolumeSnapshot/shot", "refused", |shot| shot["status"]["error"].is_object()).await;
        assert_ne!(shot["status"]["readyToUse"], json!(true));
        drop(refusing);
        t.wait("VolumeSnapshot/shot", "ready to use", |shot| shot["status"]["readyToUse"] == true).await;
    });
}
