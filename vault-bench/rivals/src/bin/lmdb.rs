//! LMDB 0.9 through heed, with its best reasonable settings at equal memory.
//!
//! A copy-on-write B+ tree in a mapped file: the operating system's page cache is its cache, which nothing bounds but the
//! memory of the machine (or of a control group). Every write is a transaction of its own, one at a time. `MDB_NOSYNC`
//! makes a commit hand its pages to the operating system, as Vault's `Os` does; a durable write syncs after its commit.

use std::ops::Bound;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithoutTls};
use vault_bench::data::Entry;
use vault_bench::settings::Settings;
use vault_bench::target::{Direction, EngineKind, Target};
use vault_bench::{Error, Result};
use vault_bench_rivals::{locked_version, worker};

const NAME: &str = "lmdb";
/// Slots for readers: one for each thread that reads at once.
const READERS: u32 = 256;

fn main() -> ExitCode {
    let binding = format!("heed {}", locked_version("heed"));
    let (major, minor, patch) = {
        let version = heed::lmdb_version();
        (version.major, version.minor, version.patch)
    };
    worker(EngineKind {
        name: NAME,
        version: format!("{major}.{minor}.{patch}, {binding}"),
        persists: true,
        setup: "MDB_NOSYNC, durable writes by a sync after their commit; the page cache is its cache, unbounded",
        open,
    })
}

struct Lmdb {
    env: Env<WithoutTls>,
    database: Database<Bytes, Bytes>,
}

fn own<T>(result: heed::Result<T>) -> Result<T> {
    result.map_err(|e| Error::engine(NAME, &e))
}

fn open(dir: &Path, settings: &Settings) -> Result<Box<dyn Target>> {
    // Address space, not memory: as much as the file may ever take.
    const PAGE: u64 = 1 << 20;
    let bytes = (8 * settings.user_bytes() + (1 << 30)).next_multiple_of(PAGE);
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options
        .map_size(usize::try_from(bytes).unwrap_or(usize::MAX))
        .max_readers(READERS);
    #[expect(
        unsafe_code,
        reason = "the file is mapped, and without syncs a loss of power may damage it"
    )]
    // SAFETY: the worker alone has the directory, opens it once, and nobody looks at it after a loss of power.
    let env = own(unsafe { options.flags(EnvFlags::NO_SYNC).open(dir) })?;
    let mut transaction = own(env.write_txn())?;
    let database = own(env.create_database(&mut transaction, None))?;
    own(transaction.commit())?;
    Ok(Box::new(Lmdb { env, database }))
}

impl Lmdb {
    fn write(&self, change: impl FnOnce(&mut RwTxn<'_>) -> heed::Result<()>) -> Result<()> {
        let mut transaction = own(self.env.write_txn())?;
        own(change(&mut transaction))?;
        own(transaction.commit())
    }
}

impl Target for Lmdb {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        self.write(|transaction| self.database.put(transaction, key, value))?;
        if durable {
            own(self.env.force_sync())?;
        }
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        self.write(|transaction| {
            entries
                .iter()
                .try_for_each(|entry| self.database.put(transaction, &entry.key, &entry.value))
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(|transaction| self.database.delete(transaction, key).map(drop))
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let transaction = own(self.env.read_txn())?;
        let value = own(self.database.get(&transaction, key))?;
        if let Some(value) = value {
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
        let transaction = own(self.env.read_txn())?;
        let bound = from.map_or(Bound::Unbounded, Bound::Included);
        let mut give = |entry| {
            let (key, value) = own(entry)?;
            visit(key, value);
            Ok(())
        };
        match direction {
            Direction::Forward => {
                let range = (bound, Bound::Unbounded);
                let mut entries = own(self.database.range(&transaction, &range))?.take(limit);
                entries.try_for_each(&mut give)
            }
            Direction::Backward => {
                let range = (Bound::Unbounded, bound);
                let mut entries = own(self.database.rev_range(&transaction, &range))?.take(limit);
                entries.try_for_each(&mut give)
            }
        }
    }

    /// It has no background work: what was committed is in the tree.
    fn settle(&self) -> Result<Duration> {
        own(self.env.force_sync())?;
        Ok(Duration::ZERO)
    }

    fn close(self: Box<Self>) -> Result<()> {
        own(self.env.force_sync())
    }
}
