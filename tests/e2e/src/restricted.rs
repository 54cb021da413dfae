//! Where nothing may be root: the volumes belong to root, and are open to the application by its group.

use serde_json::json;

use crate::harness::{is, is_true, test};

/// What the Pod Security Standard `restricted` asks of a pod and of its container, with the application's user.
const POD: &str = "securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, \
                   seccompProfile: {type: RuntimeDefault}}";
const CONTAINER: &str = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";

#[test]
fn a_restricted_workload_is_recovered_and_a_failed_recovery_does_not_keep_it_down() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        t.patch(&format!("Namespace/{}", t.namespace), &labels).await;
        t.apply(&format!(
            "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: orders}}
spec:
  replicas: 2
  serviceName: orders
  selector: {{matchLabels: {{app: orders}}}}
  template:
    metadata: {{labels: {{app: orders}}}}
    spec:
      terminationGracePeriodSeconds: 0
      {POD}
      containers:
      - name: app
        image: $BUSYBOX
        command: [sleep, '86400']
        {CONTAINER}
        volumeMounts: [{{name: data, mountPath: /source/data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}
"
        ))
        .await;
        t.protect(store, "orders", "StatefulSet/orders").await;
        t.containers("StatefulSet/orders", |names| names == ["app", "restic-sidecar"]).await;
        let write = "cd /source/data && mkdir deep && hostname > deep/name && chmod 640 deep/name && echo more > more";
        for pod in ["orders-0", "orders-1"] {
            t.sh(&format!("{pod}/app"), write).await;
        }
        t.trigger("now", "orders").await;
        t.condition("BackupTrigger/now", "Complete").await;

        // One that cannot succeed keeps the pod from its start, until it is gone.
        t.sh("orders-1/app", "rm -r /source/data/deep").await;
        t.apply(&recovery("wrong", "include: [/nowhere]\n  retryConfig: {maxRetry: 1, delay: 1s}")).await;
        let failed = t.wait("Recovery/wrong", "failed", |recovery| is(recovery, "Failed", "True")).await;
        assert!(failed["status"].to_string().contains("matches its `include`"), "{:#}", failed["status"]);
        assert!(!is_true(&t.get("Pod/orders-1").await, "Ready"));
        t.delete("Recovery/wrong").await;
        t.containers("StatefulSet/orders", |names| names == ["app", "restic-sidecar"]).await;
        assert_eq!(t.sh("orders-1/app", "ls /source/data").await, "more\n");

        t.apply(&recovery("right", "")).await;
        t.condition("Recovery/right", "Complete").await;
        t.containers("StatefulSet/orders", |names| names == ["restic-recover-right", "app", "restic-sidecar"]).await;
        let found = t.sh("orders-1/app", "cd /source/data && cat deep/name && stat -c '%a %u:%g' . deep/name").await;
        assert_eq!(found, "orders-1\n2775 0:10001\n640 10001:10001\n");

        // One that is made anew under the same name, as by `kubectl replace --force`, is done anew.
        t.sh("orders-1/app", "rm -r /source/data/deep").await;
        t.delete("Recovery/right").await;
        t.apply(&recovery("right", "")).await;
        t.condition("Recovery/right", "Complete").await;
        t.containers("StatefulSet/orders", |names| names == ["restic-recover-right", "app", "restic-sidecar"]).await;
        assert_eq!(t.sh("orders-1/app", "cat /source/data/deep/name").await, "orders-1\n");

        // A Job of its own gets what it needs for the new volume by choice.
        t.claim("copy").await;
        t.apply(&format!(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {{name: into-claim}}
spec:
  repository: {{name: store}}
  host: orders-0
  podAttributes: {{{POD}}}
  recoverTo: {{volume: {{mountPath: /source/data, persistentVolumeClaim: {{claimName: copy}}}}}}
"
        ))
        .await;
        let into_claim = t.condition("Recovery/into-claim", "Complete").await;
        assert_eq!(into_claim["status"]["hosts"][0]["stats"][0]["filesRestored"], 2, "{into_claim:#}");
    });
}

/// Recovers into both pods; `more` are further lines of its spec.
fn recovery(name: &str, more: &str) -> String {
    format!(
        "
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {{name: {name}}}
spec:
  repository: {{name: store}}
  recoverTo: {{workload: {{apiVersion: apps/v1, kind: StatefulSet, name: orders}}}}
  {more}
"
    )
}
