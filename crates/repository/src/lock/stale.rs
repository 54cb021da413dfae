//! When a lock has no holder any more: as its time says, as this system says, or as the caller knows.
//!
//! A host name and a process number do not name a process: containers of one host name have each their own number 1,
//! one after the other or at once. So what this system says of a process counts only for locks that carry the mark of
//! the numbering that this process lives in, which a lock of restic's never does.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, LazyLock, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::HELD;
use crate::Id;
use crate::format::lock::LockFile;
use crate::identity::Identity;

/// After how long without renewal a lock is void for everybody.
const VOID_AFTER: SignedDuration = SignedDuration::from_mins(30);

/// What a caller knows of the holders of locks that this process cannot see, as whether the pod of that host name
/// is gone or has ended.
///
/// It is asked about locks in the way that are not stale by themselves, at every look at them. `true` removes the
/// lock: it must be certain, and `false` is the answer in doubt. That a process of the same host name and number runs
/// now does not mean that it holds the lock, nor does a new pod of the same name.
#[derive(Clone)]
pub struct HolderIsGone(Arc<dyn Fn(&LockFile) -> bool + Send + Sync>);

impl HolderIsGone {
    /// Asks `is_gone`.
    pub fn new(is_gone: impl Fn(&LockFile) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_gone))
    }
}

impl fmt::Debug for HolderIsGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HolderIsGone")
    }
}

/// What may show that a lock is stale, besides its time.
#[derive(Clone, Copy)]
pub(super) enum Evidence<'a> {
    /// Only what is certain.
    Certain(Option<&'a HolderIsGone>),
    /// As restic judges: there is no process of that number, and the host has the same name. For a person who says so.
    HostName,
}

/// Why nobody can be holding this lock any more; `None` when somebody may.
pub(super) fn stale_reason(id: &Id, lock: &LockFile, evidence: Evidence<'_>, now: Timestamp) -> Option<String> {
    if now.duration_since(lock.time) > VOID_AFTER {
        return Some(format!("it was last renewed at {}, more than 30 minutes ago", lock.time));
    }
    let is_here = lock.hostname == Identity::current().hostname
        && match (&lock.process_namespace, evidence) {
            (Some(theirs), _) => process_namespace() == Some(theirs),
            (None, Evidence::HostName) => true,
            (None, Evidence::Certain(_)) => false,
        };
    if is_here {
        return process_is_gone(id, lock).map(Into::into);
    }
    match evidence {
        Evidence::Certain(Some(HolderIsGone(is_gone))) if is_gone(lock) => {
            Some(format!("its holder on {} is gone", lock.hostname))
        }
        _ => None,
    }
}

/// The numbering of processes that this one lives in: the namespace, and the system's start, after which namespaces
/// are numbered anew. None where the system does not tell, or tells of another namespace's processes.
///
/// The number of a namespace is used again once it is gone: then all its processes are gone, too.
pub(super) fn process_namespace() -> Option<&'static String> {
    static NAMESPACE: LazyLock<Option<String>> = LazyLock::new(|| {
        let us = std::fs::read_link("/proc/self").ok()?;
        if us.to_str()?.parse() != Ok(std::process::id()) {
            return None;
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = std::fs::metadata("/proc/self/ns/pid").ok()?.ino();
        Some(format!("{}/{namespace}", boot.trim()))
    });
    NAMESPACE.as_ref()
}

/// Whether a lock was certainly written on this system since its last start: its time is of the same clock as ours.
pub fn is_of_this_system(lock: &LockFile) -> bool {
    let boot = |mark: &str| mark.rsplit_once('/').map(|(boot, _)| boot.to_owned());
    let theirs = lock.process_namespace.as_deref().and_then(boot);
    theirs.is_some() && theirs == process_namespace().and_then(|ours| boot(ours))
}

/// Why the process that wrote the lock, under a number of our own numbering, is gone.
fn process_is_gone(id: &Id, lock: &LockFile) -> Option<&'static str> {
    if lock.pid == std::process::id() {
        // Held locks are known: this one is of an earlier process that had our number, mostly 1.
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).contains(id);
        return (!held).then_some("an earlier process of the same number left it");
    }
    match process_start(lock.pid) {
        Process::Gone => Some("its process is gone"),
        Process::StartedAt(start) if start > lock.time + SignedDuration::from_secs(2) => {
            Some("its process is gone, another one has its number")
        }
        Process::StartedAt(_) | Process::Unknown => None,
    }
}

enum Process {
    Gone,
    StartedAt(Timestamp),
    Unknown,
}

/// When a process started, from what `/proc` says. That it is gone only the system call tells: `/proc` may hide others'.
fn process_start(pid: u32) -> Process {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Process::Unknown };
    if test_kill_process(process) == Err(Errno::SRCH) {
        return Process::Gone;
    }
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let boot = read("/proc/stat").and_then(|text| boot_time(&text));
    let ticks = read(&format!("/proc/{pid}/stat")).and_then(|text| start_ticks(&text));
    match boot.zip(ticks) {
        // USER_HZ, the unit of this file, is 100 on every Linux there is.
        Some((boot, ticks)) => {
            Process::StartedAt(boot + SignedDuration::from_millis((ticks * 10).try_into().unwrap_or(i64::MAX)))
        }
        None => Process::Unknown,
    }
}

fn boot_time(stat: &str) -> Option<Timestamp> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// Field 22 of `/proc/PID/stat`; the second may hold anything, but ends with the last `)`.
fn start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
