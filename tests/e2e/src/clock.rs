//! What follows from the hour. The clock of a sidecar is moved; nothing here waits for days.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{REPOSITORY, Value, is_true, test};

const DAY: u64 = 86_400;

/// A workload.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: app
        image: $BUSYBOX
        command: [sh, -c, 'echo first > /data/note; exec sleep 86400']
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {}}]
";

#[test]
fn a_daily_backup_follows_the_clock_and_so_does_retention() {
    test(async |t| {
        t.operator().await;
        t.apply(REPOSITORY).await;
        t.apply(WEB).await;
        // Half a day from now: not while this test runs.
        let hour = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 + 12) % 24;
        t.apply(&format!(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Repository
metadata: {{name: store}}
spec:
  backend:
    local: {{mountPath: /safe, persistentVolumeClaim: {{claimName: repository}}}}
    storageSecretName: repository
---
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {{name: daily}}
spec:
  schedule: '0 {hour} * * *'
  backupAgent: {{name: stash-volume-backup}}
  repository: {{name: store}}
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
  targetDirectories: [/data]
  retentionPolicy: {{keepWithin: 5d, prune: true}}
"
        ))
        .await;
        t.containers("Deployment/web", |names| names.len() == 2).await;
        let pod = t.pod_of("app=web").await;
        let waiting =
            t.wait("Backup/daily", "to have a next run", |backup| backup["status"]["nextBackupTime"].is_string());
        assert!(waiting.await["status"]["lastBackupTime"].is_null(), "it has run before its hour");

        let runs_at = async |day: u64, runs: u64| {
            t.move_clock(&pod, "restic-sidecar", day * DAY).await;
            let ran = |backup: &Value| backup["status"]["backupCount"] == runs && is_true(backup, "BackedUp");
            t.wait("Backup/daily", format!("{runs} successful runs"), ran).await;
            // A lock of the true time would be an old one by the clock of the sidecar.
            let listing = t.restic_in_claim("", "--no-lock snapshots --json").await;
            let snapshots: Vec<Value> = serde_json::from_str(&listing).unwrap();
            let times = snapshots.iter().map(|one| one["time"].as_str().unwrap().to_owned());
            times.collect::<Vec<_>>()
        };
        let checked = async |day: &str| {
            let of = |repository: &Value| repository["status"]["lastCheckTime"].as_str().unwrap_or_default().to_owned();
            let is_later =
                |repository: &Value| of(repository).as_str() > day && repository["status"]["integrity"] == true;
            of(&t.wait("Repository/store", format!("checked after {day:?}"), is_later).await)[..10].to_owned()
        };
        assert_eq!(runs_at(1, 1).await.len(), 1);
        let first_check = checked("").await;
        let both = runs_at(2, 2).await;
        assert_eq!(both.len(), 2);
        assert_ne!(both[0][..10], both[1][..10], "they are of two days");
        // A check is good for three days.
        assert_eq!(checked("").await, first_check);
        // However many hours were missed, it runs once; and what is older than five days goes.
        let last = runs_at(20, 3).await;
        assert_eq!(last.len(), 1, "{last:?}");
        assert!(last[0] > both[1], "{last:?} after {both:?}");
        let day = &last[0][..10];
        assert_eq!(checked(day).await, day);
    });
}
