//! Patterns of paths from flags and from files.

use std::path::PathBuf;

use holdfast_repository::pattern::{Case, PatternList, parse_file};

use super::open::read;
use crate::failure::{Failure, Result};

/// The patterns given, then those of the files, in which `$NAME` stands for a variable of the environment.
pub(crate) fn collect(given: &[String], files: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let mut patterns: Vec<Vec<u8>> = given.iter().map(|pattern| pattern.clone().into_bytes()).collect();
    for file in files {
        patterns.extend(parse_file(&read(file, "pattern")?, &|name| std::env::var(name).ok()));
    }
    Ok(patterns)
}

/// The patterns as a list that can match.
pub(crate) fn list(patterns: &[Vec<u8>], case: Case) -> Result<PatternList> {
    PatternList::new(patterns, case)
        .map_err(|error| Failure::new(error).hinting("a backslash takes a character literally"))
}
