//! A pod of a cluster, as the loop sees it.

mod admission;
mod elsewhere;
mod memory;
mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use holdfast_api::manifest::{self, Outcome as Manifests, Typed};
use holdfast_api::names::pod as pod_names;
use holdfast_api::stash::RecoveryPolicy;
use holdfast_plan::{Due, ObjectKey, Place, Plan, PlannedRecovery, Reason, RecoveryState, Settings, TargetKind};
use holdfast_repository::HolderIsGone;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::connection::Connection;
use super::objects::{Key, Objects, Scope, Seen};
use super::report::Report;
use super::turn::{Elector, Turn, holder_of};
use super::{Identity, Options, PodError, Signal, holder, secrets, shares_host, watch};
use crate::follow::{Message, Notice, PLAN_EVERY, Summary, Tell};
use crate::journal::Event;
use crate::standalone::STORES;
use crate::state::{RevisionKey, State};
use crate::world::World;

use elsewhere::workload_of_repository;
pub(super) use publish::repository_part;

/// How often a Secret that is waited for is looked at.
const LOOK_AT_SECRET_EVERY: Duration = Duration::from_secs(5);
/// How long the last words may take of a program that is told to stop.
const LAST_WORDS: Duration = Duration::from_millis(1_200);

/// What is to be said of a program that ends without it.
pub(super) const UNTOLD: &str = "the API server could not be told everything before the end";

/// What became of what the program was started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is known yet, or it has no end.
    Open,
    /// It is done.
    Done,
    /// It is not, and why.
    Failed(String),
}

/// A pod of a cluster.
pub(super) struct Cluster<'a> {
    options: &'a Options,
    connection: Connection,
    objects: Arc<Objects>,
    report: Arc<Report>,
    turn: Arc<Turn>,
    /// What the Lease waits for, and by what it says that it is given back.
    election: Option<(Arc<Notify>, Arc<Notify>)>,
    /// What the Lease is for.
    owners: Arc<Mutex<Option<Vec<OwnerReference>>>>,
    signal: Signal,
    manifests: Arc<Manifests>,
    /// What the manifests were made of.
    made_of: Option<(u64, Vec<Value>)>,
    /// Repositories of other namespaces, by id in the plan.
    elsewhere: BTreeMap<String, Value>,
    /// The node that a DaemonSet is looked at on.
    node: String,
    /// What is there now, by kind and name.
    seen: BTreeMap<Key, Seen>,
    /// Whose turn it was when the state was last brought up to date.
    epoch: Option<u64>,
    revision_key: RevisionKey,
    started: Timestamp,
    /// How many runs had ended when metrics were last pushed.
    pushed: u64,
    verdict: Verdict,
    /// The generation of the Recovery that a Job was made for.
    made_for: Option<i64>,
    /// Whether a Secret is waited for.
    waits_for_secret: bool,
    /// Since when runs wait to be admitted, by their id in the plan.
    waiting: BTreeMap<String, Timestamp>,
}

impl<'a> Cluster<'a> {
    /// Connects to the API server and begins to watch.
    pub(super) fn connect(options: &'a Options, messages: mpsc::Sender<Message>) -> Result<Self, PodError> {
        let Options { scope, identity, .. } = options;
        let connection = Connection::open()?;
        let signal: Signal = Arc::new(move |message| _ = messages.send(message));
        let objects = Arc::new(Objects::new(scope.clone(), &identity.namespace, &identity.host));
        let report = Arc::new(Report::new(&identity.namespace, &identity.pod));
        let lease = match scope {
            Scope::Workload(_) if shares_host(scope) => Some(pod_names::writer_lease(&identity.host)),
            Scope::Backup { name, .. } if options.follow && shares_host(scope) => {
                Some(pod_names::writer_lease(&format!("{}.{name}", identity.host)))
            }
            Scope::Recovery { .. } if shares_host(scope) => Some(pod_names::recovery_lease(&identity.host)),
            _ => None,
        };
        let turn = Arc::new(if lease.is_some() { Turn::by_lease() } else { Turn::always() });
        for kind in objects.kinds() {
            connection.spawn(watch::follow_kind(
                connection.client(),
                identity.namespace.clone(),
                kind,
                Arc::clone(&objects),
                Arc::clone(&signal),
            ));
        }
        let sender = Arc::clone(&report);
        connection.spawn(sender.send(
            connection.client(),
            Arc::clone(&turn),
            Arc::clone(&objects),
            Arc::clone(&signal),
        ));
        let mut cluster = Self {
            options,
            connection,
            objects,
            report,
            turn,
            election: None,
            owners: Arc::default(),
            signal,
            manifests: Arc::default(),
            made_of: None,
            elsewhere: BTreeMap::new(),
            node: identity.node.clone(),
            seen: BTreeMap::new(),
            epoch: None,
            revision_key: crate::state::new_revision_key(),
            started: Timestamp::now(),
            pushed: 0,
            verdict: Verdict::Open,
            made_for: None,
            waits_for_secret: false,
            waiting: BTreeMap::new(),
        };
        if let Some(name) = lease {
            cluster.elect(name);
        }
        Ok(cluster)
    }

    fn elect(&mut self, name: String) {
        let Identity { namespace, pod, uid, .. } = &self.options.identity;
        let (end, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let elector = Elector {
            client: self.connection.client(),
            namespace: namespace.clone(),
            name,
            holder: holder_of(pod, uid),
            duration: self.options.lease,
            turn: Arc::clone(&self.turn),
            objects: Arc::clone(&self.objects),
            signal: Arc::clone(&self.signal),
            owners: Arc::clone(&self.owners),
        };
        self.connection.spawn(elector.run(Arc::clone(&end), Arc::clone(&ended)));
        self.election = Some((end, ended));
    }

    /// What is known of an object.
    fn seen_of(&self, object: &ObjectKey) -> Option<&Seen> {
        self.seen.iter().find(|((kind, name), _)| *kind == object.kind && *name == object.name).map(|(_, seen)| seen)
    }

    /// An object as an owner: what it owns goes when it does.
    fn owner(&self, object: &ObjectKey) -> Option<OwnerReference> {
        let seen = self.seen_of(object)?;
        Some(OwnerReference {
            api_version: seen.json.as_ref()?["apiVersion"].as_str()?.to_owned(),
            kind: object.kind.clone(),
            name: object.name.clone(),
            uid: seen.uid.clone(),
            controller: None,
            block_owner_deletion: None,
        })
    }

    /// Waits until everything is known that has to be; false when stopped before.
    pub(super) fn wait_until_listed(
        &mut self,
        stop: &AtomicBool,
        inbox: &mpsc::Receiver<Message>,
        tell: Tell<'_>,
    ) -> bool {
        while !self.objects.wait_until_listed(Duration::from_millis(200)) {
            for message in inbox.try_iter() {
                match message {
                    Message::Say(text) => tell(Notice::Note(text)),
                    Message::Trouble(text) => tell(Notice::Trouble(text)),
                    Message::Changed | Message::Note(..) | Message::Ended(_) => {}
                }
            }
            if stop.load(Ordering::Relaxed) {
                return false;
            }
        }
        self.read_objects();
        self.made_for = self.generation_of_job();
        true
    }

    /// The generation of the Recovery, in a Job of it: another one may want another Job.
    fn generation_of_job(&self) -> Option<i64> {
        let Scope::Recovery { target, name } = &self.options.scope else { return None };
        let is_job = target.as_ref().is_none_or(|target| target.kind == TargetKind::PersistentVolumeClaim);
        let key = ObjectKey::new("Recovery", self.options.identity.namespace.clone(), name.clone());
        is_job.then(|| self.generation(&key)).flatten()
    }

    /// Whether a recovery that failed for good is to be kept waiting for another Secret, which its pod is shown.
    fn waits_for_secret(&mut self, recovery: &PlannedRecovery, state: &State) -> bool {
        let failed_at = state.observed.recoveries.get(&recovery.id).and_then(|history| history.last_end);
        let since = failed_at.map(|at| Timestamp::now().duration_since(at));
        let is_over = since.is_none_or(|since| since.unsigned_abs() >= self.options.wait_for_secret);
        let waits = state.of_secret.contains(&recovery.id) && !is_over;
        if waits && !self.waits_for_secret {
            let text = format!("{}: it waits for another Secret, and is then tried again", recovery.object);
            (self.signal)(Message::Say(text));
        }
        self.waits_for_secret = waits;
        waits
    }

    pub(super) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn options(&self) -> &Options {
        self.options
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    /// Says the last words and gives the turn to others; false if not everything could be told.
    ///
    /// A program that has come to its end by itself is in no hurry: what a Recovery has done and nobody knows of would be
    /// done again, over what the application has written since.
    pub(super) fn close(&mut self, stop: &AtomicBool) -> bool {
        let is_told = loop {
            if self.report.wait_until_told(LAST_WORDS) {
                break true;
            }
            if stop.load(Ordering::Relaxed) || !self.turn.is_ours() || self.report.is_hopeless() {
                break false;
            }
        };
        if let Some((end, ended)) = self.election.take() {
            end.notify_one();
            let _ = self.connection.wait(async { tokio::time::timeout(LAST_WORDS / 2, ended.notified()).await });
        }
        is_told
    }

    /// Makes the manifests anew if what they were made of has changed; whether it has.
    fn read_objects(&mut self) -> bool {
        let Identity { namespace, .. } = &self.options.identity;
        let secrets = secrets::mounted(&self.options.root, namespace);
        if self.made_of.as_ref().is_some_and(|made_of| *made_of == (self.objects.version(), secrets.clone())) {
            return false;
        }
        self.fetch_missing();
        let (version, seen) = self.objects.look();
        let (repositories, secrets_elsewhere) = self.read_elsewhere(&seen);
        let mut elsewhere: Vec<Value> = repositories.values().cloned().chain(secrets_elsewhere).collect();
        self.elsewhere = repositories;
        if let Some((kind, name, node)) = workload_of_repository(&self.options.scope, &seen) {
            elsewhere.extend(self.fetch(namespace, kind.name(), &name));
            self.node = node.unwrap_or_else(|| self.options.identity.node.clone());
        }
        let written = seen.values().filter_map(|seen| seen.json.clone());
        let all = written.chain(self.objects.stand_in()).chain(secrets.iter().cloned()).chain(elsewhere);
        let mut manifests = manifest::read_objects(all);
        if matches!(self.options.scope, Scope::Workload(_) | Scope::Backup { .. }) {
            // This pod's containers run only after it has been recovered for this start.
            manifests.objects.retain(|object| !is_always(&object.typed));
        }
        self.manifests = Arc::new(manifests);
        self.seen = seen;
        self.made_of = Some((version, secrets));
        true
    }

    fn judge_recovery(&mut self, recovery: &PlannedRecovery, state: &State, tried: bool) -> bool {
        let history = state.observed.recoveries.get(&recovery.id);
        let found_nothing = history.is_some_and(|history| history.no_snapshot);
        let error = state.runs.get(&recovery.id).and_then(|runs| runs.history.first()).map(|run| run.error.clone());
        let error = error.filter(|error| !error.is_empty());
        if recovery.state == RecoveryState::Failed && self.waits_for_secret(recovery, state) {
            return false;
        }
        self.verdict = match recovery.state {
            RecoveryState::Recovered => Verdict::Done,
            RecoveryState::Running => return false,
            // Otherwise a workload that was never backed up could never start, and so never be backed up.
            RecoveryState::Pending | RecoveryState::Failed
                if (tried || recovery.state == RecoveryState::Failed)
                    && found_nothing
                    && recovery.policy == RecoveryPolicy::Always =>
            {
                Verdict::Done
            }
            RecoveryState::Pending if tried => {
                Verdict::Failed(error.unwrap_or_else(|| "the recovery failed".to_owned()))
            }
            RecoveryState::Pending => return false,
            RecoveryState::Failed => Verdict::Failed(error.unwrap_or_else(|| {
                "it failed as often as it may be tried: correct the Recovery, or remove it".to_owned()
            })),
        };
        true
    }
}

impl World for Cluster<'_> {
    fn manifests(&self) -> &Arc<Manifests> {
        &self.manifests
    }

    fn settings(&self, now: Timestamp) -> Settings {
        let Identity { uid, host, .. } = &self.options.identity;
        // Volumes are no host: whose data they get is what matters.
        let host = self.options.scope.target().map(|_| host.clone());
        let mut settings = Settings::on_cluster(now, Place::Pod { host, uid: uid.clone() }, self.node.clone());
        settings.volumes = self.options.root.display().to_string();
        settings.started = self.started;
        settings.slots = self.options.slots;
        settings.revision_key = self.revision_key.clone();
        settings.stores = STORES.map(str::to_owned).into();
        settings
    }

    fn volumes(&self) -> PathBuf {
        self.options.root.clone()
    }

    fn holder_is_gone(&self) -> Option<HolderIsGone> {
        let Identity { namespace, pod, uid, node, .. } = self.options.identity.clone();
        let (caller, objects) = (self.connection.caller(), Arc::clone(&self.objects));
        let asker = holder::Asker { namespace, uid, node, started: self.started };
        Some(HolderIsGone::new(move |lock| {
            // A host name says nothing by itself: it has to be that of a pod which worked here.
            (lock.hostname == pod || objects.names_pod(&lock.hostname)) && holder::is_gone(&caller, &asker, lock)
        }))
    }

    fn read_again(&mut self, _tell: Tell<'_>) -> bool {
        if self.is_to_be_asked() {
            self.made_of = None;
        }
        // What has changed is read with the next turn.
        self.made_of.as_ref().is_none_or(|(version, _)| *version != self.objects.version())
    }

    fn looks_every(&self) -> Duration {
        if self.waits_for_secret { LOOK_AT_SECRET_EVERY } else { PLAN_EVERY }
    }

    fn is_to_be_asked(&self) -> bool {
        // Nothing tells of changes in other namespaces.
        !self.elsewhere.is_empty()
    }

    fn has_turn(&self) -> bool {
        self.turn.is_ours() && self.epoch == Some(self.turn.epoch())
    }

    fn turn(&mut self, state: &mut State) -> bool {
        if !self.turn.is_ours() {
            self.read_objects();
            return false;
        }
        let epoch = self.turn.epoch();
        if self.epoch.replace(epoch) == Some(epoch) {
            let before = self.seen.clone();
            if self.read_objects() {
                self.catch_up(state, &before);
            }
            self.catch_up_repositories(state);
        } else {
            // Whoever had the turn has written since.
            self.made_of = None;
            self.read_objects();
            self.report.forget(None);
            *state = self.load();
            for (key, seen) in &self.seen {
                if let (Some(own), Some(part)) = (&seen.own, self.own_part(key)) {
                    let list = if key.0 == "BackupTrigger" { "runs" } else { "hosts" };
                    self.report.has(part, json!({list: [own]}));
                }
            }
        }
        true
    }

    fn planned(&mut self, plan: &Plan) {
        let objects = plan.backups.iter().map(|planned| &planned.object);
        let objects = objects.chain(plan.recoveries.iter().map(|planned| &planned.object));
        let ours: BTreeSet<&ObjectKey> = objects.filter(|object| self.takes(object)).collect();
        let owners = ours.into_iter().filter_map(|object| self.owner(object)).collect();
        *self.owners.lock().unwrap_or_else(PoisonError::into_inner) = Some(owners);
    }

    fn ask_for_more(&mut self, plan: &mut Plan, summary: &Summary) {
        self.wait_for_admission(plan);
        let Scope::Backup { .. } = self.options.scope else { return };
        if self.options.follow || summary.runs() > 0 {
            return;
        }
        for planned in plan.backups.iter().filter(|planned| self.takes(&planned.object)) {
            if !plan.due.iter().any(|due| due.id == planned.id) {
                let (id, since) = (planned.id.clone(), Timestamp::now());
                plan.due.push(Due { id, reason: Reason::Trigger, since, triggers: Vec::new(), waits_for: None });
            }
        }
    }

    fn takes(&self, object: &ObjectKey) -> bool {
        match &self.options.scope {
            Scope::Workload(_) => object.kind != "Recovery",
            Scope::Backup { name, .. } => object.kind == "Backup" && object.name == *name,
            Scope::Recovery { name, .. } => {
                object.kind == "Recovery" && object.name == *name && self.generation_of_job() == self.made_for
            }
            Scope::Repository { .. } => false,
        }
    }

    fn is_done(&mut self, plan: &Plan, state: &State, summary: &Summary) -> bool {
        let tried = summary.runs() > 0;
        let missing = |kind: &str, name: &str| {
            let errors: Vec<String> = plan.errors.iter().map(ToString::to_string).collect();
            let why = if errors.is_empty() { "it is not there".to_owned() } else { errors.join("; ") };
            Verdict::Failed(format!("{kind} {name} is not carried out here: {why}"))
        };
        match &self.options.scope {
            Scope::Workload(_) => false,
            Scope::Backup { .. } if self.options.follow => false,
            Scope::Backup { name, .. } => {
                let Some(planned) = plan.backups.iter().find(|planned| planned.object.name == *name) else {
                    self.verdict = missing("Backup", name);
                    return true;
                };
                if tried {
                    let last = state.runs.get(&planned.id).and_then(|runs| runs.history.first());
                    let error = last.map(|run| run.error.clone()).filter(|error| !error.is_empty());
                    self.verdict = error.map_or(Verdict::Done, Verdict::Failed);
                }
                tried
            }
            Scope::Recovery { name, .. } if self.generation_of_job() != self.made_for => {
                self.verdict = Verdict::Failed(format!(
                    "Recovery {name} has changed or is gone: this Job ends, another one carries it out"
                ));
                true
            }
            Scope::Recovery { name, .. } => {
                let recovery = plan.recoveries.iter().find(|planned| planned.object.name == *name).cloned();
                match recovery {
                    Some(recovery) => self.turn.is_ours() && self.judge_recovery(&recovery, state, tried),
                    None => {
                        self.verdict = missing("Recovery", name);
                        true
                    }
                }
            }
            Scope::Repository { .. } => true,
        }
    }

    fn save(&mut self, _state: &State) -> Result<(), String> {
        // The status is all that is kept, and is written when the plan is known.
        Ok(())
    }

    fn report(&mut self, event: &Event) -> Result<(), String> {
        self.report.tell(event);
        Ok(())
    }

    fn publish(&mut self, plan: &Plan, state: &State, metrics: &str) {
        match self.options.scope {
            Scope::Workload(_) | Scope::Backup { .. } => self.publish_backups(plan, state),
            Scope::Recovery { .. } => self.publish_recovery(plan, state),
            Scope::Repository { .. } => {}
        }
        self.push(state, metrics);
    }
}

fn is_always(typed: &Typed) -> bool {
    matches!(typed, Typed::Recovery(recovery) if recovery.spec.recovery_policy == RecoveryPolicy::Always)
}
