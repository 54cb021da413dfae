//! The loop: see what is to be protected, plan, start what is due, remember how it ended; and again.
//!
//! One thread decides; each run has a thread of its own and reports back when it has ended. Where the objects come from
//! and where what is remembered goes is the [`World`]'s: a folder of a machine, or a pod of a cluster. Where something cannot
//! be written, the program says so and goes on: a full disk of the program must not stop backups to another.

mod ended;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use holdfast_plan::{ObjectKey, Plan, PlannedBackup, PlannedRecovery, PlannedRepository, plan};
use holdfast_repository::{LockOptions, Monitor};
use jiff::Timestamp;

use crate::backup;
use crate::folder::FolderError;
use crate::http::{Page, Server};
use crate::journal::Event;
use crate::open::IfMissing;
use crate::state::{Run, State};
use crate::status::Status;
use crate::work::{self, Ended};
use crate::world::World;

/// How often the loop looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a change of the objects is waited out: an editor writes more than once.
const SETTLE: Duration = Duration::from_millis(300);
/// How long runs are given to end when the program is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(8);
/// Clocks are set, and machines sleep: the plan is made anew at least this often.
pub(crate) const PLAN_EVERY: Duration = Duration::from_secs(60);

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

/// Why the loop could not go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
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

impl Summary {
    /// Runs that ended.
    pub fn runs(&self) -> u64 {
        self.succeeded + self.incomplete + self.failed
    }
}

/// What the loop is told by others.
pub(crate) enum Message {
    /// The objects may have changed.
    Changed,
    /// A note about a run.
    Note(ObjectKey, String),
    /// Something that is no failure.
    Say(String),
    /// Something failed that leaves everything else running.
    Trouble(String),
    /// A run has ended.
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
        earlier: backup::Earlier,
        last_check: Option<Timestamp>,
    },
    Recovery {
        planned: PlannedRecovery,
        repository: PlannedRepository,
    },
}

/// Follows the schedules of `world` until it is done or `stop` is raised; `state` is what is remembered.
pub(crate) fn follow(
    world: &mut dyn World,
    state: State,
    listen: Option<SocketAddr>,
    (messages, inbox): (mpsc::Sender<Message>, mpsc::Receiver<Message>),
    stop: &AtomicBool,
    tell: Tell<'_>,
) -> Result<Summary, FollowError> {
    let page = Arc::new(Mutex::new(Page::default()));
    let server = listen
        .map(|address| {
            Server::start(address, Arc::clone(&page)).map_err(|source| FollowError::Listen { address, source })
        })
        .transpose()?;
    let mut follower = Follower {
        world,
        state,
        page,
        messages,
        running: BTreeMap::new(),
        summary: Summary::default(),
        waiting: None,
        unsaved: None,
        has_turn: false,
    };
    let plan = follower.plan();
    follower.publish(&plan);
    if let Some(server) = &server {
        tell(Notice::Serving(server.address()));
    }
    let result = follower.follow(&inbox, stop, tell);
    let plan = follower.plan();
    follower.publish(&plan);
    result.map(|()| follower.summary)
}

struct Follower<'a> {
    world: &'a mut dyn World,
    state: State,
    page: Arc<Mutex<Page>>,
    messages: mpsc::Sender<Message>,
    running: BTreeMap<String, Running>,
    summary: Summary,
    /// What was last said about waiting, so that it is not said again.
    waiting: Option<Option<Timestamp>>,
    /// Why the state could not be saved when it was last tried.
    unsaved: Option<String>,
    /// Whether this program is the one that works.
    has_turn: bool,
}

/// Tells a person.
pub(crate) type Tell<'t> = &'t mut dyn FnMut(Notice<'_>);

impl Follower<'_> {
    fn follow(
        &mut self,
        inbox: &mpsc::Receiver<Message>,
        stop: &AtomicBool,
        tell: Tell<'_>,
    ) -> Result<(), FollowError> {
        let mut announce = true;
        loop {
            self.has_turn = self.world.turn(&mut self.state);
            let mut plan = self.plan();
            self.world.planned(&plan);
            if self.has_turn {
                self.note_first_seen(&plan, tell);
            }
            if std::mem::take(&mut announce) {
                self.summary.errors = plan.errors.len();
                self.summary.nothing = plan.backups.is_empty() && plan.recoveries.is_empty();
                tell(Notice::Planned(&plan));
            }
            if self.has_turn {
                self.world.ask_for_more(&mut plan, &self.summary);
                self.start_due(&plan, tell)?;
            }
            // Started runs change what is due next.
            let plan = self.plan();
            self.publish(&plan);
            let idle = self.running.is_empty();
            if idle && self.world.is_done(&plan, &self.state, &self.summary) {
                // What was found on the way may say why.
                while let Ok(message) = inbox.try_recv() {
                    self.hear(message, tell);
                }
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
                Woken::Late if self.world.is_to_be_asked() => announce = self.read_again(tell),
                Woken::Late | Woken::Due | Woken::Turn => {}
            }
        }
    }

    fn hear(&mut self, message: Message, tell: Tell<'_>) {
        match message {
            Message::Changed => {}
            Message::Note(object, note) => tell(Notice::Note(format!("{object}: {note}"))),
            Message::Say(text) => tell(Notice::Note(text)),
            Message::Trouble(text) => {
                self.summary.warnings += 1;
                tell(Notice::Trouble(text));
            }
            Message::Ended(ended) => self.ended(*ended, tell),
        }
    }

    /// Whether there is something new.
    fn read_again(&mut self, tell: Tell<'_>) -> bool {
        let news = self.world.read_again(tell);
        self.waiting = self.waiting.take().filter(|_| !news);
        news
    }

    fn plan(&self) -> Plan {
        plan(self.world.manifests(), &self.state.observed, &self.world.settings(Timestamp::now()))
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
        let unsaved = self.world.save(&self.state).err();
        if self.unsaved != unsaved {
            if let Some(error) = &unsaved {
                self.summary.warnings += 1;
                tell(Notice::Trouble(format!("{error}; what is done meanwhile may be done again after a restart")));
            }
            self.unsaved = unsaved;
        }
    }

    fn start_due(&mut self, plan: &Plan, tell: Tell<'_>) -> Result<(), FollowError> {
        for due in plan.due.iter().filter(|due| due.waits_for.is_none()) {
            let repository = |id: &str| plan.repositories.iter().find(|repository| repository.id == id).cloned();
            let task = if let Some(planned) = plan.backups.iter().find(|backup| backup.id == due.id) {
                repository(&planned.repository).map(|repository| {
                    let known = self.state.repositories.get(&repository.id);
                    let last_check = known.and_then(|known| known.last_check);
                    let was_there =
                        known.is_some_and(|known| known.last_location.as_ref() == Some(&repository.location));
                    let if_missing = if was_there { IfMissing::Fail } else { IfMissing::Init };
                    let earlier = backup::Earlier { if_missing, begun: self.state.begun(due) };
                    let time_out = planned.time_out.map(|limit| limit.as_std());
                    (
                        planned.object.clone(),
                        time_out,
                        Task::Backup { planned: planned.clone(), repository, earlier, last_check },
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
            // One that was cut off, as somebody else worked meanwhile, may still be at its end.
            let is_free = !self.running.contains_key(&due.id);
            if let Some((object, time_out, task)) = task.filter(|(object, ..)| is_free && self.world.takes(object)) {
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
    ) -> Result<(), FollowError> {
        let start = Timestamp::now();
        match &task {
            Task::Backup { planned, repository, .. } => {
                self.state.begin_backup(planned, &repository.location, start);
                if !triggers.is_empty() {
                    self.state.serving.insert(id.to_owned(), triggers.clone());
                }
            }
            Task::Recovery { planned, repository } => self.state.begin_recovery(planned, &repository.location, start),
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
            manifests: Arc::clone(self.world.manifests()),
            volumes: self.world.volumes(),
            lock: LockOptions { holder_is_gone: self.world.holder_is_gone(), ..backup::lock_options() },
            monitor: monitor.clone(),
            heard,
        };
        let messages = self.messages.clone();
        std::thread::Builder::new()
            .name("run".into())
            .spawn(move || _ = messages.send(Message::Ended(Box::new(job.run()))))
            .map_err(FollowError::Thread)?;
        let deadline = time_out.map(|limit| Instant::now() + limit);
        self.running
            .insert(id.to_owned(), Running { object, monitor, deadline, timed_out: false, start, triggers, task });
        self.waiting = None;
        Ok(())
    }

    fn publish(&mut self, plan: &Plan) {
        let status = Status::new(plan, &self.state, Timestamp::now());
        let metrics = status.metrics(&self.state);
        if self.has_turn {
            self.world.publish(plan, &self.state, &metrics);
        }
        let page = Page {
            metrics,
            status: serde_json::to_string(&status).unwrap_or_default(),
            trouble: self.world.trouble().or_else(|| self.unsaved.clone()),
        };
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = page;
    }

    fn wait(&mut self, inbox: &mpsc::Receiver<Message>, next: Option<Timestamp>, stop: &AtomicBool) -> Woken {
        let latest = Instant::now() + self.world.looks_every();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Woken::Stop;
            }
            self.stop_late_runs();
            if self.world.has_turn() != self.has_turn {
                // Whoever works now must find nobody else at it.
                self.running.values().for_each(|running| running.monitor.interrupt());
                return Woken::Turn;
            }
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
    /// The turn came, or went.
    Turn,
    /// The program is to stop.
    Stop,
    /// Something happened.
    Message(Message),
    /// Something is due.
    Due,
    /// Nothing happened for long.
    Late,
}
