//! What `standalone`, `plan` and `status` have in common: a folder of manifests, and where its state is.

use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_agent::folder::{self, FolderError};
use holdfast_agent::standalone::{Options, settings};
use holdfast_agent::state::{self, State};
use holdfast_plan::{Plan, plan};
use jiff::Timestamp;

use crate::failure::{Failure, Result};

/// A folder of manifests.
#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The folder of manifests, or a manifest file
    pub(crate) dir: PathBuf,
    /// Where volumes that have no folder of their own are [default: DIR/.holdfast/volumes]
    #[arg(long)]
    pub(crate) volumes: Option<PathBuf>,
    /// Where history and events are kept [default: DIR/.holdfast]
    #[arg(long)]
    pub(crate) state: Option<PathBuf>,
    /// The name of this machine, for the pods of a DaemonSet [default: the host name]
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// How many runs may go on at once
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) slots: u16,
}

impl FolderArgs {
    /// Beside the manifests, hidden; for a single file, in its folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| {
            let folder = if self.dir.is_file() { self.dir.parent().unwrap_or(Path::new(".")) } else { &self.dir };
            folder.join(".holdfast")
        })
    }

    pub(crate) fn options(&self) -> Options {
        let state = self.state();
        Options {
            folder: self.dir.clone(),
            volumes: self.volumes.clone().unwrap_or_else(|| state.join("volumes")),
            state,
            node: self.node.clone().unwrap_or_else(|| holdfast_repository::Identity::current().hostname),
            slots: usize::from(self.slots),
            once: false,
            listen: None,
        }
    }

    /// Reads the folder and what is remembered of it, and plans.
    pub(crate) fn plan(&self) -> Result<(Plan, State)> {
        let options = self.options();
        let folder = folder::read(&options.folder, &[&options.state, &options.volumes]).map_err(unreadable)?;
        let state = state::peek(&options.state).map_err(anyhow::Error::from)?;
        let key = state::peek_revision_key(&options.state).unwrap_or_default();
        let now = Timestamp::now();
        Ok((plan(&folder.manifests, &state.observed, &settings(&options, &key, now, now)), state))
    }
}

/// A folder of manifests that cannot be read.
pub(crate) fn unreadable(error: FolderError) -> Failure {
    Failure::new(error).hinting("give the folder that holds the manifests; `holdfast protect` writes one")
}
