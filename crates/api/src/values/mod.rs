//! Parsed values: each is checked once, at the edge, and cannot be wrong afterwards.
//!
//! A value prints itself in the form it parses, and its error says what was expected.

mod attributes;
mod backend;
mod condition;
mod duration;
mod quantity;
mod reference;
mod retention;
mod schedule;
mod secret;
mod time_zone;
mod volume;

pub use attributes::{ContainerAttributes, PodAttributes, Resources};
pub use backend::{
    AzureBackend, B2Backend, Backend, BackendKind, GcsBackend, LocalBackend, RestBackend, S3Backend, SwiftBackend,
};
pub use condition::{condition, is_true, set_condition};
pub use duration::{Duration, DurationError};
pub use quantity::{Quantity, QuantityError};
pub use reference::{AgentReference, ObjectReference, TargetReference};
pub use retention::{
    CalendarSpan, CalendarSpanError, KeepCount, LegacyRetentionPolicy, RetentionError, RetentionPolicy,
};
pub use schedule::{Due, Schedule, ScheduleError, Timing};
pub use secret::Secret;
pub use time_zone::{TimeZone, TimeZoneError};
pub use volume::VolumeSource;
