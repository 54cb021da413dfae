//! Where a repository is, in restic's way of writing, and how to get at it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{
    BucketStore, Cancel, Credentials, GcsConfig, GcsCredentials, LocalStore, Result, Retry, RetryPolicy, S3Config,
    Store,
};

/// Where a repository is.
///
/// Parsed from what restic takes for `--repo`: `/path`, `local:/path`, `s3:https://host/bucket/prefix`,
/// `s3:host/bucket/prefix`, `s3:s3.eu-west-1.amazonaws.com/bucket`, `gs:bucket:/prefix`. Displayed the same way; holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A directory.
    Local(PathBuf),
    /// A folder of a bucket.
    S3 {
        /// `https://host[:port]` or `http://host[:port]`
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// The folder in the bucket, without slashes at its ends; empty for the bucket itself.
        prefix: String,
    },
    /// A folder of a bucket of Google Cloud Storage.
    Gcs {
        /// The bucket.
        bucket: String,
        /// The folder in the bucket, without slashes at its ends; empty for the bucket itself.
        prefix: String,
    },
}

/// Why a text is no location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing was written.
    #[error("the repository's location is empty")]
    Empty,
    /// Another of restic's schemes, or none at all.
    #[error(
        "repositories at `{0}:` are not yet supported; supported are a path, `local:PATH`, `s3:ENDPOINT/BUCKET[/PREFIX]` and `gs:BUCKET:/[PREFIX]`"
    )]
    Unsupported(String),
    /// An S3 location that lacks a part.
    #[error(
        "`{0}` names no bucket; write `s3:ENDPOINT/BUCKET[/PREFIX]`, for example `s3:https://s3.eu-west-1.amazonaws.com/backups/db`"
    )]
    NoBucket(String),
    /// A location in Google Cloud Storage that lacks a part.
    #[error("`{0}` names no bucket; write `gs:BUCKET:/[PREFIX]`, for example `gs:backups:/db`")]
    NoGcsBucket(String),
    /// The bucket stands in the host's name.
    #[error("the bucket stands in the host's name; write `{0}`")]
    BucketInHost(String),
    /// Credentials in a location end up in logs.
    #[error("a location holds no user name or password; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")]
    Credentials,
    /// The folder has parts that a bucket cannot hold.
    #[error("`{0}` is no folder of a bucket: `.`, `..` and control characters are not possible")]
    BadPrefix(String),
}

impl FromStr for Location {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Some(path) = text.strip_prefix("local:") {
            return local(path);
        }
        if let Some(rest) = text.strip_prefix("s3:") {
            return s3(text, rest);
        }
        if let Some(rest) = text.strip_prefix("gs:") {
            return gcs(text, rest);
        }
        match text.split_once(':') {
            // Another scheme or a typing error; a folder of that name wants `local:`, as in restic.
            Some((scheme, _)) if !scheme.is_empty() && !scheme.contains('/') => {
                Err(ParseError::Unsupported(scheme.to_owned()))
            }
            _ => local(text),
        }
    }
}

fn local(path: &str) -> Result<Location, ParseError> {
    match path {
        "" => Err(ParseError::Empty),
        path => Ok(Location::Local(path.into())),
    }
}

fn s3(text: &str, rest: &str) -> Result<Location, ParseError> {
    let (scheme, rest) = match rest.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(("", rest)) => ("https", rest),
        Some((scheme, _)) if !scheme.contains('/') => return Err(ParseError::Unsupported(format!("s3:{scheme}"))),
        _ => ("https", rest.strip_prefix("//").unwrap_or(rest)),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') {
        return Err(ParseError::Credentials);
    }
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let bucket_of_host = host
        .split_once(".s3.")
        .or_else(|| host.split_once(".s3-"))
        .filter(|(_, domain)| domain.ends_with("amazonaws.com") || domain.ends_with("amazonaws.com.cn"));
    if let Some((bucket, _)) = bucket_of_host {
        let server = &host[bucket.len() + 1..];
        let corrected: Vec<&str> = [server, bucket].into_iter().chain(parts).collect();
        return Err(ParseError::BucketInHost(format!("s3:{scheme}://{}", corrected.join("/"))));
    }
    let Some(bucket) = parts.next().filter(|_| !host.is_empty()) else {
        return Err(ParseError::NoBucket(text.to_owned()));
    };
    let prefix = folder(parts)?;
    Ok(Location::S3 { endpoint: format!("{scheme}://{host}"), bucket: bucket.to_owned(), prefix })
}

fn gcs(text: &str, rest: &str) -> Result<Location, ParseError> {
    match rest.split_once(':').filter(|(bucket, _)| !bucket.is_empty() && !bucket.contains('/')) {
        Some((bucket, path)) => Ok(Location::Gcs {
            bucket: bucket.to_owned(),
            prefix: folder(path.split('/').filter(|part| !part.is_empty()))?,
        }),
        None => Err(ParseError::NoGcsBucket(text.to_owned())),
    }
}

fn folder<'a>(parts: impl Iterator<Item = &'a str>) -> Result<String, ParseError> {
    let prefix = parts.collect::<Vec<_>>().join("/");
    match prefix.is_empty() || crate::name::check("open", &prefix).is_ok() {
        true => Ok(prefix),
        false => Err(ParseError::BadPrefix(prefix)),
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::S3 { endpoint, bucket, prefix } => {
                let slash = if prefix.is_empty() { "" } else { "/" };
                write!(f, "s3:{endpoint}/{bucket}{slash}{prefix}")
            }
            Self::Gcs { bucket, prefix } => write!(f, "gs:{bucket}:/{prefix}"),
        }
    }
}

/// What it takes to open a location that the location itself does not say. The default takes what the
/// environment gives, as restic does.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Who asks an S3 server.
    pub credentials: Credentials,
    /// An S3 bucket's region, see [`S3Config::region`].
    pub region: Option<String>,
    /// Where an S3 bucket stands in a URL, see [`S3Config::path_style`].
    pub path_style: Option<bool>,
    /// Who asks Google Cloud Storage.
    pub gcs_credentials: GcsCredentials,
    /// The project that a new bucket of Google Cloud Storage belongs to, see [`GcsConfig::project`].
    pub gcs_project: Option<String>,
    /// Certificates of authorities, in PEM, to trust beside those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// How long to try again.
    pub retry: RetryPolicy,
    /// Ends what the store waits for.
    pub cancel: Cancel,
}

impl Location {
    /// Opens the store that is there; what may work later is tried again as `access` says.
    ///
    /// A directory that does not exist is [`NotFound`](crate::ErrorKind::NotFound). A bucket is not asked: whether it exists
    /// shows with the first operation.
    pub fn open(&self, access: &Access) -> Result<Box<dyn Store>> {
        match self {
            Self::Local(path) => Ok(retrying(LocalStore::open(path)?, access)),
            Self::S3 { endpoint, bucket, prefix } => {
                Ok(in_bucket(s3_config(endpoint, bucket, prefix, access).open()?, access))
            }
            Self::Gcs { bucket, prefix } => Ok(in_bucket(gcs_config(bucket, prefix, access).open()?, access)),
        }
    }

    /// Opens the store and makes the directory or the bucket where there is none.
    pub fn create(&self, access: &Access) -> Result<Box<dyn Store>> {
        match self {
            Self::Local(path) => Ok(retrying(LocalStore::create(path)?, access)),
            Self::S3 { endpoint, bucket, prefix } => {
                Ok(in_bucket(s3_config(endpoint, bucket, prefix, access).create()?, access))
            }
            Self::Gcs { bucket, prefix } => Ok(in_bucket(gcs_config(bucket, prefix, access).create()?, access)),
        }
    }
}

fn s3_config(endpoint: &str, bucket: &str, prefix: &str, access: &Access) -> S3Config {
    S3Config {
        credentials: access.credentials.clone(),
        region: access.region.clone(),
        path_style: access.path_style,
        ca_pem: access.ca_pem.clone(),
        ..S3Config::new(endpoint, bucket, prefix)
    }
}

fn gcs_config(bucket: &str, prefix: &str, access: &Access) -> GcsConfig {
    GcsConfig {
        project: access.gcs_project.clone(),
        credentials: access.gcs_credentials.clone(),
        ca_pem: access.ca_pem.clone(),
        ..GcsConfig::new(bucket, prefix)
    }
}

fn in_bucket(store: BucketStore, access: &Access) -> Box<dyn Store> {
    retrying(store.cancelled_by(access.cancel.clone()), access)
}

fn retrying(store: impl Store + 'static, access: &Access) -> Box<dyn Store> {
    Box::new(Retry::new(store, access.retry.clone()).cancelled_by(access.cancel.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn s3(endpoint: &str, bucket: &str, prefix: &str) -> Location {
        Location::S3 { endpoint: endpoint.into(), bucket: bucket.into(), prefix: prefix.into() }
    }

    fn gcs(bucket: &str, prefix: &str) -> Location {
        Location::Gcs { bucket: bucket.into(), prefix: prefix.into() }
    }

    #[test]
    fn what_restic_takes() {
        for (text, expected) in [
            ("/srv/backup", Location::Local("/srv/backup".into())),
            ("backup", Location::Local("backup".into())),
            ("./a:b", Location::Local("./a:b".into())),
            ("local:/srv/backup", Location::Local("/srv/backup".into())),
            ("local:a:b", Location::Local("a:b".into())),
            ("local:s3:x", Location::Local("s3:x".into())),
            ("s3:https://host/bucket", s3("https://host", "bucket", "")),
            ("s3:http://127.0.0.1:9000/bucket/", s3("http://127.0.0.1:9000", "bucket", "")),
            ("s3:https://host/bucket/a/b/", s3("https://host", "bucket", "a/b")),
            ("s3:https://host/bucket//a", s3("https://host", "bucket", "a")),
            ("s3://host/bucket/a", s3("https://host", "bucket", "a")),
            ("s3:host:9000/bucket/a", s3("https://host:9000", "bucket", "a")),
            ("gs:bucket:/", gcs("bucket", "")),
            ("gs:bucket:", gcs("bucket", "")),
            ("gs:bucket:/a/b/", gcs("bucket", "a/b")),
            ("gs:bucket:a//b", gcs("bucket", "a/b")),
            ("s3:s3.amazonaws.com/bucket", s3("https://s3.amazonaws.com", "bucket", "")),
            ("s3:s3.eu-west-1.amazonaws.com/bucket/x", s3("https://s3.eu-west-1.amazonaws.com", "bucket", "x")),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_shown_parses_again() {
        for text in
            ["/srv/backup", "s3:https://host/bucket", "s3:http://host:1/bucket/a/b", "gs:bucket:/", "gs:bucket:/a/b"]
        {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes() {
        for (text, expected) in [
            ("", "the repository's location is empty"),
            ("local:", "the repository's location is empty"),
            (
                "sftp:me@host:/x",
                "repositories at `sftp:` are not yet supported; supported are a path, `local:PATH`, `s3:ENDPOINT/BUCKET[/PREFIX]` and `gs:BUCKET:/[PREFIX]`",
            ),
            (
                "rest:http://host/",
                "repositories at `rest:` are not yet supported; supported are a path, `local:PATH`, `s3:ENDPOINT/BUCKET[/PREFIX]` and `gs:BUCKET:/[PREFIX]`",
            ),
            (
                "https://host/bucket",
                "repositories at `https:` are not yet supported; supported are a path, `local:PATH`, `s3:ENDPOINT/BUCKET[/PREFIX]` and `gs:BUCKET:/[PREFIX]`",
            ),
            (
                "s3:ftp://host/bucket",
                "repositories at `s3:ftp:` are not yet supported; supported are a path, `local:PATH`, `s3:ENDPOINT/BUCKET[/PREFIX]` and `gs:BUCKET:/[PREFIX]`",
            ),
            (
                "s3:",
                "`s3:` names no bucket; write `s3:ENDPOINT/BUCKET[/PREFIX]`, for example `s3:https://s3.eu-west-1.amazonaws.com/backups/db`",
            ),
            (
                "s3:host/",
                "`s3:host/` names no bucket; write `s3:ENDPOINT/BUCKET[/PREFIX]`, for example `s3:https://s3.eu-west-1.amazonaws.com/backups/db`",
            ),
            (
                "s3:https:///bucket",
                "`s3:https:///bucket` names no bucket; write `s3:ENDPOINT/BUCKET[/PREFIX]`, for example `s3:https://s3.eu-west-1.amazonaws.com/backups/db`",
            ),
            ("gs:bucket", "`gs:bucket` names no bucket; write `gs:BUCKET:/[PREFIX]`, for example `gs:backups:/db`"),
            ("gs:/a", "`gs:/a` names no bucket; write `gs:BUCKET:/[PREFIX]`, for example `gs:backups:/db`"),
            ("gs:bucket:/../x", "`../x` is no folder of a bucket: `.`, `..` and control characters are not possible"),
            (
                "s3:mine.s3.eu-west-1.amazonaws.com/x",
                "the bucket stands in the host's name; write `s3:https://s3.eu-west-1.amazonaws.com/mine/x`",
            ),
            (
                "s3:https://mine.s3.amazonaws.com",
                "the bucket stands in the host's name; write `s3:https://s3.amazonaws.com/mine`",
            ),
            (
                "s3:https://key:secret@host/bucket",
                "a location holds no user name or password; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ),
            (
                "s3:host/bucket/../x",
                "`../x` is no folder of a bucket: `.`, `..` and control characters are not possible",
            ),
        ] {
            assert_eq!(text.parse::<Location>().unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_directory_is_opened_or_made() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Local(folder.path().join("repository"));
        let error = location.open(&Access::default()).err().unwrap();
        assert_eq!(error.kind, ErrorKind::NotFound);
        location.create(&Access::default()).unwrap().put("config", b"x").unwrap();
        assert_eq!(location.open(&Access::default()).unwrap().get("config").unwrap(), b"x");
    }
}
