//! Whose turn it is: the pods of a Deployment, ReplicaSet or ReplicationController are one host, and one of them works, by
//! a Lease.
//!
//! Time is measured by this machine's own monotonic clock alone: a holder counts from before it asked to renew, the others
//! from when they saw the last renewal. A holder that cannot renew gives up well before anyone may take over.
//!
//! A holder whose pod is gone or finished, as the API server tells, is not waited for so long: its turn is taken when it has
//! missed some renewals. One that renews is alive whatever is said of its pod. So two can work at once only if a pod was
//! deleted by force while its node could reach the store and not the API server, until its turn runs out there; then the
//! repository's own locks keep what each of them stores.
//!
//! The Lease is owned by what is worked for, so that it goes when the last of that does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
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
/// How many renewals a holder whose pod is gone must have missed: until then it may be alive after all.
const MISSED: u32 = 3;

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
    /// What is worked for; none while that is not known yet.
    pub(super) owners: Arc<Mutex<Option<Vec<OwnerReference>>>>,
}

/// Who a pod is in a Lease.
pub(super) fn holder_of(pod: &str, uid: &str) -> String {
    format!("{pod}_{uid}")
}

/// Whether the pod that a Lease names is gone or finished, `found` being what has its name now.
fn is_gone(holder: &str, found: Option<&Pod>) -> bool {
    let Some((_, uid)) = holder.split_once('_') else { return false };
    let Some(pod) = found else { return true };
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.uid.as_deref() != Some(uid) || matches!(phase, Some("Succeeded" | "Failed"))
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
        let every = self.renews_every();
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
        let mut step = step(spec.as_ref(), &self.holder, seen, Instant::now());
        if step == Step::Wait && self.can_be_taken_sooner(seen.as_ref()).await {
            step = Step::Take;
        }
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if step == Step::Create && owners.as_ref().is_some_and(Vec::is_empty) {
            // It went with the last object that it was for.
            return Ok(None);
        }
        let owners = owners.filter(|owners| !owners.is_empty());
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
                let name = Some(self.name.clone());
                let metadata = ObjectMeta { name, owner_references: owners, ..ObjectMeta::default() };
                within(api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) })).await
            }
            (_, Some(mut lease)) => {
                lease.spec = Some(spec);
                lease.metadata.owner_references = owners.or(lease.metadata.owner_references);
                within(api.replace(&self.name, &PostParams::default(), &lease)).await
            }
        };
        match written {
            Ok(_) => Ok(Some(!was_ours)),
            Err(error) if error.code() == Some(409) && !was_ours => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the holder has missed renewals, and its pod is gone.
    async fn can_be_taken_sooner(&self, seen: Option<&Sighting>) -> bool {
        let Some(Sighting { holder, at, .. }) = seen else { return false };
        if at.elapsed() < self.renews_every() * MISSED {
            return false;
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pod = holder.split_once('_').map_or(holder.as_str(), |(pod, _)| pod);
        // Without an answer it is there.
        within(pods.get_opt(pod)).await.is_ok_and(|found| is_gone(holder, found.as_ref()))
    }

    fn renews_every(&self) -> Duration {
        (self.duration / 15).clamp(Duration::from_millis(200), Duration::from_secs(15))
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
    fn a_pod_is_gone_when_it_is_not_there_or_another_one_or_finished() {
        let pod = |uid: &str, phase: &str| -> Pod {
            serde_json::from_value(serde_json::json!({"metadata": {"uid": uid}, "status": {"phase": phase}})).unwrap()
        };
        let holder = holder_of("web-1", "u");
        assert!(is_gone(&holder, None));
        assert!(is_gone(&holder, Some(&pod("another", "Running"))));
        assert!(is_gone(&holder, Some(&pod("u", "Failed"))) && is_gone(&holder, Some(&pod("u", "Succeeded"))));
        assert!(!is_gone(&holder, Some(&pod("u", "Running"))) && !is_gone(&holder, Some(&pod("u", "Pending"))));
        // Whoever wrote that is no pod of ours.
        assert!(!is_gone("somebody", None));
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
