//! Waiting to be admitted, where only so many scheduled runs go on at once in a cluster or on a repository.
//!
//! The operator counts, since it sees all of them: the agent asks by its part of the status and is answered in the
//! operator's. A trigger asks nobody: a person waits for it.

use std::collections::BTreeMap;

use holdfast_plan::{Due, Plan, Wait};
use jiff::{SignedDuration, Timestamp};

use super::Cluster;
use crate::follow::Message;
use crate::pod::objects::Seen;
use crate::world::World;

/// How long a run waits at most: a limit that is too low, or an operator that is away, must not be the end of backups.
const WAITS_AT_MOST: SignedDuration = SignedDuration::from_hours(1);

/// Whether a run may begin.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It may.
    Begin,
    /// It has waited long enough.
    BeginUnasked,
    /// Not yet; since when it waits.
    Wait(Timestamp),
}

fn answer(due: &Due, seen: Option<&Seen>, waiting: Option<Timestamp>, now: Timestamp) -> Answer {
    if !due.triggers.is_empty() || !seen.is_some_and(|seen| seen.is_limited) {
        return Answer::Begin;
    }
    // Seconds are what a status keeps of a moment.
    let since = waiting.unwrap_or_else(|| Timestamp::from_second(now.as_second()).unwrap_or(now));
    if waiting.is_some() && seen.is_some_and(|seen| seen.admitted == waiting) {
        Answer::Begin
    } else if now.duration_since(since) >= WAITS_AT_MOST {
        Answer::BeginUnasked
    } else {
        Answer::Wait(since)
    }
}

impl Cluster<'_> {
    /// Has the due runs of backups wait that are not admitted yet.
    pub(super) fn wait_for_admission(&mut self, plan: &mut Plan) {
        let (now, mut waiting) = (Timestamp::now(), BTreeMap::new());
        let Plan { due, backups, .. } = plan;
        for due in due.iter_mut().filter(|due| due.waits_for.is_none()) {
            let planned = backups.iter().find(|planned| planned.id == due.id && self.takes(&planned.object));
            let Some(planned) = planned else { continue };
            match answer(due, self.seen_of(&planned.object), self.waiting.get(&due.id).copied(), now) {
                Answer::Begin => {}
                Answer::BeginUnasked => {
                    let object = &planned.object;
                    let text = format!("{object}: it waited an hour to be admitted, and begins without that");
                    (self.signal)(Message::Say(text));
                }
                Answer::Wait(since) => {
                    due.waits_for = Some(Wait::Slot);
                    waiting.insert(due.id.clone(), since);
                }
            }
        }
        self.waiting = waiting;
    }
}

#[cfg(test)]
mod tests {
    use holdfast_plan::Reason;

    use super::*;

    #[test]
    fn a_scheduled_run_waits_until_it_is_admitted_or_has_waited_long_enough() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let scheduled = Due {
            id: "Backup/demo/db/statefulset.db-0".into(),
            reason: Reason::Schedule,
            since: at(0),
            triggers: Vec::new(),
            waits_for: None,
        };
        let triggered = Due { reason: Reason::Trigger, triggers: vec!["demo/now".into()], ..scheduled.clone() };
        let free = Seen::default();
        let limited = Seen { is_limited: true, ..Seen::default() };
        let admitted = |since| Seen { admitted: Some(at(since)), ..limited.clone() };

        assert_eq!(answer(&scheduled, Some(&free), None, at(10)), Answer::Begin);
        assert_eq!(answer(&triggered, Some(&limited), None, at(10)), Answer::Begin);
        let now = Timestamp::from_millisecond(10_700).unwrap();
        assert_eq!(answer(&scheduled, Some(&limited), None, now), Answer::Wait(at(10)));
        assert_eq!(answer(&scheduled, Some(&limited), Some(at(10)), at(500)), Answer::Wait(at(10)));
        assert_eq!(answer(&scheduled, Some(&admitted(10)), Some(at(10)), at(500)), Answer::Begin);
        // That was for an earlier run.
        assert_eq!(answer(&scheduled, Some(&admitted(10)), None, at(500)), Answer::Wait(at(500)));
        assert_eq!(answer(&scheduled, Some(&admitted(10)), Some(at(400)), at(500)), Answer::Wait(at(400)));
        assert_eq!(answer(&scheduled, Some(&limited), Some(at(10)), at(3_610)), Answer::BeginUnasked);
    }
}
