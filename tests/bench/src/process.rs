//! The operator as a process, and what the kernel and its own `/metrics` say of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const LISTEN: &str = "127.0.0.1:18080";

/// The running operator; it ends with this.
pub(crate) struct Operator {
    program: PathBuf,
    log: PathBuf,
    child: Child,
    started: Instant,
    restarts: u32,
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// In user and kernel mode.
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
}

impl Operator {
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let log = std::env::temp_dir().join(format!("bench-operator-{}.log", std::process::id()));
        File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = spawn(program, &log)?;
        Ok(Self { program: program.to_owned(), log, child, started: Instant::now(), restarts: 0 })
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Starts it again whenever it ends, as a kubelet does: at once, then with a pause of ten seconds.
    pub(crate) async fn keep_up(&mut self, during: Duration) -> Result<()> {
        let until = Instant::now() + during;
        loop {
            if self.child.try_wait()?.is_some() {
                if self.restarts > 0 {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
                self.restarts += 1;
                self.child = spawn(&self.program, &self.log)?;
            }
            if Instant::now() >= until {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100).min(during)).await;
        }
    }

    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status()?;
        if !status.success() {
            bail!("cannot send {name} to the operator\n{}", self.log());
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.child.id());
            fs::read_to_string(&path).with_context(|| format!("the operator is gone\n{}", self.log()))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = peak.trim().trim_end_matches("kB").trim().parse()?;
        Ok(Usage { cpu_seconds: cpu_seconds(&stat), peak_mib: kib / 1024.0 })
    }

    /// How many writes it counts itself.
    pub(crate) async fn writes(&self) -> Result<u64> {
        let mut stream = TcpStream::connect(LISTEN).with_context(|| self.log())?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {LISTEN}\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let samples = page.lines().filter(|line| line.starts_with("holdfast_operator_writes_total{"));
        samples.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()? as u64)).sum()
    }

    /// The end of what it said.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the operator's log ends with\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

/// The processor time of this program.
pub(crate) fn own_cpu() -> f64 {
    fs::read_to_string("/proc/self/stat").map_or(0.0, |stat| cpu_seconds(&stat))
}

/// The processor time of the process of this name; 0 when there is none.
pub(crate) fn cpu_of(program: &str) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&format!("({program})"))).map(|stat| cpu_seconds(&stat)).sum()
}

/// In user and kernel mode, from a process' `stat`.
pub(crate) fn cpu_seconds(stat: &str) -> f64 {
    // The second field is a name in brackets, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    // utime and stime, in hundredths of a second, which they are for user space on every Linux.
    (ticks(11) + ticks(12)) / 100.0
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, log: &Path) -> Result<Child> {
    let out = File::options().append(true).open(log)?;
    Command::new(program)
        .args(["run", "--image=registry.example/holdfast:bench", "--namespace=default", "--identity=bench"])
        .arg(format!("--listen={LISTEN}"))
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}
