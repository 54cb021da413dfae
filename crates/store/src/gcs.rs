//! Objects in a bucket of Google Cloud Storage.
//!
//! What to ask and who asks; the store itself is `bucket`'s. Google's JSON API is spoken (`json`), as Google's own
//! clients and restic do; tokens come from `object_store`. An object is one upload of whatever size, so nothing
//! half-uploaded is left behind.
//!
//! An emulator is used in Google's place when `STORAGE_EMULATOR_HOST` names it, as with Google's own clients, or when
//! a service account's key says `"gcs_base_url": "http://HOST:PORT", "disable_oauth": true`.

mod credentials;
mod json;

use std::time::Duration;

use object_store::client::HttpConnector;

pub use credentials::GcsCredentials;

use crate::bucket::transport::{self, Connector};
use crate::bucket::{Bucket, BucketStore};
use crate::{Error, ErrorKind, Result, name};
use credentials::Found;
use json::JsonApi;

/// Where Google answers.
const GOOGLE: &str = "https://storage.googleapis.com";

/// Where a bucket is and how to speak to it.
#[derive(Debug, Clone)]
pub struct GcsConfig {
    /// The bucket.
    pub bucket: String,
    /// What every object's name starts with, a folder of the bucket without slashes at its ends; may be empty.
    pub prefix: String,
    /// The project in which [`Self::create`] makes the bucket. Default: `GOOGLE_PROJECT_ID`, then the project of the
    /// service account.
    pub project: Option<String>,
    /// Who asks.
    pub credentials: GcsCredentials,
    /// Certificates of authorities, in PEM, to trust beside those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// How long a request may make no progress, and what a small one may take in all. Default: 60 s. Uploads
    /// get as much more as they need at 128 KiB/s.
    pub timeout: Duration,
}

impl GcsConfig {
    /// The configuration for a bucket with defaults for everything else.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.into(),
            project: None,
            credentials: GcsCredentials::default(),
            ca_pem: None,
            timeout: Duration::from_secs(60),
        }
    }

    fn location(&self) -> String {
        format!("gs:{}:/{}", self.bucket, self.prefix)
    }

    fn refuse<T>(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Result<T> {
        Err(Error::new(ErrorKind::InvalidConfig, "open", self.location(), why))
    }

    /// A client of the bucket. Nothing is asked of the server yet: a bucket that does not exist or cannot be reached
    /// shows with the first operation.
    pub fn open(&self) -> Result<BucketStore> {
        let found = self.credentials.find().or_else(|why| self.refuse(why))?;
        self.store(self.client(&found)?)
    }

    /// Opens the bucket and makes it, in the project, where it does not exist.
    pub fn create(&self) -> Result<BucketStore> {
        let found = self.credentials.find().or_else(|why| self.refuse(why))?;
        let client = self.client(&found)?;
        let store = self.store(client.clone())?;
        if store.is_missing()? {
            let set = self.project.clone().filter(|project| !project.is_empty());
            let Some(project) = set.or_else(|| credentials::variable("GOOGLE_PROJECT_ID")).or(found.project) else {
                let why = "the bucket does not exist, and to make it takes a project: make it yourself, or set \
                           GOOGLE_PROJECT_ID";
                return Err(Error::new(ErrorKind::NotFound, "create the bucket of", self.location(), why));
            };
            store.make_bucket(client.make_bucket(&project))?;
        }
        Ok(store)
    }

    fn store(&self, client: JsonApi) -> Result<BucketStore> {
        BucketStore::new(Bucket {
            location: self.location(),
            prefix: self.prefix.clone(),
            timeout: self.timeout,
            keeps_conditions: client.is_of(GOOGLE),
            client: Box::new(client),
            single_put_bytes_max: usize::MAX,
        })
    }

    fn client(&self, found: &Found) -> Result<JsonApi> {
        if self.bucket.is_empty() || self.bucket.contains('/') {
            return self.refuse(format!("`{}` is not a bucket's name", self.bucket));
        }
        if !self.prefix.is_empty() {
            name::check("open", &self.prefix)?;
        }
        let endpoint = found.endpoint.as_deref().unwrap_or(GOOGLE);
        let Some((scheme @ ("http" | "https"), host)) = endpoint.split_once("://").filter(|(_, host)| !host.is_empty())
        else {
            return self.refuse(format!("the address `{endpoint}` is not http://HOST or https://HOST"));
        };
        let options =
            transport::client_options(scheme == "http", self.timeout, self.ca_pem.as_deref(), &self.location())?;
        let connector = || Connector { endpoint: host.to_owned(), speaks: json::SPEAKS };
        let tokens = found.tokens(&self.bucket, &options, connector()).or_else(|why| self.refuse(why))?;
        let http = connector().connect(&options).or_else(|why| self.refuse(why))?;
        Ok(JsonApi::new(endpoint, &self.bucket, http, tokens))
    }
}

#[cfg(test)]
mod tests;
