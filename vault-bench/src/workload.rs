//! The workloads: their names, how many operations each has, what each must find and what it leaves.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::settings::{BATCH_OPERATIONS, SYNC_THREADS_MAX, Settings};
use crate::target::Verb;

/// Most durable writes from one thread: two seconds' worth where one takes 40 µs.
pub const SYNC1_OPERATIONS_MAX: u64 = 50_000;

/// Most durable writes from sixteen threads.
pub const SYNC16_OPERATIONS_MAX: u64 = 200_000;

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Workload {
    /// Each entry its own write, in ascending order, as nearly as several threads can.
    FillSeq,
    /// Each entry its own write, in random order.
    FillRandom,
    /// As [`Workload::FillRandom`], 100 entries a batch.
    FillBatch,
    /// Every key again, in another random order.
    Overwrite,
    /// Durable writes from one thread.
    FillSync1,
    /// Durable writes from sixteen threads.
    FillSync16,
    /// Lookups of keys that are there, evenly spread.
    ReadRandom,
    /// The same from one thread.
    ReadRandom1,
    /// Lookups of keys that are not there, between those that are.
    ReadMissing,
    /// Seek to a random key, then 10 entries forwards.
    Seek10,
    /// Seek to a random key, then 100 entries forwards.
    Seek100,
    /// Seek to a random key, then 10 entries backwards.
    SeekRev10,
    /// Every entry, forwards, from one thread.
    Scan,
    /// Every entry, backwards, from one thread.
    ScanRev,
    /// 50 % reads, 50 % updates.
    YcsbA,
    /// 95 % reads, 5 % updates.
    YcsbB,
    /// Reads.
    YcsbC,
    /// 95 % reads of the latest, 5 % inserts.
    YcsbD,
    /// 95 % short scans, 5 % inserts.
    YcsbE,
    /// 50 % reads, 50 % read-modify-writes.
    YcsbF,
    /// Time until all background work is done.
    Settle,
    /// Close and open again.
    Reopen,
    /// Single deletes of half of the keys, side by side in the middle.
    DeleteHalf,
    /// The same by one range delete.
    DeleteHalfRange,
    /// Every entry that is left, across the gap, before anything has settled.
    GapScan,
    /// Seek into the gap, then 10 entries behind it, before anything has settled.
    GapSeek,
    /// As [`Workload::GapScan`] after a settle.
    GapScanSettled,
    /// As [`Workload::GapSeek`] after a settle.
    GapSeekSettled,
    /// 50 % deletes, 25 % writes, 25 % reads of random keys.
    DeleteMix,
    /// Push at one end, pop at the other.
    Queue,
    /// Every key deleted by itself, then the time until the directory has shrunk.
    Drain,
    /// The same by one range delete.
    DrainRange,
    /// The same by expiry.
    DrainExpiry,
    /// Entries that expire, written all the time.
    Expiry,
    /// A snapshot that is held while a quarter of the keys is overwritten.
    HeldSnapshot,
    /// Overwrites at 70 % of the rate that could be reached just before.
    Tails,
    /// Serializable transactions that read two random keys and write both.
    Transactions,
}

impl Workload {
    /// Every workload with its name and what it does, in the order in which they are listed.
    pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (
            Self::FillSeq,
            "fillseq",
            "empty store; n writes in ascending order",
        ),
        (
            Self::FillRandom,
            "fillrandom",
            "empty store; n writes in random order, each key once",
        ),
        (
            Self::FillBatch,
            "fillbatch",
            "as fillrandom, 100 entries a batch (latency: of a batch)",
        ),
        (
            Self::Overwrite,
            "overwrite",
            "every key again, in another random order",
        ),
        (
            Self::FillSync1,
            "fillsync1",
            "own empty store; min(n, 50 000) durable writes, 1 thread",
        ),
        (
            Self::FillSync16,
            "fillsync16",
            "own empty store; min(n, 200 000) durable writes, 16 threads",
        ),
        (
            Self::ReadRandom,
            "readrandom",
            "n lookups of present keys, uniform",
        ),
        (
            Self::ReadRandom1,
            "readrandom1",
            "n / 2 lookups of present keys, 1 thread",
        ),
        (
            Self::ReadMissing,
            "readmissing",
            "n lookups of absent keys between present ones",
        ),
        (
            Self::Seek10,
            "seek10",
            "n / 5 times: new iterator, seek to a random key, 10 entries",
        ),
        (
            Self::Seek100,
            "seek100",
            "n / 20 times: the same with 100 entries",
        ),
        (
            Self::SeekRev10,
            "seekrev10",
            "n / 5 times: the same with 10 entries backwards",
        ),
        (
            Self::Scan,
            "scan",
            "every entry forwards, 1 thread (operations: entries)",
        ),
        (
            Self::ScanRev,
            "scanrev",
            "every entry backwards, 1 thread (operations: entries)",
        ),
        (
            Self::YcsbA,
            "ycsb-a",
            "n / 2: 50 % read, 50 % update, zipf 0.99",
        ),
        (
            Self::YcsbB,
            "ycsb-b",
            "n / 2: 95 % read, 5 % update, zipf 0.99",
        ),
        (Self::YcsbC, "ycsb-c", "n / 2: reads, zipf 0.99"),
        (
            Self::YcsbD,
            "ycsb-d",
            "n / 2: 95 % read of the latest, 5 % insert",
        ),
        (
            Self::YcsbE,
            "ycsb-e",
            "n / 10: 95 % scan of 1 to 100 entries, 5 % insert, zipf 0.99",
        ),
        (
            Self::YcsbF,
            "ycsb-f",
            "n / 2: 50 % read, 50 % read-modify-write, zipf 0.99",
        ),
        (
            Self::Settle,
            "settle",
            "flush, then wait until background work is done (seconds)",
        ),
        (
            Self::Reopen,
            "reopen",
            "fill half a write buffer unmeasured, then close and open (seconds)",
        ),
        (
            Self::DeleteHalf,
            "delete-half",
            "n / 2 deletes of neighbouring keys in the middle",
        ),
        (
            Self::DeleteHalfRange,
            "delete-half-range",
            "the same by one range delete (latency and seconds of that one)",
        ),
        (
            Self::GapScan,
            "gap-scan",
            "every entry that a delete-half left, 1 thread, before anything has settled",
        ),
        (
            Self::GapSeek,
            "gap-seek",
            "up to 10 seconds: seek into the gap of a delete-half, 10 entries, before anything has settled",
        ),
        (
            Self::GapScanSettled,
            "gap-scan-settled",
            "as gap-scan after a settle",
        ),
        (
            Self::GapSeekSettled,
            "gap-seek-settled",
            "as gap-seek after a settle",
        ),
        (
            Self::DeleteMix,
            "delete-mix",
            "n: 50 % delete, 25 % write, 25 % read of random keys, present or not",
        ),
        (
            Self::Queue,
            "queue",
            "for 10 minutes: push at one end, pop (seek to first, delete it) at the other, 1 thread; latency: of a pop",
        ),
        (
            Self::Drain,
            "drain",
            "n entries deleted one by one, then the time until the directory is below 5 % unasked (seconds)",
        ),
        (
            Self::DrainRange,
            "drain-range",
            "the same by one range delete (seconds)",
        ),
        (
            Self::DrainExpiry,
            "drain-expiry",
            "the same by all of them expiring (seconds)",
        ),
        (
            Self::Expiry,
            "expiry",
            "for 2 minutes: writes of entries that soon expire, one read for seven writes",
        ),
        (
            Self::HeldSnapshot,
            "snapshot-held",
            "a quarter of the keys overwritten 3 times under a snapshot, then the time until its space is back unasked (seconds)",
        ),
        (
            Self::Tails,
            "tails",
            "for an hour: overwrites at 70 % of the peak measured just before; latency from the intended start",
        ),
        (
            Self::Transactions,
            "transactions",
            "n / 4 serializable transactions that read two random keys and write both",
        ),
    ];

    /// Its name.
    ///
    /// # Panics
    /// Never: a test walks through all of them.
    #[must_use]
    pub fn name(self) -> &'static str {
        let row = Self::ALL.iter().find(|row| row.0 == self);
        row.expect("every workload stands in the table").1
    }

    /// How many operations it has.
    #[must_use]
    pub fn operations(self, settings: &Settings) -> u64 {
        let n = settings.n;
        let share = |divisor: u64| (n / divisor).max(1);
        match self {
            Self::FillSeq
            | Self::FillRandom
            | Self::Overwrite
            | Self::ReadRandom
            | Self::ReadMissing => n,
            Self::FillBatch => n.div_ceil(BATCH_OPERATIONS as u64),
            Self::FillSync1 => n.min(SYNC1_OPERATIONS_MAX),
            Self::FillSync16 => n.min(SYNC16_OPERATIONS_MAX),
            Self::ReadRandom1
            | Self::YcsbA
            | Self::YcsbB
            | Self::YcsbC
            | Self::YcsbD
            | Self::YcsbF => share(2),
            Self::Seek10 | Self::SeekRev10 => share(5),
            Self::Transactions => share(4),
            Self::YcsbE => share(10),
            Self::Seek100 => share(20),
            Self::DeleteMix => n,
            Self::DeleteHalf => share(2),
            Self::GapSeek | Self::GapSeekSettled => share(5),
            Self::Scan
            | Self::ScanRev
            | Self::Settle
            | Self::Reopen
            | Self::DeleteHalfRange
            | Self::GapScan
            | Self::GapScanSettled
            | Self::Queue
            | Self::Drain
            | Self::DrainRange
            | Self::DrainExpiry
            | Self::Expiry
            | Self::HeldSnapshot
            | Self::Tails => 1,
        }
    }

    /// How many threads it runs on.
    #[must_use]
    pub const fn threads(self, settings: &Settings) -> usize {
        match self {
            Self::FillSync16 => SYNC_THREADS_MAX,
            Self::FillSync1
            | Self::ReadRandom1
            | Self::Scan
            | Self::ScanRev
            | Self::DeleteHalfRange
            | Self::GapScan
            | Self::GapScanSettled
            | Self::Queue => 1,
            _ => settings.threads,
        }
    }

    /// Whether it begins with an empty main store.
    #[must_use]
    pub const fn fills(self) -> bool {
        matches!(self, Self::FillSeq | Self::FillRandom | Self::FillBatch)
    }

    /// Whether it runs on an empty store of its own.
    #[must_use]
    pub const fn is_durable_fill(self) -> bool {
        matches!(self, Self::FillSync1 | Self::FillSync16)
    }

    /// Whether it is told by seconds rather than by operations a second.
    #[must_use]
    pub const fn is_told_by_seconds(self) -> bool {
        matches!(
            self,
            Self::Settle
                | Self::Reopen
                | Self::Drain
                | Self::DrainRange
                | Self::DrainExpiry
                | Self::HeldSnapshot
        )
    }

    /// What it must find when it begins.
    #[must_use]
    pub const fn needs(self) -> Ground {
        match self {
            Self::FillSeq
            | Self::FillRandom
            | Self::FillBatch
            | Self::FillSync1
            | Self::FillSync16
            | Self::Queue
            | Self::Drain
            | Self::DrainRange
            | Self::DrainExpiry
            | Self::Expiry => Ground::Nothing,
            Self::GapScan | Self::GapSeek | Self::GapScanSettled | Self::GapSeekSettled => {
                Ground::Gap
            }
            _ => Ground::Whole,
        }
    }

    /// What it leaves behind in the main store.
    pub(crate) const fn leaves(self) -> Ground {
        match self {
            Self::DeleteHalf
            | Self::DeleteHalfRange
            | Self::GapScan
            | Self::GapSeek
            | Self::GapScanSettled
            | Self::GapSeekSettled => Ground::Gap,
            Self::DeleteMix
            | Self::Queue
            | Self::Drain
            | Self::DrainRange
            | Self::DrainExpiry
            | Self::Expiry => Ground::Nothing,
            _ => Ground::Whole,
        }
    }

    /// Whether it is about what a store is like before it has settled.
    pub(crate) const fn is_unsettled(self) -> bool {
        matches!(self, Self::GapScan | Self::GapSeek)
    }

    /// The verb that an engine must have for it.
    #[must_use]
    pub const fn verb(self) -> Option<Verb> {
        match self {
            Self::DeleteHalfRange | Self::DrainRange => Some(Verb::RangeDelete),
            Self::DrainExpiry | Self::Expiry => Some(Verb::Expiry),
            Self::HeldSnapshot => Some(Verb::Snapshot),
            Self::Transactions => Some(Verb::Transactions),
            _ => None,
        }
    }

    /// Whether it leaves work behind for the background.
    pub(crate) const fn writes(self) -> bool {
        matches!(
            self,
            Self::Overwrite | Self::YcsbA | Self::YcsbB | Self::YcsbD | Self::YcsbE | Self::YcsbF
        ) || matches!(
            self,
            Self::Reopen
                | Self::DeleteHalf
                | Self::DeleteHalfRange
                | Self::HeldSnapshot
                | Self::Tails
                | Self::Transactions
        ) || self.fills()
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let row = Self::ALL.iter().find(|row| row.1 == name);
        row.map(|row| row.0).ok_or_else(|| Error::Unknown {
            kind: "workload",
            name: name.to_owned(),
            known: Self::ALL
                .iter()
                .map(|row| row.1)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

impl TryFrom<String> for Workload {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

impl From<Workload> for String {
    fn from(workload: Workload) -> Self {
        workload.name().to_owned()
    }
}

/// The state of the main store between two workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Nothing that anybody could count on.
    Nothing,
    /// Every loaded entry is there.
    Whole,
    /// The middle half of them was deleted.
    Gap,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_a_name_that_leads_back_to_it() {
        for &(workload, name, _) in Workload::ALL {
            assert_eq!(
                (workload.name(), name.parse::<Workload>().unwrap()),
                (name, workload)
            );
            assert!(
                workload.operations(&Settings {
                    n: 1,
                    ..Settings::default()
                }) >= 1
            );
        }
        let error = "fillrandon".parse::<Workload>().unwrap_err().to_string();
        assert!(
            error.contains("`fillrandon`") && error.contains("fillseq, fillrandom,"),
            "{error}"
        );
    }
}
