//! Who asks an S3 server, and where that is found when nobody says.

use std::io;
use std::path::{Path, PathBuf};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use crate::{Error, ErrorKind, Result};

/// An access key. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The public part, `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// The secret part, `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// Comes with temporary keys, `AWS_SESSION_TOKEN`.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who asks an S3 server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// The first that is there, in the order of Amazon's own tools: the key in `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; the token in `AWS_WEB_IDENTITY_TOKEN_FILE`; the
    /// profile `AWS_PROFILE` (`default`) of the file `AWS_SHARED_CREDENTIALS_FILE`
    /// (`~/.aws/credentials`); the container's or the machine's role.
    #[default]
    Environment,
    /// This key.
    Key(AccessKey),
    /// Nobody: requests are not signed.
    Anonymous,
}

/// What the environment gives.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Key(AccessKey),
    /// Settings of a service that hands out keys.
    Service(Vec<(AmazonS3ConfigKey, String)>),
}

/// A variable of the environment; empty is unset.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Credentials {
    pub(super) fn apply(&self, builder: AmazonS3Builder) -> Result<AmazonS3Builder> {
        let key = match self {
            Self::Anonymous => return Ok(builder.with_skip_signature(true)),
            Self::Key(key) => key.clone(),
            Self::Environment => match find(&variable, &|path| std::fs::read_to_string(path))? {
                Found::Key(key) => key,
                Found::Service(settings) => {
                    return Ok(settings
                        .into_iter()
                        .fold(builder, |builder, (key, value)| builder.with_config(key, value)));
                }
            },
        };
        let AccessKey { id, secret, session_token } = key;
        let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        Ok(match session_token {
            Some(token) => builder.with_token(token),
            None => builder,
        })
    }
}

fn find(variable: &dyn Fn(&str) -> Option<String>, read: &dyn Fn(&Path) -> io::Result<String>) -> Result<Found> {
    let refuse =
        |what: String, why: String| Err(Error::new(ErrorKind::InvalidConfig, "find credentials in", what, why));
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            return Ok(Found::Key(AccessKey { id, secret, session_token: variable("AWS_SESSION_TOKEN") }));
        }
        (Some(_), None) => return refuse("the environment".into(), "AWS_SECRET_ACCESS_KEY is missing".into()),
        (None, Some(_)) => return refuse("the environment".into(), "AWS_ACCESS_KEY_ID is missing".into()),
        (None, None) => {}
    }

    let web_identity = variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some();
    if !web_identity && let Some(path) = shared_file(variable) {
        let profile = variable("AWS_PROFILE");
        match read(&path) {
            Ok(text) => match key_of_profile(&text, profile.as_deref().unwrap_or("default")) {
                Some(key) => return Ok(Found::Key(key)),
                None if profile.is_none() => {}
                None => {
                    let why = format!("the profile `{}` is not there or has no key", profile.unwrap_or_default());
                    return refuse(path.display().to_string(), why);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && profile.is_none() => {}
            Err(error) => {
                let place = path.display().to_string();
                return Err(Error::new(ErrorKind::InvalidConfig, "find credentials in", place, error));
            }
        }
    }

    let settings = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_ENDPOINT_URL_STS",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_METADATA_ENDPOINT",
    ];
    let known = |name: &str| Some((name.to_ascii_lowercase().parse().ok()?, variable(name)?));
    Ok(Found::Service(settings.into_iter().filter_map(known).collect()))
}

fn shared_file(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    variable("AWS_SHARED_CREDENTIALS_FILE")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&variable("HOME")?).join(".aws/credentials")))
}

/// The key of one `[profile]` of an INI file.
fn key_of_profile(text: &str, profile: &str) -> Option<AccessKey> {
    let mut inside = false;
    let (mut id, mut secret, mut session_token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = name.trim() == profile;
        } else if inside && let Some((name, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => session_token = value,
                _ => {}
            }
        }
    }
    Some(AccessKey { id: id?, secret: secret?, session_token })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const FILE: &str = "# mine\n[default]\naws_access_key_id = DEF\naws_secret_access_key=s3cr=t\n\n\
        [ work ]\nregion = x\naws_access_key_id=WORK\naws_secret_access_key = w\naws_session_token = t\n[half]\naws_access_key_id = H\n";

    fn check(variables: &[(&str, &str)], file: Option<&str>) -> Result<Found> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        find(&|name| variables.get(name).map(|value| (*value).to_owned()), &|path| {
            assert_eq!(path, Path::new("/home/me/.aws/credentials"));
            file.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn key(id: &str, secret: &str, token: Option<&str>) -> Found {
        Found::Key(AccessKey { id: id.into(), secret: secret.into(), session_token: token.map(str::to_owned) })
    }

    #[test]
    fn the_first_that_is_there() {
        let home = ("HOME", "/home/me");
        let variables = [home, ("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "B")];
        assert_eq!(check(&variables, Some(FILE)).unwrap(), key("A", "B", None));
        assert_eq!(check(&[home], Some(FILE)).unwrap(), key("DEF", "s3cr=t", None));
        let work = [home, ("AWS_PROFILE", "work")];
        assert_eq!(check(&work, Some(FILE)).unwrap(), key("WORK", "w", Some("t")));
        assert_eq!(check(&[home], None).unwrap(), Found::Service(vec![]));
        assert_eq!(check(&[], None).unwrap(), Found::Service(vec![]));
        let service = [home, ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "r")];
        assert!(matches!(check(&service, Some(FILE)).unwrap(), Found::Service(settings) if settings.len() == 2));
    }

    #[test]
    fn halves_are_mistakes() {
        for (variables, expected) in [
            (vec![("AWS_ACCESS_KEY_ID", "A")], "AWS_SECRET_ACCESS_KEY is missing"),
            (vec![("AWS_SECRET_ACCESS_KEY", "A")], "AWS_ACCESS_KEY_ID is missing"),
            (vec![("HOME", "/home/me"), ("AWS_PROFILE", "half")], "the profile `half` is not there or has no key"),
            (vec![("HOME", "/home/me"), ("AWS_PROFILE", "none")], "the profile `none` is not there or has no key"),
        ] {
            let error = check(&variables, Some(FILE)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidConfig);
            assert_eq!(error.source.to_string(), expected);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let key = AccessKey { id: "me".into(), secret: "hush".into(), session_token: Some("quiet".into()) };
        let shown = format!("{:?}", Credentials::Key(key));
        assert!(shown.contains("me") && !shown.contains("hush") && !shown.contains("quiet"), "{shown}");
    }
}
