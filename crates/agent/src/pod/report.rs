//! What the API server is still to be told: statuses and Events, sent by a task of its own, tried again until they arrive.
//!
//! Of a status only the last is kept, so that an API server that is down for long costs no memory, and is told the truth
//! when it is back, not its history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_api::kinds;
use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Signal;
use super::connection::{CallError, api, within};
use super::objects::Objects;
use super::turn::Turn;
use crate::follow::Message;
use crate::journal::Event;

/// What changes within this time is written at once.
const GATHER: Duration = Duration::from_millis(100);
/// How soon a call that failed is tried again…
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// …doubled with each failure up to this.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How soon what was not allowed is tried again, doubled with each refusal up to the longest.
const REFUSED_FIRST: Duration = Duration::from_secs(1);
const REFUSED_MAX: Duration = Duration::from_secs(15);
/// How long what is not allowed is not said: of a new object the operator gives the right a moment later.
const REFUSED_QUIETLY: Duration = Duration::from_secs(60);
/// How many Events wait at most; of more the oldest are dropped, since the status tells the same.
const EVENTS_MAX: usize = 100;
/// How many names are tried for an Event.
const NAMES_MAX: u64 = 100;
/// The longest message that an Event may have, in bytes.
const MESSAGE_MAX: usize = 1024;

/// One writer's part of the status of one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) namespace: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) manager: String,
}

/// Since when something is not allowed, and when it is tried again.
#[derive(Debug)]
struct Refused {
    since: Instant,
    again: Instant,
    pause: Duration,
    said: bool,
}

impl Refused {
    fn new(now: Instant) -> Self {
        Self { since: now, again: now, pause: REFUSED_FIRST, said: false }
    }

    /// Once more; whether that is said now.
    fn once_more(&mut self, now: Instant) -> bool {
        self.again = now + self.pause;
        self.pause = (self.pause * 2).min(REFUSED_MAX);
        now.duration_since(self.since) >= REFUSED_QUIETLY && !std::mem::replace(&mut self.said, true)
    }
}

#[derive(Debug, Default)]
struct Waiting {
    wanted: BTreeMap<Part, Value>,
    /// What the API server is known to have.
    sent: BTreeMap<Part, Value>,
    /// What was not allowed: the rights may be on their way.
    refused: BTreeMap<Part, Refused>,
    events: VecDeque<Event>,
    /// Where the first of the Events was not allowed: an API server that has just started allows nothing for a moment.
    event_refused: Option<Refused>,
    /// Whether something is on its way.
    busy: bool,
}

impl Waiting {
    fn next(&self) -> Option<(Part, Value)> {
        let differs = |(part, wanted): &(&Part, &Value)| self.sent.get(*part) != Some(*wanted);
        self.wanted.iter().find(differs).map(|(part, wanted)| (part.clone(), wanted.clone()))
    }

    /// Notes how the telling of a part ended; false if nothing is to be said of it: it was not allowed, for a short
    /// time so far, or once more.
    fn note(&mut self, part: &Part, status: Value, result: &Result<(), CallError>, now: Instant) -> bool {
        let is_refused = result.as_ref().is_err_and(CallError::is_refused);
        if result.is_ok() || result.as_ref().is_err_and(CallError::is_final) {
            // What is wrong now is wrong again: it is tried when it changes, or when it may be allowed.
            self.sent.insert(part.clone(), status);
        }
        if !is_refused {
            self.refused.remove(part);
            return true;
        }
        self.refused.entry(part.clone()).or_insert_with(|| Refused::new(now)).once_more(now)
    }

    fn next_event(&self, now: Instant) -> Option<Event> {
        let waits = self.event_refused.as_ref().is_some_and(|refused| refused.again > now);
        self.events.front().filter(|_| !waits).cloned()
    }

    /// Notes how the telling of the first Event ended; false if nothing is to be said of it: it was not allowed, for a
    /// short time so far. After that it is given up, since the status tells the same.
    fn note_event(&mut self, result: &Result<(), CallError>, now: Instant) -> bool {
        let is_refused = result.as_ref().is_err_and(CallError::is_refused);
        if is_refused && !self.event_refused.get_or_insert_with(|| Refused::new(now)).once_more(now) {
            return false;
        }
        self.event_refused = None;
        if result.is_ok() || result.as_ref().is_err_and(CallError::is_final) {
            self.events.pop_front();
        }
        true
    }

    /// Wants what was not allowed to be told again where it is time; how long it is until the next, at most `limit`.
    fn try_refused_again(&mut self, now: Instant, limit: Duration) -> Duration {
        for (part, _) in self.refused.iter().filter(|(_, refused)| refused.again <= now) {
            self.sent.remove(part);
        }
        let waiting = self.refused.values().chain(&self.event_refused).filter(|refused| refused.again > now);
        waiting.map(|refused| refused.again.duration_since(now)).min().map_or(limit, |next| next.min(limit))
    }

    /// Whether nothing is left but what has not been allowed for long.
    fn is_hopeless(&self) -> bool {
        let is_over =
            |(part, wanted): (&Part, &Value)| self.sent.get(part) == Some(wanted) || self.refused.contains_key(part);
        let is_refused_for_long = !self.refused.is_empty() && self.refused.values().all(|refused| refused.said);
        self.events.is_empty() && is_refused_for_long && self.wanted.iter().all(is_over)
    }

    fn is_empty(&self) -> bool {
        !self.busy && self.events.is_empty() && self.refused.is_empty() && self.next().is_none()
    }
}

/// What is to be told.
pub(super) struct Report {
    namespace: String,
    pod: String,
    waiting: Mutex<Waiting>,
    wake: Notify,
    told: Condvar,
}

impl Report {
    pub(super) fn new(namespace: &str, pod: &str) -> Self {
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Self { namespace, pod, waiting: Mutex::default(), wake: Notify::new(), told: Condvar::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of a status is to be this.
    pub(super) fn want(&self, part: Part, status: Value) {
        let mut waiting = self.waiting();
        if waiting.wanted.get(&part) != Some(&status) {
            waiting.wanted.insert(part, status);
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// The API server has this already.
    pub(super) fn has(&self, part: Part, status: Value) {
        self.waiting().sent.insert(part, status);
    }

    /// Forgets what was wanted and sent of an object, or of all.
    pub(super) fn forget(&self, object: Option<(&str, &str)>) {
        let mut waiting = self.waiting();
        let stays =
            |part: &Part| object.is_some_and(|(kind, name)| (part.kind.as_str(), part.name.as_str()) != (kind, name));
        waiting.wanted.retain(|part, _| stays(part));
        waiting.sent.retain(|part, _| stays(part));
        waiting.refused.retain(|part, _| stays(part));
    }

    /// An Event happened.
    pub(super) fn tell(&self, event: &Event) {
        let mut waiting = self.waiting();
        if waiting.events.len() == EVENTS_MAX {
            waiting.events.pop_front();
        }
        waiting.events.push_back(event.clone());
        drop(waiting);
        self.wake.notify_one();
    }

    /// Waits until everything is told; false if it was not within `limit`.
    pub(super) fn wait_until_told(&self, limit: Duration) -> bool {
        let waited = self.told.wait_timeout_while(self.waiting(), limit, |waiting| !waiting.is_empty());
        waited.map_or_else(|poisoned| poisoned.into_inner().0, |(waiting, _)| waiting).is_empty()
    }

    /// Whether nothing is left but what has not been allowed for long.
    pub(super) fn is_hopeless(&self) -> bool {
        self.waiting().is_hopeless()
    }

    /// Sends what is to be told, for ever.
    pub(super) async fn send(self: Arc<Self>, client: Client, turn: Arc<Turn>, objects: Arc<Objects>, signal: Signal) {
        let mut link = Link { retry: RETRY_FIRST, broken: false, signal };
        loop {
            let (next, pause) = {
                let mut waiting = self.waiting();
                // The turn may come without a word, and so may rights.
                let now = Instant::now();
                let pause = waiting.try_refused_again(now, RETRY_MAX);
                // What a host has to say is said by whose turn it is.
                let next = if turn.is_ours() { waiting.next().map(Next::Status) } else { None };
                let next = next.or_else(|| waiting.next_event(now).map(|event| Next::Event(Box::new(event))));
                waiting.busy = next.is_some();
                if next.is_none() {
                    self.told.notify_all();
                }
                (next, pause)
            };
            let result = match next {
                None => {
                    let _ = tokio::time::timeout(pause, self.wake.notified()).await;
                    tokio::time::sleep(GATHER).await;
                    continue;
                }
                Some(Next::Status((part, status))) => {
                    let result = self.apply(&client, &part, &status).await;
                    if !self.waiting().note(&part, status, &result, Instant::now()) {
                        continue;
                    }
                    result.map_err(|error| (format!("the status of {} {}", part.kind, part.name), error))
                }
                Some(Next::Event(event)) => {
                    let result = self.create(&client, &event, &objects).await;
                    if !self.waiting().note_event(&result, Instant::now()) {
                        continue;
                    }
                    result.map_err(|error| (format!("the event {}", event.name), error))
                }
            };
            link.note(result).await;
        }
    }

    async fn apply(&self, client: &Client, part: &Part, status: &Value) -> Result<(), CallError> {
        let Part { namespace, kind, name, manager } = part;
        let (Some(api), Some(api_version)) = (api(client, namespace, kind), api_version(kind)) else {
            return Ok(());
        };
        let body = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "status": status});
        match within(api.patch_status(name, &PatchParams::apply(manager).force(), &Patch::Apply(body))).await {
            // Nobody is left to be told.
            Err(error) if error.code() == Some(404) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn create(&self, client: &Client, event: &Event, objects: &Objects) -> Result<(), CallError> {
        let api: Api<ApiEvent> = Api::namespaced(client.clone(), &self.namespace);
        let object = &event.involved_object;
        let (uid, _) = objects.identity(&object.kind, &object.name).unwrap_or_default();
        let mut message = event.message.clone();
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        let time = Some(Time(event.time));
        let mut number = event.count;
        for tried in 1..=NAMES_MAX {
            let body = ApiEvent {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{number}", object.name)),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                involved_object: ObjectReference {
                    api_version: api_version(&object.kind),
                    kind: Some(object.kind.clone()),
                    name: Some(object.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    uid: Some(uid.clone()).filter(|uid| !uid.is_empty()),
                    ..ObjectReference::default()
                },
                reason: serde_json::to_value(event.reason).ok().and_then(|reason| reason.as_str().map(str::to_owned)),
                message: Some(message.clone()),
                type_: Some(event.kind.to_owned()),
                first_timestamp: time.clone(),
                last_timestamp: time.clone(),
                count: Some(1),
                source: Some(EventSource { component: Some("holdfast".to_owned()), host: None }),
                reporting_component: Some("holdfast".to_owned()),
                reporting_instance: Some(self.pod.clone()),
                ..ApiEvent::default()
            };
            match within(api.create(&PostParams::default(), &body)).await {
                // Another host of the object, or another object of the name, has taken it.
                Err(error) if error.code() == Some(409) => number += 1 + tried / 10,
                result => return result.map(drop),
            }
        }
        Ok(())
    }
}

enum Next {
    Status((Part, Value)),
    Event(Box<Event>),
}

/// Whether the API server takes what it is told, as far as a person was told.
struct Link {
    retry: Duration,
    broken: bool,
    signal: Signal,
}

impl Link {
    async fn note(&mut self, result: Result<(), (String, CallError)>) {
        match result {
            Ok(()) => {
                self.retry = RETRY_FIRST;
                if std::mem::take(&mut self.broken) {
                    (self.signal)(Message::Say("the API server is told again".to_owned()));
                }
            }
            Err((what, error)) if error.is_final() => {
                (self.signal)(Message::Trouble(format!("cannot write {what}: {error}")));
            }
            Err((what, error)) => {
                if !std::mem::replace(&mut self.broken, true) {
                    (self.signal)(Message::Trouble(format!("cannot write {what} now: {error}; it is tried again")));
                }
                tokio::time::sleep(self.retry).await;
                self.retry = (self.retry * 2).min(RETRY_MAX);
            }
        }
    }
}

fn api_version(kind: &str) -> Option<String> {
    kinds::KNOWN.iter().find(|known| known.kind == kind).map(kinds::KindInfo::api_version)
}

#[cfg(test)]
mod tests {
    use holdfast_plan::ObjectKey;

    use super::*;
    use crate::journal::Reason;

    fn answer(code: u16) -> Result<(), CallError> {
        let status = kube::core::Status { code, ..kube::core::Status::default() };
        Err(CallError::Kube(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn what_is_not_allowed_is_tried_again_quietly_and_said_once_after_a_minute() {
        let part = Part {
            kind: "BackupTrigger".into(),
            namespace: "demo".into(),
            name: "now".into(),
            manager: "holdfast".into(),
        };
        let status = json!({"phase": "Running"});
        let mut waiting = Waiting::default();
        waiting.wanted.insert(part.clone(), status.clone());

        let begun = Instant::now();
        let (mut now, mut tries, mut said) = (begun, 0, Vec::new());
        while now < begun + Duration::from_secs(300) {
            assert_eq!(waiting.next(), Some((part.clone(), status.clone())), "it is tried");
            if waiting.note(&part, status.clone(), &answer(403), now) {
                said.push(now.duration_since(begun).as_secs());
            }
            assert_eq!(waiting.next(), None, "others have their turn first");
            assert!(!waiting.is_empty(), "it is not told");
            assert_eq!(waiting.is_hopeless(), !said.is_empty());
            now += waiting.try_refused_again(now, Duration::from_secs(60));
            waiting.try_refused_again(now, Duration::ZERO);
            tries += 1;
        }
        assert!((15..40).contains(&tries), "{tries}");
        assert!(matches!(said[..], [at] if (60..75).contains(&at)), "{said:?}");
        assert!(waiting.note(&part, status.clone(), &Ok(()), now));
        assert!(waiting.is_empty() && !waiting.is_hopeless());
        assert_eq!(waiting.try_refused_again(now, RETRY_MAX), RETRY_MAX);

        // What makes no sense is not sent again.
        waiting.wanted.insert(part.clone(), json!({}));
        assert!(waiting.note(&part, json!({}), &answer(422), now));
        assert!(waiting.is_empty());
    }

    #[test]
    fn an_event_that_is_not_allowed_is_tried_again_for_a_minute() {
        let begun = Instant::now();
        let event = |count| Event {
            name: format!("db-{count}"),
            count,
            namespace: "demo".into(),
            kind: "Normal",
            reason: Reason::SuccessfulBackup,
            message: String::new(),
            involved_object: ObjectKey::new("Backup", "demo", "db"),
            time: jiff::Timestamp::UNIX_EPOCH,
        };
        let mut waiting = Waiting { events: [event(1), event(2)].into(), ..Waiting::default() };
        assert!(!waiting.note_event(&answer(403), begun));
        assert!(waiting.next_event(begun).is_none(), "statuses have their turn first");
        let again = begun + waiting.try_refused_again(begun, RETRY_MAX);
        assert_eq!(waiting.next_event(again).map(|event| event.count), Some(1));
        assert!(waiting.note_event(&Ok(()), again));
        assert_eq!(waiting.next_event(again).map(|event| event.count), Some(2));

        let (mut now, mut tries) = (again, 0);
        while !waiting.note_event(&answer(403), now) {
            tries += 1;
            now += waiting.try_refused_again(now, Duration::from_secs(60));
        }
        assert!((5..15).contains(&tries), "{tries}");
        assert!(now.duration_since(again) >= REFUSED_QUIETLY && waiting.is_empty());
    }
}
