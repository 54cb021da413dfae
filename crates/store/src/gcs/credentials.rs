//! Who asks Google Cloud Storage, and where that is found when nobody says.

use std::io;
use std::path::Path;

use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, RetryConfig};
use serde_json::{Value, json};

use crate::bucket::transport::{self, Connector};

/// Who asks Google Cloud Storage. Its `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum GcsCredentials {
    /// The first that is there: the token in `GOOGLE_ACCESS_TOKEN`; the file `GOOGLE_APPLICATION_CREDENTIALS`; what
    /// `gcloud auth application-default login` left; the service account of the machine or the pod.
    #[default]
    Environment,
    /// The key of a service account: the JSON that Google gives out, not a path to it.
    Key(String),
}

impl std::fmt::Debug for GcsCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Environment => "Environment",
            Self::Key(_) => "Key(…)",
        })
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCredentials {
    #[error("cannot read {0}")]
    Read(String, #[source] io::Error),
    #[error("{0} is not JSON; put the whole file there that Google gave out as the service account's key")]
    NotJson(String, #[source] serde_json::Error),
    #[error("{0} has no `{1}`; put the whole file there that Google gave out as the service account's key")]
    Incomplete(String, &'static str),
    #[error(
        "{0} holds credentials of the type `{1}`, which are not supported; make a key of a service account, in JSON"
    )]
    Unsupported(String, String),
    #[error("the `private_key` of the service account is no RSA key: {0}")]
    BadKey(String),
    #[error("the credentials cannot be used: {0}")]
    Unusable(String),
}

/// What is used of what was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The server, where it is not Google's.
    pub(super) endpoint: Option<String>,
    /// The project of a service account.
    pub(super) project: Option<String>,
    who: Who,
}

#[derive(PartialEq, Eq)]
enum Who {
    /// Nobody: an emulator wants no token.
    Nobody,
    Token(String),
    /// JSON with the three fields that a token is made of.
    ServiceAccount(String),
    /// A file of `gcloud`, for its refresh token.
    File(String),
    /// Whoever this machine is for Google.
    Machine,
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Token(_) => "Token",
            Self::ServiceAccount(_) => "ServiceAccount",
            Self::File(_) => "File",
            Self::Machine => "Machine",
        })
    }
}

/// A variable of the environment; empty is unset.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl GcsCredentials {
    pub(super) fn find(&self) -> Result<Found, NoCredentials> {
        find(self, &variable, &|path| std::fs::read_to_string(path))
    }
}

fn find(
    given: &GcsCredentials,
    variable: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Found, NoCredentials> {
    let found = |who| Found { endpoint: None, project: None, who };
    if let Some(host) = variable("STORAGE_EMULATOR_HOST") {
        let url = if host.contains("://") { host } else { format!("http://{host}") };
        return Ok(Found { endpoint: Some(url.trim_end_matches('/').to_owned()), ..found(Who::Nobody) });
    }
    if let GcsCredentials::Key(text) = given {
        return of_key(text, "GOOGLE_SERVICE_ACCOUNT_JSON_KEY", None);
    }
    if let Some(token) = variable("GOOGLE_ACCESS_TOKEN") {
        return Ok(found(Who::Token(token)));
    }
    let Some(path) = variable("GOOGLE_APPLICATION_CREDENTIALS") else {
        return Ok(found(Who::Machine));
    };
    let place = format!("the file {path} of GOOGLE_APPLICATION_CREDENTIALS");
    match read(Path::new(&path)) {
        Ok(text) => of_key(&text, &place, Some(path)),
        Err(error) => Err(NoCredentials::Read(place, error)),
    }
}

/// Reads what stands at `place`, which is the file `path` if it is one.
fn of_key(text: &str, place: &str, path: Option<String>) -> Result<Found, NoCredentials> {
    let place = place.to_owned();
    let key: Value = match serde_json::from_str(text) {
        Ok(key) => key,
        Err(error) => return Err(NoCredentials::NotJson(place, error)),
    };
    let text = |field: &str| key[field].as_str().filter(|value| !value.is_empty()).map(str::to_owned);
    let endpoint = text("gcs_base_url").map(|url| url.trim_end_matches('/').to_owned());
    let found = |who| Ok(Found { endpoint: endpoint.clone(), project: text("project_id"), who });
    if key["disable_oauth"] == true {
        return found(Who::Nobody);
    }
    match (text("type"), path) {
        (None, _) => return Err(NoCredentials::Incomplete(place, "type")),
        (Some(kind), Some(path)) if kind == "authorized_user" => return found(Who::File(path)),
        (Some(kind), _) if kind != "service_account" => return Err(NoCredentials::Unsupported(place, kind)),
        _ => {}
    }
    let wanted = |field| text(field).ok_or_else(|| NoCredentials::Incomplete(place.clone(), field));
    let account = json!({
        "client_email": wanted("client_email")?,
        "private_key": wanted("private_key")?,
        "private_key_id": text("private_key_id").unwrap_or_default(),
    });
    found(Who::ServiceAccount(account.to_string()))
}

impl Found {
    /// What hands out tokens; none where none are wanted.
    pub(super) fn tokens(
        &self,
        bucket: &str,
        options: &ClientOptions,
        connector: Connector,
    ) -> Result<Option<GcpCredentialProvider>, NoCredentials> {
        let builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(bucket)
            .with_client_options(options.clone())
            .with_http_connector(connector)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        let builder = match &self.who {
            Who::Nobody => return Ok(None),
            Who::Token(token) => builder.with_bearer_token(token),
            Who::ServiceAccount(key) => builder.with_service_account_key(key),
            Who::File(path) => builder.with_application_credentials(path),
            Who::Machine => builder,
        };
        match builder.build() {
            Ok(client) => Ok(Some(client.credentials().clone())),
            Err(error) => {
                let why = transport::root(&error);
                Err(match self.who {
                    Who::ServiceAccount(_) => NoCredentials::BadKey(why),
                    _ => NoCredentials::Unusable(why),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const KEY: &str =
        r#"{"type": "service_account", "project_id": "mine", "client_email": "a@b", "private_key": "hush"}"#;

    fn check(given: &GcsCredentials, variables: &[(&str, &str)], file: &str) -> Result<Found, String> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let read = |path: &Path| match path == Path::new("/key.json") {
            true => Ok(file.to_owned()),
            false => Err(io::ErrorKind::NotFound.into()),
        };
        find(given, &|name| variables.get(name).map(|value| (*value).to_owned()), &read)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_that_is_there() {
        let file = ("GOOGLE_APPLICATION_CREDENTIALS", "/key.json");
        let token = ("GOOGLE_ACCESS_TOKEN", "t");
        let environment = &GcsCredentials::Environment;
        let who = |variables: &[_], text| check(environment, variables, text).unwrap().who;
        assert_eq!(who(&[], ""), Who::Machine);
        assert_eq!(who(&[file, token], KEY), Who::Token("t".into()));
        assert!(matches!(who(&[file], KEY), Who::ServiceAccount(key) if key.contains("hush")));
        assert_eq!(who(&[file], r#"{"type": "authorized_user"}"#), Who::File("/key.json".into()));
        let given = check(&GcsCredentials::Key(KEY.into()), &[token], "").unwrap();
        assert!(matches!(given.who, Who::ServiceAccount(_)));
        assert_eq!((given.project.as_deref(), given.endpoint), (Some("mine"), None));
    }

    #[test]
    fn an_emulator_asks_for_nobody() {
        let found = |endpoint: &str| Found { endpoint: Some(endpoint.into()), project: None, who: Who::Nobody };
        let key = GcsCredentials::Key(r#"{"type": "service_account"}"#.into());
        for (host, endpoint) in [("gcs:4443", "http://gcs:4443"), ("https://gcs:4443/", "https://gcs:4443")] {
            assert_eq!(check(&key, &[("STORAGE_EMULATOR_HOST", host)], ""), Ok(found(endpoint)));
        }
        let key = GcsCredentials::Key(r#"{"gcs_base_url": "http://gcs:4443/", "disable_oauth": true}"#.into());
        assert_eq!(check(&key, &[], ""), Ok(found("http://gcs:4443")));
    }

    #[test]
    fn mistakes_say_what_to_do() {
        let whole = "put the whole file there that Google gave out as the service account's key";
        let key = "GOOGLE_SERVICE_ACCOUNT_JSON_KEY";
        for (text, expected) in [
            ("/var/key.json", format!("{key} is not JSON; {whole}")),
            ("", format!("{key} is not JSON; {whole}")),
            ("[]", format!("{key} has no `type`; {whole}")),
            (r#"{"type": "service_account"}"#, format!("{key} has no `client_email`; {whole}")),
            (r#"{"type": "service_account", "client_email": "a@b"}"#, format!("{key} has no `private_key`; {whole}")),
            (
                r#"{"type": "external_account"}"#,
                format!(
                    "{key} holds credentials of the type `external_account`, which are not supported; make a key of a \
                     service account, in JSON"
                ),
            ),
        ] {
            assert_eq!(check(&GcsCredentials::Key(text.into()), &[], "").unwrap_err(), expected);
        }
        let missing = [("GOOGLE_APPLICATION_CREDENTIALS", "/none")];
        assert_eq!(
            check(&GcsCredentials::Environment, &missing, "").unwrap_err(),
            "cannot read the file /none of GOOGLE_APPLICATION_CREDENTIALS"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = GcsCredentials::Key(KEY.into());
        let shown = format!("{key:?} {:?}", check(&key, &[], "").unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }
}
