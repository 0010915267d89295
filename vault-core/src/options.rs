//! What a caller can choose, per keyspace and per write.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What must have happened before a write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The operating system has the data: it survives the end of this process, not a loss of power.
    #[default]
    Os,
    /// The data is on stable storage: it survives a loss of power.
    Sync,
}

/// Choices for one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// What must have happened before the write returns; `None`: the store's default.
    pub durability: Option<Durability>,
}

impl WriteOptions {
    /// A write that is on stable storage when it returns.
    pub const SYNC: Self = Self {
        durability: Some(Durability::Sync),
    };
    /// A write that the operating system has when it returns.
    pub const OS: Self = Self {
        durability: Some(Durability::Os),
    };
}

/// How blocks of a table are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Stored as they are.
    None,
    /// The LZ4 block format: a quarter to a half smaller, at hardly any cost.
    #[default]
    Lz4,
}

/// How tables tell quickly that they don't have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterPolicy {
    /// No filter: every lookup reads a block.
    None,
    /// A Bloom filter with this many bits a key (10: about 1 % false positives).
    Bloom {
        /// Bits a key, 1 to 32.
        bits_per_key: u8,
    },
}

impl Default for FilterPolicy {
    fn default() -> Self {
        Self::Bloom { bits_per_key: 10 }
    }
}

/// How the tables of a keyspace are kept in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactionPolicy {
    /// Each level is one sorted run, `fanout` times larger than the one above: reads and space are
    /// cheap. The default. (O'Neil et al.: "The log-structured merge-tree", 1996; `LevelDB`.)
    Leveled {
        /// Runs in the top level that start a compaction.
        level0_runs: u8,
        /// Bytes of the first sorted level.
        base_bytes: u64,
        /// How many times larger each level is than the one above.
        fanout: u8,
    },
    /// Runs of similar size are merged together: writes are cheap, reads and space cost more.
    /// (Also called size-tiered or universal.)
    Tiered {
        /// Runs of similar size that are merged at once.
        runs_min: u8,
        /// Most runs before everything is merged.
        runs_max: u8,
        /// How much larger, in percent, the next run may be to count as similar.
        size_ratio_percent: u16,
    },
    /// The oldest tables go when the keyspace is over its size: for logs and caches.
    Fifo {
        /// Bytes of tables to keep.
        bytes_max: u64,
    },
}

impl CompactionPolicy {
    /// The leveled policy with its usual numbers.
    pub const LEVELED: Self = Self::Leveled {
        level0_runs: 6,
        base_bytes: 256 << 20,
        fanout: 10,
    };
    /// The tiered policy with its usual numbers.
    pub const TIERED: Self = Self::Tiered {
        runs_min: 4,
        runs_max: 12,
        size_ratio_percent: 150,
    };

    /// The policy's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Leveled { .. } => "leveled",
            Self::Tiered { .. } => "tiered",
            Self::Fifo { .. } => "fifo",
        }
    }
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self::LEVELED
    }
}

/// The options of a keyspace. Recorded in the store when the keyspace is created.
///
/// The policy's kind and the merge operator cannot change afterwards (opening with another one is
/// refused with [`Error::OptionsConflict`]); the rest can, and applies to what is written from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyspaceOptions {
    /// How tables are kept in order.
    pub policy: CompactionPolicy,
    /// How blocks are compressed.
    pub compression: Compression,
    /// How lookups skip tables.
    pub filter: FilterPolicy,
    /// Bytes of a data block before compression, 512 to 1 MiB.
    pub block_bytes: u32,
    /// Bytes a memtable holds before it is flushed, 4 KiB to 4 GiB.
    pub write_buffer_bytes: u64,
    /// Bytes of a table before the next one is begun, 4 KiB to 4 GiB.
    pub table_bytes: u64,
    /// Values from this length on, in bytes, are kept in files of their own, 16 bytes to 1 GiB; `None`: none are.
    /// What is kept apart is not written again by every compaction that its key goes through, and costs a read of
    /// its own.
    pub large_value_bytes: Option<u32>,
    /// Name of the merge operator ([`crate::merge::COUNTER`], [`crate::merge::APPEND`], or one that
    /// was registered when opening).
    pub merge_operator: Option<String>,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        Self {
            policy: CompactionPolicy::default(),
            compression: Compression::default(),
            filter: FilterPolicy::default(),
            block_bytes: 4 << 10,
            write_buffer_bytes: 64 << 20,
            table_bytes: 64 << 20,
            large_value_bytes: Some(4 << 10),
            merge_operator: None,
        }
    }
}

impl KeyspaceOptions {
    /// Sets the compaction policy.
    #[must_use]
    pub const fn policy(mut self, policy: CompactionPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the merge operator by name.
    #[must_use]
    pub fn merge(mut self, operator: &str) -> Self {
        self.merge_operator = Some(operator.to_owned());
        self
    }

    /// Sets from which length on values are kept in files of their own; `None`: none are.
    #[must_use]
    pub const fn large_values_from(mut self, bytes: Option<u32>) -> Self {
        self.large_value_bytes = bytes;
        self
    }

    /// Checks each option against its bounds.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] that names the option and what it accepts.
    pub fn check(&self) -> Result<()> {
        fn within(setting: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            let problem = format!("{value} is not between {min} and {max}");
            Err(Error::InvalidSetting { setting, problem })
        }
        const GIB: u64 = 1 << 30;
        within("block_bytes", u64::from(self.block_bytes), 512, 1 << 20)?;
        within(
            "write_buffer_bytes",
            self.write_buffer_bytes,
            4 << 10,
            4 * GIB,
        )?;
        within("table_bytes", self.table_bytes, 4 << 10, 4 * GIB)?;
        if let Some(bytes) = self.large_value_bytes {
            within("large_value_bytes", u64::from(bytes), 16, GIB)?;
        }
        if let FilterPolicy::Bloom { bits_per_key } = self.filter {
            within("filter.bloom.bits_per_key", u64::from(bits_per_key), 1, 32)?;
        }
        match self.policy {
            CompactionPolicy::Leveled {
                level0_runs,
                base_bytes,
                fanout,
            } => {
                within("policy.leveled.level0_runs", u64::from(level0_runs), 1, 64)?;
                within("policy.leveled.base_bytes", base_bytes, 4 << 10, GIB << 10)?;
                within("policy.leveled.fanout", u64::from(fanout), 2, 100)
            }
            CompactionPolicy::Tiered {
                runs_min,
                runs_max,
                size_ratio_percent,
            } => {
                within("policy.tiered.runs_min", u64::from(runs_min), 2, 64)?;
                within(
                    "policy.tiered.runs_max",
                    u64::from(runs_max),
                    u64::from(runs_min),
                    255,
                )?;
                within(
                    "policy.tiered.size_ratio_percent",
                    u64::from(size_ratio_percent),
                    1,
                    10_000,
                )
            }
            CompactionPolicy::Fifo { bytes_max } => {
                within("policy.fifo.bytes_max", bytes_max, 1, u64::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_bounds_name_themselves() {
        let small = KeyspaceOptions {
            block_bytes: 1,
            ..Default::default()
        };
        let Err(Error::InvalidSetting { setting, .. }) = small.check() else {
            panic!()
        };
        assert_eq!(setting, "block_bytes");
        let upside_down = CompactionPolicy::Tiered {
            runs_min: 8,
            runs_max: 4,
            size_ratio_percent: 100,
        };
        assert!(
            KeyspaceOptions::default()
                .policy(upside_down)
                .check()
                .is_err()
        );
        assert!(
            KeyspaceOptions::default()
                .policy(CompactionPolicy::TIERED)
                .check()
                .is_ok()
        );
    }
}
