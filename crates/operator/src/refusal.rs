//! Why an object is not carried out, in the words of its `Ready` condition.

use std::collections::BTreeMap;

use holdfast_api::manifest::{Cause, Problem};
use holdfast_plan::{ObjectKey, Plan, RecoveryState};

/// One reason, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In CamelCase, such as `MissingReference`.
    pub(crate) reason: &'static str,
    /// In words, with the way out.
    pub(crate) message: String,
    /// Whether it is about the label by which a workload asks for a Restic.
    pub(crate) is_of_label: bool,
}

impl Refusal {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_of_label: false }
    }

    /// What the planner found, without the file and line of a manifest.
    pub(crate) fn from_problem(problem: &Problem) -> Self {
        let Problem { path, problem: what, found, expected, suggestion, cause, .. } = problem;
        let mut message = if path.is_empty() { what.clone() } else { format!("{path}: {what}") };
        for (word, text) in [("found", found), ("expected", expected)] {
            if let Some(text) = text {
                message.push_str(&format!(", {word} {text}"));
            }
        }
        if let Some(suggestion) = suggestion {
            message.push_str(&format!("; {suggestion}"));
        }
        // A label of a workload is what leads to a Restic.
        Self { is_of_label: path.starts_with("metadata.labels"), ..Self::new(reason(*cause), message) }
    }
}

/// The reason of a cause.
fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::Invalid => "Invalid",
        Cause::MissingReference => "MissingReference",
        Cause::MissingTarget => "WorkloadNotFound",
        Cause::InvalidReference => "InvalidReference",
        Cause::NotAllowed => "NotAllowed",
        Cause::NotServed => "NotServed",
    }
}

/// The refusals of a namespace by object, the first that was found first.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<ObjectKey, Vec<Refusal>>);

impl Refusals {
    pub(crate) fn add(&mut self, object: ObjectKey, refusal: Refusal) {
        let known = self.0.entry(object).or_default();
        if !known.contains(&refusal) {
            known.push(refusal);
        }
    }

    /// Adds what the planner found wrong with objects that nothing was found wrong with here.
    pub(crate) fn add_plan(&mut self, plan: &Plan) {
        let gave_up: Vec<&ObjectKey> = plan
            .recoveries
            .iter()
            .filter(|planned| planned.state == RecoveryState::Failed)
            .map(|planned| &planned.object)
            .collect();
        let mut of_plan = Self::default();
        for problem in &plan.errors {
            let Some(identity) = &problem.object else { continue };
            let namespace = identity.namespace.clone().unwrap_or_default();
            let key = ObjectKey::new(identity.kind.clone(), namespace, identity.name.clone());
            // That a recovery failed for good is told by its own condition.
            if problem.path.is_empty() && gave_up.contains(&&key) {
                continue;
            }
            of_plan.add(key, Refusal::from_problem(problem));
        }
        for (object, refusals) in of_plan.0 {
            self.0.entry(object).or_insert(refusals);
        }
    }

    /// Why an object is not carried out: the first reason, and all of them in words; none if it is.
    pub(crate) fn of(&self, object: &ObjectKey) -> Option<Refusal> {
        let refusals = self.0.get(object)?;
        let first = refusals.first()?;
        let messages: Vec<&str> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
        Some(Refusal { message: messages.join("; "), ..first.clone() })
    }

    /// Every object that is not carried out.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.keys()
    }
}
