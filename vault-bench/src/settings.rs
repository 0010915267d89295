//! What a run is asked for: sizes, threads, budgets. Part of every result.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::data::{CHECK_BYTES, KEY_BYTES};
use crate::error::{Error, Result};

/// Operations in one batch of `fillbatch`, and of fills that nobody measures.
pub const BATCH_OPERATIONS: usize = 100;

/// Most threads that durable writes are issued from (`fillsync16`).
pub const SYNC_THREADS_MAX: usize = 16;

/// Least memory that a worker can be limited to: below it the program itself hardly runs.
pub const MEMORY_LIMIT_MIB_MIN: u64 = 64;

/// The settings that all engines of a run share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Entries of a full store.
    pub n: u64,
    /// Bytes of a value, at least 16.
    pub value_bytes: usize,
    /// Client threads, where the workload's name does not say how many.
    pub threads: usize,
    /// Block cache, in MiB.
    pub cache_mib: u64,
    /// Memtable size at which it is flushed, in MiB.
    pub write_buffer_mib: u64,
    /// Threads the engine may use for its own work; 0 leaves it the engine's default.
    pub background_threads: usize,
    /// What every random choice follows from.
    pub seed: u64,
    /// Seconds after which a workload is cut short; 0 lets each run to its end.
    pub duration_max_s: u64,
    /// Milliseconds that each workload with a duration of its own runs for (a queue, expiry, tails); 0: what it says.
    #[serde(default)]
    pub timed_ms: u64,
    /// Writes a second that `tails` keeps to; 0: 70 % of what could be reached just before.
    #[serde(default)]
    pub rate: u64,
    /// Milliseconds that a store which is to give space back without being asked is waited for.
    #[serde(default = "shrink_wait_ms")]
    pub shrink_wait_ms: u64,
    /// What each worker may have of memory, page cache included, in MiB; 0: what there is.
    #[serde(default)]
    pub memory_limit_mib: u64,
}

/// Unless it is set.
const fn shrink_wait_ms() -> u64 {
    60_000
}

/// What an engine may have of memory where all of it is limited: block cache and memtable, in MiB.
///
/// Half of the limit is for caches and buffers, the other half for the page cache, the program and what an engine does not
/// count. Of that half, up to three memtables (one that takes writes, two that wait) of a sixteenth of the limit each, at
/// most 64 MiB; the rest is for blocks, filters and indexes. It is one rule for all engines.
#[must_use]
pub fn budget_within(limit_mib: u64) -> (u64, u64) {
    let write_buffer_mib = (limit_mib / 16).clamp(1, 64);
    let cache_mib = (limit_mib / 2).saturating_sub(3 * write_buffer_mib).max(1);
    (cache_mib, write_buffer_mib)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            n: 5_000_000,
            value_bytes: 100,
            threads: 2,
            cache_mib: 256,
            write_buffer_mib: 64,
            background_threads: 0,
            seed: 1,
            duration_max_s: 0,
            timed_ms: 0,
            rate: 0,
            shrink_wait_ms: shrink_wait_ms(),
            memory_limit_mib: 0,
        }
    }
}

impl Settings {
    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// [`Error::Setting`] that names the option and what it accepts.
    pub fn check(&self) -> Result<()> {
        let within = |option: &str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            let problem = format!("--{option} is {value}, which is not between {min} and {max}");
            Err(Error::Setting(problem))
        };
        within("n", self.n, 1, 1 << 40)?;
        let value_bytes = self.value_bytes as u64;
        within("value-bytes", value_bytes, 2 * CHECK_BYTES as u64, 1 << 24)?;
        within("threads", self.threads as u64, 1, 1024)?;
        within("cache-mib", self.cache_mib, 0, 1 << 20)?;
        within("write-buffer-mib", self.write_buffer_mib, 1, 4096)?;
        within("background-threads", self.background_threads as u64, 0, 256)?;
        within("duration-max", self.duration_max_s, 0, 1 << 20)?;
        within("timed-seconds", self.timed_ms / 1000, 0, 1 << 20)?;
        within("rate", self.rate, 0, 1 << 32)?;
        within("shrink-wait", self.shrink_wait_ms / 1000, 0, 1 << 20)?;
        if self.memory_limit_mib > 0 {
            within(
                "memory-limit (in MiB)",
                self.memory_limit_mib,
                MEMORY_LIMIT_MIB_MIN,
                1 << 20,
            )?;
        }
        Ok(())
    }

    /// Bytes of keys and values of a full store, before compression.
    #[must_use]
    pub const fn user_bytes(&self) -> u64 {
        self.n * (KEY_BYTES + self.value_bytes) as u64
    }

    /// Bytes of the block cache.
    #[must_use]
    pub const fn cache_bytes(&self) -> u64 {
        self.cache_mib << 20
    }

    /// Bytes of a memtable.
    #[must_use]
    pub const fn write_buffer_bytes(&self) -> u64 {
        self.write_buffer_mib << 20
    }

    /// Bytes an engine that has one budget for everything may use, where memory is limited; see [`budget_within`]. Others count cache
    /// and memtables only, and take what compactions and cursors need from what is left. One that counts these too gets as much
    /// again as the memtables have; its own rule decides how much of it they may use.
    #[must_use]
    pub const fn memory_budget_bytes(&self) -> Option<u64> {
        if self.memory_limit_mib == 0 {
            return None;
        }
        Some(self.cache_bytes() + 6 * self.write_buffer_bytes())
    }

    /// How long a workload with a duration of its own runs, where nothing was set.
    #[must_use]
    pub const fn timed(&self, unset_seconds: u64) -> Duration {
        if self.timed_ms == 0 {
            return Duration::from_secs(unset_seconds);
        }
        Duration::from_millis(self.timed_ms)
    }

    /// Room one store may need at its widest. While compactions run, an entry stands on disk up to
    /// three times; logs of several write buffers (fjall keeps up to 512 MiB) come on top.
    #[must_use]
    pub const fn disk_bytes_needed(&self) -> u64 {
        let logs = 8 * self.write_buffer_bytes();
        3 * self.user_bytes()
            + if logs < 3 * self.user_bytes() {
                logs
            } else {
                3 * self.user_bytes()
            }
            + (64 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_run_is_refused_by_name() {
        let check = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().map_err(|e| e.to_string())
        };
        assert_eq!(check(|_| ()), Ok(()));
        for (option, change) in [
            ("--n", (|s| s.n = 0) as fn(&mut Settings)),
            ("--value-bytes", |s| s.value_bytes = 15),
            ("--threads", |s| s.threads = 0),
            ("--write-buffer-mib", |s| s.write_buffer_mib = 0),
            ("--memory-limit", |s| s.memory_limit_mib = 63),
        ] {
            assert!(check(change).unwrap_err().contains(option), "{option}");
        }
    }

    #[test]
    fn a_limit_is_divided_so_that_half_of_it_is_left() {
        assert_eq!(budget_within(1024), (320, 64));
        assert_eq!(budget_within(128), (40, 8));
        assert_eq!(budget_within(8192), (4096 - 192, 64));
        for limit in [64, 100, 777, 1 << 20] {
            let (cache, buffer) = budget_within(limit);
            assert!(
                cache + 3 * buffer <= limit / 2 && cache > 0 && buffer > 0,
                "{limit}"
            );
        }
    }

    #[test]
    fn settings_of_older_results_can_be_read() {
        let mut value = serde_json::to_value(Settings::default()).unwrap();
        let fields = value.as_object_mut().unwrap();
        for field in ["timed_ms", "rate", "shrink_wait_ms", "memory_limit_mib"] {
            assert!(fields.remove(field).is_some(), "{field}");
        }
        assert_eq!(
            serde_json::from_value::<Settings>(value).unwrap(),
            Settings::default()
        );
    }
}
