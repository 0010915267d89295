//! From the log to memtables, within the memory budget.
//!
//! While everything fits, batches are put into memtables as the log is read, and nothing is written. Once the
//! memtables have used up their share, the rest of the log is only checked; so a store that is refused is
//! left as it was, whatever the size of its log. When all is sound and the store has its new manifest,
//! what was not put into memtables is read again ([`finish`]), and memtables are flushed as they fill.
//! A crash in between is no different from one in ordinary work: the manifest says what is in tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::batch::decode_operation;
use vault_core::codec::Decoder;
use vault_core::transform::FileKind;
use vault_core::{Error, Result, SequenceNumber};

use crate::internal_key::SEQUENCE_MAX;
use crate::layout::Env;
use crate::log::{ReplayRequest, ReplayedBatch, replay};
use crate::manifest::State;
use crate::memory::{Class, Memory};
use crate::store::Store;
use crate::view::View;

/// What a memtable takes for each byte of small operations in the log, at most about.
const GROWTH: u64 = 4;

/// What became of a log that was read once.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Progress {
    /// The last sequence number of all batches.
    pub(crate) last_sequence: SequenceNumber,
    /// The first batch that did not fit into memory; `None`: all are in memtables.
    pub(crate) left_from: Option<SequenceNumber>,
}

/// Puts batches into the memtables of a view that nobody else uses, for as long as there is memory.
pub(crate) struct Reading<'a> {
    pub(crate) env: &'a Env,
    pub(crate) state: &'a State,
    pub(crate) view: &'a View,
    pub(crate) memory: &'a Arc<Memory>,
    /// Whether memtables cannot be flushed: then what does not fit is an error.
    pub(crate) read_only: bool,
    /// The last sequence number of the batches so far; 0: there was none.
    pub(crate) log_last: SequenceNumber,
    pub(crate) progress: Progress,
}

impl Reading<'_> {
    /// Takes the next batch.
    pub(crate) fn take(&mut self, batch: &ReplayedBatch<'_>) -> Result<()> {
        check_follows(self.env, self.state, self.log_last, batch)?;
        let bytes = batch.operations.len() as u64;
        if self.progress.left_from.is_none() && !has_room(self.memory, bytes) {
            if self.read_only {
                let what = "reading what the log holds, which only a writer can move to tables,";
                self.memory.check_room(Class::Memtables, bytes, what)?;
            } else {
                self.progress.left_from = Some(batch.first_sequence);
            }
        }
        let insert = self.progress.left_from.is_none();
        operations(self.env, self.state, self.view, batch, insert)?;
        let last = batch.first_sequence + u64::from(batch.count);
        self.log_last = last.saturating_sub(1);
        let last_sequence = &mut self.progress.last_sequence;
        *last_sequence = (*last_sequence).max(self.log_last);
        Ok(())
    }
}

/// Checks that a batch follows on the one before it, which ended at `log_last` (0: there was none). A number
/// that no batch has is one that the manifest knows: that of an ingest, durable there before the next batch was
/// written. Else the manifest has lost its end. That of a writer at work may also be older than its log.
pub(crate) fn check_follows(
    env: &Env,
    state: &State,
    log_last: SequenceNumber,
    batch: &ReplayedBatch<'_>,
) -> Result<()> {
    let known = log_last.max(state.last_sequence);
    let first = batch.first_sequence;
    if log_last == 0 || first.saturating_sub(1) <= known {
        return Ok(());
    }
    let path = env.path(FileKind::Log, batch.segment);
    let problem = format!(
        "a batch begins at sequence number {first} behind one that ends at {log_last}, and the manifest knows of \
         nothing in between: it has lost its end"
    );
    Err(Error::corruption(&path, 0, problem))
}

/// Whether memtables may grow by a batch without any of them being flushed. An eighth of their share stays
/// free for the ends of chunks.
fn has_room(memory: &Memory, bytes: u64) -> bool {
    let eighth = memory.shares().memtables / 8;
    let growth = (bytes * GROWTH).min(bytes + eighth);
    !memory.memtables_full(growth + eighth)
}

/// Puts what was left into memtables, and flushes them as they fill. The store is open, and nobody but the
/// caller uses it yet. `state` is what the manifest said when the log was read first.
pub(crate) fn finish(
    store: &Arc<Store>,
    state: &State,
    clean_end: Option<(u64, u64)>,
) -> Result<()> {
    let Some(from) = store.replay_left_from else {
        return Ok(());
    };
    let salts = store.manifest()?.state().logs.clone();
    let segments: Vec<u64> = salts.keys().copied().collect();
    let request = ReplayRequest {
        segments: &segments,
        salts: &salts,
        clean_end,
        live: false,
    };
    let log_ends_in = store.log_current.load(Ordering::Acquire);
    replay(&store.env, &request, |batch| {
        if batch.first_sequence < from {
            return Ok(());
        }
        // What is behind this place is in no memtable yet: the log may not be let go of beyond it.
        store.log_current.store(batch.segment, Ordering::Release);
        make_room(store, &batch)?;
        let view = store.views.pin();
        operations(&store.env, state, &view, &batch, true)
    })?;
    store.log_current.store(log_ends_in, Ordering::Release);
    Ok(())
}

/// Flushes until there is room for a batch.
fn make_room(store: &Arc<Store>, batch: &ReplayedBatch<'_>) -> Result<()> {
    let before = batch.first_sequence.saturating_sub(1);
    while !has_room(&store.memory, batch.operations.len() as u64) {
        if crate::flush::flush_next(store)? {
            continue;
        }
        // A batch that is larger than all the room there is goes in alone.
        if store.seal_largest(before).is_none() {
            store.memory.rebalance();
            break;
        }
    }
    Ok(())
}

/// Checks the operations of a batch, and inserts those that are in no table yet if `insert` says so.
fn operations(
    env: &Env,
    state: &State,
    view: &View,
    batch: &ReplayedBatch<'_>,
    insert: bool,
) -> Result<()> {
    let damaged = |problem: &str| {
        let path = env.path(FileKind::Log, batch.segment);
        Error::corruption(&path, 0, problem)
    };
    let mut decoder = Decoder::new(batch.operations);
    let last = batch.first_sequence.checked_add(u64::from(batch.count));
    let last = last.filter(|&last| last <= SEQUENCE_MAX);
    let sequences =
        batch.first_sequence..last.ok_or_else(|| damaged("a sequence number out of bounds"))?;
    for sequence in sequences {
        let operation = decode_operation(&mut decoder)
            .ok_or_else(|| damaged("a batch holds an operation that makes no sense"))?;
        let Some(keyspace) = view.keyspace(operation.keyspace) else {
            if operation.keyspace.0 < state.next_keyspace {
                continue; // It was dropped later.
            }
            return Err(damaged("a batch names a keyspace that never existed"));
        };
        let flushed = &state.keyspaces[&operation.keyspace.0].flushed_through;
        if sequence <= *flushed || !insert {
            continue;
        }
        if keyspace.active.is_empty() {
            let first = &keyspace.active.first_log;
            first.store(batch.segment, Ordering::Release);
        }
        keyspace.active.apply(&operation, sequence);
    }
    if decoder.is_empty() {
        Ok(())
    } else {
        Err(damaged("a batch is longer than its operations"))
    }
}
