//! Opening a planned repository with what its Secret holds.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use holdfast_api::manifest::Object;
use holdfast_api::names::secret_keys;
use holdfast_api::values::Secret;
use holdfast_plan::PlannedRepository;
use holdfast_repository::{Error as RepositoryError, InitOptions, Monitor, OpenOptions, Repository};
use holdfast_store::{Access, AccessKey, Credentials, ErrorKind, GcsCredentials, Location, Store};

use crate::volumes;

/// Why a repository could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The Secret, or a key of it, has gone since the plan was made.
    #[error("Secret {secret} has no key {key} any more")]
    NoKey {
        /// `namespace/name`.
        secret: String,
        /// The key.
        key: String,
    },
    /// The Secret, which lies in another namespace, cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// A value of the Secret is not text.
    #[error("key {key} of Secret {secret} is not text")]
    NotText {
        /// `namespace/name`.
        secret: String,
        /// The key.
        key: String,
    },
    /// The location makes no sense.
    #[error("repository {id}")]
    Location {
        /// The repository.
        id: String,
        /// Why.
        #[source]
        source: holdfast_store::ParseError,
    },
    /// The storage cannot be opened.
    #[error("repository {id}")]
    Store {
        /// The repository.
        id: String,
        /// Why.
        #[source]
        source: holdfast_store::Error,
    },
    /// The password is not the repository's.
    #[error("repository {id}: the key {key} of Secret {secret} does not open it, put the right password there")]
    Password {
        /// The repository.
        id: String,
        /// `namespace/name`.
        secret: String,
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: Box<RepositoryError>,
    },
    /// The repository cannot be opened.
    #[error("repository {id}")]
    Repository {
        /// The repository.
        id: String,
        /// Why.
        #[source]
        source: RepositoryError,
    },
}

/// What to do where there is no repository yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Make one: the first backup into it does.
    Init,
    /// Fail: what is to be restored must be there.
    Fail,
}

/// Opens a repository for work that `monitor` stops.
pub fn open(
    planned: &PlannedRepository,
    objects: &[Object],
    options: OpenOptions,
    if_missing: IfMissing,
    monitor: &Monitor,
) -> Result<Arc<Repository>, OpenError> {
    let id = || planned.id.clone();
    let env = environment(planned, objects)?;
    let location = Location::from_str(&planned.location).map_err(|source| OpenError::Location { id: id(), source })?;
    let access = Access { cancel: monitor.cancel().clone(), ..access(planned, &env) };
    let password = env.get(secret_keys::RESTIC_PASSWORD).map(|password| password.expose().as_str()).unwrap_or_default();
    let open = || -> Result<Repository, OpenError> {
        let store = location.open(&access).map_err(|source| OpenError::Store { id: id(), source })?;
        Repository::open(Arc::from(store), password, options.clone()).map_err(|source| match source {
            RepositoryError::WrongPassword { .. } => OpenError::Password {
                id: id(),
                secret: secret_of(planned),
                key: planned.env.get(secret_keys::RESTIC_PASSWORD).cloned().unwrap_or_default(),
                source: Box::new(source),
            },
            source => OpenError::Repository { id: id(), source },
        })
    };
    let repository = match open() {
        Err(error) if if_missing == IfMissing::Init && error.is_missing() => {
            let store = location.create(&access).map_err(|source| OpenError::Store { id: id(), source })?;
            match Repository::init(Arc::from(store), password, &InitOptions::default(), options.clone()) {
                // Another host made it just now.
                Err(RepositoryError::AlreadyInitialized { .. }) => open()?,
                result => result.map_err(|source| OpenError::Repository { id: id(), source })?,
            }
        }
        result => result?,
    };
    Ok(Arc::new(repository))
}

/// The storage of a repository, whatever is in it; none where there is none.
pub(crate) fn store(planned: &PlannedRepository, objects: &[Object]) -> Result<Option<Box<dyn Store>>, OpenError> {
    let id = || planned.id.clone();
    let env = environment(planned, objects)?;
    let location = Location::from_str(&planned.location).map_err(|source| OpenError::Location { id: id(), source })?;
    match location.open(&access(planned, &env)) {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(|source| OpenError::Store { id: id(), source }),
    }
}

/// Removes every file of a repository, and nothing else that may lie beside them. Returns how many went.
pub(crate) fn wipe(store: &dyn Store) -> holdfast_store::Result<u64> {
    let mut count = 0;
    // What refers goes before what it refers to.
    for folder in ["snapshots", "index", "data", "locks", "keys"] {
        let mut failed = None;
        let listed = store.list(folder, &mut |entry| {
            if failed.is_none() {
                match store.delete(&entry.name) {
                    Ok(()) => count += 1,
                    Err(error) => failed = Some(error),
                }
            }
        });
        match (failed, listed) {
            (Some(error), _) => return Err(error),
            (None, Err(error)) if error.kind == ErrorKind::NotFound => return Ok(count),
            (None, listed) => listed?,
        }
    }
    store.delete("config")?;
    Ok(count + 1)
}

impl OpenError {
    /// Whether there is no repository there, as opposed to one that cannot be reached.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.kind == ErrorKind::NotFound,
            Self::Repository { source, .. } => matches!(source, RepositoryError::NoRepository { .. }),
            _ => false,
        }
    }

    /// Whether another Secret would help: what it holds is missing or wrong, or the store refuses it.
    pub(crate) fn is_of_secret(&self, planned: &PlannedRepository) -> bool {
        // Of a volume it says something else.
        let is_refused =
            |source: &holdfast_store::Error| source.kind == ErrorKind::PermissionDenied && planned.volume.is_none();
        match self {
            Self::NoKey { .. } | Self::Unreadable(_) | Self::NotText { .. } | Self::Password { .. } => true,
            Self::Store { source, .. } => is_refused(source),
            Self::Repository { source: RepositoryError::Store(source), .. } => is_refused(source),
            Self::Location { .. } | Self::Repository { .. } => false,
        }
    }

    /// Whether the work was stopped.
    pub(crate) fn is_interrupted(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.kind == ErrorKind::Interrupted,
            Self::Repository { source, .. } => matches!(source, RepositoryError::Interrupted),
            _ => false,
        }
    }
}

/// restic's variables and their values, out of the Secret.
type Environment = BTreeMap<String, Secret<String>>;

fn environment(planned: &PlannedRepository, objects: &[Object]) -> Result<Environment, OpenError> {
    let secret = || secret_of(planned);
    if let Some(why) = volumes::unreadable(objects, planned.namespace(), &planned.secret) {
        return Err(OpenError::Unreadable(why));
    }
    let values = volumes::secret(objects, planned.namespace(), &planned.secret).unwrap_or_default();
    let mut env = Environment::new();
    for (variable, key) in &planned.env {
        let value = values.expose().get(key).ok_or_else(|| OpenError::NoKey { secret: secret(), key: key.clone() })?;
        let text = std::str::from_utf8(value).map_err(|_| OpenError::NotText { secret: secret(), key: key.clone() })?;
        // An editor's newline at the end of a value is never part of it.
        env.insert(variable.clone(), Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    Ok(env)
}

/// `namespace/name` of the Secret that opens it.
fn secret_of(planned: &PlannedRepository) -> String {
    format!("{}/{}", planned.namespace(), planned.secret)
}

fn access(planned: &PlannedRepository, env: &Environment) -> Access {
    let get = |name: &str| env.get(name).map(Secret::expose).filter(|value| !value.is_empty()).cloned();
    let credentials = match (get(secret_keys::AWS_ACCESS_KEY_ID), get(secret_keys::AWS_SECRET_ACCESS_KEY)) {
        (Some(id), Some(secret)) => Credentials::Key(AccessKey { id, secret, session_token: get("AWS_SESSION_TOKEN") }),
        _ => Credentials::Environment,
    };
    Access {
        credentials,
        region: planned.region.clone().or_else(|| get("AWS_DEFAULT_REGION")),
        gcs_credentials: get(secret_keys::GOOGLE_SERVICE_ACCOUNT_JSON_KEY).map(GcsCredentials::Key).unwrap_or_default(),
        gcs_project: get(secret_keys::GOOGLE_PROJECT_ID),
        ca_pem: get(secret_keys::CA_CERT_DATA).map(String::into_bytes),
        ..Access::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFESTS: &str = "apiVersion: v1
kind: Secret
metadata: {name: repo, namespace: demo}
stringData:
  RESTIC_PASSWORD: hidden-password
  AWS_ACCESS_KEY_ID: shown-id
  AWS_SECRET_ACCESS_KEY: |
    hidden-key
  AWS_SESSION_TOKEN: hidden-token
  GOOGLE_PROJECT_ID: shown-project
  GOOGLE_SERVICE_ACCOUNT_JSON_KEY: hidden-json
data: {binary: /w==}
";

    fn planned(variables: &[(&str, &str)]) -> PlannedRepository {
        PlannedRepository {
            id: "demo/repo".into(),
            location: "/nowhere".into(),
            volume: None,
            region: None,
            secret: "repo".into(),
            env: variables.iter().map(|(variable, key)| (variable.to_string(), key.to_string())).collect(),
            made_by: None,
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_says_why() {
        let stand_in = volumes::unreadable_secret("demo", "repo", "cannot read it; to allow it: kubectl create role");
        let objects = holdfast_api::manifest::read_objects([stand_in]).objects;
        let planned = planned(&[("RESTIC_PASSWORD", "RESTIC_PASSWORD")]);
        let error = environment(&planned, &objects).unwrap_err();
        assert_eq!(error.to_string(), "cannot read it; to allow it: kubectl create role");
        assert!(error.is_of_secret(&planned));
        assert!(volumes::unreadable(&objects, "demo", "another").is_none());
    }

    #[test]
    fn no_credential_shows_itself() {
        let objects = holdfast_api::manifest::read([("a.yaml", MANIFESTS.as_bytes())]).objects;
        let variables = [
            "RESTIC_PASSWORD",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "GOOGLE_PROJECT_ID",
            "GOOGLE_SERVICE_ACCOUNT_JSON_KEY",
        ];
        let planned_all = planned(&variables.map(|variable| (variable, variable)));
        let env = environment(&planned_all, &objects).unwrap();
        let access = access(&planned_all, &env);
        assert!(matches!(&access.credentials, Credentials::Key(key) if key.secret == "hidden-key"));
        assert_eq!(access.gcs_credentials, GcsCredentials::Key("hidden-json".into()));
        assert_eq!(access.gcs_project.as_deref(), Some("shown-project"));
        let values = volumes::secret(&objects, "demo", "repo").unwrap();
        let error = open(&planned_all, &objects, OpenOptions::default(), IfMissing::Fail, &Monitor::default())
            .map(|_| ())
            .unwrap_err();
        let not_text = environment(&planned(&[("RESTIC_PASSWORD", "binary")]), &objects).unwrap_err();
        let no_key = environment(&planned(&[("RESTIC_PASSWORD", "gone")]), &objects).unwrap_err();
        assert!(matches!((&not_text, &no_key), (OpenError::NotText { .. }, OpenError::NoKey { .. })));
        let shown = format!("{env:?} {access:?} {values} {values:?} {error} {error:?} {not_text:?} {no_key:?}");
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
