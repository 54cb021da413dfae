//! From manifests to decisions: which workload is protected by what, from which directories, into which
//! repository, under which host name, what is due when, and what a recovery restores where.
//!
//! [`plan`] is pure: it reads no file, asks no clock, draws no random number and contacts nobody. The same
//! objects, the same past and the same `now` give the same [`Plan`], so that `holdfast standalone`,
//! `holdfast plan` and the operator decide alike, and a folder with the expected plan beside it is a test.
//!
//! One object that is wrong never stops the others: it is missing from the plan, and an error says where
//! it stands and what to do.

mod backup;
mod collision;
mod due;
mod host;
mod index;
mod key;
mod mount;
mod observed;
mod path;
mod planned;
mod queue;
mod recovery;
mod report;
mod repository;
mod restic;
mod retry;
mod revision;
mod source;
mod target;
mod template;
mod trigger;
mod variables;
mod volume;

use holdfast_api::manifest::Outcome;
use holdfast_api::names::secret_keys;
use holdfast_api::values::Secret;
use jiff::Timestamp;

pub use host::Host;
pub use key::{ObjectKey, Target, TargetKind};
pub use observed::{BackupHistory, Observed, RecoveryHistory};
pub use planned::{
    Due, Generated, Plan, PlannedBackup, PlannedRecovery, PlannedRepository, PlannedSnapshot, PlannedTrigger, Reason,
    RecoveryState, Restore, Retention, SnapshotChoice, Wait,
};
pub use retry::Retry;
pub use source::{Directory, DirectorySource, Files, Mount, PodVolume, Volume};
pub use target::CLAIM_MOUNT_PATH;
pub use template::MANAGED_BY;

use index::Index;
use recovery::Writers;
use report::{Finding, Report};
use repository::{Draft, Repositories};
use target::Lookup;

/// Where the plan is carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// On a machine, from a folder of manifests: volumes are directories of the machine, Secrets are manifests.
    #[default]
    Folder,
    /// On a cluster, as the operator sees it: every volume is mounted into the pod that does the work, and no Secret is
    /// looked at. A StatefulSet has at least one host, a DaemonSet the one of [`Settings::node`].
    Cluster,
    /// In a pod of a cluster, as the agent sees it. What was made from a template is read as if it were written, and a
    /// Secret that is missing is no mistake of a manifest: the run tells.
    Pod {
        /// Only this host is planned, by [`Host::instance`]; none: all hosts.
        host: Option<String>,
        /// UID of the pod: a new pod is a new start of the workload.
        uid: String,
    },
}

impl Place {
    /// Whether volumes are mounted into pods.
    pub(crate) fn has_mounts(&self) -> bool {
        *self != Self::Folder
    }
}

/// What the planner is told besides objects and their past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the plan is carried out.
    pub place: Place,
    /// The present.
    pub now: Timestamp,
    /// When the program started: for a `recoveryPolicy: Always` that is a start of every workload.
    pub started: Timestamp,
    /// The folder that relative names of manifests are relative to, absolute.
    pub folder: String,
    /// The folder of volumes without a directory of their own, absolute. On a cluster: the folder below which volumes are
    /// mounted.
    pub volumes: String,
    /// The name of this machine or node, under which the pods of a DaemonSet are known.
    pub node: String,
    /// How many runs may go on at once.
    pub slots: usize,
    /// The types of stores that can be used, as the fields of a backend: `local`, `s3`, ….
    pub stores: Vec<String>,
    /// The key under which [`PlannedBackup::revision`] is made: random, the same over restarts, and kept to this
    /// installation, since what Secrets hold goes into it. With another one every failed run looks mended. Default: zeros.
    pub revision_key: Secret<[u8; 32]>,
}

impl Settings {
    /// Settings for a cluster at `now`, where nothing has a file name; otherwise like [`Settings::new`].
    pub fn on_cluster(now: Timestamp, place: Place, node: impl Into<String>) -> Self {
        Self { place, ..Self::new(now, "/", holdfast_api::names::pod::ROOT, node) }
    }

    /// Settings for a folder of manifests at `now`, with every type of store and four runs at once.
    pub fn new(now: Timestamp, folder: impl Into<String>, volumes: impl Into<String>, node: impl Into<String>) -> Self {
        Self {
            place: Place::Folder,
            now,
            started: now,
            folder: folder.into(),
            volumes: volumes.into(),
            node: node.into(),
            slots: 4,
            stores: ["local", "s3", "gcs", "azure", "swift", "b2", "rest"].map(str::to_owned).into(),
            revision_key: Secret::default(),
        }
    }
}

/// Decides what would be done. The mistakes in `outcome` pass into the plan, so that it holds everything
/// that is wrong.
pub fn plan(outcome: &Outcome, observed: &Observed, settings: &Settings) -> Plan {
    let mut report = Report::new(outcome.errors.clone(), outcome.warnings.clone());
    let index = Index::new(outcome, &settings.folder);
    let lookup = Lookup { index: &index, settings };
    // What is made from a template comes first: it takes the place of the same object found as a manifest.
    let mut repositories = Repositories::default();
    let (generated, mut backups) = if matches!(settings.place, Place::Pod { .. }) {
        (Vec::new(), Vec::new())
    } else {
        template::plan_all(lookup, &mut repositories, &mut report)
    };
    plan_repositories(lookup, &mut repositories, &mut report);
    backups.extend(restic::plan_all(lookup, &mut repositories, &mut report));
    backups.extend(backup::plan_all(lookup, &repositories, &mut report));
    backups.sort_by(|a, b| a.planned.id.cmp(&b.planned.id));
    collision::warn(lookup, &repositories, &backups, &mut report);
    let triggers = trigger::plan_all(lookup, &backups, observed, &mut report);
    let mut recoveries = {
        let writers = Writers::new(&backups, |repository| repositories.location(repository));
        recovery::plan_all(lookup, &repositories, &writers, observed, &mut report)
    };
    let repositories = repositories.into_planned();
    revision::fill(&index, settings, &repositories, &mut backups, &mut recoveries);
    let due::Agenda { due, next } =
        due::agenda(settings, observed, &repositories, &mut backups, &mut recoveries, &triggers);
    report_failed(&index, observed, &recoveries, &mut report);
    let (errors, warnings) = report.finish();
    let backups = backups.into_iter().map(|backup| backup.planned).collect();
    Plan { repositories, backups, recoveries, triggers, generated, due, next, errors, warnings }
}

/// A recovery that failed for good may hold up the backups of what it writes: that must not pass unnoticed.
fn report_failed(index: &Index<'_>, observed: &Observed, recoveries: &[PlannedRecovery], report: &mut Report) {
    for recovery in recoveries.iter().filter(|recovery| recovery.state == RecoveryState::Failed) {
        let ObjectKey { namespace, name, .. } = &recovery.object;
        if let Some(found) = index.recoveries.get(&(namespace.as_str(), name.as_str())) {
            let problem = if queue::holds_backups(recovery, observed) {
                "it failed as often as it may be tried; backups of what it writes wait for it"
            } else {
                "it found no snapshot to restore, as often as it may be tried"
            };
            report.errors(found.manifest, Finding::new("", problem).suggest("correct it or remove it"));
        }
    }
}

fn plan_repositories(lookup: Lookup<'_>, repositories: &mut Repositories, report: &mut Report) {
    for ((namespace, name), repository) in &lookup.index.repositories {
        let spec = &repository.object.spec;
        if template::is_generated(lookup, &repository.object.metadata) {
            if !repositories.contains(namespace, name) {
                let (label, value) = MANAGED_BY;
                let problem = "it was made for a workload that does not ask for it any more, and is not used";
                let finding = Finding::new("metadata.labels", problem);
                let way_out = format!("to keep it, remove the label `{label}: {value}`");
                report.warnings(repository.manifest, finding.suggest(way_out));
            }
            continue;
        }
        let draft = Draft {
            manifest: repository.manifest,
            namespace,
            name,
            backend: &spec.backend,
            field: "spec.backend",
            below: None,
            password_keys: &[secret_keys::RESTIC_PASSWORD],
            made_by: None,
        };
        let mut warnings = Vec::new();
        let planned =
            draft.plan(lookup, &mut warnings).map_err(|findings| report.errors(repository.manifest, findings));
        report.warnings(repository.manifest, warnings);
        repositories.add(namespace, name, &spec.allowed_namespaces, planned.ok());
    }
}
