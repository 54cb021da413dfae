//! `holdfast standalone`: observe the folder, plan, start what is due, remember how it ended; and again.
//!
//! One thread decides; each run has a thread of its own and reports back when it has ended. What is
//! remembered is written before a run starts and after it has ended, so that whenever the program dies, the next
//! one knows what was done and what was not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use holdfast_api::manifest::Outcome as Manifests;
use holdfast_plan::{ObjectKey, Plan, PlannedBackup, PlannedRecovery, PlannedRepository, Settings, plan};
use holdfast_repository::Monitor;
use jiff::Timestamp;

use crate::folder::{self, FolderError, Watch};
use crate::http::{Page, Server};
use crate::journal::{self, Event, Reason};
use crate::state::{Outcome, RepositoryState, Run, State, StateError, StateFolder};
use crate::status::Status;
use crate::work::{self, Ended};

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
    /// Something that is no failure, or one that leaves everything else running.
    Note(String),
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
    /// Mistakes in the manifests.
    pub errors: usize,
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
    Backup { planned: PlannedBackup, repository: PlannedRepository, last_check: Option<Timestamp> },
    Recovery { planned: PlannedRecovery, repository: PlannedRepository },
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
    let manifests = Arc::new(folder::read(&options.folder)?);
    let state_folder = StateFolder::open(&options.state)?;
    let mut state = match state_folder.load() {
        Err(error @ StateError::Damaged { .. }) => {
            tell(Notice::Note(format!("{error}")));
            State::default()
        }
        result => result?,
    };
    state.take_back_all();
    let page = Arc::new(Mutex::new(Page::default()));
    let server = match options.listen {
        Some(address) => Some(
            Server::start(address, Arc::clone(&page)).map_err(|source| StandaloneError::Listen { address, source })?,
        ),
        None => None,
    };
    if let Some(server) = &server {
        tell(Notice::Serving(server.address()));
    }
    let (messages, inbox) = mpsc::channel();
    let started = Timestamp::now();
    let mut standalone = Standalone {
        options,
        state_folder,
        state,
        manifests,
        page,
        messages,
        started,
        running: BTreeMap::new(),
        summary: Summary::default(),
        waiting: None,
        trouble: None,
    };
    let _watch = if options.once { None } else { standalone.watch(tell) };
    standalone.follow(&inbox, stop, tell)?;
    drop(server);
    Ok(standalone.summary)
}

struct Standalone<'a> {
    options: &'a Options,
    state_folder: StateFolder,
    state: State,
    manifests: Arc<Manifests>,
    page: Arc<Mutex<Page>>,
    messages: mpsc::Sender<Message>,
    started: Timestamp,
    running: BTreeMap<String, Running>,
    summary: Summary,
    /// What was last said about waiting, so that it is not said again.
    waiting: Option<Option<Timestamp>>,
    trouble: Option<String>,
}

type Tell<'t> = &'t mut dyn FnMut(Notice<'_>);

impl Standalone<'_> {
    fn watch(&self, tell: Tell<'_>) -> Option<Watch> {
        let messages = self.messages.clone();
        match Watch::start(&self.options.folder, move || _ = messages.send(Message::Changed)) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tell(Notice::Note(format!("changes of the folder are not noticed, restart after them: {error}")));
                None
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
            self.note_first_seen(&plan)?;
            if std::mem::take(&mut announce) {
                self.summary.errors = plan.errors.len();
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
                    return self.stop_all(inbox, tell);
                }
                Woken::Ended(ended) => self.ended(*ended, tell)?,
                Woken::Changed => {
                    // Whatever else comes while the change settles is handled next.
                    let settled = Instant::now() + SETTLE;
                    while let Ok(message) = inbox.recv_timeout(settled.saturating_duration_since(Instant::now())) {
                        if let Message::Ended(ended) = message {
                            self.ended(*ended, tell)?;
                        }
                    }
                    announce = self.read_again(tell);
                }
                Woken::Time => {}
            }
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.manifests, &self.state.observed, &settings(self.options, self.started, Timestamp::now()))
    }

    /// Schedules of what has never run count from when it was first seen, also over restarts.
    fn note_first_seen(&mut self, plan: &Plan) -> Result<(), StandaloneError> {
        let now = Timestamp::now();
        let mut news = false;
        for planned in &plan.backups {
            let history = self.state.observed.backups.entry(planned.id.clone()).or_default();
            news |= history.first_seen.is_none();
            history.first_seen.get_or_insert(now);
        }
        if news {
            self.state_folder.save(&self.state)?;
        }
        Ok(())
    }

    fn read_again(&mut self, tell: Tell<'_>) -> bool {
        match folder::read(&self.options.folder) {
            Ok(manifests) => {
                self.manifests = Arc::new(manifests);
                self.trouble = None;
                self.waiting = None;
                true
            }
            Err(error) => {
                self.trouble = Some(format!("the folder of manifests cannot be read: {error}"));
                tell(Notice::Unreadable(&error));
                false
            }
        }
    }

    fn start_due(&mut self, plan: &Plan, tell: Tell<'_>) -> Result<(), StandaloneError> {
        for due in plan.due.iter().filter(|due| due.waits_for.is_none()) {
            let repository = |id: &str| plan.repositories.iter().find(|repository| repository.id == id).cloned();
            let task = if let Some(planned) = plan.backups.iter().find(|backup| backup.id == due.id) {
                repository(&planned.repository).map(|repository| {
                    let last_check = self.state.repositories.get(&repository.id).and_then(|known| known.last_check);
                    let time_out = planned.time_out.map(|limit| limit.as_std());
                    (
                        planned.object.clone(),
                        time_out,
                        Task::Backup { planned: planned.clone(), repository, last_check },
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
        self.state_folder.save(&self.state)?;
        let errors = Arc::new(Mutex::new(Vec::new()));
        let monitor = work::monitor(&errors);
        tell(Notice::Started { id, object: &object, monitor: &monitor });
        let job = work::Job {
            id: id.to_owned(),
            task: task.clone(),
            manifests: Arc::clone(&self.manifests),
            volumes: std::path::absolute(&self.options.volumes).unwrap_or_else(|_| self.options.volumes.clone()),
            monitor: monitor.clone(),
            errors,
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

    fn ended(&mut self, ended: Ended, tell: Tell<'_>) -> Result<(), StandaloneError> {
        let Ended {
            id,
            outcome,
            host,
            snapshots,
            files,
            bytes,
            bytes_added,
            forgotten,
            errors,
            interrupted,
            repository,
            check,
            retention_error,
            no_snapshot,
        } = ended;
        let Some(Running { object, start, triggers, task, timed_out, .. }) = self.running.remove(&id) else {
            return Ok(());
        };
        if interrupted && !timed_out {
            self.state.take_back(&id);
            self.state_folder.save(&self.state)?;
            return Ok(());
        }
        let mut error = errors.join("; ");
        if timed_out {
            error = format!("timed out after {:#}", Timestamp::now().duration_since(start));
        }
        let end = Timestamp::now();
        let run = Run { start, end, outcome, host, snapshots, files, bytes, bytes_added, forgotten, error, triggers };
        match outcome {
            Outcome::Succeeded => self.summary.succeeded += 1,
            Outcome::Incomplete => self.summary.incomplete += 1,
            Outcome::Failed => self.summary.failed += 1,
        }
        let (planned_repository, reason) = match (&task, outcome) {
            (Task::Backup { planned, repository, .. }, outcome) => {
                let first_generation = planned.object.kind == "Restic";
                let reason = match (outcome == Outcome::Succeeded, first_generation) {
                    (true, true) => Reason::Success,
                    (true, false) => Reason::SuccessfulBackup,
                    (false, true) => Reason::Failed,
                    (false, false) => Reason::FailedBackup,
                };
                self.state.end_backup(&id, run.clone());
                (repository, reason)
            }
            (Task::Recovery { planned, repository }, outcome) => {
                self.state.end_recovery(&id, &planned.occasion, no_snapshot, run.clone());
                let succeeded = outcome == Outcome::Succeeded;
                (repository, if succeeded { Reason::SuccessfulRecovery } else { Reason::FailedRecovery })
            }
        };
        let is_backup = matches!(task, Task::Backup { .. });
        self.observe_repository(&planned_repository.id, repository, check.as_ref(), &run, is_backup);
        self.event(&object, reason, message(&run), tell);
        if let Some(error) = retention_error {
            self.event(&object, Reason::FailedRetention, error, tell);
        }
        if let Some(check) = check {
            let (namespace, name) = planned_repository.id.split_once('/').unwrap_or_default();
            let object = ObjectKey::new("Repository", namespace, name);
            let (reason, message) = match check.findings.first() {
                None => (Reason::SuccessfulCheck, "the repository is whole".to_owned()),
                Some(first) => (Reason::FailedCheck, format!("{} findings, the first: {first}", check.findings.len())),
            };
            self.event(&object, reason, message, tell);
        }
        self.state_folder.save(&self.state)?;
        tell(Notice::Ended { id: &id, object: &object, run: &run, repository: &planned_repository.location });
        Ok(())
    }

    fn observe_repository(
        &mut self,
        id: &str,
        figures: Option<work::RepositoryFigures>,
        check: Option<&work::Checked>,
        run: &Run,
        is_backup: bool,
    ) {
        let known: &mut RepositoryState = self.state.repositories.entry(id.to_owned()).or_default();
        if let Some(work::RepositoryFigures { size_bytes, snapshot_count }) = figures {
            known.size_bytes = size_bytes;
            known.snapshot_count = snapshot_count;
        }
        if is_backup && !run.snapshots.is_empty() {
            known.first_backup_time.get_or_insert(run.end);
            known.last_backup_time = Some(run.end);
            known.snapshots_removed_on_last_cleanup = run.forgotten;
        }
        if let Some(work::Checked { findings }) = check {
            known.integrity = Some(findings.is_empty());
            known.findings.clone_from(findings);
            known.last_check = Some(run.end);
        }
    }

    fn event(&mut self, object: &ObjectKey, reason: Reason, message: String, tell: Tell<'_>) {
        let event = Event::new(object, self.state.next_event(object), reason, message, Timestamp::now());
        let path = self.state_folder.path().join("events.jsonl");
        if let Err(error) = journal::append(&path, &event) {
            tell(Notice::Note(format!("cannot write the event log {}: {error}", path.display())));
        }
    }

    fn publish(&self, plan: &Plan) {
        let running: BTreeSet<String> = self.running.keys().cloned().collect();
        let status = Status::new(plan, &self.state, &running, Timestamp::now());
        let page = Page {
            metrics: status.metrics(&self.state),
            status: serde_json::to_string(&status).unwrap_or_default(),
            trouble: self.trouble.clone(),
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
            let due = next.is_some_and(|next| next <= Timestamp::now());
            if due || Instant::now() >= latest {
                return Woken::Time;
            }
            match inbox.recv_timeout(LOOK_EVERY) {
                Ok(Message::Changed) => return Woken::Changed,
                Ok(Message::Ended(ended)) => return Woken::Ended(ended),
                Err(_) => {}
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
    fn stop_all(&mut self, inbox: &mpsc::Receiver<Message>, tell: Tell<'_>) -> Result<(), StandaloneError> {
        self.running.values().for_each(|running| running.monitor.interrupt());
        let end = Instant::now() + STOP_WITHIN;
        while !self.running.is_empty() {
            match inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Message::Ended(ended)) => self.ended(*ended, tell)?,
                Ok(Message::Changed) => {}
                Err(_) => {
                    tell(Notice::Note(format!(
                        "{} runs did not stop in time; they are due again at the next start",
                        self.running.len()
                    )));
                    break;
                }
            }
        }
        self.state.take_back_all();
        Ok(self.state_folder.save(&self.state)?)
    }
}

enum Woken {
    Stop,
    Changed,
    Ended(Box<Ended>),
    Time,
}

fn message(run: &Run) -> String {
    let done = format!("{} files, {} bytes", run.files, run.bytes);
    match run.outcome {
        Outcome::Succeeded => format!("{done}, snapshots {}", run.snapshots.join(", ")),
        Outcome::Incomplete => format!("incomplete: {done}, snapshots {}: {}", run.snapshots.join(", "), run.error),
        Outcome::Failed => run.error.clone(),
    }
}
