//! Another repository, to take from: restic's `--from-repo` and what belongs to it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use holdfast_repository::{OpenOptions, Repository};

use super::open::{self, RepoArgs};
use super::password;
use crate::failure::{Failure, Result};

/// The repository to take from. Storage on S3 is asked with the same keys as the other one.
#[derive(Debug, Args)]
#[command(next_help_heading = "The other repository")]
pub(crate) struct FromArgs {
    /// The repository to copy from
    #[arg(long, value_name = "REPO", env = "RESTIC_FROM_REPOSITORY")]
    from_repo: Option<String>,
    /// A file that holds its location
    #[arg(long, value_name = "FILE", env = "RESTIC_FROM_REPOSITORY_FILE", conflicts_with = "from_repo")]
    from_repository_file: Option<PathBuf>,
    /// A file that holds its password
    #[arg(long, value_name = "FILE", env = "RESTIC_FROM_PASSWORD_FILE")]
    from_password_file: Option<PathBuf>,
    /// A command that prints its password [else: RESTIC_FROM_PASSWORD]
    #[arg(long, value_name = "COMMAND", env = "RESTIC_FROM_PASSWORD_COMMAND", conflicts_with = "from_password_file")]
    from_password_command: Option<String>,
    /// Its password is empty
    #[arg(long, conflicts_with_all = ["from_password_file", "from_password_command"])]
    from_insecure_no_password: bool,
    /// Its key to try first, by the beginning of its id
    #[arg(long, value_name = "ID", env = "RESTIC_FROM_KEY_HINT")]
    from_key_hint: Option<String>,
}

impl FromArgs {
    /// Opens it.
    pub(crate) fn open(&self, repo: &RepoArgs) -> Result<Arc<Repository>> {
        let location = match (&self.from_repo, &self.from_repository_file) {
            (Some(from), _) => from.clone(),
            (None, Some(path)) => open::read_text(path, "repository")?.trim().to_owned(),
            (None, None) => {
                return Err(Failure::with_hint(
                    "no repository to copy from",
                    "name it with --from-repo or --from-repository-file, or in RESTIC_FROM_REPOSITORY",
                ));
            }
        };
        let options = OpenOptions { key_hint: self.from_key_hint.clone(), ..OpenOptions::default() };
        open::open(location.parse().map_err(Failure::new)?, &repo.access()?, || self.password(), options)
    }

    fn password(&self) -> Result<String> {
        if self.from_insecure_no_password {
            return Ok(String::new());
        }
        let variable = std::env::var("RESTIC_FROM_PASSWORD").ok();
        let (file, command) = (self.from_password_file.as_deref(), self.from_password_command.as_deref());
        match password::from_file_command_or(file, command, variable)? {
            Some(password) => Ok(password),
            None => password::ask("the repository to copy from", false),
        }
    }
}
