//! `repo backup`: backs up files and folders, or the output of a command.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use holdfast_repository::backup::{BackupOptions, BackupReport, Parent, backup};
use holdfast_repository::format::snapshot::{GroupBy, Snapshot, SnapshotFilter};
use holdfast_repository::format::time::Timestamp;
use holdfast_repository::pattern::Case;
use holdfast_repository::snapshots::Snapshots;
use holdfast_repository::source::Source;
use holdfast_repository::{Monitor, Repository};
use holdfast_sources::{Excludes, FileTree, FileTreeError, FileTreeOptions, Root, Stream, TagFile};
use indicatif::{HumanBytes, HumanDuration};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::files_from::FilesFromArgs;
use super::open::RepoArgs;
use super::selection::select;
use super::{patterns, size};
use crate::failure::{Failure, Result, code};
use crate::output::{Output, counted};

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// What to back up; with --stdin-from-command, the command
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    files_from: FilesFromArgs,
    /// A tag for the snapshot; may be given several times, or as a,b
    #[arg(long, value_delimiter = ',')]
    tag: Vec<String>,
    /// The host name that the snapshot carries [default: this host's]
    #[arg(short = 'H', long, env = "RESTIC_HOST")]
    host: Option<String>,
    /// The snapshot's time, as 2026-11-21 08:00:00 [default: now]
    #[arg(long, value_parser = parse_time)]
    time: Option<jiff::Timestamp>,
    /// Compare with this snapshot [default: the latest of the same group, not after --time]
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
    /// What that group has in common: host, paths or tags, or several with commas between
    #[arg(short, long, value_name = "GROUP", default_value = "host,paths")]
    group_by: GroupBy,
    /// Read every file, whatever its times say
    #[arg(short, long, conflicts_with = "parent")]
    force: bool,
    /// Do not take a file for changed because its inode number or its ctime did
    #[arg(long)]
    ignore_inode: bool,
    /// Do not take a file for changed because its ctime did
    #[arg(long)]
    ignore_ctime: bool,
    /// Record access times
    #[arg(long)]
    with_atime: bool,
    /// Write nothing, and tell what would be written
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Write no snapshot when nothing differs from the parent
    #[arg(long)]
    skip_if_unchanged: bool,
    /// How many small files are read at once [default: the number of cores, and 4 at least]
    #[arg(long, value_name = "N", env = "RESTIC_READ_CONCURRENCY")]
    read_concurrency: Option<usize>,
    /// Nothing: sizes are not counted beforehand
    #[arg(long, hide = true)]
    no_scan: bool,
    #[command(flatten)]
    excludes: ExcludeArgs,
    #[command(flatten)]
    stdin: StdinArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What to leave out")]
struct ExcludeArgs {
    /// Leave out what matches; may be given several times
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// As --exclude, whatever the case
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// A file of patterns, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// As --exclude-file, whatever the case
    #[arg(long, value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,
    /// Leave out folders that a CACHEDIR.TAG marks as caches
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out folders that hold a file of this name (and with this beginning)
    #[arg(long, value_name = "NAME[:BEGINNING]", value_parser = parse_tag_file)]
    exclude_if_present: Vec<TagFile>,
    /// Leave out files larger than this; K, M, G and T are understood
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    exclude_larger_than: Option<u64>,
    /// Stay on the file systems of what is backed up
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Instead of files")]
struct StdinArgs {
    /// Back up standard input as one file
    #[arg(long)]
    stdin: bool,
    /// Run the command and back up what it prints as one file; if it fails there is no snapshot
    #[arg(long)]
    stdin_from_command: bool,
    /// The name of that file
    #[arg(long, value_name = "NAME", default_value = "stdin")]
    stdin_filename: PathBuf,
}

pub(super) fn parse_time(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    let time: DateTime = text.parse().map_err(|_| "expected a form like 2026-11-21 08:00:00".to_owned())?;
    time.to_zoned(TimeZone::system()).map(|zoned| zoned.timestamp()).map_err(|error| error.to_string())
}

fn parse_tag_file(text: &str) -> Result<TagFile, String> {
    TagFile::parse(text.as_bytes())
        .ok_or_else(|| "expected the name of a file, alone or followed by : and how it begins".into())
}

pub(crate) fn run(repo: &RepoArgs, args: BackupArgs, output: &Output) -> Result<u8> {
    let start = Instant::now();
    let time = args.time.unwrap_or_else(jiff::Timestamp::now);
    let paths = args.paths()?;
    let repository = if args.stdin.stdin { repo.open_without_stdin()? } else { repo.open()? };
    let progress = output.progress("backing up");
    let source = args.source(paths, time, progress.monitor())?;
    let defaults = BackupOptions::new();
    let mut options = BackupOptions {
        host: args.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| defaults.host.clone()),
        tags: args.tag.iter().map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect(),
        time,
        excludes: if args.is_stream() { Vec::new() } else { args.excludes.exclude.clone() },
        ignore_inode: args.ignore_inode,
        ignore_ctime: args.ignore_ctime || args.ignore_inode,
        dry_run: args.dry_run,
        skip_if_unchanged: args.skip_if_unchanged,
        workers: args.read_concurrency.unwrap_or(defaults.workers),
        lock: repo.lock_options(),
        ..defaults
    };
    options.parent = args.parent(&repository, &*source, &options, progress.monitor())?;
    let report = backup(&repository, &*source, &options, progress.monitor()).map_err(|error| {
        // What a source says that was interrupted is of no interest.
        progress.monitor().check().err().unwrap_or(error)
    })?;
    drop(progress);
    let elapsed = start.elapsed();
    output.result(&json(&report, args.dry_run, elapsed), || text(&report, args.dry_run, elapsed))?;
    Ok(if report.errors > 0 { code::INCOMPLETE } else { code::SUCCESS })
}

impl BackupArgs {
    fn is_stream(&self) -> bool {
        self.stdin.stdin || self.stdin.stdin_from_command
    }

    /// All paths that are named; of a stream, the command.
    fn paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = self.paths.clone();
        if self.is_stream() {
            if !self.files_from.is_empty() || (self.stdin.stdin && !paths.is_empty()) {
                return Err(Failure::with_hint(
                    "files cannot be backed up together with standard input or a command's output",
                    "make two backups",
                ));
            }
            if self.stdin.stdin_from_command && paths.is_empty() {
                return Err(Failure::with_hint("no command given", "write it after --stdin-from-command --"));
            }
            return Ok(paths);
        }
        paths.extend(self.files_from.paths()?);
        if paths.is_empty() {
            return Err(Failure::with_hint("nothing to back up", "name the files and folders to back up"));
        }
        Ok(paths)
    }

    fn source(&self, paths: Vec<PathBuf>, time: jiff::Timestamp, monitor: &Monitor) -> Result<Box<dyn Source>> {
        if self.is_stream() {
            return Ok(Box::new(self.stream(&paths, time, monitor)?));
        }
        let roots = paths.iter().map(|path| root(path)).collect::<Result<_>>()?;
        let excludes = self.excludes.excludes()?;
        let tree =
            FileTree::new(FileTreeOptions { roots, excludes, with_atime: self.with_atime }).map_err(|error| {
                let hint = match error {
                    FileTreeError::Twice { .. } => "name them by their absolute paths",
                    _ => "are the paths right?",
                };
                Failure::new(error).hinting(hint)
            })?;
        Ok(Box::new(tree))
    }

    fn stream(&self, command: &[PathBuf], time: jiff::Timestamp, monitor: &Monitor) -> Result<Stream> {
        let name = Path::new("/").join(&self.stdin.stdin_filename);
        let path = name.as_os_str().as_bytes();
        let stream = match command.split_first() {
            Some((program, args)) => {
                let mut command = std::process::Command::new(program);
                command.args(args);
                Stream::command(path, time, command)
            }
            None => Stream::reader(path, time, Stdin { monitor: monitor.clone() }),
        };
        stream.map_err(|error| Failure::new(error).hinting("--stdin-filename takes a plain path"))
    }

    /// What to compare with. Only the usual case is left to the engine, which looks after it has locked.
    fn parent(
        &self,
        repository: &Arc<Repository>,
        source: &dyn Source,
        options: &BackupOptions,
        monitor: &Monitor,
    ) -> Result<Parent> {
        if let Some(name) = &self.parent {
            return Ok(Parent::Snapshot(select(repository, name, &SnapshotFilter::default())?.saved.id));
        }
        if self.force {
            return Ok(Parent::None);
        }
        if self.group_by == GroupBy::default() {
            return Ok(Parent::Latest);
        }
        let own_key = |of: &Snapshot| {
            let paths = source.paths().iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            let own = Snapshot { hostname: options.host.clone(), paths, tags: options.tags.clone(), ..of.clone() };
            self.group_by.key(&own)
        };
        let saved = Snapshots::load(repository)?.readable(monitor);
        let latest = saved.into_iter().rev().find(|saved| {
            saved.snapshot.time <= Timestamp::from(options.time)
                && self.group_by.key(&saved.snapshot) == own_key(&saved.snapshot)
        });
        Ok(latest.map_or(Parent::None, |saved| Parent::Snapshot(saved.id)))
    }
}

/// Standard input; waiting for it ends when the backup is interrupted.
struct Stdin {
    monitor: Monitor,
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let step = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            self.monitor.check().map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&step)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(rustix::io::read(&stdin, buffer)?),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn root(path: &Path) -> Result<Root> {
    let root = if path.is_absolute() {
        Root::at(path)
    } else {
        let folder = std::env::current_dir().map_err(|error| {
            let problem = format!("cannot tell where {} is: {error}", path.display());
            Failure::with_hint(problem, "name it by its absolute path")
        })?;
        Root::relative(path, &folder)
    };
    root.filter(|_| !path.as_os_str().is_empty())
        .ok_or_else(|| Failure::with_hint(format!("{path:?} is no path"), "is it right?"))
}

impl ExcludeArgs {
    fn excludes(&self) -> Result<Excludes> {
        let patterns = [
            patterns::list(&patterns::collect(&self.exclude, &self.exclude_file)?, Case::Sensitive)?,
            patterns::list(&patterns::collect(&self.iexclude, &self.iexclude_file)?, Case::Ignored)?,
        ];
        let mut tag_files = self.exclude_if_present.clone();
        if self.exclude_caches {
            tag_files.push(TagFile::cachedir());
        }
        Ok(Excludes {
            patterns: patterns.into_iter().filter(|list| !list.is_empty()).collect(),
            tag_files,
            larger_than_bytes: self.exclude_larger_than,
            other_file_systems: self.one_file_system,
        })
    }
}

fn json(report: &BackupReport, dry_run: bool, elapsed: Duration) -> serde_json::Value {
    let mut json = serde_json::to_value(&report.summary).unwrap_or_default();
    json["message_type"] = "summary".into();
    json["snapshot_id"] = report.snapshot.map(|id| id.to_string()).into();
    json["parent"] = report.parent.map(|id| id.to_string()).into();
    json["tree"] = report.tree.to_string().into();
    json["errors"] = report.errors.into();
    json["dry_run"] = dry_run.into();
    json["total_duration"] = elapsed.as_secs_f64().into();
    json
}

fn text(report: &BackupReport, dry_run: bool, elapsed: Duration) -> String {
    let summary = &report.summary;
    let parent = report.parent.map_or_else(String::new, |id| format!("compared with snapshot {}\n", id.short()));
    let outcome = match (&report.snapshot, report.errors) {
        (Some(id), 0) => format!("snapshot {} saved", id.short()),
        (Some(id), errors) => {
            format!("snapshot {} saved, INCOMPLETE: {errors} could not be read, see above", id.short())
        }
        (None, errors) => {
            let why = if dry_run { "a dry run" } else { "nothing changed" };
            let errors = if errors > 0 { format!("; {errors} could not be read, see above") } else { String::new() };
            format!("no snapshot saved: {why}{errors}")
        }
    };
    format!(
        "{parent}files: {} new, {} changed, {} unmodified\nfolders: {} new, {} changed, {} unmodified\n\
         {}added: {} ({} stored)\nprocessed {}, {} in {}\n{outcome}",
        summary.files_new,
        summary.files_changed,
        summary.files_unmodified,
        summary.dirs_new,
        summary.dirs_changed,
        summary.dirs_unmodified,
        if dry_run { "would be " } else { "" },
        HumanBytes(summary.data_added),
        HumanBytes(summary.data_added_packed),
        counted(summary.total_files_processed, "file"),
        HumanBytes(summary.total_bytes_processed),
        HumanDuration(elapsed),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(parse_time("2026-11-21T08:00:00+02:00").unwrap().to_string(), "2026-11-21T06:00:00Z");
        assert!(parse_time("2026-11-21 08:00:00").is_ok() && parse_time("2026-11-21").is_ok());
        assert!(parse_time("yesterday").is_err());
    }
}
