//! Whose turn it is, where only so many scheduled runs may go on at once: in the whole cluster, and on one Repository.
//!
//! An agent that waits says since when, in its host's part of a status; it is answered beside it. What counts is what goes
//! on, however it began, and what was admitted and has not begun yet. Pure, as all of the operator's judgement.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::names::managers;
use holdfast_api::stash::{Admission, BackupStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::action::{Action, sooner};
use crate::world::text;

/// How long one that was admitted is waited for: its pod may be gone.
const BEGINS_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// Namespace, kind and name of a Backup or Restic.
pub(crate) type Key = (String, &'static str, String);
/// The hosts that were admitted: since when they waited, and when it was.
pub(crate) type Admitted = BTreeMap<String, (Timestamp, Timestamp)>;
/// Namespace and name of a Repository.
pub(crate) type RepositoryKey = (String, String);

/// How many runs may go on at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Limits {
    /// In the cluster; none for no limit.
    pub(crate) cluster: Option<usize>,
    /// On Repositories that have a limit.
    pub(crate) repositories: BTreeMap<RepositoryKey, usize>,
}

/// The limit that a Repository sets.
pub(crate) fn limit_of(repository: &Value) -> Option<usize> {
    repository["spec"]["maxConcurrentRuns"].as_u64().and_then(|limit| usize::try_from(limit).ok())
}

/// What a Backup or Restic has going on, and would begin.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Demand {
    api_version: String,
    repository: Option<RepositoryKey>,
    running: BTreeSet<String>,
    waiting: BTreeMap<String, Timestamp>,
    pub(crate) admitted: Admitted,
}

impl Demand {
    /// None where there is nothing of it.
    pub(crate) fn of(namespace: &str, object: &Value) -> Option<Self> {
        let status = BackupStatus::deserialize(&object["status"]).ok()?;
        let hosts = || status.hosts.iter();
        let repository = &object["spec"]["repository"];
        let of = Some(text(repository, "/namespace")).filter(|of| !of.is_empty()).unwrap_or(namespace);
        let name = text(repository, "/name");
        let demand = Self {
            api_version: text(object, "/apiVersion").to_owned(),
            repository: (!name.is_empty()).then(|| (of.to_owned(), name.to_owned())),
            running: hosts().filter(|host| host.running.is_some()).map(|host| host.host.clone()).collect(),
            waiting: hosts().filter_map(|host| Some((host.host.clone(), host.waiting_since.as_ref()?.0))).collect(),
            admitted: status
                .admitted
                .iter()
                .map(|(host, admission)| (host.clone(), (admission.waiting_since.0, admission.time.0)))
                .collect(),
        };
        let is_idle = demand.running.is_empty() && demand.waiting.is_empty() && demand.admitted.is_empty();
        (!is_idle).then_some(demand)
    }
}

/// Whose turn it is.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Turns {
    /// Who is admitted from now on, where that is another than before, and how it is told.
    pub(crate) answers: Vec<(Key, Admitted, Action)>,
    /// When to decide again if nothing changes until then.
    pub(crate) again: Option<Timestamp>,
}

/// Who is admitted, by the demands of the whole cluster.
pub(crate) fn admit(demands: &BTreeMap<Key, Demand>, limits: &Limits, now: Timestamp) -> Turns {
    let mut turns = Turns::default();
    let mut going_on = GoingOn { limits, all: 0, of_repository: BTreeMap::new() };
    let mut admitted: BTreeMap<&Key, Admitted> = BTreeMap::new();
    let mut candidates: Vec<(Timestamp, &Key, &String)> = Vec::new();
    for (key, demand) in demands {
        let waits = |host: &String, since: Timestamp| demand.waiting.get(host) == Some(&since);
        let kept: Admitted = demand
            .admitted
            .iter()
            .filter(|(host, (since, _))| waits(host, *since))
            .map(|(host, times)| (host.clone(), *times))
            .collect();
        demand.running.iter().for_each(|_| going_on.add(demand));
        for (_, at) in kept.values() {
            let end = at.checked_add(BEGINS_WITHIN).unwrap_or(Timestamp::MAX);
            if now < end {
                going_on.add(demand);
                sooner(&mut turns.again, end);
            }
        }
        let asks = demand.waiting.iter().filter(|(host, _)| !kept.contains_key(*host));
        candidates.extend(asks.map(|(host, since)| (*since, key, host)));
        admitted.insert(key, kept);
    }
    candidates.sort();
    // Seconds are what a status keeps of a moment.
    let time = Timestamp::from_second(now.as_second()).unwrap_or(now);
    for (since, key, host) in candidates {
        let (Some(demand), Some(admitted)) = (demands.get(key), admitted.get_mut(key)) else { continue };
        if going_on.has_room(demand) {
            going_on.add(demand);
            admitted.insert(host.clone(), (since, time));
        }
    }
    for (key, admitted) in admitted {
        if let Some(demand) = demands.get(key).filter(|demand| demand.admitted != admitted) {
            let action = answer(key, demand, &admitted);
            turns.answers.push((key.clone(), admitted, action));
        }
    }
    turns
}

struct GoingOn<'a> {
    limits: &'a Limits,
    all: usize,
    of_repository: BTreeMap<&'a RepositoryKey, usize>,
}

impl<'a> GoingOn<'a> {
    fn add(&mut self, demand: &'a Demand) {
        self.all += 1;
        if let Some(repository) = &demand.repository {
            *self.of_repository.entry(repository).or_default() += 1;
        }
    }

    fn has_room(&self, demand: &Demand) -> bool {
        let of_repository = demand.repository.as_ref().is_none_or(|repository| {
            let running = self.of_repository.get(repository).copied().unwrap_or(0);
            self.limits.repositories.get(repository).is_none_or(|limit| running < *limit)
        });
        of_repository && self.limits.cluster.is_none_or(|limit| self.all < limit)
    }
}

fn answer(key: &Key, demand: &Demand, admitted: &Admitted) -> Action {
    let (namespace, kind, name) = key;
    let admissions: BTreeMap<&String, Admission> = admitted
        .iter()
        .map(|(host, (since, time))| (host, Admission { waiting_since: Time(*since), time: Time(*time) }))
        .collect();
    // An empty map in the place of one with entries would be merged to null, and refused.
    let status = if admissions.is_empty() { json!({}) } else { json!({"admitted": admissions}) };
    Action::Apply {
        because: "its runs wait for a turn".to_owned(),
        manager: managers::ADMISSION.to_owned(),
        subresource: Some("status"),
        object: json!({
            "apiVersion": demand.api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn time(second: i64) -> String {
        at(second).to_string()
    }

    /// A Backup `name` into the Repository `repository` of namespace `r`, with these hosts.
    fn backup(name: &str, repository: &str, hosts: Value, admitted: Value) -> (Key, Demand) {
        let object = json!({
            "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Backup",
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {"repository": {"name": repository, "namespace": "r"}},
            "status": {"hosts": hosts, "admitted": admitted},
        });
        (("demo".to_owned(), "Backup", name.to_owned()), Demand::of("demo", &object).unwrap())
    }

    fn waiting(name: &str, repository: &str, second: i64) -> (Key, Demand) {
        backup(name, repository, json!([{"host": "h", "waitingSince": time(second)}]), json!({}))
    }

    fn running(name: &str, repository: &str) -> (Key, Demand) {
        backup(name, repository, json!([{"host": "h", "running": {"start": time(1)}}]), json!({}))
    }

    fn limits(cluster: Option<usize>, of_r: &[(&str, usize)]) -> Limits {
        let repositories = of_r.iter().map(|(name, limit)| (("r".to_owned(), (*name).to_owned()), *limit)).collect();
        Limits { cluster, repositories }
    }

    /// The names of those that are answered, and how many hosts each answer admits.
    fn answered(turns: &Turns) -> Vec<(String, usize)> {
        let answers = turns.answers.iter().map(|(key, admitted, action)| {
            let Action::Apply { object, .. } = action else { panic!("{action:?}") };
            assert_eq!(object["status"]["admitted"].as_object().map_or(0, |all| all.len()), admitted.len());
            assert_eq!(object["metadata"]["name"], key.2);
            (key.2.clone(), admitted.len())
        });
        answers.collect()
    }

    #[test]
    fn who_waits_longest_goes_first_as_long_as_there_is_room() {
        let demands =
            BTreeMap::from([running("a", "x"), waiting("b", "x", 30), waiting("c", "x", 20), waiting("d", "y", 25)]);
        let admitted = |limits: &Limits| answered(&admit(&demands, limits, at(40)));
        let one = |name: &str| (name.to_owned(), 1);
        assert_eq!(admitted(&limits(Some(1), &[])), []);
        assert_eq!(admitted(&limits(Some(2), &[])), [one("c")]);
        assert_eq!(admitted(&limits(Some(3), &[])), [one("c"), one("d")]);
        // The first has to wait for its Repository, and holds nobody else up.
        assert_eq!(admitted(&limits(Some(2), &[("x", 1)])), [one("d")]);
        assert_eq!(admitted(&limits(None, &[("x", 2)])), [one("c"), one("d")]);
        assert_eq!(admitted(&limits(None, &[])), [one("b"), one("c"), one("d")]);
    }

    #[test]
    fn one_that_was_admitted_counts_until_it_begins_and_not_for_ever() {
        let admission = json!({"h": {"waitingSince": time(20), "time": time(30)}});
        let slow = backup("a", "x", json!([{"host": "h", "waitingSince": time(20)}]), admission.clone());
        let demands = BTreeMap::from([slow, waiting("b", "x", 25)]);
        let turns = admit(&demands, &limits(Some(1), &[]), at(40));
        assert_eq!((answered(&turns), turns.again), (vec![], Some(at(150))));
        let turns = admit(&demands, &limits(Some(1), &[]), at(150));
        assert_eq!((answered(&turns), turns.again), (vec![("b".to_owned(), 1)], None));
        // It has begun: the answer goes, the run counts.
        let begun = backup("a", "x", json!([{"host": "h", "running": {"start": time(31)}}]), admission);
        let demands = BTreeMap::from([begun, waiting("b", "x", 25)]);
        let turns = admit(&demands, &limits(Some(1), &[]), at(40));
        assert_eq!(answered(&turns), [("a".to_owned(), 0)]);
        let (_, _, Action::Apply { object, .. }) = &turns.answers[0] else { panic!("{turns:?}") };
        assert_eq!(object["status"], json!({}), "an empty map would be refused");
    }

    #[test]
    fn hosts_of_one_backup_are_admitted_one_by_one() {
        let hosts = json!([{"host": "a", "waitingSince": time(20)}, {"host": "b", "waitingSince": time(20)}]);
        let both = backup("all", "x", hosts, json!({"gone": {"waitingSince": time(1), "time": time(2)}}));
        let demands = BTreeMap::from([both]);
        let turns = admit(&demands, &limits(None, &[("x", 1)]), at(40));
        let (_, _, Action::Apply { object, manager, .. }) = &turns.answers[0] else { panic!("{turns:?}") };
        assert_eq!(manager, "holdfast-admission");
        assert_eq!(object["status"], json!({"admitted": {"a": {"waitingSince": time(20), "time": time(40)}}}));
    }

    #[test]
    fn who_does_nothing_demands_nothing() {
        let idle = json!({"status": {"hosts": [{"host": "h", "lastStart": time(1)}]}});
        assert_eq!(Demand::of("demo", &idle), None);
        assert_eq!(Demand::of("demo", &json!({})), None);
    }
}
