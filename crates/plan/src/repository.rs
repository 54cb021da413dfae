//! Repositories: where each one is, which Secret opens it, and who may use it.
//!
//! - A written `Repository` is used as it is, by its own namespace and those it allows.
//! - A `Restic` makes one per host, at `<prefix>/<kind>/<workload>` of its store; without a prefix the
//!   namespace takes its place, so that two namespaces never meet in one repository.
//! - A `BackupTemplate` makes one per workload, at its expanded prefix.
//!
//! The plan names the keys of a Secret, never their values; that they are there is checked here, since a
//! backup that finds no password at three in the morning helps nobody.

use std::collections::BTreeMap;

use holdfast_api::manifest::{Cause, Object};
use holdfast_api::names::{self, secret_keys as keys};
use holdfast_api::values::{Backend, BackendKind, ObjectReference};
use k8s_openapi::api::core::v1::Secret;

use crate::key::ObjectKey;
use crate::path::{self, PathError};
use crate::planned::PlannedRepository;
use crate::report::Finding;
use crate::source::DirectorySource;
use crate::target::Lookup;
use crate::volume::{self, Pod, VolumeError};

/// The repositories that backups and recoveries may name, by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Repositories {
    known: BTreeMap<(String, String), Known>,
}

#[derive(Debug)]
struct Known {
    /// None if the object has errors, which are told already.
    planned: Option<PlannedRepository>,
    allowed_namespaces: Vec<String>,
}

impl Repositories {
    /// Adds a repository; of two with one name the first stays.
    pub(crate) fn add(&mut self, namespace: &str, name: &str, allowed: &[String], planned: Option<PlannedRepository>) {
        let known = Known { planned, allowed_namespaces: allowed.to_vec() };
        self.known.entry((namespace.to_owned(), name.to_owned())).or_insert(known);
    }

    pub(crate) fn contains(&self, namespace: &str, name: &str) -> bool {
        self.known.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// The location of a planned repository, by id.
    pub(crate) fn location(&self, id: &str) -> &str {
        let known =
            id.split_once('/').and_then(|(namespace, name)| self.known.get(&(namespace.to_owned(), name.to_owned())));
        known.and_then(|known| known.planned.as_ref()).map_or("", |planned| planned.location.as_str())
    }

    /// The repository that an object of `namespace` refers to.
    pub(crate) fn find(
        &self,
        lookup: Lookup<'_>,
        namespace: &str,
        reference: &ObjectReference,
    ) -> Result<&PlannedRepository, Finding> {
        let of = reference.namespace.as_deref().unwrap_or(namespace);
        let key = ObjectKey::new("Repository", of, &reference.name);
        let Some(known) = self.known.get(&(of.to_owned(), reference.name.clone())) else {
            let first = (of.to_owned(), String::new());
            let names = self.known.range(first..).map(|(key, _)| key);
            let names = names.take_while(|(namespace, _)| namespace == of).map(|(_, name)| name.as_str());
            return Err(lookup.missing("spec.repository.name", &key, names));
        };
        if of != namespace && !known.allowed_namespaces.iter().any(|allowed| allowed == namespace || allowed == "*") {
            let problem = format!("{key} does not allow the namespace `{namespace}`");
            let way_out = format!("add `{namespace}` to its spec.allowedNamespaces");
            let finding = Finding::new("spec.repository.namespace", problem).because(Cause::NotAllowed);
            return Err(finding.suggest(way_out));
        }
        known.planned.as_ref().ok_or_else(|| {
            let finding = Finding::new("spec.repository", format!("{key} has errors of its own"));
            finding.because(Cause::InvalidReference).suggest("correct those first")
        })
    }

    /// All repositories without errors, by name.
    pub(crate) fn into_planned(self) -> Vec<PlannedRepository> {
        self.known.into_values().filter_map(|known| known.planned).collect()
    }
}

/// A repository to be planned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft<'a> {
    /// The manifest that holds the backend.
    pub(crate) manifest: &'a Object,
    /// The namespace of the repository and its Secret.
    pub(crate) namespace: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// The store.
    pub(crate) backend: &'a Backend,
    /// The field that holds the backend, as `spec.backend`.
    pub(crate) field: &'a str,
    /// The path below the prefix, for the repositories of a Restic.
    pub(crate) below: Option<&'a str>,
    /// Keys of the Secret that may hold the password; the first there is counts.
    pub(crate) password_keys: &'a [&'a str],
    /// The object it comes from, where that is not a written Repository.
    pub(crate) made_by: Option<&'a ObjectKey>,
}

impl Draft<'_> {
    /// Finds the location and checks the Secret.
    pub(crate) fn plan(
        self,
        lookup: Lookup<'_>,
        warnings: &mut Vec<Finding>,
    ) -> Result<PlannedRepository, Vec<Finding>> {
        let Self { namespace, name, backend, field, .. } = self;
        let store = backend.kind.name();
        if !lookup.settings.stores.iter().any(|served| served == store) {
            let problem = format!("stores of the type `{store}` are not yet served");
            let way_out = format!("those that are: {}", lookup.settings.stores.join(", "));
            let finding = Finding::new(format!("{field}.{store}"), problem).because(Cause::NotServed);
            return Err(finding.suggest(way_out).into());
        }
        let mut findings = Vec::new();
        if let BackendKind::Local(local) = &backend.kind
            && local.volume.empty_dir.is_some()
        {
            let problem = "the repository is in an emptyDir, which a cluster deletes with its pod";
            let way_out = "keep it in a claim or on a hostPath";
            warnings.push(Finding::new(field, problem).suggest(way_out));
        }
        let located = self.locate(lookup).map_err(|finding| findings.push(finding)).ok();
        let opened = self.open(lookup, warnings).map_err(|finding| findings.push(finding)).ok();
        match (located, opened) {
            (Some((location, volume)), Some((secret, env))) => Ok(PlannedRepository {
                id: format!("{namespace}/{name}"),
                location,
                volume,
                region: match &backend.kind {
                    BackendKind::S3(s3) => s3.region.clone(),
                    _ => None,
                },
                secret,
                env,
                made_by: self.made_by.cloned(),
            }),
            _ => Err(findings),
        }
    }

    /// The location as restic writes it, and the volume it is in.
    fn locate(self, lookup: Lookup<'_>) -> Result<(String, Option<DirectorySource>), Finding> {
        let Self { manifest, namespace, name, backend, field, below, .. } = self;
        let store = backend.kind.name();
        let prefix_field = match backend.kind {
            BackendKind::Local(_) => format!("{field}.local.subPath"),
            BackendKind::Rest(_) => format!("{field}.rest.url"),
            _ => format!("{field}.{store}.prefix"),
        };
        let url = match &backend.kind {
            BackendKind::S3(s3) => s3.endpoint.as_deref().map(|endpoint| ("endpoint", endpoint)),
            BackendKind::Rest(rest) => Some(("url", rest.url.as_str())),
            _ => None,
        };
        if let Some((url_field, _)) = url.filter(|(_, url)| has_credentials(url)) {
            let finding = Finding::new(format!("{field}.{store}.{url_field}"), "the URL holds a user name or password");
            return Err(finding.suggest("put them into the Secret, which nobody prints"));
        }
        let path = self.path(backend.kind.prefix()).map_err(|error| Finding::new(prefix_field, error))?;
        Ok(match &backend.kind {
            BackendKind::Local(local) if lookup.settings.place.has_mounts() => {
                let wrong = |error: VolumeError| Finding::of_volume(format!("{field}.local"), &error);
                let sources = ["configMap", "secret", "projected", "downwardAPI"];
                if let Some(source) = local.volume.set_fields().iter().find(|source| sources.contains(source)) {
                    let problem = format!("a repository cannot be written into a volume of type `{source}`");
                    return Err(Finding::new(format!("{field}.local"), problem));
                }
                // The pods of one StatefulSet have one template: what is mounted is the same for all hosts.
                let owner = format!("{}/{}/{}", manifest.kind, namespace, manifest.name);
                let identity = volume::identity(namespace, &owner, &local.volume).map_err(wrong)?;
                let hash = names::pod::hash(&identity);
                let (name, at) = (names::pod::repository_volume(&hash), names::pod::repository_mount(&hash));
                let source = DirectorySource { volume: volume::mounted(&name, &at, &identity), sub_path: path };
                let location = source.directory(lookup.settings.volumes.as_ref()).to_string_lossy().into_owned();
                (location, Some(source))
            }
            BackendKind::Local(local) => {
                let base = lookup.index.base(manifest);
                let instance = format!("repository.{name}");
                let pod = Pod { namespace, instance: &instance, name, base: &base };
                let volume = volume::resolve(lookup.index, pod, "repository", &local.volume)
                    .map_err(|error| Finding::of_volume(format!("{field}.local"), &error))?;
                let source = DirectorySource { volume, sub_path: path };
                if source.read_only() {
                    let problem = "a repository cannot be written into a ConfigMap or Secret";
                    return Err(Finding::new(format!("{field}.local"), problem));
                }
                let location = source.directory(lookup.settings.volumes.as_ref()).to_string_lossy().into_owned();
                (location, Some(source))
            }
            BackendKind::S3(s3) => {
                let endpoint = s3.endpoint.as_deref().unwrap_or("s3.amazonaws.com").trim_end_matches('/');
                (format!("s3:{}", path::join(&format!("{endpoint}/{}", s3.bucket), &path)), None)
            }
            BackendKind::Gcs(gcs) => (format!("gs:{}:/{path}", gcs.bucket), None),
            BackendKind::Azure(azure) => (format!("azure:{}:/{path}", azure.container), None),
            BackendKind::Swift(swift) => (format!("swift:{}:/{path}", swift.container), None),
            BackendKind::B2(b2) => (format!("b2:{}:{path}", b2.bucket), None),
            BackendKind::Rest(rest) => {
                let url = rest.url.trim_end_matches('/');
                let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
                let url = match below {
                    None => url.to_owned(),
                    Some(below) if has_path => format!("{url}/{below}"),
                    Some(below) => format!("{url}/{namespace}/{below}"),
                };
                (format!("rest:{url}/"), None)
            }
        })
    }

    /// The path inside the store.
    fn path(self, prefix: Option<&str>) -> Result<String, PathError> {
        let prefix = path::relative(prefix.unwrap_or_default().trim_start_matches('/'))?;
        Ok(match self.below {
            None => prefix,
            Some(below) if prefix.is_empty() => path::join(self.namespace, below),
            Some(below) => path::join(&prefix, below),
        })
    }

    /// The Secret and the variables it gives.
    fn open(
        self,
        lookup: Lookup<'_>,
        warnings: &mut Vec<Finding>,
    ) -> Result<(String, BTreeMap<String, String>), Finding> {
        let Self { namespace, backend, field, password_keys, .. } = self;
        let field = if field == "spec.destination" {
            format!("{field}.repositorySecretName")
        } else {
            format!("{field}.storageSecretName")
        };
        let expected = password_keys.first().copied().unwrap_or(keys::RESTIC_PASSWORD);
        let Some(name) = backend.storage_secret_name.as_deref().filter(|name| !name.is_empty()) else {
            return Err(Finding::new(
                field,
                format!("no Secret is named; one with the key `{expected}` is needed to open the repository"),
            ));
        };
        let key = ObjectKey::new("Secret", namespace, name);
        let known = lookup.index.secret(namespace, name);
        if lookup.settings.place.has_mounts()
            && !known.is_some_and(|secret| password_keys.iter().any(|key| has_value(secret, key)))
        {
            // Whoever runs it has the Secret, and says what it lacks.
            let assumed = required_credentials(&backend.kind).iter().map(|key| ((*key).to_owned(), (*key).to_owned()));
            let password = (keys::RESTIC_PASSWORD.to_owned(), expected.to_owned());
            return Ok((name.to_owned(), assumed.chain([password]).collect()));
        }
        let Some(secret) = known else {
            let finding = lookup.missing(field, &key, []);
            let way_out = format!("add a Secret of that name with the key `{expected}`");
            return Err(if lookup.index.is_rejected(&key) { finding } else { finding.suggest(way_out) });
        };
        let Some(password) = password_keys.iter().find(|key| has_value(secret, key)) else {
            let problem = format!("{key} has no value for the key `{expected}`");
            return Err(Finding::new(field, problem).suggest("add the password of the repository under that key"));
        };
        let mut env = BTreeMap::from([(keys::RESTIC_PASSWORD.to_owned(), (*password).to_owned())]);
        let wanted = credentials(&backend.kind);
        for key in wanted.iter().chain(&[keys::CA_CERT_DATA]).filter(|key| has_value(secret, key)) {
            env.insert((*key).to_owned(), (*key).to_owned());
        }
        if matches!(backend.kind, BackendKind::Swift(_)) {
            for key in
                secret_keys(secret).filter(|key| keys::OPENSTACK_PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
            {
                env.insert(key.to_owned(), key.to_owned());
            }
        }
        if let Some(missing) = required_credentials(&backend.kind).iter().find(|key| !env.contains_key(**key)) {
            let problem = format!("{key} has no value for the key `{missing}`; the store is opened without it");
            warnings.push(Finding::new(field, problem));
        }
        Ok((name.to_owned(), env))
    }
}

/// The keys of a Secret that restic's variables take for a store.
fn credentials(store: &BackendKind) -> &'static [&'static str] {
    match store {
        BackendKind::Local(_) | BackendKind::Swift(_) => &[],
        BackendKind::S3(_) => {
            &[keys::AWS_ACCESS_KEY_ID, keys::AWS_SECRET_ACCESS_KEY, "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"]
        }
        BackendKind::Gcs(_) => &[keys::GOOGLE_PROJECT_ID, keys::GOOGLE_SERVICE_ACCOUNT_JSON_KEY],
        BackendKind::Azure(_) => &[keys::AZURE_ACCOUNT_NAME, keys::AZURE_ACCOUNT_KEY],
        BackendKind::B2(_) => &[keys::B2_ACCOUNT_ID, keys::B2_ACCOUNT_KEY],
        BackendKind::Rest(_) => &["RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"],
    }
}

/// Those of them without which a store is rarely opened.
fn required_credentials(store: &BackendKind) -> &'static [&'static str] {
    match store {
        BackendKind::Local(_) | BackendKind::Swift(_) | BackendKind::Rest(_) => &[],
        BackendKind::S3(_) => &[keys::AWS_ACCESS_KEY_ID, keys::AWS_SECRET_ACCESS_KEY],
        BackendKind::Gcs(_) => &[keys::GOOGLE_SERVICE_ACCOUNT_JSON_KEY],
        BackendKind::Azure(_) => &[keys::AZURE_ACCOUNT_NAME, keys::AZURE_ACCOUNT_KEY],
        BackendKind::B2(_) => &[keys::B2_ACCOUNT_ID, keys::B2_ACCOUNT_KEY],
    }
}

/// Whether a URL has a user name before its host.
fn has_credentials(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().is_some_and(|authority| authority.contains('@'))
}

fn secret_keys(secret: &Secret) -> impl Iterator<Item = &str> {
    let data = secret.data.iter().flatten().filter(|(_, value)| !value.0.is_empty()).map(|(key, _)| key.as_str());
    let text = secret.string_data.iter().flatten().filter(|(_, value)| !value.is_empty()).map(|(key, _)| key.as_str());
    data.chain(text)
}

fn has_value(secret: &Secret, key: &str) -> bool {
    value(secret, key).is_some_and(|value| !value.is_empty())
}

/// What a Secret holds under a key.
pub(crate) fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    // A key in both counts with its text, as an API server merges them.
    let text = secret.string_data.as_ref().and_then(|text| text.get(key)).map(String::as_bytes);
    text.or_else(|| secret.data.as_ref()?.get(key).map(|value| value.0.as_slice()))
}
