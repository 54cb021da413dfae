//! A folder of a bucket as a [`Store`], whatever protocol the bucket's server speaks: S3's (see `s3`) or that of
//! Google Cloud Storage (see `gcs`).
//!
//! The protocols are `object_store`'s or like it, which is asynchronous; a small private tokio runtime
//! carries them, and all calls of the [`Store`] block. They may come from any number of threads, but not
//! from within an asynchronous task: that is an error, not a dead-lock.
//!
//! Nothing is retried here ([`Retry`](crate::Retry) does that), every request has a time limit, and a
//! listing is read to its last page or fails.
//!
//! TLS is rustls over *ring*. Opening a store installs ring as the process's rustls provider unless the
//! process has chosen one before.
//!
//! # Never replacing an object
//!
//! Servers replace objects unless asked not to (S3: `If-None-Match: *`, Google: `ifGenerationMatch=0`), and some do
//! not know or silently ignore the question. Unless the protocol vouches for its server, the first put therefore looks
//! whether the object exists and, if it is small, writes it twice: a server that takes the second write ignores
//! conditions. On such servers every put first looks for the object; writers that race in that gap may both succeed,
//! the last one winning. Within one store they cannot: puts of one name then go one after the other.

pub(crate) mod transport;

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{Cancel, Entry, Error, ErrorKind, Result, Store, name};

/// The parts of objects that are not one request; S3 takes 10,000.
const PART_BYTES: usize = 64 << 20;
/// The first small object tells whether the server knows conditional puts: it is written twice.
const PROBE_BYTES_MAX: usize = 64 << 10;
/// An upload slower than this is taken for stalled.
const UPLOAD_BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// Where a bucket is, for messages, and what its protocol leaves to settle.
pub(crate) struct Bucket {
    /// The folder in the bucket, as restic writes locations.
    pub(crate) location: String,
    /// The folder, without slashes at its ends; may be empty.
    pub(crate) prefix: String,
    /// How long a request may make no progress.
    pub(crate) timeout: Duration,
    /// Speaks the protocol.
    pub(crate) client: Box<dyn ObjectStore>,
    /// Whether the server is known to keep conditions; otherwise it is tried.
    pub(crate) keeps_conditions: bool,
    /// Objects up to this size are one request.
    pub(crate) single_put_bytes_max: usize,
}

/// A store in a folder of a bucket.
#[derive(Debug)]
pub struct BucketStore {
    location: String,
    client: Box<dyn ObjectStore>,
    prefix: String,
    timeout: Duration,
    cancel: Cancel,
    pub(crate) single_put_bytes_max: usize,
    pub(crate) part_bytes: usize,
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
    store: &'a BucketStore,
    name: &'a str,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.store.writing.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
        self.store.written.notify_all();
    }
}

impl BucketStore {
    pub(crate) fn new(bucket: Bucket) -> Result<Self> {
        let Bucket { location, prefix, timeout, client, keeps_conditions, single_put_bytes_max } = bucket;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket")
            .enable_all()
            .build()
            .map_err(|error| Error::new(ErrorKind::Other, "start threads for", &location, error))?;
        let conditional = OnceLock::new();
        if keeps_conditions {
            let _ = conditional.set(true);
        }
        Ok(Self {
            location,
            client,
            prefix,
            timeout,
            cancel: Cancel::new(),
            single_put_bytes_max,
            part_bytes: PART_BYTES,
            conditional,
            writing: Mutex::default(),
            written: Condvar::new(),
            runtime: BackgroundRuntime(Some(runtime)),
        })
    }

    /// The same, whose requests under way `cancel` ends.
    #[must_use]
    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// Whether the bucket does not exist, asked by the beginning of a listing.
    pub(crate) fn is_missing(&self) -> Result<bool> {
        let mut entries = self.client.list(Some(&self.path("list", "")?));
        match self.within("list", "", 0, async { entries.next().await.transpose() }) {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Ok(false),
        }
    }

    /// Runs the request that makes the bucket; somebody else may have made it meanwhile.
    pub(crate) fn make_bucket(&self, request: impl Future<Output = object_store::Result<()>>) -> Result<()> {
        match self.within("create the bucket of", "", 0, request) {
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
            name => format!("{}/{name}", self.location.trim_end_matches('/')),
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
        let done = runtime.block_on(async {
            tokio::select! {
                done = tokio::time::timeout(limit, request) => Some(done),
                () = self.cancelled() => None,
            }
        });
        match done {
            Some(Ok(Ok(done))) => Ok(done),
            Some(Ok(Err(error))) => {
                let (kind, source) = transport::explain(error);
                Err(failed(kind, source))
            }
            Some(Err(_)) => Err(failed(ErrorKind::Unavailable, format!("no answer within {limit:?}").into())),
            None => Err(Cancel::error(operation, self.place(name))),
        }
    }

    /// Comes to its end when a request that begins now has had the time that is left to it by [`Cancel`].
    async fn cancelled(&self) {
        let begin = Instant::now();
        loop {
            if let Some(since) = self.cancel.since()
                && Instant::now() >= since.max(begin) + Cancel::GRACE
            {
                return;
            }
            tokio::time::sleep(Cancel::LOOK_EVERY).await;
        }
    }

    /// Fails once nobody wants to read any more.
    fn check_cancelled(&self, operation: &'static str, name: &str) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Cancel::error(operation, self.place(name))) } else { Ok(()) }
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

    fn put_parts(&self, name: &str, path: &Path, data: &Bytes) -> Result<()> {
        let mut upload = self.within("write", name, 0, self.client.put_multipart(path))?;
        let mut send = || {
            for part in data.chunks(self.part_bytes) {
                self.within("write", name, part.len(), upload.put_part(data.slice_ref(part).into()))?;
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
            self.check_cancelled("read", name)?;
        }
        Ok(())
    }

    fn truncated(&self, name: &str, why: String) -> Error {
        Error::new(ErrorKind::Truncated, "read", self.place(name), why)
    }
}

impl Store for BucketStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn put(&self, name: &str, data: &[u8]) -> Result<()> {
        self.put_shared(name, Bytes::copy_from_slice(data))
    }

    fn put_shared(&self, name: &str, data: Bytes) -> Result<()> {
        let path = self.object("write", name)?;
        if data.len() > self.single_put_bytes_max {
            self.look(name, &path)?;
            return self.put_parts(name, &path, &data);
        }
        let payload = PutPayload::from(data);
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
            self.check_cancelled("list", prefix)?;
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
pub(crate) mod servers;
