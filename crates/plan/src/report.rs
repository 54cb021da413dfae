//! Problems on their way to the plan: found by functions that know a field, completed by those that know
//! the object.

use holdfast_api::manifest::{Cause, Object, Problem};

use crate::volume::VolumeError;

/// A problem with a field of the object at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The field, as `spec.targetDirectories[0]`.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) problem: String,
    /// The way out.
    pub(crate) suggestion: Option<String>,
    /// What kind of mistake it is.
    pub(crate) cause: Cause,
}

impl Finding {
    pub(crate) fn new(path: impl Into<String>, problem: impl ToString) -> Self {
        Self { path: path.into(), problem: problem.to_string(), suggestion: None, cause: Cause::default() }
    }

    pub(crate) fn because(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// What is wrong with a volume.
    pub(crate) fn of_volume(path: impl Into<String>, error: &VolumeError) -> Self {
        let cause = match error {
            VolumeError::Missing(_) => Cause::MissingReference,
            _ => Cause::Invalid,
        };
        Self::new(path, error).because(cause)
    }

    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

impl From<Finding> for Vec<Finding> {
    fn from(finding: Finding) -> Self {
        vec![finding]
    }
}

/// All problems of a plan.
#[derive(Debug, Default)]
pub(crate) struct Report {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Report {
    pub(crate) fn new(errors: Vec<Problem>, warnings: Vec<Problem>) -> Self {
        Self { errors, warnings }
    }

    pub(crate) fn errors(&mut self, object: &Object, findings: impl Into<Vec<Finding>>) {
        self.errors.extend(findings.into().into_iter().map(|finding| problem(object, finding)));
    }

    pub(crate) fn warnings(&mut self, object: &Object, findings: impl Into<Vec<Finding>>) {
        self.warnings.extend(findings.into().into_iter().map(|finding| problem(object, finding)));
    }

    /// Errors and warnings, each in the order of files and lines, each once.
    pub(crate) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        (in_order(self.errors), in_order(self.warnings))
    }
}

fn problem(object: &Object, Finding { path, problem, suggestion, cause }: Finding) -> Problem {
    Problem { suggestion, cause, ..object.problem(&path, problem) }
}

fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    let key = |problem: &Problem| {
        let Problem { file, line, column, path, problem, .. } = problem;
        (file.clone(), *line, *column, path.clone(), problem.clone())
    };
    problems.sort_by_cached_key(key);
    problems.dedup();
    problems
}
