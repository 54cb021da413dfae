//! The way to the API server: one thread for everything that waits for it.

use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_api::kinds;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client, Config};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::PodError;

/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);

/// A thread with a client of the API server.
pub(super) struct Connection {
    handle: Handle,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// No answer in time.
    #[error("no answer from the API server within {} s", CALL_WITHIN.as_secs())]
    Late,
    /// The API server refused, or could not be reached.
    #[error("{}", reason(.0))]
    Kube(#[from] kube::Error),
}

impl CallError {
    /// The code of the answer; none where there was no answer.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether it was not allowed.
    pub(super) fn is_refused(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether the same call would fail for ever.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 404 | 405 | 409 | 413 | 422))
    }
}

/// The reason in words, without the structures of the client.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => holdfast_repository::chain(other),
    }
}

impl Connection {
    /// Finds the API server by `KUBECONFIG`, or as a pod does.
    pub(super) fn open() -> Result<Self, PodError> {
        // Whoever was first has chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PodError::Thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("api".into())
            .spawn(move || {
                runtime.block_on(async {
                    let _ = stopped.await;
                });
                // Calls that are under way are of no use any more.
                runtime.shutdown_background();
            })
            .map_err(PodError::Thread)?;
        let config = handle.block_on(Config::infer()).map_err(|error| PodError::Config(Box::new(error)))?;
        let client = {
            let _inside = handle.enter();
            Client::try_from(config).map_err(|error| PodError::Client(Box::new(error)))?
        };
        Ok(Self { handle, client, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// What other threads call the API server by.
    pub(super) fn caller(&self) -> Caller {
        Caller { handle: self.handle.clone(), client: self.client.clone() }
    }

    /// Runs a task beside everything else.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    /// Waits for a call.
    pub(super) fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        self.handle.block_on(within(call))
    }

    /// Waits for a task.
    pub(super) fn wait<T>(&self, task: impl Future<Output = T>) -> T {
        self.handle.block_on(task)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Calls the API server from any thread, for as long as there is a [`Connection`].
#[derive(Clone)]
pub(super) struct Caller {
    handle: Handle,
    pub(super) client: Client,
}

impl Caller {
    /// Waits for a call.
    pub(super) fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        self.handle.block_on(within(call))
    }
}

/// A call that does not wait for ever.
pub(super) async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_WITHIN, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CallError::Late),
    }
}

/// The objects of a kind that Holdfast knows.
pub(super) fn api(client: &Client, namespace: &str, kind: &str) -> Option<Api<DynamicObject>> {
    let known = kinds::KNOWN.iter().find(|known| known.kind == kind)?;
    let resource = ApiResource {
        group: known.group.to_owned(),
        version: known.version.to_owned(),
        api_version: known.api_version(),
        kind: known.kind.to_owned(),
        plural: known.plural.to_owned(),
    };
    Some(Api::namespaced_with(client.clone(), namespace, &resource))
}
