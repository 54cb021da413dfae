//! `repo key`: the passwords of a repository.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use holdfast_repository::format::FileKind;
use holdfast_repository::format::time::Timestamp;
use holdfast_repository::{Lock, LockMode, Monitor, Repository};
use serde_json::json;

use super::open::RepoArgs;
use super::password;
use super::snapshots::local_time;
use crate::failure::{Failure, Result, code};
use crate::output::Output;
use crate::table::{render, table};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// List keys; each opens the repository with its password
    List,
    /// Add a key for another password
    Add(NewPasswordArgs),
    /// Remove a key
    Remove {
        /// The key, by the beginning of its id
        id: String,
    },
    /// Change the password: add a key for the new one and remove the one in use
    Passwd(NewPasswordArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewPasswordArgs {
    /// A file that holds the new password
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Let the new password be empty: whoever can read the repository's files can read what is in them
    #[arg(long, conflicts_with = "new_password_file")]
    new_insecure_no_password: bool,
}

impl NewPasswordArgs {
    fn password(&self) -> Result<String> {
        if self.new_insecure_no_password {
            return Ok(String::new());
        }
        match password::from_file_command_or(self.new_password_file.as_deref(), None, None)? {
            Some(password) => Ok(password),
            None => password::ask("the repository from now on", true)
                .map_err(|failure| failure.hinting("give the new password with --new-password-file")),
        }
    }
}

pub(crate) fn run(repo: &RepoArgs, action: KeyAction, output: &Output) -> Result<u8> {
    let repository = repo.open()?;
    let monitor = output.monitor();
    let lock = |mode| Lock::acquire(&repository, mode, &repo.lock_options(), &monitor);
    match action {
        KeyAction::List => list(repo, &repository, &monitor, output)?,
        KeyAction::Add(args) => {
            let password = args.password()?;
            let _lock = lock(LockMode::Shared)?;
            let id = repository.add_key(&password)?;
            output.result(&json!({"message_type": "added", "id": id}), || format!("saved new key {}", id.short()))?;
        }
        KeyAction::Remove { id } => {
            let lock = lock(LockMode::Exclusive)?;
            let id = repository
                .find_id(FileKind::Key, &id)
                .map_err(|error| Failure::from(error).hinting("`holdfast repo key list` shows the keys there are"))?;
            repository.remove_key(&lock, &id).map_err(|error| {
                Failure::from(error).hinting("open the repository with another password to remove this key")
            })?;
            output.result(&json!({"message_type": "removed", "id": id}), || format!("removed key {}", id.short()))?;
        }
        KeyAction::Passwd(args) => {
            let password = args.password()?;
            let lock = lock(LockMode::Exclusive)?;
            let id = repository.change_password(&lock, &password)?;
            let json = json!({"message_type": "changed", "id": id});
            output
                .result(&json, || format!("changed the password: saved new key {}, removed the old one", id.short()))?;
        }
    }
    Ok(code::SUCCESS)
}

fn list(repo: &RepoArgs, repository: &Arc<Repository>, monitor: &Monitor, output: &Output) -> Result<()> {
    let lock = repo.lock_to_read(repository, monitor)?;
    let keys = repository.keys()?;
    drop(lock);
    let created = |time: jiff::Timestamp| local_time(Timestamp::from(time));
    let json: Vec<_> = keys
        .iter()
        .map(|key| {
            json!({
                "current": key.current,
                "id": key.id,
                "userName": key.username,
                "hostName": key.hostname,
                "created": created(key.created),
            })
        })
        .collect();
    output.result(&json, || {
        let mut table = table(&["", "ID", "User", "Host", "Created"]);
        for key in &keys {
            let mark = if key.current { "*" } else { "" };
            table.add_row(vec![
                mark.into(),
                key.id.short().to_string(),
                key.username.clone(),
                key.hostname.clone(),
                created(key.created),
            ]);
        }
        render(table)
    })
}
