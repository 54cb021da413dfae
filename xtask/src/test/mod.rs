//! `cargo xtask test`: the one command that says whether a checkout is good. Stages run in order and the first that
//! fails ends it; at the end stand the test runners' own summaries, the time of each stage, and as the last line
//! `N passed, N failed`. Nothing is ever skipped because it is missing.

mod e2e;
mod runner;
mod stall;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::cache::Cache;
use crate::command::{self, cargo};
use crate::house;
use crate::tools::{self, Tool};
use runner::Summary;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    one: Option<One>,
    /// Only these stages, in their usual order
    stages: Vec<Stage>,
    /// Show the stages and run nothing
    #[arg(long)]
    list: bool,
}

/// A stage that takes arguments when it runs alone.
#[derive(clap::Subcommand)]
enum One {
    /// The tests on a real Kubernetes, or some of them
    E2e(e2e::Arguments),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    /// Programs and packages that the other stages use (`cargo xtask tools`)
    Tools,
    /// rustfmt, as a check
    Fmt,
    /// clippy over every target, warnings are errors
    Clippy,
    /// Licences, sources and banned crates
    Deny,
    /// Which crate may use which, and what a source file may hold
    House,
    /// The CSI driver of test clusters: gofmt, vet, its tests; needs root
    Go,
    /// Every test that needs no cluster: unit, oracle, the program on one machine
    Test,
    /// Tests on a real Kubernetes, two of which it starts; needs root
    E2e,
    /// Known vulnerabilities; fetches the advisory database, so it runs only when named
    Advisories,
}

/// What runs when no stage is named.
const ALL: [Stage; 8] =
    [Stage::Tools, Stage::Fmt, Stage::Clippy, Stage::Deny, Stage::House, Stage::Go, Stage::Test, Stage::E2e];

/// How one stage ended.
struct Outcome {
    stage: Stage,
    took: Duration,
    ok: bool,
}

/// The task itself.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.list {
        for stage in Stage::value_variants() {
            println!("{:<12}{}", stage.name(), stage.help());
        }
        return ExitCode::SUCCESS;
    }
    let mut summary = Summary::default();
    let mut outcomes = Vec::new();
    let (stages, e2e) = match &arguments.one {
        Some(One::E2e(e2e)) => (vec![Stage::E2e], e2e),
        None => (chosen(&arguments.stages), &e2e::Arguments::default()),
    };
    for stage in stages {
        eprintln!("\n=== {} ===", stage.name());
        let start = Instant::now();
        let result = stage.run(e2e, &mut summary);
        if let Err(error) = &result {
            eprintln!("error: {error:#}");
        }
        outcomes.push(Outcome { stage, took: start.elapsed(), ok: result.is_ok() });
        if result.is_err() {
            break;
        }
    }
    let ok = outcomes.iter().all(|outcome| outcome.ok);
    println!("\n{}", report(&outcomes, &summary));
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The stages to run, each once and in their usual order.
fn chosen(named: &[Stage]) -> Vec<Stage> {
    let mut stages = if named.is_empty() { ALL.to_vec() } else { named.to_vec() };
    stages.sort();
    stages.dedup();
    stages
}

impl Stage {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn help(self) -> String {
        self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    fn run(self, e2e: &e2e::Arguments, summary: &mut Summary) -> Result<()> {
        let cache = Cache::open()?;
        match self {
            Self::Tools => tools::install(&cache, &tools::for_tests()),
            Self::Fmt => command::run(workspace(cargo()).args(["fmt", "--all", "--check"])),
            Self::Clippy => command::run(workspace(cargo()).args([
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ])),
            Self::Deny => deny(&cache, &["bans", "licenses", "sources"]),
            Self::Advisories => deny(&cache, &["advisories"]),
            Self::House => {
                let findings = house::check()?;
                findings.iter().for_each(|finding| eprintln!("{finding}"));
                if findings.is_empty() { Ok(()) } else { bail!("{} house rules broken", findings.len()) }
            }
            Self::Go => tools::check_csi_driver(),
            Self::Test => runner::cargo_test(|| workspace(cargo()), summary),
            Self::E2e => e2e::run(e2e, summary),
        }
    }
}

/// Stages work on the whole workspace wherever the command was called.
fn workspace(mut command: Command) -> Command {
    command.current_dir(root());
    command
}

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

fn deny(cache: &Cache, checks: &[&str]) -> Result<()> {
    tools::install(cache, &[Tool::CargoDeny])?;
    command::run(
        workspace(Command::new(cache.program("cargo-deny")))
            .args(["--workspace", "--all-features", "--locked", "check", "--hide-inclusion-graph"])
            .args(checks),
    )
}

/// The end of the output: the runners' summaries, the table of stages, the totals.
fn report(outcomes: &[Outcome], summary: &Summary) -> String {
    let mut text = summary.lines.join("\n");
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    for Outcome { stage, took, ok } in outcomes {
        let verdict = if *ok { "ok" } else { "FAILED" };
        text.push_str(&format!("{:<12}{:>8.1} s  {verdict}\n", stage.name(), took.as_secs_f64()));
    }
    // A stage that broke without a failing test of its own counts as one failure: the last line never says 0 then.
    let broken = outcomes.iter().any(|outcome| !outcome.ok) && summary.failed == 0;
    text.push_str(&format!("{} passed, {} failed", summary.passed, summary.failed + u64::from(broken)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(stage: Stage, ok: bool) -> Outcome {
        Outcome { stage, took: Duration::from_millis(1250), ok }
    }

    #[test]
    fn the_last_line_is_the_total() {
        let summary = Summary { passed: 12, failed: 0, lines: vec!["api: test result: ok.".into()] };
        let text = report(&[outcome(Stage::Fmt, true), outcome(Stage::Test, true)], &summary);
        assert_eq!(
            text,
            "api: test result: ok.\n\n\
             fmt              1.2 s  ok\n\
             test             1.2 s  ok\n\
             12 passed, 0 failed"
        );
    }

    #[test]
    fn a_broken_stage_is_a_failure_and_a_failing_test_is_not_counted_twice() {
        let broken = report(&[outcome(Stage::Clippy, false)], &Summary::default());
        assert!(broken.contains("FAILED") && broken.ends_with("\n0 passed, 1 failed"), "{broken}");
        let failing = Summary { passed: 3, failed: 2, lines: Vec::new() };
        assert!(report(&[outcome(Stage::Test, false)], &failing).ends_with("\n3 passed, 2 failed"));
    }

    #[test]
    fn stages_run_once_and_in_order_and_advisories_only_when_named() {
        assert_eq!(chosen(&[Stage::Clippy, Stage::Fmt, Stage::Clippy]), [Stage::Fmt, Stage::Clippy]);
        assert_eq!(chosen(&[]), ALL);
        assert!(!chosen(&[]).contains(&Stage::Advisories));
        assert_eq!(chosen(&[Stage::Advisories]), [Stage::Advisories]);
    }
}
