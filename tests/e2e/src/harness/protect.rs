//! A workload to protect, and the objects of a user who protects it.

use serde_json::Value;

use super::{Test, is_true};

/// A Deployment with a claim at `/source/data`, which other pods may mount too.
pub(crate) const WEB: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 64Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
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
        command: [sleep, '86400']
        volumeMounts: [{name: source-volume, mountPath: /source/data}]
      volumes: [{name: source-volume, persistentVolumeClaim: {claimName: data}}]
";

/// A StatefulSet of one pod, with a claim for each.
pub(crate) const DB: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, labels: {app: db}}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: app
        image: $BUSYBOX
        command: [sh, -c, 'hostname > /source/data/name; exec sleep 86400']
        volumeMounts: [{name: data, mountPath: /source/data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
";

/// A claim for repositories and a Secret that opens them for both generations of kinds, and a pod with restic that looks
/// into them.
pub(crate) const REPOSITORY: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: repository}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 64Mi}}}
---
apiVersion: v1
kind: Secret
metadata: {name: repository}
stringData: {password: a test password, RESTIC_PASSWORD: a test password}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 0}
  containers:
  - name: restic
    image: holdfast.test/restic:1
    imagePullPolicy: Never
    command: [sleep, '86400']
    envFrom: [{secretRef: {name: repository}}]
    volumeMounts: [{name: repository, mountPath: /repository}]
  volumes: [{name: repository, persistentVolumeClaim: {claimName: repository}}]
";

/// Files of every kind, and what tells whether a copy of them is one.
pub(crate) const WRITE: &str = "cd /source/data && mkdir -p deep/er && head -c 3000000 /dev/urandom > random && \
    echo first > deep/note && ln -s ../random deep/er/link && ln random deep/hard && chown 1000:2000 deep/note && \
    chmod 640 deep/note && chmod 2750 deep && touch -d '2020-02-02 02:02:02' random deep/note deep/er && mkfifo pipe";

/// Kind, mode, owners, times and content of everything below a folder.
pub(crate) const LISTING: &str = "find . -mindepth 1 | sort | while read -r f; do stat -c '%n %F %a %u:%g %Y %h' \"$f\"; done; \
    find . -type f | sort | xargs md5sum; readlink deep/er/link";

impl Test {
    /// Makes the Repository `name` at an S3 endpoint.
    pub(crate) async fn repository(&self, endpoint: &str, name: &str) {
        self.apply(&format!(
            "{{apiVersion: stash.appscode.com/v1alpha2, kind: Repository, metadata: {{name: {name}}}, spec: {{
              backend: {{s3: {{endpoint: '{endpoint}', bucket: backups, prefix: $NAMESPACE/{name}}},
                storageSecretName: storage}}}}}}"
        ))
        .await;
    }

    /// The same as restic names it.
    pub(crate) fn url(&self, endpoint: &str, repository: &str) -> String {
        format!("s3:{endpoint}/backups/{}/{repository}", self.namespace)
    }

    /// Makes a Backup of `/source/data` of `Kind/name`, which triggers start, and waits until it is accepted as it is;
    /// `more` are further fields, each in a line.
    pub(crate) async fn backup(&self, name: &str, repository: &str, target: &str, more: &str) {
        let (kind, of) = target.split_once('/').expect("Kind/name");
        let api_version = if kind == "PersistentVolumeClaim" { "v1" } else { "apps/v1" };
        let more = more.replace('\n', "\n  ");
        self.apply(&format!(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {{name: {name}}}
spec:
  # Never due by itself: one that has never run is due at once by `@every`.
  schedule: '0 0 29 2 *'
  backupAgent: {{name: stash-volume-backup}}
  repository: {{name: {repository}}}
  targetRef: {{apiVersion: {api_version}, kind: {kind}, name: {of}}}
  targetDirectories: [/source/data]
  {more}
"
        ))
        .await;
        let accepted = |backup: &Value| {
            is_true(backup, "Ready") && backup["status"]["observedGeneration"] == backup["metadata"]["generation"]
        };
        self.wait(&format!("Backup/{name}"), "accepted as it is", accepted).await;
    }

    /// Makes the Repository `store` at an S3 endpoint and a Backup into it, which is paused: triggers start it all the same.
    pub(crate) async fn protect(&self, endpoint: &str, name: &str, target: &str) {
        self.repository(endpoint, "store").await;
        self.backup(name, "store", target, "paused: true\nretentionPolicy: {keepLast: 5, prune: true}").await;
    }

    /// Asks for a run of a Backup now.
    pub(crate) async fn trigger(&self, name: &str, backup: &str) {
        self.apply(&format!(
            "{{apiVersion: stash.appscode.com/v1alpha2, kind: BackupTrigger, metadata: {{name: {name}}},
              spec: {{targetBackup: {{name: {backup}}}}}}}"
        ))
        .await;
    }

    /// Makes a claim that several pods may mount.
    pub(crate) async fn claim(&self, name: &str) {
        self.apply(&format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}},
              spec: {{accessModes: [ReadWriteMany], resources: {{requests: {{storage: 64Mi}}}}}}}}"
        ))
        .await;
    }

    /// Asks for a recovery of `/source/data` from a Repository into a claim, with so many tries after a failure.
    pub(crate) async fn recover(&self, name: &str, repository: &str, claim: &str, retries: u8) {
        self.apply(&format!(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {{name: {name}}}
spec:
  repository: {{name: {repository}}}
  recoveryAgent: {{name: stash-volume-recovery}}
  retryConfig: {{maxRetry: {retries}, delay: 1s}}
  paths: [/source/data]
  recoverTo:
    volume: {{mountPath: /source/data, persistentVolumeClaim: {{claimName: {claim}}}}}
"
        ))
        .await;
    }

    /// Runs restic on a repository below the claim of [`REPOSITORY`] and returns what it prints. It takes its locks: beside
    /// it a schedule goes on, and what a check has listed may be removed before it is read.
    pub(crate) async fn restic_in_claim(&self, folder: &str, arguments: &str) -> String {
        self.condition("Pod/reader", "Ready").await;
        self.sh("reader", &format!("restic --no-cache --retry-lock 1m -r /repository/{folder} {arguments}")).await
    }

    /// Runs a command in the folder of a claim, in a pod of its own, and returns what it prints.
    pub(crate) async fn sh_in_claim(&self, claim: &str, script: &str) -> String {
        let name = format!("look-{claim}");
        self.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0,
              containers: [{{name: app, image: $BUSYBOX, command: [sleep, '86400'], volumeMounts: [{{name: data, mountPath: /data}}]}}],
              volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]}}}}"
        ))
        .await;
        self.condition(&format!("Pod/{name}"), "Ready").await;
        self.sh(&name, &format!("cd /data && {script}")).await
    }

    /// The hosts of all snapshots of the repository `store`, sorted.
    pub(crate) async fn hosts(&self, store: &str) -> Vec<String> {
        let snapshots = self.restic(&self.url(store, "store"), "--no-lock snapshots --json").await;
        let snapshots: Vec<Value> = serde_json::from_str(&snapshots).unwrap();
        let mut hosts: Vec<_> = snapshots.iter().map(|one| one["hostname"].as_str().unwrap().to_owned()).collect();
        hosts.sort();
        hosts
    }

    /// The one pod of a workload that has rolled out.
    pub(crate) async fn pod_of(&self, labels: &str) -> String {
        let ready = |pods: &[Value]| pods.len() == 1 && is_true(&pods[0], "Ready");
        let pods = self.wait_all("Pod", labels, "one ready pod", ready).await;
        pods[0]["metadata"]["name"].as_str().unwrap().to_owned()
    }
}

/// Whether a condition of an object has this status.
pub(crate) fn is(object: &Value, condition: &str, status: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == condition && one["status"] == status)
}
