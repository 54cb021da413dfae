//! `run`: the operator of a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::{ArgAction, Args, ValueEnum};
use holdfast_operator::{Notice, Options, Settings, Tell};
use holdfast_repository::memory;
use jiff::Timestamp;
use serde_json::json;

use crate::failure::{Failure, Result, code};
use crate::output::Output;

/// The operator.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The image of the containers that it adds to workloads and runs in Jobs, which is its own
    #[arg(long)]
    image: String,
    /// The image of these containers, at once and everywhere. Without it those that are there keep theirs until something
    /// else of them changes
    #[arg(long, value_name = "IMAGE")]
    agent_image: Option<String>,
    /// When that image is pulled
    #[arg(long, value_enum)]
    image_pull_policy: Option<PullPolicy>,
    /// The namespace of the Lease by which one of several operators leads [default: that of the pod or kubeconfig]
    #[arg(long)]
    namespace: Option<String>,
    /// Its name among several operators, which no other has [default: the host name]
    #[arg(long)]
    identity: Option<String>,
    /// Create and update the CustomResourceDefinitions
    #[arg(long, action = ArgAction::Set, default_value_t = true, value_name = "BOOL")]
    install_crds: bool,
    /// How many writes to the API server go on at once
    #[arg(long, default_value_t = 16, value_name = "N")]
    max_concurrent_writes: usize,
    /// How many Jobs of backups and recoveries run at once in one namespace
    #[arg(long, default_value_t = 4, value_name = "N")]
    max_concurrent_jobs: usize,
    /// How many scheduled backups go on at once in the cluster; the others wait for up to an hour. 0 for no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_concurrent_runs: usize,
    /// The Pushgateway that backups and recoveries push their metrics to
    #[arg(long, value_name = "URL", env = holdfast_api::names::pod::PUSH_GATEWAY_URL)]
    pushgateway_url: Option<String>,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
}

/// The values of `imagePullPolicy`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PullPolicy {
    #[value(name = "Always")]
    Always,
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    #[value(name = "Never")]
    Never,
}

pub(crate) fn run(args: RunArgs, output: &Output) -> Result<u8> {
    let agent_image = args.agent_image.filter(|image| !image.is_empty());
    let settings = Settings {
        image_pull_policy: args.image_pull_policy.map(|policy| format!("{policy:?}")),
        pushgateway_url: args.pushgateway_url.filter(|url| !url.is_empty()),
        jobs_max: args.max_concurrent_jobs.max(1),
        runs_max: Some(args.max_concurrent_runs).filter(|limit| *limit > 0),
        is_image_said: agent_image.is_some(),
        ..Settings::new(agent_image.unwrap_or(args.image))
    };
    let options = Options {
        settings,
        namespace: args.namespace,
        identity: args.identity.unwrap_or_else(host_name),
        install_crds: args.install_crds,
        concurrent_writes: args.max_concurrent_writes,
        listen: args.listen,
        give_back: memory::give_back,
    };
    memory::share_one_arena();
    let output = *output;
    let tell: Tell = Arc::new(move |notice| told(&output, &notice));
    holdfast_operator::run(options, tell).map_err(Failure::new)?;
    Ok(code::SUCCESS)
}

/// The name of the machine, which in a pod is the pod's.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn told(output: &Output, notice: &Notice) {
    let now = Timestamp::now();
    let (kind, message) = match notice {
        Notice::Done(message) => ("done", message),
        Notice::Trouble(message) => ("error", message),
    };
    if output.is_json() {
        // A reader that went away must not end a program that guards data.
        let _ = output.line(&json!({"messageType": kind, "time": now, "message": message}).to_string());
        return;
    }
    let line = format!("{now:.0} {message}");
    match notice {
        Notice::Done(_) => output.note(line),
        Notice::Trouble(_) => output.problem(line),
    }
}
