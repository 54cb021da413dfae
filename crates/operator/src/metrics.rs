//! What `/metrics` shows, in Prometheus' text format: how the operator works, and how every Backup, Recovery and
//! Repository stands, under the names that dashboards know. A series goes with its object.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::cache::Cache;
use crate::sidecar::is_outdated;
use crate::world::{WORKLOADS, controller, moment, name, text};

/// Counters of the operator itself.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    decisions: AtomicU64,
    decision_micros: AtomicU64,
    leads: AtomicBool,
    /// The image of agents.
    image: OnceLock<String>,
    /// By kind of action and whether it succeeded.
    writes: Mutex<BTreeMap<(&'static str, bool), u64>>,
}

impl Metrics {
    /// Agents are given this image.
    pub(crate) fn agent_image(&self, image: &str) {
        let _ = self.image.set(image.to_owned());
    }

    /// A namespace was decided on.
    pub(crate) fn decided(&self, took: Duration) {
        self.decisions.fetch_add(1, Ordering::Relaxed);
        self.decision_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Something was written, or could not be.
    pub(crate) fn wrote(&self, kind: &'static str, succeeded: bool) {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        *writes.entry((kind, succeeded)).or_default() += 1;
    }

    /// This operator leads, or not any more.
    pub(crate) fn lead(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// All of it as text.
    pub(crate) fn text(&self, cache: &Cache) -> String {
        let mut page = Page::default();
        self.of_operator(cache, &mut page);
        for kind in ["Backup", "Restic"] {
            cache.each(kind, |object| of_backup(kind, object, &mut page));
        }
        cache.each("Recovery", |object| of_recovery(object, &mut page));
        cache.each("Repository", |object| of_repository(object, &mut page));
        page.text()
    }

    fn of_operator(&self, cache: &Cache, page: &mut Page) {
        let leads = f64::from(u8::from(self.leads.load(Ordering::Relaxed)));
        page.add("holdfast_operator_leader", "gauge", "1 if this operator leads", &[], Some(leads));
        page.add("holdfast_operator_objects", "gauge", "Objects that are watched", &[], Some(cache.len() as f64));
        let image = self.image.get().map_or("", String::as_str);
        let mut outdated: u32 = 0;
        for kind in WORKLOADS {
            cache.each(kind.name(), |workload| {
                outdated += u32::from(controller(workload).is_none() && is_outdated(workload, image));
            });
        }
        let help = "Workloads whose agents are of another version than the operator";
        page.add("holdfast_operator_outdated_agents", "gauge", help, &[], Some(outdated.into()));
        let decisions = self.decisions.load(Ordering::Relaxed) as f64;
        page.add("holdfast_operator_decisions_total", "counter", "Decisions on a namespace", &[], Some(decisions));
        let seconds = self.decision_micros.load(Ordering::Relaxed) as f64 / 1e6;
        let help = "Seconds that decisions took";
        page.add("holdfast_operator_decision_seconds_total", "counter", help, &[], Some(seconds));
        for ((kind, succeeded), count) in self.writes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = [("action", *kind), ("result", if *succeeded { "success" } else { "error" })];
            page.add(
                "holdfast_operator_writes_total",
                "counter",
                "Writes to the API server",
                &labels,
                Some(*count as f64),
            );
        }
    }
}

fn of_backup(kind: &str, object: &Value, page: &mut Page) {
    let labels = [("namespace", text(object, "/metadata/namespace")), ("kind", kind), ("name", name(object))];
    let status = &object["status"];
    let last_success = moment(status, "/lastSuccessfulBackupTime").map(|time| time.as_second() as f64);
    let last = status["history"].as_array().and_then(|history| history.first());
    let ok = last.map(succeeded);
    let duration = last.and_then(|run| seconds(run, "/duration"));
    for (name, help, value) in [
        ("stash_appscode_com_backupsession_success", "1 if the last run succeeded", ok),
        ("stash_appscode_com_backupsession_duration_seconds", "How long the last run took", duration),
        (
            "stash_appscode_com_backupsession_last_success_time_seconds",
            "When a run last succeeded, seconds since 1970",
            last_success,
        ),
        (
            "holdfast_backup_next_time_seconds",
            "When the next run is due, seconds since 1970",
            moment(status, "/nextBackupTime").map(|time: Timestamp| time.as_second() as f64),
        ),
        (
            "holdfast_backup_consecutive_failures",
            "Failed runs since the last success",
            status["consecutiveFailures"].as_f64(),
        ),
        ("holdfast_backup_ready", "1 if it can be carried out as it is written", is_true(status, "Ready")),
    ] {
        page.add(name, "gauge", help, &labels, value);
    }
    for host in status["hosts"].as_array().into_iter().flatten() {
        let Some(run) = host["runs"].as_array().and_then(|runs| runs.first()) else { continue };
        let [namespace, kind, name] = labels;
        let labels = [namespace, kind, name, ("host", text(host, "/host"))];
        for (name, help, value) in [
            (
                "stash_appscode_com_backupsession_host_backup_success",
                "1 if the host's last run succeeded",
                Some(succeeded(run)),
            ),
            (
                "stash_appscode_com_backupsession_host_data_size_bytes",
                "Bytes that the last run processed",
                run["bytesTotal"].as_f64(),
            ),
            (
                "stash_appscode_com_backupsession_host_data_uploaded_bytes",
                "Bytes that the last run added to the repository",
                run["bytesNew"].as_f64(),
            ),
        ] {
            page.add(name, "gauge", help, &labels, value);
        }
    }
}

fn of_recovery(object: &Value, page: &mut Page) {
    let labels = [("namespace", text(object, "/metadata/namespace")), ("name", name(object))];
    let status = &object["status"];
    let ok = match text(status, "/phase") {
        "Succeeded" => Some(1.0),
        "Failed" => Some(0.0),
        _ => None,
    };
    page.add("stash_appscode_com_restoresession_success", "gauge", "1 if the last recovery succeeded", &labels, ok);
    let ended = moment(status, "/startTime").zip(moment(status, "/completionTime"));
    let took = ended.map(|(start, end)| end.duration_since(start).as_secs_f64());
    let help = "How long the last recovery took";
    page.add("stash_appscode_com_restoresession_duration_seconds", "gauge", help, &labels, took);
}

fn of_repository(object: &Value, page: &mut Page) {
    let labels = [("namespace", text(object, "/metadata/namespace")), ("name", name(object))];
    let status = &object["status"];
    let integrity = status["integrity"].as_bool().map(|whole| f64::from(u8::from(whole)));
    let size = status["totalSize"].as_str().and_then(|size| size.parse::<holdfast_api::values::Quantity>().ok());
    for (name, help, value) in [
        ("stash_appscode_com_repository_integrity", "1 if the last check found the repository whole", integrity),
        (
            "stash_appscode_com_repository_size_bytes",
            "Bytes that the repository takes",
            size.and_then(|size| size.units()).map(|bytes| bytes as f64),
        ),
        (
            "stash_appscode_com_repository_snapshot_count",
            "How many snapshots it holds",
            status["snapshotCount"].as_f64(),
        ),
    ] {
        page.add(name, "gauge", help, &labels, value);
    }
}

fn succeeded(run: &Value) -> f64 {
    f64::from(u8::from(run["phase"] == "Succeeded"))
}

fn seconds(object: &Value, pointer: &str) -> Option<f64> {
    let duration: holdfast_api::values::Duration = text(object, pointer).parse().ok()?;
    Some(duration.as_std().as_secs_f64())
}

fn is_true(status: &Value, condition: &str) -> Option<f64> {
    let found = status["conditions"].as_array()?.iter().find(|one| one["type"] == condition)?;
    Some(f64::from(u8::from(found["status"] == "True")))
}

/// Samples by name: those of one name must stand together.
#[derive(Default)]
struct Page(BTreeMap<&'static str, (&'static str, &'static str, String)>);

impl Page {
    fn add(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        value: Option<f64>,
    ) {
        let Some(value) = value else { return };
        let (_, _, samples) = self.0.entry(name).or_insert_with(|| (kind, help, String::new()));
        samples.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            // Writing to a String does not fail.
            let _ = write!(samples, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            samples.push('}');
        }
        let _ = writeln!(samples, " {value}");
    }

    fn text(self) -> String {
        let mut text = String::new();
        for (name, (kind, help, samples)) in self.0 {
            let _ = write!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_backup_is_shown_under_the_names_that_dashboards_know() {
        let cache = Cache::default();
        cache.put(
            "Backup",
            json!({
                "metadata": {"namespace": "demo", "name": "web"},
                "status": {
                    "lastSuccessfulBackupTime": "2026-11-21T11:00:00Z",
                    "consecutiveFailures": 0,
                    "history": [{"phase": "Succeeded", "duration": "1m10s", "host": "deployment.web"}],
                    "hosts": [{"host": "deployment.web", "runs": [{"phase": "Succeeded", "bytesTotal": 7}]}],
                },
            }),
        );
        let text = Metrics::default().text(&cache);
        for line in [
            "stash_appscode_com_backupsession_success{namespace=\"demo\",kind=\"Backup\",name=\"web\"} 1",
            "stash_appscode_com_backupsession_duration_seconds{namespace=\"demo\",kind=\"Backup\",name=\"web\"} 70",
            "stash_appscode_com_backupsession_host_data_size_bytes{namespace=\"demo\",kind=\"Backup\",name=\"web\",host=\"deployment.web\"} 7",
            "holdfast_operator_leader 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
