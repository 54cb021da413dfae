//! A store that fails on purpose: the test aid for everything that writes to or reads from a store.
//!
//! Rules say which operations go wrong and how; the first rule that applies wins. Everything is
//! deterministic: the same rules and the same calls give the same failures.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Entry, Error, ErrorKind, Result, Store};

/// What can be asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Store::put`]
    Put,
    /// [`Store::get`]
    Get,
    /// [`Store::get_range`]
    GetRange,
    /// [`Store::size_bytes`]
    Size,
    /// [`Store::list`]
    List,
    /// [`Store::delete`]
    Delete,
}

impl Operation {
    const ALL: [Self; 6] = [Self::Put, Self::Get, Self::GetRange, Self::Size, Self::List, Self::Delete];

    fn verb(self) -> &'static str {
        match self {
            Self::Put => "write",
            Self::Get | Self::GetRange => "read",
            Self::Size => "look up",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has done nothing.
    Fail(ErrorKind),
    /// It is carried out in full, and then reported as failed: an answer lost on the way.
    FailAfter(ErrorKind),
    /// It stops half-way. A put leaves the object's first bytes under its name and fails; a get returns
    /// only so many bytes *and succeeds*; a get of a range is [`ErrorKind::Truncated`]; a listing fails
    /// with [`ErrorKind::Unavailable`] after so many entries; the others fail before they do anything.
    Torn {
        /// How many bytes, or entries of a listing, still come through.
        after: usize,
    },
    /// A read succeeds with one bit flipped, whose place follows from the object's length. The others,
    /// and reads of nothing, are not touched.
    FlipBit,
}

/// Which operations go wrong, and how.
#[derive(Debug, Clone)]
pub struct Rule {
    operations: Vec<Operation>,
    folder: String,
    skip: u64,
    times: u64,
    one_in: u64,
    seed: u64,
    fault: Fault,
    /// Operations that this rule was asked about and that matched, whether it struck or not.
    seen: u64,
}

impl Rule {
    /// Every operation, from now on.
    pub fn any(fault: Fault) -> Self {
        Self {
            operations: Operation::ALL.to_vec(),
            folder: String::new(),
            skip: 0,
            times: u64::MAX,
            one_in: 1,
            seed: 0,
            fault,
            seen: 0,
        }
    }

    /// Every operation of one kind, from now on.
    pub fn on(operation: Operation, fault: Fault) -> Self {
        Self { operations: vec![operation], ..Self::any(fault) }
    }

    /// Everything that changes the store: it is mounted read-only.
    pub fn read_only() -> Self {
        Self { operations: vec![Operation::Put, Operation::Delete], ..Self::any(Fault::Fail(ErrorKind::Full)) }
    }

    /// Only names that start with `start`, for example `data/`.
    #[must_use]
    pub fn under(mut self, start: &str) -> Self {
        self.folder = start.to_owned();
        self
    }

    /// Lets the first `operations` that match pass.
    #[must_use]
    pub fn skip(mut self, operations: u64) -> Self {
        self.skip = operations;
        self
    }

    /// Ends after `operations` more; without it a rule holds until [`FaultyStore::clear`].
    #[must_use]
    pub fn times(mut self, operations: u64) -> Self {
        self.times = operations;
        self
    }

    /// Strikes one operation in `n` at random, always the same ones for the same `seed`.
    #[must_use]
    pub fn one_in(mut self, n: u64, seed: u64) -> Self {
        self.one_in = n.max(1);
        self.seed = seed;
        self
    }

    fn strikes(&mut self, operation: Operation, name: &str) -> bool {
        if !self.operations.contains(&operation) || !name.starts_with(&self.folder) {
            return false;
        }
        let number = self.seen;
        self.seen += 1;
        number >= self.skip
            && number - self.skip < self.times
            && mix(self.seed ^ mix(number)).is_multiple_of(self.one_in)
    }
}

/// The finaliser of SplitMix64: spreads a counter over all 64 bits.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A store around another that fails as its rules say, and counts what is asked of it.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    counts: [u64; Operation::ALL.len()],
    space_left_bytes: Option<u64>,
}

impl<S: Store> FaultyStore<S> {
    /// A store that works, until a rule is added.
    pub fn new(inner: S) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// Adds a rule behind those already there.
    pub fn inject(&self, rule: Rule) {
        self.state().rules.push(rule);
    }

    /// Takes `bytes` more and is then full: a put that does not fit fails with [`ErrorKind::Full`].
    pub fn full_after(&self, bytes: u64) {
        self.state().space_left_bytes = Some(bytes);
    }

    /// Works again: no rules, no limit of space. The counts go on.
    pub fn clear(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.space_left_bytes = None;
    }

    /// How often `operation` was asked for, failures included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts[operation as usize]
    }

    /// How many operations were asked for in all, failures included.
    pub fn count_all(&self) -> u64 {
        self.state().counts.iter().sum()
    }

    /// The store inside, which never fails on purpose.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the operation and asks every rule, so that each keeps its own count.
    fn fault(&self, operation: Operation, name: &str) -> Option<Fault> {
        let mut state = self.state();
        state.counts[operation as usize] += 1;
        let mut fault = None;
        for rule in &mut state.rules {
            if rule.strikes(operation, name) {
                fault = fault.or(Some(rule.fault));
            }
        }
        fault
    }

    fn error(&self, kind: ErrorKind, operation: Operation, name: &str) -> Error {
        Error::new(kind, operation.verb(), format!("{}/{name}", self.inner.location()), "injected fault")
    }

    /// The operations that can only be done or not done.
    fn whole<T>(&self, operation: Operation, name: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.fault(operation, name) {
            None | Some(Fault::FlipBit) => act(),
            Some(Fault::Fail(kind)) => Err(self.error(kind, operation, name)),
            Some(Fault::FailAfter(kind)) => {
                act()?;
                Err(self.error(kind, operation, name))
            }
            Some(Fault::Torn { .. }) => Err(self.error(ErrorKind::Unavailable, operation, name)),
        }
    }
}

fn flip_bit(data: &mut [u8]) {
    let place = mix(data.len() as u64);
    if !data.is_empty() {
        data[(place % data.len() as u64) as usize] ^= 1 << (place >> 61);
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn put(&self, name: &str, data: &[u8]) -> Result<()> {
        let operation = Operation::Put;
        match self.fault(operation, name) {
            Some(Fault::Fail(kind)) => return Err(self.error(kind, operation, name)),
            Some(Fault::Torn { after }) => {
                self.inner.put(name, &data[..after.min(data.len())])?;
                return Err(self.error(ErrorKind::Unavailable, operation, name));
            }
            Some(Fault::FailAfter(kind)) => {
                self.inner.put(name, data)?;
                return Err(self.error(kind, operation, name));
            }
            None | Some(Fault::FlipBit) => {}
        }
        if let Some(space) = &mut self.state().space_left_bytes {
            match space.checked_sub(data.len() as u64) {
                Some(left) => *space = left,
                None => return Err(self.error(ErrorKind::Full, operation, name)),
            }
        }
        self.inner.put(name, data)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        let operation = Operation::Get;
        match self.fault(operation, name) {
            Some(Fault::Fail(kind) | Fault::FailAfter(kind)) => Err(self.error(kind, operation, name)),
            Some(Fault::Torn { after }) => {
                let mut data = self.inner.get(name)?;
                data.truncate(after);
                Ok(data)
            }
            Some(Fault::FlipBit) => {
                let mut data = self.inner.get(name)?;
                flip_bit(&mut data);
                Ok(data)
            }
            None => self.inner.get(name),
        }
    }

    fn get_range(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let operation = Operation::GetRange;
        match self.fault(operation, name) {
            Some(Fault::Fail(kind) | Fault::FailAfter(kind)) => Err(self.error(kind, operation, name)),
            Some(Fault::Torn { .. }) => Err(self.error(ErrorKind::Truncated, operation, name)),
            Some(Fault::FlipBit) => {
                self.inner.get_range(name, offset, buffer)?;
                flip_bit(buffer);
                Ok(())
            }
            None => self.inner.get_range(name, offset, buffer),
        }
    }

    fn size_bytes(&self, name: &str) -> Result<u64> {
        self.whole(Operation::Size, name, || self.inner.size_bytes(name))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Entry)) -> Result<()> {
        let operation = Operation::List;
        // A folder is named by its objects' common start, so that `under("data/")` means it too.
        match self.fault(operation, &format!("{prefix}/")) {
            Some(Fault::Fail(kind)) => Err(self.error(kind, operation, prefix)),
            Some(Fault::FailAfter(kind)) => {
                self.inner.list(prefix, visit)?;
                Err(self.error(kind, operation, prefix))
            }
            Some(Fault::Torn { after }) => {
                let mut left = after;
                self.inner.list(prefix, &mut |entry| {
                    if left > 0 {
                        left -= 1;
                        visit(entry);
                    }
                })?;
                Err(self.error(ErrorKind::Unavailable, operation, prefix))
            }
            None | Some(Fault::FlipBit) => self.inner.list(prefix, visit),
        }
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.whole(Operation::Delete, name, || self.inner.delete(name))
    }

    fn remove_leftovers(&self, age: Duration) -> Result<u64> {
        self.inner.remove_leftovers(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;

    fn faulty() -> FaultyStore<MemoryStore> {
        FaultyStore::new(MemoryStore::new())
    }

    fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
        result.unwrap_err().kind
    }

    #[test]
    fn fails_exactly_the_operation_named() {
        let store = faulty();
        store.inject(Rule::on(Operation::Put, Fault::Fail(ErrorKind::Full)).under("data/").skip(1).times(1));
        store.put("data/a", b"1").unwrap();
        store.put("index/a", b"1").unwrap();
        assert_eq!(kind(store.put("data/b", b"2")), ErrorKind::Full);
        assert_eq!(kind(store.inner().get("data/b")), ErrorKind::NotFound);
        store.put("data/b", b"2").unwrap();
        assert_eq!(store.count(Operation::Put), 4);
        assert_eq!(store.count_all(), 4);
    }

    #[test]
    fn an_answer_lost_leaves_the_object() {
        let store = faulty();
        store.inject(Rule::any(Fault::FailAfter(ErrorKind::Unavailable)).times(1));
        assert_eq!(kind(store.put("a", b"whole")), ErrorKind::Unavailable);
        assert_eq!(store.get("a").unwrap(), b"whole");
    }

    #[test]
    fn torn_operations_stop_half_way() {
        let store = faulty();
        store.put("a", b"whole").unwrap();
        store.put("b", b"other").unwrap();
        store.inject(Rule::any(Fault::Torn { after: 1 }));
        assert_eq!(kind(store.put("c", b"torn")), ErrorKind::Unavailable);
        assert_eq!(store.inner().get("c").unwrap(), b"t");
        assert_eq!(store.get("a").unwrap(), b"w");
        assert_eq!(kind(store.get_range("a", 0, &mut [0; 3])), ErrorKind::Truncated);
        let mut seen = 0;
        assert_eq!(kind(store.list("", &mut |_| seen += 1)), ErrorKind::Unavailable);
        assert_eq!(seen, 1);
        store.clear();
        assert_eq!(store.get("a").unwrap(), b"whole");
    }

    #[test]
    fn one_bit_differs() {
        let store = faulty();
        store.put("a", &[0; 100]).unwrap();
        store.inject(Rule::any(Fault::FlipBit));
        let bits: u32 = store.get("a").unwrap().iter().map(|b| b.count_ones()).sum();
        assert_eq!(bits, 1);
        let mut buffer = [0; 10];
        store.get_range("a", 5, &mut buffer).unwrap();
        assert_eq!(buffer.iter().map(|b| b.count_ones()).sum::<u32>(), 1);
    }

    #[test]
    fn full_and_read_only() {
        let store = faulty();
        store.full_after(5);
        store.put("a", b"1234").unwrap();
        assert_eq!(kind(store.put("b", b"12")), ErrorKind::Full);
        store.put("b", b"1").unwrap();
        store.clear();
        store.inject(Rule::read_only());
        assert_eq!(kind(store.put("c", b"")), ErrorKind::Full);
        assert_eq!(kind(store.delete("a")), ErrorKind::Full);
        assert_eq!(store.get("a").unwrap(), b"1234");
    }

    #[test]
    fn chance_follows_the_seed() {
        let failures = |seed| -> Vec<bool> {
            let store = faulty();
            store.put("a", b"").unwrap();
            store.inject(Rule::any(Fault::Fail(ErrorKind::Unavailable)).one_in(4, seed));
            (0..400).map(|_| store.get("a").is_err()).collect()
        };
        assert_eq!(failures(1), failures(1));
        assert_ne!(failures(1), failures(2));
        let struck = failures(7).iter().filter(|failed| **failed).count();
        assert!((60..140).contains(&struck), "{struck} of 400");
    }
}
