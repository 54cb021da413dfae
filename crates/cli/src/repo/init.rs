//! `repo init`: makes a repository.

use std::path::PathBuf;

use clap::Args;
use holdfast_repository::chunker::Polynomial;
use holdfast_repository::{InitOptions, OpenOptions, Repository};

use super::open::{self, RepoArgs};
use super::password;
use crate::failure::{Failure, Result, code};
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The format's version: 1, 2, latest or stable
    #[arg(long, value_name = "VERSION", default_value = "stable", value_parser = parse_version)]
    repository_version: u32,
    /// Cut files where --from-repo does, so that copies of its data are stored once
    #[arg(long, requires = "from_repo")]
    copy_chunker_params: bool,
    /// The repository to copy the parameters from
    #[arg(long, value_name = "REPO", env = "RESTIC_FROM_REPOSITORY")]
    from_repo: Option<String>,
    /// A file that holds its password
    #[arg(long, value_name = "FILE", env = "RESTIC_FROM_PASSWORD_FILE")]
    from_password_file: Option<PathBuf>,
    /// A command that prints its password [else: RESTIC_FROM_PASSWORD]
    #[arg(
        long,
        value_name = "COMMAND",
        env = "RESTIC_FROM_PASSWORD_COMMAND",
        hide_env_values = true,
        conflicts_with = "from_password_file"
    )]
    from_password_command: Option<String>,
}

fn parse_version(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "2" | "latest" | "stable" => Ok(2),
        _ => Err("expected 1, 2, latest or stable".into()),
    }
}

pub(crate) fn run(repo: &RepoArgs, args: &InitArgs, output: &Output) -> Result<u8> {
    let polynomial = if args.copy_chunker_params { Some(args.polynomial(repo)?) } else { None };
    let (store, password) = repo.prepare()?;
    let init = InitOptions { version: args.repository_version, polynomial, ..InitOptions::default() };
    let repository = Repository::init(store, &password, &init, repo.open_options())?;
    let id = repository.config().id;
    let json = serde_json::json!({"message_type": "initialized", "id": id, "repository": repository.location()});
    output.result(&json, || format!("created repository {} at {}", id.short(), repository.location()))?;
    output.note("Keep the password: without it nobody, not even you, can read what is in the repository.");
    Ok(code::SUCCESS)
}

impl InitArgs {
    /// Where the other repository cuts files.
    fn polynomial(&self, repo: &RepoArgs) -> Result<Polynomial> {
        let Some(from) = &self.from_repo else {
            return Err(Failure::with_hint("no repository to copy from", "name it with --from-repo"));
        };
        let from = from.parse().map_err(Failure::new)?;
        let password = || {
            let variable = std::env::var("RESTIC_FROM_PASSWORD").ok();
            let (file, command) = (self.from_password_file.as_deref(), self.from_password_command.as_deref());
            match password::from_file_command_or(file, command, variable)? {
                Some(password) => Ok(password),
                None => password::ask("the repository to copy from", false),
            }
        };
        let other = open::open(from, &repo.access()?, password, OpenOptions::default())?;
        Ok(other.config().chunker_polynomial)
    }
}
