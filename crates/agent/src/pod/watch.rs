//! Watches kinds of objects, and keeps what matters of them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use holdfast_repository::chain;
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};

use super::Signal;
use super::connection::{api, within};
use super::objects::{Key, Objects, Seen};
use crate::follow::Message;

/// How soon a watch that broke is taken up again…
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// …doubled with each failure up to this.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How many objects are listed at once: what does not matter is dropped page by page.
const PAGE: u32 = 50;

/// Follows one kind for ever.
pub(super) async fn follow_kind(
    client: Client,
    namespace: String,
    kind: &'static str,
    objects: Arc<Objects>,
    signal: Signal,
) {
    let Some(api) = api(&client, &namespace, kind) else { return };
    let mut config = watcher::Config::default().page_size(PAGE);
    if let Some(target) = objects.scope().target().filter(|target| target.kind.name() == kind) {
        config = config.fields(&format!("metadata.name={}", target.name));
    }
    let mut events = pin!(watcher(api, config));
    let mut listed = BTreeMap::new();
    let mut retry = RETRY_FIRST;
    let mut broken = false;
    while let Some(event) = events.next().await {
        let news = match event {
            Ok(event) => {
                // A list that is about to be tried says nothing yet of whether the server answers.
                let answers = !matches!(event, Event::Init);
                if answers {
                    retry = RETRY_FIRST;
                }
                let news = take(kind, event, &objects, &mut listed);
                if answers && std::mem::take(&mut broken) {
                    signal(Message::Say(format!("{kind}: the API server answers again")));
                }
                news
            }
            Err(error) => {
                let text = chain(&error);
                if !is_expired(&error) && !std::mem::replace(&mut broken, true) {
                    signal(Message::Trouble(format!("cannot watch {kind}: {text}; what was read last goes on")));
                }
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
                false
            }
        };
        if news {
            signal(Message::Changed);
        }
    }
}

/// Whether a watch has only grown too old, as they all do.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

fn take(
    kind: &'static str,
    event: Event<DynamicObject>,
    objects: &Objects,
    listed: &mut BTreeMap<String, Seen>,
) -> bool {
    match event {
        Event::Init => {
            listed.clear();
            false
        }
        Event::InitApply(object) => {
            let (name, json) = json_of(kind, object);
            listed.insert(name, objects.trim(kind, json));
            false
        }
        Event::InitDone => objects.replace(kind, std::mem::take(listed)),
        Event::Apply(object) => {
            let (name, json) = json_of(kind, object);
            let seen = objects.trim(kind, json);
            objects.apply(kind, name, seen)
        }
        Event::Delete(object) => objects.delete(kind, &object.metadata.name.unwrap_or_default()),
    }
}

/// Reads the given objects anew, so that nothing is missed that was written a moment ago.
pub(super) async fn read_anew(client: &Client, namespace: &str, keys: Vec<Key>, objects: &Objects) -> bool {
    for (kind, name) in keys {
        let Some(api) = api(client, namespace, kind) else { continue };
        match within(api.get_opt(&name)).await {
            Ok(Some(object)) => {
                let (name, json) = json_of(kind, object);
                objects.apply(kind, name, objects.trim(kind, json));
            }
            Ok(None) => _ = objects.delete(kind, &name),
            Err(_) => return false,
        }
    }
    true
}

/// Name and JSON of an object; items of lists do not say their kind.
pub(super) fn json_of(kind: &str, object: DynamicObject) -> (String, Value) {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut json = serde_json::to_value(object).unwrap_or_default();
    let known = holdfast_api::kinds::KNOWN.iter().find(|known| known.kind == kind);
    if let (Some(known), Some(fields)) = (known, json.as_object_mut()) {
        fields.insert("apiVersion".to_owned(), json!(known.api_version()));
        fields.insert("kind".to_owned(), json!(kind));
    }
    (name, json)
}
