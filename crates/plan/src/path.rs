//! Paths as they stand in manifests: cleaned by name alone, never looked up, never given to a shell.
//!
//! A path with `..` is refused rather than resolved: Kubernetes refuses it in the same fields, and what it
//! would mean depends on symbolic links that planning cannot see.

/// Why a path of a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// The empty string.
    #[error("the path is empty")]
    Empty,
    /// It must start with `/`.
    #[error("`{0}` is not absolute; write it with a leading `/`")]
    Relative(String),
    /// It must not start with `/`.
    #[error("`{0}` is absolute; it must be relative to its volume")]
    Absolute(String),
    /// It has a `..`.
    #[error("`{0}` leaves its folder by `..`; write the path without it")]
    Escapes(String),
    /// It has a NUL byte, which no file system can store.
    #[error("{0:?} contains a NUL byte")]
    Nul(String),
}

/// Cleans an absolute path: repeated and trailing slashes and `.` go; `..` is an error.
pub(crate) fn absolute(path: &str) -> Result<String, PathError> {
    match path {
        "" => Err(PathError::Empty),
        _ if !path.starts_with('/') => Err(PathError::Relative(path.to_owned())),
        _ => Ok(format!("/{}", clean(path)?)),
    }
}

/// Cleans a path relative to a volume, as in `subPath`; empty and `.` are the volume's root, written `""`.
pub(crate) fn relative(path: &str) -> Result<String, PathError> {
    if path.starts_with('/') { Err(PathError::Absolute(path.to_owned())) } else { clean(path) }
}

fn clean(path: &str) -> Result<String, PathError> {
    if path.contains('\0') {
        return Err(PathError::Nul(path.to_owned()));
    }
    let mut cleaned = String::with_capacity(path.len());
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => return Err(PathError::Escapes(path.to_owned())),
            _ => {
                if !cleaned.is_empty() {
                    cleaned.push('/');
                }
                cleaned.push_str(segment);
            }
        }
    }
    Ok(cleaned)
}

/// What is left of the clean absolute `path` beneath the clean absolute `folder`: `""` for the folder
/// itself, nothing for a path outside it.
pub(crate) fn beneath<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(folder.trim_end_matches('/'))?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// Joins two clean relative paths, either of which may be empty.
pub(crate) fn join(folder: &str, rest: &str) -> String {
    match (folder.is_empty(), rest.is_empty()) {
        (true, _) => rest.to_owned(),
        (_, true) => folder.to_owned(),
        _ => format!("{}/{rest}", folder.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_cleaned_by_name() {
        for (given, expected) in [
            ("/", "/"),
            ("/source/data", "/source/data"),
            ("/source//data/", "/source/data"),
            ("/./source/./data/.", "/source/data"),
            ("/a b/$(rm -rf)/…", "/a b/$(rm -rf)/…"),
            ("/..data/a..", "/..data/a.."),
        ] {
            assert_eq!(absolute(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn paths_that_escape_are_refused() {
        for path in ["/..", "/a/../b", "/a/.."] {
            assert_eq!(absolute(path), Err(PathError::Escapes(path.to_owned())));
        }
        for path in ["..", "a/../../b"] {
            assert_eq!(relative(path), Err(PathError::Escapes(path.to_owned())));
        }
        assert_eq!(absolute(""), Err(PathError::Empty));
        assert_eq!(absolute("data"), Err(PathError::Relative("data".to_owned())));
        assert_eq!(relative("/data"), Err(PathError::Absolute("/data".to_owned())));
        assert_eq!(absolute("/a\0b"), Err(PathError::Nul("/a\0b".to_owned())));
    }

    #[test]
    fn beneath_goes_by_whole_segments() {
        for (path, folder, expected) in [
            ("/source/data", "/source", Some("data")),
            ("/source/data/x", "/source/data", Some("x")),
            ("/source", "/source", Some("")),
            ("/sourcedata", "/source", None),
            ("/a", "/", Some("a")),
            ("/", "/", Some("")),
            ("/", "/a", None),
        ] {
            assert_eq!(beneath(path, folder), expected, "{path} in {folder}");
        }
    }

    #[test]
    fn joining_an_empty_side_adds_no_slash() {
        assert_eq!(join("", "a"), "a");
        assert_eq!(join("a", ""), "a");
        assert_eq!(join("a", "b/c"), "a/b/c");
        assert_eq!(join("/", "b"), "/b");
        assert_eq!(join("", ""), "");
    }
}
