//! The workloads: their names, how many operations each has, and in which order they run.
//!
//! [`plan`] turns the list that was asked for into steps:
//!
//! - `fill…` begins with an empty store. A workload that needs data finds what the ones before it left;
//!   where nothing was filled yet, an unreported load in random order comes first.
//! - After each fill and each overwrite, and before anything that reads what was written since, a
//!   *settle* is measured as a step of its own, so that reads don't depend on how far compactions
//!   happened to be. `--no-settle` leaves these out.
//! - `fillsync1` and `fillsync16` run on an empty store of their own, beside the main one, which is
//!   closed meanwhile: they are too small to leave anything worth reading.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::settings::{BATCH_OPERATIONS, SYNC_THREADS_MAX, Settings};

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
            Self::YcsbE => share(10),
            Self::Seek100 => share(20),
            Self::Scan | Self::ScanRev | Self::Settle | Self::Reopen => 1,
        }
    }

    /// How many threads it runs on.
    #[must_use]
    pub const fn threads(self, settings: &Settings) -> usize {
        match self {
            Self::FillSync16 => SYNC_THREADS_MAX,
            Self::FillSync1 | Self::ReadRandom1 | Self::Scan | Self::ScanRev => 1,
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
        matches!(self, Self::Settle | Self::Reopen)
    }

    /// Whether it leaves work behind for the background.
    const fn writes(self) -> bool {
        matches!(
            self,
            Self::Overwrite | Self::YcsbA | Self::YcsbB | Self::YcsbD | Self::YcsbE | Self::YcsbF
        ) || matches!(self, Self::Reopen)
            || self.fills()
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

/// One step of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Fills an empty store without reporting it.
    Load,
    /// Measures a workload. `after`: what a settle is settling.
    Measure {
        /// The workload.
        workload: Workload,
        /// The workload that made this settle necessary.
        after: Option<Workload>,
    },
}

/// Orders the steps for a list of workloads; see the [module](self).
#[must_use]
pub fn plan(workloads: &[Workload], settle: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut filled = false;
    let mut unsettled: Option<Workload> = None;
    let measure = |workload, after| Step::Measure { workload, after };
    for (i, &workload) in workloads.iter().enumerate() {
        if workload.is_durable_fill() {
            steps.push(measure(workload, None));
            continue;
        }
        if !filled && !workload.fills() {
            steps.push(Step::Load);
            unsettled = Some(Workload::FillBatch);
        }
        filled = true;
        if workload == Workload::Settle {
            steps.push(measure(workload, unsettled.take()));
            continue;
        }
        if settle && !workload.fills() && unsettled.is_some() {
            steps.push(measure(Workload::Settle, unsettled.take()));
        }
        steps.push(measure(workload, None));
        if workload.writes() {
            unsettled = Some(workload);
        }
        let is_load = workload.fills() || workload == Workload::Overwrite;
        if settle && is_load && workloads.get(i + 1) != Some(&Workload::Settle) {
            steps.push(measure(Workload::Settle, unsettled.take()));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(list: &str, settle: bool) -> String {
        let workloads: Vec<Workload> = list.split(' ').map(|name| name.parse().unwrap()).collect();
        let told = |step: &Step| match step {
            Step::Load => "(load)".to_owned(),
            Step::Measure {
                workload,
                after: Some(after),
            } => format!("{workload}:{after}"),
            Step::Measure {
                workload,
                after: None,
            } => workload.to_string(),
        };
        plan(&workloads, settle)
            .iter()
            .map(told)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn reads_come_after_a_settle_and_need_data() {
        for (list, expected) in [
            (
                "fillrandom readrandom scan",
                "fillrandom settle:fillrandom readrandom scan",
            ),
            (
                "fillrandom settle readrandom",
                "fillrandom settle:fillrandom readrandom",
            ),
            ("readrandom", "(load) settle:fillbatch readrandom"),
            (
                "fillsync16 seek10",
                "fillsync16 (load) settle:fillbatch seek10",
            ),
            (
                "fillbatch overwrite ycsb-a ycsb-c ycsb-c",
                "fillbatch settle:fillbatch overwrite settle:overwrite ycsb-a settle:ycsb-a ycsb-c ycsb-c",
            ),
            (
                "ycsb-c fillseq",
                "(load) settle:fillbatch ycsb-c fillseq settle:fillseq",
            ),
            ("fillsync1", "fillsync1"),
        ] {
            assert_eq!(planned(list, true), expected, "{list}");
        }
        assert_eq!(
            planned("fillrandom ycsb-a readrandom settle", false),
            "fillrandom ycsb-a readrandom settle:ycsb-a"
        );
    }

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
