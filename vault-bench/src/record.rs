//! What is kept of each measured step: one line of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::drive::Outcome;
use crate::measure::{Cost, Machine};
use crate::settings::Settings;
use crate::timeline::{Course, MemoryCourse};
use crate::workload::Workload;

/// The figures of one workload on one engine in one round, as a worker reports them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The workload.
    pub workload: Workload,
    /// Of a settle: the workload whose work is settled.
    pub after: Option<Workload>,
    /// Client threads.
    pub threads: usize,
    /// Operations done. A batch counts as its entries, a whole scan as what it saw.
    pub operations: u64,
    /// Seconds they took.
    pub seconds: f64,
    /// Operations a second.
    pub operations_per_second: f64,
    /// Mean latency in nanoseconds (of a batch where the workload writes batches; as all latencies).
    pub mean_ns: u64,
    /// Latency that half of the operations did not exceed.
    pub p50_ns: u64,
    /// Latency that 99 % did not exceed.
    pub p99_ns: u64,
    /// Latency that 99.9 % did not exceed.
    pub p999_ns: u64,
    /// The longest latency.
    pub max_ns: u64,
    /// CPU time of all threads of the process, in seconds.
    pub cpu_seconds: f64,
    /// Bytes of pages made dirty: what goes to the disk, through `write` and mappings alike.
    pub write_bytes: u64,
    /// Of these, bytes whose files were gone before they had to be written.
    pub cancelled_write_bytes: u64,
    /// Bytes passed to `write`; misses what goes through mappings.
    pub wchar_bytes: u64,
    /// Bytes of the store's files afterwards, as their lengths say.
    pub disk_apparent_bytes: u64,
    /// Bytes that they take up on the disk.
    pub disk_allocated_bytes: u64,
    /// Peak resident memory, in bytes, file mappings included.
    pub peak_memory_bytes: u64,
    /// Whether the peak is of this step alone (else: since the process began).
    pub peak_memory_of_step: bool,
    /// Reads that gave what was never written. Anything but 0 fails the run.
    pub wrong: u64,
    /// Reads that missed what was written. Anything but 0 fails the run.
    pub missing: u64,
    /// Whether the time was up before the workload was done.
    pub cut_short: bool,
    /// Further figures of some workloads, by name.
    #[serde(default)]
    pub details: BTreeMap<String, f64>,
    /// All latencies: [`crate::latency::Latencies::sparse`].
    #[serde(default)]
    pub histogram: Vec<(u32, u64)>,
    /// Throughput and stalls over time.
    #[serde(default)]
    pub course: Course,
    /// Memory over time.
    #[serde(default)]
    pub memory: MemoryCourse,
}

impl Figures {
    /// Puts together what was counted and what it cost.
    #[must_use]
    pub fn new(workload: Workload, threads: usize, outcome: &Outcome, cost: Cost) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let latencies = &outcome.latencies;
        Self {
            workload,
            after: None,
            threads,
            operations: outcome.operations,
            seconds,
            operations_per_second: outcome.operations as f64 / seconds.max(1e-9),
            mean_ns: latencies.mean_ns(),
            p50_ns: latencies.percentile_ns(0.5),
            p99_ns: latencies.percentile_ns(0.99),
            p999_ns: latencies.percentile_ns(0.999),
            max_ns: latencies.max_ns(),
            cpu_seconds: cost.cpu_seconds,
            write_bytes: cost.write_bytes,
            cancelled_write_bytes: cost.cancelled_bytes,
            wchar_bytes: cost.wchar_bytes,
            disk_apparent_bytes: 0,
            disk_allocated_bytes: 0,
            peak_memory_bytes: 0,
            peak_memory_of_step: false,
            wrong: outcome.wrong,
            missing: outcome.missing,
            cut_short: outcome.cut_short,
            details: BTreeMap::new(),
            histogram: latencies.sparse(),
            course: outcome.timeline.clone().finish(),
            memory: MemoryCourse::default(),
        }
    }

    /// What the step is called in tables.
    #[must_use]
    pub fn label(&self) -> String {
        self.after.map_or_else(
            || self.workload.to_string(),
            |after| format!("{} ({after})", self.workload),
        )
    }
}

/// One line of a results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The engine.
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// The round, from 1.
    pub round: u32,
    /// When the step ended (UTC, RFC 3339).
    pub date: String,
    /// The revision of this repository, where it can be told.
    pub revision: Option<String>,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// The settings of the run.
    pub settings: Settings,
    /// The machine.
    pub machine: Machine,
}

/// What a runner tells a worker, as one JSON document on its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The engine to run.
    pub engine: String,
    /// A directory of its own for the worker's stores.
    pub dir: std::path::PathBuf,
    /// The workloads, in order.
    pub workloads: Vec<Workload>,
    /// Whether to settle between writing and reading.
    pub settle: bool,
    /// The settings.
    pub settings: Settings,
    /// Whether to tell about progress on the standard error output.
    pub verbose: bool,
}

/// What a worker tells its runner: one of these a line on its standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum Message {
    /// First of all: which engine this is.
    Started {
        /// Its version.
        version: String,
        /// How it is set up.
        setup: String,
    },
    /// A workload is done.
    Measured(Box<Figures>),
    /// A workload cannot be run on this engine.
    LeftOut {
        /// The workload.
        workload: Workload,
        /// Why not.
        why: String,
    },
    /// The worker gives up.
    Failed {
        /// Why.
        why: String,
    },
}
