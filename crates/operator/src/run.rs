//! The operator as a program: takes the lead, watches, decides and applies until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use crate::admit::Admitter;
use crate::cache::Cache;
use crate::control::Control;
use crate::execute::Executor;
use crate::install;
use crate::leader::Candidate;
use crate::metrics::Metrics;
use crate::notice::{Notice, Tell};
use crate::resources;
use crate::serve::{Served, serve};
use crate::settings::Settings;
use crate::watch::{chain, follow};

/// How the operator runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it decides by.
    pub settings: Settings,
    /// The namespace of its Lease; none: that of the kubeconfig or pod.
    pub namespace: Option<String>,
    /// Its name among those who would lead, unique in the cluster.
    pub identity: String,
    /// Whether it creates and updates the CustomResourceDefinitions.
    pub install_crds: bool,
    /// How many writes go on at once.
    pub concurrent_writes: usize,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// Gives memory that is free back to the system; called after the first lists.
    pub give_back: fn(),
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It does not know where the API server is.
    #[error("no API server is known: this is no pod, and there is no usable kubeconfig")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// What it knows of the API server cannot be used.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<kube::Error>),
    /// The address is taken or not ours.
    #[error("cannot serve health and metrics at {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The runtime could not be started.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. Whoever loses the lead steps down and waits for it again.
pub fn run(options: Options, tell: Tell) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Few threads: each keeps the memory that its largest work took.
        .worker_threads(1)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let outcome = runtime.block_on(work(options, tell));
    // A request that hangs must not keep the program from ending.
    runtime.shutdown_background();
    outcome
}

async fn work(options: Options, tell: Tell) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Runtime)?;
    let mut config = Config::infer().await.map_err(|error| RunError::Config(Box::new(error)))?;
    // What fails is decided anew, from what is known then.
    config.default_retry = false;
    let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| RunError::Client(Box::new(error)))?;
    let cache = Arc::new(Cache::default());
    let metrics = Arc::new(Metrics::default());
    metrics.agent_image(&options.settings.image);
    let (ready, is_ready) = watch::channel(true);
    let served = Served { cache: Arc::clone(&cache), metrics: Arc::clone(&metrics), ready: is_ready };
    let mut candidate = Candidate::new(client.clone(), &namespace, options.identity.clone(), Arc::clone(&tell));
    let listen = options.listen;
    let lead = async {
        loop {
            candidate.acquire().await;
            tell(Notice::Done("this operator leads".to_owned()));
            metrics.lead(true);
            ready.send_replace(false);
            // Dropped in the middle, it writes nothing any more; whoever leads next decides from what is there.
            tokio::select! {
                () = candidate.keep() => {}
                () = operate(&options, &client, &cache, &metrics, &ready, &tell) => {}
            }
            metrics.lead(false);
            ready.send_replace(true);
            tell(Notice::Trouble("the Lease could not be renewed in time: this operator steps down".to_owned()));
        }
    };
    let outcome = tokio::select! {
        () = lead => Ok(()),
        served = serve(listen, served) => served.map_err(|error| RunError::Listen(listen, error)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    if outcome.is_ok() {
        candidate.release().await;
    }
    outcome
}

/// What the leader does.
async fn operate(
    options: &Options,
    client: &Client,
    cache: &Arc<Cache>,
    metrics: &Arc<Metrics>,
    ready: &watch::Sender<bool>,
    tell: &Tell,
) {
    if options.install_crds {
        install::definitions(client, tell).await;
    }
    let watched = resources::ALL.into_iter().filter(|resource| resource.watched.is_some());
    let complaints = Arc::default();
    let (mut lists, mut listed) = (Vec::new(), Vec::new());
    for resource in watched {
        let (sender, receiver) = watch::channel(false);
        listed.push(receiver);
        let (cache, complaints) = (Arc::clone(cache), Arc::clone(&complaints));
        lists.push(follow(client.clone(), resource, cache, sender, complaints, Arc::clone(tell)));
    }
    let decide = async {
        for mut receiver in listed {
            if let Err(error) = receiver.wait_for(|listed| *listed).await {
                tell(Notice::Trouble(format!("a list ended: {}", chain(&error))));
            }
        }
        tell(Notice::Done(format!("{} objects are listed", cache.len())));
        // Lists come as they are at the server; what is kept of them is a small part.
        (options.give_back)();
        ready.send_replace(true);
        let concurrent = options.concurrent_writes.max(1);
        let executor = Arc::new(Executor {
            client: client.clone(),
            permits: Semaphore::new(concurrent),
            metrics: Arc::clone(metrics),
            tell: Arc::clone(tell),
        });
        let admitter =
            Admitter { cache: Arc::clone(cache), executor: Arc::clone(&executor), runs_max: options.settings.runs_max };
        let control = Control {
            cache: Arc::clone(cache),
            executor,
            settings: options.settings.clone(),
            deciding: Semaphore::new(1),
            concurrent,
            metrics: Arc::clone(metrics),
            tell: Arc::clone(tell),
        };
        tokio::join!(control.run(), admitter.run());
    };
    tokio::join!(join_all(lists), decide);
}
