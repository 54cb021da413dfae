//! What the operator tells whoever runs it; it prints nothing itself.

use std::sync::Arc;

/// Something worth a line in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// What was done or began.
    Done(String),
    /// What went wrong and is tried again.
    Trouble(String),
}

/// Where notices go.
pub type Tell = Arc<dyn Fn(Notice) + Send + Sync>;
