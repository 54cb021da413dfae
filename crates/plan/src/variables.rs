//! Variables in the prefix of a `BackupTemplate`: `${metadata.namespace}/${metadata.name}` of seed 001, and
//! `${TARGET_NAMESPACE}/${TARGET_KIND}/${TARGET_NAME}`, the names its users know from later releases.
//!
//! Values are put in as data, once: a value that looks like a variable is not expanded again, and `$` without
//! `{` stands for itself. It never reads the environment.

use crate::key::Target;

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// `${x}` names nothing we know.
    #[error("unknown variable `${{{0}}}`; known are {known}", known = KNOWN.map(|name| format!("`${{{name}}}`")).join(", "))]
    Unknown(String),
    /// A `${` without its `}`.
    #[error("`${{` without a closing `}}` in `{0}`")]
    Unclosed(String),
}

const KNOWN: [&str; 6] =
    ["metadata.namespace", "metadata.name", "metadata.kind", "TARGET_NAMESPACE", "TARGET_KIND", "TARGET_NAME"];

/// Expands every `${variable}` in `template` for the workload `target`. Kinds are written in lower case, as
/// in every repository path.
pub(crate) fn expand(template: &str, target: &Target) -> Result<String, TemplateError> {
    let mut expanded = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("${") {
        let (before, after) = rest.split_at(start);
        expanded.push_str(before);
        let Some((name, tail)) = after[2..].split_once('}') else {
            return Err(TemplateError::Unclosed(template.to_owned()));
        };
        match name.trim() {
            "metadata.namespace" | "TARGET_NAMESPACE" => expanded.push_str(&target.namespace),
            "metadata.name" | "TARGET_NAME" => expanded.push_str(&target.name),
            "metadata.kind" | "TARGET_KIND" => expanded.push_str(&target.kind.path_segment()),
            unknown => return Err(TemplateError::Unknown(unknown.to_owned())),
        }
        rest = tail;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::TargetKind;

    fn check(template: &str, expected: Result<&str, TemplateError>) {
        let target = Target::new(TargetKind::Deployment, "demo", "stash-demo");
        assert_eq!(expand(template, &target), expected.map(str::to_owned), "{template}");
    }

    #[test]
    fn variables_are_replaced_once() {
        check("${metadata.namespace}/${metadata.name}", Ok("demo/stash-demo"));
        check("a/${TARGET_NAMESPACE}/${TARGET_KIND}/${TARGET_NAME}/z", Ok("a/demo/deployment/stash-demo/z"));
        check("plain $5 {x}", Ok("plain $5 {x}"));
        check("", Ok(""));
    }

    #[test]
    fn a_value_is_never_expanded_again() {
        let target = Target::new(TargetKind::Pod, "${metadata.name}", "x");
        assert_eq!(expand("${metadata.namespace}", &target).as_deref(), Ok("${metadata.name}"));
    }

    #[test]
    fn unknown_and_unclosed_variables_are_errors() {
        check("${HOME}", Err(TemplateError::Unknown("HOME".to_owned())));
        check("a${metadata.name", Err(TemplateError::Unclosed("a${metadata.name".to_owned())));
        assert!(TemplateError::Unknown("HOME".to_owned()).to_string().contains("`${TARGET_NAME}`"));
    }
}
