//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::metrics::Metrics;

/// What is served.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) cache: Arc<Cache>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether it does its work, or waits to take it over.
    pub(crate) ready: watch::Receiver<bool>,
}

/// Serves for ever.
pub(crate) async fn serve(address: SocketAddr, served: Served) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(served);
    axum::serve(listener, router).await
}

async fn readyz(State(served): State<Served>) -> Response {
    if *served.ready.borrow() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not everything is listed yet\n").into_response()
    }
}

async fn metrics(State(served): State<Served>) -> Response {
    let text = tokio::task::spawn_blocking(move || served.metrics.text(&served.cache)).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
