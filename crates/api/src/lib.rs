//! Everything of Holdfast that crosses a process boundary: the kinds a user writes, their status, and the
//! parsed values inside them.
//!
//! - [`values`][]: schedules, durations, quantities, retention, backends: types that cannot hold a wrong value.
//! - [`stash`][]: `Restic`, `Repository`, `Backup`, `Recovery`, `BackupTrigger`, `BackupTemplate`, `AgentTemplate`.
//! - [`appcatalog`][]: `AppBinding`.
//! - [`names`][]: labels, annotations, secret keys and event reasons that users and dashboards rely on.
//! - [`kinds`][]: which kinds are known and the JSON schema of each.
//! - [`crds`][]: the CustomResourceDefinitions generated from the types.
//!
//! This crate never reads a file (but for the rules of time zones that `jiff` looks up), opens a socket or asks a
//! clock, and imports no other crate of Holdfast.

pub mod appcatalog;
pub mod crds;
pub mod kinds;
pub mod manifest;
pub mod names;
pub mod stash;
pub mod values;
