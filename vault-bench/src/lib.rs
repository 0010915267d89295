//! Workload benchmarks: the same work, measured the same way, on Vault and on its rivals.
//!
//! The pieces, in the order in which a run passes through them:
//!
//! - [`runner`] reads what was asked for, checks the disk, and starts one *worker process* for each
//!   engine and round, engines in turn (A B A B), so that no engine inherits another's memory, page
//!   faults or warm allocator, and slow minutes of the machine hit all of them.
//! - [`worker`] runs a list of [`workload`]s in order on one store, in that fresh process, and prints
//!   one line of JSON for each. The binary of the rivals is the same worker with other engines in it.
//! - [`drive`] hands operations out to threads and times each; [`data`], [`permutation`] and [`zipf`]
//!   say which key the operation with number `i` touches. Everything follows from the seed.
//! - [`shapes`] are the workloads that are more than operations: deletes, queues, expiry, snapshots, a fixed rate.
//! - [`memory_group`] limits what a worker may have of memory, page cache included.
//! - [`target`] is what an engine must offer to be measured. It is implemented once for everything
//!   that implements [`vault_core::Engine`], and once for each rival.
//! - [`timeline`] keeps what happened when: throughput, stalls, memory.
//! - [`measure`] asks the operating system what it cost; [`record`] is the line that is kept, [`results`] the file of
//!   them; [`report`] makes tables and a page of many lines, [`stats`] says what can be said about them.
//! - [`bench_report`] does all of it: builds ([`builds`]), runs, keeps, draws, compares; also when it is interrupted
//!   ([`interrupt`]).
//!
//! # What makes the figures comparable
//! - Every read is checked: keys ascend, values carry a checksum of their key, counts add up. A worker
//!   that has read anything wrong, or missed anything, fails. A benchmark that reads nothing is fast.
//! - The timing overhead (one reading of the clock for each operation) and the check of each value are
//!   the same code for all engines, and are the only work beside the engine's own.
//! - A worker's settings go into its results, so that lines from different runs can't be mixed up.

#![forbid(unsafe_code)]

pub mod bench_report;
pub mod builds;
pub mod data;
pub mod drive;
pub mod engines;
pub mod error;
pub mod interrupt;
pub mod latency;
pub mod measure;
pub mod memory_group;
pub mod permutation;
pub mod plan;
pub mod progress;
pub mod record;
pub mod report;
pub mod results;
pub mod runner;
pub mod settings;
pub mod shapes;
pub mod stats;
pub mod target;
pub mod timeline;
pub mod worker;
pub mod workload;
pub mod ycsb;
pub mod zipf;

pub use error::{Error, Result};
