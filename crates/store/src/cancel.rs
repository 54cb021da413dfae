//! Asks operations under way to end: who waits for a server must not keep a program from stopping.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind};

/// Given to a store when it is opened, and used from any thread. Clones share their state; there is no way back.
///
/// Once it is cancelled no wait for another try begins or goes on, and no reading. Writing and deleting are still
/// tried, once and for [`Cancel::GRACE`] at most: whoever stops gives back its lock, and tells what it has stored.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<State>);

#[derive(Debug, Default)]
struct State {
    flag: Arc<AtomicBool>,
    seen: OnceLock<Instant>,
}

impl Cancel {
    /// How long a request may go on after it was cancelled, or was begun after that.
    pub const GRACE: Duration = Duration::from_secs(2);
    /// How often who waits looks at it. A flag that a signal handler raises wakes nobody.
    pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

    /// One that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to end.
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::Relaxed);
    }

    /// Whether everybody is to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::Relaxed)
    }

    /// The flag behind [`Cancel::cancel`], for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.flag)
    }

    /// When it was first seen to be cancelled.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.is_cancelled().then(|| *self.0.seen.get_or_init(Instant::now))
    }

    /// The failure of an operation that was not begun or not carried on.
    pub(crate) fn error(operation: &'static str, name: impl Into<String>) -> Error {
        Error::new(ErrorKind::Interrupted, operation, name, "interrupted")
    }
}
