//! What the people of a cluster may do with the product.

use serde_json::json;

use crate::harness::{Test, Value, WEB, WRITE, is, test};

#[test]
fn people_may_do_what_their_roles_say() {
    test(async |t| {
        t.operator().await;
        for role in ["view", "edit", "none"] {
            t.apply(&format!("{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {role}}}}}")).await;
        }
        for role in ["view", "edit"] {
            t.apply(&format!(
                "{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: {role}}},
                  roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}},
                  subjects: [{{kind: ServiceAccount, name: {role}, namespace: $NAMESPACE}}]}}"
            ))
            .await;
        }
        let whom = |role: &str| format!("--as=system:serviceaccount:{}:{role}", t.namespace);
        let may = async |role: &str, verb: &str, what: &str| {
            let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
            let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
            let user = format!("system:serviceaccount:{}:{role}", t.namespace);
            let attributes = json!({"namespace": t.namespace, "verb": verb, "group": group, "resource": resource,
                "subresource": subresource});
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "metadata": {}, "spec": {"user": user, "resourceAttributes": attributes}});
            t.create(review).await["status"]["allowed"] == true
        };
        t.until("the roles are known", async || {
            if may("edit", "create", "backups.stash.appscode.com").await { Ok(()) } else { Err("no".to_owned()) }
        })
        .await;
        let objects = ["restics", "repositories", "backups", "recoveries", "backuptriggers"];
        let objects = objects.map(|plural| format!("{plural}.stash.appscode.com"));
        for object in objects.iter().map(String::as_str).chain(["appbindings.appcatalog.appscode.com"]) {
            for (role, verb, expected) in [
                ("view", "watch", true),
                ("view", "create", false),
                ("view", "delete", false),
                ("edit", "list", true),
                ("edit", "create", true),
                ("edit", "patch", true),
                ("edit", "delete", true),
                ("none", "get", false),
            ] {
                assert_eq!(may(role, verb, object).await, expected, "may {role} {verb} {object}");
            }
        }
        for (role, verb, what) in [
            ("edit", "patch", "backups.stash.appscode.com/status"),
            ("edit", "create", "agenttemplates.stash.appscode.com"),
            ("edit", "create", "backuptemplates.stash.appscode.com"),
            ("view", "get", "secrets"),
        ] {
            assert!(!may(role, verb, what).await, "{role} may {verb} {what}");
        }

        // And so it is when they do it.
        let repository = "{apiVersion: stash.appscode.com/v1alpha2, kind: Repository, metadata: {name: own},
            spec: {backend: {s3: {endpoint: 'http://nowhere', bucket: b}, storageSecretName: own}}}";
        let refused = t.kubectl(&["create", "-f", "-", &whom("view")], repository).await.unwrap_err();
        assert!(refused.contains("forbidden"), "{refused}");
        t.kubectl(&["create", "-f", "-", &whom("edit")], repository).await.unwrap();
        let seen = t.kubectl(&["get", "repositories", &whom("view")], "").await.unwrap();
        assert!(seen.contains("own"), "{seen}");
    });
}

#[test]
fn a_foreign_repository_serves_whom_it_allows() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let name = format!("{}-guest", t.namespace);
        t.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await;
        let guest = t.in_namespace(&name);
        guest.wait("ServiceAccount/default", "exists", |account| !account.is_null()).await;
        guest.apply(WEB).await;
        guest.sh(&guest.pod_of("app=web").await, WRITE).await;
        t.repository(store, "store").await;
        guest
            .apply(&format!(
                "
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {{name: web}}
spec:
  schedule: '@every 24h'
  paused: true
  repository: {{name: store, namespace: {}}}
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
  targetDirectories: [/source/data]
",
                t.namespace
            ))
            .await;
        let backup = guest.wait("Backup/web", "refused", |backup| is(backup, "Ready", "False")).await;
        let ready = &backup["status"]["conditions"][0];
        assert_eq!(ready["reason"], "NotAllowed", "{backup:#}");
        assert!(ready["message"].as_str().unwrap().contains("spec.allowedNamespaces"), "{ready:#}");
        assert_eq!(guest.containers("Deployment/web", |_| true).await, ["app"]);

        t.patch("Repository/store", &json!({"spec": {"allowedNamespaces": [name]}})).await;
        guest.condition("Backup/web", "Ready").await;
        guest.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        // The Secret stays where it is: its owner allows to read it, by the commands that the sidecar gives.
        let pod = guest.pod_of("app=web").await;
        let log = guest
            .until("told how to allow it", async || {
                let log = guest.log(&pod, "restic-sidecar").await;
                log.lines().find(|line| line.contains("to allow it: ")).map(str::to_owned).ok_or(log.clone())
            })
            .await;
        run_commands(t, &log).await;
        let mut tries = 0;
        guest
            .until("a run succeeds", async || {
                tries += 1;
                guest.trigger(&format!("try-{tries}"), "web").await;
                let ended = |trigger: &Value| is(trigger, "Complete", "True") || is(trigger, "Failed", "True");
                let trigger = guest.wait(&format!("BackupTrigger/try-{tries}"), "ended", ended).await;
                if is(&trigger, "Complete", "True") { Ok(()) } else { Err(trigger["status"].to_string()) }
            })
            .await;
        assert_eq!(t.hosts(store).await, ["web"]);
        t.restic(&t.url(store, "store"), "--no-lock check --read-data").await;

        // A Job reads it as well.
        guest.claim("copy").await;
        guest
            .apply(&format!(
                "
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {{name: copy}}
spec:
  repository: {{name: store, namespace: {}}}
  recoverTo: {{volume: {{mountPath: /source/data, persistentVolumeClaim: {{claimName: copy}}}}}}
",
                t.namespace
            ))
            .await;
        guest.condition("Recovery/copy", "Complete").await;
        assert_eq!(guest.sh_in_claim("copy", "cat deep/note").await, "first\n");
    });
}

/// Runs the commands that an error names: `…; to allow it: kubectl … && kubectl …`.
async fn run_commands(t: &Test, error: &str) {
    let commands = error.split_once("to allow it: ").unwrap_or_else(|| panic!("no commands in: {error}")).1;
    for command in commands.split(" && ").take(2) {
        let words = command.split_whitespace().skip(1);
        // The last word ends the sentence.
        let words: Vec<&str> = words.map(|word| word.trim_end_matches([',', ';', '.', ')'])).collect();
        let end = words.iter().position(|word| word.starts_with("--group=")).map_or(words.len(), |end| end + 1);
        t.kubectl(&words[..end], "").await.unwrap();
    }
}
