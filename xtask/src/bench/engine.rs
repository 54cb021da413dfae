//! `cargo xtask bench engine`: the engine against restic, operation by operation, on the same data in the same run.
//!
//! Each round makes fresh repositories. Each operation runs once by either side before the next begins, and who goes
//! first changes with the round, so that a machine that slows down slows both. In the first round what Holdfast wrote
//! is checked by restic and what it restored is compared with the source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::data::{Data, change, remove};
use super::measure::{Cost, drop_caches, measure};
use super::report::{Report, Side};
use crate::cache::Cache;
use crate::command::{self, cargo};
use crate::test::root;
use crate::tools::{self, Tool};

/// Arguments of `cargo xtask bench engine`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often each operation is measured; the table shows medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Only these operations, separated by commas; what they build on runs unmeasured
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Operation>,
    /// Only this data, separated by commas
    #[arg(long, value_delimiter = ',')]
    data: Vec<Data>,
    /// The size of the data, in percent of what it should be: 1 is enough to try the benchmark itself
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    percent: u64,
    /// How the result is written to stdout
    #[arg(long, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A Markdown table
    Table,
    /// Every single measurement
    Json,
}

/// What is measured, in the order of a repository's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Operation {
    /// An empty repository
    Init,
    /// The first backup
    First,
    /// A backup of the same data
    Unchanged,
    /// A backup after a change of 1 %
    Changed,
    /// The latest snapshot into an empty folder
    Restore,
    /// `check --read-data`
    Check,
    /// `prune` after all snapshots but the last were forgotten
    Prune,
}

/// One side of the comparison with the repository it works on.
struct Contender {
    side: Side,
    program: PathBuf,
    /// What comes before restic's own arguments.
    prefix: &'static [&'static str],
    /// Holds its repository, its cache and what it restores.
    scratch: PathBuf,
}

/// The task itself.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let cache = Cache::open()?;
    tools::install(&cache, &[Tool::Packages, Tool::Restic])?;
    let scratch = cache.folder("bench/scratch")?;
    let _turn = cache.lock("bench")?;
    let contender =
        |side, program, prefix, name: &str| Contender { side, program, prefix, scratch: scratch.join(name) };
    let restic = tools::restic(&cache);
    let contenders = [
        contender(Side::Restic, restic.clone(), &[], "restic"),
        contender(Side::Holdfast, holdfast()?, &["repo"], "holdfast"),
    ];
    let mut report = Report::default();
    let mut cold = true;
    for data in chosen(&arguments.data, Data::value_variants()) {
        let folder = data.folder(&cache, arguments.percent)?;
        for round in 0..arguments.rounds {
            eprintln!("{}: round {} of {}", data.name(), round + 1, arguments.rounds);
            cold &= Round { data, folder: &folder, round, contenders: &contenders, restic: &restic }
                .run(&chosen(&arguments.rows, Operation::value_variants()), &mut report)?;
        }
    }
    report.facts = facts(arguments, &restic, cold)?;
    match arguments.output {
        Output::Table => println!("{}", report.markdown()),
        Output::Json => println!("{}", report.json().context("cannot write JSON")?),
    }
    Ok(())
}

/// One round over one kind of data.
struct Round<'a> {
    data: Data,
    folder: &'a Path,
    round: u64,
    contenders: &'a [Contender; 2],
    restic: &'a Path,
}

impl Round<'_> {
    /// Runs all that `measured` needs; whether caches could be dropped throughout.
    fn run(&self, measured: &[Operation], report: &mut Report) -> Result<bool> {
        let Self { data, folder, round, contenders, restic } = *self;
        let mut cold = true;
        for contender in contenders {
            remove(&contender.scratch)?;
            fs::create_dir_all(&contender.scratch)
                .with_context(|| format!("cannot create {}", contender.scratch.display()))?;
        }
        for operation in needed(measured) {
            if operation == Operation::Changed {
                change(folder, round)?;
            }
            let mut order: Vec<&Contender> = contenders.iter().collect();
            order.rotate_left((round % 2) as usize);
            for contender in order {
                if operation == Operation::Prune {
                    contender.measure(&["forget", "--keep-last", "1"])?;
                }
                cold &= drop_caches()?;
                let cost = contender.perform(operation, folder)?;
                if measured.contains(&operation) {
                    let Cost { seconds, peak_kib } = cost;
                    eprintln!(
                        "  {:<10} {:<9} {seconds:>8.2} s {:>5} MiB",
                        operation.name(),
                        contender.name(),
                        peak_kib >> 10
                    );
                    let data = if operation == Operation::Init { "-".to_owned() } else { data.name() };
                    report.add(operation as usize, operation.label(), &data, contender.side, cost);
                }
                if operation == Operation::Restore {
                    if round == 0 && contender.side == Side::Holdfast {
                        compare(folder, &contender.restored(folder)?)?;
                    }
                    remove(&contender.target())?;
                }
            }
        }
        if round == 0 {
            let ours = &contenders[Side::Holdfast as usize];
            let mut check = Command::new(restic);
            ours.environment(check.arg("check"));
            command::output(&mut check).context("restic finds fault with the repository that holdfast wrote")?;
        }
        if needed(measured).contains(&Operation::Changed) {
            change(folder, round)?;
        }
        contenders.iter().try_for_each(|contender| remove(&contender.scratch))?;
        Ok(cold)
    }
}

impl Contender {
    fn name(&self) -> &'static str {
        match self.side {
            Side::Restic => "restic",
            Side::Holdfast => "holdfast",
        }
    }

    fn perform(&self, operation: Operation, folder: &Path) -> Result<Cost> {
        let folder = folder.to_str().context("the cache folder has a name that is not UTF-8")?;
        let target = self.target();
        let target = target.to_str().context("the cache folder has a name that is not UTF-8")?;
        let arguments: &[&str] = match operation {
            Operation::Init => &["init"],
            Operation::First | Operation::Unchanged | Operation::Changed => &["backup", folder],
            Operation::Restore => &["restore", "latest", "--target", target],
            Operation::Check => &["check", "--read-data"],
            // With the default of 5 % unused space allowed there would be nothing to do.
            Operation::Prune => &["prune", "--max-unused", "0"],
        };
        self.measure(arguments)
    }

    fn measure(&self, arguments: &[&str]) -> Result<Cost> {
        let mut command = Command::new(&self.program);
        self.environment(command.args(self.prefix).args(arguments));
        measure(&mut command, &self.scratch.join("log"))
    }

    /// restic's variables, and nothing of the caller's that could make the two sides differ.
    fn environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let own = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
            if ["RESTIC_", "HOLDFAST_", "AWS_", "GO"].into_iter().any(own) {
                command.env_remove(&name);
            }
        }
        command
            .env("RESTIC_REPOSITORY", self.scratch.join("repository"))
            .env("RESTIC_PASSWORD", "benchmark")
            .env("RESTIC_CACHE_DIR", self.scratch.join("cache"))
            .env("TZ", "UTC");
    }

    /// Where it restores to.
    fn target(&self) -> PathBuf {
        self.scratch.join("restored")
    }

    /// Where the restored copy of `folder` is: snapshots carry absolute paths.
    fn restored(&self, folder: &Path) -> Result<PathBuf> {
        Ok(self.target().join(folder.strip_prefix("/").context("the cache folder is not an absolute path")?))
    }
}

impl Operation {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn label(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::First => "first backup",
            Self::Unchanged => "backup, unchanged",
            Self::Changed => "backup, 1 % changed",
            Self::Restore => "restore",
            Self::Check => "check --read-data",
            Self::Prune => "prune",
        }
    }
}

/// Those named, or all, in the usual order.
fn chosen<T: Copy + Ord>(named: &[T], all: &[T]) -> Vec<T> {
    let mut chosen = if named.is_empty() { all.to_vec() } else { named.to_vec() };
    chosen.sort();
    chosen.dedup();
    chosen
}

/// The operations that run for those measured to make sense: nothing without a first backup, no prune without a
/// snapshot to forget.
fn needed(measured: &[Operation]) -> Vec<Operation> {
    let mut needed = vec![Operation::Init, Operation::First];
    if measured.contains(&Operation::Prune) {
        needed.push(Operation::Changed);
    }
    needed.extend(measured);
    chosen(&needed, &[])
}

/// Content, owners, modes, times, links, ACLs and extended attributes.
fn compare(source: &Path, restored: &Path) -> Result<()> {
    let mut with_slash = source.as_os_str().to_owned();
    with_slash.push("/");
    let differences = command::output(
        Command::new("rsync").args(["-naHAXc", "--delete", "--itemize-changes"]).arg(with_slash).arg(restored),
    )?;
    if !differences.is_empty() {
        bail!("what holdfast restored differs from the source:\n{}", command::tail(&differences, 20));
    }
    Ok(())
}

/// The program that is measured: the one in `HOLDFAST_BIN`, or it is built.
pub(super) fn holdfast() -> Result<PathBuf> {
    match std::env::var_os("HOLDFAST_BIN") {
        Some(program) => std::path::absolute(program).context("HOLDFAST_BIN"),
        None => built("holdfast"),
    }
}

/// Builds the program of a package for release.
pub(super) fn built(package: &str) -> Result<PathBuf> {
    eprintln!("building {package} for release");
    let messages = command::output(
        cargo()
            .args(["build", "--release", "--locked", "--package", package, "--message-format=json"])
            .current_dir(root()),
    )?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .context("cargo built no program")
}

/// What a reader must know to judge the numbers.
fn facts(arguments: &Arguments, restic: &Path, cold: bool) -> Result<Vec<String>> {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let caches = if cold { "dropped before each operation" } else { "NOT dropped: that takes root" };
    let version = command::output(Command::new(restic).arg("version"))?;
    Ok(vec![
        format!("{cores} cores, {} GiB of memory, caches {caches}", memory >> 20),
        format!(
            "rounds: {}, data at {} %; times are medians, memory is the peak of all rounds",
            arguments.rounds, arguments.percent
        ),
        format!("{}; the ratio says how many times as fast Holdfast is", version.trim()),
        match needed(&chosen(&arguments.rows, Operation::value_variants())).contains(&Operation::Restore) {
            true => "what Holdfast wrote passed `restic check`, and what it restored equals the source".to_owned(),
            false => "what Holdfast wrote passed `restic check`".to_owned(),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_brings_what_it_builds_on() {
        use Operation::{Changed, First, Init, Prune, Restore};
        assert_eq!(needed(&[Restore]), [Init, First, Restore]);
        assert_eq!(needed(&[Prune]), [Init, First, Changed, Prune]);
        assert_eq!(needed(&[Init]), [Init, First]);
        let all = Operation::value_variants();
        assert_eq!(needed(all), all);
    }

    #[test]
    fn a_copy_is_equal_down_to_times_and_attributes() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "one").unwrap();
        command::output(Command::new("cp").arg("-a").arg(&source).arg(&copy)).unwrap();
        compare(&source, &copy).unwrap();
        fs::write(copy.join("file"), "two").unwrap();
        command::output(Command::new("touch").arg("-r").arg(source.join("file")).arg(copy.join("file"))).unwrap();
        assert!(compare(&source, &copy).is_err(), "same size and time, other content");
        fs::remove_file(copy.join("file")).unwrap();
        assert!(compare(&source, &copy).is_err(), "a file is missing");
    }
}
