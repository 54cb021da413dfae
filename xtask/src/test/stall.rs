//! Takes the processors away from everybody for seconds, again and again: as a busy machine does, and shows which tests,
//! and which promises, rely on a quick one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Above everything that does not ask for it; the kernel leaves the others a twentieth all the same.
const PRIORITY: libc::c_int = 50;
/// How soon the end is seen.
const LOOK: Duration = Duration::from_millis(200);

/// Goes on until it is dropped.
pub(super) struct Stalls {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stalls {
    pub(super) fn begin() -> Result<Self> {
        let mut stalls = Self { ended: Arc::default(), threads: Vec::new() };
        let begun = Instant::now();
        for processor in 0..std::thread::available_parallelism()?.get() {
            let (ended, (ready, is_ready)) = (Arc::clone(&stalls.ended), std::sync::mpsc::channel());
            let thread = std::thread::Builder::new().name(format!("stall-{processor}")).spawn(move || {
                let taken = take(processor);
                let is_ours = taken.is_ok();
                _ = ready.send(taken);
                if is_ours {
                    stall(begun, &ended);
                }
            });
            stalls.threads.push(thread?);
            is_ready.recv()?.context("cannot take processors from others, which only root may")?;
        }
        Ok(stalls)
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
    }
}

/// This thread runs on one processor, before all others.
fn take(processor: usize) -> std::io::Result<()> {
    let mut processors = rustix::thread::CpuSet::new();
    processors.set(processor);
    rustix::thread::sched_setaffinity(None, &processors)?;
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: a system call about the calling thread; the parameters outlive it.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// All threads have the same times: 2 to 4 s, 6 to 16 s apart.
fn stall(begun: Instant, ended: &AtomicBool) {
    let mut from = begun;
    for round in 0_u64.. {
        from += Duration::from_millis(6_000 + round * 3_700 % 10_100);
        while Instant::now() < from {
            if ended.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(LOOK.min(from.saturating_duration_since(Instant::now())));
        }
        let until = from + Duration::from_millis(2_000 + round * 700 % 2_100);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        from = until;
    }
}
