//! One container of ours: its environment, mounts, user and resources. Names and paths are those of
//! [`holdfast_api::names::pod`], by which the agent in the pod finds them again.

use std::collections::BTreeMap;

use holdfast_api::names::pod as names;
use holdfast_api::values::{Backend, BackendKind, ContainerAttributes, Quantity, Resources};
use holdfast_plan::{PlannedRepository, Volume as PlannedVolume};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, EmptyDirVolumeSource,
    EnvFromSource, EnvVar, EnvVarSource, KeyToPath, ObjectFieldSelector, PodSpec, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as KubeQuantity;

use crate::settings::Settings;

/// The user that our image runs as where nothing else is said.
const USER: i64 = 65_532;
/// Where a container finds the token of its service account.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "holdfast-token";
const TMP_VOLUME: &str = "holdfast-tmp";
/// What the names of our volumes in a pod start with.
pub(crate) const VOLUME_PREFIX: &str = "holdfast-";

/// Whether a container was put in by us: every one of ours is told whom it works for.
pub(crate) fn is_ours(container: &Container) -> bool {
    container.env.iter().flatten().any(|variable| variable.name == names::TARGET)
}

/// What a container does to the volumes of its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It reads them.
    Read,
    /// It writes them.
    Write,
}

/// The volumes of a pod that are ours, and where our containers mount these and the target's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    volumes: BTreeMap<String, Volume>,
    mounts: BTreeMap<String, VolumeMount>,
}

impl Needs {
    /// What every container of ours has: a token of its own, whether or not the pod mounts one, and a folder for
    /// temporary files.
    pub(crate) fn new() -> Self {
        let mut needs = Self::default();
        needs.mount(token(), TOKEN_PATH, true);
        let tmp = Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume(TMP_VOLUME) };
        needs.mount(tmp, "/tmp", false);
        needs
    }

    /// Mounts a volume that the pod has anyway.
    pub(crate) fn target(&mut self, name: &str, access: Access) {
        self.mount_at(name, &below_root(&names::target_mount(name)), access == Access::Read);
    }

    /// Mounts what opens a repository: its Secret, and the volume it lies in.
    pub(crate) fn store(&mut self, store: &Store) {
        if let Some(secret) = &store.secret {
            let source = SecretVolumeSource {
                secret_name: Some(secret.clone()),
                // Whether it is there is told by the run, not by a pod that does not start.
                optional: Some(true),
                default_mode: Some(0o444),
                items: None,
            };
            let volume = Volume { secret: Some(source), ..volume(&names::secret_volume(secret)) };
            self.mount(volume, &below_root(&names::secret_mount(secret)), true);
        }
        if let Some((volume, at)) = &store.volume {
            self.mount(volume.clone(), &below_root(at), false);
        }
    }

    /// Adds a volume to the pod and mounts it.
    pub(crate) fn mount(&mut self, volume: Volume, path: &str, read_only: bool) {
        self.mount_at(&volume.name, path, read_only);
        self.volumes.insert(volume.name.clone(), volume);
    }

    fn mount_at(&mut self, name: &str, path: &str, read_only: bool) {
        let read_only = read_only.then_some(true);
        let mount =
            VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only, ..VolumeMount::default() };
        self.mounts.insert(path.to_owned(), mount);
    }

    /// The volumes that the pod must have for it.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.values()
    }

    fn mounts(&self) -> Vec<VolumeMount> {
        self.mounts.values().cloned().collect()
    }
}

/// What opens a repository in a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    /// The Secret; none where it lies in another namespace.
    secret: Option<String>,
    /// The volume that the repository lies in, and where it is mounted, below the folder of our mounts.
    volume: Option<(Volume, String)>,
}

impl Store {
    /// As the planner has it.
    pub(crate) fn new(backend: &Backend, planned: &PlannedRepository, is_foreign: bool) -> Self {
        let volume = match (&backend.kind, planned.volume.as_ref().map(|source| &source.volume)) {
            (BackendKind::Local(local), Some(PlannedVolume::Mounted(mount))) => {
                Some((local.volume.clone().into_volume(mount.volume.clone()), mount.at.clone()))
            }
            _ => None,
        };
        Self { secret: backend.storage_secret_name.clone().filter(|_| !is_foreign), volume }
    }
}

/// An absolute path below the folder of our mounts.
fn below_root(path: &str) -> String {
    format!("{}/{path}", names::ROOT)
}

fn volume(name: &str) -> Volume {
    Volume { name: name.to_owned(), ..Volume::default() }
}

/// The token of the pod's service account, as Kubernetes itself would mount it.
fn token() -> Volume {
    let key = |key: &str| KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None };
    let token =
        ServiceAccountTokenProjection { path: "token".to_owned(), expiration_seconds: Some(3600), audience: None };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![key("ca.crt")]),
        ..ConfigMapProjection::default()
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(field("metadata.namespace")),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(0o444), sources: Some(sources) };
    Volume { projected: Some(projected), ..volume(TOKEN_VOLUME) }
}

fn field(path: &str) -> ObjectFieldSelector {
    ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() }
}

/// What the user may set on our containers, merged over all objects that share one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    env: Vec<EnvVar>,
    env_from: Vec<EnvFromSource>,
    args: Vec<String>,
    resources: Option<Resources>,
    security_context: Option<SecurityContext>,
}

impl Attributes {
    /// Adds those of another object: of one variable the first stays, of resources the largest, of security contexts
    /// the first.
    pub(crate) fn add(&mut self, attributes: &ContainerAttributes) {
        let ContainerAttributes { args, env, env_from, resources, security_context } = attributes;
        for variable in env {
            if !self.env.iter().any(|known| known.name == variable.name) {
                self.env.push(variable.clone());
            }
        }
        for source in env_from {
            if !self.env_from.contains(source) {
                self.env_from.push(source.clone());
            }
        }
        if self.args.is_empty() {
            self.args.clone_from(args);
        }
        if let Some(resources) = resources {
            self.add_resources(resources);
        }
        if self.security_context.is_none() {
            self.security_context.clone_from(security_context);
        }
    }

    /// Takes the larger amount of each resource.
    pub(crate) fn add_resources(&mut self, more: &Resources) {
        let resources = self.resources.get_or_insert_default();
        for (name, amount) in &more.requests {
            raise(&mut resources.requests, name, amount);
        }
        for (name, amount) in &more.limits {
            raise(&mut resources.limits, name, amount);
        }
        // One object's request may be above the other's limit.
        for (name, requested) in resources.requests.clone() {
            if resources.limits.contains_key(&name) {
                raise(&mut resources.limits, &name, &requested);
            }
        }
    }

    fn resources(&self) -> ResourceRequirements {
        let amounts = |amounts: &BTreeMap<String, Quantity>| -> Option<BTreeMap<String, KubeQuantity>> {
            let amounts: BTreeMap<_, _> =
                amounts.iter().map(|(name, amount)| (name.clone(), KubeQuantity(amount.to_string()))).collect();
            (!amounts.is_empty()).then_some(amounts)
        };
        match &self.resources {
            Some(Resources { requests, limits }) => ResourceRequirements {
                requests: amounts(requests),
                limits: amounts(limits),
                ..ResourceRequirements::default()
            },
            None => ResourceRequirements {
                requests: Some(
                    [("cpu", "10m"), ("memory", "32Mi")]
                        .map(|(name, amount)| (name.to_owned(), KubeQuantity(amount.to_owned())))
                        .into(),
                ),
                ..ResourceRequirements::default()
            },
        }
    }
}

fn raise(amounts: &mut BTreeMap<String, Quantity>, name: &str, amount: &Quantity) {
    match amounts.get_mut(name) {
        Some(known) if *known >= *amount => {}
        Some(known) => *known = amount.clone(),
        None => drop(amounts.insert(name.to_owned(), amount.clone())),
    }
}

/// Whom a container works for, and under whose rights.
#[derive(Debug, Clone)]
pub(crate) struct Purpose {
    /// `Deployment/web`.
    pub(crate) target: String,
    /// Variables that say which object is carried out, such as `BACKUP_NAME`.
    pub(crate) object: Vec<(&'static str, String)>,
    /// Whether `holdfast backup` stays and follows its schedule.
    pub(crate) follow_schedule: bool,
    /// The user where nobody names one.
    pub(crate) user: SecurityContext,
}

/// Completes a container of a template, or of our own making.
pub(crate) fn complete(
    mut container: Container,
    purpose: &Purpose,
    needs: &Needs,
    attributes: &Attributes,
    settings: &Settings,
) -> Container {
    let env = container.env.get_or_insert_default();
    // What the template sets counts; what it refers to by `$(NAME)` must stand before it.
    let mut before: Vec<EnvVar> = environment(purpose, settings);
    before.extend(attributes.env.iter().cloned());
    before.retain(|variable| variable.name == names::TARGET || !env.iter().any(|own| own.name == variable.name));
    env.retain(|variable| variable.name != names::TARGET);
    env.splice(0..0, before);
    if !attributes.env_from.is_empty() {
        container.env_from.get_or_insert_default().extend(attributes.env_from.iter().cloned());
    }
    if !attributes.args.is_empty() {
        container.args.get_or_insert_default().extend(attributes.args.iter().cloned());
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    for mount in needs.mounts() {
        if !mounts.iter().any(|own| own.mount_path == mount.mount_path) {
            mounts.push(mount);
        }
    }
    if container.resources.is_none() || attributes.resources.is_some() {
        container.resources = Some(attributes.resources());
    }
    container.security_context =
        attributes.security_context.clone().or(container.security_context).or_else(|| Some(purpose.user.clone()));
    container.termination_message_policy.get_or_insert_with(|| "FallbackToLogsOnError".to_owned());
    container
}

/// A container of our own image.
pub(crate) fn own(name: &str, image: &str, args: Vec<String>, settings: &Settings) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: settings.image_pull_policy.clone(),
        args: Some(args),
        ..Container::default()
    }
}

fn environment(purpose: &Purpose, settings: &Settings) -> Vec<EnvVar> {
    let value =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
    let from = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field(path)), ..EnvVarSource::default() }),
    };
    let mut env = vec![
        from(names::POD_NAME, "metadata.name"),
        from(names::POD_NAMESPACE, "metadata.namespace"),
        from(names::POD_UID, "metadata.uid"),
        from(names::NODE_NAME, "spec.nodeName"),
        value(names::TARGET, &purpose.target),
        value(names::PUSH_GATEWAY_URL, settings.pushgateway_url.as_deref().unwrap_or_default()),
        value(names::ENABLE_STATUS_SUB_RESOURCE, "true"),
        value(names::ENABLE_ANALYTICS, "false"),
        value(names::ENABLE_ANALYTICS_MISSPELT, "false"),
    ];
    env.extend(purpose.object.iter().map(|(name, object)| value(name, object)));
    if purpose.follow_schedule {
        env.push(value(names::FOLLOW_SCHEDULE, "true"));
    }
    env
}

/// The rights of a container beside those of `pod`: the same user, so that it may read what the application may and the
/// server admits it where it admits the application. Where nobody names a user it is root, with the capabilities to
/// read or write foreign files and no others.
pub(crate) fn user_beside(pod: &PodSpec, access: Access) -> SecurityContext {
    let mounts = |container: &&Container| container.volume_mounts.as_ref().is_some_and(|mounts| !mounts.is_empty());
    let app = pod.containers.iter().find(mounts).or(pod.containers.first());
    let own = app.and_then(|app| app.security_context.as_ref());
    let of_pod = pod.security_context.as_ref();
    let user = own.and_then(|own| own.run_as_user);
    let group = own.and_then(|own| own.run_as_group);
    let non_root = own.and_then(|own| own.run_as_non_root).or(of_pod.and_then(|pod| pod.run_as_non_root)) == Some(true);
    match user.or(of_pod.and_then(|pod| pod.run_as_user)) {
        Some(0) => root(access),
        Some(_) => SecurityContext { run_as_user: user, run_as_group: group, ..confined() },
        None if non_root => SecurityContext { run_as_user: Some(USER), run_as_group: group, ..confined() },
        None => root(access),
    }
}

/// The rights of a Job's container: `restricted` where the namespace enforces that, else enough for foreign files.
pub(crate) fn user_of_job(restricted: bool, access: Access) -> SecurityContext {
    if restricted { SecurityContext { run_as_user: Some(USER), ..confined() } } else { root(access) }
}

fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

fn root(access: Access) -> SecurityContext {
    // Those that the level `baseline` admits.
    let add: &[&str] = match access {
        Access::Read => &["DAC_OVERRIDE"],
        Access::Write => &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"],
    };
    let add = add.iter().map(|&capability| capability.to_owned()).collect();
    let drop = Some(vec!["ALL".to_owned()]);
    SecurityContext {
        run_as_user: Some(0),
        run_as_non_root: Some(false),
        capabilities: Some(Capabilities { drop, add: Some(add) }),
        ..confined()
    }
}
