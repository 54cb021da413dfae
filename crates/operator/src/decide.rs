//! From the objects of a namespace and the present to what is to be done: the whole of the operator's judgement, pure.
//!
//! Applying what it decides and deciding again gives nothing: that is steady state. One object that is wrong is told so
//! in its status; the others are served.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_api::names::pod as names;
use holdfast_api::stash::RecoverTo;
use holdfast_plan::{
    Due, Host, MANAGED_BY, ObjectKey, Place, Plan, PlannedRecovery, Settings as PlanSettings, Target, TargetKind, Wait,
    plan,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::access::{self, Grant};
use crate::action::{Action, Decision};
use crate::container::Access;
use crate::dead;
use crate::generated;
use crate::history::History;
use crate::job::{self, Containers, Draft, Work};
use crate::objects::Objects;
use crate::refusal::Refusals;
use crate::restart::{self, is_ready};
use crate::settings::Settings;
use crate::sidecar::{self, Protected, bounded};
use crate::status::{Pending, Reporter};
use crate::templates;
use crate::tie::{Finder, Tie, Ties, pull_secrets};
use crate::wipe;
use crate::world::{World, controller, hindrance, moment, name, statuses_of_ours, text, uid};

/// Decides for one namespace. `objects` are those in it, as the API server has them; the templates of the cluster; and
/// the Repositories of other namespaces that it refers to.
pub fn decide(namespace: &str, objects: &[Value], now: Timestamp, settings: &Settings) -> Decision {
    let world = World::new(namespace, objects);
    let mut decision = Decision::default();
    if world.is_terminating() {
        decision.actions.extend(wipe::events(&world));
        decision.actions.extend(wipe::let_go(&world));
        return decision;
    }
    let jobs = job::all(&world);
    let history = History::new(&world);
    let running: Vec<Work<'_>> =
        jobs.iter().filter(|work| work.ended().is_none() || !dead::is_told(&history, work)).cloned().collect();
    let outcome = world.outcome();
    let place = PlanSettings { slots: usize::MAX, ..PlanSettings::on_cluster(now, Place::Cluster, "node") };
    let plan = plan(&outcome, &history.observed(&world, &running), &place);
    let objects = Objects::new(&outcome, &plan);
    let mut refusals = Refusals::default();
    let repositories = plan.repositories.iter().map(|planned| (planned.id.as_str(), planned)).collect();
    let finder = Finder { world: &world, objects: &objects, plan: &plan, repositories: &repositories };
    let ties = finder.ties(&mut refusals);
    refusals.add_plan(&plan);
    of_generated(&plan, &objects, &mut refusals);

    dead::bury(&world, &history, &jobs, now, &mut decision);
    decision.actions.extend(generated::actions(&world, &plan));
    let mut deciding = Deciding {
        world: &world,
        objects: &objects,
        plan: &plan,
        triggers: open_triggers(&objects, &plan),
        finder,
        refusals: &refusals,
        jobs: &jobs,
        history: &history,
        running: &running,
        settings,
        pending: BTreeMap::new(),
        starting: BTreeSet::new(),
        rights: BTreeSet::new(),
        decision,
    };
    deciding.workloads(&ties);
    deciding.jobs(now);
    let Deciding { mut pending, mut rights, mut decision, .. } = deciding;
    let (wiping, working) = wipe::finalizers(&world, &objects, &plan, &jobs, now, settings, &mut decision);
    for object in working {
        if let Some(owner) = world.of(&object) {
            let actions = rights_of_job(&world, owner, None, &wipe::grant(&object), &mut rights);
            decision.actions.splice(0..0, actions);
        }
    }
    decision.actions.extend(job::clean(&jobs));
    decision.actions.extend(without_use(&world, &rights));
    pending.extend(running.iter().filter_map(|work| Some((work.object.clone(), Pending::Pod(waits(&world, work)?)))));
    let (history, refusals, pending) = (&history, &refusals, &pending);
    let runs_max = settings.runs_max;
    let (world, objects, plan, wiping) = (&world, &objects, &plan, &wiping);
    let reporter = Reporter { world, objects, plan, history, refusals, pending, wiping, runs_max, now };
    decision.actions.extend(reporter.actions());
    decision
}

/// What is wrong with a default backup is found at the workload that asks for it, and told at the Backup as well.
fn of_generated(plan: &Plan, objects: &Objects<'_>, refusals: &mut Refusals) {
    let planned: BTreeSet<&ObjectKey> = plan.backups.iter().map(|planned| &planned.object).collect();
    for ((namespace, name), backup) in &objects.backups {
        let (label, value) = MANAGED_BY;
        let labels = backup.metadata.labels.as_ref();
        let key = ObjectKey::new("Backup", *namespace, *name);
        if labels.and_then(|labels| labels.get(label)).is_none_or(|found| found != value) || planned.contains(&key) {
            continue;
        }
        let target = &backup.spec.target_ref;
        let target = ObjectKey::new(target.kind.as_str(), *namespace, target.name.as_str());
        if let Some(refusal) = refusals.of(&target) {
            refusals.add(key, refusal);
        }
    }
}

/// Decides what belongs to no namespace: the default templates.
pub fn decide_cluster(objects: &[Value], settings: &Settings) -> Decision {
    Decision { actions: templates::install(&World::new("", objects), settings), again: None }
}

/// The kind, namespace and name of an object that the operator made and may remove.
type Made = (&'static str, String, String);

struct Deciding<'a> {
    world: &'a World<'a>,
    objects: &'a Objects<'a>,
    plan: &'a Plan,
    /// The triggers that have not been served, by the name of their Backup.
    triggers: BTreeMap<&'a str, Vec<ObjectKey>>,
    finder: Finder<'a>,
    refusals: &'a Refusals,
    jobs: &'a [Work<'a>],
    history: &'a History<'a>,
    /// Those that go on, or of which nobody has told yet.
    running: &'a [Work<'a>],
    settings: &'a Settings,
    pending: BTreeMap<ObjectKey, Pending>,
    /// Those whose Job starts now.
    starting: BTreeSet<ObjectKey>,
    rights: BTreeSet<Made>,
    decision: Decision,
}

impl Deciding<'_> {
    /// Sidecars and init containers, what they may do, and restarts of pods that nobody else restarts.
    fn workloads(&mut self, ties: &Ties<'_>) {
        let pods = pods_of_workloads(self.world);
        for (target, workload) in self.world.workloads() {
            if controller(workload).is_some() {
                continue;
            }
            let none: &[Tie<'_>] = &[];
            let backups = ties.backups.get(&target).map_or(none, Vec::as_slice);
            let recoveries = ties.recoveries.get(&target).map_or(none, Vec::as_slice);
            if !(backups.is_empty() && recoveries.is_empty()) {
                let service_account = match text(workload, "/spec/template/spec/serviceAccountName") {
                    "" => "default",
                    account => account,
                };
                let grant = self.grant(&target, backups.iter().chain(recoveries));
                note_rights(self.world, workload, &grant, &mut self.rights);
                self.decision.actions.extend(access::grant(self.world, workload, service_account, &grant));
                let of_workload = || pods.get(uid(workload)).into_iter().flatten();
                let waits = of_workload().filter_map(|pod| trouble(pod)).min();
                let waits = waits.map(|trouble| format!("a pod of {} waits: {trouble}", target.key()));
                let is_served = || of_workload().any(|pod| is_ready(pod) && statuses_of_ours(pod).next().is_some());
                let lack = || {
                    let why = not_made(workload).filter(|_| !is_served())?;
                    Some(format!("a pod of {} cannot be made: {why}", target.key()))
                };
                if let Some(trouble) = waits.or_else(lack).map(Pending::Pod) {
                    let tied = backups.iter().chain(recoveries).map(|tie| (tie.object.clone(), trouble.clone()));
                    self.pending.extend(tied);
                }
            }
            let protected = Protected { world: self.world, target: &target, workload, backups, recoveries };
            match sidecar::inject(protected, self.objects, self.settings) {
                Some(action) => self.decision.actions.push(action),
                None => self.decision.actions.extend(restart::next(self.world, &target, workload)),
            }
        }
    }

    fn grant<'t>(&self, target: &Target, ties: impl Iterator<Item = &'t Tie<'t>>) -> Grant {
        let mut grant = Grant::default();
        let shares_host = !matches!(target.kind, TargetKind::StatefulSet | TargetKind::DaemonSet);
        let host = format!("{}.{}", target.kind.path_segment(), target.name);
        for tie in ties {
            grant.write(&tie.object);
            // A Backup with containers of its own has a turn of its own.
            if shares_host && tie.work.as_ref().is_some_and(|work| !templates::is_default(work.agent)) {
                grant.leases.insert(names::writer_lease(&format!("{host}.{}", tie.object.name)));
            }
            self.add_triggers(&tie.object, &mut grant);
            let repository = self.repository_of(&tie.object);
            repository.iter().filter(|key| key.namespace == self.world.namespace).for_each(|key| grant.write(key));
            grant.foreign.extend(tie.work.as_ref().and_then(|work| work.foreign.clone()));
        }
        grant.read(target);
        if shares_host {
            grant.leases.extend([names::writer_lease(&host), names::recovery_lease(&host)]);
        }
        grant
    }

    /// The triggers of a Backup that have not been served.
    fn add_triggers(&self, object: &ObjectKey, grant: &mut Grant) {
        if object.kind == "Backup" {
            let open = self.triggers.get(object.name.as_str());
            open.into_iter().flatten().for_each(|trigger| grant.write(trigger));
        }
    }

    /// The workload whose Restic makes the repository that a Recovery names: where that is follows from it.
    fn workload_of_repository(&self, object: &ObjectKey) -> Option<&Target> {
        let recovery = self.plan.recoveries.iter().find(|planned| planned.object == *object)?;
        let of_restics = self.plan.backups.iter().filter(|planned| planned.object.kind == "Restic");
        let named = &recovery.repository;
        let makes = |planned: &&holdfast_plan::PlannedBackup| {
            // Of a DaemonSet one node stands for all; the name of the repository says which is meant.
            let id = match planned.target.kind {
                TargetKind::DaemonSet => {
                    format!("{}/{}", planned.target.namespace, Host::of_pod(&planned.target, "", "").instance)
                }
                _ => return planned.repository == *named,
            };
            named.starts_with(&id)
        };
        of_restics.filter(makes).map(|planned| &planned.target).next()
    }

    /// The Repository that an object names.
    fn repository_of(&self, object: &ObjectKey) -> Option<ObjectKey> {
        let name = (object.namespace.as_str(), object.name.as_str());
        let repository = match object.kind.as_str() {
            "Backup" => self.objects.backups.get(&name).map(|backup| &backup.spec.repository),
            "Recovery" => self.objects.recoveries.get(&name).map(|recovery| &recovery.spec.repository),
            _ => None,
        }?;
        let of = repository.namespace.as_deref().unwrap_or(self.world.namespace);
        Some(ObjectKey::new("Repository", of, repository.name.as_str()))
    }

    /// The Jobs that are to start now.
    fn jobs(&mut self, now: Timestamp) {
        let due: BTreeMap<&str, &Due> = self.plan.due.iter().map(|due| (due.id.as_str(), due)).collect();
        for planned in &self.plan.backups {
            if planned.target.kind != TargetKind::PersistentVolumeClaim || self.refusals.of(&planned.object).is_some() {
                continue;
            }
            let Some(owner) = self.world.of(&planned.object) else { continue };
            self.account(owner, &planned.object);
            match due.get(planned.id.as_str()) {
                Some(due) if self.may_start(&planned.object, &planned.repository, due) => {
                    let action = self.backup(owner, &planned.object, &planned.target, due);
                    self.start(&planned.object, action);
                }
                Some(_) => {}
                None => planned.next.into_iter().for_each(|next| self.decision.again_at(next)),
            }
        }
        for planned in &self.plan.recoveries {
            let is_job = planned.target.as_ref().is_none_or(|target| target.kind == TargetKind::PersistentVolumeClaim);
            if !is_job || self.refusals.of(&planned.object).is_some() {
                continue;
            }
            let Some(owner) = self.world.of(&planned.object) else { continue };
            self.account(owner, &planned.object);
            match due.get(planned.id.as_str()) {
                Some(due) if self.may_start(&planned.object, &planned.repository, due) => {
                    let name = name_of_recovery(&planned.object);
                    let action = match self.world.get("Job", &name) {
                        // Its name is free when it is gone.
                        Some(before) => Some(job::delete(before, "its recovery is tried again")),
                        None if job::is_at_work(self.world, &name) => {
                            let waits = "it waits for the end of the pod of an earlier Job of its name".to_owned();
                            self.pending.insert(planned.object.clone(), Pending::Turn(waits));
                            None
                        }
                        None => self.recovery(owner, planned),
                    };
                    self.start(&planned.object, action);
                }
                Some(_) => {}
                None => self.plan.next.filter(|next| *next > now).into_iter().for_each(|next| {
                    if planned.state == holdfast_plan::RecoveryState::Pending {
                        self.decision.again_at(next);
                    }
                }),
            }
        }
    }

    fn start(&mut self, object: &ObjectKey, action: Option<Action>) {
        if action.is_some() {
            self.starting.insert(object.clone());
        }
        self.decision.actions.extend(action);
    }

    /// One Job uses a repository at a time, and no more Jobs run than allowed.
    fn may_start(&mut self, object: &ObjectKey, repository: &str, due: &Due) -> bool {
        let started = self.decision.actions.iter().filter(|action| is_new_job(action)).count();
        let uses = |other: &ObjectKey| {
            let of_backup =
                self.plan.backups.iter().filter(|planned| planned.object == *other).map(|one| &one.repository);
            let of_recovery =
                self.plan.recoveries.iter().filter(|planned| planned.object == *other).map(|one| &one.repository);
            of_backup.chain(of_recovery).any(|other| other == repository)
        };
        // One that waits for a Secret does nothing meanwhile.
        let busy = || self.running.iter().filter(|work| !self.history.waits_for_secret(work));
        let same = busy().map(|work| &work.object).chain(&self.starting).find(|other| uses(other));
        let reason = match (&due.waits_for, same) {
            (Some(Wait::Recovery(id) | Wait::Backup(id)), _) => format!("it waits for {id}"),
            (_, Some(other)) if other != object => format!("it waits for {other}, which uses the same repository"),
            (_, Some(_)) => return false,
            (_, None) if busy().count() + started >= self.settings.jobs_max => {
                format!("it waits until fewer than {} Jobs run in this namespace", self.settings.jobs_max)
            }
            (_, None) => return true,
        };
        self.pending.insert(object.clone(), Pending::Turn(reason));
        false
    }

    /// The service account of an object's Jobs and what it may do.
    fn account(&mut self, owner: &Value, object: &ObjectKey) {
        let mut grant = Grant::default();
        grant.write(object);
        self.add_triggers(object, &mut grant);
        match self.repository_of(object) {
            Some(repository) if repository.namespace == self.world.namespace => grant.write(&repository),
            // It allows this, or the object would not have been planned.
            foreign => grant.foreign.extend(foreign),
        }
        let name = (object.namespace.as_str(), object.name.as_str());
        let pod = match object.kind.as_str() {
            "Backup" => self.objects.backups.get(&name).and_then(|backup| backup.spec.settings.pod_attributes.as_ref()),
            _ => self.objects.recoveries.get(&name).and_then(|recovery| recovery.spec.pod_attributes.as_ref()),
        };
        let named = pod.and_then(|pod| pod.service_account_name.as_deref());
        if let Some(workload) = self.workload_of_repository(object) {
            grant.read(workload);
        }
        let actions = rights_of_job(self.world, owner, named, &grant, &mut self.rights);
        self.decision.actions.extend(actions);
    }

    fn backup(&self, owner: &Value, object: &ObjectKey, target: &Target, due: &Due) -> Option<Action> {
        let backup = self.objects.backups.get(&(object.namespace.as_str(), object.name.as_str()))?;
        let settings = &backup.spec.settings;
        let pod = settings.pod_attributes.as_ref();
        let work = self.finder.work(
            self.world.namespace,
            &backup.spec.repository,
            settings.backup_agent.as_ref(),
            templates::VOLUME_BACKUP,
            settings.container_attributes.as_ref(),
            pull_secrets(pod),
        );
        let work = work.ok().flatten()?;
        let draft = Draft {
            owner,
            name: self.name_of_backup(&object.name, due),
            host: job::host_of_claim(&target.name),
            component: "backup",
            target: format!("{}/{}", target.kind.name(), target.name),
            object: vec![(names::BACKUP_NAME, object.name.clone())],
            containers: self.containers(work.agent, "stash-backup", templates::backup_arguments())?,
            volumes: vec![job::claim(&target.name)],
            access: Access::Read,
            store: &work.store,
            container: work.container,
            pod,
            pull_secrets: work.pull_secrets,
            node_selector: BTreeMap::new(),
        };
        job::create(self.world, draft, format!("{object} is due"), self.settings)
    }

    /// The name of a Job by the minute at which it became due: decided on again before the Job that was just made is
    /// seen, it is the same, and no second one is made. One that has ended leaves it to the next only under another.
    fn name_of_backup(&self, backup: &str, due: &Due) -> String {
        let created = |id: &String| {
            let name = id.rsplit_once('/').map_or(id.as_str(), |(_, name)| name);
            moment(self.world.get("BackupTrigger", name)?, "/metadata/creationTimestamp")
        };
        // What is triggered is due now, at any moment.
        let since = due.triggers.iter().filter_map(created).min().unwrap_or(due.since);
        let first = format!("backup-{backup}-{}", since.as_second().div_euclid(60));
        let is_taken = |wanted: &String| self.jobs.iter().any(|work| name(work.job) == bounded(wanted));
        let others = (2..).map(|number| format!("{first}-{number}"));
        std::iter::once(first.clone()).chain(others).find(|wanted| !is_taken(wanted)).unwrap_or(first)
    }

    fn recovery(&self, owner: &Value, planned: &PlannedRecovery) -> Option<Action> {
        let object = &planned.object;
        let recovery = self.objects.recoveries.get(&(object.namespace.as_str(), object.name.as_str()))?;
        let spec = &recovery.spec;
        let pod = spec.pod_attributes.as_ref();
        let work = self.finder.work(
            self.world.namespace,
            &spec.repository,
            spec.recovery_agent.as_ref(),
            templates::VOLUME_RECOVERY,
            spec.container_attributes.as_ref(),
            &spec.image_pull_secrets,
        );
        let work = work.ok().flatten()?;
        let volumes = match (&spec.recover_to, &planned.target) {
            (_, Some(target)) => vec![job::claim(&target.name)],
            (Some(RecoverTo::Volume(volume)), None) => vec![job::recovered(0, &volume.volume)],
            _ => {
                let all = spec.recovered_volumes.iter().enumerate();
                all.map(|(place, recovered)| job::recovered(place, &recovered.volume)).collect()
            }
        };
        let draft = Draft {
            owner,
            name: name_of_recovery(object),
            host: planned.id.rsplit_once('/').map_or_else(String::new, |(_, host)| host.to_owned()),
            component: "recovery",
            target: match &planned.target {
                Some(target) => format!("{}/{}", target.kind.name(), target.name),
                None => format!("Recovery/{}", object.name),
            },
            object: vec![(names::RECOVERY_NAME, object.name.clone())],
            containers: self.containers(work.agent, "stash-recover", templates::recovery_arguments())?,
            volumes,
            access: Access::Write,
            store: &work.store,
            container: work.container,
            pod,
            pull_secrets: work.pull_secrets,
            node_selector: spec.node_selector.clone(),
        };
        job::create(self.world, draft, format!("{object} is due"), self.settings)
    }

    fn containers(&self, agent: &str, name: &'static str, args: Vec<String>) -> Option<Containers<'_>> {
        if templates::is_default(agent) {
            return Some(Containers::Own(name, args));
        }
        Some(Containers::Template(&self.objects.agents.get(agent)?.spec))
    }
}

fn open_triggers<'a>(objects: &Objects<'a>, plan: &Plan) -> BTreeMap<&'a str, Vec<ObjectKey>> {
    let done: BTreeSet<&str> =
        plan.triggers.iter().filter(|planned| planned.done).map(|planned| planned.id.as_str()).collect();
    let mut open: BTreeMap<&str, Vec<ObjectKey>> = BTreeMap::new();
    for ((namespace, name), trigger) in &objects.triggers {
        if !done.contains(format!("{namespace}/{name}").as_str()) {
            let of_backup = open.entry(trigger.spec.target_backup.name.as_str()).or_default();
            of_backup.push(ObjectKey::new("BackupTrigger", *namespace, *name));
        }
    }
    open
}

fn is_new_job(action: &Action) -> bool {
    matches!(action, Action::Create { object, .. } if object["kind"] == "Job")
}

/// Role and binding for the Jobs of `owner`, and a service account unless the object names one.
fn rights_of_job(
    world: &World<'_>,
    owner: &Value,
    named: Option<&str>,
    grant: &Grant,
    rights: &mut BTreeSet<Made>,
) -> Vec<Action> {
    let own = access::name_for(text(owner, "/kind"), name(owner));
    note_rights(world, owner, grant, rights);
    let mut actions = Vec::new();
    if named.is_none() {
        rights.insert(("ServiceAccount", world.namespace.to_owned(), own.clone()));
        actions.extend(access::service_account(world, owner));
    }
    actions.extend(access::grant(world, owner, named.unwrap_or(&own), grant));
    actions
}

fn note_rights(world: &World<'_>, owner: &Value, grant: &Grant, rights: &mut BTreeSet<Made>) {
    for (namespace, name) in access::names_of(world, owner, grant) {
        rights.insert(("Role", namespace.clone(), name.clone()));
        rights.insert(("RoleBinding", namespace, name));
    }
}

/// Takes back rights that nobody needs any more.
fn without_use(world: &World<'_>, rights: &BTreeSet<Made>) -> Vec<Action> {
    let (label, value) = MANAGED_BY;
    let kinds = ["RoleBinding", "Role", "ServiceAccount"];
    let made = kinds.into_iter().flat_map(|kind| world.everywhere(kind).map(move |object| (kind, object)));
    let unused = made.filter(|(kind, object)| {
        let labels = &object["metadata"]["labels"];
        let namespace = text(object, "/metadata/namespace");
        let is_ours = labels[label] == value
            && (namespace == world.namespace && labels[access::FOR_NAMESPACE].is_null()
                || labels[access::FOR_NAMESPACE] == world.namespace);
        is_ours && !rights.contains(&(*kind, namespace.to_owned(), name(object).to_owned()))
    });
    unused
        .map(|(kind, object)| Action::Delete {
            because: "nobody needs these rights any more".to_owned(),
            api_version: text(object, "/apiVersion").to_owned(),
            object: ObjectKey::new(kind, text(object, "/metadata/namespace"), name(object)),
            uid: uid(object).to_owned(),
        })
        .collect()
}

/// The pods of each workload, by its UID: those of a Deployment belong to its ReplicaSets.
fn pods_of_workloads<'a>(world: &World<'a>) -> BTreeMap<&'a str, Vec<&'a Value>> {
    let mut pods: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for pod in world.all("Pod") {
        let Some((kind, owner, owner_uid)) = controller(pod) else { continue };
        let set = world.get("ReplicaSet", owner).filter(|set| kind == "ReplicaSet" && uid(set) == owner_uid);
        let above = set.and_then(controller).map(|(_, _, uid)| uid);
        pods.entry(above.unwrap_or(owner_uid)).or_default().push(pod);
    }
    pods
}

/// What the pod of a Job waits for.
fn waits(world: &World<'_>, work: &Work<'_>) -> Option<String> {
    let pod = world.all("Pod").find(|pod| controller(pod).is_some_and(|(_, _, owner)| owner == uid(work.job)))?;
    if let Some(trouble) = trouble(pod) {
        return Some(format!("its pod waits: {trouble}"));
    }
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array)?;
    let unscheduled = conditions.iter().find(|one| one["type"] == "PodScheduled" && one["status"] == "False")?;
    Some(format!("its pod waits for a node: {}", text(unscheduled, "/message")))
}

/// Why the server refuses pods of a workload, as by a quota that wants limits of each container.
fn not_made(workload: &Value) -> Option<&str> {
    let conditions = workload.pointer("/status/conditions").and_then(Value::as_array)?;
    let failure = conditions.iter().find(|one| one["type"] == "ReplicaFailure" && one["status"] == "True")?;
    Some(text(failure, "/message"))
}

fn name_of_recovery(object: &ObjectKey) -> String {
    bounded(&format!("recover-{}", object.name))
}

/// What keeps a container of ours from running, in the words of Kubernetes.
fn trouble(pod: &Value) -> Option<String> {
    let waiting = statuses_of_ours(pod).find_map(hindrance)?;
    // How long Kubernetes waits this time changes with each try, and says nothing.
    let message = text(waiting, "/message").split("restarting failed container").next().unwrap_or_default();
    Some(format!("{}: {message}", text(waiting, "/reason")))
}
