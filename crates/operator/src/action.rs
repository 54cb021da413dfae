//! What is to be done at the API server: the whole of the operator's output, as data.

use holdfast_plan::ObjectKey;
use serde::Serialize;
use serde_json::Value;

/// One write. Each is harmless when done twice.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum Action {
    /// Server-side apply, by force: what `object` names is as it says, what the same manager named before and does not
    /// name now goes.
    Apply {
        /// Why, for the log.
        because: String,
        /// The field manager.
        manager: String,
        /// `status`, or none for the object itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        subresource: Option<&'static str>,
        /// The object, as far as it is ours.
        object: Value,
    },
    /// Creates an object that must not be there yet; that it is already is no failure.
    Create {
        /// Why, for the log.
        because: String,
        /// The object.
        object: Value,
    },
    /// Deletes this very object, and what it owns.
    Delete {
        /// Why, for the log.
        because: String,
        /// Group and version, as `batch/v1`.
        #[serde(rename = "apiVersion")]
        api_version: String,
        /// Which one.
        object: ObjectKey,
        /// Its UID: another of the same name stays.
        uid: String,
    },
    /// Evicts this very pod, as far as disruption budgets allow.
    Evict {
        /// Why, for the log.
        because: String,
        /// Which one.
        object: ObjectKey,
        /// Its UID.
        uid: String,
    },
}

impl Action {
    /// What is done, in one word, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Apply { subresource: None, .. } => "apply",
            Self::Apply { subresource: Some(_), .. } => "apply_status",
            Self::Create { .. } => "create",
            Self::Delete { .. } => "delete",
            Self::Evict { .. } => "evict",
        }
    }
}

/// What follows from the objects of one namespace at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Decision {
    /// What is to be done, in this order; nothing in steady state.
    pub actions: Vec<Action>,
    /// When to decide again if nothing changes until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<jiff::Timestamp>,
}

impl Decision {
    /// Decides again at `moment` at the latest.
    pub(crate) fn again_at(&mut self, moment: jiff::Timestamp) {
        sooner(&mut self.again, moment);
    }
}

/// Takes another moment where none is known or it comes first.
pub(crate) fn sooner<T: Ord>(known: &mut Option<T>, other: T) {
    if known.as_ref().is_none_or(|known| other < *known) {
        *known = Some(other);
    }
}
