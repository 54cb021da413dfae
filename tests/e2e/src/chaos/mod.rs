//! Faults in the middle of work: programs killed at any request, rivals, stores and servers that are away. Each ends with
//! truth in the status and a repository that restic calls clean.

mod gate;
mod kills;
mod outage;
mod recovery;
mod rivals;
mod volumes;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Test, Value, container_status, is_true};

/// How often each is killed, unless `HOLDFAST_KILLS` says otherwise.
const KILLS: usize = 2;
/// Within what time a run that was cut off is told as failed.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// How often each is to be killed.
pub(crate) fn kills() -> usize {
    std::env::var("HOLDFAST_KILLS").map_or(KILLS, |count| count.parse().expect("HOLDFAST_KILLS is a number"))
}

/// Numbers that `HOLDFAST_SEED` repeats.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(name: &str) -> Self {
        let seed = std::env::var("HOLDFAST_SEED").map_or_else(
            |_| RandomState::new().hash_one(name) % 1_000_000,
            |seed| seed.parse().expect("HOLDFAST_SEED is a number"),
        );
        println!("{name}: HOLDFAST_SEED={seed}");
        Self(seed)
    }

    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).expect("below a usize")
    }
}

/// The fields of a Backup that keeps so many snapshots and tries again at once.
pub(crate) fn tried_again(keep: usize) -> String {
    format!(
        "retryConfig: {{maxRetry: 5, delay: 1s}}\nbackupHistoryLimit: 10\nretentionPolicy: {{keepLast: {keep}, prune: true}}"
    )
}

/// What to protect: one pod `db-0` with the claim `data` at `/source/data`, which other pods may mount too.
pub(crate) const DB: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 64Mi}}}
---
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
        command: [sleep, '86400']
        volumeMounts: [{name: source-volume, mountPath: /source/data}]
      volumes: [{name: source-volume, persistentVolumeClaim: {claimName: data}}]
";

/// Writes new data for a round: some 3 MB, of which half stays as it was in the last.
const CHANGE: &str = "cd /source/data && mkdir -p small && echo $ROUND > round && \
    for n in 1 2 3; do head -c 400000 /dev/urandom > large-$(( (n + $ROUND) % 6 )); done && \
    for n in 1 2 3 4 5 6 7 8 9; do head -c 3000 /dev/urandom > small/$(( (n + 5 * $ROUND) % 20 )); done";

/// What tells whether a copy of a folder is one.
const SUM: &str = "find . -type f | sort | xargs md5sum | md5sum";

/// What a folder held in each round, by the number in its file `round`.
pub(crate) type Rounds = BTreeMap<usize, String>;

impl Test {
    /// Changes the data and remembers what it is now.
    pub(crate) async fn change_data(&self, place: &str, rounds: &mut Rounds, round: usize) {
        let sum = self.sh(place, &format!("ROUND={round}; {CHANGE} && {SUM}")).await;
        rounds.insert(round, sum.trim().to_owned());
    }

    /// Makes what is to be protected, and its Backup `db` into the Repository `store` at an S3 endpoint; waits until it
    /// works.
    pub(crate) async fn protect_db(&self, endpoint: &str, keep: usize) {
        self.apply(DB).await;
        self.condition("Pod/db-0", "Ready").await;
        self.repository(endpoint, "store").await;
        self.backup("db", "store", "StatefulSet/db", &tried_again(keep)).await;
        self.containers("StatefulSet/db", |names| names == ["app", "restic-sidecar"]).await;
        self.condition("Pod/db-0", "Ready").await;
    }

    /// Waits until a trigger's run has ended, whatever became of it; whether it succeeded.
    async fn answered(&self, trigger: &str) -> bool {
        let ended = |trigger: &Value| is_true(trigger, "Complete") || is_true(trigger, "Failed");
        let trigger = self.wait(&format!("BackupTrigger/{trigger}"), "ended", ended).await;
        is_true(&trigger, "Complete")
    }

    /// Waits until the last run of a Backup's only host succeeded and none goes on; gives its snapshot. Never the one
    /// that was the last before.
    async fn backed_up(&self, backup: &str, before: &str) -> String {
        let last = |backup: &Value| {
            let host = &backup["status"]["hosts"][0];
            let run = &host["runs"][0];
            let done = host["running"].is_null() && run["phase"] == "Succeeded";
            run["snapshots"][0].as_str().filter(|_| done).map(str::to_owned)
        };
        let is_new = |backup: &Value| last(backup).is_some_and(|snapshot| snapshot != before);
        let ended = self.wait(&format!("Backup/{backup}"), "backed up once more", is_new).await;
        last(&ended).expect("just seen")
    }

    /// The snapshots of a repository, as restic lists them.
    async fn snapshots_of(&self, url: &str) -> Vec<String> {
        let listed = self.restic(url, "--no-lock snapshots --json").await;
        let listed: Vec<Value> = serde_json::from_str(&listed).expect("JSON of restic");
        listed.iter().map(|one| one["id"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// restic restores every snapshot of a repository, which has to be what the data was in one of the rounds, calls
    /// all of it whole, and finds no lock. Gives the snapshots.
    pub(crate) async fn judge(&self, url: &str, rounds: &Rounds) -> Vec<String> {
        let snapshots = self.snapshots_of(url).await;
        for snapshot in &snapshots {
            let arguments = format!("--no-lock restore {snapshot}:/source/data --target /tmp/judged --quiet");
            self.restic(url, &arguments).await;
            let round = self.sh("restic", "cat /tmp/judged/round").await;
            let sum = self.sh("restic", &format!("cd /tmp/judged && {SUM}; cd / && rm -r /tmp/judged")).await;
            let round = round.trim().parse().expect("the number of a round");
            assert_eq!(
                rounds.get(&round).map(String::as_str),
                Some(sum.trim()),
                "snapshot {snapshot} of round {round}"
            );
        }
        assert_eq!(self.restic(url, "--no-lock list locks").await, "", "locks that nobody holds");
        self.restic(url, "check --read-data").await;
        snapshots
    }

    /// SIGKILL for a container, and the end of its pod where it had been ended before: a second time it would wait before it
    /// is started again. What was ended.
    pub(crate) async fn kill(&self, pod: &str, container: &str) -> &'static str {
        let before = container_status(&self.get(&format!("Pod/{pod}")).await, container)["restartCount"].clone();
        self.kill_processes(pod, container, "").await;
        if before == 0 {
            return "process";
        }
        self.kill_pod(pod).await;
        "pod"
    }

    /// Waits until an object tells of the end of a run, no longer than it may take to tell of the dead. Gives the object and
    /// how long it took.
    async fn told(&self, object: &str, is_over: impl Fn(&Value) -> bool) -> (Value, Duration) {
        let begun = Instant::now();
        let state = self.wait(object, "told as ended", is_over).await;
        let took = begun.elapsed();
        assert!(took <= TOLD_WITHIN, "{object} was told as running for {took:?} after its process was killed");
        (state, took)
    }

    /// What tells whether a pod is still the same, and none of its containers was started again.
    pub(crate) async fn life(&self, pod: &str) -> (Value, Vec<Value>) {
        let pod = self.get(&format!("Pod/{pod}")).await;
        let containers = pod["status"]["containerStatuses"].as_array();
        let starts = containers.into_iter().flatten().map(|container| container["containerID"].clone()).collect();
        (pod["metadata"]["uid"].clone(), starts)
    }

    /// Makes a pod with a claim at a folder, to look into it.
    async fn look_into(&self, pod: &str, claim: &str, folder: &str) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": "$BUSYBOX", "command": ["sleep", "86400"],
                "volumeMounts": [{"name": "data", "mountPath": folder}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}});
        self.apply(&pod.to_string()).await;
        self.condition(&format!("Pod/{}", pod["metadata"]["name"].as_str().expect("given")), "Ready").await;
    }
}

/// The shortest, the longest and the middle of some times, for a person.
pub(crate) fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    let (median, last) = (times.len() / 2, times.len().saturating_sub(1));
    format!("{:.1?} to {:.1?}, median {:.1?}", at(0), at(last), at(median))
}
