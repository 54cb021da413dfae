//! Which repository, and how to open it: flags, or restic's variables.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use holdfast_repository::{
    Compression, Error as RepositoryError, Lock, LockMode, LockOptions, Monitor, OpenOptions, Repository,
};
use holdfast_store::{Access, ErrorKind, Location, RetryPolicy, Store};

use super::password::PasswordArgs;
use crate::failure::{Failure, Result};
use crate::output::interrupt;

/// The repository and how to open it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
pub(crate) struct RepoArgs {
    /// The repository: a folder, s3:https://HOST/BUCKET/PREFIX, or gs:BUCKET:/PREFIX
    #[arg(short, long, global = true, env = "RESTIC_REPOSITORY")]
    repo: Option<String>,
    /// A file that holds the repository's location
    #[arg(long, global = true, value_name = "FILE", env = "RESTIC_REPOSITORY_FILE", conflicts_with = "repo")]
    repository_file: Option<PathBuf>,
    #[command(flatten)]
    password: PasswordArgs,
    /// The key to try first, by the beginning of its id
    #[arg(long, global = true, value_name = "ID", env = "RESTIC_KEY_HINT")]
    key_hint: Option<String>,
    /// Do not lock the repository to read it, as where it cannot be written to
    #[arg(long, global = true)]
    no_lock: bool,
    /// How long to wait for a locked repository, as 5m or 1h
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration, default_value = "0s")]
    retry_lock: Duration,
    /// How hard new data is compressed; restic's fastest and better mean auto and max
    #[arg(long, global = true, value_name = "MODE", value_enum, default_value = "auto", env = "RESTIC_COMPRESSION")]
    compression: CompressionArg,
    /// The size of packs, in MiB
    #[arg(long, global = true, value_name = "MIB", env = "RESTIC_PACK_SIZE", default_value = "16", value_parser = clap::value_parser!(u32).range(4..=128))]
    pack_size: u32,
    /// A file of certificates (PEM) to trust beside those of the system
    #[arg(long, global = true, value_name = "FILE", env = "RESTIC_CACERT")]
    cacert: Option<PathBuf>,
    /// Nothing: there is no cache
    #[arg(long, global = true, hide = true)]
    no_cache: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CompressionArg {
    Off,
    #[value(alias = "fastest")]
    Auto,
    #[value(alias = "better")]
    Max,
}

fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}; write it as 30s, 5m or 1h"))?;
    Duration::try_from(span).map_err(|_| "a duration cannot be negative".into())
}

impl RepoArgs {
    /// Opens the repository.
    pub(crate) fn open(&self) -> Result<Arc<Repository>> {
        self.open_knowing(|password| password.existing("the repository"))
    }

    /// As [`Self::open`] where standard input holds data, not a password.
    pub(crate) fn open_without_stdin(&self) -> Result<Arc<Repository>> {
        self.open_knowing(PasswordArgs::without_stdin)
    }

    fn open_knowing(&self, password: impl FnOnce(&PasswordArgs) -> Result<String>) -> Result<Arc<Repository>> {
        open(self.location()?, &self.access()?, || password(&self.password), self.open_options())
    }

    /// The storage of a repository to be, made if it is missing, and the password for it.
    pub(crate) fn prepare(&self) -> Result<(Arc<dyn Store>, String)> {
        let location = self.location()?;
        let access = self.access()?;
        let password = self.password.new_one("the new repository")?;
        Ok((Arc::from(location.create(&access)?), password))
    }

    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions {
            compression: match self.compression {
                CompressionArg::Off => Compression::Off,
                CompressionArg::Auto => Compression::Auto,
                CompressionArg::Max => Compression::Max,
            },
            pack_bytes: (self.pack_size as usize) << 20,
            key_hint: self.key_hint.clone(),
            ..OpenOptions::default()
        }
    }

    pub(crate) fn lock_options(&self) -> LockOptions {
        LockOptions { wait: self.retry_lock, ..LockOptions::default() }
    }

    /// The lock of a command that only reads; none with `--no-lock`.
    pub(crate) fn read_lock_options(&self) -> Option<LockOptions> {
        (!self.no_lock).then(|| self.lock_options())
    }

    /// Locks the repository for reading, unless that is not wanted.
    pub(crate) fn lock_to_read(&self, repository: &Arc<Repository>, monitor: &Monitor) -> Result<Option<Lock>> {
        let options = self.read_lock_options();
        Ok(options.map(|options| Lock::acquire(repository, LockMode::Shared, &options, monitor)).transpose()?)
    }

    /// Where the repository is.
    fn location(&self) -> Result<Location> {
        let text = match (&self.repo, &self.repository_file) {
            (Some(repo), _) => repo.clone(),
            (None, Some(path)) => read_text(path, "repository")?.trim().to_owned(),
            (None, None) => {
                return Err(Failure::with_hint(
                    "no repository given",
                    "give it with --repo or --repository-file, or in RESTIC_REPOSITORY",
                ));
            }
        };
        text.parse().map_err(Failure::new)
    }

    pub(crate) fn access(&self) -> Result<Access> {
        let ca_pem = self.cacert.as_ref().map(|path| read(path, "certificate")).transpose()?;
        // A person waits, and may have mistyped the address: some two minutes.
        let retry = RetryPolicy { attempts_max: 10, ..RetryPolicy::default() };
        Ok(Access { ca_pem, cancel: interrupt(), retry, ..Access::default() })
    }
}

/// Opens a repository. The password is asked for only when there is a place to use it.
pub(crate) fn open(
    location: Location,
    access: &Access,
    password: impl FnOnce() -> Result<String>,
    options: OpenOptions,
) -> Result<Arc<Repository>> {
    let store: Arc<dyn Store> = match location.open(access) {
        Ok(store) => Arc::from(store),
        Err(source) if source.kind == ErrorKind::NotFound => {
            return Err(RepositoryError::NoRepository { location: location.to_string(), source }.into());
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Arc::new(Repository::open(store, &password()?, options)?))
}

/// Reads a file that a flag or variable names.
pub(crate) fn read(path: &std::path::Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Failure::with_hint(
            format!("cannot read the {what} file {}: {error}", path.display()),
            "is the path right, and may this user read it?",
        )
    })
}

/// As [`read`], of a text; a byte order mark is no part of it.
pub(crate) fn read_text(path: &std::path::Path, what: &str) -> Result<String> {
    let text = String::from_utf8(read(path, what)?).map_err(|_| {
        Failure::with_hint(format!("the {what} file {} is no text in UTF-8", path.display()), "is it the right file?")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(ToOwned::to_owned).unwrap_or(text))
}
