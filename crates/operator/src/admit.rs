//! Carries out whose turn it is, by what the whole cluster has going on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::admission::{Admitted, Key, Limits, admit};
use crate::cache::Cache;
use crate::execute::Executor;

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// How long what the server took is believed although it does not show: nobody else is to get the same turn meanwhile.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What is needed to admit runs.
pub(crate) struct Admitter {
    pub(crate) cache: Arc<Cache>,
    pub(crate) executor: Arc<Executor>,
    /// How many runs of the cluster may go on at once; none for no limit.
    pub(crate) runs_max: Option<usize>,
}

impl Admitter {
    /// Works for ever.
    pub(crate) async fn run(self) {
        let mut written: BTreeMap<Key, (Instant, Admitted)> = BTreeMap::new();
        loop {
            let (mut demands, repositories) = self.cache.demands();
            let now = Instant::now();
            written.retain(|key, (until, admitted)| {
                now < *until && demands.get(key).is_some_and(|shown| shown.admitted != *admitted)
            });
            for (key, (_, admitted)) in &written {
                if let Some(shown) = demands.get_mut(key) {
                    shown.admitted.clone_from(admitted);
                }
            }
            let limits = Limits { cluster: self.runs_max, repositories };
            let turns = admit(&demands, &limits, Timestamp::now());
            let mut again =
                turns.again.map(|at| now + Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
            for (key, admitted, action) in turns.answers {
                match self.executor.carry_out(action).await {
                    true => drop(written.insert(key, (Instant::now() + SHOWS_WITHIN, admitted))),
                    false => again = Some(Instant::now() + RETRY),
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
}
