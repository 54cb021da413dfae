//! Objects in a bucket of Amazon S3 or of a server that speaks its protocol.
//!
//! The S3 protocol comes from `object_store`, which is asynchronous; a small private tokio runtime
//! carries it, and all calls of the [`Store`] block. They may come from any number of threads, but not
//! from within an asynchronous task: that is an error, not a dead-lock.
//!
//! Nothing is retried here ([`Retry`](crate::Retry) does that), every request has a time limit, and a
//! listing is read to its last page or fails. The store makes no use of multipart uploads below
//! 256 MiB, so that usually nothing half-uploaded can stay behind; a bucket that takes larger objects
//! wants a lifecycle rule that aborts incomplete uploads, as the protocol's listings hide them.
//!
//! TLS is rustls over *ring*. Opening a store installs ring as the process's rustls provider unless the
//! process has chosen one before.
//!
//! # Never replacing an object
//!
//! S3 replaces objects unless asked not to (`If-None-Match: *`), and some servers do not know or
//! silently ignore the question. The first put therefore looks whether the object exists and, if it is small,
//! writes it twice: a server that takes the second write ignores conditions. On such servers every put
//! first looks for the object; writers that race in that gap may both succeed, the last one winning.
//! Within one store they cannot: puts of one name then go one after the other.

mod credentials;
mod transport;

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::HttpConnector;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    Certificate, ClientOptions, GetOptions, GetRange, GetResult, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, RetryConfig,
};
use tokio::runtime::{Builder, Handle, Runtime};

use transport::Connector;

pub use credentials::{AccessKey, Credentials};

use crate::{Entry, Error, ErrorKind, Result, Store, name};

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
        Ok(Connector { endpoint: self.scheme_and_host()?.1.to_owned() })
    }

    fn client_options(&self) -> Result<ClientOptions> {
        let (scheme, _) = self.scheme_and_host()?;
        let options = ClientOptions::new()
            .with_allow_http(scheme == "http")
            .with_timeout_disabled() // see `S3Store::within`: uploads need longer than the rest
            .with_connect_timeout(self.timeout.min(Duration::from_secs(10)))
            .with_http1_only();
        let Some(pem) = &self.ca_pem else {
            return Ok(options);
        };
        let certificates = Certificate::from_pem_bundle(pem)
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, "read CA certificates of", location(self), error))?;
        if certificates.is_empty() {
            return self.refuse("the CA certificates hold no PEM certificate".to_owned());
        }
        Ok(certificates.into_iter().fold(options, ClientOptions::with_root_certificate))
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

/// Objects up to this size are one request, as in restic: a pack is not split.
const SINGLE_PUT_BYTES_MAX: usize = 256 << 20;
/// The parts of larger ones; S3 takes 10,000.
const PART_BYTES: usize = 64 << 20;
/// The first small object tells whether the server knows conditional puts: it is written twice.
const PROBE_BYTES_MAX: usize = 64 << 10;
/// An upload slower than this is taken for stalled.
const UPLOAD_BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// A store in a folder of an S3 bucket.
#[derive(Debug)]
pub struct S3Store {
    location: String,
    client: AmazonS3,
    prefix: String,
    timeout: Duration,
    single_put_bytes_max: usize,
    part_bytes: usize,
    /// Whether the server was seen to keep conditions; empty until it was seen.
    conditional: OnceLock<bool>,
    /// The names that are being looked for and then written, where the server keeps no conditions.
    writing: Mutex<BTreeSet<String>>,
    written: Condvar,
    runtime: BackgroundRuntime,
}

/// Dropped without waiting: tokio forbids waiting within asynchronous tasks.
#[derive(Debug)]
struct BackgroundRuntime(Option<Runtime>);

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The right to write one name.
struct Claim<'a> {
    store: &'a S3Store,
    name: &'a str,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.store.writing.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
        self.store.written.notify_all();
    }
}

impl S3Store {
    /// Makes a client of the bucket. Nothing is asked of the server yet: a bucket that does not exist or
    /// cannot be reached shows with the first operation.
    pub fn open(config: &S3Config) -> Result<Self> {
        // An error means that the process has a provider, which then serves us as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|error| Error::new(ErrorKind::Other, "start threads for", location(config), error))?;
        let client = config.client()?;
        Ok(Self {
            location: location(config),
            client,
            prefix: config.prefix.clone(),
            timeout: config.timeout,
            single_put_bytes_max: SINGLE_PUT_BYTES_MAX,
            part_bytes: PART_BYTES,
            conditional: OnceLock::new(),
            writing: Mutex::default(),
            written: Condvar::new(),
            runtime: BackgroundRuntime(Some(runtime)),
        })
    }

    /// Opens the bucket and makes it where it does not exist.
    pub fn create(config: &S3Config) -> Result<Self> {
        let store = Self::open(config)?;
        match store.list_first() {
            Err(error) if error.kind == ErrorKind::NotFound => store.create_bucket(config)?,
            done => done?,
        }
        Ok(store)
    }

    fn list_first(&self) -> Result<()> {
        let mut entries = self.client.list(Some(&self.path("list", "")?));
        self.within("list", "", 0, async { entries.next().await.transpose() }).map(drop)
    }

    fn create_bucket(&self, config: &S3Config) -> Result<()> {
        let body = match config.region().as_str() {
            // Amazon's first region is named by naming none.
            "us-east-1" => String::new(),
            region => format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            ),
        };
        let (connector, options) = (config.connector()?, config.client_options()?);
        let created = self.within("create the bucket of", "", 0, async {
            let valid = Duration::from_secs(300);
            let url = self.client.signed_url(::http::Method::PUT, &Path::ROOT, valid).await?;
            transport::put(&connector.connect(&options)?, url.as_str(), body).await
        });
        match created {
            // Somebody else made it meanwhile.
            Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// The key of an object; the prefix itself for an empty name.
    fn path(&self, operation: &'static str, name: &str) -> Result<Path> {
        let key = [self.prefix.as_str(), name].map(|part| (!part.is_empty()).then_some(part));
        let key: Vec<&str> = key.into_iter().flatten().collect();
        Path::parse(key.join("/"))
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, operation, self.place(name), error))
    }

    fn place(&self, name: &str) -> String {
        match name {
            "" => self.location.clone(),
            name => format!("{}/{name}", self.location),
        }
    }

    fn object(&self, operation: &'static str, name: &str) -> Result<Path> {
        name::check(operation, name)?;
        self.path(operation, name)
    }

    /// Runs a request that uploads `bytes` to its end or to its time limit.
    fn within<T>(
        &self,
        operation: &'static str,
        name: &str,
        bytes: usize,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let failed = |kind, source| Error { kind, operation, name: self.place(name), source };
        let Some(runtime) = self.runtime.0.as_ref().filter(|_| Handle::try_current().is_err()) else {
            return Err(failed(ErrorKind::Other, "a blocking call within an asynchronous task".into()));
        };
        let limit = self.timeout + Duration::from_secs(bytes as u64 / UPLOAD_BYTES_PER_SECOND_MIN);
        let done = runtime.block_on(async { tokio::time::timeout(limit, request).await });
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                let (kind, source) = transport::explain(error);
                Err(failed(kind, source))
            }
            Err(_) => Err(failed(ErrorKind::Unavailable, format!("no answer within {limit:?}").into())),
        }
    }

    /// Fails when the object exists.
    fn look(&self, name: &str, path: &Path) -> Result<()> {
        match self.within("write", name, 0, self.client.head(path)) {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(self.exists(name)),
        }
    }

    /// Waits until no other thread writes `name`, and keeps others waiting until the claim is dropped.
    fn claim<'a>(&'a self, name: &'a str) -> Claim<'a> {
        let names = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names =
            self.written.wait_while(names, |names| names.contains(name)).unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned());
        Claim { store: self, name }
    }

    fn exists(&self, name: &str) -> Error {
        Error::new(ErrorKind::AlreadyExists, "write", self.place(name), "the object exists")
    }

    fn put_single(&self, name: &str, path: &Path, payload: PutPayload, mode: PutMode) -> Result<()> {
        let bytes = payload.content_length();
        self.within("write", name, bytes, self.client.put_opts(path, payload, mode.into())).map(drop)
    }

    /// The first puts of a store, which find out what the server can do.
    fn put_unsure(&self, name: &str, path: &Path, payload: PutPayload) -> Result<()> {
        let _alone = self.claim(name);
        if self.conditional.get() == Some(&true) {
            return self.put_single(name, path, payload, PutMode::Create);
        }
        self.look(name, path)?;
        if self.conditional.get() == Some(&false) {
            return self.put_single(name, path, payload, PutMode::Overwrite);
        }
        match self.put_single(name, path, payload.clone(), PutMode::Create) {
            Err(error) if transport::is_not_implemented(&error) => {
                let _ = self.conditional.set(false);
                return self.put_single(name, path, payload, PutMode::Overwrite);
            }
            done => done?,
        }
        if payload.content_length() <= PROBE_BYTES_MAX {
            match self.put_single(name, path, payload, PutMode::Create) {
                Ok(()) => _ = self.conditional.set(false),
                Err(error) if error.kind == ErrorKind::AlreadyExists => _ = self.conditional.set(true),
                // Another time: the object itself is written.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn put_parts(&self, name: &str, path: &Path, data: &[u8]) -> Result<()> {
        let mut upload = self.within("write", name, 0, self.client.put_multipart(path))?;
        let mut send = || {
            for part in data.chunks(self.part_bytes) {
                self.within("write", name, part.len(), upload.put_part(part.to_vec().into()))?;
            }
            self.within("write", name, 0, upload.complete()).map(drop)
        };
        send().inspect_err(|_| {
            // What cannot be aborted now is for the bucket's lifecycle rule.
            let _ = self.within("write", name, 0, upload.abort());
        })
    }

    /// Hands on the answer piece by piece, and fails when a piece takes too long.
    fn receive(&self, name: &str, answer: GetResult, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut pieces = answer.into_stream();
        while let Some(piece) = self.within("read", name, 0, async { pieces.next().await.transpose() })? {
            take(&piece)?;
        }
        Ok(())
    }

    fn truncated(&self, name: &str, why: String) -> Error {
        Error::new(ErrorKind::Truncated, "read", self.place(name), why)
    }
}

impl Store for S3Store {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn put(&self, name: &str, data: &[u8]) -> Result<()> {
        let path = self.object("write", name)?;
        if data.len() > self.single_put_bytes_max {
            self.look(name, &path)?;
            return self.put_parts(name, &path, data);
        }
        let payload = PutPayload::from(data.to_vec());
        match self.conditional.get() {
            Some(true) => self.put_single(name, &path, payload, PutMode::Create),
            _ => self.put_unsure(name, &path, payload),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.object("read", name)?;
        let answer = self.within("read", name, 0, self.client.get(&path))?;
        let size = answer.meta.size;
        let mut data = Vec::new();
        usize::try_from(size).ok().and_then(|size| data.try_reserve_exact(size).ok()).ok_or_else(|| {
            Error::new(
                ErrorKind::Other,
                "read",
                self.place(name),
                format!("{size} bytes need more memory than there is"),
            )
        })?;
        self.receive(name, answer, |piece| {
            data.extend_from_slice(piece);
            Ok(())
        })?;
        if data.len() as u64 != size {
            return Err(self.truncated(name, format!("{} of {size} bytes came", data.len())));
        }
        Ok(data)
    }

    fn get_range(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let path = self.object("read", name)?;
        if buffer.is_empty() {
            // The protocol has no empty ranges.
            return self.size_bytes(name).map(drop);
        }
        let wanted = offset..offset.saturating_add(buffer.len() as u64);
        let options = GetOptions { range: Some(GetRange::Bounded(wanted.clone())), ..GetOptions::default() };
        let answer = self.within("read", name, 0, self.client.get_opts(&path, options))?;
        if answer.range != wanted {
            return Err(self.truncated(name, format!("asked for bytes {wanted:?}, got {:?}", answer.range)));
        }
        let mut filled = 0;
        self.receive(name, answer, |piece| {
            let Some(place) = buffer.get_mut(filled..filled + piece.len()) else {
                return Err(self.truncated(name, "more bytes came than asked for".to_owned()));
            };
            place.copy_from_slice(piece);
            filled += piece.len();
            Ok(())
        })?;
        if filled < buffer.len() {
            return Err(self.truncated(name, format!("{filled} of {} bytes came", buffer.len())));
        }
        Ok(())
    }

    fn size_bytes(&self, name: &str) -> Result<u64> {
        let path = self.object("look up", name)?;
        Ok(self.within("look up", name, 0, self.client.head(&path))?.size)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Entry)) -> Result<()> {
        name::check_folder(prefix)?;
        let folder = self.path("list", prefix)?;
        let mut objects = self.client.list(Some(&folder));
        // One block at a time: `visit` may use the store.
        while let Some(object) = self.within("list", prefix, 0, async { objects.next().await.transpose() })? {
            let key = object.location.as_ref();
            let name = match self.prefix.as_str() {
                "" => Some(key),
                prefix => key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')),
            };
            // Keys that end in a slash are folders that some tools make; they come as the bare folder's name.
            if let Some(name) = name.filter(|name| name::is_in_folder(name, prefix)) {
                visit(Entry { name: name.to_owned(), size_bytes: object.size });
            }
        }
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.object("delete", name)?;
        match self.within("delete", name, 0, self.client.delete(&path)) {
            Err(error) if error.kind == ErrorKind::NotFound && !transport::is_bucket_missing(&error) => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod servers;
#[cfg(test)]
mod tests;
