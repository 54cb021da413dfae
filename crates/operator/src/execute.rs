//! Carries out actions at the API server.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use kube::{Api, Client, Error};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::action::Action;
use crate::metrics::Metrics;
use crate::notice::{Notice, Tell};
use crate::resources::Resource;
use crate::watch::chain;
use crate::world::{name, text};

/// How long one write may take: a server that does not answer must not hold up the rest for ever.
const WITHIN: Duration = Duration::from_secs(30);
/// How long the binding of a Role that was just written is tried again, and how long after the first try: an API server
/// itself learns of the Role a moment after it has taken it.
const BINDING: (u32, Duration) = (5, Duration::from_millis(100));

/// Why an action was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecuteError {
    /// The action names a kind that is not written.
    #[error("{0} is no kind that is written")]
    UnknownKind(String),
    /// The object is not one.
    #[error("the object cannot be sent")]
    Object(#[source] serde_json::Error),
    /// What was read has changed since: it is decided anew.
    #[error("{0} changed in the meantime")]
    Changed(String),
    /// A disruption budget holds a pod.
    #[error("{0} may not be evicted yet: {1}")]
    Held(String, String),
    /// The server refused.
    #[error("{what}: {why}")]
    Refused {
        /// What was tried.
        what: String,
        /// Why, in the words of the server.
        why: String,
    },
    /// The server did not answer in time.
    #[error("{what}: no answer within {} s", WITHIN.as_secs())]
    Late {
        /// What was tried.
        what: String,
    },
}

impl ExecuteError {
    /// Whether it is to be expected, and not worth a line.
    fn is_quiet(&self) -> bool {
        matches!(self, Self::Changed(_))
    }
}

/// What the server said.
pub(crate) fn told(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}

/// What carries actions out: a bounded number at once, counted, and told of.
pub(crate) struct Executor {
    pub(crate) client: Client,
    /// What each write takes a permit of.
    pub(crate) permits: Semaphore,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tell: Tell,
}

impl Executor {
    /// Whether the server took it.
    pub(crate) async fn carry_out(&self, action: Action) -> bool {
        let (what, kind) = (describe(&action), action.kind());
        let permit = self.permits.acquire().await;
        let outcome = execute(&self.client, action).await;
        drop(permit);
        self.metrics.wrote(kind, outcome.is_ok());
        match &outcome {
            Ok(()) => (self.tell)(Notice::Done(what)),
            Err(error) if error.is_quiet() => {}
            Err(error) => (self.tell)(Notice::Trouble(format!("cannot {error}"))),
        }
        outcome.is_ok()
    }
}

/// Carries it out. That an object is gone already, or there already, is as good as done.
async fn execute(client: &Client, action: Action) -> Result<(), ExecuteError> {
    let what = describe(&action);
    match tokio::time::timeout(WITHIN, attempt(client, action, &what)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ExecuteError::Late { what }),
    }
}

async fn attempt(client: &Client, action: Action, what: &str) -> Result<(), ExecuteError> {
    match action {
        Action::Apply { manager, subresource, object, .. } => {
            let api = api(client, text(&object, "/kind"), text(&object, "/metadata/namespace"))?;
            let params = PatchParams::apply(&manager).force();
            let name = name(&object).to_owned();
            let mut tries = 0;
            let done = loop {
                let done = match subresource {
                    Some(_) => api.patch_status(&name, &params, &Patch::Apply(&object)).await,
                    None => api.patch(&name, &params, &Patch::Apply(&object)).await,
                };
                let is_missing = done.as_ref().is_err_and(|error| is(error, StatusCode::NOT_FOUND));
                match binds_again_after(text(&object, "/kind"), tries).filter(|_| is_missing) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break done,
                }
                tries += 1;
            };
            // A status of what is gone has no meaning any more.
            let is_moot = subresource.is_some();
            match done {
                Err(error) if is_moot && is(&error, StatusCode::NOT_FOUND) => Ok(()),
                Err(error) if is(&error, StatusCode::CONFLICT) => Err(ExecuteError::Changed(what.to_owned())),
                done => finish(done, what),
            }
        }
        Action::Create { mut object, .. } => {
            if text(&object, "/kind") == "Event" {
                let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
                object["firstTimestamp"] = json!(now);
                object["lastTimestamp"] = json!(now);
            }
            let api = api(client, text(&object, "/kind"), text(&object, "/metadata/namespace"))?;
            let is_job = text(&object, "/kind") == "Job";
            let object: DynamicObject = serde_json::from_value(object).map_err(ExecuteError::Object)?;
            match api.create(&PostParams::default(), &object).await {
                // Nothing would say when the name of a Job that is not the wanted one is free.
                Err(error) if is(&error, StatusCode::CONFLICT) && is_job => Err(ExecuteError::Changed(what.to_owned())),
                Err(error) if is(&error, StatusCode::CONFLICT) => Ok(()),
                done => finish(done, what),
            }
        }
        Action::Delete { object, uid, .. } => {
            let api = api(client, &object.kind, &object.namespace)?;
            let preconditions = Preconditions { uid: Some(uid), resource_version: None };
            let params = DeleteParams::background().preconditions(preconditions);
            match api.delete(&object.name, &params).await {
                Err(error) if is(&error, StatusCode::NOT_FOUND) || is(&error, StatusCode::CONFLICT) => Ok(()),
                done => finish(done, what),
            }
        }
        Action::Evict { object, uid, .. } => {
            let pods: Api<Pod> = Api::namespaced(client.clone(), &object.namespace);
            let preconditions = Preconditions { uid: Some(uid), resource_version: None };
            let delete_options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let params = EvictParams { delete_options: Some(delete_options), ..EvictParams::default() };
            match pods.evict(&object.name, &params).await {
                Err(error) if is(&error, StatusCode::NOT_FOUND) || is(&error, StatusCode::CONFLICT) => Ok(()),
                Err(error) if is(&error, StatusCode::TOO_MANY_REQUESTS) => {
                    Err(ExecuteError::Held(object.to_string(), told(&error)))
                }
                done => finish(done, what),
            }
        }
    }
}

/// How long after a failure an object of this kind is tried again because what it names was not found.
fn binds_again_after(kind: &str, tries: u32) -> Option<Duration> {
    let (most, first) = BINDING;
    (kind == "RoleBinding" && tries < most).then(|| first * 2_u32.pow(tries))
}

fn finish<T>(done: Result<T, Error>, what: &str) -> Result<(), ExecuteError> {
    match done {
        Ok(_) => Ok(()),
        Err(error) => Err(ExecuteError::Refused { what: what.to_owned(), why: told(&error) }),
    }
}

fn api(client: &Client, kind: &str, namespace: &str) -> Result<Api<DynamicObject>, ExecuteError> {
    let resource = Resource::find(kind).ok_or_else(|| ExecuteError::UnknownKind(kind.to_owned()))?;
    Ok(resource.api(client, namespace))
}

fn is(error: &Error, code: StatusCode) -> bool {
    matches!(error, Error::Api(status) if status.code == code.as_u16())
}

/// What an action does, for a log: `apply Deployment demo/web: it is protected`.
fn describe(action: &Action) -> String {
    let of = |object: &Value| {
        let (kind, namespace, name) = (text(object, "/kind"), text(object, "/metadata/namespace"), name(object));
        if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
    };
    match action {
        Action::Apply { because, object, subresource: None, .. } => format!("apply {}: {because}", of(object)),
        Action::Apply { because, object, subresource: Some(part), .. } => {
            format!("apply {part} of {}: {because}", of(object))
        }
        Action::Create { because, object } => format!("create {}: {because}", of(object)),
        Action::Delete { because, object, .. } => format!("delete {object}: {because}"),
        Action::Evict { because, object, .. } => format!("evict {object}: {because}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_waits_for_its_role_a_bounded_time_and_nothing_else_does() {
        let pauses: Vec<Duration> = (0..).map_while(|tries| binds_again_after("RoleBinding", tries)).collect();
        assert_eq!(pauses.len(), 5);
        assert!(pauses.iter().sum::<Duration>() < WITHIN / 5, "{pauses:?}");
        assert_eq!(binds_again_after("Role", 0), None);
    }
}
