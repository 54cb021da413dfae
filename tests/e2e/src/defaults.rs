//! Backups by annotations, of claims, by templates of one's own; and several on one workload.

use serde_json::json;

use crate::harness::{IMAGE, REPOSITORY, Value, WEB, WRITE, is, is_true, test};

#[test]
fn an_annotation_protects_a_workload_by_a_template() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(WEB).await;
        t.sh(&t.pod_of("app=web").await, WRITE).await;
        t.apply(&format!(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: BackupTemplate
metadata: {{name: $NAMESPACE}}
spec:
  backend:
    s3: {{endpoint: '{store}', bucket: backups, prefix: 'default/${{metadata.namespace}}/${{metadata.name}}'}}
    storageSecretName: storage
  schedule: '@every 24h'
  retentionPolicy: {{keepLast: 5, prune: true}}
"
        ))
        .await;
        let annotations = |wanted: Value| {
            json!({"metadata": {"annotations": {
                "stash.appscode.com/backup": wanted,
                "stash.appscode.com/targetDirectories": "[/source/data]",
                "stash.appscode.com/backupTemplate": t.namespace,
            }}})
        };
        t.patch("Deployment/web", &annotations(json!("true"))).await;
        t.condition("Backup/deployment-web", "Ready").await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("now", "deployment-web").await;
        t.condition("BackupTrigger/now", "Complete").await;
        let repository = format!("s3:{store}/backups/default/{}/web", t.namespace);
        assert_eq!(t.restic(&repository, "--no-lock dump latest /source/data/deep/note").await, "first\n");
        t.restic(&repository, "--no-lock check --read-data").await;

        // What it made goes when nobody asks any more, but for what a Recovery would name.
        t.patch("Deployment/web", &annotations(Value::Null)).await;
        t.gone("Backup/deployment-web").await;
        t.containers("Deployment/web", |names| names == ["app"]).await;
        assert!(!t.get("Repository/deployment-web").await.is_null());
    });
}

#[test]
fn a_claim_without_a_workload_is_backed_up_by_jobs() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(
            "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fill}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: app
        image: $BUSYBOX
        command: [sh, -c, 'echo kept > /data/file; chown 1000 /data/file; chmod 600 /data/file']
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
",
        )
        .await;
        t.condition("Job/fill", "Complete").await;
        t.repository(store, "store").await;
        t.apply(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {name: claim}
spec:
  schedule: '@every 24h'
  paused: true
  repository: {name: store}
  targetRef: {apiVersion: v1, kind: PersistentVolumeClaim, name: data}
  podAttributes: {nodeSelector: {kubernetes.io/hostname: node-2}}
  containerAttributes: {resources: {limits: {memory: 128Mi}}}
  retentionPolicy: {keepLast: 1, prune: true}
",
        )
        .await;
        for name in ["first", "second"] {
            t.trigger(name, "claim").await;
            t.condition(&format!("BackupTrigger/{name}"), "Complete").await;
        }
        t.condition("Backup/claim", "BackedUp").await;
        let pods = t.list("Pod", "app.kubernetes.io/component=backup").await;
        assert_eq!(pods.len(), 2, "{pods:#?}");
        for pod in pods {
            let limits = &pod["spec"]["containers"][0]["resources"]["limits"];
            assert_eq!((&pod["spec"]["nodeName"], &limits["memory"]), (&json!("node-2"), &json!("128Mi")), "{pod:#}");
        }
        // The policy held: of two one is left.
        assert_eq!(t.hosts(store).await, ["data"]);
        let repository = t.url(store, "store");
        t.restic(&repository, "--no-lock restore latest --target /tmp/claim").await;
        assert_eq!(t.sh("restic", "cat $(find /tmp/claim -name file)").await, "kept\n");
        t.restic(&repository, "check --read-data").await;
    });
}

#[test]
fn a_template_of_ones_own_backs_up_and_a_bad_one_is_told() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.pushgateway().await;
        t.apply(WEB).await;
        t.apply(&format!(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: AgentTemplate
metadata: {{name: $NAMESPACE}}
spec:
  initContainers:
  - {{name: first, image: $BUSYBOX, imagePullPolicy: Never, command: [sh, -c, 'echo $(BACKUP_NAME) > /shared/name'],
     volumeMounts: [{{name: shared, mountPath: /shared}}]}}
  containers:
  - name: own
    image: {IMAGE}
    imagePullPolicy: Never
    args: [backup, --backup-name=$(BACKUP_NAME), --pushgateway-url=$(PUSH_GATEWAY_URL),
      --enable-status-subresource=$(ENABLE_STATUS_SUB_RESOURCE), --enable-analytics=$(ENABLE_ANALYTICS)]
    env: [{{name: PUSH_GATEWAY_URL, value: 'http://push:9091'}}]
  - {{name: beside, image: $BUSYBOX, imagePullPolicy: Never, command: [sleep, '86400'],
     volumeMounts: [{{name: shared, mountPath: /shared}}]}}
  volumes: [{{name: shared, emptyDir: {{}}}}]
---
apiVersion: stash.appscode.com/v1alpha2
kind: AgentTemplate
metadata: {{name: $NAMESPACE-recovery}}
spec:
  containers:
  - name: own-recover
    image: {IMAGE}
    imagePullPolicy: Never
    args: [recover, --recovery-name=$(RECOVERY_NAME)]
---
apiVersion: stash.appscode.com/v1alpha2
kind: AgentTemplate
metadata: {{name: $NAMESPACE-bad}}
spec:
  containers:
  - name: own
    image: {IMAGE}
    args: [backup, --backup-name=$(BACKUP_NAME)]
    env: [{{name: HOST, value: <host url>}}]
"
        ))
        .await;
        t.sh(&t.pod_of("app=web").await, WRITE).await;
        t.protect(store, "web", "Deployment/web").await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;

        let agent = |name: String| json!({"spec": {"backupAgent": {"name": name}}});
        t.patch("Backup/web", &agent(format!("{}-bad", t.namespace))).await;
        let backup = t.wait("Backup/web", "refused", |backup| is(backup, "Ready", "False")).await;
        let ready = &backup["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Ready");
        let ready = ready.unwrap();
        assert_eq!(ready["reason"], "InvalidReference", "{backup:#}");
        let message = ready["message"].as_str().unwrap();
        assert!(message.contains(&format!("AgentTemplate {}-bad", t.namespace)), "{message}");
        assert!(message.contains("a placeholder was left"), "{message}");
        // The sidecar that is there stays: a mistake restarts nothing.
        assert_eq!(t.containers("Deployment/web", |_| true).await, ["app", "restic-sidecar"]);

        t.patch("Backup/web", &agent(t.namespace.clone())).await;
        t.condition("Backup/web", "Ready").await;
        let own = ["first-web", "app", "own-web", "beside-web"];
        let mut found = t.containers("Deployment/web", |names| names.iter().any(|name| name == "own-web")).await;
        found.sort_unstable();
        let mut wanted = own.map(str::to_owned);
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        let pod = t.pod_of("app=web").await;
        assert_eq!(t.sh(&format!("{pod}/beside-web"), "cat /shared/name").await, "web\n");
        t.trigger("now", "web").await;
        t.condition("BackupTrigger/now", "Complete").await;
        t.pushed("host", "stash_appscode_com_backupsession_success{").await;
        assert_eq!(t.hosts(store).await, ["web"]);
        t.restic(&t.url(store, "store"), "--no-lock check --read-data").await;

        // A template of one's own recovers, too.
        t.claim("recovered").await;
        t.apply(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {name: recovered}
spec:
  repository: {name: store}
  recoveryAgent: {name: $NAMESPACE-recovery}
  paths: [/source/data]
  recoverTo:
    volume: {mountPath: /source/data, persistentVolumeClaim: {claimName: recovered}}
",
        )
        .await;
        t.condition("Recovery/recovered", "Complete").await;
        let pods = t.list("Pod", "batch.kubernetes.io/job-name").await;
        let by_own = |pod: &Value| pod["spec"]["containers"].to_string().contains(r#""own-recover""#);
        assert!(pods.iter().any(by_own), "{pods:#?}");
        assert_eq!(t.sh_in_claim("recovered", "cat deep/note").await, "first\n");
    });
}

#[test]
fn several_share_one_sidecar_and_changes_restart_nothing() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(WEB).await;
        t.patch("Deployment/web", &json!({"metadata": {"labels": {"restic.appscode.com/config": "nightly"}}})).await;
        t.apply(REPOSITORY).await;
        t.apply(
            "
apiVersion: stash.appscode.com/v1alpha1
kind: Restic
metadata: {name: nightly}
spec:
  source: {volumeName: source-volume, path: /source/data}
  destination:
    path: /stashrepo
    repositorySecretName: repository
    volume: {name: restic-volume, persistentVolumeClaim: {claimName: repository}}
  schedule: '*/5 * * * * *'
  retentionPolicy: {keepLastSnapshots: 10}
",
        )
        .await;
        t.protect(store, "web", "Deployment/web").await;
        t.wait("Deployment/web", "with what both need", |web| web.to_string().contains("/holdfast/repository/")).await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        let pod = t.pod_of("app=web").await;
        let uid = t.get(&format!("Pod/{pod}")).await["metadata"]["uid"].clone();
        t.sh(&pod, WRITE).await;
        t.condition("Restic/nightly", "BackedUp").await;

        // A second Backup, other directories, another schedule, pausing and going on.
        t.patch("Restic/nightly", &json!({"spec": {"paused": true}})).await;
        let at_rest =
            |restic: &Value| restic["status"]["phase"] == "Paused" && restic["status"]["hosts"][0]["running"].is_null();
        t.wait("Restic/nightly", "paused", at_rest).await;
        t.apply(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {name: deep}
spec:
  schedule: '@every 24h'
  paused: true
  repository: {name: store}
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  targetDirectories: [/source/data]
  retentionPolicy: {keepLast: 5, prune: true}
",
        )
        .await;
        t.condition("Backup/deep", "Ready").await;
        t.patch("Backup/deep", &json!({"spec": {"targetDirectories": ["/source/data/deep"], "schedule": "@daily"}}))
            .await;
        // A trigger works while its Backup is paused.
        t.trigger("deep", "deep").await;
        t.trigger("web", "web").await;
        t.condition("BackupTrigger/deep", "Complete").await;
        t.condition("BackupTrigger/web", "Complete").await;
        let snapshots = t.restic(&t.url(store, "store"), "--no-lock snapshots --json").await;
        let snapshots: Vec<Value> = serde_json::from_str(&snapshots).unwrap();
        let mut paths: Vec<String> = snapshots.iter().map(|one| one["paths"].to_string()).collect();
        paths.sort();
        assert_eq!(paths, [r#"["/source/data"]"#, r#"["/source/data/deep"]"#]);

        // The paused one, which would run every five seconds, does nothing meanwhile.
        let count = async || t.get("Restic/nightly").await["status"]["backupCount"].as_u64();
        let counted = count().await;
        t.patch("Backup/deep", &json!({"spec": {"paused": false, "schedule": "@every 2s"}})).await;
        let ran = |backup: &Value| backup["status"]["backupCount"].as_u64() >= Some(5) && is_true(backup, "BackedUp");
        t.wait("Backup/deep", "run by its schedule", ran).await;
        t.delete("Backup/web").await;
        t.gone("Backup/web").await;
        assert_eq!(count().await, counted, "it ran while it was paused");
        t.patch("Restic/nightly", &json!({"spec": {"paused": false}})).await;
        let goes_on = |restic: &Value| restic["status"]["backupCount"].as_u64() > counted;
        t.wait("Restic/nightly", "going on", goes_on).await;

        let now = t.get(&format!("Pod/{}", t.pod_of("app=web").await)).await;
        assert_eq!(now["metadata"]["uid"], uid, "the pod was replaced");
        let restarts = now["status"]["containerStatuses"].as_array().unwrap();
        assert!(restarts.iter().all(|container| container["restartCount"] == 0), "{now:#}");
    });
}
