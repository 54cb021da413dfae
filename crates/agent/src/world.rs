//! Where the loop works: a folder of a machine, or a pod of a cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_api::manifest::Outcome as Manifests;
use holdfast_plan::{ObjectKey, Plan, Settings};
use holdfast_repository::HolderIsGone;
use jiff::Timestamp;

use crate::follow::{PLAN_EVERY, Summary, Tell};
use crate::journal::Event;
use crate::state::State;

/// What the loop asks of where it works. What is given here suits a place where nobody else works.
pub(crate) trait World {
    /// The objects, as they were last read.
    fn manifests(&self) -> &Arc<Manifests>;

    /// What the planner is told besides objects and their past.
    fn settings(&self, now: Timestamp) -> Settings;

    /// The folder below which volumes are.
    fn volumes(&self) -> PathBuf;

    /// Who knows whether the holder of a lock is gone.
    fn holder_is_gone(&self) -> Option<HolderIsGone> {
        None
    }

    /// Reads the objects again. Whether there is something new.
    fn read_again(&mut self, tell: Tell<'_>) -> bool;

    /// How long at most until it is looked again.
    fn looks_every(&self) -> Duration {
        PLAN_EVERY
    }

    /// Whether nothing tells of changes, so that they have to be looked for.
    fn is_to_be_asked(&self) -> bool {
        false
    }

    /// Why the objects cannot be read, if they cannot.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Whether this program is the one that works, of several that could.
    fn has_turn(&self) -> bool {
        true
    }

    /// As [`has_turn`](Self::has_turn), and brings `state` up to date with what others have done.
    fn turn(&mut self, _state: &mut State) -> bool {
        self.has_turn()
    }

    /// Hears what was planned, whoever's turn it is.
    fn planned(&mut self, _plan: &Plan) {}

    /// Adds to what is due what was asked for in another way than by objects, and has wait what is not to begin yet.
    fn ask_for_more(&mut self, _plan: &mut Plan, _summary: &Summary) {}

    /// Whether what is due of an object is started here.
    fn takes(&self, _object: &ObjectKey) -> bool {
        true
    }

    /// Whether, while nothing runs, there is nothing left to wait for.
    fn is_done(&mut self, plan: &Plan, state: &State, summary: &Summary) -> bool;

    /// Keeps what is remembered, where it outlives the program.
    fn save(&mut self, state: &State) -> Result<(), String>;

    /// Tells of an event.
    fn report(&mut self, event: &Event) -> Result<(), String>;

    /// Tells everybody how things stand.
    fn publish(&mut self, _plan: &Plan, _state: &State, _metrics: &str) {}
}
