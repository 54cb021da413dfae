//! Faults of storage: claims of the test that the CSI driver fails, delays or refuses, and volumes that are full.

use std::fs;
use std::path::PathBuf;

use super::Test;

/// Where the cluster's CSI driver looks for faults; a folder in it concerns the namespace that it is named after.
const FAULTS: &str = "/run/cluster/faults";

/// A fault of storage until this is dropped.
pub(crate) struct StorageFault {
    file: PathBuf,
}

impl Test {
    /// From now on, for claims and snapshots of this test's namespace: `fail-create-volume`, `slow-create-snapshot=5s`,
    /// `refuse-snapshots` …: tests/cluster/csi/README.md lists them.
    pub(crate) fn storage_fault(&self, fault: &str) -> StorageFault {
        let folder = PathBuf::from(FAULTS).join(&self.namespace);
        let file = folder.join(fault);
        let made = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, ""));
        made.unwrap_or_else(|error| panic!("cannot ask for a fault by {}: {error}", file.display()));
        StorageFault { file }
    }

    /// Writes to a new file in a folder of a container until nothing more fits; returns how many bytes did. The volume
    /// has to have an end: see [`small_claim`].
    pub(crate) async fn fill(&self, place: &str, folder: &str) -> u64 {
        let script = r#"dd if=/dev/zero of="$1/filler" bs=64k 2>/tmp/dd; grep -q 'No space' /tmp/dd || exit 9; wc -c < "$1/filler""#;
        let output = self.exec(place, &["sh", "-c", script, "sh", folder]).await;
        assert_eq!(output.code, 0, "{folder} in {place} does not get full: {output:?}");
        output.stdout.trim().parse().expect("a number of bytes")
    }

    /// Makes a claim of the class whose volumes are no larger than asked for.
    pub(crate) async fn small_claim(&self, name: &str, size: &str) {
        let class = format!("small-{}", self.namespace);
        self.apply(&format!(
            "{{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {{name: {class}}}, \
              provisioner: dir.holdfast.test, parameters: {{enforceCapacity: 'true'}}}}\n---\n\
             {{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{storageClassName: {class}, \
              accessModes: [ReadWriteOnce], resources: {{requests: {{storage: {size}}}}}}}}}"
        ))
        .await;
    }
}

impl Drop for StorageFault {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            println!("cannot end the fault {}: {error}", self.file.display());
        }
    }
}
