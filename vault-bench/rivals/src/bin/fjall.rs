//! fjall 3.1, with its best reasonable settings at equal memory.
//!
//! Where nothing is said below, fjall's defaults stand: its authors know it best. Those that matter
//! here: blocks of 4 KiB; a filter of 10 bits a key, finer in the top level; LZ4 from the third level
//! on and no compression above it, which saves it work in fills; one background thread a core, up to
//! four; a journal of up to 512 MiB; leveled compaction. Values of 1 KiB and more stand apart (its key-value separation), as
//! they do in the other log-structured engines; the standard workload has none.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OptimisticTxDatabase,
    PersistMode, Readable, Snapshot,
};
use vault_bench::data::Entry;
use vault_bench::settings::Settings;
use vault_bench::target::{Direction, EngineKind, Held, Target, Verb, wait_until_quiet};
use vault_bench::timeline::Accounted;
use vault_bench::{Error, Result};
use vault_bench_rivals::{locked_version, worker};
use vault_core::clock::SystemClock;

const NAME: &str = "fjall";
/// From this size on values stand apart: fjall's own threshold, once its separation is on.
const APART_BYTES_MIN: usize = 1024;

fn main() -> ExitCode {
    worker(EngineKind {
        name: NAME,
        version: locked_version(NAME),
        persists: true,
        setup: "defaults (4 KiB blocks, bloom 10 bits, LZ4 from the third level), cache and memtable as set; values apart from 1 KiB",
        open,
    })
}

struct Fjall {
    keyspace: Keyspace,
    database: Database,
    /// The same database, with its optimistic transactions.
    transactions: OptimisticTxDatabase,
    clock: SystemClock,
}

fn own<T>(result: fjall::Result<T>) -> Result<T> {
    result.map_err(|e| Error::engine(NAME, &e))
}

fn open(dir: &Path, settings: &Settings) -> Result<Box<dyn Target>> {
    let mut builder = OptimisticTxDatabase::builder(dir)
        // One cache for blocks, filters and indexes, as large as everyone's.
        .cache_size(settings.cache_bytes());
    if settings.background_threads > 0 {
        builder = builder.worker_threads(settings.background_threads);
    }
    let transactions = own(builder.open())?;
    // All but transactions goes past their bookkeeping, as in a database without them.
    let database = transactions.inner().clone();
    let options = || {
        KeyspaceCreateOptions::default()
            // fjall allows up to four full ones to wait for their flush on top of this.
            .max_memtable_size(settings.write_buffer_bytes())
            // The default, named because it decides what a write means: each write passes its journal
            // entry to the operating system before it returns, as Vault's durability `Os` does.
            .manual_journal_persist(false)
            .with_kv_separation(
                (settings.value_bytes >= APART_BYTES_MIN).then(KvSeparationOptions::default),
            )
    };
    let keyspace = own(database.keyspace("bench", options))?;
    Ok(Box::new(Fjall {
        keyspace,
        database,
        transactions,
        clock: SystemClock::new(),
    }))
}

struct HeldSnapshot<'a> {
    snapshot: Snapshot,
    keyspace: &'a Keyspace,
}

impl Held for HeldSnapshot<'_> {
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = own(self.snapshot.get(self.keyspace, key))?;
        if let Some(value) = &value {
            read(value);
        }
        Ok(value.is_some())
    }
}

impl Target for Fjall {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        own(self.keyspace.insert(key, value))?;
        if durable {
            // `fdatasync`, which is what a durable write of Vault is, rather than the dearer `fsync`. Apart
            // from the insert on purpose: while one thread waits for the disk others can insert, and a
            // batch of one with this durability would hold the journal meanwhile. Taken in turn, three
            // times each, the two ways were equally fast (16 threads: 9.6 and 10 thousand a second).
            own(self.database.persist(PersistMode::SyncData))?;
        }
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = self.database.batch();
        for entry in entries {
            batch.insert(&self.keyspace, entry.key.as_slice(), entry.value.as_slice());
        }
        own(batch.commit())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        own(self.keyspace.remove(key))
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = own(self.keyspace.get(key))?;
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
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut give = |guard: fjall::Guard| {
            let (key, value) = own(guard.into_inner())?;
            visit(&key, &value);
            Ok(())
        };
        match (direction, from) {
            (Direction::Forward, Some(key)) => self
                .keyspace
                .range(key..)
                .take(limit)
                .try_for_each(&mut give),
            (Direction::Forward, None) => self.keyspace.iter().take(limit).try_for_each(&mut give),
            (Direction::Backward, Some(key)) => self
                .keyspace
                .range(..=key)
                .rev()
                .take(limit)
                .try_for_each(&mut give),
            (Direction::Backward, None) => self
                .keyspace
                .iter()
                .rev()
                .take(limit)
                .try_for_each(&mut give),
        }
    }

    fn offers(&self, verb: Verb) -> bool {
        matches!(verb, Verb::Snapshot | Verb::Transactions)
    }

    fn transact(&self, entries: &[Entry]) -> Result<()> {
        loop {
            let mut transaction = own(self.transactions.write_tx())?;
            for entry in entries {
                if own(transaction.get(&self.keyspace, entry.key.as_slice()))?.is_none() {
                    return Err(Error::engine(NAME, &"a key that was loaded is missing"));
                }
            }
            for entry in entries {
                transaction.insert(&self.keyspace, entry.key.as_slice(), entry.value.as_slice());
            }
            if own(transaction.commit())?.is_ok() {
                return Ok(());
            }
        }
    }

    fn while_held(&self, work: &mut dyn FnMut(&dyn Held) -> Result<()>) -> Result<()> {
        work(&HeldSnapshot {
            snapshot: self.database.snapshot(),
            keyspace: &self.keyspace,
        })
    }

    fn settle(&self) -> Result<Duration> {
        // fjall's own `rotate_memtable_and_wait` may never return (one run with one worker thread stood still here, cause not found): this
        // waits from outside, and can give up.
        own(self.keyspace.rotate_memtable())?;
        wait_until_quiet(NAME, &self.clock, || {
            let waiting =
                self.keyspace.sealed_memtable_count() + self.database.outstanding_flushes();
            if waiting + self.database.active_compactions() > 0 {
                return Ok(None);
            }
            Ok(Some(self.database.compactions_completed() as u64))
        })
    }

    fn memory(&self) -> Option<Accounted> {
        Some(Accounted {
            used_bytes: self.database.cache_size() + self.database.write_buffer_size(),
            budget_bytes: 0,
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        // A database ends when its last handle goes, and gives no errors: those of the disk are asked
        // for before.
        own(self.database.persist(PersistMode::Buffer))
    }
}
