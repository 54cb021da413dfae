//! `repo check`: is everything there and undamaged?

use clap::Args;
use holdfast_repository::check::{CheckOptions, CheckReport, ReadData, Severity, check};

use super::open::RepoArgs;
use crate::failure::{Result, code};
use crate::output::{Output, counted};

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Read and verify all data, too
    #[arg(long)]
    read_data: bool,
    /// Read and verify a part of the data: 1/5 for the first of five parts, 2.5% or 10G for packs chosen at random
    #[arg(long, value_name = "SUBSET", conflicts_with = "read_data")]
    read_data_subset: Option<ReadData>,
    /// Nothing: there is no cache
    #[arg(long, hide = true)]
    with_cache: bool,
}

pub(crate) fn run(repo: &RepoArgs, args: &CheckArgs, output: &Output) -> Result<u8> {
    let repository = repo.open()?;
    let options = CheckOptions {
        read_data: if args.read_data { ReadData::All } else { args.read_data_subset.unwrap_or_default() },
        lock: repo.read_lock_options(),
    };
    let progress = output.progress("checking");
    let report = check(&repository, &options, progress.monitor())?;
    drop(progress);
    let mut json = serde_json::to_value(&report).map_err(crate::failure::Failure::new)?;
    json["message_type"] = "summary".into();
    json["num_errors"] = report.errors.into();
    output.result(&json, || text(&report))?;
    Ok(if report.is_clean() { code::SUCCESS } else { code::FAILED })
}

fn text(report: &CheckReport) -> String {
    let mut lines = Vec::new();
    for finding in &report.findings {
        let word = match finding.severity {
            Severity::Error => "error",
            Severity::Note => "note",
        };
        lines.push(format!("{word}: {}\n  hint: {}", finding.what, finding.advice));
    }
    let unlisted = (report.errors + report.notes).saturating_sub(report.findings.len() as u64);
    if unlisted > 0 {
        lines.push(format!("… and {unlisted} more"));
    }
    lines.push(format!(
        "checked {}, {} and {}; {}",
        counted(report.snapshots, "snapshot"),
        counted(report.trees, "folder"),
        counted(report.packs, "pack"),
        match report.packs_read {
            0 if report.packs > 0 => "their data was not read, which --read-data does".into(),
            read if read == report.packs => "read all data".into(),
            read => format!("read the data of {}", counted(read, "pack")),
        }
    ));
    lines.push(match report.errors {
        0 => "no errors were found".into(),
        errors => format!("found {}", counted(errors, "error")),
    });
    lines.join("\n")
}
