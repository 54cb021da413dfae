//! `holdfast standalone`: the loop over a folder of manifests of one machine.
//!
//! What is remembered is written before a run starts and after it has ended, so that whenever the program dies, the next
//! one knows what was done and what was not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};

use holdfast_api::manifest::Outcome as Manifests;
use holdfast_plan::{Plan, Settings};
use holdfast_repository::chain;
use jiff::Timestamp;

use crate::folder::{self, Folder, FolderError, Watch};
use crate::follow::{Message, PLAN_EVERY, Tell, follow};
use crate::journal::{self, Event};
use crate::state::{RevisionKey, State, StateError, StateFolder};
use crate::world::World;

pub use crate::follow::{FollowError, Notice, Summary};

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of manifests, or one manifest file.
    pub folder: PathBuf,
    /// Where state and events are kept.
    pub state: PathBuf,
    /// Where volumes without a folder of their own are.
    pub volumes: PathBuf,
    /// The name of this machine, for the pods of a DaemonSet.
    pub node: String,
    /// How many runs may go on at once.
    pub slots: usize,
    /// Do what is due, and end.
    pub once: bool,
    /// Where to serve metrics and status; none: nowhere.
    pub listen: Option<SocketAddr>,
}

/// Why the program could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// The folder, at the start.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The loop.
    #[error(transparent)]
    Follow(#[from] FollowError),
}

/// The types of stores that can be opened.
pub(crate) const STORES: [&str; 3] = ["local", "s3", "gcs"];

/// The settings of the planner for a folder.
pub fn settings(options: &Options, revision_key: &RevisionKey, started: Timestamp, now: Timestamp) -> Settings {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let mut settings = Settings::new(now, absolute(Path::new(".")), absolute(&options.volumes), options.node.clone());
    settings.started = started;
    settings.slots = options.slots;
    settings.revision_key = revision_key.clone();
    settings.stores = STORES.map(str::to_owned).into();
    settings
}

/// Runs until everything due is done (`once`) or `stop` is raised.
pub fn run(options: &Options, stop: &AtomicBool, tell: &mut dyn FnMut(Notice<'_>)) -> Result<Summary, StandaloneError> {
    let folder = read(options)?;
    let state_folder = StateFolder::open(&options.state)?;
    let mut state = match state_folder.load() {
        Err(error @ StateError::Damaged { .. }) => {
            tell(Notice::Note(format!("{}; history starts afresh", chain(&error))));
            State::default()
        }
        result => result?,
    };
    state.take_back_all();
    let revision_key = state_folder.revision_key()?;
    // Fails now rather than after the first run, if it ever will.
    state_folder.save(&state)?;
    let (messages, inbox) = mpsc::channel();
    let mut machine = Machine {
        options,
        state_folder,
        revision_key,
        folder,
        watch: None,
        messages: messages.clone(),
        started: Timestamp::now(),
        unreadable: None,
    };
    machine.watch(tell);
    Ok(follow(&mut machine, state, options.listen, (messages, inbox), stop, tell)?)
}

fn read(options: &Options) -> Result<Folder, FolderError> {
    folder::read(&options.folder, &[&options.state, &options.volumes])
}

/// A machine and its folder of manifests.
struct Machine<'a> {
    options: &'a Options,
    state_folder: StateFolder,
    revision_key: RevisionKey,
    folder: Folder,
    /// None: changes are looked for every now and then.
    watch: Option<Watch>,
    messages: mpsc::Sender<Message>,
    started: Timestamp,
    /// Why the folder could not be read when it was last tried.
    unreadable: Option<String>,
}

impl Machine<'_> {
    /// Watches what the folder consists of now, and reads it again where that has just changed.
    fn watch(&mut self, tell: Tell<'_>) {
        while !self.options.once && !self.watch.as_ref().is_some_and(|watch| watch.covers(&self.folder)) {
            let messages = self.messages.clone();
            match Watch::start(&self.folder, move || _ = messages.send(Message::Changed)) {
                Ok(watch) => self.watch = Some(watch),
                Err(error) => {
                    self.watch = None;
                    let every = PLAN_EVERY.as_secs();
                    tell(Notice::Note(format!("changes of the folder are looked for every {every} s only: {error}")));
                    return;
                }
            }
            // What changed before it was watched.
            match read(self.options) {
                Ok(folder) => self.folder = folder,
                Err(error) => return self.is_unreadable(&error, tell),
            }
        }
    }

    fn is_unreadable(&mut self, error: &FolderError, tell: Tell<'_>) {
        let text = format!("the folder of manifests cannot be read: {}", chain(error));
        if self.unreadable.as_ref() != Some(&text) {
            tell(Notice::Unreadable(error));
            self.unreadable = Some(text);
        }
    }
}

impl World for Machine<'_> {
    fn manifests(&self) -> &Arc<Manifests> {
        &self.folder.manifests
    }

    fn settings(&self, now: Timestamp) -> Settings {
        settings(self.options, &self.revision_key, self.started, now)
    }

    fn volumes(&self) -> PathBuf {
        std::path::absolute(&self.options.volumes).unwrap_or_else(|_| self.options.volumes.clone())
    }

    fn read_again(&mut self, tell: Tell<'_>) -> bool {
        match read(self.options) {
            Ok(folder) => {
                let news = !folder.is_same(&self.folder);
                self.folder = folder;
                self.unreadable = None;
                self.watch(tell);
                news
            }
            Err(error) => {
                self.is_unreadable(&error, tell);
                false
            }
        }
    }

    fn is_to_be_asked(&self) -> bool {
        self.unreadable.is_some() || (self.watch.is_none() && !self.options.once)
    }

    fn trouble(&self) -> Option<String> {
        self.unreadable.clone()
    }

    fn is_done(&mut self, _plan: &Plan, _state: &State, _summary: &Summary) -> bool {
        self.options.once
    }

    fn save(&mut self, state: &State) -> Result<(), String> {
        self.state_folder.save(state).map_err(|error| chain(&error))
    }

    fn report(&mut self, event: &Event) -> Result<(), String> {
        let path = self.state_folder.path().join("events.jsonl");
        journal::append(&path, event).map_err(|error| format!("cannot write the event log {}: {error}", path.display()))
    }
}
