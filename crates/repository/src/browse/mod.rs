//! Looking into snapshots: listing, searching, comparing, dumping and counting. Changes nothing.
//!
//! Results go to a callback as they come, so that memory does not grow with what is found. Something that cannot be
//! read is told to the monitor and passed over, unless it is exactly what was asked for.

mod diff;
mod dump;
mod find;
mod ls;
mod stats;
mod tar;

pub use self::diff::{Change, ChangedSide, DiffReport, DiffStats, diff};
pub use self::dump::dump;
pub use self::find::{FindOptions, Found, Wanted, find};
pub use self::ls::{LsOptions, ls};
pub use self::stats::{Stats, StatsMode, stats};

/// A path as people give it in its plain form: absolute, without empty and `.` parts, no slash at the end but `/`'s own.
fn plain_path(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len() + 1);
    for name in path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
        plain.push(b'/');
        plain.extend_from_slice(name);
    }
    if plain.is_empty() {
        plain.push(b'/');
    }
    plain
}

/// Whether `path` is `folder` or below it; both in their plain form.
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    folder == b"/" || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, want) in [("", "/"), ("/", "/"), ("a//b/./c/", "/a/b/c"), ("/a", "/a")] {
            assert_eq!(plain_path(path.as_bytes()), want.as_bytes());
        }
        assert!(is_within(b"/a/b", b"/a") && is_within(b"/a", b"/a") && is_within(b"/a", b"/"));
        assert!(!is_within(b"/ab", b"/a") && !is_within(b"/", b"/a"));
    }
}
