//! Watches one kind and keeps the cache up to date, whatever becomes of the connection.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::Client;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cache::Cache;
use crate::complaint::Complaints;
use crate::notice::{Notice, Tell};
use crate::resources::Resource;

/// How long after a first failure the next try begins.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// How long after a failure the next try begins, at most: what has come back is seen within this time.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How many objects a page of a list has: what is read at once is in memory at once.
const PAGE: u32 = 100;

/// Watches for ever; `listed` becomes true with the first complete list.
pub(crate) async fn follow(
    client: Client,
    resource: Resource,
    cache: Arc<Cache>,
    listed: watch::Sender<bool>,
    complaints: Arc<Mutex<Complaints>>,
    tell: Tell,
) {
    let kind = resource.kind;
    let config = watcher::Config::default().labels(resource.watched.unwrap_or_default()).page_size(PAGE);
    let (api_version, definition) = (resource.api_version(), resource.definition());
    let complaints = || complaints.lock().unwrap_or_else(PoisonError::into_inner);
    let mut events = pin!(watcher::watcher(resource.api(&client, ""), config));
    let mut seen = BTreeSet::new();
    let mut pause = PAUSE_FIRST;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // A list that is about to be tried says nothing yet of whether the server answers.
                if !matches!(event, Event::Init) {
                    pause = PAUSE_FIRST;
                    complaints().works(kind, &definition);
                }
                match event {
                    Event::Init => seen.clear(),
                    Event::InitApply(object) => {
                        let name = object.metadata.name.clone().unwrap_or_default();
                        seen.insert((object.metadata.namespace.clone().unwrap_or_default(), name));
                        cache.put(kind, value(object, kind, &api_version));
                    }
                    Event::InitDone => {
                        cache.keep_only(kind, &seen);
                        seen.clear();
                        listed.send_replace(true);
                    }
                    Event::Apply(object) => cache.put(kind, value(object, kind, &api_version)),
                    Event::Delete(object) => cache.remove(kind, &value(object, kind, &api_version)),
                }
            }
            Err(error) => {
                let text = match is_not_served(&error) {
                    true => complaints().not_served(&definition, Instant::now()),
                    false => complaints().failed(kind, &told(&error), Instant::now()),
                };
                text.into_iter().for_each(|text| tell(Notice::Trouble(text)));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Whether the server does not know the kind.
fn is_not_served(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// What a watch failed by, in the words of the server.
fn told(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => crate::execute::told(source),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => chain(error),
    }
}

/// The object as JSON; items of a list do not say their kind.
fn value(object: DynamicObject, kind: &str, api_version: &str) -> Value {
    let DynamicObject { types: _, metadata, data } = object;
    let mut value = data;
    value["apiVersion"] = json!(api_version);
    value["kind"] = json!(kind);
    value["metadata"] = json!(metadata);
    value
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
