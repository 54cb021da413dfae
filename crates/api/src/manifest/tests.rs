//! Every odd spelling that stands in the published examples of the kinds, each written out with what becomes of it.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn yaml(text: &str) -> Outcome {
    read([("a.yaml", text.as_bytes())])
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Reads one object without errors, with these warnings, and gives its JSON.
#[track_caller]
fn corrected(text: &str, warnings: &[&str]) -> Json {
    let outcome = yaml(text);
    assert_eq!(lines(&outcome.errors), [""; 0]);
    assert_eq!(lines(&outcome.warnings), warnings);
    assert_eq!(outcome.objects.len(), 1);
    outcome.objects[0].json.clone()
}

/// The only errors of a text.
#[track_caller]
fn wrong(text: &str, errors: &[&str]) {
    let outcome = yaml(text);
    assert_eq!(lines(&outcome.errors), errors);
    assert!(outcome.objects.is_empty());
}

const RECOVERY_WITH_AGENT_TEXT: &str = "\
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata:
  name: recovery-volume-demo
  namespace: demo
spec:
  repository:
    name: stash-backup-repo
    namespace: demo
  recoveryAgent: stashVolumeRecovery
  # paths specifies the directories to recover from the backed up data
  paths:
    - /source/data
  recoverTo:
    # indicates the volume where the recovered data will be stored
    volume:
      mountPath: /source/data
      persistentVolumeClaim:
        claimName: stash-recovered
";

#[test]
fn an_agent_as_text() {
    let got = corrected(
        RECOVERY_WITH_AGENT_TEXT,
        &[
            "a.yaml:10:18: Recovery demo/recovery-volume-demo: spec.recoveryAgent: not an object: found \"stashVolumeRecovery\"; read as recoveryAgent: {name: stash-volume-recovery}",
            "a.yaml:10:18: Recovery demo/recovery-volume-demo: spec.recoveryAgent.name: not a name that Kubernetes takes: found \"stashVolumeRecovery\"; read as stash-volume-recovery",
        ],
    );
    assert_eq!(got["spec"]["recoveryAgent"], json!({"name": "stash-volume-recovery"}));
    assert_eq!(got["spec"]["recoverTo"]["volume"]["persistentVolumeClaim"]["claimName"], "stash-recovered");
}

#[test]
fn an_agent_as_text_that_is_a_name() {
    let got = corrected(
        &RECOVERY_WITH_AGENT_TEXT.replace("stashVolumeRecovery", "pg-recovery"),
        &[
            "a.yaml:10:18: Recovery demo/recovery-volume-demo: spec.recoveryAgent: not an object: found \"pg-recovery\"; read as recoveryAgent: {name: pg-recovery}",
        ],
    );
    assert_eq!(got["spec"]["recoveryAgent"], json!({"name": "pg-recovery"}));
}

const BACKUP: &str = "\
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata:
  name: backup-volume-demo
  namespace: demo
spec:
  schedule: '@every 1h'
  # backupAgent indicates AgentTemplate crd to use for backup the target volume.
  backupAgent:
    name: stashVolumeBackup
  repository:
    name: stash-backup-repo
  targetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: stash-demo
  targetDirectories:
  - /source/data
# retentionPolicies specify the policy to follow to clean old backup snapshots
  retentionPolicy:
    keepLast: 5
    prune: true
  containerAttributes:
    resources:
      requests:
        memory: \"64Mi\"
        cpu: \"250m\"
";

#[test]
fn an_agent_as_object_in_camel_case_beside_a_comment_without_indentation() {
    let got = corrected(
        BACKUP,
        &[
            "a.yaml:10:11: Backup demo/backup-volume-demo: spec.backupAgent.name: not a name that Kubernetes takes: found \"stashVolumeBackup\"; read as stash-volume-backup",
        ],
    );
    assert_eq!(got["spec"]["backupAgent"], json!({"name": "stash-volume-backup"}));
    // The list stands as far left as its key, and the comment further left than both.
    assert_eq!(got["spec"]["targetDirectories"], json!(["/source/data"]));
    assert_eq!(got["spec"]["retentionPolicy"]["keepLast"], 5);
}

#[test]
fn an_object_named_in_camel_case_is_the_one_that_is_referred_to() {
    let got = corrected(
        "\
apiVersion: stash.appscode.com/v1alpha2
kind: AgentTemplate
metadata:
  name: stashVolumeBackup
spec:
  containers:
  - image: appscode/stash:0.8.2
    name:  stash-backup
    args:
    - backup
    - --backup-name=$(BACKUP_NAME)
    - --pushgateway-url=$(PUSH_GATEWAY_URL)
    - --enable-status-subresource=$(ENABLE_STATUS_SUB_RESOURCE)
    - --enable-analytics=$(ENABLE_ANALYSTICS)
",
        &[
            "a.yaml:4:9: AgentTemplate stash-volume-backup: metadata.name: not a name that Kubernetes takes: found \"stashVolumeBackup\"; read as stash-volume-backup",
        ],
    );
    assert_eq!(got["metadata"], json!({"name": "stash-volume-backup"}));
    // Two spaces after a colon, and a variable that is itself misspelt, are kept as they mean.
    assert_eq!(got["spec"]["containers"][0]["name"], "stash-backup");
    assert_eq!(got["spec"]["containers"][0]["args"][4], "--enable-analytics=$(ENABLE_ANALYSTICS)");
}

#[test]
fn annotations_with_an_unquoted_true() {
    let got = corrected(
        "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: stash-demo
  namespace: demo
  labels:
    app: stash-demo
  # if stash find bellow annotations, it will take backup of it.
  annotations:
    stash.appscode.com/backup: true
    stash.appscode.com/targetDirectories: \"[/source/data]\"
    stash.appscode.com/backupTemplate: \"volume-backup-template\"
spec:
  replicas: 1
  selector:
    matchLabels:
      app: stash-demo
  template:
    metadata:
      labels:
        app: stash-demo
      name: busybox
    spec:
      containers:
      - args:
        - sleep
        - \"3600\"
        image: busybox
        imagePullPolicy: IfNotPresent
        name: busybox
        volumeMounts:
        - mountPath: /source/data
          name: source-data
      restartPolicy: Always
      volumes:
      - name: source-data
        configMap:
          name: stash-sample-data
",
        &[
            "a.yaml:10:32: Deployment demo/stash-demo: metadata.annotations[stash.appscode.com/backup]: not a text: found true; read as \"true\": write it in quotes",
        ],
    );
    let annotations = &got["metadata"]["annotations"];
    assert_eq!(annotations["stash.appscode.com/backup"], "true");
    assert_eq!(annotations["stash.appscode.com/targetDirectories"], "[/source/data]");
    assert_eq!(got["spec"]["template"]["spec"]["containers"][0]["args"], json!(["sleep", "3600"]));
}

#[test]
fn annotations_nested_under_labels() {
    let got = corrected(
        "\
apiVersion: appcatalog.appscode.com/v1alpha1
kind: AppBinding
metadata:
  name: quick-postgres
  namespace: demo
  labels:
    kubedb.com/kind: Postgres
    kubedb.com/name: quick-postgres
    # if stash find bellow annotations, it will take backup of it.
    annotations:
      stash.appscode.com/backup: true
      stash.appscode.com/backupTemplate: \"database-backup-template\"
spec:
  clientConfig:
    insecureSkipTLSVerify: true
    service:
      name: quick-postgres
      port: 5432
      scheme: \"http\"
  secret:
    name: quick-postgres-auth
  type: kubedb.com/postgres
",
        &[
            "a.yaml:10:5: AppBinding demo/quick-postgres: metadata.labels.annotations: wrong place: found annotations under labels; read as metadata.annotations: indent it as labels is",
            "a.yaml:11:34: AppBinding demo/quick-postgres: metadata.annotations[stash.appscode.com/backup]: not a text: found true; read as \"true\": write it in quotes",
        ],
    );
    assert_eq!(
        got["metadata"],
        json!({
            "name": "quick-postgres",
            "namespace": "demo",
            "labels": {"kubedb.com/kind": "Postgres", "kubedb.com/name": "quick-postgres"},
            "annotations": {
                "stash.appscode.com/backup": "true",
                "stash.appscode.com/backupTemplate": "database-backup-template",
            },
        })
    );
}

#[test]
fn labels_of_numbers_keep_how_they_are_written() {
    let got = corrected(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: {version: 1.10, mode: 0644, answer: yes}\n",
        &[
            "a.yaml:5:21: ConfigMap default/a: metadata.labels.version: not a text: found 1.10; read as \"1.10\": write it in quotes",
            "a.yaml:5:33: ConfigMap default/a: metadata.labels.mode: not a text: found 0644; read as \"0644\": write it in quotes",
            "a.yaml:5:47: ConfigMap default/a: metadata.labels.answer: not a text: found yes; read as \"yes\": write it in quotes",
        ],
    );
    assert_eq!(got["metadata"]["labels"], json!({"version": "1.10", "mode": "0644", "answer": "yes"}));
}

#[test]
fn a_label_without_the_space_after_its_colon() {
    let got = corrected(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    restic.appscode.com/config:test-backup\nspec:\n  containers: [{name: c, image: i}]\n",
        &[
            "a.yaml:6:5: Pod default/a: metadata.labels: not a mapping: found \"restic.appscode.com/config:test-backup\"; read as restic.appscode.com/config: test-backup: write a space after the colon",
        ],
    );
    assert_eq!(got["metadata"]["labels"], json!({"restic.appscode.com/config": "test-backup"}));
}

#[test]
fn a_template_with_a_named_policy_and_variables_in_its_prefix() {
    let got = corrected(
        "\
apiVersion: stash.appscode.com/v1alpha2
kind: BackupTemplate
metadata:
  name: volume-backup-template
spec:
  backend:
    gcs:
      bucket: stash-backup-repo
      prefix: ${metadata.namespace}/${metadata.name} # this prefix template will be used
    storageSecretName: gcs-secret
  schedule: '@every 1h'
  backupAgent: stashVolumeBackup
  retentionPolicy:
    name: 'keep-last-5'
    keepLast: 5
    prune: true
",
        &[
            "a.yaml:12:16: BackupTemplate volume-backup-template: spec.backupAgent: not an object: found \"stashVolumeBackup\"; read as backupAgent: {name: stash-volume-backup}",
            "a.yaml:12:16: BackupTemplate volume-backup-template: spec.backupAgent.name: not a name that Kubernetes takes: found \"stashVolumeBackup\"; read as stash-volume-backup",
        ],
    );
    assert_eq!(got["spec"]["backend"]["gcs"]["prefix"], "${metadata.namespace}/${metadata.name}");
    assert_eq!(got["spec"]["retentionPolicy"]["name"], "keep-last-5");
    assert_eq!(got["metadata"].get("namespace"), None);
}

#[test]
fn references_by_label_and_annotation_follow_names_in_camel_case() {
    let got = corrected(
        "\
apiVersion: v1
kind: Pod
metadata:
  name: a
  labels: {restic.appscode.com/config: testBackup}
  annotations: {stash.appscode.com/backupTemplate: volumeTemplate}
spec:
  containers: [{name: c, image: i}]
",
        &[
            "a.yaml:5:40: Pod default/a: metadata.labels[restic.appscode.com/config]: not a name that Kubernetes takes: found \"testBackup\"; read as test-backup",
            "a.yaml:6:52: Pod default/a: metadata.annotations[stash.appscode.com/backupTemplate]: not a name that Kubernetes takes: found \"volumeTemplate\"; read as volume-template",
        ],
    );
    assert_eq!(got["metadata"]["labels"]["restic.appscode.com/config"], "test-backup");
    assert_eq!(got["metadata"]["annotations"]["stash.appscode.com/backupTemplate"], "volume-template");
}

#[test]
fn placeholders() {
    wrong(
        "\
apiVersion: stash.appscode.com/v1alpha2
kind: AgentTemplate
metadata:
  name: pg-backup
spec:
  containers:
  - image: kubedb/postgres-tools:0.9.0
    name:  postgres-tools
    command: [\"backup\"]
    env:
    - name:  PGPASSWORD
      valueFrom:
        secretKeyRef:
          name: <secret name>
          key: \"POSTGRES_PASSWORD\"
    - name:  DB_HOST
      value: <host url>
    - name: DATA_DIR
      value: <data-dir>
",
        &[
            "a.yaml:14:17: AgentTemplate pg-backup: spec.containers[0].env[0].valueFrom.secretKeyRef.name: a placeholder was left: found \"<secret name>\"; put the real value in its place",
            "a.yaml:17:14: AgentTemplate pg-backup: spec.containers[0].env[1].value: a placeholder was left: found \"<host url>\"; put the real value in its place",
            "a.yaml:19:14: AgentTemplate pg-backup: spec.containers[0].env[2].value: a placeholder was left: found \"<data-dir>\"; put the real value in its place",
        ],
    );
}

#[test]
fn a_label_with_the_placeholder_of_the_documentation() {
    wrong(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    restic.appscode.com/config: <name_of_tpr>\nspec:\n  containers: [{name: c, image: i}]\n",
        &[
            "a.yaml:6:33: Pod default/a: metadata.labels[restic.appscode.com/config]: a placeholder was left: found \"<name_of_tpr>\"; put the real value in its place",
        ],
    );
}

#[test]
fn the_plural_of_a_field_in_its_comment() {
    wrong(
        &BACKUP.replace("stashVolumeBackup", "agent").replace("  retentionPolicy:", "  retentionPolicies:"),
        &[
            "a.yaml:20:3: Backup demo/backup-volume-demo: spec.retentionPolicies: unknown field; did you mean retentionPolicy?",
        ],
    );
}

#[test]
fn the_first_generation_of_restic() {
    let got = corrected(
        "\
apiVersion: stash.appscode.com/v1alpha1
kind: Restic
metadata: {name: test-backup, annotations: {restic.appscode.com/image: latest}}
spec:
  source: {volumeName: v, path: /mypath}
  destination: {path: /stashrepo, repositorySecretName: s, volume: {name: v2, emptyDir: {}}}
  schedule: \"0 * * * * *\"
  tags: [t]
  retentionPolicy: {keepLastSnapshots: 5}
",
        &[],
    );
    assert_eq!(got["metadata"]["namespace"], "default");
}

#[test]
fn the_second_generation_of_restic_and_its_recovery() {
    let outcome = yaml(
        "\
apiVersion: stash.appscode.com/v1alpha1
kind: Restic
metadata: {name: r}
spec:
  selector: {matchLabels: {app: x}}
  type: offline
  fileGroups: [{path: /source/data, tags: [], retentionPolicyName: p}]
  retentionPolicies: [{name: p, keepLast: 5, prune: true, dryRun: false}]
  backend: {storageSecretName: s, local: {mountPath: /repo, subPath: a, hostPath: {path: /data}}}
  schedule: '@every 1m'
  volumeMounts: []
  resources: {}
  paused: false
  imagePullSecrets: []
---
apiVersion: stash.appscode.com/v1alpha1
kind: Recovery
metadata: {name: r}
spec:
  repository: {name: deployment.x, namespace: demo}
  snapshot: deployment.x-12345678
  paths: [/source/data]
  recoveredVolumes: [{mountPath: /source/data, hostPath: {path: /tmp/data}}]
",
    );
    assert_eq!(lines(&outcome.errors), [""; 0]);
    assert_eq!(lines(&outcome.warnings), [""; 0]);
    assert_eq!(outcome.objects.len(), 2);
}

#[test]
fn what_a_secret_holds_is_not_shown() {
    wrong(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {A: 4711}\ndata: {B: hunter2, C: 5}\n",
        &[
            "a.yaml:4:17: Secret default/s: stringData.A: wrong value: expected a text; write it in quotes",
            "a.yaml:5:11: Secret default/s: data.B: not base64: expected base64; plain text goes under stringData",
            "a.yaml:5:23: Secret default/s: data.C: not base64: expected base64; plain text goes under stringData",
        ],
    );
    let right = yaml("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {A: hunter2}\n");
    assert!(!format!("{right:?}").contains("hunter2"), "{right:?}");
}

#[test]
fn a_field_leads_to_its_line() {
    let outcome = yaml(BACKUP);
    let object = &outcome.objects[0];
    assert_eq!(object.line, 1);
    assert_eq!(object.line_of("spec.repository.name"), 12);
    assert_eq!(object.line_of("spec.repository.namespace"), 11);
    assert_eq!(object.line_of("spec.targetDirectories[0]"), 18);
    assert_eq!(object.line_of("spec.paused"), 6);
    assert_eq!(
        object.problem("spec.repository.name", "no such Repository").to_string(),
        "a.yaml:12:5: Backup demo/backup-volume-demo: spec.repository.name: no such Repository"
    );
}

#[test]
fn a_problem_survives_json() {
    let outcome = yaml("apiVersion: v1\nkind: Secret\nmetadata: {nme: s}\n");
    let problem = &outcome.errors[0];
    let json = serde_json::to_value(problem).unwrap();
    assert_eq!(
        json,
        json!({
            "file": "a.yaml", "line": 3, "column": 12, "object": {"kind": "Secret", "namespace": "default", "name": ""},
            "path": "metadata.nme", "problem": "unknown field", "suggestion": "did you mean name?",
        })
    );
    assert_eq!(&serde_json::from_value::<Problem>(json).unwrap(), problem);
}

/// Pieces of manifests and of what breaks them.
fn fragments() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "apiVersion: stash.appscode.com/v1alpha2\n",
        "apiVersion: v1\n",
        "kind: Backup\n",
        "kind: Secret\n",
        "kind: List\n",
        "kind: Recovery\n",
        "metadata:\n",
        "  name: a\n",
        "  labels: {a: true}\n",
        "  annotations: [x]\n",
        "spec:\n",
        "  schedule: '@every 1h'\n",
        "  backupAgent: x\n",
        "  repository: {name: R}\n",
        "  recoverTo:\n",
        "    volume: {}\n",
        "items:\n",
        "- ",
        "? ",
        ": ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "&a ",
        "*a ",
        "<<: *a\n",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\t",
        "|\n",
        ">-\n",
        "\"",
        "'",
        "#",
        "!!str ",
        "!",
        "\u{feff}",
        "\0",
        "\r",
        "\n",
        "  ",
        "é",
        "\u{2028}",
        "- - - ",
        "0x",
        "~\n",
    ]);
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read([("a.yaml", bytes.as_slice()), ("a.json", bytes.as_slice())]);
    }

    #[test]
    fn no_fragments_panic(text in fragments()) {
        read([("a.yaml", text.as_bytes()), ("a.json", text.as_bytes())]);
    }

    #[test]
    fn no_damaged_manifest_panics(at in 0..BACKUP.len(), byte: u8, cut in 0..BACKUP.len()) {
        let mut bytes = BACKUP.as_bytes().to_vec();
        bytes[at] = byte;
        read([("a.yaml", bytes.as_slice())]);
        bytes.truncate(cut);
        read([("a.yaml", bytes.as_slice())]);
    }

    #[test]
    fn any_json_reads_as_serde_reads_it(text in "[\\[\\]{}\",:0-9a-z\\\\ .e+-]{0,40}") {
        let ours = json::read(text.as_bytes());
        let right = ours.iter().all(|document| document.root.is_some());
        let theirs: Result<Vec<Json>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
        prop_assert_eq!(right, theirs.is_ok(), "{:?}", theirs);
    }
}

#[test]
fn objects_of_a_server_are_known_by_their_names() {
    let backup = json!({
        "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Backup",
        "metadata": {"name": "web", "namespace": "demo", "managedFields": [{"manager": "kubectl"}], "uid": "u"},
        "spec": {"repository": {"name": "r"}, "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
        "status": {"fieldOfALaterVersion": 1},
    });
    let node_feature = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "demo"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "fieldOfALaterVersion": {}},
    });
    let wrong = json!({
        "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Backup",
        "metadata": {"name": "wrong", "namespace": "demo"},
        "spec": {"repository": {"name": "r"}, "schedule": "every now and then"},
    });
    let outcome = read_objects([backup, node_feature, wrong, json!(7), json!({"metadata": 7})]);
    let names: Vec<&str> = outcome.objects.iter().map(|object| object.file.as_str()).collect();
    assert_eq!(names, ["Backup demo/web", "Pod demo/p"]);
    assert!(outcome.objects[0].json.get("status").is_none());
    assert!(outcome.objects[0].json["metadata"].get("managedFields").is_none());
    let files: Vec<&str> = outcome.rejected.iter().map(|rejected| rejected.file.as_str()).collect();
    assert_eq!(files, ["Backup demo/wrong"]);
    // Nobody wrote the lines that there would be.
    let told: Vec<String> = outcome.errors.iter().map(ToString::to_string).collect();
    let (of_wrong, of_nameless) = told.split_at(2);
    assert!(of_wrong.iter().all(|error| error.starts_with("Backup demo/wrong: spec.")), "{told:?}");
    let nameless = |error: &String| error.starts_with("an object without kind or name: ");
    assert!(of_nameless.len() == 3 && of_nameless.iter().all(nameless), "{told:?}");
    let later = outcome.objects[0].problem("spec.repository", "Repository demo/repo not found").to_string();
    assert_eq!(later, "Backup demo/web: spec.repository: Repository demo/repo not found");
}
