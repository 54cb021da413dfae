//! An image in the OCI image layout: a folder for a release, a tar for `ctr images import`. One platform, one layer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::layer::Layer;

/// What a container of an image starts with.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) entrypoint: Vec<&'static str>,
    /// `NAME=value`.
    pub(super) environment: Vec<&'static str>,
    /// User and group by number, or root when empty.
    pub(super) user: &'static str,
    pub(super) labels: BTreeMap<&'static str, String>,
}

/// How a layer is stored: as it is for nodes on this machine, compressed for whoever downloads it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
}

/// Every file of a layout by its name.
pub(super) struct Layout {
    files: BTreeMap<String, Vec<u8>>,
    /// Of the manifest: what names the image once and for all.
    pub(super) digest: String,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Layout {
    /// The layout of one image that is called `reference`, such as `docker.io/holdfast/holdfast:1.0.0`.
    pub(super) fn new(reference: &str, settings: &Settings, layer: &Layer, compression: Compression) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut blob = |media: &str, bytes: Vec<u8>| {
            let digest = sha256(&bytes);
            let descriptor = json!({ "mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len() });
            files.insert(format!("blobs/sha256/{digest}"), bytes);
            descriptor
        };
        let tar = layer.tar()?;
        let whole = format!("sha256:{}", sha256(&tar));
        let layer = match compression {
            Compression::None => blob("application/vnd.oci.image.layer.v1.tar", tar),
            Compression::Gzip => blob("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&tar)?),
        };
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": settings.entrypoint,
                "Env": settings.environment,
                "User": settings.user,
                "Labels": settings.labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [whole] },
        });
        let config = blob("application/vnd.oci.image.config.v1+json", bytes(&config)?);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let mut manifest = blob(MANIFEST, bytes(&manifest)?);
        let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        manifest["annotations"] = json!({
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        });
        files.insert("index.json".to_owned(), bytes(&index)?);
        files.insert("oci-layout".to_owned(), bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?);
        Ok(Self { files, digest })
    }

    /// What the files hold, together.
    pub(super) fn size_bytes(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    /// Writes the files into a folder that is not there yet.
    pub(super) fn write_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder.join("blobs/sha256"))
            .with_context(|| format!("cannot create {}", folder.display()))?;
        for (name, bytes) in &self.files {
            let file = folder.join(name);
            fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    /// Writes the files as a tar. It appears whole.
    pub(super) fn write_tar(&self, path: &Path) -> Result<()> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len().try_into()?);
            tar.append_data(&mut header, name, bytes.as_slice())?;
        }
        // Several caches may share the folder, and have a lock each.
        let unfinished = path.with_extension(format!("unfinished-{}", std::process::id()));
        fs::write(&unfinished, tar.into_inner()?)
            .and_then(|()| fs::rename(&unfinished, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Without name and time, so the same bytes give the same bytes.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str, compression: Compression) -> Layout {
        let settings = Settings { entrypoint: vec!["/tool"], user: "65532:65532", ..Settings::default() };
        let layer = Layer::default().text("etc/passwd", text);
        Layout::new("docker.io/holdfast/holdfast:1.2.3", &settings, &layer, compression).unwrap()
    }

    #[test]
    fn the_same_input_gives_the_same_digest() {
        for compression in [Compression::None, Compression::Gzip] {
            let (one, two) = (layout("a", compression), layout("a", compression));
            assert_eq!(one.digest, two.digest);
            assert_eq!(one.files, two.files);
            assert_ne!(one.digest, layout("b", compression).digest);
        }
    }

    #[test]
    fn every_descriptor_leads_to_its_blob() {
        for compression in [Compression::None, Compression::Gzip] {
            let layout = layout("a", compression);
            let read = |descriptor: &Value| -> Vec<u8> {
                let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
                let bytes = layout.files[&format!("blobs/sha256/{digest}")].clone();
                assert_eq!((sha256(&bytes).as_str(), descriptor["size"].as_u64()), (digest, Some(bytes.len() as u64)));
                bytes
            };
            let index: Value = serde_json::from_slice(&layout.files["index.json"]).unwrap();
            let descriptor = &index["manifests"][0];
            assert_eq!(descriptor["digest"], layout.digest.as_str());
            assert_eq!(descriptor["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
            assert_eq!(descriptor["annotations"]["io.containerd.image.name"], "docker.io/holdfast/holdfast:1.2.3");
            let manifest: Value = serde_json::from_slice(&read(descriptor)).unwrap();
            let config: Value = serde_json::from_slice(&read(&manifest["config"])).unwrap();
            assert_eq!(config["config"]["User"], "65532:65532");
            let mut layer = read(&manifest["layers"][0]);
            if compression == Compression::Gzip {
                let mut plain = Vec::new();
                std::io::copy(&mut flate2::read::GzDecoder::new(layer.as_slice()), &mut plain).unwrap();
                layer = plain;
            }
            assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&layer)));
        }
    }
}
