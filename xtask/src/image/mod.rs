//! `cargo xtask image`: packs container images without Docker or a registry, in the OCI image layout. One is the product
//! as it is released; the others are for test clusters, made of Debian's packages and of the tools in the cache. The same
//! input gives the same digest. An image is written only when its content changed, and its digest tells.

mod binary;
mod layer;
mod oci;
mod packages;
mod recipes;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cache::Cache;
use oci::{Compression, Layout};

/// What the product's image is called; the tag is the version of the workspace.
const HOLDFAST: &str = concat!("docker.io/holdfast/holdfast:", env!("CARGO_PKG_VERSION"));

/// What the layer of a released image may have at most, as downloaded.
const RELEASE_BYTES_MAX: usize = 30_000_000;

/// Arguments of `cargo xtask image`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Write the image of a release into this new folder, in the OCI image layout
    #[arg(long, conflicts_with_all = ["names", "debug"])]
    layout: Option<PathBuf>,
}

/// Which images, and how the product is built for its own.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// Only these; all when none is named
    pub(crate) names: Vec<Image>,
    /// Build the product unoptimised: ready sooner, and much slower
    #[arg(long)]
    pub(crate) debug: bool,
}

/// An image by what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Image {
    /// The product: one static program and certificates
    Holdfast,
    /// The first process of every pod
    Pause,
    /// A shell and the usual commands, for test workloads
    Busybox,
    /// PostgreSQL 15, server and clients
    Postgresql,
    /// An S3 server with one bucket
    ObjectStore,
    /// An emulator of Google Cloud Storage
    Google,
    /// restic, to look into repositories from a pod
    Restic,
}

/// How the product is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Release,
    Debug,
}

/// An image in the cache.
pub(crate) struct Packed {
    /// What pods call it.
    pub(crate) reference: String,
    /// For `ctr images import`.
    pub(crate) tar: PathBuf,
    /// Of its manifest.
    pub(crate) digest: String,
}

impl Image {
    /// Its name in the cache, without what `ctr` would think of.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What pods call it.
    pub(crate) fn reference(self) -> String {
        let version = match self {
            Self::Holdfast => return HOLDFAST.to_owned(),
            Self::Postgresql => "15",
            Self::Pause | Self::Busybox | Self::ObjectStore | Self::Google | Self::Restic => "1",
        };
        format!("holdfast.test/{}:{version}", self.name())
    }
}

/// The task itself.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let cache = Cache::open()?;
    if let Some(folder) = &arguments.layout {
        return release(&cache, folder);
    }
    for Packed { reference, tar, digest } in pack(&cache, &arguments.choice)? {
        let size = fs::metadata(&tar).with_context(|| format!("cannot read {}", tar.display()))?.len();
        println!("{reference} {digest} {:.1} MB", size as f64 / 1e6);
    }
    Ok(())
}

/// Puts the chosen images into the folder `images` of the cache, a tar for each, in the order of the choice.
pub(crate) fn pack(cache: &Cache, choice: &Choice) -> Result<Vec<Packed>> {
    let images = if choice.names.is_empty() { Image::value_variants() } else { &choice.names };
    let form = if choice.debug { Form::Debug } else { Form::Release };
    images.iter().map(|&image| pack_one(cache, image, form)).collect()
}

fn pack_one(cache: &Cache, image: Image, form: Form) -> Result<Packed> {
    let (name, reference) = (image.name(), image.reference());
    let layout = recipes::recipe(cache, image, form)
        .and_then(|(settings, layer)| Layout::new(&reference, &settings, &layer, Compression::None))
        .with_context(|| format!("cannot pack the image {name}"))?;
    let folder = cache.folder("images")?;
    let _turn = cache.lock(&format!("image-{name}"))?;
    let (tar, stamp) = (folder.join(format!("{name}.tar")), folder.join(format!("{name}.digest")));
    let digest = layout.digest.clone();
    if !tar.is_file() || fs::read_to_string(&stamp).ok().as_ref() != Some(&digest) {
        // The stamp comes last: after a crash the tar is written once more.
        layout.write_tar(&tar)?;
        fs::write(&stamp, &digest).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(Packed { reference, tar, digest })
}

/// What a release publishes.
fn release(cache: &Cache, folder: &std::path::Path) -> Result<()> {
    let (settings, layer) = recipes::recipe(cache, Image::Holdfast, Form::Release)?;
    let layout = Layout::new(HOLDFAST, &settings, &layer, Compression::Gzip)?;
    if layout.size_bytes() > RELEASE_BYTES_MAX {
        bail!("the image has {} bytes, {RELEASE_BYTES_MAX} are the most", layout.size_bytes());
    }
    if folder.exists() {
        bail!("{} is there already: name a new folder", folder.display());
    }
    layout.write_folder(folder)?;
    println!("{HOLDFAST} {} {:.1} MB", layout.digest, layout.size_bytes() as f64 / 1e6);
    Ok(())
}
