//! "Did you mean …": the known word nearest to one that is not known.

/// The candidate nearest to `word`, if it is near enough to be meant: the same but for case, a plural, or
/// at most a third of its letters wrong.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let other = candidate.to_lowercase();
            let stem = |w: &str| w.trim_end_matches("ies").trim_end_matches(['s', 'y']).to_owned();
            let distance = if lower == other || stem(&lower) == stem(&other) { 0 } else { distance(&lower, &other) };
            (distance, candidate)
        })
        .filter(|(distance, candidate)| {
            let letters = candidate.chars().count().max(lower.chars().count());
            *distance <= (letters / 3).clamp(1, 4)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed, changed or swapped with their neighbour to make one word the
/// other (optimal string alignment). Words over 64 letters are taken to be far apart.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("keepLst", "keepLast"), 1);
        assert_eq!(distance("buckte", "bucket"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn the_nearest_or_none() {
        let fields = ["keepLast", "keepHourly", "keepDaily", "prune", "retentionPolicy", "name"];
        for (word, want) in [
            ("keepLst", Some("keepLast")),
            ("KEEPLAST", Some("keepLast")),
            ("keep_last", Some("keepLast")),
            ("keepDayly", Some("keepDaily")),
            ("retentionPolicies", Some("retentionPolicy")),
            ("names", Some("name")),
            ("prunes", Some("prune")),
            ("bucket", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, fields), want, "{word}");
        }
    }
}
