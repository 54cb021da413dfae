//! `repo dump`: prints a file of a snapshot, or a folder as a tar archive.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use holdfast_repository::browse::dump;
use holdfast_repository::format::snapshot::SnapshotFilter;
use holdfast_repository::{Error as RepositoryError, Repository};

use super::open::RepoArgs;
use super::selection::{SelectionArgs, select};
use crate::failure::{Failure, Result};
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// The snapshot, by the beginning of its id, latest or latest~1; with :FOLDER the path is within that folder
    #[arg(value_name = "ID[:FOLDER]")]
    snapshot: String,
    /// The file or folder; / for all
    #[arg(value_name = "PATH")]
    item: OsString,
    /// Write to this file, not to standard output
    #[arg(short, long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// The form of a folder
    #[arg(short, long, value_enum, default_value = "tar")]
    archive: Archive,
    #[command(flatten)]
    selection: SelectionArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Archive {
    Tar,
}

pub(crate) fn run(repo: &RepoArgs, args: &DumpArgs, output: &Output) -> Result<u8> {
    let Archive::Tar = args.archive;
    let repository = repo.open()?;
    let monitor = output.monitor();
    let _lock = repo.lock_to_read(&repository, &monitor)?;
    let filter = args.selection.filter();
    let selected = select(&repository, &args.snapshot, &filter)?;
    let path = args.item.as_bytes();
    let write = |out: &mut dyn Write| dump(&repository, &selected, path, out, &monitor);
    match &args.target {
        Some(target) => to_file(target, write)?,
        None => {
            if std::io::stdout().is_terminal() && is_folder(&repository, args, &filter) {
                return Err(Failure::with_hint(
                    "an archive is not shown on a terminal",
                    "send it to a file or a program, or write it with --target",
                ));
            }
            write(&mut BufWriter::with_capacity(1 << 20, std::io::stdout().lock())).map_err(|error| match error {
                RepositoryError::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe => Failure::output(source),
                error => not_there(error),
            })?;
        }
    }
    super::complete(&monitor)
}

fn to_file(target: &Path, write: impl FnOnce(&mut dyn Write) -> holdfast_repository::Result<()>) -> Result<()> {
    let failed = |error: std::io::Error| {
        let path = target.display();
        Failure::with_hint(format!("cannot write {path}: {error}"), "is the folder there and writable, with room left?")
    };
    let mut file = BufWriter::with_capacity(1 << 20, File::create(target).map_err(failed)?);
    write(&mut file).map_err(not_there)?;
    file.flush().map_err(failed)?;
    file.get_ref().sync_all().map_err(failed)
}

fn not_there(error: RepositoryError) -> Failure {
    match error {
        error @ RepositoryError::Selection(_) => {
            Failure::from(error).hinting("`holdfast repo find NAME` finds where something is")
        }
        error => error.into(),
    }
}

/// Whether the path is a folder: only folders can be selected.
fn is_folder(repository: &Repository, args: &DumpArgs, filter: &SnapshotFilter) -> bool {
    let separator = if args.snapshot.contains(':') { "/" } else { ":" };
    select(repository, &format!("{}{separator}{}", args.snapshot, args.item.to_string_lossy()), filter).is_ok()
}
