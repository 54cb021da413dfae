//! Inside pods: commands, files, logs, and processes killed.

use std::time::Duration;

use futures_util::future::join;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, DeleteParams, LogParams};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Test;
use super::wait::DEADLINE;

/// What a command in a container left.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit code; -1 when the container ended first.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Test {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.objects.client.clone(), &self.namespace)
    }

    /// Runs a command in a container (`pod/container`, or `pod` for its first) and waits for its end.
    pub(crate) async fn exec(&self, place: &str, command: &[&str]) -> Output {
        let output = tokio::time::timeout(DEADLINE, self.exec_unbounded(place, command)).await;
        output.unwrap_or_else(|_| panic!("{command:?} in {place} has not ended after {DEADLINE:?}"))
    }

    async fn exec_unbounded(&self, place: &str, command: &[&str]) -> Output {
        let (pod, container) = match place.split_once('/') {
            Some((pod, container)) => (pod, container.to_owned()),
            None => {
                let object = self.get(&format!("Pod/{place}")).await;
                let first = &object["spec"]["containers"][0]["name"];
                (place, first.as_str().unwrap_or_else(|| panic!("there is no Pod/{place}")).to_owned())
            }
        };
        let params = AttachParams::default().container(container);
        let mut process = self
            .pods()
            .exec(pod, command.iter().copied(), &params)
            .await
            .unwrap_or_else(|error| panic!("cannot run {command:?} in {place}: {error}"));
        let (stdout, stderr) = join(text(process.stdout()), text(process.stderr())).await;
        let status = process.take_status().expect("taken once").await;
        let status = status.unwrap_or_else(|| panic!("no end of {command:?} in {place}; its errors: {stderr}"));
        let mut causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
        let code =
            causes.find(|cause| cause.reason.as_deref() == Some("ExitCode")).and_then(|cause| cause.message.as_ref());
        let code = match status.status.as_deref() {
            Some("Success") => 0,
            _ => code.and_then(|code| code.parse().ok()).unwrap_or(-1),
        };
        Output { code, stdout, stderr }
    }

    /// What a shell command in a container prints; anything but success fails the test.
    pub(crate) async fn sh(&self, place: &str, script: &str) -> String {
        let Output { code, stdout, stderr } = self.exec(place, &["sh", "-c", script]).await;
        assert!(code == 0, "in {place}: {script}\nended with {code}\n{stdout}{stderr}");
        stdout
    }

    /// What a page holds that a pod with a busybox gets by HTTP.
    pub(crate) async fn http_get(&self, pod: &str, host: &str, port: u16, page: &str) -> Result<String, String> {
        // Long enough for a machine that has much else to do.
        self.http_get_within(Duration::from_secs(30), pod, host, port, page).await
    }

    /// The same; an answer that comes later is an error. A statically linked busybox looks names up with `nslookup`
    /// alone, and its wget does not even run. The sleep keeps the connection open in this direction, as any client of
    /// HTTP does: toxiproxy takes the end of one direction for that of both.
    pub(crate) async fn http_get_within(
        &self,
        limit: Duration,
        pod: &str,
        host: &str,
        port: u16,
        page: &str,
    ) -> Result<String, String> {
        let script = r#"case $2 in *[!0-9.]*) set -- "$1" "$(nslookup -type=a "$2" | sed -n '/^Name:/,$ s/^Address: //p')" "$3" "$4";; esac
            { printf 'GET %s HTTP/1.0\r\n\r\n' "$4"; sleep "$(($1 + 2))" 2>/dev/null & } | timeout "$1" nc "$2" "$3""#;
        let (limit, port) = (limit.as_secs().to_string(), port.to_string());
        let output = self.exec(pod, &["sh", "-c", script, "sh", &limit, host, &port, page]).await;
        match output.stdout.split_once("\r\n\r\n") {
            Some((head, body)) if output.code == 0 && head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(format!("{output:?}")),
        }
    }

    /// The log of a container, from its start.
    pub(crate) async fn log(&self, pod: &str, container: &str) -> String {
        self.try_log(pod, container).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, with what stands in the way as the error.
    pub(crate) async fn try_log(&self, pod: &str, container: &str) -> Result<String, String> {
        let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        let log = self.pods().logs(pod, &params).await;
        log.map_err(|error| format!("cannot read the log of {pod}/{container}: {error}"))
    }

    /// The end of a container's log for a person; `previous`: of the container that ran before it.
    pub(super) async fn log_end(&self, pod: &str, container: &str, previous: bool) -> Result<String, kube::Error> {
        let container = Some(container.to_owned());
        self.pods().logs(pod, &LogParams { container, previous, tail_lines: Some(30), ..LogParams::default() }).await
    }

    /// Deletes a pod without the time to end that pods have.
    pub(crate) async fn kill_pod(&self, pod: &str) {
        self.delete_with(&format!("Pod/{pod}"), &DeleteParams::default().grace_period(0)).await;
    }

    /// SIGKILL for the processes of a container whose command line holds `command` (empty: for all), from outside:
    /// the image needs no shell. Returns how many there were.
    pub(crate) async fn kill_processes(&self, pod: &str, container: &str, command: &str) -> usize {
        let processes = self.processes(pod, container, command).await;
        for process in &processes {
            // SAFETY: a system call on a number; what it names was just seen in the container's cgroup.
            unsafe { libc::kill(*process, libc::SIGKILL) };
        }
        processes.len()
    }

    /// From now on the wall clock of a container of ours is so many seconds ahead; the one of the machine and of all
    /// others stays. Only for the product's unoptimised image: see xtask/src/image/clock.c.
    pub(crate) async fn move_clock(&self, pod: &str, container: &str, seconds: u64) {
        let process = self.processes(pod, container, "").await[0];
        let folder = std::path::PathBuf::from(format!("/proc/{process}/root/tmp"));
        let unfinished = folder.join(".clock");
        std::fs::write(&unfinished, seconds.to_string())
            .and_then(|()| std::fs::rename(&unfinished, folder.join("clock")))
            .unwrap_or_else(|error| panic!("cannot move the clock of {pod}/{container}: {error}"));
    }

    /// The processes of a container whose command line holds `command`, of which there must be some.
    async fn processes(&self, pod: &str, container: &str, command: &str) -> Vec<libc::pid_t> {
        let object = self.get(&format!("Pod/{pod}")).await;
        let id = container_status(&object, container)["containerID"].as_str().unwrap_or_default().to_owned();
        let id = id.rsplit('/').next().filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| panic!("{pod}/{container} does not run: {:#}", object["status"]));
        let processes = processes_of(id, command);
        assert!(!processes.is_empty(), "no process {command:?} in {pod}/{container}");
        processes
    }
}

/// The processes of a container, by the cgroup that is named after it.
fn processes_of(id: &str, command: &str) -> Vec<libc::pid_t> {
    let read = |pid: &str, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let holds = |text: Vec<u8>, part: &str| String::from_utf8_lossy(&text).replace('\0', " ").contains(part);
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|pid| holds(read(pid, "cgroup"), id) && holds(read(pid, "cmdline"), command))
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The status of one container of a pod, also of an init container; null when there is none.
pub(crate) fn container_status(pod: &Value, container: &str) -> Value {
    let of = |list: &str| pod["status"][list].as_array().cloned().unwrap_or_default();
    let all = of("containerStatuses").into_iter().chain(of("initContainerStatuses"));
    all.into_iter().find(|status| status["name"] == container).unwrap_or_default()
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // A stream that breaks is told by the missing status.
        _ = stream.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
