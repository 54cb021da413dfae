//! From a password to a key: scrypt, with the limits that keep a hostile key file from eating the machine.

use std::time::{Duration, Instant};

use super::Key;

/// Most memory a key file may make us take.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Most work (`N·r·p`) a key file may make us do: some 15 seconds on one core of 2020, thirty times what restic and
/// Holdfast write into theirs.
const WORK_MAX: u64 = 1 << 25;
/// The block size that everyone uses.
const R: u32 = 8;
/// The least `N` that [`KdfParams::calibrate`] returns, however slow the machine.
const LOG_N_MIN: u8 = 14;

/// scrypt's cost, as a key file states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    log_n: u8,
    r: u32,
    p: u32,
}

/// Why a key file's scrypt parameters are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    /// scrypt does not define these.
    #[error("scrypt parameters N={n}, r={r}, p={p} are invalid (N must be a power of two above 1, r and p at least 1)")]
    Invalid {
        /// Memory and time cost.
        n: u64,
        /// Block size.
        r: u32,
        /// Parallelism.
        p: u32,
    },
    /// They would take more memory or time than any key file in good faith asks for.
    #[error(
        "scrypt parameters N={n}, r={r}, p={p} ask for more than {} MiB of memory or too much time; \
         the key file is damaged or hostile",
        MEMORY_BYTES_MAX >> 20
    )]
    TooExpensive {
        /// Memory and time cost.
        n: u64,
        /// Block size.
        r: u32,
        /// Parallelism.
        p: u32,
    },
}

impl KdfParams {
    /// Accepts what a key file states.
    pub fn new(n: u64, r: u32, p: u32) -> Result<Self, KdfError> {
        if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
            return Err(KdfError::Invalid { n, r, p });
        }
        let (wide_n, wide_r, wide_p) = (u128::from(n), u128::from(r), u128::from(p));
        let memory = 128 * wide_r * (wide_n + wide_p);
        if memory > u128::from(MEMORY_BYTES_MAX) || wide_n * wide_r * wide_p > u128::from(WORK_MAX) {
            return Err(KdfError::TooExpensive { n, r, p });
        }
        Ok(Self { log_n: n.trailing_zeros() as u8, r, p })
    }

    /// Parameters that take about `target` on this machine within `memory_bytes`, found by timing a small run.
    /// Takes some 30 ms; restic uses 500 ms and 60 MiB.
    pub fn calibrate(target: Duration, memory_bytes: u64) -> Self {
        const PROBE_LOG_N: u8 = 13;
        let probe = Self { log_n: PROBE_LOG_N, r: R, p: 1 };
        let start = Instant::now();
        probe.derive(b"calibration", b"calibration");
        Self::scaled(start.elapsed(), PROBE_LOG_N, target, memory_bytes.min(MEMORY_BYTES_MAX))
    }

    /// The largest `N` that fits memory and time, then as many rounds (`p`) as fit the time.
    fn scaled(probe: Duration, probe_log_n: u8, target: Duration, memory_bytes: u64) -> Self {
        let cost = |log_n: u8| probe.as_nanos().max(1) << (log_n - probe_log_n);
        let memory = |log_n: u8| (128 * u64::from(R)) << log_n;
        let mut log_n = LOG_N_MIN;
        while memory(log_n + 1) <= memory_bytes && cost(log_n + 1) <= target.as_nanos() {
            log_n += 1;
        }
        let p_max = WORK_MAX / (u64::from(R) << log_n);
        let p = (target.as_nanos() / cost(log_n)).clamp(1, u128::from(p_max)) as u32;
        Self { log_n, r: R, p }
    }

    /// `N`, the memory and time cost.
    pub fn n(self) -> u64 {
        1 << self.log_n
    }

    /// `r`, the block size.
    pub fn r(self) -> u32 {
        self.r
    }

    /// `p`, the number of rounds.
    pub fn p(self) -> u32 {
        self.p
    }

    /// The key that belongs to `password` and the key file's `salt`.
    pub fn derive(self, password: &[u8], salt: &[u8]) -> Key {
        let mut out = [0; 64];
        #[expect(clippy::expect_used, reason = "`new` and `scaled` make only parameters that scrypt takes")]
        {
            let params = scrypt::Params::new(self.log_n, self.r, self.p).expect("checked parameters");
            scrypt::scrypt(password, salt, &params, &mut out).expect("64 bytes is a length scrypt gives");
        }
        let (mut encrypt, mut mac_k, mut mac_r) = ([0; 32], [0; 16], [0; 16]);
        encrypt.copy_from_slice(&out[..32]);
        mac_k.copy_from_slice(&out[32..48]);
        mac_r.copy_from_slice(&out[48..]);
        Key::from_parts(&encrypt, &mac_k, &mac_r)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_in_bounds_are_taken_and_others_refused() {
        let taken = |n, r, p| KdfParams::new(n, r, p).map(|k| (k.n(), k.r(), k.p()));
        assert_eq!(taken(32768, 8, 5), Ok((32768, 8, 5)));
        assert_eq!(taken(2, 1, 1), Ok((2, 1, 1)));
        for (n, r, p) in [(0, 8, 1), (1, 8, 1), (3, 8, 1), (32767, 8, 1), (32768, 0, 1), (32768, 8, 0)] {
            assert_eq!(taken(n, r, p), Err(KdfError::Invalid { n, r, p }));
        }
        for (n, r, p) in [
            (1 << 63, 8, 1),
            (1 << 20, 8, 1),
            (2, u32::MAX, 1),
            (2, 1, u32::MAX),
            (2, u32::MAX, u32::MAX),
            (1 << 15, 8, 1000),
        ] {
            assert_eq!(taken(n, r, p), Err(KdfError::TooExpensive { n, r, p }));
        }
    }

    #[test]
    fn the_scaling_takes_memory_first_and_then_rounds() {
        let ms = Duration::from_millis;
        let scaled = |probe, target, mib: u64| {
            let k = KdfParams::scaled(probe, 13, target, mib << 20);
            (k.n(), k.r(), k.p())
        };
        assert_eq!(scaled(ms(20), ms(500), 60), (1 << 15, 8, 6));
        assert_eq!(scaled(ms(20), ms(500), 128), (1 << 17, 8, 1));
        assert_eq!(scaled(ms(1000), ms(500), 60), (1 << 14, 8, 1), "never below the floor");
        let fast = KdfParams::scaled(Duration::ZERO, 13, Duration::MAX, 60 << 20);
        assert_eq!(KdfParams::new(fast.n(), fast.r(), fast.p()), Ok(fast), "always a key file that opens again");
    }
}
