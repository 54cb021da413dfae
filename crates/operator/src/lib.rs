//! The operator: watches the objects of a cluster, decides purely what follows from them, and applies it.
//!
//! [`decide()`] is the judgement: from the objects of a namespace and the present to a list of [`Action`]s. It plans by
//! `holdfast_plan`, as standalone mode and the agents do, asks no clock and contacts nobody.
//!
//! [`run()`] is the program around it: whoever holds the Lease watches what matters into a small cache, decides on each
//! namespace that changed, and carries out what was decided. Only this half is asynchronous.
//!
//! The operator reads no backup data, opens no repository, and sees no Secret.

mod access;
mod action;
mod admission;
mod admit;
mod cache;
mod complaint;
mod container;
mod control;
mod dead;
mod decide;
mod event;
mod execute;
mod generated;
mod history;
mod install;
mod job;
mod leader;
pub mod merge;
mod metrics;
mod notice;
mod objects;
mod refusal;
mod resources;
mod restart;
mod run;
mod serve;
mod settings;
mod sidecar;
mod status;
mod templates;
mod tie;
mod trim;
mod watch;
mod wipe;
mod world;

pub use action::{Action, Decision};
pub use decide::{decide, decide_cluster};
pub use notice::{Notice, Tell};
pub use run::{Options, RunError, run};
pub use settings::Settings;
pub use sidecar::SIDECAR_ANNOTATION;
