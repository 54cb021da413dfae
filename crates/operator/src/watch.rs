//! Watches one kind and keeps the cache up to date, whatever becomes of the connection.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::Client;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cache::Cache;
use crate::notice::{Notice, Tell};
use crate::resources::Resource;

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
    tell: Tell,
) {
    let kind = resource.kind;
    let config = watcher::Config::default().labels(resource.watched.unwrap_or_default()).page_size(PAGE);
    let api_version = resource.api_version();
    let mut events = pin!(watcher::watcher(resource.api(&client, ""), config));
    let mut seen = BTreeSet::new();
    let mut pause = Duration::from_millis(200);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                pause = Duration::from_millis(200);
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
                tell(Notice::Trouble(format!("cannot watch {kind}: {}", told(&error))));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
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
