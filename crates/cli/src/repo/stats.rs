//! `repo stats`: counts what is in snapshots.

use clap::{Args, ValueEnum};
use holdfast_repository::browse::{Stats, StatsMode, stats};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::open::RepoArgs;
use super::selection::{SelectionArgs, select_all};
use crate::failure::Result;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The snapshots, by the beginning of their ids, or latest [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// What is counted
    #[arg(long, value_enum, default_value = "restore-size")]
    mode: Mode,
    #[command(flatten)]
    selection: SelectionArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// What a restore of each snapshot writes
    RestoreSize,
    /// Files of different content, each once
    FilesByContents,
    /// Pieces of files, each once for each path
    BlobsPerFile,
    /// What the snapshots need of the repository, each piece once
    RawData,
}

pub(crate) fn run(repo: &RepoArgs, args: &StatsArgs, output: &Output) -> Result<u8> {
    let repository = repo.open()?;
    let progress = output.progress("counting");
    let monitor = progress.monitor().clone();
    let _lock = repo.lock_to_read(&repository, &monitor)?;
    let snapshots = select_all(&repository, &args.ids, &args.selection.filter(), &monitor)?;
    let mode = match args.mode {
        Mode::RestoreSize => StatsMode::RestoreSize,
        Mode::FilesByContents => StatsMode::FilesByContents,
        Mode::BlobsPerFile => StatsMode::BlobsPerFile,
        Mode::RawData => StatsMode::RawData,
    };
    let stats = stats(&repository, &snapshots, mode, &monitor)?;
    drop(progress);
    output.result(&json(&stats, args.mode), || text(&stats, args.mode))?;
    super::complete(&monitor)
}

/// What compression did.
struct Compression {
    /// How many times smaller it made what is compressed.
    ratio: f64,
    /// The share of all data that is compressed, in per cent.
    progress: f64,
    /// The share of all data that it saves, in per cent.
    saving: f64,
}

fn compression(stats: &Stats) -> Compression {
    let quotient = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let saved = stats.uncompressed_bytes.saturating_sub(stats.total_bytes);
    Compression {
        ratio: quotient(stats.compressed_from_bytes, stats.compressed_from_bytes.saturating_sub(saved)),
        progress: 100.0 * quotient(stats.compressed_from_bytes, stats.uncompressed_bytes),
        saving: 100.0 * quotient(saved, stats.uncompressed_bytes),
    }
}

/// With restic's names.
fn json(stats: &Stats, mode: Mode) -> Value {
    let mut json = json!({"total_size": stats.total_bytes, "snapshots_count": stats.snapshots});
    match mode {
        Mode::RestoreSize | Mode::FilesByContents => json["total_file_count"] = stats.files.into(),
        Mode::BlobsPerFile => {
            json["total_file_count"] = stats.files.into();
            json["total_blob_count"] = stats.blobs.into();
        }
        Mode::RawData => {
            let Compression { ratio, progress, saving } = compression(stats);
            json["total_blob_count"] = stats.blobs.into();
            json["total_uncompressed_size"] = stats.uncompressed_bytes.into();
            json["compression_ratio"] = ratio.into();
            json["compression_progress"] = progress.into();
            json["compression_space_saving"] = saving.into();
        }
    }
    json
}

fn text(stats: &Stats, mode: Mode) -> String {
    let mut lines = vec![format!("snapshots:    {}", stats.snapshots)];
    if !matches!(mode, Mode::RawData) {
        lines.push(format!("files:        {}", stats.files));
    }
    if matches!(mode, Mode::RawData | Mode::BlobsPerFile) {
        lines.push(format!("blobs:        {}", stats.blobs));
    }
    lines.push(format!("size:         {}", HumanBytes(stats.total_bytes)));
    if matches!(mode, Mode::RawData) {
        let Compression { ratio, progress, saving } = compression(stats);
        lines.push(format!("uncompressed: {}", HumanBytes(stats.uncompressed_bytes)));
        lines.push(format!(
            "compression:  {ratio:.2}x where it is compressed, which is {progress:.1} %; {saving:.1} % saved of all"
        ));
    }
    lines.join("\n")
}
