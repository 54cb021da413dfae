//! Tries again what may work later: bounded in number and in time, waiting longer each time; and not at all once
//! nobody wants the answer any more.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Cancel, Entry, Error, ErrorKind, Result, Store};

/// How long to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, the first included. Default: 50, more than there is time for.
    pub attempts_max: u32,
    /// No new try begins later than this after the first. Default: 15 minutes, as in restic.
    pub elapsed_max: Duration,
    /// The first wait, doubled with every try. Default: 500 ms.
    pub delay_first: Duration,
    /// The longest wait. Default: 1 minute.
    pub delay_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts_max: 50,
            elapsed_max: Duration::from_secs(15 * 60),
            delay_first: Duration::from_millis(500),
            delay_max: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// The wait after the failed try `attempt` (the first is 1): `chance`, of 0 to 1, chooses from its half
    /// to the whole, so that clients that failed together do not come back together.
    fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let doubled = 2u32.saturating_pow(attempt.saturating_sub(1));
        let longest = self.delay_first.saturating_mul(doubled).min(self.delay_max);
        longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// Time and chance, for tests to replace.
pub trait Pause: Send + Sync {
    /// The time now.
    fn now(&self) -> Instant;
    /// Waits, no longer than until `cancel` is.
    fn sleep(&self, delay: Duration, cancel: &Cancel);
    /// A random number from 0 to 1.
    fn chance(&self) -> f64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemPause;

impl Pause for SystemPause {
    fn now(&self) -> Instant {
        Instant::now()
    }
    fn sleep(&self, delay: Duration, cancel: &Cancel) {
        let end = Instant::now() + delay;
        while !cancel.is_cancelled()
            && let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            std::thread::sleep(left.min(Cancel::LOOK_EVERY));
        }
    }
    fn chance(&self) -> f64 {
        rand::random()
    }
}

/// A store that repeats operations that failed with [`ErrorKind::Unavailable`]; all other failures, and
/// the last one, are returned as they are.
///
/// A put whose answer was lost may have been done. So one that finds the object on a later try compares
/// it: if it holds these very bytes the put has succeeded. A listing is passed on only when it is
/// complete, which costs the memory for its entries.
#[derive(Debug)]
pub struct Retry<S, P = SystemPause> {
    inner: S,
    policy: RetryPolicy,
    pause: P,
    cancel: Cancel,
}

impl<S: Store> Retry<S> {
    /// Retries the operations of `inner`.
    pub fn new(inner: S, policy: RetryPolicy) -> Self {
        Self::with_pause(inner, policy, SystemPause)
    }
}

impl<S: Store, P: Pause> Retry<S, P> {
    /// The same with a clock of the caller's.
    pub fn with_pause(inner: S, policy: RetryPolicy, pause: P) -> Self {
        Self { inner, policy, pause, cancel: Cancel::new() }
    }

    /// The same, ended by `cancel`.
    #[must_use]
    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// As [`Self::retry`], of what only reads: it is not begun once nobody wants it.
    fn read<T>(&self, operation: &'static str, name: &str, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        self.retry(|_| match self.cancel.is_cancelled() {
            true => Err(Cancel::error(operation, format!("{}/{name}", self.inner.location()))),
            false => act(),
        })
    }

    fn put_by(&self, name: &str, data: &[u8], put: impl Fn() -> Result<()>) -> Result<()> {
        self.retry(|attempt| match put() {
            Err(error) if error.kind == ErrorKind::AlreadyExists && attempt > 1 => {
                let is_ours = self.inner.size_bytes(name)? == data.len() as u64 && self.inner.get(name)? == data;
                if is_ours { Ok(()) } else { Err(error) }
            }
            done => done,
        })
    }

    /// Calls `act` with the number of the try, from 1.
    fn retry<T>(&self, mut act: impl FnMut(u32) -> Result<T>) -> Result<T> {
        let start = self.pause.now();
        let mut attempt = 1;
        loop {
            let error = match act(attempt) {
                Err(error) if error.kind == ErrorKind::Unavailable => error,
                done => return done,
            };
            let delay = self.policy.delay(attempt, self.pause.chance());
            let elapsed = self.pause.now().saturating_duration_since(start);
            if attempt >= self.policy.attempts_max || elapsed + delay > self.policy.elapsed_max {
                return Err(gave_up(error, attempt));
            }
            self.pause.sleep(delay, &self.cancel);
            if self.cancel.is_cancelled() {
                return Err(Cancel::error(error.operation, error.name));
            }
            attempt += 1;
        }
    }
}

/// Says in the error how often it was tried.
fn gave_up(error: Error, attempts: u32) -> Error {
    match attempts {
        1 => error,
        _ => Error { source: format!("{} (tried {attempts} times)", error.source).into(), ..error },
    }
}

impl<S: Store, P: Pause> Store for Retry<S, P> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn put(&self, name: &str, data: &[u8]) -> Result<()> {
        self.put_by(name, data, || self.inner.put(name, data))
    }

    fn put_shared(&self, name: &str, data: Bytes) -> Result<()> {
        self.put_by(name, &data, || self.inner.put_shared(name, data.clone()))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.read("read", name, || self.inner.get(name))
    }

    fn get_range(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read("read", name, || self.inner.get_range(name, offset, buffer))
    }

    fn size_bytes(&self, name: &str) -> Result<u64> {
        self.read("look up", name, || self.inner.size_bytes(name))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Entry)) -> Result<()> {
        let entries = self.read("list", prefix, || {
            let mut entries = Vec::new();
            self.inner.list(prefix, &mut |entry| entries.push(entry))?;
            Ok(entries)
        })?;
        entries.into_iter().for_each(visit);
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.retry(|_| self.inner.delete(name))
    }

    fn remove_leftovers(&self, age: Duration) -> Result<u64> {
        self.read("clean up", "", || self.inner.remove_leftovers(age))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{Fault, FaultyStore, MemoryStore, Operation, Rule};

    /// A clock that only sleeping moves.
    struct Imagined {
        start: Instant,
        slept: Mutex<Vec<Duration>>,
        cancelled_in_sleep: Option<usize>,
        chance: f64,
    }

    impl Pause for &Imagined {
        fn now(&self) -> Instant {
            self.start + self.slept.lock().unwrap().iter().sum::<Duration>()
        }
        fn sleep(&self, delay: Duration, cancel: &Cancel) {
            let mut slept = self.slept.lock().unwrap();
            slept.push(delay);
            if Some(slept.len()) == self.cancelled_in_sleep {
                cancel.cancel();
            }
        }
        fn chance(&self) -> f64 {
            self.chance
        }
    }

    fn imagined() -> Imagined {
        Imagined { start: Instant::now(), slept: Mutex::default(), cancelled_in_sleep: None, chance: 1.0 }
    }

    fn policy(attempts_max: u32) -> RetryPolicy {
        RetryPolicy { attempts_max, ..RetryPolicy::default() }
    }

    fn faulty() -> FaultyStore<MemoryStore> {
        FaultyStore::new(MemoryStore::new())
    }

    const LATER: Fault = Fault::Fail(ErrorKind::Unavailable);

    #[test]
    fn conforms() {
        crate::conformance::check(|| Retry::new(MemoryStore::new(), RetryPolicy::default()));
    }

    #[test]
    fn waits_longer_each_time_and_gets_through() {
        let (store, clock) = (faulty(), imagined());
        store.inject(Rule::any(LATER).times(9));
        let retry = Retry::with_pause(&store, policy(10), &clock);
        retry.put("a", b"x").unwrap();
        assert_eq!(store.count(Operation::Put), 10);
        let slept: Vec<u128> = clock.slept.lock().unwrap().iter().map(Duration::as_millis).collect();
        assert_eq!(slept, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn jitter_takes_up_to_half() {
        let policy = policy(10);
        assert_eq!(policy.delay(1, 0.0), Duration::from_millis(250));
        assert_eq!(policy.delay(3, 0.5), Duration::from_millis(1500));
        assert_eq!(policy.delay(u32::MAX, 1.0), policy.delay_max);
    }

    #[test]
    fn gives_up_after_the_last_try() {
        let (store, clock) = (faulty(), imagined());
        store.inject(Rule::any(LATER));
        let retry = Retry::with_pause(&store, policy(3), &clock);
        let error = retry.get("a").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.source.to_string(), "injected fault (tried 3 times)");
        assert_eq!(store.count(Operation::Get), 3);
    }

    #[test]
    fn no_try_follows_once_it_is_cancelled() {
        let store = faulty();
        store.inject(Rule::any(LATER));
        let clock = Imagined { cancelled_in_sleep: Some(2), ..imagined() };
        let retry = Retry::with_pause(&store, policy(10), &clock);
        let error = retry.put("a", b"x").unwrap_err();
        assert_eq!((error.kind, error.operation), (ErrorKind::Interrupted, "write"));
        assert_eq!(store.count(Operation::Put), 2);
        // Reading is not begun; giving back a lock is tried once.
        assert_eq!(retry.get("a").unwrap_err().kind, ErrorKind::Interrupted);
        assert_eq!(retry.list("", &mut |_| {}).unwrap_err().kind, ErrorKind::Interrupted);
        assert_eq!(store.count(Operation::Get) + store.count(Operation::List), 0);
        assert_eq!(retry.delete("a").unwrap_err().kind, ErrorKind::Interrupted);
        store.clear();
        retry.delete("a").unwrap();
        assert_eq!(store.count(Operation::Delete), 2);
    }

    #[test]
    fn a_wait_ends_when_it_is_cancelled() {
        let (store, cancel) = (faulty(), Cancel::new());
        store.inject(Rule::any(LATER));
        let policy = RetryPolicy { delay_first: Duration::from_secs(3600), ..RetryPolicy::default() };
        let policy = RetryPolicy { delay_max: policy.delay_first, elapsed_max: 2 * policy.delay_first, ..policy };
        let retry = Retry::new(&store, policy).cancelled_by(cancel.clone());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| retry.get("a").unwrap_err());
            while store.count(Operation::Get) == 0 {
                std::thread::yield_now();
            }
            cancel.cancel();
            assert_eq!(waiting.join().unwrap().kind, ErrorKind::Interrupted);
        });
        assert_eq!(store.count(Operation::Get), 1);
    }

    #[test]
    fn gives_up_when_the_time_is_over() {
        let (store, clock) = (faulty(), imagined());
        store.inject(Rule::any(LATER));
        let limited = RetryPolicy { elapsed_max: Duration::from_secs(5), ..policy(1000) };
        Retry::with_pause(&store, limited, &clock).delete("a").unwrap_err();
        // 0.5 + 1 + 2 s; another 4 s would be too late.
        assert_eq!(store.count(Operation::Delete), 4);
    }

    #[test]
    fn an_outage_is_waited_out_for_as_long_as_is_said() {
        for (chance, least) in [(0.0, 14 * 60 + 30), (1.0, 14 * 60)] {
            let (store, clock) = (faulty(), Imagined { chance, ..imagined() });
            store.inject(Rule::any(LATER));
            // Refused at once, as by a server that is not there: only the waits take time.
            let retry = Retry::with_pause(&store, RetryPolicy::default(), &clock);
            retry.get("a").unwrap_err();
            let waited: Duration = clock.slept.lock().unwrap().iter().sum();
            let most = RetryPolicy::default().elapsed_max;
            assert!(waited >= Duration::from_secs(least) && waited <= most, "{waited:?} with chance {chance}");
        }
    }

    #[test]
    fn only_what_may_work_later_is_tried_again() {
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::AlreadyExists,
            ErrorKind::Truncated,
            ErrorKind::PermissionDenied,
            ErrorKind::Full,
            ErrorKind::InvalidConfig,
            ErrorKind::Other,
        ] {
            let (store, clock) = (faulty(), imagined());
            store.inject(Rule::any(Fault::Fail(kind)));
            let retry = Retry::with_pause(&store, policy(10), &clock);
            assert_eq!(retry.put("a", b"x").unwrap_err().kind, kind);
            assert_eq!(retry.get("a").unwrap_err().kind, kind);
            assert_eq!(retry.list("", &mut |_| {}).unwrap_err().kind, kind);
            assert_eq!(store.count_all(), 3);
        }
    }

    #[test]
    fn a_put_whose_answer_was_lost_has_succeeded() {
        let (store, clock) = (faulty(), imagined());
        store.inject(Rule::on(Operation::Put, Fault::FailAfter(ErrorKind::Unavailable)).times(1));
        // The comparison may have to be tried again as well.
        store.inject(Rule::on(Operation::Get, LATER).times(1));
        let retry = Retry::with_pause(&store, policy(10), &clock);
        retry.put("a", b"mine").unwrap();
        assert_eq!(store.inner().get("a").unwrap(), b"mine");
    }

    #[test]
    fn a_put_that_finds_other_bytes_has_not() {
        for torn in [Fault::Torn { after: 2 }, Fault::Torn { after: 0 }] {
            let (store, clock) = (faulty(), imagined());
            store.inject(Rule::on(Operation::Put, torn).times(1));
            let retry = Retry::with_pause(&store, policy(10), &clock);
            assert_eq!(retry.put("a", b"mine").unwrap_err().kind, ErrorKind::AlreadyExists);
        }
        let (store, clock) = (faulty(), imagined());
        store.inner().put("a", b"mine").unwrap();
        let retry = Retry::with_pause(&store, policy(10), &clock);
        // Without a failure before, the same bytes are somebody else's.
        assert_eq!(retry.put("a", b"mine").unwrap_err().kind, ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_listing_that_broke_off_is_not_seen_twice() {
        let (store, clock) = (faulty(), imagined());
        for i in 0..5 {
            store.put(&format!("locks/{i}"), b"").unwrap();
        }
        store.inject(Rule::on(Operation::List, Fault::Torn { after: 3 }).times(2));
        let mut names = Vec::new();
        let retry = Retry::with_pause(&store, policy(10), &clock);
        retry.list("locks", &mut |entry| names.push(entry.name)).unwrap();
        assert_eq!(names.len(), 5);

        store.inject(Rule::on(Operation::List, Fault::Torn { after: 3 }));
        let retry = Retry::with_pause(&store, policy(2), &clock);
        retry.list("locks", &mut |entry| panic!("{entry:?} of a listing that failed")).unwrap_err();
    }
}
