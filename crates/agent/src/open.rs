//! Opening a planned repository with what its Secret holds.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use holdfast_api::manifest::Object;
use holdfast_api::names::secret_keys;
use holdfast_plan::PlannedRepository;
use holdfast_repository::{Error as RepositoryError, InitOptions, OpenOptions, Repository};
use holdfast_store::{Access, AccessKey, Credentials, ErrorKind, Location};

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

/// Opens a repository.
pub fn open(
    planned: &PlannedRepository,
    objects: &[Object],
    options: OpenOptions,
    if_missing: IfMissing,
) -> Result<Arc<Repository>, OpenError> {
    let id = || planned.id.clone();
    let env = environment(planned, objects)?;
    let location = Location::from_str(&planned.location).map_err(|source| OpenError::Location { id: id(), source })?;
    let access = access(planned, &env);
    let password = env.get(secret_keys::RESTIC_PASSWORD).map(String::as_str).unwrap_or_default();
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
            Repository::init(Arc::from(store), password, &InitOptions::default(), options)
                .map_err(|source| OpenError::Repository { id: id(), source })?
        }
        result => result?,
    };
    Ok(Arc::new(repository))
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
}

/// restic's variables and their values, out of the Secret.
fn environment(planned: &PlannedRepository, objects: &[Object]) -> Result<BTreeMap<String, String>, OpenError> {
    let secret = || secret_of(planned);
    let values = volumes::secret(objects, namespace_of(planned), &planned.secret).unwrap_or_default();
    let mut env = BTreeMap::new();
    for (variable, key) in &planned.env {
        let value = values.get(key).ok_or_else(|| OpenError::NoKey { secret: secret(), key: key.clone() })?;
        let text =
            String::from_utf8(value.clone()).map_err(|_| OpenError::NotText { secret: secret(), key: key.clone() })?;
        // An editor's newline at the end of a value is never part of it.
        env.insert(variable.clone(), text.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(env)
}

fn namespace_of(planned: &PlannedRepository) -> &str {
    planned.id.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// `namespace/name` of the Secret that opens it.
fn secret_of(planned: &PlannedRepository) -> String {
    format!("{}/{}", namespace_of(planned), planned.secret)
}

fn access(planned: &PlannedRepository, env: &BTreeMap<String, String>) -> Access {
    let get = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
    let credentials = match (get(secret_keys::AWS_ACCESS_KEY_ID), get(secret_keys::AWS_SECRET_ACCESS_KEY)) {
        (Some(id), Some(secret)) => Credentials::Key(AccessKey { id, secret, session_token: get("AWS_SESSION_TOKEN") }),
        _ => Credentials::Environment,
    };
    Access {
        credentials,
        region: planned.region.clone().or_else(|| get("AWS_DEFAULT_REGION")),
        ca_pem: get(secret_keys::CA_CERT_DATA).map(String::into_bytes),
        ..Access::default()
    }
}
