//! The standard mixes of YCSB (Cooper et al.: "Benchmarking cloud serving systems with YCSB", 2010).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::data::{self, below, mix, random_at};
use crate::drive::Hands;
use crate::error::Result;
use crate::permutation::Permutation;
use crate::target::{Direction, Target};
use crate::workload::Workload;
use crate::zipf::{YCSB_THETA, Zipf};

/// Longest scan of mix E, in entries.
const SCAN_ENTRIES_MAX: u64 = 100;

/// What a mix consists of, in percent; the rest are updates.
#[derive(Debug, Clone, Copy)]
struct Mix {
    reads: u64,
    scans: u64,
    inserts: u64,
    read_modify_writes: u64,
    /// Whether reads go to what was inserted last.
    latest: bool,
}

/// Entries that workloads have inserted beside the loaded ones, counted from 0, and which of them are
/// certainly there: an insert that one thread is still at must not be missed by another.
#[derive(Debug)]
pub struct Inserts {
    begun: AtomicU64,
    /// For each thread a number that no insert it is at lies below; `u64::MAX` while it is at none.
    at: Vec<AtomicU64>,
}

impl Inserts {
    /// None so far; up to `threads` will insert.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let idle = || AtomicU64::new(u64::MAX);
        Self {
            begun: AtomicU64::new(0),
            at: std::iter::repeat_with(idle).take(threads).collect(),
        }
    }

    /// Runs `insert` with the next number.
    ///
    /// # Errors
    /// Those of `insert`.
    ///
    /// # Panics
    /// If `thread` is not below the number of threads.
    pub fn insert(&self, thread: usize, insert: impl FnOnce(u64) -> Result<()>) -> Result<()> {
        // The bound is set before the number is taken: whoever sees the number sees the bound.
        self.at[thread].store(self.begun.load(SeqCst), SeqCst);
        let result = insert(self.begun.fetch_add(1, SeqCst));
        self.at[thread].store(u64::MAX, SeqCst);
        result
    }

    /// All inserts below this number are done.
    #[must_use]
    pub fn done(&self) -> u64 {
        let begun = self.begun.load(SeqCst);
        self.at
            .iter()
            .map(|at| at.load(SeqCst))
            .fold(begun, u64::min)
    }
}

/// One of the mixes, ready to run.
#[derive(Debug)]
pub struct Ycsb {
    mix: Mix,
    n: u64,
    stream: u64,
    zipf: Zipf,
    /// Scatters frequent ranks over the key space, and inserted entries too.
    scatter: Permutation,
    inserts: Arc<Inserts>,
}

impl Ycsb {
    /// Prepares the mix of a workload for a store of `n` loaded entries; `None` where the workload is
    /// none of them.
    #[must_use]
    pub fn new(workload: Workload, n: u64, seed: u64, inserts: &Arc<Inserts>) -> Option<Self> {
        let mix_of = |reads, scans, inserts, read_modify_writes| Mix {
            reads,
            scans,
            inserts,
            read_modify_writes,
            latest: false,
        };
        let chosen = match workload {
            Workload::YcsbA => mix_of(50, 0, 0, 0),
            Workload::YcsbB => mix_of(95, 0, 0, 0),
            Workload::YcsbC => mix_of(100, 0, 0, 0),
            Workload::YcsbD => Mix {
                latest: true,
                ..mix_of(95, 0, 5, 0)
            },
            Workload::YcsbE => mix_of(0, 95, 5, 0),
            Workload::YcsbF => mix_of(50, 0, 0, 50),
            _ => return None,
        };
        Some(Self {
            mix: chosen,
            n,
            stream: mix(seed ^ mix(workload as u64)),
            zipf: Zipf::new(n, YCSB_THETA),
            scatter: Permutation::new(n, seed),
            inserts: Arc::clone(inserts),
        })
    }

    /// Runs operation `i`.
    ///
    /// # Errors
    /// The engine's own.
    pub fn run(&self, target: &dyn Target, hands: &mut Hands, i: u64) -> Result<u64> {
        let Mix {
            reads,
            scans,
            inserts,
            read_modify_writes,
            latest,
        } = self.mix;
        let rank = self.zipf.at(self.stream, i);
        let choice = below(random_at(self.stream ^ 1, i), 100);
        if choice < reads {
            let number = if latest {
                self.latest(rank)
            } else {
                self.frequent(rank)
            };
            hands.get_present(target, number)?;
        } else if choice < reads + scans {
            let index = self.scatter.at(rank);
            let limit = 1 + below(random_at(self.stream ^ 2, i), SCAN_ENTRIES_MAX);
            let present = limit.min(self.n - index);
            hands.scan(
                target,
                Some(data::loaded(index)),
                Direction::Forward,
                limit,
                present,
            )?;
        } else if choice < reads + scans + inserts {
            self.inserts.insert(hands.thread, |count| {
                hands.entry.fill(self.inserted(count), i);
                target.put(&hands.entry.key, &hands.entry.value, false)
            })?;
        } else {
            let number = self.frequent(rank);
            if choice < reads + scans + inserts + read_modify_writes {
                hands.get_present(target, number)?;
            }
            // A generation that no load or overwrite uses.
            hands.entry.fill(number, !i);
            target.put(&hands.entry.key, &hands.entry.value, false)?;
        }
        Ok(1)
    }

    fn frequent(&self, rank: u64) -> u64 {
        data::loaded(self.scatter.at(rank))
    }

    fn latest(&self, rank: u64) -> u64 {
        let done = self.inserts.done();
        if rank < done {
            self.inserted(done - 1 - rank)
        } else {
            self.frequent((rank - done).min(self.n - 1))
        }
    }

    fn inserted(&self, count: u64) -> u64 {
        data::inserted(self.scatter.at(count % self.n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_counts_as_done_only_when_it_is() {
        let inserts = Inserts::new(2);
        inserts
            .insert(0, |n| {
                assert_eq!((n, inserts.done()), (0, 0));
                inserts.insert(1, |n| {
                    assert_eq!((n, inserts.done()), (1, 0));
                    Ok(())
                })?;
                assert_eq!(inserts.done(), 0, "the second is done, the first isn't");
                Ok(())
            })
            .unwrap();
        assert_eq!(inserts.done(), 2);
    }
}
