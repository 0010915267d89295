//! Filling the keyspace of a vault that nobody sees yet.
//!
//! Entries that come in the order of their keys go into tables, past the log and the memtables: writers are held up no more than
//! by any reader, and nothing is sorted or written twice. Entries with an expiry go through the log, because tables made in
//! bulk have none, and so do all where they come in no order, or the engine is not Vault's own.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use vault_core::{KeyspaceId, Slice, Timestamp, WriteBatch, WriteOptions};

use super::shared::Shared;
use crate::catalog::{self, Counts, Delta, Keyspaces, Tally};
use crate::error::{Error, Result};
use crate::value::Stored;

/// Entries between two calls of `progress`.
const PROGRESS_EVERY: u64 = 4096;
/// Bytes of entries that go through the log at once, but for a single one that is larger: less than any engine's batches may have.
const BATCH_BYTES: usize = 256 << 10;

/// How far a copy has come.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let vault = db.vault("notes")?;
/// vault.update((0..5_000).map(|n| (n, n)))?;
/// vault.copy_with("copy", |progress| {
///     println!("{} of {}", progress.entries_done, progress.entries_total);
///     std::ops::ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyProgress {
    /// Entries copied.
    pub entries_done: u64,
    /// Entries in all, as far as it is known.
    pub entries_total: u64,
    /// Bytes of keys and values copied.
    pub bytes_done: u64,
}

/// A vault that is being made, and that nobody sees yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) id: u32,
    pub(crate) keyspace: KeyspaceId,
}

/// Whether to go on.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(CopyProgress) -> ControlFlow<()>;

impl Shared {
    /// Fills a vault with stored entries that come in the order of their keys.
    pub(crate) fn fill(
        &self,
        begun: &Begun,
        entries: impl Iterator<Item = vault_core::Result<(Slice, Slice)>>,
        total: u64,
        progress: Progress<'_>,
    ) -> Result<Tally> {
        let mut filling = Filling::begin(self, begun)?;
        let mut passing = Passing {
            done: CopyProgress {
                entries_total: total,
                ..CopyProgress::default()
            },
            failure: None,
        };
        // What is ingested is not in the log.
        match self.lsm.as_ref().filter(|lsm| !lsm.is_shipping()) {
            Some(lsm) => {
                let plain = entries
                    .map_while(|entry| passing.pass(&mut filling, entry, progress))
                    .flatten();
                let ingested = lsm.ingest(begun.keyspace, plain);
                self.ingests.fetch_add(1, Ordering::AcqRel);
                // A failure on the way ends the iterator early: what was taken in until then does not count.
                passing.check()?;
                ingested?;
            }
            None => {
                for entry in entries {
                    match passing.pass(&mut filling, entry, progress) {
                        None => break,
                        Some(None) => {}
                        // It was counted on its way.
                        Some(Some((key, stored))) => filling.add(&key, &stored, None)?,
                    }
                }
                passing.check()?;
            }
        }
        filling.finish()
    }

    /// Takes away what was made of a vault that will not appear. Should this fail, the next opening does it.
    pub(crate) fn abandon(&self, begun: &Begun) {
        let Ok(keyspaces) = self.keyspaces() else {
            return;
        };
        let mut batch = WriteBatch::new();
        batch.delete_prefix(keyspaces.expiry, &catalog::expiry_prefix(begun.id));
        let _ = self.engine.write(&batch, &WriteOptions::OS);
        let _ = self.discard(&[(begun.id, begun.keyspace)]);
    }
}

/// Entries on their way into tables.
struct Passing {
    done: CopyProgress,
    failure: Option<Error>,
}

impl Passing {
    /// Takes an entry. Gives it back if it has no expiry; `None` after a failure.
    fn pass(
        &mut self,
        filling: &mut Filling<'_>,
        entry: vault_core::Result<(Slice, Slice)>,
        progress: Progress<'_>,
    ) -> Option<Option<(Slice, Slice)>> {
        let passed = entry.map_err(Error::Engine).and_then(|(key, stored)| {
            self.count(progress, &key, &stored)?;
            let parsed = Stored::parse(&stored).ok_or_else(|| Error::Malformed {
                what: format!("the value of {}", crate::key::printable(&key)),
                problem: "it begins with no form of value that this build knows".to_owned(),
            })?;
            match parsed.expiry {
                Some(expiry) => {
                    filling.put(&key, &stored, Some(expiry))?;
                    Ok(None)
                }
                None => {
                    filling.delta.insert(&key, stored.len() as u64, false);
                    Ok(Some((key, stored)))
                }
            }
        });
        passed.map_err(|error| self.failure = Some(error)).ok()
    }

    fn count(&mut self, progress: Progress<'_>, key: &[u8], stored: &[u8]) -> Result<()> {
        self.done.entries_done += 1;
        self.done.bytes_done += (key.len() + stored.len()) as u64;
        if self.done.entries_done.is_multiple_of(PROGRESS_EVERY) && progress(self.done).is_break() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

/// A vault that is being filled through the log.
pub(crate) struct Filling<'a> {
    shared: &'a Shared,
    keyspaces: Keyspaces,
    id: u32,
    keyspace: KeyspaceId,
    batch: WriteBatch,
    /// The keys of the batch.
    keys: BTreeSet<Vec<u8>>,
    delta: Delta,
}

impl<'a> Filling<'a> {
    pub(crate) fn begin(shared: &'a Shared, begun: &Begun) -> Result<Self> {
        Ok(Self {
            shared,
            keyspaces: shared.keyspaces()?,
            id: begun.id,
            keyspace: begun.keyspace,
            batch: WriteBatch::new(),
            keys: BTreeSet::new(),
            delta: Delta::default(),
        })
    }

    /// Adds an entry whose key is not there yet.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        stored: &[u8],
        expiry: Option<Timestamp>,
    ) -> Result<()> {
        self.add(key, stored, expiry)?;
        let value_bytes = stored.len() as u64;
        self.delta.insert(key, value_bytes, expiry.is_some());
        Ok(())
    }

    /// Adds an entry to the batch, and does not count it.
    fn add(&mut self, key: &[u8], stored: &[u8], expiry: Option<Timestamp>) -> Result<()> {
        if self.batch.encoded().len() + key.len() + stored.len() > BATCH_BYTES {
            self.write()?;
        }
        match expiry {
            None => self.batch.put(self.keyspace, key, stored),
            Some(expiry) => self
                .batch
                .put_until(self.keyspace, key, stored, expiry)
                .put(
                    self.keyspaces.expiry,
                    &catalog::expiry_key(self.id, expiry, key),
                    &(stored.len() as u64).to_le_bytes(),
                ),
        };
        Ok(())
    }

    /// Adds an entry, and gives whether its key was not there yet. For entries in no order.
    pub(crate) fn put_new(
        &mut self,
        key: &[u8],
        stored: &[u8],
        expiry: Option<Timestamp>,
    ) -> Result<bool> {
        let there = self.shared.engine.entry_info(self.keyspace, key)?;
        if there.is_some() || self.keys.contains(key) {
            return Ok(false);
        }
        // What is in the batch already may be written first.
        self.put(key, stored, expiry)?;
        self.keys.insert(key.to_vec());
        Ok(true)
    }

    /// Entries so far.
    pub(crate) const fn entries(&self) -> u64 {
        self.delta.entries.unsigned_abs()
    }

    /// Bytes of keys and values so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.delta.bytes().unsigned_abs()
    }

    fn write(&mut self) -> Result<()> {
        match self.shared.engine.write(&self.batch, &WriteOptions::OS) {
            // Something expired on the way: the vault goes without it.
            Err(vault_core::Error::InvalidExpiry { .. }) => self.write_one_by_one()?,
            other => {
                other?;
            }
        }
        self.batch.clear();
        self.keys.clear();
        Ok(())
    }

    /// Writes what has not expired yet of a batch in which something has.
    fn write_one_by_one(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let mut operations = batch.iter();
        while let Some(entry) = operations.next() {
            let mut one = WriteBatch::new();
            match entry.expiry {
                None => one.put(entry.keyspace, entry.key, entry.value),
                Some(expiry) => one.put_until(entry.keyspace, entry.key, entry.value, expiry),
            };
            if entry.expiry.is_some()
                && let Some(index) = operations.next()
            {
                one.put(index.keyspace, index.key, index.value);
            }
            match self.shared.engine.write(&one, &WriteOptions::OS) {
                Err(vault_core::Error::InvalidExpiry { .. }) => {
                    let value_bytes = entry.value.len() as u64;
                    self.delta.remove(entry.key, value_bytes, true);
                }
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }

    /// Writes what is left, and gives the tally of the vault.
    pub(crate) fn finish(mut self) -> Result<Tally> {
        self.write()?;
        let counts = Counts::new(&Tally::empty(self.shared.now()));
        counts.add(&self.delta);
        Ok(counts.tally())
    }
}
