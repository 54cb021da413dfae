//! A store in memory, for tests: what a real store promises, without a disk.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Entry, Error, ErrorKind, Result, Store, name};

/// A store that lives as long as its last clone; clones share the objects.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: Arc<RwLock<BTreeMap<String, Arc<[u8]>>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy that later changes of this store do not touch: "the repository as it was at this moment".
    pub fn snapshot(&self) -> Self {
        Self { objects: Arc::new(RwLock::new(self.read().clone())) }
    }

    /// Puts `data` in the place of an object, as damage or a meddling hand would.
    pub fn overwrite(&self, name: &str, data: &[u8]) {
        self.write().insert(name.to_owned(), data.into());
    }

    // No panic happens while the lock is held, and the map is whole even if one did.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<[u8]>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Arc<[u8]>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, operation: &'static str, name: &str) -> Result<Arc<[u8]>> {
        name::check(operation, name)?;
        let object = self.read().get(name).cloned();
        object.ok_or_else(|| error(ErrorKind::NotFound, operation, name, "no such object"))
    }
}

impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, name: &str, data: &[u8]) -> Result<()> {
        name::check("write", name)?;
        let mut objects = self.write();
        if objects.contains_key(name) {
            return Err(error(ErrorKind::AlreadyExists, "write", name, "the object exists"));
        }
        objects.insert(name.to_owned(), data.into());
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.object("read", name)?.to_vec())
    }

    fn get_range(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let object = self.object("read", name)?;
        let range = usize::try_from(offset).ok().and_then(|start| object.get(start..start.checked_add(buffer.len())?));
        match range {
            Some(bytes) => buffer.copy_from_slice(bytes),
            None => {
                let why = format!("the object has only {} bytes", object.len());
                return Err(error(ErrorKind::Truncated, "read", name, why));
            }
        }
        Ok(())
    }

    fn size_bytes(&self, name: &str) -> Result<u64> {
        Ok(self.object("look up", name)?.len() as u64)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Entry)) -> Result<()> {
        name::check_folder(prefix)?;
        // Collected first: `visit` may use the store.
        let entries: Vec<Entry> = self
            .read()
            .iter()
            .filter(|(name, _)| name::is_in_folder(name, prefix))
            .map(|(name, data)| Entry { name: name.clone(), size_bytes: data.len() as u64 })
            .collect();
        entries.into_iter().for_each(visit);
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<()> {
        name::check("delete", name)?;
        self.write().remove(name);
        Ok(())
    }
}

fn error(
    kind: ErrorKind,
    operation: &'static str,
    name: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(kind, operation, format!("memory/{name}"), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::conformance::check(MemoryStore::new);
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let store = MemoryStore::new();
        store.put("a", b"1").unwrap();
        let before = store.snapshot();
        store.overwrite("a", b"2");
        assert_eq!(before.get("a").unwrap(), b"1");
        assert_eq!(store.clone().get("a").unwrap(), b"2");
    }
}
