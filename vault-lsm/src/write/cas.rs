//! Compare-and-set.
//!
//! The comparison reads without any lock. Under the commit lock only one question is left: was the key
//! written since? Its answer stands in the active memtable, as long as the view is the same. Where it
//! was, everything starts over; after a few rounds the comparison is made under the lock, so that the
//! call ends however busy the key is.

use std::sync::Arc;

use vault_core::{CasOutcome, KeyspaceId, Result, SequenceNumber, WriteBatch, WriteOptions};

use crate::counters::Operation as Counted;
use crate::internal_key::sequence_of;
use crate::keyspace::KeyspaceView;
use crate::read::get;
use crate::store::{Store, unknown_keyspace};
use crate::write::admission::{Patience, admit};
use crate::write::validate;

/// Rounds without the lock before the comparison is made under it.
const OPTIMISTIC_ROUNDS: usize = 4;

impl Store {
    /// Replaces the value of `key` by `new` if it is `expected`.
    pub(crate) fn compare_and_set(
        self: &Arc<Self>,
        keyspace: KeyspaceId,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        options: &WriteOptions,
    ) -> Result<CasOutcome> {
        let timing = self
            .counters
            .begin(Counted::CompareAndSet, &*self.env.clock);
        self.check_writable()?;
        let mut batch = WriteBatch::with_capacity(key.len() + new.map_or(0, <[u8]>::len) + 16);
        match new {
            Some(value) => batch.put(keyspace, key, value),
            None => batch.delete(keyspace, key),
        };
        let view = self.views.pin();
        validate::check(self, &view, &batch)?;
        let mut admitted = admit(self, view, &batch, Patience::Wait)?;
        admitted.checked = None;

        for round in 0.. {
            let under_lock = (round >= OPTIMISTIC_ROUNDS)
                .then(|| self.commit())
                .transpose()?;
            let (view, sequence) = self.pin()?;
            let found = view
                .keyspace(keyspace)
                .ok_or_else(|| unknown_keyspace(keyspace))?;
            let current = get::get(found, key, sequence, &*self.env.clock)?;
            if current.as_deref() != expected {
                return Ok(CasOutcome::Mismatch(current));
            }
            let commit = match under_lock {
                Some(commit) => commit,
                None => self.commit()?,
            };
            if admitted.is_outdated(self, &batch) {
                // Others came in between, and memory is full again. What was read keeps memtables from being freed.
                drop((commit, view));
                admitted = admit(self, self.views.pin(), &batch, Patience::Wait)?;
                admitted.checked = None;
                continue;
            }
            let unchanged = self.views.is_current(&view) && !written_since(found, key, sequence);
            if !unchanged && round < OPTIMISTIC_ROUNDS {
                continue;
            }
            let committed = self.commit_batch(commit, &batch, None)?;
            self.make_durable(committed.log_end, options)?;
            self.counters
                .end(Counted::CompareAndSet, &timing, &*self.env.clock);
            return Ok(CasOutcome::Swapped(committed.sequence));
        }
        unreachable!("the rounds under the lock always end")
    }
}

/// Whether the key was written behind `sequence`. Anything that new stands in the active memtable.
fn written_since(view: &KeyspaceView, key: &[u8], sequence: SequenceNumber) -> bool {
    let memtable = &view.active.memtable;
    memtable
        .latest_version(key)
        .is_some_and(|trailer| sequence_of(trailer) > sequence)
        || memtable
            .range_tombstones()
            .and_then(|tombstones| tombstones.covering(key, SequenceNumber::MAX))
            .is_some_and(|covering| covering > sequence)
}
