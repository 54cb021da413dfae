//! `holdfast repo …` as a person uses it, held against the stock restic binary.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is a test")]

mod answers;
mod bench;
mod bucket;
mod copy;
mod disk;
mod exit_codes;
mod locks;
mod passwords;
mod round_trip;
mod selection;
#[path = "../../../../tests/servers/mod.rs"]
mod servers;
