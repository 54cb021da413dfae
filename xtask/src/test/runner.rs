//! Runs `cargo test`, passes its output on as it comes, and keeps each runner's own last line.

use std::io::{BufRead, BufReader, Write, pipe};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::describe;

/// What the test runners said of themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// One line for each test program: its name and its own result line.
    pub(super) lines: Vec<String>,
}

impl Summary {
    /// Takes in what others said.
    pub(super) fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.lines.extend(more.lines);
    }
}

/// The numbers of one `test result:` line.
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Every test of the workspace that needs no cluster.
pub(super) fn cargo_test(mut cargo: Command, echo: &mut impl Write, summary: &mut Summary) -> Result<()> {
    cargo.args(["test", "--locked", "--workspace", "--exclude", "holdfast-e2e", "--no-fail-fast"]);
    // Many wait for discs, servers and other processes: one for each processor would leave those idle.
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cargo.args(["--", "--test-threads", &(2 * processors).to_string()]);
    run(cargo, "cargo", echo, summary)
}

/// Runs tests, of `program` where their output does not say of which; fails when one fails, when none ran, and when one
/// was ignored: a test that does not run is a missing part.
pub(super) fn run(mut tests: Command, program: &str, echo: &mut impl Write, summary: &mut Summary) -> Result<()> {
    let line = describe(&tests);
    let (reader, writer) = pipe().context("cannot make a pipe")?;
    let mut child = tests
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("cannot share a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    // The command holds the writing ends open: the reader would wait for itself.
    drop(tests);
    let passed_before = summary.passed;
    let ignored = collect(BufReader::new(reader), program, echo, summary)?;
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    if ignored > 0 {
        bail!("{ignored} tests were ignored");
    }
    if summary.passed == passed_before {
        bail!("no test ran");
    }
    Ok(())
}

/// Copies lines to `echo`, adds up results; returns how many tests were ignored.
fn collect(output: impl BufRead, program: &str, echo: &mut impl Write, summary: &mut Summary) -> Result<u64> {
    let mut program = program.to_owned();
    let mut ignored = 0;
    for line in output.split(b'\n') {
        let line = line.context("cannot read the output of the tests")?;
        // In one piece: others may write there, too.
        echo.write_all(&[&line, &b"\n"[..]].concat()).context("cannot write to stdout")?;
        let line = String::from_utf8_lossy(&line);
        if let Some(name) = program_of(&line) {
            program = name;
        } else if let Some(counts) = counts_of(&line) {
            summary.passed += counts.passed;
            summary.failed += counts.failed;
            ignored += counts.ignored;
            if counts.passed + counts.failed + counts.ignored > 0 {
                summary.lines.push(format!("{program}: {}", line.trim()));
            }
        }
    }
    Ok(ignored)
}

/// The test program that cargo announces: `Running unittests src/lib.rs (target/debug/deps/plan-0123)` or
/// `Doc-tests holdfast_plan`.
fn program_of(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} (doc)"));
    }
    let (source, file) = line.strip_prefix("Running ")?.split_once(" (")?;
    let file = file.strip_suffix(')')?.rsplit('/').next()?;
    let krate = file.rsplit_once('-').map_or(file, |(name, _)| name);
    Some(format!("{krate} ({})", source.strip_prefix("unittests ").unwrap_or(source)))
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn counts_of(line: &str) -> Option<Counts> {
    let (_, numbers) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let number = |name: &str| numbers.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok());
    Some(Counts { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
   Compiling holdfast-plan v0.1.0
     Running unittests src/lib.rs (/t/debug/deps/holdfast_plan-91ab)
test due::tests::weekly ... ok
test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
     Running tests/golden.rs (/t/debug/deps/golden-77)
test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
     Running unittests src/main.rs (/t/debug/deps/empty-1)
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests holdfast_plan
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
";

    #[test]
    fn results_are_summed_and_kept_with_the_name_of_their_program() {
        let mut summary = Summary::default();
        let mut echo = Vec::new();
        let ignored = collect(OUTPUT.as_bytes(), "", &mut echo, &mut summary).unwrap();
        assert_eq!((summary.passed, summary.failed, ignored), (13, 1, 1));
        assert_eq!(String::from_utf8(echo).unwrap(), OUTPUT);
        let names: Vec<_> = summary.lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(names, ["holdfast_plan (src/lib.rs)", "golden (tests/golden.rs)", "holdfast_plan (doc)"]);
    }

    #[test]
    fn output_that_is_not_utf8_goes_through_unchanged() {
        let mut echo = Vec::new();
        collect(&b"\xff\n"[..], "", &mut echo, &mut Summary::default()).unwrap();
        assert_eq!(echo, b"\xff\n");
    }

    /// `cargo_test` against a program that stands in for cargo.
    fn with(script: &str) -> (Result<()>, Summary) {
        let mut summary = Summary::default();
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "cargo"]);
        (cargo_test(shell, &mut std::io::sink(), &mut summary), summary)
    }

    #[test]
    fn only_tests_that_ran_and_passed_are_a_success() {
        let line = |rest: &str| format!("echo 'test result: ok. {rest}; 0 measured; 0 filtered out'");
        assert!(with(&line("1 passed; 0 failed; 0 ignored")).0.is_ok());
        assert!(with(&line("1 passed; 0 failed; 1 ignored")).0.is_err(), "ignored");
        assert!(with(&line("0 passed; 0 failed; 0 ignored")).0.is_err(), "empty");
        let (result, summary) = with(&format!("{}; exit 101", line("4 passed; 2 failed; 0 ignored")));
        assert!(result.is_err());
        assert_eq!((summary.passed, summary.failed), (4, 2));
        assert!(with("exit 101").0.is_err(), "does not compile");
    }
}
