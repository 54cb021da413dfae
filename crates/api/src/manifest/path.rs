//! Where in an object a field stands: `spec.containers[0].image`,
//! `metadata.annotations[stash.appscode.com/backup]`.

use std::fmt;

/// One step from a node to a child.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// The field of a mapping.
    Key(String),
    /// The item of a list, from 0.
    Index(usize),
}

/// The steps from an object's root to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Path(pub(super) Vec<Step>);

impl Path {
    pub(super) fn push_key(&mut self, key: &str) {
        self.0.push(Step::Key(key.to_owned()));
    }

    pub(super) fn push_index(&mut self, index: usize) {
        self.0.push(Step::Index(index));
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    /// This path with one more key.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.push_key(key);
        path
    }

    /// The last step's key, if it is one.
    pub(super) fn last_key(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// Reads what [`Path`]'s `Display` writes. Any text is some path: what cannot be a step is taken
    /// as a key.
    pub(super) fn parse(text: &str) -> Self {
        let mut path = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((inside, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
                match inside.parse() {
                    Ok(index) => path.push_index(index),
                    Err(_) => path.push_key(inside),
                }
                rest = after.strip_prefix('.').unwrap_or(after);
                continue;
            }
            let end =
                rest.char_indices().find(|(i, c)| *c == '.' || (*c == '[' && *i > 0)).map_or(rest.len(), |(i, _)| i);
            path.push_key(&rest[..end]);
            rest = &rest[end..];
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if key.contains(['.', '/', '[']) => write!(f, "[{key}]")?,
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for text in [
            "spec.containers[0].image",
            "metadata.annotations[stash.appscode.com/backup]",
            "spec.template.metadata.labels[a/b]",
            "items[3].spec.paths[0]",
            "kind",
            "",
        ] {
            assert_eq!(Path::parse(text).to_string(), text);
        }
    }

    #[test]
    fn any_text_is_some_path() {
        for text in ["[", "]", "a[", "a..b", "[]", ".", "a]b", "é[0"] {
            let _ = Path::parse(text);
        }
    }
}
