//! What an engine must offer to be measured.
//!
//! The calls are as thin as they can be: values are lent to a closure where the engine can lend them,
//! so that no engine pays for a copy that its users would not make.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};
use vault_core::{Engine, KeyRange, KeyspaceId, Snapshot, Timestamp, WriteBatch, WriteOptions};

use crate::data::Entry;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::timeline::Accounted;

/// How long nothing must happen in an engine's background for it to count as settled.
pub const QUIET: Duration = Duration::from_millis(300);

/// How long an engine may say that work is waiting, without any being done, before it counts as stuck.
const STUCK: Duration = Duration::from_secs(600);

/// How often an engine is asked whether it is still at work.
const POLL: Duration = Duration::from_millis(2);

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards larger keys.
    Forward,
    /// Towards smaller keys.
    Backward,
}

/// What not every engine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// [`Target::delete_range`].
    RangeDelete,
    /// [`Target::put_until`].
    Expiry,
    /// [`Target::while_held`].
    Snapshot,
    /// [`Target::transact`].
    Transactions,
}

impl Verb {
    /// What an engine that lacks it does not have.
    #[must_use]
    pub const fn missing(self) -> &'static str {
        match self {
            Self::RangeDelete => "no range deletes",
            Self::Expiry => "no entries that expire",
            Self::Snapshot => "no snapshots",
            Self::Transactions => "no transactions",
        }
    }
}

/// A snapshot that is held.
pub trait Held {
    /// Looks one key up as it was, as [`Target::get`] does.
    ///
    /// # Errors
    /// The engine's own.
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool>;
}

/// An open store of the engine under test. All threads share it.
pub trait Target: Send + Sync {
    /// Sets one key. `durable`: on stable storage before this returns; else handed to the operating
    /// system.
    ///
    /// # Errors
    /// The engine's own, as all methods here.
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()>;

    /// Sets all keys at once, not durably.
    ///
    /// # Errors
    /// The engine's own.
    fn put_batch(&self, entries: &[Entry]) -> Result<()>;

    /// Removes one key, not durably.
    ///
    /// # Errors
    /// The engine's own.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Looks one key up, and lends its value to `read` if it is there. Says whether it was.
    ///
    /// # Errors
    /// The engine's own.
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Opens an iterator, positions it at `from` (the first key at or behind it in the direction; an
    /// end of the store where `None`), and lends up to `limit` entries to `visit`. A new iterator each
    /// time, for that is what it takes to see the latest writes.
    ///
    /// # Errors
    /// The engine's own.
    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<()>;

    /// Whether it can do something that not every engine can.
    fn offers(&self, _verb: Verb) -> bool {
        false
    }

    /// Removes every key from `from` up to `to`, which stays, in one operation. Not durably.
    ///
    /// # Errors
    /// The engine's own; that it has no such thing, where [`Target::offers`] says so.
    fn delete_range(&self, _from: &[u8], _to: &[u8]) -> Result<()> {
        Err(Error::engine("this engine", &"it has no range deletes"))
    }

    /// Sets one key until a moment of the wall clock. Not durably.
    ///
    /// # Errors
    /// As [`Target::delete_range`].
    fn put_until(&self, _key: &[u8], _value: &[u8], _expiry: Timestamp) -> Result<()> {
        Err(Error::engine("this engine", &"its entries don't expire"))
    }

    /// In one serializable transaction, reads each of the keys, which are there, and then sets each. Not durably. Runs again
    /// until it has not collided with another.
    ///
    /// # Errors
    /// As [`Target::delete_range`]; that a key is missing.
    fn transact(&self, _entries: &[Entry]) -> Result<()> {
        Err(Error::engine("this engine", &"it has no transactions"))
    }

    /// Takes a snapshot and holds it while `work` runs, which may read through it.
    ///
    /// # Errors
    /// As [`Target::delete_range`]; those of `work`.
    fn while_held(&self, _work: &mut dyn FnMut(&dyn Held) -> Result<()>) -> Result<()> {
        Err(Error::engine(
            "this engine",
            &"it has no snapshots that are held",
        ))
    }

    /// Moves everything to tables and waits until no background work is left. Gives the time that was
    /// spent only on making sure that nothing more came; the caller takes it off.
    ///
    /// # Errors
    /// The engine's own.
    fn settle(&self) -> Result<Duration>;

    /// What the engine says of its own memory, where it can tell.
    fn memory(&self) -> Option<Accounted> {
        None
    }

    /// Ends the engine's work and lets go of the store.
    ///
    /// # Errors
    /// The engine's own.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Opens or creates a store in a directory.
pub type Open = fn(&Path, &Settings) -> Result<Box<dyn Target>>;

/// An engine that a worker can run.
#[derive(Debug, Clone)]
pub struct EngineKind {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Whether a store is still there after it was closed.
    pub persists: bool,
    /// How it is set up, in a sentence, for the report.
    pub setup: &'static str,
    /// Opens a store.
    pub open: Open,
}

/// Anything that implements the engine trait, as a target.
pub struct EngineTarget {
    name: &'static str,
    engine: Arc<dyn Engine>,
    keyspace: KeyspaceId,
    clock: SystemClock,
    settle: Option<Settle>,
}

/// An engine's own way to wait until no background work is left.
type Settle = Box<dyn Fn() -> vault_core::Result<()> + Send + Sync>;

impl EngineTarget {
    /// Measures this engine through this keyspace of it.
    #[must_use]
    pub fn new(name: &'static str, engine: Arc<dyn Engine>, keyspace: KeyspaceId) -> Self {
        Self {
            name,
            engine,
            keyspace,
            clock: SystemClock::new(),
            settle: None,
        }
    }

    /// Settles by the engine's own means, which know when the work is done. Without them it counts as
    /// done once the engine's statistics have stood still for [`QUIET`].
    #[must_use]
    pub fn settle_with(
        mut self,
        settle: impl Fn() -> vault_core::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.settle = Some(Box::new(settle));
        self
    }

    fn own<T>(&self, result: vault_core::Result<T>) -> Result<T> {
        result.map_err(|e| Error::engine(self.name, &e))
    }

    /// A figure that changes while the engine works in the background, or `None` while it is certain
    /// that work is waiting.
    fn activity(&self) -> Result<Option<u64>> {
        let stats = self.own(self.engine.stats())?;
        if stats.keyspaces.iter().any(|k| k.memtables_waiting > 0) {
            return Ok(None);
        }
        let (work, written) = (&stats.background, &stats.written);
        let jobs = work.flushes
            + work.compactions
            + work.tables_moved
            + work.tables_dropped
            + work.collections;
        let bytes = written.flush_bytes + written.compaction_bytes + written.manifest_bytes;
        Ok(Some(jobs.wrapping_add(bytes)))
    }
}

impl Target for EngineTarget {
    #[inline]
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        let options = if durable {
            WriteOptions::SYNC
        } else {
            WriteOptions::OS
        };
        self.own(self.engine.put(self.keyspace, key, value, &options))?;
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let bytes = entries
            .iter()
            .map(|e| e.key.len() + e.value.len() + 16)
            .sum();
        let mut batch = WriteBatch::with_capacity(bytes);
        for entry in entries {
            batch.put(self.keyspace, &entry.key, &entry.value);
        }
        self.own(self.engine.write(&batch, &WriteOptions::OS))?;
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.own(self.engine.delete(self.keyspace, key, &WriteOptions::OS))?;
        Ok(())
    }

    #[inline]
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.own(self.engine.get(self.keyspace, key))?;
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let all = KeyRange {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
        };
        let mut cursor = self.own(self.engine.cursor(self.keyspace, all))?;
        self.own(match (direction, from) {
            (Direction::Forward, Some(key)) => cursor.seek(key),
            (Direction::Forward, None) => cursor.first(),
            (Direction::Backward, Some(key)) => cursor.seek_back(key),
            (Direction::Backward, None) => cursor.last(),
        })?;
        let mut left = limit;
        while let (1.., Some((key, value))) = (left, cursor.entry()) {
            visit(key, value);
            left -= 1;
            // The entry behind the last one that was asked for is nobody's business.
            if left > 0 {
                self.own(match direction {
                    Direction::Forward => cursor.next(),
                    Direction::Backward => cursor.prev(),
                })?;
            }
        }
        Ok(())
    }

    fn offers(&self, verb: Verb) -> bool {
        // The engine has batches and snapshots; transactions are the data layer's.
        verb != Verb::Transactions
    }

    fn delete_range(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete_range(self.keyspace, from, to);
        self.own(self.engine.write(&batch, &WriteOptions::OS))?;
        Ok(())
    }

    fn put_until(&self, key: &[u8], value: &[u8], expiry: Timestamp) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put_until(self.keyspace, key, value, expiry);
        self.own(self.engine.write(&batch, &WriteOptions::OS))?;
        Ok(())
    }

    fn while_held(&self, work: &mut dyn FnMut(&dyn Held) -> Result<()>) -> Result<()> {
        let snapshot = self.own(self.engine.snapshot())?;
        work(&HeldSnapshot {
            target: self,
            snapshot: &*snapshot,
        })
    }

    fn settle(&self) -> Result<Duration> {
        self.own(self.engine.flush(None))?;
        if let Some(settle) = &self.settle {
            self.own(settle())?;
            return Ok(Duration::ZERO);
        }
        wait_until_quiet(self.name, &self.clock, || self.activity())
    }

    fn memory(&self) -> Option<Accounted> {
        let memory = self.engine.stats().ok()?.memory;
        let parts = [
            memory.memtables,
            memory.cache,
            memory.table_metadata,
            memory.cursors,
            memory.background,
        ];
        Some(Accounted {
            used_bytes: parts.iter().sum(),
            budget_bytes: memory.budget,
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.own(self.engine.close())
    }
}

struct HeldSnapshot<'a> {
    target: &'a EngineTarget,
    snapshot: &'a dyn Snapshot,
}

impl Held for HeldSnapshot<'_> {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self
            .target
            .own(self.snapshot.get(self.target.keyspace, key))?;
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }
}

/// Waits until `activity` has given the same figure for [`QUIET`], and gives the time since it last
/// changed. `None` from it means that work is certainly waiting or going on.
///
/// # Errors
/// Those of `activity`; [`Error::Engine`] where it has said `None` for ten minutes on end: a run must
/// not wait for ever because one engine hangs.
pub fn wait_until_quiet(
    engine: &str,
    clock: &dyn Clock,
    mut activity: impl FnMut() -> Result<Option<u64>>,
) -> Result<Duration> {
    let mut last = activity()?;
    let mut changed = clock.monotonic();
    loop {
        clock.sleep(POLL);
        let (now, found) = (clock.monotonic(), activity()?);
        if found != last {
            (last, changed) = (found, now);
        } else if found.is_some() && now - changed >= QUIET {
            return Ok(now - changed);
        } else if found.is_none() && now - changed >= STUCK {
            return Err(Error::engine(
                engine,
                &"its background work does not come to an end",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_core::clock::ManualClock;

    #[test]
    fn quiet_begins_with_the_last_change() {
        let clock = ManualClock::new(Timestamp(0));
        let mut calls = 0;
        let idle = wait_until_quiet("x", &clock, || {
            calls += 1;
            Ok(match calls {
                1..50 => Some(calls),
                50..100 => None,
                _ => Some(7),
            })
        })
        .unwrap();
        assert_eq!(idle, QUIET);
        let polls = u32::try_from(calls).unwrap() - 1;
        assert_eq!(clock.monotonic(), POLL * polls);
        assert!(clock.monotonic() > QUIET + POLL * 98);
    }

    #[test]
    fn an_engine_that_never_comes_to_rest_is_given_up() {
        let clock = ManualClock::new(Timestamp(0));
        let error = wait_until_quiet("x", &clock, || Ok(None)).unwrap_err();
        assert!(matches!(error, Error::Engine { .. }), "{error}");
        assert!(clock.monotonic() >= STUCK);
    }
}
