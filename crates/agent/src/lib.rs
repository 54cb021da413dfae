//! The agent: one piece of work at a time, as it runs on a machine: backup, recovery, retention, check; and
//! the program that does them from a folder of manifests on their schedules, reporting truthfully.
//!
//! Decides nothing that the planner can decide, and prints nothing: what a person should read goes to a
//! callback, what programs should read is served over HTTP.

pub mod backup;
pub mod folder;
pub mod http;
pub mod journal;
pub mod open;
pub mod recovery;
pub mod retention;
pub mod standalone;
pub mod state;
pub mod status;
mod volume_root;
pub mod volumes;
mod way_out;
mod work;
