//! The CEL rules of the definitions, evaluated as an API server does.

use serde_json::{Value, json};

use crate::stash::{BackupTriggerSpec, RecoverySpec, RepositorySpec, ResticSpec};

/// Evaluates the rules of `T` on a written value; `None` when all hold.
fn broken<T: schemars::JsonSchema>(value: &Value, old: Option<&Value>) -> Option<String> {
    kube::core::cel::validate_cel_schema::<T>(value, old).err().map(|errors| errors.to_string())
}

fn check<T: schemars::JsonSchema>(value: Value, expect: Option<&str>) {
    let found = broken::<T>(&value, None);
    match (expect, &found) {
        (None, None) => {}
        (Some(expect), Some(found)) if found.contains(expect) => {}
        _ => panic!("{value}: expected {expect:?}, found {found:?}"),
    }
}

#[test]
fn a_backend_has_one_store() {
    let expect = Some("exactly one of local, s3, gcs, azure, swift, b2 and rest must be set");
    check::<RepositorySpec>(json!({"backend": {"rest": {"url": "http://r"}}}), None);
    check::<RepositorySpec>(json!({"backend": {"storageSecretName": "s"}}), expect);
    check::<RepositorySpec>(json!({"backend": {"gcs": {"bucket": "b"}, "b2": {"bucket": "b"}}}), expect);
}

#[test]
fn a_recovery_has_one_destination() {
    let (repository, volume) = (json!({"name": "r"}), json!({"mountPath": "/d", "emptyDir": {}}));
    let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let one = Some("exactly one of recoverTo and recoveredVolumes must be set");
    check::<RecoverySpec>(json!({"repository": repository, "recoverTo": {"workload": workload}}), None);
    check::<RecoverySpec>(json!({"repository": repository, "recoveredVolumes": [volume]}), None);
    check::<RecoverySpec>(json!({"repository": repository}), one);
    check::<RecoverySpec>(json!({"repository": repository, "recoveredVolumes": []}), one);
    check::<RecoverySpec>(
        json!({"repository": repository, "recoverTo": {"volume": volume}, "recoveredVolumes": [volume]}),
        one,
    );
    check::<RecoverySpec>(
        json!({"repository": repository, "recoverTo": {"volume": volume, "workload": workload}}),
        Some("exactly one of volume and workload must be set"),
    );
}

#[test]
fn a_restic_has_one_form() {
    let source = json!({"volumeName": "v", "path": "/p"});
    let destination = json!({"path": "/r", "repositorySecretName": "s", "volume": {"name": "r"}});
    let backend = json!({"rest": {"url": "http://r"}});
    let groups = json!([{"path": "/p", "retentionPolicyName": "p"}]);
    let either = Some("either source and destination, or selector, fileGroups and backend must be set");
    check::<ResticSpec>(json!({"source": source, "destination": destination}), None);
    check::<ResticSpec>(json!({"source": source}), Some("source and destination belong together"));
    check::<ResticSpec>(json!({}), either);
    check::<ResticSpec>(
        json!({"selector": {}, "backend": backend, "fileGroups": groups, "retentionPolicies": [{"name": "p"}]}),
        None,
    );
    check::<ResticSpec>(json!({"backend": backend}), Some("backend needs selector and fileGroups"));
    check::<ResticSpec>(
        json!({"selector": {}, "backend": backend, "fileGroups": groups}),
        Some("names a retention policy that is not in retentionPolicies"),
    );
    check::<ResticSpec>(json!({"source": source, "destination": destination, "backend": backend}), either);
}

#[test]
fn a_trigger_cannot_be_changed() {
    let (one, other) = (json!({"targetBackup": {"name": "a"}}), json!({"targetBackup": {"name": "b"}}));
    assert_eq!(broken::<BackupTriggerSpec>(&one, Some(&one)), None);
    let error = broken::<BackupTriggerSpec>(&other, Some(&one)).unwrap();
    assert!(error.contains("a trigger cannot be changed"), "{error}");
}
