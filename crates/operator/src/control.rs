//! The loop: what changed is decided anew, and what was decided is carried out.
//!
//! A namespace is decided on as a whole, one at a time, and never twice at once. How often follows from how long it takes:
//! a large one rests longer between two decisions. What the server does not take is tried again, later each time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::action::{Action, Decision, sooner};
use crate::cache::Cache;
use crate::decide::{decide, decide_cluster};
use crate::execute::Executor;
use crate::metrics::Metrics;
use crate::notice::{Notice, Tell};
use crate::settings::Settings;

/// How long changes are gathered before they are decided on.
const GATHER: Duration = Duration::from_millis(300);
/// How much longer than a decision takes the rest after it is.
const REST: u32 = 5;
/// How long after a failure a namespace is decided on again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long the same action is not repeated while the server has it and it does not show, at first and at most.
const REPEAT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1800));

/// How many namespaces are worked on at once: one whose writes hang holds up no other.
const STEPS_AT_ONCE: usize = 4;

/// Everything the loop works with.
pub(crate) struct Control {
    pub(crate) cache: Arc<Cache>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) settings: Settings,
    /// One decision at a time: its memory is that of all objects of a namespace.
    pub(crate) deciding: Semaphore,
    /// How many writes are begun at once.
    pub(crate) concurrent: usize,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tell: Tell,
}

/// What is remembered of a namespace between two decisions. Losing it costs a few writes that change nothing.
#[derive(Debug, Default)]
struct Memory {
    /// Not before this.
    rests_until: Option<Instant>,
    /// Failures since the last decision that was carried out.
    failures: u32,
    /// Actions that were carried out and are still asked for: until when, and for how long this time.
    done: HashMap<u64, (Instant, Duration)>,
}

impl Control {
    /// Works for ever.
    pub(crate) async fn run(self) {
        let control = Arc::new(self);
        let mut due: BTreeMap<String, Instant> = BTreeMap::new();
        let mut memories: HashMap<String, Memory> = HashMap::new();
        let mut steps: JoinSet<(String, Memory, Option<Instant>)> = JoinSet::new();
        let mut at_work: BTreeSet<String> = BTreeSet::new();
        control.cache.mark_all();
        control.cache.mark("");
        loop {
            let now = Instant::now();
            for namespace in control.cache.take_dirty() {
                let rests_until = memories.get(&namespace).and_then(|memory| memory.rests_until);
                let at = rests_until.map_or(now, |at| at.max(now)) + GATHER;
                due.entry(namespace).and_modify(|due| *due = (*due).min(at)).or_insert(at);
            }
            let mut waiting: Vec<(Instant, &String)> =
                due.iter().filter(|(namespace, _)| !at_work.contains(*namespace)).map(|(n, at)| (*at, n)).collect();
            waiting.sort();
            let free = STEPS_AT_ONCE.saturating_sub(steps.len());
            let next = waiting.iter().map(|(at, _)| *at).find(|at| *at > now);
            let ready = waiting.into_iter().take_while(|(at, _)| *at <= now).take(free);
            let ready: Vec<String> = ready.map(|(_, namespace)| namespace.clone()).collect();
            for namespace in ready {
                due.remove(&namespace);
                at_work.insert(namespace.clone());
                let mut memory = memories.remove(&namespace).unwrap_or_default();
                let control = Arc::clone(&control);
                steps.spawn(async move {
                    let again = control.step(&namespace, &mut memory).await;
                    (namespace, memory, again)
                });
            }
            // One that waits for a free place is looked at when a step ends.
            let wake = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = control.cache.changed() => {}
                () = wake => {}
                Some(Ok((namespace, memory, again))) = steps.join_next() => {
                    at_work.remove(&namespace);
                    if let Some(again) = again {
                        due.entry(namespace.clone()).and_modify(|due| *due = (*due).min(again)).or_insert(again);
                    }
                    memories.insert(namespace, memory);
                }
            }
        }
    }

    /// Decides on a namespace and carries it out; says when to do so again if nothing changes.
    async fn step(&self, namespace: &str, memory: &mut Memory) -> Option<Instant> {
        let permit = self.deciding.acquire().await;
        let began = Instant::now();
        let decision = self.decided(namespace).await?;
        let took = began.elapsed();
        drop(permit);
        memory.rests_until = Some(Instant::now() + took * REST);
        self.metrics.decided(took);
        let mut again = decision.again.map(|at| {
            let wait = at.duration_since(Timestamp::now());
            Instant::now() + Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(50)
        });
        let asked: BTreeSet<u64> = decision.actions.iter().map(fingerprint).collect();
        memory.done.retain(|action, _| asked.contains(action));
        let now = Instant::now();
        let is_new = |action: &Action| memory.done.get(&fingerprint(action)).is_none_or(|(until, _)| *until <= now);
        let (actions, repeated): (Vec<Action>, Vec<Action>) = decision.actions.into_iter().partition(is_new);
        for action in &repeated {
            // An event is not watched: that it is asked for again says nothing.
            if let (false, Some((until, _))) = (is_event(action), memory.done.get(&fingerprint(action))) {
                sooner(&mut again, *until);
            }
        }
        if !self.carry_out(actions, memory).await {
            memory.failures = memory.failures.saturating_add(1);
            let (first, most) = RETRY;
            let retry = Instant::now() + (first * 2_u32.saturating_pow(memory.failures.min(10) - 1)).min(most);
            sooner(&mut again, retry);
        } else {
            memory.failures = 0;
        }
        again
    }

    async fn decided(&self, namespace: &str) -> Option<Decision> {
        let view = self.cache.view(namespace);
        let (name, settings) = (namespace.to_owned(), self.settings.clone());
        let now = Timestamp::now();
        let deciding = tokio::task::spawn_blocking(move || match name.as_str() {
            "" => decide_cluster(&view, &settings),
            name => decide(name, &view, now, &settings),
        });
        match deciding.await {
            Ok(decision) => Some(decision),
            Err(error) => {
                (self.tell)(Notice::Trouble(format!("namespace {namespace} could not be decided on: {error}")));
                None
            }
        }
    }

    /// Carries out actions; says whether all succeeded.
    async fn carry_out(&self, mut actions: Vec<Action>, memory: &mut Memory) -> bool {
        let mut all = true;
        actions.sort_by_key(stage);
        // What the next stage refers to must be there: a binding without its Role is refused.
        while let Some(first) = actions.first().map(stage) {
            let later = actions.split_off(actions.partition_point(|action| stage(action) == first));
            all &= self.carry_out_stage(std::mem::replace(&mut actions, later), memory).await;
        }
        all
    }

    /// Carries out actions, some at once.
    async fn carry_out_stage(&self, actions: Vec<Action>, memory: &mut Memory) -> bool {
        let mut all = true;
        let attempts = actions
            .into_iter()
            .map(|action| async move { (fingerprint(&action), self.executor.carry_out(action).await) });
        let mut attempts = stream::iter(attempts).buffered(self.concurrent);
        while let Some((fingerprint, is_done)) = attempts.next().await {
            all &= is_done;
            if is_done {
                let (first, most) = REPEAT;
                let pause = memory.done.get(&fingerprint).map_or(first, |(_, pause)| (*pause * 2).min(most));
                memory.done.insert(fingerprint, (Instant::now() + pause, pause));
            }
        }
        all
    }
}

/// When an action's turn is: rights first, so that an agent that starts has them.
fn stage(action: &Action) -> u8 {
    match action {
        Action::Apply { object, .. } => match object["kind"].as_str() {
            Some("Role" | "ServiceAccount") => 0,
            Some("RoleBinding") => 1,
            _ => 2,
        },
        _ => 2,
    }
}

fn is_event(action: &Action) -> bool {
    matches!(action, Action::Create { object, .. } if object["kind"] == "Event")
}

/// What tells one action from another.
fn fingerprint(action: &Action) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{action:?}").hash(&mut hasher);
    hasher.finish()
}
