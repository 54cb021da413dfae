//! `watch`, `backup`, `recover`, `init`, `update-repo-status`, `update-recovery-status` and `wipe`: what the containers run
//! that the operator puts into pods. The flags are those that published AgentTemplates pass.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use holdfast_agent::pod::{self, CommandError, Ended, Identity, Options, PodError, Scope};
use holdfast_agent::standalone::{FollowError, Notice};
use holdfast_api::names::pod as names;
use holdfast_plan::{Target, TargetKind};

use crate::failure::{Failure, Result, code};
use crate::output::Output;
use crate::standalone::{Talk, stop_flag};

/// Where the sidecar serves metrics.
const LISTEN: &str = "0.0.0.0:56790";

/// What every container of ours is given.
#[derive(Debug, Args)]
pub(crate) struct PodArgs {
    /// What is worked for, as `Deployment/web` or `PersistentVolumeClaim/data`
    #[arg(long, value_name = "KIND/NAME")]
    target: Option<String>,
    /// A Prometheus Pushgateway that metrics are pushed to after each run
    #[arg(long, value_name = "URL", env = names::PUSH_GATEWAY_URL)]
    pushgateway_url: Option<String>,
    /// Accepted for templates that pass it: the status is always written
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, hide = true)]
    enable_status_subresource: Option<Option<String>>,
    /// Accepted for templates that pass it: nothing is ever sent home
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, hide = true)]
    enable_analytics: Option<Option<String>>,
    /// The folder below which everything is mounted
    #[arg(long, value_name = "DIR", default_value = names::ROOT, hide = true)]
    root: PathBuf,
    /// After how many seconds another pod of the workload takes over from one that is silent
    #[arg(long, default_value = "300", value_parser = clap::value_parser!(u64).range(1..=3600), hide = true)]
    lease_seconds: u64,
    /// For how many seconds a recovery that failed by what its Secret holds waits for another one
    #[arg(long, default_value = "3600", value_parser = clap::value_parser!(u64).range(..=86_400), hide = true)]
    secret_seconds: u64,
}

/// Follow the schedules of everything that protects a workload, in a pod of it
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pod: PodArgs,
    /// Where /metrics, /healthz and /status are served
    #[arg(long, default_value = LISTEN)]
    listen: SocketAddr,
    /// How many runs may go on at once
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    slots: u16,
}

/// Run a Backup once; with HOLDFAST_FOLLOW_SCHEDULE=true, follow its schedule
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pod: PodArgs,
    /// The Backup
    #[arg(long, value_name = "NAME", env = names::BACKUP_NAME)]
    backup_name: String,
    /// Follow the schedule of the Backup
    #[arg(long)]
    follow_schedule: bool,
}

/// Carry out a Recovery for this pod, unless that was done already
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pod: PodArgs,
    /// The Recovery
    #[arg(long, value_name = "NAME", env = names::RECOVERY_NAME)]
    recovery_name: String,
}

/// Make the repository of a Backup, unless it exists
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pod: PodArgs,
    /// The Backup
    #[arg(long, value_name = "NAME", env = names::BACKUP_NAME)]
    backup_name: String,
}

/// Tell how the repository of a Backup stands, and push metrics
#[derive(Debug, Args)]
pub(crate) struct UpdateRepoStatusArgs {
    #[command(flatten)]
    pod: PodArgs,
    /// The Backup
    #[arg(long, value_name = "NAME", env = names::BACKUP_NAME)]
    backup_name: String,
    /// The file of metrics that another container of the pod wrote
    #[arg(long, value_name = "FILE")]
    metrics_dir: Option<String>,
}

/// Tell that a Recovery is done, and push metrics
#[derive(Debug, Args)]
pub(crate) struct UpdateRecoveryStatusArgs {
    #[command(flatten)]
    pod: PodArgs,
    /// The Recovery
    #[arg(long, value_name = "NAME", env = names::RECOVERY_NAME)]
    recovery_name: String,
    /// The file of metrics that another container of the pod wrote
    #[arg(long, value_name = "FILE")]
    metrics_dir: Option<String>,
}

/// Delete everything in a Repository, for good
#[derive(Debug, Args)]
pub(crate) struct WipeArgs {
    #[command(flatten)]
    pod: PodArgs,
    /// The Repository
    #[arg(long, value_name = "NAME")]
    repository_name: String,
}

pub(crate) fn watch(args: &WatchArgs, output: &Output) -> Result<u8> {
    let target = args.pod.target()?.ok_or_else(no_target)?;
    let mut options = args.pod.options(Scope::Workload(target))?;
    options.slots = usize::from(args.slots);
    options.listen = free(args.listen, output);
    follow(&options, output)
}

pub(crate) fn backup(args: &BackupArgs, output: &Output) -> Result<u8> {
    let target = args.pod.target()?.ok_or_else(no_target)?;
    let mut options = args.pod.options(Scope::Backup { target, name: args.backup_name.clone() })?;
    options.follow = args.follow_schedule;
    follow(&options, output)
}

pub(crate) fn recover(args: &RecoverArgs, output: &Output) -> Result<u8> {
    let scope = Scope::Recovery { target: args.pod.target()?, name: args.recovery_name.clone() };
    follow(&args.pod.options(scope)?, output)
}

pub(crate) fn init(args: &InitArgs, output: &Output) -> Result<u8> {
    let target = args.pod.target()?.ok_or_else(no_target)?;
    let options = args.pod.options(Scope::Backup { target, name: args.backup_name.clone() })?;
    once(output, |stop, tell| pod::init(&options, stop, tell))
}

pub(crate) fn update_repo_status(args: &UpdateRepoStatusArgs, output: &Output) -> Result<u8> {
    let target = args.pod.target()?.ok_or_else(no_target)?;
    let options = args.pod.options(Scope::Backup { target, name: args.backup_name.clone() })?;
    let file = args.metrics_dir.as_deref();
    once(output, |stop, tell| pod::update_repository_status(&options, file, stop, tell))
}

pub(crate) fn update_recovery_status(args: &UpdateRecoveryStatusArgs, output: &Output) -> Result<u8> {
    let scope = Scope::Recovery { target: args.pod.target()?, name: args.recovery_name.clone() };
    let options = args.pod.options(scope)?;
    let file = args.metrics_dir.as_deref();
    once(output, |stop, tell| pod::update_recovery_status(&options, file, stop, tell))
}

pub(crate) fn wipe(args: &WipeArgs, output: &Output) -> Result<u8> {
    let options = args.pod.options(Scope::Repository { name: args.repository_name.clone() })?;
    once(output, |stop, tell| {
        let count = pod::wipe(&options, stop, tell)?;
        tell(Notice::Note(format!("Repository {}: {count} files are deleted", args.repository_name)));
        Ok(())
    })
}

impl PodArgs {
    /// The workload or claim; none where the target is another object, as in the pod of a Job that recovers into volumes.
    fn target(&self) -> Result<Option<Target>> {
        let Some(target) = self.target.as_deref().filter(|target| !target.is_empty()) else { return Ok(None) };
        let wrong = || {
            Failure::with_hint(
                format!("--target {target}: not a kind and a name"),
                "write it as in `Deployment/web`; the operator sets HOLDFAST_TARGET",
            )
        };
        let (kind, name) = target.split_once('/').ok_or_else(wrong)?;
        let namespace = std::env::var(names::POD_NAMESPACE).unwrap_or_default();
        match TargetKind::parse(kind) {
            Some(kind) => Ok(Some(Target::new(kind, namespace, name))),
            None if ["Recovery", "Repository"].contains(&kind) => Ok(None),
            None => Err(wrong()),
        }
    }

    fn options(&self, scope: Scope) -> Result<Options> {
        let identity = Identity::from_environment(&scope).map_err(failure)?;
        // A variable that a template names and nobody sets stays as it is written.
        let is_set = |url: &String| !url.is_empty() && !url.starts_with("$(");
        Ok(Options {
            scope,
            follow: false,
            identity,
            root: self.root.clone(),
            listen: None,
            pushgateway: self.pushgateway_url.clone().filter(is_set),
            slots: 1,
            lease: Duration::from_secs(self.lease_seconds),
            wait_for_secret: Duration::from_secs(self.secret_seconds),
        })
    }
}

fn no_target() -> Failure {
    Failure::with_hint("nothing says what is to be backed up", "name it by --target, as `Deployment/web`")
}

fn failure(error: PodError) -> Failure {
    let hint = match &error {
        PodError::Environment(_) => "outside of a cluster use `holdfast standalone`",
        PodError::Config(_) | PodError::Client(_) => {
            "in a pod: is the token of its service account mounted? elsewhere: name a kubeconfig by KUBECONFIG"
        }
        PodError::Thread(_) | PodError::Follow(FollowError::Thread(_)) => {
            "does a limit of processes keep it from starting threads?"
        }
        PodError::Follow(FollowError::Listen { .. }) => "choose another address by --listen",
    };
    Failure::new(error).hinting(hint)
}

/// The address if nobody has it: backups are worth more than their metrics.
fn free(address: SocketAddr, output: &Output) -> Option<SocketAddr> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => Some(address),
        Err(error) => {
            output.problem(format!("error: cannot serve metrics at {address}: {error}; going on without"));
            None
        }
    }
}

fn follow(options: &Options, output: &Output) -> Result<u8> {
    let stop = stop_flag()?;
    let mut talk = Talk::in_pod(output);
    let Ended { summary, failure: why } = pod::run(options, &stop, &mut |notice| talk.say(&notice)).map_err(failure)?;
    match why {
        Some(why) => Err(Failure::new(anyhow::anyhow!("{why}"))),
        None if summary.interrupted && matches!(options.scope, Scope::Recovery { .. }) => Ok(code::INTERRUPTED),
        None => Ok(code::SUCCESS),
    }
}

fn once(
    output: &Output,
    work: impl FnOnce(&AtomicBool, &mut dyn FnMut(Notice<'_>)) -> Result<(), CommandError>,
) -> Result<u8> {
    let stop: Arc<AtomicBool> = stop_flag()?;
    let mut talk = Talk::in_pod(output);
    match work(&stop, &mut |notice| talk.say(&notice)) {
        Ok(()) => Ok(code::SUCCESS),
        Err(CommandError::Pod(error)) => Err(failure(error)),
        Err(error) => Err(Failure::new(error)),
    }
}
