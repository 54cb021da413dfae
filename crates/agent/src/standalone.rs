//! `holdfast standalone`: observe the folder, plan, start what is due, remember how it ended; and again.
//!
//! One thread decides; each run has a thread of its own and reports back when it has ended. What is
//! remembered is written before a run starts and after it has ended, so that whenever the program dies, the next
//! one knows what was done and what was not. Where it cannot be written, the program says so and goes on: a full disk of
//! the program must not stop backups to another.

mod ended;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use holdfast_plan::{ObjectKey, Plan, PlannedBackup, PlannedRecovery, PlannedRepository, Settings, plan};
use holdfast_repository::Monitor;
use jiff::Timestamp;

use crate::folder::{self, Folder, FolderError, Watch};
use crate::http::{Page, Server};
use crate::journal::Event;
use crate::open::IfMissing;
use crate::state::{Run, State, StateError, StateFolder};
use crate::status::Status;
use crate::work::{self, Ended, chain};

/// How often the loop looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a change of the folder is waited out: an editor writes more than once.
const SETTLE: Duration = Duration::from_millis(300);
/// How long runs are given to end when the program is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(9);
/// Clocks are set, and machines sleep: the plan is made anew at least this often.
const PLAN_EVERY: Duration = Duration::from_secs(60);

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

/// What a person may want to read.
pub enum Notice<'a> {
    /// The folder was read and planned, for the first time or after a change.
    Planned(&'a Plan),
    /// The folder cannot be read; what was read before goes on.
    Unreadable(&'a FolderError),
    /// Metrics and status are served there.
    Serving(SocketAddr),
    /// A run begins.
    Started {
        /// The plan's id.
        id: &'a str,
        /// The object.
        object: &'a ObjectKey,
        /// What it reports to: its counters tell how far it is.
        monitor: &'a Monitor,
    },
    /// A run ended.
    Ended {
        /// The plan's id.
        id: &'a str,
        /// The object.
        object: &'a ObjectKey,
        /// How.
        run: &'a Run,
        /// The repository, as restic would open it.
        repository: &'a str,
    },
    /// Nothing is to be done until then, or until something changes.
    Waiting(Option<Timestamp>),
    /// A run was stopped before its end, and is due again at the next start.
    Stopped {
        /// The plan's id.
        id: &'a str,
        /// The object.
        object: &'a ObjectKey,
    },
    /// A warning of the event log that is not the end of a run: retention or a check failed.
    Warning(&'a Event),
    /// Something that is no failure.
    Note(String),
    /// Something failed that leaves everything else running.
    Trouble(String),
}

/// How it went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs that succeeded.
    pub succeeded: u64,
    /// Runs that saved or restored a part.
    pub incomplete: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Retentions and checks that failed, and other trouble outside of runs.
    pub warnings: u64,
    /// Mistakes in the manifests.
    pub errors: usize,
    /// Whether nothing at all is protected or recovered.
    pub nothing: bool,
    /// Whether it was told to stop.
    pub interrupted: bool,
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
    /// The address is taken, or not ours.
    #[error("cannot serve metrics and status at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

enum Message {
    Changed,
    Note(ObjectKey, String),
    Ended(Box<Ended>),
}

/// A run under way.
struct Running {
    object: ObjectKey,
    monitor: Monitor,
    deadline: Option<Instant>,
    timed_out: bool,
    start: Timestamp,
    triggers: Vec<String>,
    task: Task,
}

#[derive(Clone)]
pub(crate) enum Task {
    Backup {
        planned: PlannedBackup,
        repository: PlannedRepository,
        if_missing: IfMissing,
        last_check: Option<Timestamp>,
    },
    Recovery {
        planned: PlannedRecovery,
        repository: PlannedRepository,
    },
}

/// The settings of the planner for a folder.
pub fn settings(options: &Options, started: Timestamp, now: Timestamp) -> Settings {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let mut settings = Settings::new(now, absolute(Path::new(".")), absolute(&options.volumes), options.node.clone());
    settings.started = started;
    settings.slots = options.slots;
    settings.stores = ["local", "s3"].map(str::to_owned).into();
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
    // Fails now rather than after the first run, if it ever will.
    state_folder.save(&state)?;
    let page = Arc::new(Mutex::new(Page::default()));
    let server = match options.listen {
        Some(address) => Some(
            Server::start(address, Arc::clone(&page)).map_err(|source| StandaloneError::Listen { address, source })?,
        ),
        None => None,
    };
    let (messages, inbox) = mpsc::channel();
    let mut standalone = Standalone {
        options,
        state_folder,
        state,
        folder,
        watch: None,
        page,
        messages,
        started: Timestamp::now(),
        running: BTreeMap::new(),
        summary: Summary::default(),
        waiting: None,
        unreadable: None,
        unsaved: None,
    };
    standalone.watch(tell);
    if let Some(server) = &server {
        standalone.publish(&standalone.plan());
        tell(Notice::Serving(server.address()));
    }
    standalone.follow(&inbox, stop, tell)?;
    drop(server);
    Ok(standalone.summary)
}

fn read(options: &Options) -> Result<Folder, FolderError> {
    folder::read(&options.folder, &[&options.state, &options.volumes])
}

struct Standalone<'a> {
    options: &'a Options,
    state_folder: StateFolder,
    state: State,
    folder: Folder,
    /// None: changes are looked for every now and then.
    watch: Option<Watch>,
    page: Arc<Mutex<Page>>,
    messages: mpsc::Sender<Message>,
    started: Timestamp,
    running: BTreeMap<String, Running>,
    summary: Summary,
    /// What was last said about waiting, so that it is not said again.
    waiting: Option<Option<Timestamp>>,
    /// Why the folder could not be read when it was last tried.
    unreadable: Option<String>,
    /// Why the state could not be saved when it was last tried.
    unsaved: Option<String>,
}

type Tell<'t> = &'t mut dyn FnMut(Notice<'_>);

impl Standalone<'_> {
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

    fn follow(
        &mut self,
        inbox: &mpsc::Receiver<Message>,
        stop: &AtomicBool,
        tell: Tell<'_>,
    ) -> Result<(), StandaloneError> {
        let mut announce = true;
        loop {
            let plan = self.plan();
            self.note_first_seen(&plan, tell);
            if std::mem::take(&mut announce) {
                self.summary.errors = plan.errors.len();
                self.summary.nothing = plan.backups.is_empty() && plan.recoveries.is_empty();
                tell(Notice::Planned(&plan));
            }
            self.start_due(&plan, tell)?;
            // Started runs change what is due next.
            let plan = self.plan();
            self.publish(&plan);
            let idle = self.running.is_empty();
            if self.options.once && idle {
                return Ok(());
            }
            if idle && self.waiting != Some(plan.next) {
                self.waiting = Some(plan.next);
                tell(Notice::Waiting(plan.next));
            }
            match self.wait(inbox, plan.next, stop) {
                Woken::Stop => {
                    self.summary.interrupted = true;
                    self.stop_all(inbox, tell);
                    return Ok(());
                }
                Woken::Message(Message::Changed) => {
                    // Whatever else comes while the change settles is handled next.
                    let settled = Instant::now() + SETTLE;
                    while let Ok(message) = inbox.recv_timeout(settled.saturating_duration_since(Instant::now())) {
                        self.hear(message, tell);
                    }
                    announce = self.read_again(tell);
                }
                Woken::Message(message) => self.hear(message, tell),
                Woken::Late if self.unreadable.is_some() || (self.watch.is_none() && !self.options.once) => {
                    announce = self.read_again(tell);
                }
                Woken::Late | Woken::Due => {}
            }
        }
    }

    fn hear(&mut self, message: Message, tell: Tell<'_>) {
        match message {
            Message::Changed => {}
            Message::Note(object, note) => tell(Notice::Note(format!("{object}: {note}"))),
            Message::Ended(ended) => self.ended(*ended, tell),
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.folder.manifests, &self.state.observed, &settings(self.options, self.started, Timestamp::now()))
    }

    /// Schedules of what has never run count from when it was first seen, also over restarts.
    fn note_first_seen(&mut self, plan: &Plan, tell: Tell<'_>) {
        let now = Timestamp::now();
        let mut news = false;
        for planned in &plan.backups {
            let history = self.state.observed.backups.entry(planned.id.clone()).or_default();
            news |= history.first_seen.is_none();
            history.first_seen.get_or_insert(now);
        }
        if news {
            self.save(tell);
        }
    }

    fn save(&mut self, tell: Tell<'_>) {
        let unsaved = self.state_folder.save(&self.state).err().map(|error| chain(&error));
        if self.unsaved != unsaved {
            if let Some(error) = &unsaved {
                self.summary.warnings += 1;
                tell(Notice::Trouble(format!("{error}; what is done meanwhile may be done again after a restart")));
            }
            self.unsaved = unsaved;
        }
    }

    /// Whether there is something new in it.
    fn read_again(&mut self, tell: Tell<'_>) -> bool {
        match read(self.options) {
            Ok(folder) => {
                let news = !folder.is_same(&self.folder);
                self.folder = folder;
                self.unreadable = None;
                self.watch(tell);
                self.waiting = self.waiting.take().filter(|_| !news);
                news
            }
            Err(error) => {
                self.is_unreadable(&error, tell);
                false
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

    fn start_due(&mut self, plan: &Plan, tell: Tell<'_>) -> Result<(), StandaloneError> {
        for due in plan.due.iter().filter(|due| due.waits_for.is_none()) {
            let repository = |id: &str| plan.repositories.iter().find(|repository| repository.id == id).cloned();
            let task = if let Some(planned) = plan.backups.iter().find(|backup| backup.id == due.id) {
                repository(&planned.repository).map(|repository| {
                    let known = self.state.repositories.get(&repository.id);
                    let last_check = known.and_then(|known| known.last_check);
                    let was_there =
                        known.is_some_and(|known| known.last_location.as_ref() == Some(&repository.location));
                    let if_missing = if was_there { IfMissing::Fail } else { IfMissing::Init };
                    let time_out = planned.time_out.map(|limit| limit.as_std());
                    (
                        planned.object.clone(),
                        time_out,
                        Task::Backup { planned: planned.clone(), repository, if_missing, last_check },
                    )
                })
            } else if let Some(planned) = plan.recoveries.iter().find(|recovery| recovery.id == due.id) {
                repository(&planned.repository).map(|repository| {
                    let time_out = planned.time_out.map(|limit| limit.as_std());
                    (planned.object.clone(), time_out, Task::Recovery { planned: planned.clone(), repository })
                })
            } else {
                None
            };
            if let Some((object, time_out, task)) = task {
                self.start(&due.id, object, time_out, task, due.triggers.clone(), tell)?;
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        id: &str,
        object: ObjectKey,
        time_out: Option<Duration>,
        task: Task,
        triggers: Vec<String>,
        tell: Tell<'_>,
    ) -> Result<(), StandaloneError> {
        let start = Timestamp::now();
        match &task {
            Task::Backup { repository, .. } => self.state.begin_backup(id, &repository.location, start),
            Task::Recovery { planned, repository } => {
                self.state.begin_recovery(id, &planned.occasion, &repository.location, start);
            }
        }
        self.save(tell);
        let heard = Arc::default();
        let (messages, noted) = (self.messages.clone(), object.clone());
        let monitor =
            work::monitor(&heard, move |note| _ = messages.send(Message::Note(noted.clone(), note.to_owned())));
        tell(Notice::Started { id, object: &object, monitor: &monitor });
        let job = work::Job {
            id: id.to_owned(),
            task: task.clone(),
            manifests: Arc::clone(&self.folder.manifests),
            volumes: std::path::absolute(&self.options.volumes).unwrap_or_else(|_| self.options.volumes.clone()),
            monitor: monitor.clone(),
            heard,
        };
        let messages = self.messages.clone();
        std::thread::Builder::new()
            .name("run".into())
            .spawn(move || _ = messages.send(Message::Ended(Box::new(job.run()))))
            .map_err(StandaloneError::Thread)?;
        let deadline = time_out.map(|limit| Instant::now() + limit);
        self.running
            .insert(id.to_owned(), Running { object, monitor, deadline, timed_out: false, start, triggers, task });
        self.waiting = None;
        Ok(())
    }

    fn publish(&self, plan: &Plan) {
        let running: BTreeSet<String> = self.running.keys().cloned().collect();
        let status = Status::new(plan, &self.state, &running, Timestamp::now());
        let page = Page {
            metrics: status.metrics(&self.state),
            status: serde_json::to_string(&status).unwrap_or_default(),
            trouble: self.unreadable.clone().or_else(|| self.unsaved.clone()),
        };
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = page;
    }

    fn wait(&mut self, inbox: &mpsc::Receiver<Message>, next: Option<Timestamp>, stop: &AtomicBool) -> Woken {
        let latest = Instant::now() + PLAN_EVERY;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Woken::Stop;
            }
            self.stop_late_runs();
            if Instant::now() >= latest {
                return Woken::Late;
            }
            if next.is_some_and(|next| next <= Timestamp::now()) {
                return Woken::Due;
            }
            if let Ok(message) = inbox.recv_timeout(LOOK_EVERY) {
                return Woken::Message(message);
            }
        }
    }

    fn stop_late_runs(&mut self) {
        for running in self.running.values_mut() {
            if running.deadline.is_some_and(|deadline| deadline <= Instant::now()) && !running.timed_out {
                running.timed_out = true;
                running.monitor.interrupt();
            }
        }
    }

    /// Interrupts all runs and waits for them to give back their locks.
    fn stop_all(&mut self, inbox: &mpsc::Receiver<Message>, tell: Tell<'_>) {
        self.running.values().for_each(|running| running.monitor.interrupt());
        let end = Instant::now() + STOP_WITHIN;
        while !self.running.is_empty() {
            match inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => self.hear(message, tell),
                Err(_) => {
                    let names: Vec<String> = self.running.values().map(|run| run.object.to_string()).collect();
                    self.summary.warnings += 1;
                    tell(Notice::Trouble(format!(
                        "did not stop within {} s: {}; due again at the next start, which removes a lock that is left",
                        STOP_WITHIN.as_secs(),
                        names.join(", ")
                    )));
                    break;
                }
            }
        }
        self.state.take_back_all();
        self.save(tell);
    }
}

enum Woken {
    /// The program is to stop.
    Stop,
    /// Something happened.
    Message(Message),
    /// Something is due.
    Due,
    /// Nothing happened for long.
    Late,
}
