//! The platform's own proof: what later tests take for granted of a Kubernetes is there and works.

use serde_json::json;

use crate::harness::{Flow, Value, container_status, is_true, test};

/// The pod template of a busybox that runs a script; `more` goes into its container.
pub(crate) fn busybox(script: &str, more: &Value) -> Value {
    let mut container = json!({"name": "app", "image": "$BUSYBOX", "command": ["sh", "-c", script],
        "terminationMessagePolicy": "FallbackToLogsOnError"});
    container.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"terminationGracePeriodSeconds": 0, "containers": [container]})
}

pub(crate) fn workload(kind: &str, name: &str, pod: &Value, more: &Value) -> String {
    let mut spec = json!({"selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod}});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string()
}

fn pod(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn ready(pod: &Value) -> bool {
    is_true(pod, "Ready")
}

fn ended(pod: &Value) -> bool {
    pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
}

fn claim(name: &str, more: &Value) -> String {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// A pod that sleeps with this claim at `/data`.
fn pod_with_claim(name: &str, claim: &str) -> String {
    let mut spec = busybox("exec sleep 3600", &json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]}));
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    pod(name, &spec)
}

#[test]
fn a_deployment_runs_and_heals() {
    test(async |t| {
        t.apply(&workload("Deployment", "web", &busybox("exec sleep 3600", &json!({})), &json!({"replicas": 2}))).await;
        t.wait("Deployment/web", "two pods ready", |web| web["status"]["readyReplicas"] == 2).await;
        let before = t.list("Pod", "app=web").await;
        let victim = before[0]["metadata"]["name"].as_str().unwrap();
        t.kill_pod(victim).await;
        t.wait_all("Pod", "app=web", "two pods ready, without the killed one", |pods| {
            pods.len() == 2 && pods.iter().all(|pod| ready(pod) && pod["metadata"]["name"] != victim)
        })
        .await;
    });
}

#[test]
fn a_stateful_set_keeps_its_claims() {
    test(async |t| {
        let mount = json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]});
        let claims = json!({"replicas": 2, "serviceName": "db", "volumeClaimTemplates": [{"metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}}]});
        let script = "[ -e /data/first ] || hostname > /data/first; exec sleep 3600";
        t.apply(&workload("StatefulSet", "db", &busybox(script, &mount), &claims)).await;
        t.wait("StatefulSet/db", "two pods ready", |db| db["status"]["readyReplicas"] == 2).await;
        let uid = t.get("Pod/db-1").await["metadata"]["uid"].clone();
        t.sh("db-1", "echo kept > /data/note").await;
        t.kill_pod("db-1").await;
        t.wait("Pod/db-1", "a new pod that is ready", |pod| ready(pod) && pod["metadata"]["uid"] != uid).await;
        assert_eq!(t.sh("db-1", "cat /data/first /data/note").await, "db-1\nkept\n");
        assert_eq!(t.sh("db-0", "ls /data").await, "first\n");
    });
}

#[test]
fn a_daemon_set_has_a_pod_on_every_node() {
    test(async |t| {
        let nodes = t.list("Node", "").await.len();
        assert!(nodes >= 2, "{nodes} nodes");
        t.apply(&workload("DaemonSet", "agent", &busybox("exec sleep 3600", &json!({})), &json!({}))).await;
        t.wait("DaemonSet/agent", "ready on all nodes", |agent| agent["status"]["numberReady"] == nodes).await;
        let pods = t.list("Pod", "app=agent").await;
        let places: std::collections::BTreeSet<_> = pods.iter().map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        assert_eq!(places.len(), nodes);
    });
}

#[test]
fn a_job_runs_to_its_end_and_its_log_stays() {
    test(async |t| {
        let mut spec = busybox("echo done", &json!({}));
        spec["restartPolicy"] = json!("Never");
        t.apply(
            &json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
                "spec": {"backoffLimit": 0, "template": {"spec": spec}}})
            .to_string(),
        )
        .await;
        t.wait("Job/once", "complete", |job| job["status"]["succeeded"] == 1).await;
        let pods = t.list("Pod", "job-name=once").await;
        assert_eq!(t.log(pods[0]["metadata"]["name"].as_str().unwrap(), "app").await, "done\n");
    });
}

#[test]
fn a_service_answers_by_name_from_every_node() {
    test(async |t| {
        let serve = "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
        let probe = json!({"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
        t.apply(&workload("Deployment", "web", &busybox(serve, &probe), &json!({"replicas": 1}))).await;
        t.apply(
            "{apiVersion: v1, kind: Service, metadata: {name: web}, \
              spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}",
        )
        .await;
        t.apply(&workload("DaemonSet", "client", &busybox("exec sleep 3600", &json!({})), &json!({}))).await;
        t.wait("Deployment/web", "ready", |web| web["status"]["readyReplicas"] == 1).await;
        let clients = t.wait_all("Pod", "app=client", "ready", |pods| pods.len() > 1 && pods.iter().all(ready)).await;
        for client in &clients {
            let client = client["metadata"]["name"].as_str().unwrap();
            for name in [format!("web.{}.svc.cluster.local", t.namespace), "web".to_owned()] {
                t.until("the Service answers by its name", async || t.http_get(client, &name, 80, "/").await).await;
            }
        }
    });
}

#[test]
fn a_memory_limit_kills() {
    test(async |t| {
        let mut spec =
            busybox("exec tail -c 100000000 /dev/zero", &json!({"resources": {"limits": {"memory": "16Mi"}}}));
        spec["restartPolicy"] = json!("Never");
        t.apply(&pod("greedy", &spec)).await;
        let pod = t.wait("Pod/greedy", "ended", ended).await;
        let end = &container_status(&pod, "app")["state"]["terminated"];
        assert_eq!((&end["reason"], &end["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{end}");
    });
}

#[test]
fn a_snapshot_restores_and_a_claim_is_cloned() {
    test(async |t| {
        t.apply(&claim("origin", &json!({}))).await;
        t.apply(&pod_with_claim("writer", "origin")).await;
        t.wait("Pod/writer", "ready", ready).await;
        let write = "head -c 3000000 /dev/urandom > /data/random; mkdir /data/deep; echo old > /data/deep/note; \
            ln -s deep/note /data/link; sync; cd /data; md5sum random deep/note";
        let sums = t.sh("writer", write).await;
        t.apply(
            "{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: shot}, \
              spec: {source: {persistentVolumeClaimName: origin}}}",
        )
        .await;
        t.wait("VolumeSnapshot/shot", "ready to use", |shot| shot["status"]["readyToUse"] == true).await;
        t.apply(&claim("cloned", &json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "origin"}}))).await;
        t.apply(&pod_with_claim("cloned", "cloned")).await;
        t.wait("Pod/cloned", "ready", ready).await;

        // What is written now must show in neither.
        t.sh("writer", "echo new > /data/deep/note; rm /data/random").await;
        let from = json!({"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot",
            "name": "shot"}});
        t.apply(&claim("restored", &from)).await;
        t.apply(&pod_with_claim("restored", "restored")).await;
        t.wait("Pod/restored", "ready", ready).await;
        for copy in ["restored", "cloned"] {
            assert_eq!(t.sh(copy, "cd /data; md5sum random deep/note").await, sums, "{copy}");
            assert_eq!(t.sh(copy, "readlink /data/link").await, "deep/note\n", "{copy}");
        }
    });
}

#[test]
fn helm_installs_a_chart() {
    test(async |t| {
        let chart = std::env::temp_dir().join(&t.namespace);
        std::fs::create_dir_all(chart.join("templates")).unwrap();
        std::fs::write(chart.join("Chart.yaml"), "{apiVersion: v2, name: small, version: 0.1.0}").unwrap();
        let template = "{apiVersion: v1, kind: ConfigMap, metadata: {name: '{{ .Release.Name }}'}, \
            data: {colour: '{{ .Values.colour }}'}}";
        std::fs::write(chart.join("templates/map.yaml"), template).unwrap();
        t.helm(&["install", "first", chart.to_str().unwrap(), "--set", "colour=green"]).await;
        assert_eq!(t.get("ConfigMap/first").await["data"]["colour"], "green");
        t.helm(&["uninstall", "first"]).await;
        t.gone("ConfigMap/first").await;
        std::fs::remove_dir_all(chart).unwrap();
    });
}

#[test]
fn restic_works_with_the_object_store() {
    test(async |t| {
        let store = t.object_store().await;
        let repository = format!("s3:{store}/backups/{}", t.namespace);
        t.restic(&repository, "init").await;
        t.restic(&repository, "backup --stdin-from-command -- echo hello").await;
        assert_eq!(t.restic(&repository, "dump latest /stdin").await, "hello\n");
        // Through a Service of this namespace that refuses for a while, as tests of an outage do.
        let proxy = t.proxy("store", 9000, t.object_store_address().await).await;
        let refused = format!("timeout 3 restic --no-cache -r s3:http://store:9000/backups/{} snapshots", t.namespace);
        let snapshots = async || t.exec("restic", &["sh", "-c", &refused]).await;
        t.until("restic reaches the store by the proxy", async || {
            let output = snapshots().await;
            if output.code == 0 { Ok(()) } else { Err(format!("{output:?}")) }
        })
        .await;
        proxy.set(Flow::Refuse);
        assert_ne!(snapshots().await.code, 0);
    });
}

#[test]
fn a_pod_under_restricted_runs_and_another_is_refused() {
    test(async |t| {
        let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        t.patch(&format!("Namespace/{}", t.namespace), &labels).await;
        let refused = t.try_apply(&pod("free", &busybox("true", &json!({})))).await.unwrap_err();
        assert!(refused.contains("violates PodSecurity"), "{refused}");

        let context = json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"}}});
        t.apply(&pod("bound", &busybox("exec sleep 3600", &context))).await;
        t.wait("Pod/bound", "ready", ready).await;
        let status = t.sh("bound", "id -u; grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status").await;
        let status: Vec<_> = status.split_whitespace().collect();
        assert_eq!(status, ["65532", "CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"]);
        assert_ne!(t.exec("bound", &["touch", "/x"]).await.code, 0, "the root filesystem is writable");
    });
}
