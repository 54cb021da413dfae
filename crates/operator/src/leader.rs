//! Who of several operators works: the one that holds the Lease.
//!
//! Clocks of machines differ, so that no time of another machine is ever compared with one's own: a Lease is free when
//! it has not changed for its duration *as measured here*, since it was first seen like that. A holder renews three
//! times in a duration, and counts itself out well before the others may count it out, from the moment at which it
//! *began* to write the last renewal that succeeded. A Lease is changed only as it was read (resourceVersion), so that
//! of two who take it at once one fails.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::execute::told;
use crate::notice::{Notice, Tell};

/// How long a Lease holds after its last renewal.
const DURATION: Duration = Duration::from_secs(15);
/// After how long without a renewal its holder stops: before anybody else may begin.
const STEP_DOWN: Duration = Duration::from_secs(10);
/// How often it is renewed, and looked at.
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// How long one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// The name of the Lease.
const LEASE: &str = "holdfast";

/// One who would lead.
pub(crate) struct Candidate {
    leases: Api<Lease>,
    tell: Tell,
    watcher: Watcher,
}

/// What one who would lead knows of the Lease.
struct Watcher {
    identity: String,
    /// The Lease as it was seen last, and since when it has looked like that.
    seen: Option<(Seen, Instant)>,
}

/// What tells one state of a Lease from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    holder: String,
    renewed: Option<Timestamp>,
    version: Option<String>,
}

/// What a look at the Lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is ours.
    Ours,
    /// Nobody holds it, or not any more.
    Free,
    /// Somebody does.
    Taken,
}

impl Candidate {
    pub(crate) fn new(client: Client, namespace: &str, identity: String, tell: Tell) -> Self {
        let watcher = Watcher { identity, seen: None };
        Self { leases: Api::namespaced(client, namespace), tell, watcher }
    }

    /// Waits until the Lease is ours.
    pub(crate) async fn acquire(&mut self) {
        let mut told_of: Option<String> = None;
        let mut trouble = String::new();
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {
                    let holder = self.watcher.seen.as_ref().map(|(seen, _)| seen.holder.clone());
                    if holder != told_of {
                        let holder = holder.clone().unwrap_or_default();
                        (self.tell)(Notice::Done(format!("{holder} leads; this one waits")));
                    }
                    told_of = holder;
                }
                // Once for each thing that is wrong, and not every two seconds.
                Err(error) if error == trouble => {}
                Err(error) => {
                    (self.tell)(Notice::Trouble(format!("cannot take the Lease {LEASE}: {error}")));
                    trouble = error;
                }
            }
            tokio::time::sleep(RENEW_EVERY / 2).await;
        }
    }

    /// Renews the Lease until that fails for too long, or somebody else has it.
    pub(crate) async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            let next = async {
                tokio::time::sleep(RENEW_EVERY).await;
                (Instant::now(), self.attempt().await)
            };
            // Whatever it hangs in, it ends in time.
            match tokio::time::timeout_at(renewed + STEP_DOWN, next).await {
                Ok((began, Ok(true))) => renewed = began,
                Ok((_, Ok(false))) | Err(_) => return,
                Ok((_, Err(error))) => (self.tell)(Notice::Trouble(format!("cannot renew the Lease {LEASE}: {error}"))),
            }
        }
    }

    /// Gives the Lease back, so that another need not wait.
    pub(crate) async fn release(&mut self) {
        let Ok(Some(lease)) = self.get().await else { return };
        if self.watcher.judge(&lease, Instant::now()) == Verdict::Ours {
            let _ = self.write(Some(lease), String::new()).await;
        }
    }

    /// Looks, and takes or renews; says whether the Lease is ours now.
    async fn attempt(&mut self) -> Result<bool, String> {
        let lease = self.get().await?;
        match lease.as_ref().map_or(Verdict::Free, |lease| self.watcher.judge(lease, Instant::now())) {
            Verdict::Taken => Ok(false),
            Verdict::Ours | Verdict::Free => self.write(lease, self.watcher.identity.clone()).await,
        }
    }

    async fn get(&self) -> Result<Option<Lease>, String> {
        in_time(self.leases.get_opt(LEASE)).await
    }

    /// Writes the Lease as `holder`'s over what was read; says whether nobody else was faster.
    async fn write(&self, read: Option<Lease>, holder: String) -> Result<bool, String> {
        let now = MicroTime(Timestamp::now());
        let before = read.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_new_holder = before.holder_identity.as_deref() != Some(holder.as_str());
        let spec = LeaseSpec {
            holder_identity: Some(holder),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_new_holder { Some(now.clone()) } else { before.acquire_time },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(is_new_holder)),
            ..LeaseSpec::default()
        };
        let written = match read {
            Some(mut lease) => {
                lease.spec = Some(spec);
                in_time(self.leases.replace(LEASE, &PostParams::default(), &lease)).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
                in_time(self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) })).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if error.starts_with(CONFLICT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Watcher {
    fn judge(&mut self, lease: &Lease, now: Instant) -> Verdict {
        let spec = lease.spec.clone().unwrap_or_default();
        let seen = Seen {
            holder: spec.holder_identity.unwrap_or_default(),
            renewed: spec.renew_time.map(|time| time.0),
            version: lease.metadata.resource_version.clone(),
        };
        let since = match &self.seen {
            Some((before, since)) if *before == seen => *since,
            _ => now,
        };
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        let verdict = match seen.holder.as_str() {
            "" => Verdict::Free,
            holder if holder == self.identity => Verdict::Ours,
            _ if now.duration_since(since) >= duration => Verdict::Free,
            _ => Verdict::Taken,
        };
        self.seen = Some((seen, since));
        verdict
    }
}

/// What a conflict's message starts with here.
const CONFLICT: &str = "somebody was faster";

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST_WITHIN, request).await {
        Err(_) => Err(format!("no answer within {} s", REQUEST_WITHIN.as_secs())),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(format!("{CONFLICT}: {}", status.message)),
        Ok(Err(error)) => Err(told(&error)),
        Ok(Ok(done)) => Ok(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() }),
        }
    }

    #[test]
    fn a_lease_is_free_when_it_has_not_changed_for_its_duration_here() {
        let mut watcher = Watcher { identity: "me".to_owned(), seen: None };
        let start = Instant::now();
        let second = Duration::from_secs(1);
        for (holder, version, after, expected) in [
            ("", "1", Duration::ZERO, Verdict::Free),
            ("me", "2", Duration::ZERO, Verdict::Ours),
            ("other", "3", Duration::ZERO, Verdict::Taken),
            ("other", "3", DURATION - second, Verdict::Taken),
            // Renewed: it counts from here.
            ("other", "4", DURATION, Verdict::Taken),
            ("other", "4", DURATION * 2 - second, Verdict::Taken),
            ("other", "4", DURATION * 2, Verdict::Free),
        ] {
            assert_eq!(watcher.judge(&lease(holder, version), start + after), expected, "{version} after {after:?}");
        }
    }

    #[test]
    fn a_holder_stops_before_another_may_begin() {
        // The last renewal may have been written just after it began, and the next try hangs as long as it may.
        assert!(STEP_DOWN + REQUEST_WITHIN <= DURATION);
    }
}
