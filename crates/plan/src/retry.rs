//! When a failed run is tried again: after a delay that doubles, a bounded number of times.
//!
//! Bounded, because a run that fails for good would otherwise hammer the store and its bill for ever; the
//! schedule's next moment gives it another chance in any case.

use holdfast_api::stash::RetryConfig;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// The longest delay between two tries, in seconds, unless the first is longer already.
const DELAY_SECONDS_MAX: u64 = 3_600;

/// How failed runs are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Tries after the first failure.
    pub tries_max: u32,
    /// Delay before the first of them, in seconds; each further one waits twice as long, up to an hour.
    pub delay_seconds: u64,
}

impl From<Option<&RetryConfig>> for Retry {
    fn from(config: Option<&RetryConfig>) -> Self {
        let RetryConfig { max_retry, delay } = config.cloned().unwrap_or_default();
        Self { tries_max: max_retry, delay_seconds: delay.as_std().as_secs() }
    }
}

impl Retry {
    /// When a run is tried again after `attempts` that did not succeed, of which the last ended, or was cut
    /// short some time after it started, at `last`; none when there is nothing to try again, or it has been
    /// tried often enough.
    pub fn at(&self, attempts: u32, last: Option<Timestamp>) -> Option<Timestamp> {
        if attempts == 0 || attempts > self.tries_max {
            return None;
        }
        let delay_max = DELAY_SECONDS_MAX.max(self.delay_seconds);
        let factor = 1_u64.checked_shl(attempts - 1).unwrap_or(u64::MAX);
        let delay = self.delay_seconds.saturating_mul(factor).min(delay_max);
        last?.checked_add(SignedDuration::from_secs(i64::try_from(delay).unwrap_or(i64::MAX))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(retry: Retry, attempts: &[u32]) -> Vec<Option<i64>> {
        let last = Timestamp::from_second(1_000).unwrap();
        attempts.iter().map(|&attempts| retry.at(attempts, Some(last)).map(|at| at.as_second() - 1_000)).collect()
    }

    #[test]
    fn the_delay_doubles_up_to_an_hour_and_ends() {
        let retry = Retry { tries_max: 90, delay_seconds: 60 };
        let expected = [None, Some(60), Some(120), Some(240), Some(1_920), Some(3_600), Some(3_600), None, None];
        assert_eq!(delays(retry, &[0, 1, 2, 3, 6, 7, 90, 91, u32::MAX]), expected);
    }

    #[test]
    fn a_long_first_delay_is_kept() {
        let retry = Retry { tries_max: 3, delay_seconds: 7_200 };
        assert_eq!(delays(retry, &[1, 2]), [Some(7_200), Some(7_200)]);
        assert_eq!(delays(Retry { tries_max: 0, delay_seconds: 60 }, &[1]), [None]);
        assert_eq!(delays(Retry { tries_max: 3, delay_seconds: u64::MAX }, &[2]), [None], "past the end of time");
    }

    #[test]
    fn the_default_is_three_tries_after_one_two_and_four_minutes() {
        assert_eq!(delays(Retry::from(None), &[1, 2, 3, 4]), [Some(60), Some(120), Some(240), None]);
    }

    #[test]
    fn without_a_last_run_there_is_nothing_to_try_again() {
        assert_eq!(Retry::from(None).at(1, None), None);
    }
}
