//! Making plans out of choices.
//!
//! One generator serves seeds and fuzzers: it asks a [`Source`] for numbers. Every plan first chooses a
//! *temper*: how often each kind of operation happens in it, many not at all. Plans that leave things out
//! find what plans that do a little of everything do not (Groce et al.: "Swarm Testing", 2012).

use vault_core::merge::{APPEND, COUNTER};
use vault_core::vfs::OperationClass;
use vault_core::{CompactionPolicy, Compression, Durability, FilterPolicy, KeyspaceOptions};
use vault_crypto::Algorithm;
use vault_lsm::{BackgroundWork, Settings};

use super::kind::{Kind, WEIGHTS, Wanted};
use super::source::{Dice, Source};
use super::{
    Change, ClockMove, Ending, Expectation, Interruption, Key, Mishap, Misuse, Move, Operation,
    Plan, Range, SLOTS, Slot, Trouble, Value,
};
use crate::journal::Journal;

const KIB: u64 = 1 << 10;
const DAY_MS: u64 = 86_400_000;
const YEAR_MS: u64 = 365 * DAY_MS;

impl Plan {
    /// The plan of a seed: 100 to 400 operations.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self::from_seed_wanting(seed, Wanted::Either)
    }

    /// The plan of a seed, for a store that is encrypted or not as wanted. Where the seed would have chosen the same, it is that
    /// of [`Plan::from_seed`].
    #[must_use]
    pub fn from_seed_wanting(seed: u64, wanted: Wanted) -> Self {
        let mut dice = Dice::new(seed);
        let least = 100 + dice.below(200);
        let most = least + dice.below(101);
        Self::choose_wanted(&mut dice, wanted, least as usize, most as usize)
    }

    /// An operation, from choices.
    pub fn choose_operation(source: &mut dyn Source) -> Operation {
        Choices::new(source).operation()
    }

    /// Settings, from choices.
    pub fn choose_settings(source: &mut dyn Source) -> Settings {
        Choices::new(source).settings()
    }

    /// The options of a keyspace, from choices.
    pub fn choose_keyspace(source: &mut dyn Source) -> KeyspaceOptions {
        Choices::new(source).keyspace_options()
    }

    /// A plan of so many operations, from choices.
    pub fn choose(source: &mut dyn Source, least: usize, most: usize) -> Self {
        Self::choose_wanted(source, Wanted::Either, least, most)
    }

    /// As [`Plan::choose`], for a store that is encrypted or not as wanted.
    pub fn choose_wanted(
        source: &mut dyn Source,
        wanted: Wanted,
        least: usize,
        most: usize,
    ) -> Self {
        let mut choices = Choices::new(source);
        let cipher = choices.cipher(wanted);
        let engine_seed = choices.below(1 << 32);
        let settings = choices.settings();
        let keyspaces = (0..1 + choices.below(u64::from(SLOTS)))
            .map(|_| choices.keyspace_options())
            .collect();
        let wanted = least + choices.below((most - least) as u64 + 1) as usize;
        let mut operations = Vec::new();
        while operations.len() < wanted && (operations.len() < least || !choices.is_exhausted()) {
            operations.push(choices.operation());
        }
        Self {
            engine_seed,
            cipher,
            settings,
            keyspaces,
            operations,
        }
    }
}

/// Choices, and the temper that they are made in.
struct Choices<'a> {
    source: &'a mut dyn Source,
    weights: Vec<(Kind, u64)>,
    /// Keys that this plan uses: few meet often, many fill tables.
    keys: u64,
    /// Longest usual value, in bytes.
    value_bytes: u64,
    /// In percent.
    sync: u64,
    stamp: u32,
}

impl<'a> Choices<'a> {
    fn new(source: &'a mut dyn Source) -> Self {
        let mut choices = Self {
            source,
            weights: Vec::new(),
            keys: 0,
            value_bytes: 0,
            sync: 0,
            stamp: 0,
        };
        choices.weights = WEIGHTS
            .iter()
            .map(|&(kind, weight)| {
                let factor = match kind {
                    Kind::Write => 2,
                    _ => choices.of(&[0, 1, 2, 2, 3, 6]),
                };
                (kind, weight * factor)
            })
            .collect();
        choices.keys = choices.of(&[8, 12, 30, 30, 80, 250]);
        choices.value_bytes = choices.of(&[20, 60, 60, 400, 1500]);
        choices.sync = choices.of(&[0, 5, 15, 15, 50, 100]);
        choices
    }

    /// Whether the store is encrypted, and by what.
    fn cipher(&mut self, wanted: Wanted) -> Option<Algorithm> {
        let encrypted = self.percent(50);
        let cipher = self.of(&Algorithm::ALL);
        let encrypted = match wanted {
            Wanted::Either => encrypted,
            Wanted::Plain => false,
            Wanted::Encrypted => true,
        };
        if !encrypted {
            self.weights.retain(|(kind, _)| !kind.is_of_keys());
        }
        encrypted.then_some(cipher)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.source.below(bound)
    }

    fn is_exhausted(&self) -> bool {
        self.source.is_exhausted()
    }

    fn percent(&mut self, probability: u64) -> bool {
        // The likelier outcome is what an exhausted source gives.
        self.below(100) >= 100 - probability
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn operation(&mut self) -> Operation {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.below(total);
        let kind = self.weights.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        match kind.map_or(Kind::Write, |(kind, _)| *kind) {
            kind @ (Kind::Write
            | Kind::TryWrite
            | Kind::CompareAndSet
            | Kind::Ingest
            | Kind::Misuse
            | Kind::CreateKeyspace
            | Kind::DropKeyspace) => self.change(kind),
            kind @ (Kind::Get
            | Kind::MultiGet
            | Kind::Scan
            | Kind::TakeSnapshot
            | Kind::ReadSnapshot
            | Kind::DropSnapshot
            | Kind::OpenCursor
            | Kind::MoveCursor
            | Kind::CloseCursor
            | Kind::CheckAll) => self.read(kind),
            kind => self.event(kind),
        }
    }

    /// What changes the content.
    fn change(&mut self, kind: Kind) -> Operation {
        match kind {
            Kind::TryWrite => Operation::TryWrite {
                changes: self.changes(),
            },
            Kind::CompareAndSet => Operation::CompareAndSet {
                slot: self.slot(),
                key: self.key(),
                expected: match self.below(5) {
                    0 => Expectation::Absent,
                    1 => Expectation::Value(self.value()),
                    _ => Expectation::Current,
                },
                new: self.percent(75).then(|| self.value()),
                sync: self.percent(self.sync),
            },
            Kind::Ingest => {
                let (slot, first, step) = (self.slot(), self.key(), 1 + self.below(5) as u8);
                let count = self.of(&[0, 1, 5, 20, 60]);
                let value = self.value();
                // Each of its values has a stamp of its own.
                self.stamp += u32::from(count);
                Operation::Ingest {
                    slot,
                    first,
                    step,
                    count,
                    value,
                }
            }
            Kind::Misuse => Operation::Misuse(self.of(&[
                Misuse::InvertedRange,
                Misuse::LongKey,
                Misuse::PastExpiry,
                Misuse::UnknownKeyspace,
                Misuse::UnsortedIngest,
            ])),
            Kind::CreateKeyspace => Operation::CreateKeyspace(self.slot(), self.keyspace_options()),
            Kind::DropKeyspace => Operation::DropKeyspace(self.slot()),
            _ => Operation::Write {
                changes: self.changes(),
                durability: match self.percent(self.sync) {
                    true => Some(Durability::Sync),
                    false => self.of(&[None, Some(Durability::Os), Some(Durability::Os)]),
                },
            },
        }
    }

    fn read(&mut self, kind: Kind) -> Operation {
        match kind {
            Kind::Get => Operation::Get(self.slot(), self.key()),
            Kind::MultiGet => {
                let count = self.below(8);
                Operation::MultiGet(self.slot(), (0..count).map(|_| self.key()).collect())
            }
            Kind::Scan => {
                Operation::Scan(self.slot(), self.range(), self.source.below(1 << 32) as u32)
            }
            Kind::TakeSnapshot => Operation::TakeSnapshot,
            Kind::ReadSnapshot => Operation::ReadSnapshot {
                which: self.below(8) as u8,
                slot: self.slot(),
                key: self.key(),
                range: self.range(),
            },
            Kind::DropSnapshot => Operation::DropSnapshot(self.below(8) as u8),
            Kind::OpenCursor => Operation::OpenCursor {
                slot: self.slot(),
                range: self.range(),
                of_snapshot: self.percent(30),
            },
            Kind::MoveCursor => {
                let which = self.below(8) as u8;
                let count = 1 + self.below(10);
                Operation::MoveCursor(which, (0..count).map(|_| self.cursor_move()).collect())
            }
            Kind::CloseCursor => Operation::CloseCursor(self.below(8) as u8),
            _ => Operation::CheckAll,
        }
    }

    /// What happens to the store as a whole, and around it.
    fn event(&mut self, kind: Kind) -> Operation {
        match kind {
            Kind::Sync => Operation::Sync,
            Kind::Flush => Operation::Flush(self.percent(60).then(|| self.slot())),
            Kind::Compact => Operation::Compact {
                slot: self.slot(),
                range: match self.percent(50) {
                    true => Range::All,
                    false => self.range(),
                },
                cancel_after: self.percent(15).then(|| self.below(4) as u8),
            },
            Kind::Background => Operation::Background(1 + self.below(6) as u8),
            Kind::Checkpoint => Operation::Checkpoint,
            Kind::OpenCheckpoint => Operation::OpenCheckpoint {
                which: self.below(8) as u8,
                for_writing: self.percent(50),
                changes: self.changes(),
            },
            Kind::Rotate => Operation::Rotate,
            Kind::FinishRotation => Operation::FinishRotation,
            Kind::ChangeSecret => Operation::ChangeSecret {
                passphrase: self.percent(25),
            },
            Kind::Lock => Operation::Lock {
                lasts: self.below(8) as u8,
            },
            Kind::BackUp => Operation::BackUp,
            Kind::PutBack => Operation::PutBack {
                go_on: self.percent(50),
            },
            Kind::OpenReadOnly => Operation::OpenReadOnly,
            Kind::Reopen => Operation::Reopen(None),
            Kind::ReopenWith => Operation::Reopen(Some(self.settings())),
            Kind::Crash => {
                let interruptions = self.of(&[0, 0, 0, 1, 1, 2, 3]);
                Operation::Crash {
                    after: self.crash_distance(),
                    how: self.ending(),
                    recovery: (0..interruptions)
                        .map(|_| Interruption {
                            after: self.below(60) as u16,
                            how: self.ending(),
                        })
                        .collect(),
                }
            }
            Kind::Inject => Operation::Inject(self.trouble()),
            Kind::ClearFaults => Operation::ClearFaults,
            Kind::LimitDisk => Operation::LimitDisk {
                free_bytes: self.of(&[0, 4 << 10, 20 << 10, 80 << 10, 200 << 10]),
                lasts: 2 + self.below(20) as u8,
            },
            _ => Operation::Clock(self.clock_move()),
        }
    }

    fn slot(&mut self) -> Slot {
        Slot(self.below(u64::from(SLOTS)) as u8)
    }

    fn key(&mut self) -> Key {
        if self.percent(5) {
            return Key(self.below(6) as u8);
        }
        Key((6 + self.below(self.keys)).min(255) as u8)
    }

    fn value(&mut self) -> Value {
        self.stamp += 1;
        let bytes = match self.below(20) {
            0 => 0,
            1 => 1_000 + self.below(5_000),
            2 if self.percent(10) => 60_000,
            _ => self.below(self.value_bytes),
        };
        Value {
            stamp: self.stamp,
            bytes: bytes as u16,
            noise: self.percent(50),
        }
    }

    fn ttl_ms(&mut self) -> u64 {
        let scale = self.of(&[50, 1_000, DAY_MS, YEAR_MS * 10]);
        1 + self.below(scale)
    }

    fn changes(&mut self) -> Vec<Change> {
        let count = match self.below(10) {
            0..6 => 1,
            6..9 => 2 + self.below(6),
            _ => 10 + self.below(40),
        };
        (0..count).map(|_| self.one_change()).collect()
    }

    fn one_change(&mut self) -> Change {
        let slot = self.slot();
        match self.below(100) {
            0..58 => Change::Put {
                slot,
                key: self.key(),
                value: self.value(),
                ttl_ms: self.percent(12).then(|| self.ttl_ms()),
            },
            58..72 => Change::Delete {
                slot,
                key: self.key(),
            },
            72..79 => Change::DeleteRange {
                slot,
                from: self.key(),
                to: self.key(),
            },
            79..80 => Change::DeletePrefix {
                slot,
                key: self.key(),
                bytes: self.below(5) as u8,
            },
            _ => Change::Merge {
                slot,
                key: self.key(),
                value: self.operand(),
                ttl_ms: self.percent(8).then(|| self.ttl_ms()),
            },
        }
    }

    /// Operands are short: they add up.
    fn operand(&mut self) -> Value {
        let value = self.value();
        Value {
            bytes: value.bytes.min(24),
            ..value
        }
    }

    fn range(&mut self) -> Range {
        match self.below(8) {
            0 | 1 => Range::All,
            2 => Range::From(self.key()),
            3 => Range::Before(self.key()),
            4 => Range::Prefix(self.key(), self.below(5) as u8),
            5 => Range::Behind(self.key(), self.key()),
            _ => Range::Between(self.key(), self.key()),
        }
    }

    fn cursor_move(&mut self) -> Move {
        match self.below(20) {
            0 | 1 => Move::First,
            2 | 3 => Move::Last,
            4..7 => Move::Seek(self.key()),
            7..10 => Move::SeekBack(self.key()),
            10..15 => Move::Next,
            15..19 => Move::Prev,
            _ => Move::Fork,
        }
    }

    fn crash_distance(&mut self) -> u16 {
        let scale = self.of(&[1, 1, 10, 40, 40, 150]);
        self.below(scale) as u16
    }

    fn ending(&mut self) -> Ending {
        if self.percent(25) {
            return Ending::Kill;
        }
        let keep_percent = match self.below(6) {
            0 => 0,
            1 => 100,
            2 | 3 => 50,
            _ => self.below(101),
        };
        Ending::PowerLoss {
            keep_percent: keep_percent as u8,
            seed: self.below(1 << 32) as u32,
        }
    }

    fn trouble(&mut self) -> Trouble {
        let mishap = self.of(&[
            Mishap::Io,
            Mishap::Io,
            Mishap::NoSpace,
            Mishap::TooManyFiles,
            Mishap::ShortWrite,
            Mishap::ShortRead,
            Mishap::OtherDevice,
            Mishap::NoMapping,
        ]);
        let class = match mishap {
            Mishap::ShortWrite => OperationClass::Write,
            Mishap::ShortRead => OperationClass::Read,
            Mishap::OtherDevice => OperationClass::Link,
            Mishap::NoMapping => OperationClass::Map,
            Mishap::TooManyFiles => self.of(&[
                OperationClass::Open,
                OperationClass::Create,
                OperationClass::List,
            ]),
            Mishap::Io | Mishap::NoSpace => self.of(&[
                OperationClass::Any,
                OperationClass::Any,
                OperationClass::Any,
                OperationClass::Read,
                OperationClass::Write,
                OperationClass::Sync,
                OperationClass::Sync,
                OperationClass::SyncDir,
                OperationClass::Create,
                OperationClass::Rename,
                OperationClass::Remove,
                OperationClass::Link,
                OperationClass::Allocate,
                OperationClass::Map,
                OperationClass::Metadata,
                OperationClass::Lock,
            ]),
        };
        Trouble {
            mishap,
            class,
            files: match class {
                OperationClass::SyncDir | OperationClass::List | OperationClass::Lock => "",
                OperationClass::Allocate | OperationClass::Map => self.of(&["", ".log"]),
                _ => self.of(&["", "", ".log", ".tab", ".blob", ".man", "CURRENT"]),
            },
            after: match self.percent(50) {
                true => 0,
                false => self.below(20) as u16,
            },
            persists: self.percent(30),
            lasts: 3 + self.below(30) as u8,
        }
    }

    fn clock_move(&mut self) -> ClockMove {
        let scale = self.of(&[100, 100, 2_000, DAY_MS, YEAR_MS * 20]);
        let by = self.below(scale);
        match self.percent(30) {
            true => ClockMove::Back(by),
            false => ClockMove::Forward(by),
        }
    }

    fn settings(&mut self) -> Settings {
        let log_segment_bytes = self.of(&[64, 64, 128, 256]) * KIB;
        Settings {
            durability: self.of(&[Durability::Os, Durability::Os, Durability::Sync]),
            cache_bytes: Some(self.of(&[0, 2, 16, 256]) * KIB),
            table_metadata_bytes: Some(self.of(&[0, 0, 1, 8, 1024]) * KIB),
            log_segment_bytes: Some(log_segment_bytes),
            log_bytes_max: Some(log_segment_bytes * self.of(&[1, 2, 4, 16])),
            manifest_bytes_max: self.of(&[1, 4, 1024]) * KIB,
            memtables_waiting_max: self.of(&[1, 2, 3, 8]),
            background: BackgroundWork::Manual,
            latency_sample_every: self.of(&[1, 16]),
            ..Settings::default()
        }
    }

    fn keyspace_options(&mut self) -> KeyspaceOptions {
        let policy = match self.below(6) {
            0..3 => CompactionPolicy::Leveled {
                level0_runs: self.of(&[1, 2, 4]),
                base_bytes: self.of(&[4, 8, 32]) * KIB,
                fanout: self.of(&[2, 3, 10]),
            },
            3 | 4 => {
                let runs_min = self.of(&[2, 3, 4]);
                CompactionPolicy::Tiered {
                    runs_min,
                    runs_max: runs_min + self.of(&[0, 2, 8]),
                    size_ratio_percent: self.of(&[1, 100, 150, 1000]),
                }
            }
            _ => CompactionPolicy::Fifo {
                // Room for everything there ever is, or so little that much goes.
                bytes_max: self.of(&[u64::MAX, u64::MAX, 1, 20 * KIB]),
            },
        };
        KeyspaceOptions {
            policy,
            compression: self.of(&[Compression::None, Compression::Lz4]),
            filter: match self.below(4) {
                0 => FilterPolicy::None,
                1 => FilterPolicy::Bloom { bits_per_key: 1 },
                2 => FilterPolicy::Bloom { bits_per_key: 20 },
                _ => FilterPolicy::default(),
            },
            block_bytes: self.of(&[512, 512, 1024, 4096]),
            write_buffer_bytes: self.of(&[4, 4, 8, 32, 1024]) * KIB,
            table_bytes: self.of(&[4, 4, 16, 64]) * KIB,
            merge_operator: match self.below(4) {
                0 => None,
                1 => Some(COUNTER.to_owned()),
                2 => Some(APPEND.to_owned()),
                _ => Some(Journal::NAME.to_owned()),
            },
            // Nearly all values apart, some, or those only that plans have none of.
            large_value_bytes: self.of(&[Some(16), Some(16), Some(100), Some(4 << 10), None]),
        }
    }
}
