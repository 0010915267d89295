//! How a store is opened.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vault_core::clock::SystemClock;
use vault_core::merge;
use vault_core::random::{Random, SystemRandom};
use vault_core::transform::{Plain, Protection};
use vault_core::vfs::{DiskFileSystem, FileSystem};
use vault_core::{Clock, Durability, Error, EventListener, Limits, MergeOperator, Result};

use crate::memory::Shares;

/// Idle times after which a store may be locked.
const LOCK_AFTER_IDLE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);

/// What may be there when a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenMode {
    /// Open the store, or create it where there is none.
    #[default]
    CreateIfMissing,
    /// The store must be there.
    MustExist,
    /// The store must not be there yet.
    MustCreate,
}

/// Who does the background work: flushing, compacting, preparing the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackgroundWork {
    /// One thread that flushes, and this many that compact.
    Threads {
        /// Threads that compact, 1 to 64.
        compaction: u8,
    },
    /// Nobody but the callers: [`Lsm::background_step`](crate::Lsm::background_step), and writers that
    /// would have to wait. For simulations, where one thread must decide everything.
    Manual,
}

impl Default for BackgroundWork {
    /// Half the processors compact, at least one and at most four.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::Threads {
            compaction: (processors / 2).clamp(1, 4) as u8,
        }
    }
}

/// The settings of a store: plain data, fit for a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What may be there already.
    pub mode: OpenMode,
    /// Durability of writes that don't name one.
    pub durability: Durability,
    /// What callers are held to.
    pub limits: Limits,
    /// Bytes of memory that the store may use in all, at least 16 MiB: memtables, caches, filters and
    /// indexes, cursors, flushes and compactions, opening after a crash. The sizes below follow from
    /// it where they are not set. What is counted, and what gives way when it is used up, stands in
    /// `docs/internals/memory.md`.
    pub memory_bytes: u64,
    /// Bytes of decoded blocks to keep in memory; 0: none. Not set: a quarter of `memory_bytes`.
    pub cache_bytes: Option<u64>,
    /// Bytes of filters and indexes to keep with their tables before they share the cache. Not set: an
    /// eighth of `memory_bytes`.
    pub table_metadata_bytes: Option<u64>,
    /// Bytes of a log segment, 64 KiB to 1 GiB. Not set: a sixteenth of `memory_bytes`, at most 64 MiB.
    pub log_segment_bytes: Option<u64>,
    /// Bytes of log beyond which the keyspace that holds the oldest segment is flushed. Not set: half of
    /// `memory_bytes`, at most 512 MiB.
    pub log_bytes_max: Option<u64>,
    /// Bytes of manifest beyond which it is replaced by a new one, 1 KiB at least.
    pub manifest_bytes_max: u64,
    /// Memtables a keyspace may have waiting to be flushed, beside the one that takes writes, 1 to 64. Writers are slowed
    /// down when half of all these are used up, and stand still when all are.
    pub memtables_waiting_max: u8,
    /// Who does the background work.
    pub background: BackgroundWork,
    /// Bytes a second that compactions may write; 0: no limit.
    pub compaction_bytes_per_second: u64,
    /// Wipe the keys when nothing was asked of the store for this long ([`Lsm::lock`](crate::Lsm::lock)), 1 second to
    /// 30 days; at most an eighth later. Only for a store that has keys. Statistics don't count as asking.
    pub lock_after_idle: Option<Duration>,
    /// One in how many gets, writes and cursors is timed for the latency histograms; 1: all of them.
    /// Rarer operations always are.
    pub latency_sample_every: u32,
    /// The least generation that the store may be found at; 0 accepts any. A host that notes
    /// [`Lsm::generation`](crate::Lsm::generation) elsewhere, after opening and after closing, is told
    /// ([`Error::RolledBack`]) when an older copy of the whole store was put back, or all of it removed.
    pub least_generation: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: OpenMode::default(),
            durability: Durability::default(),
            limits: Limits::default(),
            memory_bytes: 1 << 30,
            cache_bytes: None,
            table_metadata_bytes: None,
            log_segment_bytes: None,
            log_bytes_max: None,
            manifest_bytes_max: 1 << 20,
            memtables_waiting_max: 3,
            background: BackgroundWork::default(),
            compaction_bytes_per_second: 0,
            lock_after_idle: None,
            latency_sample_every: 16,
            least_generation: 0,
        }
    }
}

impl Settings {
    /// Checks each setting against its bounds, and all of them against the memory budget.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] that names the setting and what it accepts.
    pub fn check(&self) -> Result<()> {
        fn within(setting: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            let problem = format!("{value} is not between {min} and {max}");
            Err(Error::InvalidSetting { setting, problem })
        }
        self.limits.check()?;
        if let Some(bytes) = self.log_segment_bytes {
            within("log_segment_bytes", bytes, 64 << 10, 1 << 30)?;
        }
        within(
            "manifest_bytes_max",
            self.manifest_bytes_max,
            1 << 10,
            u64::MAX,
        )?;
        within(
            "memtables_waiting_max",
            u64::from(self.memtables_waiting_max),
            1,
            64,
        )?;
        within(
            "latency_sample_every",
            u64::from(self.latency_sample_every),
            1,
            1 << 20,
        )?;
        if let Some(after) = self.lock_after_idle
            && !LOCK_AFTER_IDLE.contains(&after)
        {
            return Err(Error::InvalidSetting {
                setting: "lock_after_idle",
                problem: format!("{after:?} is not between 1 second and 30 days"),
            });
        }
        if let BackgroundWork::Threads { compaction } = self.background {
            within(
                "background.threads.compaction",
                u64::from(compaction),
                1,
                64,
            )?;
        }
        let shares = Shares::of(self)?;
        let segment = shares.log_segment_bytes;
        within("log_bytes_max", shares.log_bytes_max, segment, u64::MAX)
    }
}

/// How to open a store: [`Settings`], and the components behind the engine's doors.
///
/// ```
/// use vault_core::Durability;
/// use vault_lsm::LsmOptions;
/// let options = LsmOptions::default().cache_bytes(64 << 20).durability(Durability::Sync);
/// assert_eq!(options.settings.cache_bytes, Some(64 << 20));
/// ```
#[derive(Clone)]
pub struct LsmOptions {
    /// Plain settings.
    pub settings: Settings,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) protection: Arc<dyn Protection>,
    pub(crate) listener: Option<Arc<dyn EventListener>>,
    pub(crate) operators: Vec<Arc<dyn MergeOperator>>,
    /// Whether the log of another store is replayed: a copy stays one.
    pub(crate) replaying: bool,
}

impl Default for LsmOptions {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            fs: Arc::new(DiskFileSystem),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            protection: Arc::new(Plain),
            listener: None,
            operators: merge::built_in(),
            replaying: false,
        }
    }
}

impl LsmOptions {
    /// Starts from settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Sets what may be there already.
    #[must_use]
    pub const fn mode(mut self, mode: OpenMode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Sets the durability of writes that don't name one.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Sets how many bytes of decoded blocks are kept in memory.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: u64) -> Self {
        self.settings.cache_bytes = Some(bytes);
        self
    }

    /// Sets how many bytes of memory the store may use in all.
    #[must_use]
    pub const fn memory_bytes(mut self, bytes: u64) -> Self {
        self.settings.memory_bytes = bytes;
        self
    }

    /// Sets who does the background work.
    #[must_use]
    pub const fn background(mut self, background: BackgroundWork) -> Self {
        self.settings.background = background;
        self
    }

    /// Sets what callers are held to.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Sets after which idle time the keys are wiped.
    #[must_use]
    pub const fn lock_after_idle(mut self, after: Duration) -> Self {
        self.settings.lock_after_idle = Some(after);
        self
    }

    /// Sets the file system.
    #[must_use]
    pub fn file_system(mut self, fs: Arc<dyn FileSystem>) -> Self {
        self.fs = fs;
        self
    }

    /// Sets the clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of randomness (store ids and salts).
    #[must_use]
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// Sets what protects the store: by default checksums alone.
    #[must_use]
    pub fn protection(mut self, protection: Arc<dyn Protection>) -> Self {
        self.protection = protection;
        self
    }

    /// Sets who hears of what the engine does.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn EventListener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Registers a merge operator, beside the built-in ones.
    #[must_use]
    pub fn merge_operator(mut self, operator: Arc<dyn MergeOperator>) -> Self {
        self.operators.push(operator);
        self
    }
}

impl fmt::Debug for LsmOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LsmOptions")
            .field("settings", &self.settings)
            .field("fs", &self.fs)
            .field("protection", &self.protection)
            .field("operators", &self.operators)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_bounds_name_themselves() {
        assert!(Settings::default().check().is_ok());
        let small = Settings {
            log_segment_bytes: Some(1),
            ..Settings::default()
        };
        let Err(Error::InvalidSetting { setting, .. }) = small.check() else {
            panic!()
        };
        assert_eq!(setting, "log_segment_bytes");
        for seconds in [0, 31 * 24 * 60 * 60] {
            let idle = Settings {
                lock_after_idle: Some(Duration::from_secs(seconds)),
                ..Settings::default()
            };
            let Err(Error::InvalidSetting { setting, .. }) = idle.check() else {
                panic!()
            };
            assert_eq!(setting, "lock_after_idle");
        }
        let none = Settings {
            memtables_waiting_max: 0,
            ..Settings::default()
        };
        assert!(none.check().is_err());
    }
}
