//! A mistake while its object is being checked: a [`Problem`] that does not know its file yet.

use super::path::Path;
use super::problem::{Cause, Identity, Problem};
use super::tree::Fault;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) path: Path,
    pub(super) problem: String,
    pub(super) found: Option<String>,
    pub(super) expected: Option<String>,
    pub(super) suggestion: Option<String>,
}

impl Finding {
    pub(super) fn new((line, column): (usize, usize), path: &Path, problem: impl Into<String>) -> Self {
        Self {
            line,
            column,
            path: path.clone(),
            problem: problem.into(),
            found: None,
            expected: None,
            suggestion: None,
        }
    }

    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn suggest(mut self, suggestion: impl Into<Option<String>>) -> Self {
        self.suggestion = suggestion.into();
        self
    }

    /// The problem this is in `file`, in `object`.
    pub(super) fn in_file(self, file: &str, object: Option<&Identity>) -> Problem {
        let Self { line, column, path, problem, found, expected, suggestion } = self;
        Problem {
            file: file.to_owned(),
            line,
            column,
            object: object.cloned(),
            path: path.to_string(),
            problem,
            found,
            expected,
            suggestion,
            cause: Cause::default(),
        }
    }
}

impl From<Fault> for Finding {
    fn from(Fault { line, column, path, problem, suggestion }: Fault) -> Self {
        Self { line, column, path, problem, found: None, expected: None, suggestion }
    }
}
