//! The program as it runs in pods, on a bare API server: the tests play the operator and the kubelet.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod manifest;
mod pod;
mod proxy;
mod server;
#[path = "../../../../tests/servers/mod.rs"]
mod servers;
mod watch;
