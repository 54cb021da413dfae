//! The failure that ends the work of several threads: who fails says so here, and the others stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// The first failure of any thread.
#[derive(Default)]
pub(crate) struct Failure {
    has_failed: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Failure {
    pub(crate) fn set(&self, error: Error) {
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        // Who was only stopped because of another's failure knows nothing of the cause.
        if matches!(*first, None | Some(Error::Interrupted)) {
            *first = Some(error);
        }
        self.has_failed.store(true, Ordering::Release);
    }

    /// Fails once anything has failed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.has_failed.load(Ordering::Acquire) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// The failure, if there was one.
    pub(crate) fn take(&self) -> Result<()> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}
