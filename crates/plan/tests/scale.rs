//! Thousands of objects: time grows with their number, not with its square.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::time::{Duration, Instant};

use holdfast_api::manifest::{self, Outcome};
use holdfast_plan::{Observed, Settings, plan};

/// `n` groups of ten objects in one namespace: workloads tied in every way that there is, into repositories of
/// their own and one that all share.
fn folder(n: usize) -> Outcome {
    let mut text = String::from(
        "apiVersion: v1
kind: Secret
metadata: {name: s, namespace: demo}
stringData: {RESTIC_PASSWORD: x}
---
apiVersion: stash.appscode.com/v1alpha2
kind: Repository
metadata: {name: shared, namespace: demo}
spec: {backend: {storageSecretName: s, local: {mountPath: /r, hostPath: {path: /r/shared}}}}
---
apiVersion: stash.appscode.com/v1alpha2
kind: BackupTemplate
metadata: {name: t}
spec: {schedule: '@hourly', backend: {storageSecretName: s, local: {mountPath: /r, hostPath: {path: /r/t}}}}
",
    );
    for i in 0..n {
        for kind in ["written", "selected", "templated"] {
            let annotations = match kind {
                "templated" => {
                    r#"{stash.appscode.com/backup: "true", stash.appscode.com/backupTemplate: t, stash.appscode.com/targetDirectories: "[/data]"}"#
                }
                _ => "{}",
            };
            write!(
                text,
                "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {kind}-{i}, namespace: demo, labels: {{app: {kind}-{i}, all: 'yes'}}, annotations: {annotations}}}
spec:
  selector: {{matchLabels: {{app: x}}}}
  template:
    metadata: {{labels: {{app: x}}}}
    spec:
      containers: [{{name: main, image: x, volumeMounts: [{{name: data, mountPath: /data}}]}}]
      volumes: [{{name: data, persistentVolumeClaim: {{claimName: claim-{i}}}}}]
"
            )
            .unwrap();
        }
        write!(
            text,
            "---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: claim-{i}, namespace: demo}}
spec: {{accessModes: [ReadWriteOnce], volumeName: disk-{i}, resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: disk-{i}}}
spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], hostPath: {{path: /disks/{i}}}}}
---
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {{name: backup-{i}, namespace: demo}}
spec:
  schedule: '@hourly'
  repository: {{name: shared}}
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: written-{i}}}
  targetDirectories: [/data]
---
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {{name: lost-{i}, namespace: demo}}
spec:
  repository: {{name: shared}}
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: nowhere-{i}}}
  targetDirectories: [/data]
---
apiVersion: stash.appscode.com/v1alpha1
kind: Restic
metadata: {{name: restic-{i}, namespace: demo}}
spec:
  selector: {{matchLabels: {{all: 'yes', app: selected-{i}}}}}
  fileGroups: [{{path: /data}}]
  backend: {{storageSecretName: s, local: {{mountPath: /r, hostPath: {{path: /r/restic}}}}}}
---
apiVersion: stash.appscode.com/v1alpha2
kind: BackupTrigger
metadata: {{name: trigger-{i}, namespace: demo}}
spec: {{targetBackup: {{name: backup-{i}}}}}
---
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {{name: recovery-{i}, namespace: demo}}
spec:
  repository: {{name: shared}}
  recoverTo: {{workload: {{apiVersion: apps/v1, kind: Deployment, name: written-{i}}}}}
"
        )
        .unwrap();
    }
    let outcome = manifest::read([("folder.yaml", text.as_bytes())]);
    assert_eq!(outcome.errors, []);
    outcome
}

/// The shortest of a few runs: what the machine does besides only ever adds.
fn time(outcome: &Outcome) -> Duration {
    let settings = Settings::new("2026-11-21T12:00:00Z".parse().unwrap(), "/manifests", "/volumes", "node");
    let once = || {
        let start = Instant::now();
        let plan = plan(outcome, &Observed::default(), &settings);
        assert_eq!(plan.backups.len(), outcome.objects.len() / 10 * 3);
        start.elapsed()
    };
    (0..3).map(|_| once()).min().unwrap()
}

#[test]
fn time_grows_with_the_number_of_objects() {
    let (small, large) = (time(&folder(50)), time(&folder(400)));
    let factor = large.as_secs_f64() / small.as_secs_f64();
    println!("500 objects in {small:?}, 4,000 in {large:?}: {factor:.1} times");
    assert!(factor < 24.0, "eight times the objects took {factor:.1} times as long: {small:?}, then {large:?}");
}
