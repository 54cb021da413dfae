//! Secrets as the kubelet mounts them: one folder each, one file a key. They are read before each run, so that one that was
//! mended needs no restart, and never copied anywhere.

use std::fs;
use std::path::Path;

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

/// The largest value that a Secret can hold, in bytes.
const VALUE_MAX: u64 = 1 << 20;

/// Every mounted Secret, as the API would give it. What cannot be read is left out: the run says what is missing.
pub(super) fn mounted(root: &Path, namespace: &str) -> Vec<Value> {
    let mut secrets: Vec<Value> = entries(&root.join("secrets"))
        .into_iter()
        .map(|name| {
            let folder = root.join("secrets").join(&name);
            let mut data = Map::new();
            for key in entries(&folder) {
                let file = folder.join(&key);
                let fits = fs::metadata(&file).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= VALUE_MAX);
                if let Some(value) = fits.then(|| fs::read(&file).ok()).flatten() {
                    data.insert(key, serde_json::to_value(ByteString(value)).unwrap_or_default());
                }
            }
            let metadata = json!({"name": name, "namespace": namespace});
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        })
        .collect();
    secrets.sort_by_key(|secret| secret["metadata"]["name"].to_string());
    secrets
}

/// The names in a folder, without those that the kubelet keeps for itself.
fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with("..")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_secret_is_read_as_the_kubelet_writes_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(mounted(root.path(), "demo"), Vec::<Value>::new());
        let folder = root.path().join("secrets/s3");
        fs::create_dir_all(folder.join("..2026_11_21")).unwrap();
        fs::write(folder.join("..2026_11_21/RESTIC_PASSWORD"), "p").unwrap();
        std::os::unix::fs::symlink("..2026_11_21", folder.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/RESTIC_PASSWORD", folder.join("RESTIC_PASSWORD")).unwrap();
        let wanted = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": "demo"},
            "data": {"RESTIC_PASSWORD": "cA=="},
        });
        assert_eq!(mounted(root.path(), "demo"), [wanted]);
    }
}
