//! An open repository: its keys, its files and its blobs, each verified when it is read.

use std::io::Read;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use holdfast_store::{ErrorKind, Store};
use jiff::Timestamp;

use crate::chunker::{Chunker, Polynomial};
use crate::crypto::{self, KdfParams};
use crate::error::Damage;
use crate::format::config::{Config, VERSIONS};
use crate::format::index::{self as index_file};
use crate::format::key::{KeyFile, MacKey, MasterKey};
use crate::format::snapshot::Snapshot;
use crate::format::tree::Tree;
use crate::format::{BlobKind, CONFIG_NAME, FileKind};
use crate::identity::Identity;
use crate::lock::Lock;
use crate::{Error, Id, Index, Location, Result, memory};

/// How hard new blobs are compressed. Format version 1 stores everything as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Directories only; file content is stored as it is.
    Off,
    /// A good trade of time and size.
    #[default]
    Auto,
    /// As small as it gets in bearable time.
    Max,
}

impl Compression {
    pub(crate) fn level(self) -> i32 {
        match self {
            Self::Off | Self::Auto => 3,
            Self::Max => 12,
        }
    }
}

/// How a repository is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// For new blobs. Default: [`Compression::Auto`].
    pub compression: Compression,
    /// The size that packs are filled up to, in bytes. Default: 16 MiB, as the format's stock tool has it.
    pub pack_bytes: usize,
    /// How many packs are uploaded at once. Default: 2.
    pub uploads: usize,
    /// The key to try first, by the beginning of its id.
    pub key_hint: Option<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { compression: Compression::Auto, pack_bytes: 16 << 20, uploads: 2, key_hint: None }
    }
}

/// How a repository is made.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Format version. Default: 2.
    pub version: u32,
    /// Where files are cut, to deduplicate with copies of another repository's data. Default: random.
    pub polynomial: Option<Polynomial>,
    /// The time a password check may take. Default: 500 ms.
    pub kdf_target: Duration,
    /// The memory a password check may take, in bytes. Default: 60 MiB.
    pub kdf_memory_bytes: u64,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self { version: 2, polynomial: None, kdf_target: Duration::from_millis(500), kdf_memory_bytes: 60 << 20 }
    }
}

/// What is known of a key without its password.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KeyInfo {
    /// The key file.
    pub id: Id,
    /// Who added it.
    pub username: String,
    /// On which host.
    pub hostname: String,
    /// When.
    pub created: Timestamp,
    /// Whether it is the one this repository was opened with.
    pub current: bool,
}

/// An open repository.
pub struct Repository {
    store: Arc<dyn Store>,
    key: crypto::Key,
    key_id: Id,
    config: Config,
    chunker: Arc<Chunker>,
    options: OpenOptions,
    index: RwLock<Option<Arc<Index>>>,
}

impl Drop for Repository {
    /// A program that has done its work with a repository, and waits for more, does not keep the memory for it.
    fn drop(&mut self) {
        self.refresh_index();
    }
}

impl Repository {
    /// Makes a repository in an empty store.
    ///
    /// The configuration is written last: without it there is no repository, so one that was interrupted
    /// can be begun again.
    pub fn init(store: Arc<dyn Store>, password: &str, init: &InitOptions, options: OpenOptions) -> Result<Self> {
        if !VERSIONS.contains(&init.version) {
            return Err(Error::UnsupportedVersion(init.version));
        }
        if has_config(&*store)? {
            return Err(Error::AlreadyInitialized { location: store.location() });
        }
        refuse_orphans(&*store)?;
        let key = crypto::Key::generate();
        let params = KdfParams::calibrate(init.kdf_target, init.kdf_memory_bytes);
        let key_id = write_key(&*store, &key, password, params)?;
        let config = Config {
            version: init.version,
            id: Id(rand::random()),
            chunker_polynomial: init.polynomial.unwrap_or_else(Polynomial::random),
        };
        let json = serde_json::to_vec(&config).map_err(|error| Error::damaged("the new configuration", error))?;
        // Whoever stores the configuration has made the repository. Every other key that was there before it is of an
        // init that was killed or comes too late: with the same password it would be taken for the right one.
        let others: Vec<Id> = list_ids(&*store, FileKind::Key)?.into_iter().filter(|id| *id != key_id).collect();
        let sealed = key.seal(&json);
        let is_ours = match store.put(CONFIG_NAME, &sealed) {
            // A put that was tried again may meet itself.
            Err(error) if error.kind == ErrorKind::AlreadyExists => store.get(CONFIG_NAME)? == sealed,
            result => result.map(|()| true)?,
        };
        if !is_ours {
            store.delete(&FileKind::Key.path(&key_id))?;
            return Err(Error::AlreadyInitialized { location: store.location() });
        }
        for id in others {
            store.delete(&FileKind::Key.path(&id))?;
        }
        Ok(Self::new(store, key, key_id, config, options))
    }

    /// Opens a repository with a password.
    pub fn open(store: Arc<dyn Store>, password: &str, options: OpenOptions) -> Result<Self> {
        let sealed = store.get(CONFIG_NAME).map_err(|error| match error.kind {
            ErrorKind::NotFound => Error::NoRepository { location: store.location(), source: error },
            _ => error.into(),
        })?;
        let mut keys = list_ids(&*store, FileKind::Key)?;
        if keys.is_empty() {
            return Err(Error::NoKeys { location: store.location() });
        }
        if let Some(hint) = &options.key_hint {
            keys.sort_by_key(|id| !id.to_string().starts_with(hint.as_str()));
        }
        let mut unusable = None;
        for key_id in &keys {
            match open_key(&*store, key_id, password) {
                Ok(Some(key)) => {
                    // The key of an init that came too late and was killed: another one may be the right one.
                    let Ok(config) = key.open(sealed.clone()) else {
                        unusable = Some(Error::damaged("the configuration", Damage::Unauthentic));
                        continue;
                    };
                    let config: Config =
                        serde_json::from_slice(&config).map_err(|error| Error::damaged("the configuration", error))?;
                    if !VERSIONS.contains(&config.version) {
                        return Err(Error::UnsupportedVersion(config.version));
                    }
                    return Ok(Self::new(store, key, *key_id, config, options));
                }
                Ok(None) => {}
                // A key file that is damaged must not keep the others from being tried.
                Err(error) => unusable = Some(error),
            }
        }
        Err(unusable.unwrap_or(Error::WrongPassword { location: store.location(), keys: keys.len() }))
    }

    fn new(store: Arc<dyn Store>, key: crypto::Key, key_id: Id, config: Config, options: OpenOptions) -> Self {
        let chunker = Arc::new(Chunker::new(config.chunker_polynomial));
        Self { store, key, key_id, config, chunker, options, index: RwLock::new(None) }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the repository is, for messages.
    pub fn location(&self) -> String {
        self.store.location()
    }

    /// How it was opened.
    pub fn options(&self) -> &OpenOptions {
        &self.options
    }

    pub(crate) fn chunker(&self) -> &Arc<Chunker> {
        &self.chunker
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn key(&self) -> &crypto::Key {
        &self.key
    }

    pub(crate) fn compresses(&self) -> bool {
        self.config.version >= 2
    }

    /// The names of all files of a kind. A listing that could not be completed is an error.
    pub fn list(&self, kind: FileKind) -> Result<Vec<Id>> {
        list_ids(&*self.store, kind)
    }

    /// The names and sizes in bytes of all files of a kind.
    pub fn list_sizes(&self, kind: FileKind) -> Result<Vec<(Id, u64)>> {
        list_sizes(&*self.store, kind)
    }

    /// Reads a file that is stored whole (index, lock, snapshot): its hash, its authentication and its
    /// compression are verified.
    pub fn load_file(&self, kind: FileKind, id: &Id) -> Result<Vec<u8>> {
        let what = || format!("{} {id}", kind.noun());
        let mut damage = None;
        // A second look tells damage on the way from damage in the store.
        for _ in 0..2 {
            let sealed = self.store.get(&kind.path(id))?;
            let actual = Id::of(&sealed);
            if actual != *id {
                damage = Some(Damage::WrongHash { actual });
                continue;
            }
            let plain = self.key.open(sealed).map_err(|_| Error::damaged(what(), Damage::Unauthentic))?;
            return match plain.first() {
                Some(2) if self.compresses() => {
                    let mut raw = Vec::new();
                    zstd::stream::read::Decoder::new(&plain[1..])
                        .and_then(|mut decoder| decoder.read_to_end(&mut raw))
                        .map_err(|error| Error::damaged(what(), Damage::Compression(error.to_string())))?;
                    Ok(raw)
                }
                Some(b'{' | b'[') => Ok(plain),
                _ => Err(Error::damaged(
                    what(),
                    Damage::Content("it begins with a byte that no such file begins with".into()),
                )),
            };
        }
        Err(Error::damaged(what(), damage.unwrap_or(Damage::Truncated)))
    }

    /// Stores a file whole and returns its name.
    pub(crate) fn save_file(&self, kind: FileKind, json: &[u8]) -> Result<Id> {
        let sealed = if self.compresses() {
            let mut plain = vec![2];
            zstd::stream::copy_encode(json, &mut plain, 3)
                .map_err(|error| Error::System { operation: "compress", reason: error.to_string() })?;
            self.key.seal(&plain)
        } else {
            self.key.seal(json)
        };
        let id = Id::of(&sealed);
        self.store.put(&kind.path(&id), &sealed)?;
        Ok(id)
    }

    /// Removes a file: only who holds the repository alone may.
    pub(crate) fn remove(&self, lock: &Lock, kind: FileKind, id: &Id) -> Result<()> {
        lock.check_exclusive()?;
        Ok(self.store.delete(&kind.path(id))?)
    }

    /// The index, loaded at the first call.
    pub fn index(&self) -> Result<Arc<Index>> {
        if let Some(index) = &*self.index.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(index));
        }
        let mut slot = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*slot {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(self.load_index()?);
        *slot = Some(Arc::clone(&index));
        Ok(index)
    }

    /// Forgets the loaded index, so that the next use sees what others have stored since. Its memory goes back: the next
    /// one is read by other threads, which would not find room in what these leave.
    pub fn refresh_index(&self) {
        let loaded = self.index.write().unwrap_or_else(PoisonError::into_inner).take();
        if loaded.is_some() {
            drop(loaded);
            memory::give_back();
        }
    }

    fn load_index(&self) -> Result<Index> {
        let index = Index::default();
        let ids = self.list(FileKind::Index)?;
        in_parallel(&ids, memory::index_readers(), |id| self.load_index_file(id, &mut |pack| index.add_pack(&pack)))?;
        Ok(index)
    }

    /// Reads a snapshot.
    pub fn load_snapshot(&self, id: &Id) -> Result<Snapshot> {
        let json = self.load_file(FileKind::Snapshot, id)?;
        Snapshot::parse(&json).map_err(|error| Error::damaged(format!("snapshot {id}"), error))
    }

    /// Reads a directory.
    pub fn load_tree(&self, id: &Id) -> Result<Tree> {
        let json = self.load_blob(BlobKind::Tree, id)?;
        Tree::parse(&json).map_err(|error| Error::damaged(format!("tree {id}"), error))
    }

    /// Reads one index file.
    pub(crate) fn load_index_file(&self, id: &Id, visit: &mut dyn FnMut(index_file::IndexedPack)) -> Result<()> {
        let json = self.load_file(FileKind::Index, id)?;
        index_file::decode(&json, visit).map_err(|error| Error::damaged(format!("index {id}"), error))
    }

    /// Reads a blob and verifies it; where there are several copies, a damaged one is passed over.
    pub fn load_blob(&self, kind: BlobKind, id: &Id) -> Result<Vec<u8>> {
        self.load_blob_by(&*self.index()?, kind, id)
    }

    /// As [`Self::load_blob`], with an index of the caller's.
    pub(crate) fn load_blob_by(&self, index: &Index, kind: BlobKind, id: &Id) -> Result<Vec<u8>> {
        let locations = index.find_all(kind, id);
        let mut failure = Error::MissingBlob { kind: kind.noun(), id: *id };
        for location in locations.iter().chain(locations.first()) {
            match self.load_blob_at(kind, id, location) {
                Ok(plain) => return Ok(plain),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn load_blob_at(&self, kind: BlobKind, id: &Id, location: &Location) -> Result<Vec<u8>> {
        let what = || format!("{} blob {id} in pack {}", kind.noun(), location.pack);
        let mut sealed = vec![0; location.length as usize];
        match self.store.get_range(&FileKind::Pack.path(&location.pack), u64::from(location.offset), &mut sealed) {
            Err(error) if error.kind == ErrorKind::Truncated => return Err(Error::damaged(what(), Damage::Truncated)),
            result => result?,
        }
        let mut raw = Vec::new();
        let plain = open_blob(&self.key, id, &mut sealed, location.raw_length, &mut raw)
            .map_err(|damage| Error::damaged(what(), damage))?;
        Ok(plain.to_vec())
    }

    /// All keys, without opening them.
    pub fn keys(&self) -> Result<Vec<KeyInfo>> {
        self.list(FileKind::Key)?
            .into_iter()
            .map(|id| {
                let file = read_key(&*self.store, &id)?;
                let KeyFile { created, username, hostname, .. } = file;
                Ok(KeyInfo { id, username, hostname, created, current: id == self.key_id })
            })
            .collect()
    }

    /// Adds a key that opens the repository with another password, and returns its name.
    pub fn add_key(&self, password: &str) -> Result<Id> {
        let init = InitOptions::default();
        write_key(&*self.store, &self.key, password, KdfParams::calibrate(init.kdf_target, init.kdf_memory_bytes))
    }

    /// Removes a key; the one in use cannot be removed.
    pub fn remove_key(&self, lock: &Lock, id: &Id) -> Result<()> {
        if *id == self.key_id {
            return Err(Error::BadKey { id: *id, reason: "it is the one the repository was opened with".into() });
        }
        self.remove(lock, FileKind::Key, id)
    }

    /// Replaces the key in use by one for another password.
    pub fn change_password(&self, lock: &Lock, password: &str) -> Result<Id> {
        let id = self.add_key(password)?;
        // Never be without a key: the new one must be proven to open before the old one goes.
        if open_key(&*self.store, &id, password)?.is_none() {
            return Err(Error::BadKey { id, reason: "the new key does not open with the new password".into() });
        }
        self.remove(lock, FileKind::Key, &self.key_id)?;
        Ok(id)
    }

    /// Finds the one file of a kind whose name begins with `prefix`.
    pub fn find_id(&self, kind: FileKind, prefix: &str) -> Result<Id> {
        let mut found = self.list(kind)?.into_iter().filter(|id| id.to_string().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Error::Selection(format!("no {} whose id begins with {prefix:?}", kind.noun()))),
            (Some(_), Some(_)) => {
                Err(Error::Selection(format!("more than one {} begins with {prefix:?}: give more digits", kind.noun())))
            }
        }
    }
}

/// Decrypts, decompresses and verifies a blob. `sealed` is used up, `raw` is room for decompression.
pub(crate) fn open_blob<'a>(
    key: &crypto::Key,
    id: &Id,
    sealed: &'a mut [u8],
    raw_length: u32,
    raw: &'a mut Vec<u8>,
) -> std::result::Result<&'a [u8], Damage> {
    if sealed.len() < crypto::OVERHEAD {
        return Err(Damage::Truncated);
    }
    let opened: &'a [u8] = key.open_in_place(sealed).map_err(|_| Damage::Unauthentic)?;
    let plain = if raw_length > 0 {
        decompress(opened, raw_length as usize, raw)?;
        raw.as_slice()
    } else {
        opened
    };
    let actual = Id::of(plain);
    if actual == *id { Ok(plain) } else { Err(Damage::WrongHash { actual }) }
}

pub(crate) fn decompress(compressed: &[u8], raw_bytes: usize, raw: &mut Vec<u8>) -> std::result::Result<(), Damage> {
    thread_local! {
        static CONTEXT: std::cell::RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { std::cell::RefCell::new(None) };
    }
    let failed = |error: std::io::Error| Damage::Compression(error.to_string());
    raw.clear();
    raw.try_reserve_exact(raw_bytes).map_err(|error| Damage::Compression(error.to_string()))?;
    CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd::bulk::Decompressor::new().map_err(failed)?),
        };
        context.decompress_to_buffer(compressed, raw).map_err(failed)
    })?;
    if raw.len() == raw_bytes {
        Ok(())
    } else {
        Err(Damage::Compression(format!("{} bytes came out where {raw_bytes} were expected", raw.len())))
    }
}

/// Runs `work` on every item, on up to `threads` threads; stops at the first error and returns it.
pub(crate) fn in_parallel<T: Sync>(items: &[T], threads: usize, work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            if let Err(error) = work(item) {
                next.store(items.len(), std::sync::atomic::Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    if threads.min(items.len()) <= 1 {
        return run();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(items.len())).map(|_| scope.spawn(run)).collect();
        threads.into_iter().try_for_each(|thread| join(thread.join()))
    })
}

/// The outcome of a thread; a panic in it goes on in the caller.
pub(crate) fn join<T>(outcome: std::thread::Result<T>) -> T {
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn list_sizes(store: &dyn Store, kind: FileKind) -> Result<Vec<(Id, u64)>> {
    let mut files = Vec::new();
    store.list(kind.folder(), &mut |entry| {
        // What is not named by a hash is not ours: left-overs of other programs' uploads, mostly.
        if let Some(id) = entry.name.rsplit('/').next().and_then(|name| name.parse().ok()) {
            files.push((id, entry.size_bytes));
        }
    })?;
    Ok(files)
}

fn list_ids(store: &dyn Store, kind: FileKind) -> Result<Vec<Id>> {
    Ok(list_sizes(store, kind)?.into_iter().map(|(id, _)| id).collect())
}

fn has_config(store: &dyn Store) -> Result<bool> {
    match store.size_bytes(CONFIG_NAME) {
        Ok(_) => Ok(true),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Data without a configuration was a repository: a new one would make it unreadable.
fn refuse_orphans(store: &dyn Store) -> Result<()> {
    for kind in [FileKind::Pack, FileKind::Index, FileKind::Snapshot] {
        if !list_ids(store, kind)?.is_empty() && !has_config(store)? {
            return Err(Error::Selection(format!(
                "{} holds {}s but no configuration: it was a repository, and a new one here would make them unreadable",
                store.location(),
                kind.noun(),
            )));
        }
    }
    Ok(())
}

fn read_key(store: &dyn Store, id: &Id) -> Result<KeyFile> {
    let bytes = store.get(&FileKind::Key.path(id))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::damaged(format!("key {id}"), error))
}

/// The master key, or nothing when the password is not this key's.
fn open_key(store: &dyn Store, id: &Id, password: &str) -> Result<Option<crypto::Key>> {
    let file = read_key(store, id)?;
    let bad = |reason: String| Error::BadKey { id: *id, reason };
    if file.kdf != "scrypt" {
        return Err(bad(format!("it uses {:?}, only scrypt is known", file.kdf)));
    }
    let params = KdfParams::new(file.n, file.r, file.p).map_err(|error| bad(error.to_string()))?;
    let Ok(json) = params.derive(password.as_bytes(), &file.salt).open(file.data) else { return Ok(None) };
    let master: MasterKey =
        serde_json::from_slice(&json).map_err(|error| Error::damaged(format!("key {id}"), error))?;
    match (master.encrypt.as_slice().try_into(), master.mac.k.as_slice().try_into(), master.mac.r.as_slice().try_into())
    {
        (Ok(encrypt), Ok(k), Ok(r)) => Ok(Some(crypto::Key::from_parts(encrypt, k, r))),
        _ => Err(bad("the master key in it has the wrong length".into())),
    }
}

fn write_key(store: &dyn Store, key: &crypto::Key, password: &str, params: KdfParams) -> Result<Id> {
    let json_error = |error| Error::damaged("the new key", error);
    let parts = key.parts();
    let master =
        MasterKey { mac: MacKey { k: parts.mac_k.to_vec(), r: parts.mac_r.to_vec() }, encrypt: parts.encrypt.to_vec() };
    let salt: [u8; 64] = rand::random();
    let data = params.derive(password.as_bytes(), &salt).seal(&serde_json::to_vec(&master).map_err(json_error)?);
    let Identity { hostname, username, .. } = Identity::current();
    let file = KeyFile {
        created: Timestamp::now(),
        username,
        hostname,
        kdf: "scrypt".into(),
        n: params.n(),
        r: params.r(),
        p: params.p(),
        salt: salt.to_vec(),
        data,
    };
    let bytes = serde_json::to_vec(&file).map_err(json_error)?;
    let id = Id::of(&bytes);
    store.put(&FileKind::Key.path(&id), &bytes)?;
    Ok(id)
}

#[cfg(test)]
mod tests;
