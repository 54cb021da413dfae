//! Dumb object storage: names to bytes, on a local directory or an object store.
//!
//! A store keeps whole, write-once objects under slash-separated names. It knows nothing of what the
//! bytes mean: it never parses, encrypts or deduplicates, and never prints.

mod bucket;
mod cancel;
#[cfg(test)]
mod conformance;
mod error;
mod fault;
mod gcs;
mod local;
mod location;
mod memory;
mod name;
mod retry;
mod s3;

use std::time::Duration;

use bytes::Bytes;

pub use bucket::BucketStore;
pub use cancel::Cancel;
pub use error::{Error, ErrorKind, Result};
pub use fault::{Fault, FaultyStore, Operation, Rule};
pub use gcs::{GcsConfig, GcsCredentials};
pub use local::LocalStore;
pub use location::{Access, Location, ParseError};
pub use memory::MemoryStore;
pub use retry::{Pause, Retry, RetryPolicy, SystemPause};
pub use s3::{AccessKey, Credentials, S3Config};

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The object's whole name, for example `data/ab/abcd…`.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// Named, write-once objects.
///
/// All calls block and may be made from several threads at once. A call that returns an error has
/// changed nothing that a reader could take for success: `put` is atomic, and a listing that could not
/// be completed is an error, never a shorter list.
pub trait Store: Send + Sync {
    /// Where this store is, for messages. Holds no secret.
    fn location(&self) -> String;

    /// Stores `data` under `name`, durably and atomically: after success the object survives a crash of
    /// the machine; after an error no partial object can be seen under `name`.
    ///
    /// Fails with [`ErrorKind::AlreadyExists`] when `name` is taken.
    fn put(&self, name: &str, data: &[u8]) -> Result<()>;

    /// As [`Store::put`], of bytes that a store which sends them can hold on to instead of copying them.
    fn put_shared(&self, name: &str, data: Bytes) -> Result<()> {
        self.put(name, &data)
    }

    /// Reads a whole object.
    fn get(&self, name: &str) -> Result<Vec<u8>>;

    /// Fills `buffer` from byte `offset` of the object; fails with [`ErrorKind::Truncated`] when the
    /// object ends before the buffer is full.
    fn get_range(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// The size of an object in bytes; fails with [`ErrorKind::NotFound`] when there is none.
    fn size_bytes(&self, name: &str) -> Result<u64>;

    /// Calls `visit` for every object whose name starts with the folder `prefix` (`"data"`, or `""` for
    /// all), in no particular order. A folder that does not exist holds nothing, but a *store* that does
    /// not exist is [`ErrorKind::NotFound`].
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Entry)) -> Result<()>;

    /// Removes an object. Removing one that is not there succeeds.
    fn delete(&self, name: &str) -> Result<()>;

    /// Removes what writers that died have left beside the objects, once it is older than `age`, and
    /// returns how many such leftovers went. Leftovers are never visible as objects; they only take space.
    ///
    /// A day is a good `age`: no live writer works on one object for so long. A store that leaves nothing
    /// behind has nothing to do.
    fn remove_leftovers(&self, age: Duration) -> Result<u64> {
        let _ = age;
        Ok(0)
    }
}

/// A pointer to a store is a store: `Box<dyn Store>`, `Arc<LocalStore>`, `&MemoryStore`.
impl<P> Store for P
where
    P: std::ops::Deref<Target: Store> + Send + Sync,
{
    fn location(&self) -> String {
        (**self).location()
    }
    fn put(&self, name: &str, data: &[u8]) -> Result<()> {
        (**self).put(name, data)
    }
    fn put_shared(&self, name: &str, data: Bytes) -> Result<()> {
        (**self).put_shared(name, data)
    }
    fn get(&self, name: &str) -> Result<Vec<u8>> {
        (**self).get(name)
    }
    fn get_range(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (**self).get_range(name, offset, buffer)
    }
    fn size_bytes(&self, name: &str) -> Result<u64> {
        (**self).size_bytes(name)
    }
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Entry)) -> Result<()> {
        (**self).list(prefix, visit)
    }
    fn delete(&self, name: &str) -> Result<()> {
        (**self).delete(name)
    }
    fn remove_leftovers(&self, age: Duration) -> Result<u64> {
        (**self).remove_leftovers(age)
    }
}
