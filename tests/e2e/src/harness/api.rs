//! Objects of any kind, written and read as JSON and named `Kind/name` or `Kind.group/name`.

use std::panic::Location;
use std::sync::Mutex;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::discovery::Scope;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery};
use kube::{Client, ResourceExt};
use serde_json::Value;

use super::Test;

/// The image of test workloads, on every node.
const BUSYBOX: &str = "holdfast.test/busybox:1";

/// Kinds the API serves, of all tests: asked for once, and again when one is missing.
static KINDS: Mutex<Vec<(ApiResource, ApiCapabilities)>> = Mutex::new(Vec::new());

/// The objects of a test's namespace.
pub(super) struct Objects {
    pub(super) client: Client,
    namespace: String,
    /// Objects of no namespace that the test wrote; nobody else would remove them.
    outside: Mutex<Vec<(ApiResource, String)>>,
}

impl Objects {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), outside: Mutex::default() }
    }

    /// The API of a kind in the test's namespace, or of the whole cluster where the kind has none.
    pub(super) async fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (kind, group) = kind.split_once('.').map_or((kind, None), |(kind, group)| (kind, Some(group)));
        let (resource, capabilities) = self.kind(kind, group).await;
        self.api_in(&resource, &capabilities, &self.namespace)
    }

    fn api_in(&self, resource: &ApiResource, capabilities: &ApiCapabilities, namespace: &str) -> Api<DynamicObject> {
        match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, resource),
        }
    }

    async fn kind(&self, kind: &str, group: Option<&str>) -> (ApiResource, ApiCapabilities) {
        let found = self.find(kind, group).await;
        found.unwrap_or_else(|| panic!("the API server serves no kind {kind} {}", group.unwrap_or_default()))
    }

    async fn find(&self, kind: &str, group: Option<&str>) -> Option<(ApiResource, ApiCapabilities)> {
        let known = || {
            let kinds = KINDS.lock().unwrap();
            // Of two kinds with one name the core's is meant: `Event`.
            let of = |group: &str| kinds.iter().find(|(r, _)| r.kind == kind && r.group == group).cloned();
            match group {
                Some(group) => of(group),
                None => of("").or_else(|| kinds.iter().find(|(r, _)| r.kind == kind).cloned()),
            }
        };
        if let Some(found) = known() {
            return Some(found);
        }
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await.expect("the kinds the API serves");
        *KINDS.lock().unwrap() = discovery.groups().flat_map(|group| group.resources_by_stability()).collect();
        known()
    }

    /// Deletes the namespace and what the test wrote outside it; does not wait for them to be gone.
    pub(super) async fn remove_everything(&self) {
        let outside = std::mem::take(&mut *self.outside.lock().unwrap());
        for (resource, name) in outside.into_iter().rev() {
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            if let Err(error) = api.delete(&name, &DeleteParams::background()).await {
                println!("cannot delete {}/{name}: {error}", resource.kind);
            }
        }
    }
}

impl Test {
    /// Applies every document of a YAML text, as `kubectl apply --server-side` would; unknown fields are an error.
    /// `$NAMESPACE` stands for the test's namespace, `$BUSYBOX` for the image of test workloads.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.try_apply(yaml).await.unwrap_or_else(|error| panic!("{at}: {error}")) }
    }

    /// The same, with the API server's refusal as the error.
    pub(crate) async fn try_apply(&self, yaml: &str) -> Result<(), String> {
        let yaml = yaml.replace("$NAMESPACE", &self.namespace).replace("$BUSYBOX", BUSYBOX);
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&yaml).unwrap_or_else(|error| panic!("not YAML: {error}\n{yaml}"));
        for document in documents.into_iter().filter(|document| !document.is_null()) {
            self.apply_object(document).await?;
        }
        Ok(())
    }

    async fn apply_object(&self, document: Value) -> Result<(), String> {
        let object: DynamicObject =
            serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error}: {document}"));
        let types = object.types.clone().unwrap_or_else(|| panic!("without apiVersion and kind: {document}"));
        let (group, version) = types.api_version.rsplit_once('/').unwrap_or(("", &types.api_version));
        let (mut resource, capabilities) = self.objects.kind(&types.kind, Some(group)).await;
        resource.version = version.to_owned();
        resource.api_version.clone_from(&types.api_version);
        let namespace = object.namespace().unwrap_or_else(|| self.namespace.clone());
        let api = self.objects.api_in(&resource, &capabilities, &namespace);
        let name = object.name_any();
        let params = PatchParams::apply("e2e").force().validation_strict();
        let answer = api.patch(&name, &params, &Patch::Apply(&document)).await;
        answer.map_err(|error| format!("cannot apply {}/{name}: {error}", types.kind))?;
        let mut outside = self.objects.outside.lock().unwrap();
        if matches!(capabilities.scope, Scope::Cluster) && !outside.iter().any(|(r, n)| *r == resource && *n == name) {
            outside.push((resource, name));
        }
        Ok(())
    }

    /// Makes an object that does not exist, and returns what the server made of it: quicker than [`Test::apply`] where
    /// there are thousands, and the way to ask for a review.
    pub(crate) async fn create(&self, document: Value) -> Value {
        let object: DynamicObject = serde_json::from_value(document).expect("an object");
        let kind = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
        let answer = self.objects.api(&kind).await.create(&PostParams::default(), &object).await;
        value(&answer.unwrap_or_else(|error| panic!("cannot create {kind}/{}: {error}", object.name_any())))
    }

    /// Whether the API server knows a kind.
    pub(super) async fn serves(&self, kind: &str) -> bool {
        self.objects.find(kind, None).await.is_some()
    }

    /// The object as it is now; null when there is none.
    pub(crate) async fn get(&self, object: &str) -> Value {
        let (kind, name) = split(object);
        let answer = self.objects.api(kind).await.get_opt(name).await;
        answer.unwrap_or_else(|error| panic!("cannot read {object}: {error}")).map_or(Value::Null, |o| value(&o))
    }

    /// All objects of a kind with these labels (`a=b,c=d`; empty: all) in the namespace.
    pub(crate) async fn list(&self, kind: &str, labels: &str) -> Vec<Value> {
        let answer = self.objects.api(kind).await.list(&ListParams::default().labels(labels)).await;
        answer.unwrap_or_else(|error| panic!("cannot list {kind}: {error}")).items.iter().map(value).collect()
    }

    /// Changes some fields (JSON merge patch).
    pub(crate) async fn patch(&self, object: &str, change: &Value) {
        let (kind, name) = split(object);
        let answer = self.objects.api(kind).await.patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
        answer.unwrap_or_else(|error| panic!("cannot change {object}: {error}"));
    }

    /// Asks for the object's deletion; [`Test::gone`] waits for its end.
    pub(crate) async fn delete(&self, object: &str) {
        self.delete_with(object, &DeleteParams::default()).await;
    }

    pub(super) async fn delete_with(&self, object: &str, params: &DeleteParams) {
        let (kind, name) = split(object);
        let answer = self.objects.api(kind).await.delete(name, params).await;
        answer.unwrap_or_else(|error| panic!("cannot delete {object}: {error}"));
    }
}

/// `Pod/web` to its kind and name.
pub(super) fn split(object: &str) -> (&str, &str) {
    object.split_once('/').unwrap_or_else(|| panic!("{object:?} is not of the form Kind/name"))
}

/// The object as JSON, without what only machines read.
pub(super) fn value(object: &DynamicObject) -> Value {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    serde_json::to_value(object).expect("an object is JSON")
}
