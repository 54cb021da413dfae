//! What a container does once and without the loop: make a repository, tell how it stands, wipe it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};

use holdfast_plan::{Plan, PlannedRepository, plan};
use holdfast_repository::{Monitor, OpenOptions, Repository};
use jiff::Timestamp;
use serde_json::json;

use super::objects::Scope;
use super::status::{merge_repository, of_recovery, of_repository};
use super::world::{Cluster, UNTOLD, repository_part};
use super::{Options, PodError, push};
use crate::backup;
use crate::follow::Notice;
use crate::open::{self, IfMissing, OpenError};
use crate::state::{Outcome, RepositoryState, Run, State};
use crate::work;
use crate::world::World;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no way to the API server.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// It was told to stop.
    #[error("stopped before the API server could be read")]
    Stopped,
    /// The object is not planned.
    #[error("{object} cannot be carried out: {why}")]
    NotPlanned {
        /// The object.
        object: String,
        /// The errors of the plan.
        why: String,
    },
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The storage refused.
    #[error("cannot wipe repository {id}")]
    Wipe {
        /// The repository.
        id: String,
        /// Why.
        #[source]
        source: Box<holdfast_store::Error>,
    },
    /// The API server could not be told.
    #[error("{UNTOLD}")]
    Untold,
    /// The file of metrics.
    #[error("cannot read the metrics in {path}")]
    Metrics {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

type Tell<'t> = &'t mut dyn FnMut(Notice<'_>);

/// A pod and what is planned in it.
struct Scene<'a> {
    stop: &'a AtomicBool,
    cluster: Cluster<'a>,
    state: State,
    plan: Plan,
}

impl<'a> Scene<'a> {
    fn open(options: &'a Options, stop: &'a AtomicBool, tell: Tell<'_>) -> Result<Self, CommandError> {
        let (messages, inbox) = mpsc::channel();
        let mut cluster = Cluster::connect(options, messages)?;
        if !cluster.wait_until_listed(stop, &inbox, tell) {
            return Err(CommandError::Stopped);
        }
        let mut state = State::default();
        cluster.turn(&mut state);
        let plan = plan(cluster.manifests(), &state.observed, &cluster.settings(Timestamp::now()));
        Ok(Self { stop, cluster, state, plan })
    }

    /// The repository of the `Backup`, or the `Repository`, that this is about.
    fn repository(&self) -> Result<&PlannedRepository, CommandError> {
        let (object, id) = match &self.cluster.options().scope {
            Scope::Backup { name, .. } => {
                let planned = self.plan.backups.iter().find(|planned| planned.object.name == *name);
                (format!("Backup {name}"), planned.map(|planned| planned.repository.clone()))
            }
            Scope::Repository { name } => {
                let id = format!("{}/{name}", self.cluster.options().identity.namespace);
                (format!("Repository {name}"), Some(id))
            }
            Scope::Workload(_) | Scope::Recovery { .. } => ("the container".to_owned(), None),
        };
        let found = id.and_then(|id| self.plan.repositories.iter().find(|repository| repository.id == id));
        found.ok_or_else(|| {
            let errors: Vec<String> = self.plan.errors.iter().map(ToString::to_string).collect();
            let why = if errors.is_empty() { "it is not there".to_owned() } else { errors.join("; ") };
            CommandError::NotPlanned { object, why }
        })
    }

    fn open_repository(&self, if_missing: IfMissing) -> Result<Arc<Repository>, CommandError> {
        let objects = &self.cluster.manifests().objects;
        Ok(open::open(self.repository()?, objects, OpenOptions::default(), if_missing, &Monitor::new(|_| {}, false))?)
    }

    /// Waits until everything is told.
    fn close(mut self) -> Result<(), CommandError> {
        if self.cluster.close(self.stop) { Ok(()) } else { Err(CommandError::Untold) }
    }
}

/// Makes the repository of a `Backup` if there is none yet. One that was there and is gone is not made anew.
pub fn init(options: &Options, stop: &AtomicBool, tell: Tell<'_>) -> Result<(), CommandError> {
    let scene = Scene::open(options, stop, tell)?;
    let repository = scene.repository()?;
    let known = scene.state.repositories.get(&repository.id).and_then(|known| known.last_location.as_ref());
    let if_missing = if known == Some(&repository.location) { IfMissing::Fail } else { IfMissing::Init };
    scene.open_repository(if_missing)?;
    scene.close()
}

/// Tells how the repository of a `Backup` stands, and pushes the metrics that another container left in a file.
pub fn update_repository_status(
    options: &Options,
    metrics_file: Option<&str>,
    stop: &AtomicBool,
    tell: Tell<'_>,
) -> Result<(), CommandError> {
    let scene = Scene::open(options, stop, tell)?;
    let planned = scene.repository()?;
    let repository = scene.open_repository(IfMissing::Fail)?;
    let known = scene.state.repositories.get(&planned.id).cloned().unwrap_or_default();
    let monitor = Monitor::new(|_| {}, false);
    let mut found = RepositoryState { last_location: Some(planned.location.clone()), ..known.clone() };
    if let Some(figures) = work::figures(&repository) {
        found.size_bytes = figures.size_bytes;
        found.snapshot_count = figures.snapshot_count;
        found.last_backup_time = Some(Timestamp::now());
        found.first_backup_time = known.first_backup_time.or(found.last_backup_time);
    }
    if let Some(Ok(findings)) =
        work::check_if_due(&repository, known.last_check, backup::lock_options(), &monitor).map(|check| check.result)
    {
        found.integrity = Some(findings.is_empty());
        found.last_check = Some(Timestamp::now());
        found.findings = findings;
    }
    if let Some(part) = repository_part(&planned.id) {
        scene.cluster.report().want(part, json!(of_repository(&merge_repository(&found, known))));
    }
    push_file(&scene, metrics_file, tell)?;
    scene.close()
}

/// Tells that the `Recovery` of this container is done, which those before it in the pod did, and pushes the metrics that
/// one of them left in a file.
pub fn update_recovery_status(
    options: &Options,
    metrics_file: Option<&str>,
    stop: &AtomicBool,
    tell: Tell<'_>,
) -> Result<(), CommandError> {
    let mut scene = Scene::open(options, stop, tell)?;
    let Scope::Recovery { name, .. } = &options.scope else { return scene.close() };
    let Some(planned) = scene.plan.recoveries.iter().find(|planned| planned.object.name == *name).cloned() else {
        let errors: Vec<String> = scene.plan.errors.iter().map(ToString::to_string).collect();
        let (object, why) = (format!("Recovery {name}"), errors.join("; "));
        return Err(CommandError::NotPlanned { object, why });
    };
    let now = Timestamp::now();
    scene.state.begin_recovery(&planned, "", now);
    let run = Run { host: options.identity.host.clone(), ..Run::new(now, now, Outcome::Succeeded) };
    scene.state.end_recovery(&planned, false, run);
    scene.plan = plan(scene.cluster.manifests(), &scene.state.observed, &scene.cluster.settings(Timestamp::now()));
    if let Some(planned) = scene.plan.recoveries.iter().find(|planned| planned.object.name == *name) {
        let entry = of_recovery(planned, &scene.state, &options.identity, scene.cluster.generation(&planned.object));
        scene.cluster.report().want(scene.cluster.part(&planned.object), json!({"hosts": [entry]}));
    }
    push_file(&scene, metrics_file, tell)?;
    scene.close()
}

fn push_file(scene: &Scene<'_>, file: Option<&str>, tell: Tell<'_>) -> Result<(), CommandError> {
    let options = scene.cluster.options();
    let (Some(gateway), Some(path)) = (&options.pushgateway, file) else { return Ok(()) };
    let metrics =
        std::fs::read_to_string(path).map_err(|source| CommandError::Metrics { path: path.to_owned(), source })?;
    let identity = &options.identity;
    let push = push::push(gateway, &identity.namespace, &identity.host, metrics);
    if let Err(error) = scene.cluster.connection().wait(push) {
        tell(Notice::Trouble(format!("cannot push metrics to {gateway}: {error}")));
    }
    Ok(())
}

/// Deletes everything of a `Repository` whose deletion policy says so. Returns how many files went.
pub fn wipe(options: &Options, stop: &AtomicBool, tell: Tell<'_>) -> Result<u64, CommandError> {
    let scene = Scene::open(options, stop, tell)?;
    let planned = scene.repository()?;
    let failed = |source| CommandError::Wipe { id: planned.id.clone(), source: Box::new(source) };
    let Some(store) = open::store(planned, &scene.cluster.manifests().objects)? else { return Ok(0) };
    let count = open::wipe(store.as_ref()).map_err(failed)?;
    scene.close()?;
    Ok(count)
}
