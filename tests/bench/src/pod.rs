//! The agent in a real pod: what a sidecar holds while it waits, and whether it lives within the limit that a Backup gives
//! it while it backs up very many small files; and a Job that recovers them all within the same limit.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::kernel::{Container, Memory, Pressure};
use crate::table::Table;

const NAMESPACE: &str = "bench-pod";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/helm/holdfast");
const OBJECT_STORE: &str = include_str!("../../cluster/object-store.yaml");
const WORKLOAD: &str = include_str!("pod/workload.yaml");
const RECOVERY: &str = include_str!("pod/recovery.yaml");
const COMPARE: &str = include_str!("pod/compare.yaml");

/// Where the driver of the cluster keeps volumes.
const VOLUMES: &str = "/run/cluster/storage/volumes";
/// How many files a folder has at most.
const PER_FOLDER: u64 = 1000;
/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(200);
/// How long a step may take before that is a failure.
const WITHIN: Duration = Duration::from_secs(3600);
/// How long the sidecar is left alone before it is looked at: longer than the loop takes to plan once more.
const IDLE: Duration = Duration::from_secs(75);
const SIDECAR: &[&str] = &["/usr/bin/holdfast", "watch"];
const RECOVERING: &[&str] = &["/usr/bin/holdfast", "recover"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many small files are backed up
    #[arg(long, default_value_t = 1_000_000)]
    files: u64,
    /// How large each is
    #[arg(long, default_value_t = 2048)]
    bytes: u64,
    /// The memory limit of the sidecar and of the Job, as seed 001 writes it
    #[arg(long, default_value = "128Mi")]
    limit: String,
}

/// What a run took.
struct Run {
    took: Duration,
    peak: Memory,
    /// The kernel's own peaks.
    peak_rss: f64,
    peak_charged: f64,
    cpu_seconds: f64,
    pressure: Pressure,
}

pub(crate) fn measure(arguments: &Arguments, table: &mut Table) -> Result<()> {
    install()?;
    let manifests = WORKLOAD.replace("$LIMIT", &arguments.limit);
    let secret = kubectl(&["-n", "object-store", "get", "secret", "object-store", "-o", "json"])?;
    let mut secret: Value = serde_json::from_str(&secret)?;
    secret["metadata"] = serde_json::json!({"name": "storage", "namespace": NAMESPACE});
    let (space, rest) = manifests.split_once("---").context("no namespace")?;
    for text in [space, &secret.to_string(), rest] {
        apply(text)?;
    }
    wait("backup/files", "condition=Ready")?;
    kubectl(&["-n", NAMESPACE, "rollout", "status", "deployment/app", "--timeout=300s"])?;
    fill(arguments)?;

    idle(table, "the sidecar idles, before its first backup")?;
    let first = backup("first")?;
    let what = format!("first backup of {} files of {} bytes", arguments.files, arguments.bytes);
    report(table, &what, arguments, &first);
    idle(table, "the sidecar idles, after a backup")?;
    let second = backup("second")?;
    report(table, "the next one, nothing changed", arguments, &second);
    let recovered = recovery(arguments)?;
    report(table, "recovery of all of it in a Job", arguments, &recovered);
    let same = compare()?;
    table.row("what was recovered equals the source", "yes", same);
    Ok(())
}

/// The operator by its chart, and an object store.
fn install() -> Result<()> {
    apply(OBJECT_STORE)?;
    let set = ["--set", "image.pullPolicy=Never", "--set", "image.repository=docker.io/holdfast/holdfast"];
    let mut helm = Command::new("helm");
    helm.args(["upgrade", "--install", "holdfast", CHART, "--namespace", "holdfast", "--create-namespace"]).args(set);
    succeed(&mut helm)?;
    for (namespace, name) in [("object-store", "object-store"), ("holdfast", "holdfast")] {
        let name = format!("deployment/{name}");
        kubectl(&["-n", namespace, "rollout", "status", &name, "--timeout=180s"])?;
    }
    Ok(())
}

/// Makes the files, of random contents, which neither compress nor repeat: the most that so many files can be. Written
/// where the driver keeps the volume: a shell in a pod would take an hour for a million.
fn fill(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    let volume = kubectl(&["-n", NAMESPACE, "get", "pvc/files", "-o", "jsonpath={.spec.volumeName}"])?;
    let volume = Path::new(VOLUMES).join(volume).join("data");
    let mut random = File::open("/dev/urandom").context("no random bytes")?;
    let mut content = vec![0; usize::try_from(arguments.bytes)?];
    for number in 0..arguments.files {
        let folder = volume.join(format!("folder-{}", number / PER_FOLDER));
        if number % PER_FOLDER == 0 {
            fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        random.read_exact(&mut content)?;
        let file = folder.join(format!("file-{number}"));
        fs::write(&file, &content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    eprintln!("{} files were made in {:.0?}", arguments.files, began.elapsed());
    Ok(())
}

/// What the sidecar holds when it has had nothing to do for a while.
fn idle(table: &mut Table, what: &str) -> Result<()> {
    let container = until("the sidecar to run", || Container::find(SIDECAR))?;
    std::thread::sleep(IDLE);
    let memory = container.memory().context("the sidecar is gone")?;
    let before = container.cpu_seconds();
    std::thread::sleep(IDLE);
    let cpu = (container.cpu_seconds() - before) / IDLE.as_secs_f64() * 100.0;
    table.row(&format!("{what}: memory of the process (RSS)"), "", format!("{:.1} MiB", memory.rss));
    table.row(&format!("{what}: of this its own, not the program's file"), "", format!("{:.1} MiB", memory.anonymous));
    table.row(&format!("{what}: its share, others have the file, too (PSS)"), "", format!("{:.1} MiB", memory.pss));
    // What limits count and `kubectl top` shows: the program's file is shared by all containers of a node.
    let charged = format!("{:.1} MiB ({:.1} MiB)", memory.charged, memory.working_set);
    table.row(&format!("{what}: charged to the container (working set)"), "≤ 20 MiB", charged);
    table.row(&format!("{what}: processor"), "", format!("{cpu:.2} % of a core"));
    Ok(())
}

/// Starts a backup and watches the sidecar until it has ended.
fn backup(name: &str) -> Result<Run> {
    let container = until("the sidecar to run", || Container::find(SIDECAR))?;
    container.forget_peak()?;
    apply(&format!(
        "{{apiVersion: stash.appscode.com/v1alpha2, kind: BackupTrigger, metadata: {{name: {name}, namespace: \
         {NAMESPACE}}}, spec: {{targetBackup: {{name: files}}}}}}"
    ))?;
    let object = format!("backuptrigger/{name}");
    let run = follow(&container, || ended(&object).map(|phase| phase.map(|phase| phase == "Succeeded")))?;
    let status = kubectl(&["-n", NAMESPACE, "get", "backup/files", "-o", "jsonpath={.status.history[0]}"])?;
    eprintln!("{status}");
    Ok(run)
}

/// Recovers everything into an empty claim.
fn recovery(arguments: &Arguments) -> Result<Run> {
    apply(&RECOVERY.replace("$LIMIT", &arguments.limit))?;
    let container = until("the recovery's Job to run", || Container::find(RECOVERING))?;
    follow(&container, || ended("recovery/back").map(|phase| phase.map(|phase| phase == "Succeeded")))
}

/// The phase of an object once it is an end.
fn ended(object: &str) -> Result<Option<String>> {
    let phase = kubectl(&["-n", NAMESPACE, "get", object, "-o", "jsonpath={.status.phase}"])?;
    Ok(Some(phase).filter(|phase| ["Succeeded", "Failed"].contains(&phase.as_str())))
}

/// Looks at a container until something has ended; whether that is a success is told.
fn follow(container: &Container, mut ended: impl FnMut() -> Result<Option<bool>>) -> Result<Run> {
    let began = Instant::now();
    let (cpu_before, pressure_before) = (container.cpu_seconds(), container.pressure());
    let mut run = Run {
        took: Duration::ZERO,
        peak: Memory::default(),
        peak_rss: 0.0,
        peak_charged: 0.0,
        cpu_seconds: 0.0,
        pressure: pressure_before,
    };
    let mut asked = Instant::now();
    loop {
        // The last of a container that ends by itself is what was seen last.
        if let Some(memory) = container.memory() {
            run.peak.anonymous = run.peak.anonymous.max(memory.anonymous);
            run.peak.working_set = run.peak.working_set.max(memory.working_set);
            run.peak_rss = container.peak_rss().unwrap_or(run.peak_rss);
            run.peak_charged = container.peak_charged().unwrap_or(run.peak_charged);
            run.cpu_seconds = container.cpu_seconds() - cpu_before;
            run.pressure = container.pressure();
        }
        if asked.elapsed() > Duration::from_secs(1) {
            asked = Instant::now();
            if let Some(succeeded) = ended()? {
                run.took = began.elapsed();
                run.pressure.at_limit = run.pressure.at_limit.saturating_sub(pressure_before.at_limit);
                return if succeeded { Ok(run) } else { Err(state("it failed")) };
            }
        }
        if began.elapsed() > WITHIN {
            return Err(state("it takes too long"));
        }
        std::thread::sleep(EVERY);
    }
}

fn report(table: &mut Table, what: &str, arguments: &Arguments, run: &Run) {
    let Run { took, peak, peak_rss, peak_charged, cpu_seconds, pressure } = run;
    let took = format!("{:.0} s ({cpu_seconds:.0} s of a processor)", took.as_secs_f64());
    table.row(what, "", took);
    let limit = &arguments.limit;
    table.row(&format!("{what}: killed for want of memory, with a limit of {limit}"), "0", pressure.kills.to_string());
    table.row(&format!("{what}: peak of the process (RSS)"), "", format!("{peak_rss:.0} MiB"));
    table.row(&format!("{what}: of this its own, not the program's file"), "", format!("{:.0} MiB", peak.anonymous));
    let charged = format!("{peak_charged:.0} MiB ({:.0} MiB)", peak.working_set);
    table.row(&format!("{what}: most that the container was charged with (working set)"), "", charged);
    let met = format!("{} times", pressure.at_limit);
    table.row(&format!("{what}: the limit was met and read files were dropped"), "", met);
}

/// Whether the names and contents are the same, by a pod that sees both claims.
fn compare() -> Result<String> {
    apply(COMPARE)?;
    wait("job/compare", "condition=Complete")?;
    Ok(kubectl(&["-n", NAMESPACE, "logs", "job/compare"])?.trim().to_owned())
}

/// Waits for something that shows on this machine.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() > Duration::from_secs(300) {
            return Err(state(&format!("waited in vain for {what}")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn wait(object: &str, condition: &str) -> Result<()> {
    let condition = format!("--for={condition}");
    let timeout = format!("--timeout={}s", WITHIN.as_secs());
    kubectl(&["-n", NAMESPACE, "wait", object, &condition, &timeout])
        .map(drop)
        .map_err(|error| state(&error.to_string()))
}

/// What went wrong, and how everything stands.
fn state(what: &str) -> anyhow::Error {
    let all = "pods,backups,backuptriggers,recoveries,events";
    let objects = kubectl(&["-n", NAMESPACE, "get", all]).unwrap_or_default();
    anyhow::anyhow!("{what}\n{objects}")
}

fn apply(manifests: &str) -> Result<()> {
    let mut kubectl = Command::new("kubectl");
    kubectl
        .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut kubectl = kubectl.spawn().context("cannot start kubectl, which `cargo xtask cluster exec` puts on PATH")?;
    kubectl.stdin.take().context("no stdin")?.write_all(manifests.as_bytes())?;
    if !kubectl.wait()?.success() {
        bail!("kubectl apply failed for\n{manifests}");
    }
    Ok(())
}

fn kubectl(arguments: &[&str]) -> Result<String> {
    succeed(Command::new("kubectl").args(arguments))
}

fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
