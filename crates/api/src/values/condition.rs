//! Conditions of a status: one per type, and the transition time moves only when the status does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition of type `kind`, observed now.
pub fn condition(
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation,
        last_transition_time: Time(now),
    }
}

/// Puts `new` in the place of the condition of the same type, or at the end.
///
/// The transition time of the old one is kept when the status did not change, so that writing the same thing twice
/// changes nothing.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// Whether the condition of type `kind` is present and `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|c| c.type_ == kind && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        set_condition(&mut conditions, condition("Ready", true, "Reconciled", "", Some(1), at(1)));
        set_condition(&mut conditions, condition("Ready", true, "Reconciled", "again", Some(2), at(2)));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, Time(at(1)));
        assert_eq!(conditions[0].message, "again");
        assert!(is_true(&conditions, "Ready"));

        set_condition(&mut conditions, condition("Ready", false, "Broken", "", Some(2), at(3)));
        assert_eq!(conditions[0].last_transition_time, Time(at(3)));
        assert!(!is_true(&conditions, "Ready"));
        assert!(!is_true(&conditions, "Absent"));
    }
}
