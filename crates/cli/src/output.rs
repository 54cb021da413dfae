//! What people and programs see: results on standard output, everything else on standard error.
#![expect(clippy::print_stderr, reason = "this is the module that prints")]

use std::borrow::Cow;
use std::io::{BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Once, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_repository::{Event, Monitor};
use holdfast_store::Cancel;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::args::{Format, OutputArgs};
use crate::failure::{Failure, Result, code};

/// How often the figures on a terminal change.
pub(crate) const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Where a command talks to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    verbose: bool,
    terminal: bool,
}

impl Output {
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let format = if args.json { Format::Json } else { args.output };
        Self { format, quiet: args.quiet, verbose: args.verbose > 0, terminal: std::io::stderr().is_terminal() }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether progress bars are shown: on a terminal, to a person who wants to read.
    pub(crate) fn has_bars(&self) -> bool {
        self.terminal && !self.quiet && !self.is_json()
    }

    /// Prints a result: `json` for programs, `text` for people.
    pub(crate) fn result(&self, json: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        match self.format {
            Format::Json => self.line(&serde_json::to_string(json).map_err(Failure::new)?),
            Format::Text => self.line(text().trim_end_matches('\n')),
        }
    }

    /// Prints a line of the result; nothing, if it is empty.
    pub(crate) fn line(&self, line: &str) -> Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        writeln!(std::io::stdout().lock(), "{line}").map_err(Failure::output)
    }

    /// Prints a note, unless only errors are wanted.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet && !self.is_json() {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Prints something that went wrong while the command goes on.
    pub(crate) fn problem(&self, text: impl AsRef<str>) {
        if !self.is_json() {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Prints what made a command fail.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.is_silent() {
            return;
        }
        if self.is_json() {
            let json = json!({
                "message_type": "exit_error",
                "code": failure.code(),
                "message": failure.message(),
                "hint": failure.hint(),
            });
            eprintln!("{json}");
            return;
        }
        eprintln!("error: {}", failure.message());
        if let Some(hint) = failure.hint() {
            eprintln!("  hint: {hint}");
        }
    }

    /// What a short operation reports to; see [`Self::progress`].
    pub(crate) fn monitor(&self) -> Monitor {
        self.monitor_beside(None)
    }

    /// Starts showing the progress of a long operation on a terminal; dropped, it stops.
    pub(crate) fn progress(&self, title: &'static str) -> Progress {
        let bar = self.has_bars().then(|| spinner(title));
        let monitor = self.monitor_beside(bar.clone());
        let (stop, stopped) = mpsc::channel();
        let thread = bar.map(|bar| {
            let monitor = monitor.clone();
            std::thread::spawn(move || draw(&bar, &monitor, &stopped))
        });
        Progress { monitor, stop: Some(stop), thread }
    }

    /// Prints what is reported, above the bar if there is one.
    fn monitor_beside(&self, bar: Option<ProgressBar>) -> Monitor {
        let output = *self;
        let print = move |event| {
            if let Some(line) = output.event(&event) {
                match &bar {
                    Some(bar) => bar.suspend(|| eprintln!("{line}")),
                    None => eprintln!("{line}"),
                }
            }
        };
        let monitor = Monitor::new(print, self.verbose).cancelled_by(interrupt());
        interrupt_on_signals();
        monitor
    }

    fn event(&self, event: &Event) -> Option<String> {
        if self.quiet && !matches!(event, Event::Error { .. }) {
            return None;
        }
        if self.is_json() {
            let json = match event {
                Event::Error { item, message } => {
                    json!({"message_type": "error", "item": item, "error": {"message": message}})
                }
                Event::Note { item, message } => json!({"message_type": "note", "item": item, "message": message}),
                Event::Item { action, item } => {
                    json!({"message_type": "verbose_status", "action": action, "item": item})
                }
                _ => return None,
            };
            return Some(json.to_string());
        }
        Some(match event {
            Event::Error { .. } => format!("error: {}", event.text()),
            Event::Note { .. } => format!("note: {}", event.text()),
            _ => event.text(),
        })
    }
}

/// Prints lines while an operation of the engine finds them. What stops the printing stops the operation.
pub(crate) struct Lines {
    out: BufWriter<StdoutLock<'static>>,
    failure: Option<Failure>,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self { out: BufWriter::new(std::io::stdout().lock()), failure: None }
    }

    pub(crate) fn print(&mut self, line: &str) -> holdfast_repository::Result<()> {
        writeln!(self.out, "{line}").map_err(|error| {
            self.failure = Some(Failure::output(error));
            holdfast_repository::Error::Interrupted
        })
    }

    /// The operation's outcome, or why printing failed.
    pub(crate) fn finish<T>(mut self, outcome: holdfast_repository::Result<T>) -> Result<T> {
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => {
                self.out.flush().map_err(Failure::output)?;
                Ok(outcome?)
            }
        }
    }
}

/// A number of things; their word takes an s for more than one.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What Ctrl-C and SIGTERM interrupt, once there is something to monitor. Repositories are opened with it, too.
pub(crate) fn interrupt() -> Cancel {
    static INTERRUPT: LazyLock<Cancel> = LazyLock::new(Cancel::new);
    INTERRUPT.clone()
}

/// Ctrl-C and SIGTERM interrupt what reports to a monitor; a second one ends the program at once.
fn interrupt_on_signals() {
    static DONE: Once = Once::new();
    DONE.call_once(|| register(&interrupt().flag()));
}

fn register(flag: &Arc<AtomicBool>) {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The order matters: the first signal finds the flag down and only raises it. Where a handler cannot be had,
        // the signal ends the program, which is safe, if less polite.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, code::INTERRUPTED.into(), Arc::clone(flag));
        let _ = signal_hook::flag::register(signal, Arc::clone(flag));
    }
}

/// Shows progress until it is dropped.
pub(crate) struct Progress {
    monitor: Monitor,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// What the operation reports to.
    pub(crate) fn monitor(&self) -> &Monitor {
        &self.monitor
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A bar that shows figures of something whose end is not known.
pub(crate) fn spinner(title: impl Into<Cow<'static, str>>) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(title);
    bar
}

fn draw(bar: &ProgressBar, monitor: &Monitor, stopped: &mpsc::Receiver<()>) {
    let start = Instant::now();
    while stopped.recv_timeout(DRAW_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
        bar.set_message(figures(monitor, start.elapsed()));
        bar.tick();
    }
    bar.finish_and_clear();
}

fn figures(monitor: &Monitor, elapsed: Duration) -> String {
    let counters = monitor.counters();
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (files, files_total) = (get(&counters.files), get(&counters.files_total));
    let (bytes, bytes_total) = (get(&counters.bytes), get(&counters.bytes_total));
    let (steps, steps_total) = (get(&counters.steps), get(&counters.steps_total));
    let mut parts = vec![format!("[{}]", HumanDuration(elapsed))];
    if bytes_total > 0 {
        parts.push(format!("{:.1}%", 100.0 * bytes as f64 / bytes_total as f64));
    }
    if files > 0 || files_total > 0 {
        let total = if files_total > 0 { format!(" of {files_total}") } else { String::new() };
        parts.push(format!("{files}{total} files"));
    }
    if bytes > 0 {
        let total = if bytes_total > 0 { format!(" of {}", HumanBytes(bytes_total)) } else { String::new() };
        let rate = (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        parts.push(format!("{}{total}, {}/s", HumanBytes(bytes), HumanBytes(rate)));
    }
    if steps_total > 0 {
        parts.push(format!("{steps} of {steps_total}"));
    }
    let errors = get(&counters.errors);
    if errors > 0 {
        parts.push(format!("{errors} errors"));
    }
    parts.join(" ")
}
