//! Objects in a bucket of Amazon S3 or of a server that speaks its protocol.
//!
//! What the protocol is and who asks; the store itself is `bucket`'s, the protocol `object_store`'s. There are no
//! multipart uploads below 256 MiB, so that usually nothing half-uploaded can stay behind; a bucket that takes larger
//! objects wants a lifecycle rule that aborts incomplete uploads, as the protocol's listings hide them.

mod credentials;

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::HttpConnector;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ClientOptions, RetryConfig};

pub use credentials::{AccessKey, Credentials};

use crate::bucket::transport::{self, Connector};
use crate::bucket::{Bucket, BucketStore};
use crate::{Error, ErrorKind, Result, name};

/// Objects up to this size are one request, as in restic: a pack is not split.
const SINGLE_PUT_BYTES_MAX: usize = 256 << 20;

/// Where a bucket is and how to speak to it.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The server, `https://host[:port]` or `http://host[:port]`, without the bucket.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What every object's key starts with, a folder of the bucket without slashes at its ends; may be empty.
    pub prefix: String,
    /// The bucket's region. Default: `AWS_REGION`, `AWS_DEFAULT_REGION`, what the endpoint's name says, `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket stands in the path (`https://host/bucket`) or in the host's name
    /// (`https://bucket.host`). Default: in the path, except at Amazon.
    pub path_style: Option<bool>,
    /// Who asks.
    pub credentials: Credentials,
    /// Certificates of authorities, in PEM, to trust beside those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// How long a request may make no progress, and what a small one may take in all. Default: 60 s. Uploads
    /// get as much more as they need at 128 KiB/s.
    pub timeout: Duration,
}

impl S3Config {
    /// The configuration for a bucket with defaults for everything else.
    pub fn new(endpoint: impl Into<String>, bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            prefix: prefix.into(),
            region: None,
            path_style: None,
            credentials: Credentials::default(),
            ca_pem: None,
            timeout: Duration::from_secs(60),
        }
    }

    fn host(&self) -> &str {
        let rest = self.endpoint.split_once("://").map_or(self.endpoint.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    fn is_amazon(&self) -> bool {
        let host = self.host();
        host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
    }

    /// `s3.eu-west-1.amazonaws.com`, `s3-eu-west-1.…`, `s3.dualstack.eu-west-1.…` name their region.
    fn region_of_endpoint(&self) -> Option<&str> {
        let (service, _) = self.host().split_once(".amazonaws.com").filter(|_| self.is_amazon())?;
        let region = service.strip_prefix("s3.").or_else(|| service.strip_prefix("s3-"))?;
        let region = region.strip_prefix("dualstack.").unwrap_or(region);
        (region.contains('-') && !region.contains('.')).then_some(region)
    }

    fn region(&self) -> String {
        let from_environment = || ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(credentials::variable);
        (self.region.clone().filter(|region| !region.is_empty()))
            .or_else(from_environment)
            .or_else(|| self.region_of_endpoint().map(str::to_owned))
            .unwrap_or_else(|| "us-east-1".to_owned())
    }

    /// The wildcard certificates of virtual hosts cover one label: a bucket with dots stays in the path.
    fn is_path_style(&self) -> bool {
        self.path_style.unwrap_or(!self.is_amazon() || self.bucket.contains('.'))
    }

    fn refuse<T>(&self, why: String) -> Result<T> {
        Err(Error::new(ErrorKind::InvalidConfig, "open", location(self), why))
    }

    /// The endpoint's scheme, and its host with the port.
    fn scheme_and_host(&self) -> Result<(&str, &str)> {
        match self.endpoint.split_once("://") {
            Some((scheme @ ("http" | "https"), host)) if !host.trim_end_matches('/').is_empty() => {
                Ok((scheme, host.trim_end_matches('/')))
            }
            _ => self.refuse(format!("the endpoint `{}` is not http://HOST or https://HOST", self.endpoint)),
        }
    }

    fn connector(&self) -> Result<Connector> {
        Ok(Connector { endpoint: self.scheme_and_host()?.1.to_owned(), speaks: "S3" })
    }

    fn client_options(&self) -> Result<ClientOptions> {
        let is_http = self.scheme_and_host()?.0 == "http";
        transport::client_options(is_http, self.timeout, self.ca_pem.as_deref(), &location(self))
    }

    /// A client of the bucket. Nothing is asked of the server yet: a bucket that does not exist or cannot be reached
    /// shows with the first operation.
    pub fn open(&self) -> Result<BucketStore> {
        BucketStore::new(Bucket {
            location: location(self),
            prefix: self.prefix.clone(),
            timeout: self.timeout,
            client: Box::new(self.client()?),
            keeps_conditions: false,
            single_put_bytes_max: SINGLE_PUT_BYTES_MAX,
        })
    }

    /// Opens the bucket and makes it where it does not exist.
    pub fn create(&self) -> Result<BucketStore> {
        let store = self.open()?;
        if store.is_missing()? {
            let (client, http) = (self.client()?, self.connector()?.connect(&self.client_options()?));
            let http = http.map_err(|error| Error::new(ErrorKind::InvalidConfig, "open", location(self), error))?;
            let body = match self.region().as_str() {
                // Amazon's first region is named by naming none.
                "us-east-1" => String::new(),
                region => format!(
                    "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                     <LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
                ),
            };
            store.make_bucket(async {
                let valid = Duration::from_secs(300);
                let url = client.signed_url(::http::Method::PUT, &Path::ROOT, valid).await?;
                let request = ::http::Request::put(url.as_str()).body(body.into());
                transport::execute(&http, "S3", request).await.map(drop)
            })?;
        }
        Ok(store)
    }

    fn client(&self) -> Result<AmazonS3> {
        let (scheme, host) = self.scheme_and_host()?;
        if self.bucket.is_empty() || self.bucket.contains('/') {
            return self.refuse(format!("`{}` is not a bucket's name", self.bucket));
        }
        if !self.prefix.is_empty() {
            name::check("open", &self.prefix)?;
        }
        let endpoint = match self.is_path_style() {
            true => format!("{scheme}://{host}"),
            false => format!("{scheme}://{}.{host}", self.bucket),
        };
        let builder = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(!self.is_path_style())
            .with_bucket_name(&self.bucket)
            .with_region(self.region())
            .with_client_options(self.client_options()?)
            .with_http_connector(self.connector()?)
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        self.credentials
            .apply(builder)?
            .build()
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, "open", location(self), error))
    }
}

fn location(config: &S3Config) -> String {
    let S3Config { endpoint, bucket, prefix, .. } = config;
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("s3:{}/{bucket}{slash}{prefix}", endpoint.trim_end_matches('/'))
}

#[cfg(test)]
mod tests;
