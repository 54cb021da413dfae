//! Which names objects may have. The same rule for every store, so that a repository can be copied
//! from any store to any other.

use crate::{Error, ErrorKind, Result};

/// What stands between an object's name and the random number in the name of a file that is still
/// being written. restic's local repositories use the same, and restic too passes over such files.
pub(crate) const TEMPORARY: &str = "-tmp-";

/// Refuses names that could leave the store, that some store could not keep apart, or that a listing
/// would pass over.
pub(crate) fn check(operation: &'static str, name: &str) -> Result<()> {
    let refuse = |why: &'static str| Err(Error::new(ErrorKind::InvalidConfig, operation, name, why));
    if name.is_empty() {
        return refuse("an object needs a name");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse("an object's name has no empty, `.` or `..` parts");
    }
    if name.chars().any(char::is_control) {
        return refuse("an object's name has no control characters");
    }
    if is_temporary(name) {
        return refuse("names that end in `-tmp-` and digits are kept for unfinished files");
    }
    Ok(())
}

/// Refuses listing prefixes that are not a folder of the store; `""` is the whole store.
pub(crate) fn check_folder(prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        return Ok(());
    }
    check("list", prefix)
}

/// Whether `name` is that of an unfinished file: `<name>-tmp-<digits>`.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.rsplit_once(TEMPORARY)
        .is_some_and(|(_, random)| !random.is_empty() && random.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether the object `name` is in the folder `prefix`.
pub(crate) fn is_in_folder(name: &str, prefix: &str) -> bool {
    prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_store_takes() {
        for name in
            ["", "/", "/etc/passwd", "a//b", "a/", "..", "a/../b", "./a", "a/.", "a\nb", "a\0b", "data/ab/abcd-tmp-123"]
        {
            let error = check("write", name).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig, "{name:?}");
        }
        for name in ["config", "data/ab/abcd", "a/b/c/d/e", "a.b", "x-tmp-y", "-tmp-", "ä ö"] {
            check("write", name).unwrap();
        }
    }

    #[test]
    fn a_folder_is_a_whole_part_of_the_name() {
        assert!(is_in_folder("data/ab/x", "data"));
        assert!(is_in_folder("data/ab/x", "data/ab"));
        assert!(is_in_folder("config", ""));
        assert!(!is_in_folder("database/x", "data"));
        assert!(!is_in_folder("data", "data"));
    }
}
