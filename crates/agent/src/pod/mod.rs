//! In a pod of a cluster: the loop over the objects of an API server, for one workload, backup, recovery or repository.
//!
//! What has to be known is watched, what is done is written into the status of the objects and told by Events. An API server
//! that cannot be reached stops nothing that is due: the work goes on by what was read last, and is told later.
//!
//! Never decides what the planner can decide, and never changes an object but for its own host's part of a status.

mod commands;
mod connection;
mod holder;
mod objects;
mod push;
mod report;
mod secrets;
mod status;
mod turn;
mod watch;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use holdfast_api::names::pod as pod_names;
use holdfast_plan::{Host, TargetKind};

use crate::follow::{FollowError, Message, Notice, Summary, follow};
use crate::state::State;

pub use commands::{CommandError, init, update_recovery_status, update_repository_status, wipe};
pub use objects::Scope;

use world::{Cluster, UNTOLD, Verdict};

/// Which pod this is, and which host of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// The host, by [`Host::instance`]; `volume` for recoveries into volumes.
    pub host: String,
}

impl Identity {
    /// The pod that the environment tells of, working for `scope`.
    pub fn from_environment(scope: &Scope) -> Result<Self, PodError> {
        let variable = |name: &'static str| std::env::var(name).map_err(|_| PodError::Environment(name));
        let (pod, node) = (variable(pod_names::POD_NAME)?, std::env::var(pod_names::NODE_NAME).unwrap_or_default());
        let host = scope.target().map_or("volume".to_owned(), |target| Host::of_pod(target, &pod, &node).instance);
        let (namespace, uid) = (variable(pod_names::POD_NAMESPACE)?, variable(pod_names::POD_UID)?);
        Ok(Self { namespace, pod, uid, node, host })
    }
}

/// What to do, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// What this container works for.
    pub scope: Scope,
    /// For a [`Scope::Backup`]: to follow its schedule, rather than to run it once.
    pub follow: bool,
    /// Which pod this is.
    pub identity: Identity,
    /// The folder below which everything is mounted. On a cluster: [`pod_names::ROOT`].
    pub root: PathBuf,
    /// Where to serve metrics and status; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// Where to push metrics to after each run.
    pub pushgateway: Option<String>,
    /// How many runs may go on at once.
    pub slots: usize,
    /// How long a recovery that failed by what its Secret holds waits for another one.
    pub wait_for_secret: Duration,
    /// How long a writer that cannot be heard of keeps its turn.
    pub lease: Duration,
}

/// Why the program could not go on.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// A variable that every container of ours has is missing.
    #[error("the environment variable {0} is missing: this command is for containers that the operator made")]
    Environment(&'static str),
    /// There is no way to an API server.
    #[error("cannot find the API server")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be made.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<kube::Error>),
    /// A thread or runtime could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The loop.
    #[error(transparent)]
    Follow(#[from] FollowError),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What was done.
    pub summary: Summary,
    /// Why what the program was started for is not done, if it is not.
    pub failure: Option<String>,
}

/// Works until `stop` is raised, or what it was started for is done.
pub fn run(options: &Options, stop: &AtomicBool, tell: &mut dyn FnMut(Notice<'_>)) -> Result<Ended, PodError> {
    let (messages, inbox) = mpsc::channel();
    let mut cluster = Cluster::connect(options, messages.clone())?;
    if !cluster.wait_until_listed(stop, &inbox, tell) {
        return Ok(Ended { summary: Summary { interrupted: true, ..Summary::default() }, failure: None });
    }
    let result = follow(&mut cluster, State::default(), options.listen, (messages, inbox), stop, tell);
    if !cluster.close(stop) {
        tell(Notice::Trouble(format!("{UNTOLD}; the next pod does")));
    }
    let summary = result?;
    let failure = match cluster.verdict() {
        Verdict::Done => None,
        Verdict::Failed(_) | Verdict::Open if summary.interrupted => None,
        Verdict::Open => None,
        Verdict::Failed(why) => Some(why.clone()),
    };
    Ok(Ended { summary, failure })
}

/// Tells the loop of something.
type Signal = std::sync::Arc<dyn Fn(Message) + Send + Sync>;

/// Whether the pods of a workload are one host, of which one works at a time.
fn shares_host(scope: &Scope) -> bool {
    let kind = scope.target().map(|target| target.kind);
    matches!(kind, Some(TargetKind::Deployment | TargetKind::ReplicaSet | TargetKind::ReplicationController))
}
