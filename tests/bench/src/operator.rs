//! The operator, from outside: thousands of Backups are made through the API, the program is started as a plain process,
//! and what it takes is read from the kernel, from the API server's own counters and from the objects.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::Client;

use crate::made::{self, Scale};
use crate::process::{self, Operator};
use crate::requests::{self, Requests};
use crate::seen::Seen;
use crate::table::Table;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The program to measure
    #[arg(long)]
    program: PathBuf,
    /// The project's tool and the name of the cluster, to stop and start its API server
    #[arg(long, requires = "cluster")]
    xtask: PathBuf,
    #[arg(long)]
    cluster: String,
    #[command(flatten)]
    scale: Scale,
    /// How long nothing may be written when nothing changes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// How long the API server is away
    #[arg(long, default_value_t = 60)]
    outage_seconds: u64,
}

/// How long the operator may take to settle before that is a failure.
const SETTLE_WITHIN: Duration = Duration::from_secs(600);
/// The API server's process, by the name that the kernel has.
const API_SERVER: &str = "kube-apiserver";
/// How long everything is still before it counts as settled for good.
const QUIET: Duration = Duration::from_secs(15);

pub(crate) async fn measure(arguments: &Arguments, table: &mut Table) -> Result<()> {
    let Arguments { scale, .. } = arguments;
    let mut config = kube::Config::infer().await?;
    config.default_retry = false;
    let client = Client::try_from(config)?;
    made::definitions(&arguments.program)?;
    let began = Instant::now();
    made::objects(&client, scale).await?;
    eprintln!("{} Backups of {} workloads were made in {:.0?}", scale.backups, scale.workloads, began.elapsed());
    let seen = Seen::watch(client.clone());
    seen.wait("all objects to be seen", SETTLE_WITHIN, |all| {
        all.backups.len() == scale.backups && all.workloads.len() == scale.workloads
    })
    .await?;

    let before = Requests::now(&client).await?;
    let server = process::cpu_of(API_SERVER);
    let operator = Operator::start(&arguments.program)?;
    let began = operator.started();
    let settled = seen.wait("everything to settle", SETTLE_WITHIN, |all| all.is_settled()).await;
    let took = settled.with_context(|| operator.log())?.duration_since(began);
    let usage = operator.usage()?;
    table.row("settled after a start, nothing done before", "≤ 30 s", format!("{:.1} s", took.as_secs_f64()));
    table.row("processor time of the operator until then", "", format!("{:.1} s", usage.cpu_seconds));
    let server = process::cpu_of(API_SERVER) - server;
    table.row("processor time of the API server until then", "", format!("{server:.1} s"));
    let still = still(&client).await?;
    let calls = still.since(&before);
    table.row("writes until everything was still", "", calls.writes().to_string());
    table.fact(format!("calls of the start: {}", calls.text()));

    let before = (Requests::now(&client).await?, operator.writes().await?, operator.usage()?);
    let minutes = Duration::from_secs_f64(arguments.minutes * 60.0);
    eprintln!("settled after {took:.1?}; watching for writes for {minutes:.0?}");
    tokio::time::sleep(minutes).await;
    let calls = Requests::now(&client).await?.since(&before.0);
    let usage = operator.usage()?;
    let writes = operator.writes().await? - before.1;
    table.row(
        &format!("writes in {:.1} min without a change, but its Lease", arguments.minutes),
        "0",
        writes.to_string(),
    );
    table.row("the same at the API server, by whomever", "", calls.writes().to_string());
    let cpu = (usage.cpu_seconds - before.2.cpu_seconds) / minutes.as_secs_f64() * 100.0;
    table.row("processor time meanwhile", "", format!("{cpu:.2} % of a core"));
    table.fact(format!("calls without a change: {}", calls.text()));

    let before = Requests::now(&client).await?;
    let began = Instant::now();
    let generation = made::change(&client, "30 4 * * *").await?;
    let told = seen.wait("a change to be seen", SETTLE_WITHIN, |all| all.is_told(generation)).await?;
    let calls = self::still(&client).await?.since(&before).without_patch_of_backup();
    table.row(
        "one Backup changed: its status tells so",
        "",
        format!("{:.1} s", told.duration_since(began).as_secs_f64()),
    );
    table.row("one Backup changed: calls", "bounded", format!("{} ({})", calls.total(), calls.text()));
    table.row("peak memory so far", "≤ 100 MiB", format!("{:.0} MiB", operator.usage()?.peak_mib));

    outage(arguments, &client, operator, table).await
}

/// The API server goes away just after something changed of which the operator does not know yet.
async fn outage(arguments: &Arguments, client: &Client, mut operator: Operator, table: &mut Table) -> Result<()> {
    operator.signal("STOP")?;
    let generation = made::change(client, "45 4 * * *").await?;
    apiserver(arguments, "stop")?;
    operator.signal("CONT")?;
    eprintln!("the API server is away for {} s", arguments.outage_seconds);
    operator.keep_up(Duration::from_secs(arguments.outage_seconds)).await?;
    apiserver(arguments, "start")?;
    let asked = Instant::now();
    let every = Duration::from_millis(200);
    while requests::is_ready(client).await.is_err() {
        operator.keep_up(every).await?;
        if asked.elapsed() > SETTLE_WITHIN {
            bail!("the API server does not come back");
        }
    }
    let answers = Instant::now();
    while made::observed(client).await.unwrap_or(0) < generation {
        operator.keep_up(every).await?;
        if answers.elapsed() > SETTLE_WITHIN {
            bail!("the operator does not see what changed\n{}", operator.log());
        }
    }
    table.row(
        &format!("right again after the API server was away for {} s", arguments.outage_seconds),
        "≤ 15 s",
        format!("{:.1} s", answers.elapsed().as_secs_f64()),
    );
    table.row("starts of the process meanwhile", "", operator.restarts().to_string());
    let before = operator.writes().await?;
    still(client).await?;
    table.row("writes in the 15 s and more after that", "0", (operator.writes().await? - before).to_string());
    table.row("peak memory of the process then", "≤ 100 MiB", format!("{:.0} MiB", operator.usage()?.peak_mib));
    Ok(())
}

/// Waits until nothing but Leases and nodes was written for a while; what was counted by then.
async fn still(client: &Client) -> Result<Requests> {
    let began = Instant::now();
    let mut before = Requests::now(client).await?;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = Requests::now(client).await?;
        if now.since(&before).writes() == 0 {
            return Ok(before);
        }
        if began.elapsed() > SETTLE_WITHIN {
            bail!("it never gets still: {}", now.since(&before).text());
        }
        before = now;
    }
}

fn apiserver(arguments: &Arguments, task: &str) -> Result<()> {
    let mut command = std::process::Command::new(&arguments.xtask);
    command.args(["cluster", task, "apiserver", "--name", &arguments.cluster]);
    let output = command.output().context("cannot start xtask")?;
    if !output.status.success() {
        bail!("cannot {task} the API server: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
