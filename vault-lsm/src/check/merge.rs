//! Merging what was rescued of a keyspace into one run, key by key.
//!
//! # Which operands of the log count
//! The log is the end of the history: if it holds a put or a delete of the key, all behind that counts, and
//! nothing else matters. Else an operand is in tables already if a table has a version of the key that is as
//! new. Where a table has a version without a sequence number, that may hold it or not: it counts, and is
//! reported.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use vault_core::batch::OperationKind;
use vault_core::{Result, Slice};

use super::rewrite::Rewriter;
use crate::cursor::InternalCursor;
use crate::internal_key::{kind_of, sequence_of};
use crate::memtable::Memtable;
use crate::table::TableMeta;

/// Where entries come from.
pub(super) struct Source {
    pub(super) cursor: Box<dyn InternalCursor>,
    pub(super) from_log: bool,
}

/// What could not be told for certain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Doubts {
    /// Keys of which two versions cannot be told apart in age.
    pub(super) undecided: u64,
    /// Merge operands of the log that tables may hold already.
    pub(super) uncertain_merges: u64,
}

/// A version of a key.
struct Found {
    trailer: u64,
    value: Slice,
    from_log: bool,
}

/// Merges sources key by key.
pub(super) struct Merging<'a> {
    /// The last sequence number whose operations are known to be in tables, those after it not; `None` where nothing is
    /// known. Of those up to it the log holds only what tables may have lost.
    pub(super) flushed_through: Option<u64>,
    /// Of two entries that are the same, the one of the first source is taken.
    pub(super) sources: Vec<Source>,
    pub(super) rewriter: Rewriter<'a>,
    pub(super) log: &'a Memtable,
    pub(super) doubts: Doubts,
}

impl Merging<'_> {
    /// Gives the tables that were written.
    pub(super) fn run(mut self) -> Result<(Vec<TableMeta>, Doubts)> {
        for source in &mut self.sources {
            source.cursor.first()?;
        }
        let mut heap: BinaryHeap<Reverse<(Vec<u8>, usize)>> = self
            .sources
            .iter()
            .enumerate()
            .filter(|(_, source)| source.cursor.valid())
            .map(|(at, source)| Reverse((source.cursor.key().to_vec(), at)))
            .collect();
        let mut versions = Vec::new();
        while let Some(Reverse((key, at))) = heap.pop() {
            versions.clear();
            self.gather(at, &key, &mut versions)?;
            let mut held = vec![at];
            while let Some(Reverse((next, _))) = heap.peek()
                && *next == key
                && let Some(Reverse((_, at))) = heap.pop()
            {
                self.gather(at, &key, &mut versions)?;
                held.push(at);
            }
            self.decide(&key, &mut versions)?;
            for at in held {
                let cursor = &self.sources[at].cursor;
                if cursor.valid() {
                    heap.push(Reverse((cursor.key().to_vec(), at)));
                }
            }
        }
        Ok((self.rewriter.finish()?, self.doubts))
    }

    fn gather(&mut self, at: usize, key: &[u8], versions: &mut Vec<Found>) -> Result<()> {
        let Source { cursor, from_log } = &mut self.sources[at];
        while cursor.valid() && cursor.key() == key {
            versions.push(Found {
                trailer: cursor.trailer(),
                value: cursor.value_slice(),
                from_log: *from_log,
            });
            cursor.next()?;
        }
        Ok(())
    }

    fn decide(&mut self, key: &[u8], versions: &mut [Found]) -> Result<()> {
        // Stable: among the same, the order of the sources stays.
        versions.sort_by_key(|version| Reverse(version.trailer));
        let mut undecided = false;
        let mut uncertain = 0;
        let mut before: Option<u64> = None;
        for (at, version) in versions.iter().enumerate() {
            let sequence = sequence_of(version.trailer);
            if before.is_some_and(|before| sequence_of(before) == sequence) {
                // The same entry out of another file, or one that cannot be told from it in age.
                let first = versions[..at].iter().rfind(|v| Some(v.trailer) == before);
                undecided |= first.is_some_and(|v| {
                    v.trailer != version.trailer || v.value[..] != version.value[..]
                });
                continue;
            }
            match self.fate(key, version, versions) {
                Fate::Counts => {}
                Fate::Uncertain => uncertain += 1,
                Fate::InTables => continue,
            }
            self.rewriter.add(key, version.trailer, &version.value)?;
            before = Some(version.trailer);
        }
        self.doubts.undecided += u64::from(undecided);
        self.doubts.uncertain_merges += uncertain;
        Ok(())
    }

    fn fate(&self, key: &[u8], version: &Found, versions: &[Found]) -> Fate {
        let is_merge = |v: &Found| kind_of(v.trailer) == Some(OperationKind::Merge);
        if !version.from_log || !is_merge(version) {
            return Fate::Counts;
        }
        let sequence = sequence_of(version.trailer);
        if self.flushed_through.is_some_and(|last| sequence > last) {
            return Fate::Counts;
        }
        let reset = versions
            .iter()
            .any(|v| v.from_log && !is_merge(v) && sequence_of(v.trailer) < sequence);
        let swept = self.log.range_tombstones();
        let swept = swept.is_some_and(|all| all.covering(key, sequence).is_some());
        if reset || swept {
            return Fate::Counts;
        }
        let mut in_tables = versions.iter().filter(|v| !v.from_log);
        if in_tables
            .clone()
            .any(|v| sequence_of(v.trailer) >= sequence)
        {
            Fate::InTables
        } else if in_tables.any(|v| sequence_of(v.trailer) == 0) {
            Fate::Uncertain
        } else {
            Fate::Counts
        }
    }
}

/// What becomes of an operand of the log.
enum Fate {
    Counts,
    Uncertain,
    InTables,
}
