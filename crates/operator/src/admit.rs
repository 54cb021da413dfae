//! Carries out whose turn it is, by what the whole cluster has going on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::action::Action;
use crate::admission::{Demand, Key, Limits, admit};
use crate::cache::Cache;
use crate::execute::{describe, execute};
use crate::metrics::Metrics;
use crate::notice::{Notice, Tell};
use crate::world::{name, text};

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// How long what the server took is believed although it does not show: nobody else is to get the same turn meanwhile.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What is needed to admit runs.
pub(crate) struct Admitter {
    pub(crate) client: Client,
    pub(crate) cache: Arc<Cache>,
    /// How many runs of the cluster may go on at once; none for no limit.
    pub(crate) runs_max: Option<usize>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tell: Tell,
}

impl Admitter {
    /// Works for ever.
    pub(crate) async fn run(self) {
        let mut written: BTreeMap<Key, (Instant, Demand)> = BTreeMap::new();
        loop {
            let (mut demands, repositories) = self.cache.demands();
            let now = Instant::now();
            written.retain(|key, (until, demand)| {
                let shown = demands.get(key).map(|shown| &shown.admitted);
                now < *until && shown.is_some_and(|shown| *shown != demand.admitted)
            });
            for (key, (_, demand)) in &written {
                if let Some(shown) = demands.get_mut(key) {
                    shown.admitted.clone_from(&demand.admitted);
                }
            }
            let limits = Limits { cluster: self.runs_max, repositories };
            let decision = admit(&demands, &limits, Timestamp::now());
            let mut again = decision
                .again
                .map(|at| now + Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
            for action in decision.actions {
                match self.carry_out(action).await {
                    Some((key, demand)) => drop(written.insert(key, (Instant::now() + SHOWS_WITHIN, demand))),
                    None => again = Some(Instant::now() + RETRY),
                }
            }
            let wake = async {
                match again {
                    Some(again) => tokio::time::sleep_until(again).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.cache.demanded() => {}
                () = wake => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// What the server took, if it did.
    async fn carry_out(&self, action: Action) -> Option<(Key, Demand)> {
        let Action::Apply { object, .. } = &action else { return None };
        let (namespace, named) = (text(object, "/metadata/namespace").to_owned(), name(object).to_owned());
        let kind = if text(object, "/kind") == "Restic" { "Restic" } else { "Backup" };
        let demand = Demand::of(&namespace, object).unwrap_or_default();
        let (what, done) = (describe(&action), action.kind());
        let permit = self.permits.acquire().await;
        let outcome = execute(&self.client, action).await;
        drop(permit);
        self.metrics.wrote(done, outcome.is_ok());
        match outcome {
            Ok(()) => {
                (self.tell)(Notice::Done(what));
                Some(((namespace, kind, named), demand))
            }
            Err(error) => {
                if !error.is_quiet() {
                    (self.tell)(Notice::Trouble(format!("cannot {error}")));
                }
                None
            }
        }
    }
}
