//! Runs test programs that cargo built, passes on what they print, and keeps each one's own last line.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write, pipe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::{self, describe};

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

/// How many programs run at once: towards the end of most of them a single test is waited for.
const AT_ONCE: usize = 2;

/// Every test of the workspace that needs no cluster.
pub(super) fn cargo_test(cargo: impl Fn() -> Command, summary: &mut Summary) -> Result<()> {
    let test = |more: &[&str]| {
        let mut test = cargo();
        test.args(["test", "--locked", "--workspace", "--exclude", "holdfast-e2e"]).args(more);
        test
    };
    let tests = programs(&command::stdout(&mut test(&BUILD))?)?.iter().map(Program::command).collect();
    let programs = run_all(tests, &mut std::io::stdout(), summary);
    // There may be none.
    let docs = run_program(test(&["--doc"]), "doc", &mut std::io::stdout(), summary);
    programs.and(docs)
}

/// Arguments by which `cargo test` builds tests and says where they are.
pub(super) const BUILD: [&str; 3] = ["--no-run", "--message-format", "json-render-diagnostics"];

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// `pod (tests/pod/main.rs)`
    name: String,
    pub(super) file: PathBuf,
    /// The folder of its package, in which cargo runs it.
    folder: PathBuf,
}

impl Program {
    fn command(&self) -> (String, Command) {
        let mut command = Command::new(&self.file);
        command.current_dir(&self.folder);
        (self.name.clone(), command)
    }
}

/// The test programs among the messages of cargo.
pub(super) fn programs(messages: &str) -> Result<Vec<Program>> {
    #[derive(Deserialize)]
    struct Message {
        manifest_path: Option<PathBuf>,
        target: Option<Target>,
        profile: Option<Profile>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        src_path: PathBuf,
    }
    #[derive(Deserialize)]
    struct Profile {
        test: bool,
    }
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).with_context(|| format!("cargo said `{line}`"))?;
        // A library has no file to run, and the programs that tests call are no tests.
        let Message { manifest_path: Some(manifest), target: Some(target), profile, executable: Some(file) } = message
        else {
            continue;
        };
        if !profile.is_some_and(|profile| profile.test) {
            continue;
        }
        let folder = manifest.parent().unwrap_or(Path::new("."));
        let source = target.src_path.strip_prefix(folder).unwrap_or(&target.src_path);
        let name = format!("{} ({})", target.name, source.display());
        programs.push(Program { name, file, folder: folder.to_owned() });
    }
    Ok(programs)
}

/// Runs all of these, some at once, whichever fail; fails also when in all of them none ran. What one prints comes in one
/// piece, when it has ended.
fn run_all(tests: Vec<(String, Command)>, echo: &mut (impl Write + Send), summary: &mut Summary) -> Result<()> {
    let passed_before = summary.passed;
    let waiting = Mutex::new(VecDeque::from(tests));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let told = Mutex::new((echo, summary, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((name, tests)) = next() {
                    let mut output = format!("\n     Running {name}\n").into_bytes();
                    let mut of_it = Summary::default();
                    let outcome = run_program(tests, &name, &mut output, &mut of_it);
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    let (echo, summary, failed) = &mut *told;
                    summary.add(of_it);
                    let written = echo.write_all(&output).context("cannot write to stdout");
                    failed.extend(outcome.and(written).err().map(|error| format!("{name}: {error:#}")));
                }
            });
        }
    });
    let (_, summary, failed) = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() { some_ran(passed_before, summary) } else { bail!("{}", failed.join("\n")) }
}

/// Runs tests; fails also when none ran.
pub(super) fn run(tests: Command, program: &str, echo: &mut impl Write, summary: &mut Summary) -> Result<()> {
    let passed_before = summary.passed;
    run_program(tests, program, echo, summary)?;
    some_ran(passed_before, summary)
}

fn some_ran(passed_before: u64, summary: &Summary) -> Result<()> {
    if summary.passed == passed_before { bail!("no test ran") } else { Ok(()) }
}

/// Runs tests, of `program` where their output does not say of which; fails when one fails, and when one was ignored: a
/// test that does not run is a missing part.
fn run_program(mut tests: Command, program: &str, echo: &mut impl Write, summary: &mut Summary) -> Result<()> {
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
    let ignored = collect(BufReader::new(reader), program, echo, summary)?;
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    if ignored > 0 {
        bail!("{ignored} tests were ignored");
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

/// The library whose documentation cargo announces: `Doc-tests holdfast_plan`.
fn program_of(line: &str) -> Option<String> {
    line.trim().strip_prefix("Doc-tests ").map(|name| format!("{name} (doc)"))
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
test due::tests::weekly ... ok
test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
   Doc-tests holdfast_plan
test result: ok. 4 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.20s
   Doc-tests holdfast_api
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn results_are_summed_and_kept_with_the_name_of_their_program() {
        let mut summary = Summary::default();
        let mut echo = Vec::new();
        let ignored = collect(OUTPUT.as_bytes(), "plan (src/lib.rs)", &mut echo, &mut summary).unwrap();
        assert_eq!((summary.passed, summary.failed, ignored), (11, 1, 1));
        assert_eq!(String::from_utf8(echo).unwrap(), OUTPUT);
        let names: Vec<_> = summary.lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(names, ["plan (src/lib.rs)", "holdfast_plan (doc)"]);
    }

    #[test]
    fn output_that_is_not_utf8_goes_through_unchanged() {
        let mut echo = Vec::new();
        collect(&b"\xff\n"[..], "", &mut echo, &mut Summary::default()).unwrap();
        assert_eq!(echo, b"\xff\n");
    }

    #[test]
    fn test_programs_are_found_among_the_messages_of_cargo() {
        let artifact = |name: &str, source: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/{name}/Cargo.toml","profile":{{"test":{test}}},
                    "target":{{"name":"{name}","src_path":"/w/{name}/{source}"}},"executable":{executable}}}"#
            )
            .replace('\n', "")
        };
        let messages = [
            artifact("api", "src/lib.rs", false, "null"),
            artifact("cli", "src/main.rs", false, r#""/t/cli""#),
            artifact("cli", "tests/pod/main.rs", true, r#""/t/pod-1""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let (file, folder) = ("/t/pod-1".into(), "/w/cli".into());
        let pod = Program { name: "cli (tests/pod/main.rs)".to_owned(), file, folder };
        assert_eq!(programs(&messages.join("\n")).unwrap(), [pod]);
        assert!(programs("no JSON").is_err());
    }

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    fn line(counts: &str) -> String {
        format!("echo 'test result: ok. {counts}; 0 measured; 0 filtered out'")
    }

    #[test]
    fn only_tests_that_ran_and_passed_are_a_success() {
        let with = |script: &str| {
            let mut summary = Summary::default();
            (run(shell(script), "some", &mut std::io::sink(), &mut summary), summary)
        };
        assert!(with(&line("1 passed; 0 failed; 0 ignored")).0.is_ok());
        assert!(with(&line("1 passed; 0 failed; 1 ignored")).0.is_err(), "ignored");
        assert!(with(&line("0 passed; 0 failed; 0 ignored")).0.is_err(), "empty");
        let (result, summary) = with(&format!("{}; exit 101", line("4 passed; 2 failed; 0 ignored")));
        assert!(result.is_err());
        assert_eq!((summary.passed, summary.failed), (4, 2));
        assert!(with("exit 101").0.is_err(), "does not start");
    }

    #[test]
    fn all_programs_run_though_some_fail_and_each_prints_in_one_piece() {
        let scripts = (0..9).map(|n| {
            let end = if n % 4 == 0 { "; exit 101" } else { "" };
            let script =
                format!("echo first {n}; sleep 0.0$((9 - {n})); {}{end}", line("2 passed; 0 failed; 0 ignored"));
            (format!("n{n}"), shell(&script))
        });
        let (mut echo, mut summary) = (Vec::new(), Summary::default());
        let error = run_all(scripts.collect(), &mut echo, &mut summary).unwrap_err().to_string();
        let mut failed: Vec<_> = error.lines().map(|line| &line[..3]).collect();
        failed.sort_unstable();
        assert_eq!(failed, ["n0:", "n4:", "n8:"], "{error}");
        assert_eq!((summary.passed, summary.lines.len()), (18, 9));
        let empty = vec![("empty".to_owned(), shell(&line("0 passed; 0 failed; 0 ignored")))];
        assert!(run_all(empty, &mut std::io::sink(), &mut summary).is_err(), "empty");
        assert!(run_all(Vec::new(), &mut std::io::sink(), &mut summary).is_err(), "no program");
        let echo = String::from_utf8(echo).unwrap();
        for n in 0..9 {
            assert!(echo.contains(&format!("Running n{n}\nfirst {n}\ntest result")), "{echo}");
        }
    }
}
