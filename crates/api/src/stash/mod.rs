//! The kinds of `stash.appscode.com`: `Restic` in `v1alpha1`, the others in `v1alpha2`.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct, with its visibility, into a function body")]
#![allow(clippy::duplicated_attributes, reason = "printer columns have fields of the same value")]

mod agent_template;
mod backup;
mod backup_template;
mod backup_trigger;
mod recovery;
mod repository;
mod restic;
mod status;

pub use agent_template::{AgentTemplate, AgentTemplateSpec};
pub use backup::{Backup, BackupSettings, BackupSpec, Compression, RetryConfig};
pub use backup_template::{BackupTemplate, BackupTemplateSpec};
pub use backup_trigger::{BackupTrigger, BackupTriggerSpec, BackupTriggerStatus, TriggerPhase};
pub use recovery::{
    RecoverTo, RecoveredVolume, Recovery, RecoveryHostStatus, RecoveryPhase, RecoveryPolicy, RecoverySpec,
    RecoveryStat, RecoveryStatus,
};
pub use repository::{DeletionPolicy, Repository, RepositoryFacts, RepositorySpec, RepositoryStatus};
pub use restic::{
    FileGroup, Restic, ResticDestination, ResticForm, ResticFormError, ResticSource, ResticSpec, ResticType,
};
pub use status::{Admission, BackupPhase, BackupRun, BackupStatus, HostStatus, RunPhase, RunningRun};

/// API group of the kinds.
pub const GROUP: &str = "stash.appscode.com";

#[cfg(test)]
mod rules;
