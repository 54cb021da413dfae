//! One mistake in a manifest, as a person reads it and as a program does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which object: what an API server tells objects apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// The kind, as `Backup`.
    pub kind: String,
    /// The namespace; none for a kind that belongs to the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name; empty where the manifest gives none.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        match (&self.namespace, self.name.as_str()) {
            (_, "") => Ok(()),
            (Some(namespace), name) => write!(f, " {namespace}/{name}"),
            (None, name) => write!(f, " {name}"),
        }
    }
}

/// What kind of mistake it is, for programs; people read [`Problem::problem`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A field holds what cannot be.
    #[default]
    Invalid,
    /// What it names is not there.
    MissingReference,
    /// What is to be backed up or recovered is not there.
    MissingTarget,
    /// What it names has mistakes of its own.
    InvalidReference,
    /// What it names does not allow it.
    NotAllowed,
    /// It is written right, and cannot be done yet.
    NotServed,
}

/// One mistake: where it stands, what is wrong, what was found and expected, and the way out.
///
/// Its `Display` is one line:
/// `a.yaml:14:5: Backup demo/nightly: spec.retentionPolicy.keepLst: unknown field; did you mean keepLast?`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file, as it was named to [`read`](super::read); of an object of an API server its kind, namespace and name.
    pub file: String,
    /// The line, from 1; 0 where there is none, in an object of an API server.
    pub line: usize,
    /// The column in characters, from 1; 0 as well where there is none.
    pub column: usize,
    /// The object it stands in, where that much could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Identity>,
    /// The field, as `spec.retentionPolicy.keepLst`; empty for the object as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What is wrong, in a few words: `unknown field`.
    pub problem: String,
    /// What stands there, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What should stand there, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// What kind of mistake it is.
    #[serde(skip)]
    pub cause: Cause,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, object, path, problem, found, expected, suggestion, cause: _ } = self;
        match (line, object) {
            // An object of an API server: its name is its place.
            (0, Some(object)) => write!(f, "{object}: ")?,
            (0, None) => write!(f, "{file}: ")?,
            (_, None) => write!(f, "{file}:{line}:{column}: ")?,
            (_, Some(object)) => write!(f, "{file}:{line}:{column}: {object}: ")?,
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(problem)?;
        match (found, expected) {
            (Some(found), Some(expected)) => write!(f, ": found {found}, expected {expected}")?,
            (Some(found), None) => write!(f, ": found {found}")?,
            (None, Some(expected)) => write!(f, ": expected {expected}")?,
            (None, None) => {}
        }
        match suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}
