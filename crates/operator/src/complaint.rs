//! What watches that fail say: a line for what is new, and not one for each try.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How often the same is said again, at most.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long kinds that are not served are gathered into one line.
const GATHER: Duration = Duration::from_secs(2);

/// The watches that fail, as far as a person was told.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    /// Names of definitions that are not there, since when one is, and when that was last said.
    missing: BTreeSet<String>,
    missing_since: Option<Instant>,
    missing_said: Option<Instant>,
    /// By kind, what was last said of any other failure, and when.
    said: BTreeMap<&'static str, (String, Instant)>,
}

impl Complaints {
    /// The server does not know a kind; what to say of that now.
    pub(crate) fn not_served(&mut self, definition: &str, now: Instant) -> Option<String> {
        self.missing.insert(definition.to_owned());
        let since = *self.missing_since.get_or_insert(now);
        let was_said = self.missing_said.is_some_and(|said| now.duration_since(said) < AGAIN_AFTER);
        if was_said || now.duration_since(since) < GATHER {
            return None;
        }
        self.missing_said = Some(now);
        let names: Vec<&str> = self.missing.iter().map(String::as_str).collect();
        Some(format!(
            "the API server does not serve {}: nothing is decided until it does. To install what is missing: holdfast \
             crds | kubectl apply --server-side -f -; or run the operator without --install-crds=false",
            names.join(", ")
        ))
    }

    /// A watch failed otherwise; what to say of that now.
    pub(crate) fn failed(&mut self, kind: &'static str, why: &str, now: Instant) -> Option<String> {
        if let Some((text, at)) = self.said.get(kind)
            && text == why
            && now.duration_since(*at) < AGAIN_AFTER
        {
            return None;
        }
        self.said.insert(kind, (why.to_owned(), now));
        Some(format!("cannot watch {kind}: {why}"))
    }

    /// A watch works.
    pub(crate) fn works(&mut self, kind: &'static str, definition: &str) {
        self.said.remove(kind);
        if self.missing.remove(definition) && self.missing.is_empty() {
            self.missing_since = None;
            self.missing_said = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_not_served_are_said_together_once_a_minute() {
        let mut complaints = Complaints::default();
        let begun = Instant::now();
        let mut said = Vec::new();
        for second in 0..=125 {
            for name in ["backups.stash.appscode.com", "restics.stash.appscode.com"] {
                said.extend(
                    complaints.not_served(name, begun + Duration::from_secs(second)).map(|text| (second, text)),
                );
            }
        }
        assert_eq!(said.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [2, 62, 122]);
        for (_, text) in said {
            assert!(text.contains("backups.stash.appscode.com, restics.stash.appscode.com"), "{text}");
            assert!(text.contains("holdfast crds | kubectl apply --server-side -f -"), "{text}");
        }
        complaints.works("Backup", "backups.stash.appscode.com");
        complaints.works("Restic", "restics.stash.appscode.com");
        let later = begun + Duration::from_secs(126);
        assert_eq!(complaints.not_served("backups.stash.appscode.com", later), None, "it is gathered anew");
        assert!(complaints.not_served("backups.stash.appscode.com", later + GATHER).is_some());
    }

    #[test]
    fn the_same_failure_is_said_once_a_minute_and_another_at_once() {
        let mut complaints = Complaints::default();
        let begun = Instant::now();
        let mut say = |why: &str, second| complaints.failed("Pod", why, begun + Duration::from_secs(second)).is_some();
        assert_eq!(
            [say("refused", 0), say("refused", 5), say("cut off", 6), say("cut off", 7), say("cut off", 66)],
            [true, false, true, false, true]
        );
        complaints.works("Pod", "pods");
        assert!(complaints.failed("Pod", "cut off", begun + Duration::from_secs(67)).is_some());
    }
}
