//! `/metrics`, `/healthz` and `/status` on the loopback address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::oneshot;

/// What is served; replaced whole after every step.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// `/metrics`.
    pub metrics: String,
    /// `/status`, JSON.
    pub status: String,
    /// `/healthz`: why the program cannot do its work, if it cannot.
    pub trouble: Option<String>,
}

/// A running server; dropped, it stops.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `page` at `address`; port 0 takes any that is free.
    pub fn start(address: SocketAddr, page: Arc<Mutex<Page>>) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("http".into()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                let router = Router::new()
                    .route("/metrics", get(metrics))
                    .route("/status", get(status))
                    .route("/healthz", get(healthz))
                    .with_state(page);
                let serve = axum::serve(listener, router);
                // A reader that keeps its connection open must not keep the program from ending.
                tokio::select! {
                    _ = serve.into_future() => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Pages = Shared<Arc<Mutex<Page>>>;

fn read(Shared(page): Pages) -> Page {
    page.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn metrics(page: Pages) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], read(page).metrics).into_response()
}

async fn status(page: Pages) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], read(page).status).into_response()
}

async fn healthz(page: Pages) -> Response {
    match read(page).trouble {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}
