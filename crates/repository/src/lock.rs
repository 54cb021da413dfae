//! Locks: shared ones for who adds, exclusive ones for who removes; the same as restic's, so that both may
//! work on one repository.
//!
//! A lock is a file. Taking one is: look for others, write ours, look again. Storage that shows a file to
//! every reader once it is written (all that are supported do) makes one of two rivals see the other, so no
//! two conflicting locks are ever both taken. A lock is renewed every 5 minutes and is void 30 minutes after it was last
//! renewed; a holder that cannot renew it stops well before.
//!
//! A lock is stale, and removed by whoever it is in the way of, when it is void, or when its holder is certainly gone
//! (see `stale`).

mod stale;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_store::ErrorKind;
use jiff::Timestamp;

use self::stale::{Evidence, process_namespace, stale_reason};
pub use self::stale::{HolderIsGone, is_of_this_system};
use crate::error::Damage;
use crate::format::FileKind;
use crate::format::lock::LockFile;
use crate::identity::Identity;
use crate::{Error, Id, Monitor, Repository, Result};

/// How often a lock is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5 * 60);
/// After how long without renewal its holder stops: well before others may take it for void, after 30 minutes, clocks
/// being what they are.
const LOST_AFTER: Duration = Duration::from_secs(20 * 60);
/// How soon a failed renewal is tried again.
const RENEW_RETRY: Duration = Duration::from_secs(30);
/// The first wait for another's lock, doubled with every look…
const WAIT_FIRST: Duration = Duration::from_millis(200);
/// …up to this. A look is one listing: what stands in a lock is read once.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a lock lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Read, and add; others may do so, too.
    Shared,
    /// Remove; nobody else may hold any lock.
    Exclusive,
}

/// How a lock is taken.
#[derive(Debug, Clone, Default)]
pub struct LockOptions {
    /// How long to wait for others to finish. Default: not at all.
    pub wait: Duration,
    /// Who knows more of holders of locks than this process can see. Default: nobody.
    pub holder_is_gone: Option<HolderIsGone>,
}

/// A lock that was found to have no holder any more.
#[derive(Debug, Clone)]
pub struct StaleLock {
    /// The lock file.
    pub id: Id,
    /// What stood in it.
    pub lock: LockFile,
    /// Why it is stale.
    pub reason: String,
}

/// A lock that we hold; dropping it gives it back.
pub struct Lock {
    repository: Arc<Repository>,
    mode: LockMode,
    shared: Arc<State>,
    stop: Option<mpsc::Sender<()>>,
    renewer: Option<JoinHandle<()>>,
}

struct State {
    id: Mutex<Id>,
    lost: AtomicBool,
}

impl State {
    fn id(&self) -> Id {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The locks that this process holds: a lock with our process id that is not among them is a leftover of another
/// process that had the same number, as it happens in containers, where the number is mostly 1.
static HELD: Mutex<Vec<Id>> = Mutex::new(Vec::new());

impl Lock {
    /// Takes a lock, waiting for others as `options` allow; stale ones in the way are removed, and `monitor` told.
    pub fn acquire(
        repository: &Arc<Repository>,
        mode: LockMode,
        options: &LockOptions,
        monitor: &Monitor,
    ) -> Result<Self> {
        let deadline = Instant::now() + options.wait;
        let mut look = Look { repository, options, monitor, read: BTreeMap::new() };
        let mut pause = WAIT_FIRST;
        let mut told = None;
        loop {
            monitor.check()?;
            match Self::try_acquire(&mut look, mode) {
                Err(Error::Locked { lock, id }) if Instant::now() < deadline => {
                    let holder = (lock.hostname.clone(), lock.pid);
                    if told.replace(holder.clone()) != Some(holder) {
                        monitor.note(repository.location(), format!("{}: waiting", Error::Locked { lock, id }));
                    }
                    // Rivals that met must not meet again and again.
                    let jitter = pause.mul_f64(rand::random_range(0.5..1.0));
                    sleep_until((Instant::now() + jitter).min(deadline), monitor)?;
                    pause = (pause * 2).min(WAIT_MAX);
                }
                result => return result,
            }
        }
    }

    fn try_acquire(look: &mut Look<'_>, mode: LockMode) -> Result<Self> {
        look.check_others(mode, None)?;
        let repository = look.repository;
        let id = write_lock(repository, mode)?;
        if let Err(error) = look.check_others(mode, Some(id)) {
            forget_held(&id);
            repository.store().delete(&FileKind::Lock.path(&id))?;
            return Err(error);
        }
        let shared = Arc::new(State { id: Mutex::new(id), lost: AtomicBool::new(false) });
        let (stop, stopped) = mpsc::channel();
        let renewer = {
            let (repository, shared) = (Arc::clone(repository), Arc::clone(&shared));
            std::thread::Builder::new()
                .name("lock".into())
                .spawn(move || keep_renewed(&repository, mode, &shared, &stopped))
                .map_err(|error| Error::System { operation: "start a thread", reason: error.to_string() })?
        };
        Ok(Self { repository: Arc::clone(repository), mode, shared, stop: Some(stop), renewer: Some(renewer) })
    }

    /// Fails when the lock could not be kept.
    pub fn check(&self) -> Result<()> {
        if self.shared.lost.load(Ordering::Relaxed) {
            Err(Error::LockLost { reason: "it was removed by others or could not be renewed for 20 minutes".into() })
        } else {
            Ok(())
        }
    }

    pub(crate) fn check_exclusive(&self) -> Result<()> {
        self.check()?;
        match self.mode {
            LockMode::Exclusive => Ok(()),
            LockMode::Shared => Err(Error::LockLost { reason: "removing needs an exclusive lock".into() }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(renewer) = self.renewer.take() {
            let _ = renewer.join();
        }
        let id = self.shared.id();
        forget_held(&id);
        // If this fails the lock is stale by rule, as soon as this process ends.
        let _ = self.repository.store().delete(&FileKind::Lock.path(&id));
    }
}

fn forget_held(id: &Id) {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| held != id);
}

fn write_lock(repository: &Repository, mode: LockMode) -> Result<Id> {
    let Identity { hostname, username, uid, gid, pid } = Identity::current();
    let lock = LockFile {
        time: Timestamp::now(),
        exclusive: mode == LockMode::Exclusive,
        hostname,
        username,
        pid,
        uid,
        gid,
        process_namespace: process_namespace().cloned(),
    };
    let json = serde_json::to_vec(&lock).map_err(|error| Error::damaged("the new lock", error))?;
    // Held before it can be seen: a check by another thread of ours must not take it for a leftover.
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let id = repository.save_file(FileKind::Lock, &json)?;
    held.push(id);
    Ok(id)
}

fn keep_renewed(repository: &Repository, mode: LockMode, state: &State, stopped: &mpsc::Receiver<()>) {
    let mut renewed = Instant::now();
    let mut wait = RENEW_EVERY;
    while stopped.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
        match renew(repository, mode, state) {
            Ok(true) => {
                renewed = Instant::now();
                wait = RENEW_EVERY;
            }
            Ok(false) => return state.lost.store(true, Ordering::Relaxed),
            Err(_) if renewed.elapsed() > LOST_AFTER => return state.lost.store(true, Ordering::Relaxed),
            Err(_) => wait = RENEW_RETRY,
        }
    }
}

/// Replaces our lock file by a new one; false when somebody has removed ours.
fn renew(repository: &Repository, mode: LockMode, state: &State) -> Result<bool> {
    let old = state.id();
    let old_path = FileKind::Lock.path(&old);
    match repository.store().size_bytes(&old_path) {
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
        result => result?,
    };
    let new = write_lock(repository, mode)?;
    *state.id.lock().unwrap_or_else(PoisonError::into_inner) = new;
    repository.store().delete(&old_path)?;
    forget_held(&old);
    Ok(true)
}

/// Looks at the locks of others, again and again.
struct Look<'a> {
    repository: &'a Arc<Repository>,
    options: &'a LockOptions,
    monitor: &'a Monitor,
    /// What stands in the locks that were there at the last look: a file never changes.
    read: BTreeMap<Id, LockFile>,
}

impl Look<'_> {
    /// Fails with [`Error::Locked`] when a lock that is not stale is in the way of one of `mode`.
    fn check_others(&mut self, mode: LockMode, ours: Option<Id>) -> Result<()> {
        for (id, lock) in self.others(ours)? {
            let is_in_the_way = mode == LockMode::Exclusive || lock.exclusive;
            // To ask may cost a request.
            let asked = self.options.holder_is_gone.as_ref().filter(|_| is_in_the_way);
            if let Some(reason) = stale_reason(&id, &lock, Evidence::Certain(asked), Timestamp::now()) {
                self.repository.store().delete(&FileKind::Lock.path(&id))?;
                self.monitor.note(
                    format!("lock {}", id.short()),
                    format!("removed: {reason} (process {} of {} on {})", lock.pid, lock.username, lock.hostname),
                );
            } else if is_in_the_way {
                return Err(Error::Locked { lock: Box::new(lock), id });
            }
        }
        Ok(())
    }

    fn others(&mut self, ours: Option<Id>) -> Result<Vec<(Id, LockFile)>> {
        let mut locks = BTreeMap::new();
        for (id, size_bytes) in self.repository.list_sizes(FileKind::Lock)? {
            // An empty file is an upload that was cut off, on storage that shows such things; it locks nothing.
            if Some(id) == ours || size_bytes == 0 {
                continue;
            }
            let lock = match self.read.remove(&id) {
                Some(lock) => Some(lock),
                None => read_other(self.repository, &id)?,
            };
            locks.extend(lock.map(|lock| (id, lock)));
        }
        self.read.clone_from(&locks);
        Ok(locks.into_iter().collect())
    }
}

/// What stands in a lock; nothing, when it was given back since it was listed.
fn read_other(repository: &Repository, id: &Id) -> Result<Option<LockFile>> {
    match read_lock(repository, id) {
        Ok(lock) => Ok(Some(lock)),
        Err(Error::Store(error)) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(Error::Damaged { what, damage }) => Err(Error::Damaged {
            what: format!(
                "{what} (remove it with `holdfast repo unlock --remove-all` once nobody works on the repository)"
            ),
            damage,
        }),
        Err(error) => Err(error),
    }
}

fn read_lock(repository: &Repository, id: &Id) -> Result<LockFile> {
    let json = repository.load_file(FileKind::Lock, id)?;
    serde_json::from_slice(&json).map_err(|error| Error::damaged(format!("lock {id}"), Damage::Json(error)))
}

/// Removes stale locks, or with `all` every lock, and tells which. A person asks for this: a lock that does not say in
/// which numbering its process is, as restic's, is stale for it where this host has its name and no such process.
pub fn unlock(repository: &Repository, all: bool) -> Result<Vec<StaleLock>> {
    let mut removed = Vec::new();
    for (id, size_bytes) in repository.list_sizes(FileKind::Lock)? {
        let lock = read_lock(repository, &id);
        let reason = match &lock {
            Ok(lock) => stale_reason(&id, lock, Evidence::HostName, Timestamp::now()),
            Err(Error::Store(error)) if error.kind == ErrorKind::NotFound => continue,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(_) if size_bytes == 0 => Some("it is empty".into()),
            Err(_) => None,
        };
        let reason = match (reason, all) {
            (Some(reason), _) => reason,
            (None, true) => "all were to be removed".into(),
            (None, false) => continue,
        };
        repository.store().delete(&FileKind::Lock.path(&id))?;
        let unknown = || LockFile {
            time: Timestamp::UNIX_EPOCH,
            exclusive: false,
            hostname: String::new(),
            username: String::new(),
            pid: 0,
            uid: 0,
            gid: 0,
            process_namespace: None,
        };
        removed.push(StaleLock { id, lock: lock.unwrap_or_else(|_| unknown()), reason });
    }
    Ok(removed)
}

fn sleep_until(end: Instant, monitor: &Monitor) -> Result<()> {
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        monitor.check()?;
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    monitor.check()
}
