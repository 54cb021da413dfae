//! How a long operation tells of its progress and is asked to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_store::Cancel;

use crate::{Error, Result, chain};

/// What an operation has done so far; read it at any time from any thread.
#[derive(Debug, Default)]
pub struct Counters {
    /// Files done.
    pub files: AtomicU64,
    /// Folders done.
    pub dirs: AtomicU64,
    /// Bytes of file content done.
    pub bytes: AtomicU64,
    /// Files there will be; 0 while it is not known.
    pub files_total: AtomicU64,
    /// Bytes there will be; 0 while it is not known.
    pub bytes_total: AtomicU64,
    /// Bytes read from or written to the repository.
    pub stored_bytes: AtomicU64,
    /// Things that failed and were passed over.
    pub errors: AtomicU64,
    /// Steps of an operation that has no files: packs checked, snapshots forgotten…
    pub steps: AtomicU64,
    /// Steps there will be.
    pub steps_total: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// Something that a person may want to read while an operation runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Something could not be read, written or understood; the operation goes on and ends as incomplete.
    Error {
        /// What it is about: a path, a pack, a snapshot.
        item: String,
        /// Why, with all causes.
        message: String,
    },
    /// Worth knowing, and no failure.
    Note {
        /// What it is about.
        item: String,
        /// What.
        message: String,
    },
    /// Something was done to an item (verbose): `new`, `modified`, `unchanged`, `restored`, `removed`…
    Item {
        /// What was done.
        action: &'static str,
        /// To what.
        item: String,
    },
}

impl Event {
    /// What it says in one line: the message, with what it is about in front unless the message names that itself.
    pub fn text(&self) -> String {
        match self {
            Self::Error { item, message } | Self::Note { item, message } if message.contains(item) => message.clone(),
            Self::Error { item, message } | Self::Note { item, message } => format!("{item}: {message}"),
            Self::Item { action, item } => format!("{action:<9} {item}"),
        }
    }
}

/// Where an operation reports to. Clones share their state.
#[derive(Clone, Default)]
pub struct Monitor {
    counters: Arc<Counters>,
    cancel: Cancel,
    listener: Option<Arc<dyn Fn(Event) + Send + Sync>>,
    verbose: bool,
}

impl Monitor {
    /// A monitor that hands every event to `listener`, from any thread; with `verbose`, every item too.
    pub fn new(listener: impl Fn(Event) + Send + Sync + 'static, verbose: bool) -> Self {
        Self { listener: Some(Arc::new(listener)), verbose, ..Self::default() }
    }

    /// What has been done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asks the operation to stop; it ends with [`Error::Interrupted`] and leaves the repository whole.
    pub fn interrupt(&self) {
        self.cancel.cancel();
    }

    /// What [`Monitor::interrupt`] cancels: a store that was opened with it does not keep the operation waiting.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// The same monitor, interrupted by `cancel`: for who opens the store before there is anything to monitor.
    #[must_use]
    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// Fails once [`Monitor::interrupt`] was called.
    pub fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    pub(crate) fn error(&self, item: impl Into<String>, error: &dyn std::error::Error) {
        Counters::add(&self.counters.errors, 1);
        self.send(|| Event::Error { item: item.into(), message: chain(error) });
    }

    /// Tells of a failure that is passed over. That the work was interrupted is told once, by its outcome.
    pub(crate) fn failed(&self, item: impl Into<String>, error: &Error) {
        if !matches!(error, Error::Interrupted) {
            self.error(item, error);
        }
    }

    pub(crate) fn note(&self, item: impl Into<String>, message: impl Into<String>) {
        self.send(|| Event::Note { item: item.into(), message: message.into() });
    }

    pub(crate) fn item(&self, action: &'static str, item: impl FnOnce() -> String) {
        if self.verbose {
            self.send(|| Event::Item { action, item: item() });
        }
    }

    fn send(&self, event: impl FnOnce() -> Event) {
        if let Some(listener) = &self.listener {
            listener(event());
        }
    }
}
