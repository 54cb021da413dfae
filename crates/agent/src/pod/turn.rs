//! Whose turn it is: the pods of a Deployment, ReplicaSet or ReplicationController are one host, and one of them works, by
//! a Lease.
//!
//! Time is measured by this machine's own monotonic clock alone: a holder counts from before it asked to renew, the others
//! from when they saw the last renewal. A holder that cannot renew gives up well before anyone may take over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Notify;

use super::Signal;
use super::connection::{CallError, within};
use super::objects::Objects;
use super::watch::read_anew;
use crate::follow::Message;

/// How often one that waits for its turn looks, at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Whether it is this program's turn.
#[derive(Debug)]
pub(super) struct Turn {
    /// None: without a Lease, always.
    until: Option<Mutex<Option<Instant>>>,
    /// Counts how often it came from somebody else.
    epoch: AtomicU64,
}

impl Turn {
    /// It is nobody else's ever.
    pub(super) fn always() -> Self {
        Self { until: None, epoch: AtomicU64::new(0) }
    }

    /// It is somebody else's until the Lease says otherwise.
    pub(super) fn by_lease() -> Self {
        Self { until: Some(Mutex::new(None)), epoch: AtomicU64::new(0) }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.until.as_ref().is_none_or(|until| {
            until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
        })
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn set(&self, to: Option<Instant>) {
        if let Some(until) = &self.until {
            *until.lock().unwrap_or_else(PoisonError::into_inner) = to;
        }
    }
}

/// Takes and keeps a Lease.
pub(super) struct Elector {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Who we are: the same over restarts of the container, another one in another pod.
    pub(super) holder: String,
    pub(super) duration: Duration,
    pub(super) turn: Arc<Turn>,
    pub(super) objects: Arc<Objects>,
    pub(super) signal: Signal,
}

/// A renewal by somebody else, and when it was seen.
#[derive(Debug, Clone, PartialEq)]
struct Sighting {
    holder: String,
    renewed: Option<Timestamp>,
    at: Instant,
}

#[derive(Debug, PartialEq)]
enum Step {
    Create,
    Renew,
    Take,
    Wait,
}

/// What to do about a Lease at `now`.
fn step(lease: Option<&LeaseSpec>, holder: &str, seen: &mut Option<Sighting>, now: Instant) -> Step {
    let Some(spec) = lease else { return Step::Create };
    let held_by = spec.holder_identity.as_deref().unwrap_or_default();
    if held_by == holder {
        return Step::Renew;
    }
    if held_by.is_empty() {
        return Step::Take;
    }
    let renewed = spec.renew_time.as_ref().map(|time| time.0);
    let duration = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or(0));
    match seen {
        Some(sighting) if sighting.holder == held_by && sighting.renewed == renewed => {
            if now.duration_since(sighting.at) >= duration { Step::Take } else { Step::Wait }
        }
        _ => {
            *seen = Some(Sighting { holder: held_by.to_owned(), renewed, at: now });
            Step::Wait
        }
    }
}

impl Elector {
    /// Goes on until `end`, then gives the Lease back and says so by `ended`.
    pub(super) async fn run(self, end: Arc<Notify>, ended: Arc<Notify>) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let every = (self.duration / 15).clamp(Duration::from_millis(200), Duration::from_secs(15));
        // One that was given back, or rights that come a moment after the pod, are not to be waited for so long.
        let looks_every = every.min(LOOK_EVERY);
        // Well before others may take it, however slow we are at stopping.
        let ours_for = self.duration - (self.duration / 5).min(Duration::from_secs(30));
        let mut seen = None;
        let mut had = false;
        loop {
            let asked = Instant::now();
            match self.try_step(&api, &mut seen).await {
                Ok(Some(taken)) => {
                    if taken || !had {
                        // What its last holder wrote in its last moment.
                        let keys = self.objects.reported();
                        had = read_anew(&self.client, &self.namespace, keys, &self.objects).await;
                        self.turn.epoch.fetch_add(u64::from(had), Ordering::SeqCst);
                    }
                    if had {
                        let is_new = !self.turn.is_ours();
                        self.turn.set(Some(asked + ours_for));
                        if is_new {
                            (self.signal)(Message::Changed);
                        }
                    }
                }
                Ok(None) => {
                    had = false;
                    if self.turn.is_ours() {
                        self.turn.set(None);
                        (self.signal)(Message::Say(format!("another pod works for {} now", self.name)));
                    }
                }
                // It runs out by itself.
                Err(_) => {}
            }
            tokio::select! {
                () = end.notified() => break,
                () = tokio::time::sleep(if had { every } else { looks_every }) => {}
            }
        }
        self.turn.set(None);
        if had {
            self.give_back(&api).await;
        }
        ended.notify_one();
    }

    /// None: it is somebody else's. Whether it was taken rather than kept.
    async fn try_step(&self, api: &Api<Lease>, seen: &mut Option<Sighting>) -> Result<Option<bool>, CallError> {
        let lease = within(api.get_opt(&self.name)).await?;
        let spec = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let step = step(spec.as_ref(), &self.holder, seen, Instant::now());
        let now = MicroTime(Timestamp::now());
        let old = spec.unwrap_or_default();
        let was_ours = step == Step::Renew;
        let spec = LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs().max(1)).unwrap_or(i32::MAX)),
            acquire_time: if was_ours { old.acquire_time.clone() } else { Some(now.clone()) },
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!was_ours && step != Step::Create)),
            renew_time: Some(now),
            ..old
        };
        let written = match (step, lease) {
            (Step::Wait, _) => return Ok(None),
            (Step::Create, _) | (_, None) => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                within(api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) })).await
            }
            (_, Some(lease)) => {
                let lease = Lease { spec: Some(spec), ..lease };
                within(api.replace(&self.name, &PostParams::default(), &lease)).await
            }
        };
        match written {
            Ok(_) => Ok(Some(!was_ours)),
            Err(error) if error.code() == Some(409) && !was_ours => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn give_back(&self, api: &Api<Lease>) {
        let Ok(Some(mut lease)) = within(api.get_opt(&self.name)).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.holder) {
            spec.holder_identity = None;
            // If this fails it runs out.
            let _ = within(api.replace(&self.name, &PostParams::default(), &lease)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(10),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_its_holder_was_silent_for_its_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut seen = None;
        let mut check = |lease: Option<LeaseSpec>, seconds, expected| {
            assert_eq!(step(lease.as_ref(), "me", &mut seen, after(seconds)), expected, "{lease:?} at {seconds}");
        };
        check(None, 0, Step::Create);
        check(Some(lease("me", 1)), 0, Step::Renew);
        check(Some(lease("", 1)), 0, Step::Take);
        // However old the time that it names: clocks differ.
        check(Some(lease("other", 1)), 0, Step::Wait);
        check(Some(lease("other", 1)), 9, Step::Wait);
        check(Some(lease("other", 2)), 10, Step::Wait);
        check(Some(lease("other", 2)), 19, Step::Wait);
        check(Some(lease("third", 2)), 20, Step::Wait);
        check(Some(lease("third", 2)), 29, Step::Wait);
        check(Some(lease("third", 2)), 30, Step::Take);
    }

    #[test]
    fn a_turn_runs_out_by_itself() {
        let turn = Turn::by_lease();
        assert!(!turn.is_ours());
        turn.set(Some(Instant::now() + Duration::from_secs(60)));
        assert!(turn.is_ours());
        turn.set(Some(Instant::now()));
        assert!(!turn.is_ours());
        assert!(Turn::always().is_ours());
    }
}
