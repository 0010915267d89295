//! The transactions that are open and may commit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};

use vault_core::{SequenceNumber, Snapshot};

use crate::commit::Outcome;
use crate::database::{Shared, lock};
use crate::error::Result;

/// The transactions that are open and may commit: while there are any, commits are remembered.
#[derive(Default)]
pub(crate) struct Active {
    count: AtomicUsize,
    /// How many began at each moment.
    moments: Mutex<BTreeMap<SequenceNumber, usize>>,
    committed: AtomicU64,
    collided: AtomicU64,
    given_up: AtomicU64,
}

impl Active {
    /// Takes a moment for a transaction. Every commit behind it is remembered until the transaction has ended.
    pub(crate) fn register(shared: &Arc<Shared>) -> Result<(Registered, Arc<dyn Snapshot>)> {
        let active = &shared.transactions;
        // Under the lock, so that nobody forgets what this moment needs before it is in the list.
        let mut moments = lock(&active.moments);
        active.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let snapshot = shared.engine.snapshot().inspect_err(|_| {
            active.count.fetch_sub(1, Ordering::SeqCst);
        })?;
        let moment = snapshot.sequence();
        *moments.entry(moment).or_insert(0) += 1;
        drop(moments);
        let registered = Registered {
            shared: Arc::clone(shared),
            moment,
        };
        Ok((registered, snapshot))
    }

    /// Counts how a transaction that could write has ended; `None`: it was given up.
    pub(crate) fn ended(&self, outcome: Option<Outcome>) {
        let count = match outcome {
            Some(Outcome::Committed) => &self.committed,
            Some(Outcome::Conflict) => &self.collided,
            None => &self.given_up,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How transactions that could write have ended so far.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 3] {
        [
            ("committed", self.committed.load(Ordering::Relaxed)),
            ("collided", self.collided.load(Ordering::Relaxed)),
            ("given up", self.given_up.load(Ordering::Relaxed)),
        ]
    }

    /// Whether any is open.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// The oldest moment that an open transaction reads.
    pub(crate) fn oldest(&self) -> SequenceNumber {
        let moments = lock(&self.moments);
        moments.keys().next().copied().unwrap_or(0)
    }
}

/// Keeps a transaction in the list.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    moment: SequenceNumber,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let active = &self.shared.transactions;
        let mut moments = lock(&active.moments);
        if let Some(count) = moments.get_mut(&self.moment) {
            *count -= 1;
            if *count == 0 {
                moments.remove(&self.moment);
            }
        }
        active.count.fetch_sub(1, Ordering::SeqCst);
    }
}
