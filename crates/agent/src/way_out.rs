//! What a person can do about a run that failed.

use std::error::Error;
use std::io;

use holdfast_repository::Error as RepositoryError;
use holdfast_store::ErrorKind;

/// The way out of a failure with the repository at `location`, where one is known.
pub(crate) fn way_out(error: &(dyn Error + 'static), location: &str) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(known) = error.downcast_ref::<RepositoryError>().and_then(|error| of_repository(error, location)) {
            return Some(known);
        }
        if let Some(error) = error.downcast_ref::<holdfast_store::Error>() {
            return of_storage(error, location);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return of_file_system(error.kind()).map(str::to_owned);
        }
        cause = error.source();
    }
    None
}

fn of_repository(error: &RepositoryError, location: &str) -> Option<String> {
    match error {
        RepositoryError::NoRepository { .. } => Some(not_found(location)),
        RepositoryError::Locked { .. } => {
            Some(format!("if that process is gone, `holdfast repo -r {location} unlock --remove-all` removes its lock"))
        }
        RepositoryError::Damaged { .. } | RepositoryError::MissingBlob { .. } => {
            Some(format!("`holdfast repo -r {location} check --read-data` tells what is affected"))
        }
        // A transparent error hides itself from the chain of sources.
        RepositoryError::Store(error) => of_storage(error, location),
        _ => None,
    }
}

fn of_storage(error: &holdfast_store::Error, location: &str) -> Option<String> {
    Some(match error.kind {
        ErrorKind::Full => "make room, or mount it writable; what was stored so far is used by the next run".into(),
        ErrorKind::PermissionDenied => "may this user, with the keys of the Secret, read and write there?".into(),
        ErrorKind::Unavailable => "is the server up, and its address right?".into(),
        ErrorKind::NotFound => not_found(location),
        _ => return None,
    })
}

fn not_found(location: &str) -> String {
    format!(
        "is that the right place, its disk mounted, its bucket made? `holdfast repo -r {location} init` makes a new \
         repository there"
    )
}

fn of_file_system(kind: io::ErrorKind) -> Option<&'static str> {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match kind {
        StorageFull | QuotaExceeded => Some("make room there"),
        ReadOnlyFilesystem => Some("mount it writable"),
        PermissionDenied => Some("may this user read and write there?"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: RepositoryError, expected: &str) {
        let known = way_out(&error, "/srv/repo").unwrap();
        assert!(known.contains(expected), "{known}");
    }

    fn storage(kind: ErrorKind) -> RepositoryError {
        let source = Box::new(io::Error::other("it is so"));
        holdfast_store::Error { kind, operation: "read", name: "config".into(), source }.into()
    }

    #[test]
    fn there_is_a_way_out_of_what_a_person_can_change() {
        check(storage(ErrorKind::Unavailable), "is the server up");
        check(storage(ErrorKind::PermissionDenied), "keys of the Secret");
        check(storage(ErrorKind::Full), "make room");
        let damaged = RepositoryError::MissingBlob { kind: "data", id: holdfast_repository::Id::of(b"x") };
        check(damaged, "holdfast repo -r /srv/repo check");
        assert_eq!(way_out(&storage(ErrorKind::Other), ""), None);
        assert_eq!(way_out(&RepositoryError::Interrupted, ""), None);
    }
}
