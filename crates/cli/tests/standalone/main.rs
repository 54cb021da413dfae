//! `holdfast` as a person uses it on one machine: the real binary, real folders, and restic as the judge of what
//! it stored.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod backup;
mod commands;
mod environment;
mod failure;
mod gcs;
mod machine;
mod manifest;
mod protect;
mod recovery;
mod restic;
mod s3;
#[path = "../../../../tests/servers/mod.rs"]
mod servers;
mod service;
