//! The transactions that are open and may commit.
//!
//! While there are any, commits are remembered, and what the oldest of them reads is kept on disk. Each stands in the list
//! with its moment and its deadline. One that is over its deadline can never commit: that is looked at once more when
//! everything it relies on is held. So whoever looks into the list takes it out, with its snapshot, and one that somebody
//! keeps and has forgotten bounds nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vault_core::{Clock, SequenceNumber, Snapshot};

use crate::commit::Outcome;
use crate::database::{Epoch, Shared, lock};
use crate::error::{Error, Result};

/// What a transaction reads.
pub(super) struct Moment {
    pub(super) snapshot: Arc<dyn Snapshot>,
    /// What names mean in it.
    pub(super) epoch: Arc<Epoch>,
}

/// Until when a transaction may commit, by the clock that never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Duration,
    max: Duration,
}

impl Deadline {
    pub(super) const fn new(began: Duration, max: Duration) -> Self {
        let at = began.saturating_add(max);
        Self { at, max }
    }

    fn is_over(&self, now: Duration) -> bool {
        now > self.at
    }

    /// Refuses where the time is over.
    pub(crate) fn check(&self, clock: &dyn Clock) -> Result<()> {
        if self.is_over(clock.monotonic()) {
            return Err(Error::TransactionTooLong { max: self.max });
        }
        Ok(())
    }
}

/// The transactions that are open and may commit: while there are any, commits are remembered.
#[derive(Default)]
pub(crate) struct Active {
    /// How many are in the list, or about to be.
    count: AtomicUsize,
    open: Mutex<Open>,
    committed: AtomicU64,
    collided: AtomicU64,
    given_up: AtomicU64,
}

#[derive(Default)]
struct Open {
    /// By their moments; the number tells those of one moment apart.
    list: BTreeMap<Place, Entry>,
    next: u64,
}

type Place = (SequenceNumber, u64);

struct Entry {
    deadline: Deadline,
    /// Kept here and by nobody else for long, so that it can be let go of.
    _moment: Arc<Moment>,
}

impl Active {
    /// Takes a moment for a transaction. Every commit behind it is remembered until the transaction has ended, or its time
    /// is over; the moment is kept for as long.
    pub(super) fn register(
        shared: &Arc<Shared>,
        epoch: &Arc<Epoch>,
        deadline: Deadline,
    ) -> Result<(Registered, Arc<Moment>)> {
        let active = &shared.transactions;
        // Under the lock, so that nobody forgets what this moment needs before it is in the list.
        let mut open = lock(&active.open);
        active.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let snapshot = shared.engine.snapshot().inspect_err(|_| {
            active.count.fetch_sub(1, Ordering::SeqCst);
        })?;
        let place = (snapshot.sequence(), open.next);
        open.next += 1;
        let moment = Arc::new(Moment {
            snapshot,
            epoch: Arc::clone(epoch),
        });
        let entry = Entry {
            deadline,
            _moment: Arc::clone(&moment),
        };
        open.list.insert(place, entry);
        drop(open);
        let registered = Registered {
            shared: Arc::clone(shared),
            place,
        };
        Ok((registered, moment))
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

    /// Whether any is open. One that is over its time counts until [`Active::oldest`] has come upon it.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// The oldest moment that an open transaction reads, if there is one. Takes those out that stand before it and are over
    /// their time.
    pub(crate) fn oldest(&self, clock: &dyn Clock) -> Option<SequenceNumber> {
        let now = clock.monotonic();
        let mut over = Vec::new();
        let mut open = lock(&self.open);
        let oldest = loop {
            match open.list.first_entry() {
                Some(first) if first.get().deadline.is_over(now) => over.push(first.remove()),
                first => break first.map(|first| first.key().0),
            }
        };
        self.count.fetch_sub(over.len(), Ordering::SeqCst);
        drop(open);
        // Outside the lock: with these, what their snapshots kept goes.
        drop(over);
        oldest
    }
}

/// Keeps a transaction in the list, unless its time is over.
pub(super) struct Registered {
    shared: Arc<Shared>,
    place: Place,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let active = &self.shared.transactions;
        let mut open = lock(&active.open);
        let entry = open.list.remove(&self.place);
        if entry.is_some() {
            active.count.fetch_sub(1, Ordering::SeqCst);
        }
        drop(open);
        // Outside the lock, as above.
        drop(entry);
    }
}
