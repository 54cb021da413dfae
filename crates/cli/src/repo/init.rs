//! `repo init`: makes a repository.

use clap::Args;
use holdfast_repository::{InitOptions, Repository};

use super::from_repo::FromArgs;
use super::open::RepoArgs;
use crate::failure::{Result, code};
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The format's version: 1, 2, latest or stable
    #[arg(long, value_name = "VERSION", default_value = "stable", value_parser = parse_version)]
    repository_version: u32,
    /// Cut files where --from-repo does, so that copies of its data are stored once
    #[arg(long)]
    copy_chunker_params: bool,
    #[command(flatten)]
    from: FromArgs,
}

fn parse_version(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "2" | "latest" | "stable" => Ok(2),
        _ => Err("expected 1, 2, latest or stable".into()),
    }
}

pub(crate) fn run(repo: &RepoArgs, args: &InitArgs, output: &Output) -> Result<u8> {
    let polynomial = match args.copy_chunker_params {
        true => Some(args.from.open(repo)?.config().chunker_polynomial),
        false => None,
    };
    let (store, password) = repo.prepare()?;
    let init = InitOptions { version: args.repository_version, polynomial, ..InitOptions::default() };
    let repository = Repository::init(store, &password, &init, repo.open_options())?;
    let id = repository.config().id;
    let json = serde_json::json!({"message_type": "initialized", "id": id, "repository": repository.location()});
    output.result(&json, || format!("created repository {} at {}", id.short(), repository.location()))?;
    output.note("Keep the password: without it nobody, not even you, can read what is in the repository.");
    Ok(code::SUCCESS)
}
