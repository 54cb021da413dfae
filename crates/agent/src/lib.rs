//! The agent: one piece of work at a time, as it runs on a machine or in a pod: backup, recovery, retention, check; and
//! the program that does them on their schedules, from a folder of manifests or the objects of a cluster, reporting truthfully.
//!
//! Decides nothing that the planner can decide, and prints nothing: what a person should read goes to a
//! callback, what programs should read is served over HTTP.

pub mod backup;
pub mod folder;
mod follow;
pub mod http;
pub mod journal;
pub mod open;
pub mod pod;
pub mod recovery;
pub mod retention;
pub mod standalone;
pub mod state;
pub mod status;
pub mod volumes;
mod way_out;
mod work;
mod world;
