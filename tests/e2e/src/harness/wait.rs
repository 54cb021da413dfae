//! Waiting for a state: watches, a deadline, and the last state seen when it passes.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::panic::Location;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watch_object, watcher};
use serde_json::Value;
use tokio::time::timeout;

use super::Test;
use super::api::{split, value};

/// Far above what anything takes that needs no image and no large data: a machine may be busy with something else.
pub(super) const DEADLINE: Duration = Duration::from_secs(180);

impl Test {
    /// Waits until the object is as asked, and returns it. `done` sees null when there is no such object, and may
    /// panic when what it sees can never become right.
    #[track_caller]
    pub(crate) fn wait(
        &self,
        object: &str,
        what: impl Display,
        done: impl Fn(&Value) -> bool,
    ) -> impl Future<Output = Value> {
        let at = Location::caller();
        async move {
            let (kind, name) = split(object);
            let mut states = pin!(watch_object(self.objects.api(kind).await, name).default_backoff());
            let mut last = Last::Nothing;
            let found = timeout(DEADLINE, async {
                while let Some(state) = states.next().await {
                    match state {
                        Ok(state) => {
                            let state = state.as_ref().map_or(Value::Null, value);
                            if done(&state) {
                                return state;
                            }
                            last = Last::Seen(state);
                        }
                        Err(error) => last = Last::Failed(error.to_string()),
                    }
                }
                unreachable!("a watch has no end")
            });
            found.await.unwrap_or_else(|_| panic!("{at}: {object} was to be: {what}; after {DEADLINE:?}: {last}"))
        }
    }

    /// Waits until the object does not exist.
    #[track_caller]
    pub(crate) fn gone(&self, object: &str) -> impl Future<Output = Value> {
        self.wait(object, "gone", Value::is_null)
    }

    /// Waits until all objects of a kind with these labels (empty: all of the namespace) are as asked together.
    #[track_caller]
    pub(crate) fn wait_all(
        &self,
        kind: &str,
        labels: &str,
        what: &str,
        done: impl Fn(&[Value]) -> bool,
    ) -> impl Future<Output = Vec<Value>> {
        let at = Location::caller();
        async move {
            let config = watcher::Config::default().labels(labels);
            let mut events = pin!(watcher(self.objects.api(kind).await, config).default_backoff());
            let mut objects = BTreeMap::new();
            let mut last = Last::Nothing;
            let found = timeout(DEADLINE, async {
                let mut complete = false;
                while let Some(event) = events.next().await {
                    match event {
                        Ok(Event::Init) => (complete, objects) = (false, BTreeMap::new()),
                        Ok(Event::InitDone) => complete = true,
                        Ok(Event::InitApply(o) | Event::Apply(o)) => _ = objects.insert(o.name_any(), value(&o)),
                        Ok(Event::Delete(o)) => _ = objects.remove(&o.name_any()),
                        Err(error) => last = Last::Failed(error.to_string()),
                    }
                    if complete {
                        let all: Vec<Value> = objects.values().cloned().collect();
                        if done(&all) {
                            return all;
                        }
                        last = Last::Seen(all.into());
                    }
                }
                unreachable!("a watch has no end")
            });
            found.await.unwrap_or_else(|_| {
                panic!("{at}: every {kind} ({labels}) was to be: {what}; after {DEADLINE:?}: {last}")
            })
        }
    }

    /// Asks again and again until the answer is not an error: for what no object shows.
    #[track_caller]
    pub(crate) fn until<T>(
        &self,
        what: &str,
        mut ask: impl AsyncFnMut() -> Result<T, String>,
    ) -> impl Future<Output = T> {
        let at = Location::caller();
        async move {
            let mut last = String::from("no answer");
            let asked = timeout(DEADLINE, async {
                let mut pause = tokio::time::interval(Duration::from_millis(200));
                loop {
                    match ask().await {
                        Ok(answer) => return answer,
                        Err(problem) => last = problem,
                    }
                    pause.tick().await;
                }
            });
            asked.await.unwrap_or_else(|_| panic!("{at}: was to be: {what}; after {DEADLINE:?}: {last}"))
        }
    }
}

/// What a wait saw last, for its error.
enum Last {
    Nothing,
    Seen(Value),
    Failed(String),
}

impl Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no answer to the watch"),
            Self::Seen(Value::Null) => f.write_str("it does not exist"),
            Self::Seen(state) => write!(f, "it is\n{state:#}"),
            Self::Failed(error) => write!(f, "the watch fails: {error}"),
        }
    }
}
