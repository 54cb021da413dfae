//! How the objects stand, by a watch of them all: what the operator has done shows here when it shows to everybody.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::StreamExt;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::made;

/// Namespace and name.
type Name = (String, String);

/// A Backup, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backup {
    generation: i64,
    /// Of which generation its status speaks; 0 while there is none.
    observed: i64,
    is_ready: bool,
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct All {
    pub(crate) backups: HashMap<Name, Backup>,
    /// Whether each has its sidecar.
    pub(crate) workloads: HashMap<Name, bool>,
}

impl All {
    /// Every Backup has a true status that says Ready, and every workload its sidecar.
    pub(crate) fn is_settled(&self) -> bool {
        self.workloads.values().all(|has_sidecar| *has_sidecar)
            && self.backups.values().all(|backup| backup.is_ready && backup.observed == backup.generation)
    }

    /// The one Backup that is changed has a status of that generation.
    pub(crate) fn is_told(&self, generation: i64) -> bool {
        let name = (made::namespace(0), made::backup(0));
        self.backups.get(&name).is_some_and(|backup| backup.observed >= generation && backup.is_ready)
    }
}

/// A watch of all objects.
pub(crate) struct Seen(Arc<Mutex<All>>);

impl Seen {
    /// Watches until the program ends.
    pub(crate) fn watch(client: Client) -> Self {
        let all = Arc::new(Mutex::new(All::default()));
        for resource in [made::BACKUPS, made::DEPLOYMENTS] {
            let (client, all) = (client.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                let resource = resource();
                let api: Api<DynamicObject> = Api::all_with(client, &resource);
                let mut events = pin!(watcher::watcher(api, watcher::Config::default()));
                while let Some(event) = events.next().await {
                    match event {
                        Ok(Event::Apply(object) | Event::InitApply(object)) => {
                            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                            all.put(&resource.kind, &object);
                        }
                        Ok(_) => {}
                        Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                    }
                }
            });
        }
        Self(all)
    }

    /// Waits until something holds; says when it did.
    pub(crate) async fn wait(&self, what: &str, within: Duration, holds: impl Fn(&All) -> bool) -> Result<Instant> {
        let began = Instant::now();
        let mut told = began;
        loop {
            {
                let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if holds(&all) {
                    return Ok(Instant::now());
                }
                if told.elapsed() > Duration::from_secs(5) || began.elapsed() > within {
                    let ready = all.backups.values().filter(|backup| backup.is_ready).count();
                    let sidecars = all.workloads.values().filter(|has_sidecar| **has_sidecar).count();
                    eprintln!(
                        "  {ready} of {} Backups, {sidecars} of {} workloads",
                        all.backups.len(),
                        all.workloads.len()
                    );
                    told = Instant::now();
                }
            }
            if began.elapsed() > within {
                bail!("waited {within:.0?} for {what}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl All {
    fn put(&mut self, kind: &str, object: &DynamicObject) {
        let namespace = object.namespace().unwrap_or_default();
        // Others' workloads are none of ours.
        if !namespace.starts_with(made::PREFIX) {
            return;
        }
        let name = (namespace, object.name_any());
        if kind == "Deployment" {
            let containers = object.data.pointer("/spec/template/spec/containers").and_then(Value::as_array);
            let has_sidecar = containers.into_iter().flatten().any(|container| container["name"] == "restic-sidecar");
            self.workloads.insert(name, has_sidecar);
            return;
        }
        let status = &object.data["status"];
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let backup = Backup {
            generation: object.metadata.generation.unwrap_or(0),
            observed: status["observedGeneration"].as_i64().unwrap_or(0),
            is_ready: conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True"),
        };
        self.backups.insert(name, backup);
    }
}
