//! What a run is asked for: sizes, threads, budgets. Part of every result.

use serde::{Deserialize, Serialize};

use crate::data::{CHECK_BYTES, KEY_BYTES};
use crate::error::{Error, Result};

/// Operations in one batch of `fillbatch`, and of fills that nobody measures.
pub const BATCH_OPERATIONS: usize = 100;

/// Most threads that durable writes are issued from (`fillsync16`).
pub const SYNC_THREADS_MAX: usize = 16;

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
        within("duration-max", self.duration_max_s, 0, 1 << 20)
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
        ] {
            assert!(check(change).unwrap_err().contains(option), "{option}");
        }
    }
}
