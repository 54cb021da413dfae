//! Holdfast on a real Kubernetes. Run by `cargo xtask test e2e`, inside the namespaces of a cluster that it starts.
//!
//! Every test has a Kubernetes namespace of its own and runs beside the others; what disturbs everybody (a restart of
//! the API server, a node that is cut off) has a cluster for itself, see [`alone`]. Nothing here sleeps to wait and
//! nothing is skipped.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why on its output"
)]

mod alone;
mod changes;
mod chaos;
mod clock;
mod defaults;
mod faults;
mod harness;
mod kinds;
mod limits;
mod operator;
mod people;
mod platform;
mod restricted;
mod scale;
mod seeds;
