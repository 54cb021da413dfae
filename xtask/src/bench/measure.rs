//! One command, from start to end: how long it took and the most memory it held. And what makes two measurements
//! comparable: caches dropped before each.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::command;

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Wall-clock time.
    pub(super) seconds: f64,
    /// Peak resident set of the process, in KiB. Never below the peak of this program, from which it was forked:
    /// a few MiB, because the benchmark streams all it does.
    pub(super) peak_kib: u64,
}

/// Runs a command with its output in the file `log`, whose end is in the error when it fails.
pub(super) fn measure(command: &mut Command, log: &Path) -> Result<Cost> {
    let line = command::describe(command);
    let out = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let error = out.try_clone().context("cannot share the log")?;
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(error)
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let (status, peak_kib) = wait(child.id()).with_context(|| format!("cannot wait for `{line}`"))?;
    let seconds = start.elapsed().as_secs_f64();
    if status != 0 {
        let said = fs::read_to_string(log).unwrap_or_default();
        bail!("`{line}` failed (wait status {status}):\n{}", command::tail(&said, 30));
    }
    Ok(Cost { seconds, peak_kib })
}

/// Waits for a child that nothing else waits for; its status and its peak resident set in KiB.
fn wait(pid: u32) -> io::Result<(i32, u64)> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    loop {
        let mut status = 0;
        // SAFETY: all zeroes is a value of this C struct of numbers, and both pointers are to live locals.
        let (found, usage) = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            (libc::wait4(pid, &mut status, 0, &mut usage), usage)
        };
        if found == pid {
            return Ok((status, usage.ru_maxrss.try_into().unwrap_or(0)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Writes everything out and, where this process may, forgets what files held; whether it could.
pub(super) fn drop_caches() -> Result<bool> {
    command::run(&mut Command::new("sync"))?;
    Ok(fs::write("/proc/sys/vm/drop_caches", "3").is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_timed_and_its_memory_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let cost = |script: &str| measure(Command::new("python3").args(["-c", script]), &log).unwrap();
        let small = cost("pass");
        let large = cost("x = bytearray(b'x') * (200 << 20)");
        assert!(large.peak_kib > 200 << 10, "{large:?}");
        assert!(small.peak_kib < 150 << 10, "{small:?}");
        assert!(small.seconds > 0.0);
    }

    #[test]
    fn a_failure_shows_what_the_command_said() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let error = measure(Command::new("sh").args(["-c", "echo no such repository >&2; exit 10"]), &log).unwrap_err();
        assert!(error.to_string().ends_with("no such repository"), "{error}");
    }
}
