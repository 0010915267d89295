//! redb 4.5, with its best reasonable settings at equal memory.
//!
//! A copy-on-write B+ tree in one file: every write is a transaction of its own, one at a time. Nothing is set but the
//! cache. What is not to be durable is committed with `Durability::None`, its cheapest: such a commit is in memory alone, so that
//! the end of the process loses it, which Vault's `Os` does not.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use vault_bench::data::Entry;
use vault_bench::settings::Settings;
use vault_bench::target::{Direction, EngineKind, Target};
use vault_bench::{Error, Result};
use vault_bench_rivals::{locked_version, worker};

const NAME: &str = "redb";
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bench");

fn main() -> ExitCode {
    worker(EngineKind {
        name: NAME,
        version: locked_version(NAME),
        persists: true,
        setup: "defaults, cache as set; not durable: `Durability::None`, which the end of the process loses",
        open,
    })
}

struct Redb(Database);

fn own<T, E: Into<redb::Error>>(result: std::result::Result<T, E>) -> Result<T> {
    result.map_err(|e| Error::engine(NAME, &e.into()))
}

fn open(dir: &Path, settings: &Settings) -> Result<Box<dyn Target>> {
    let cache = usize::try_from(settings.cache_bytes()).unwrap_or(usize::MAX);
    let database = own(Database::builder()
        .set_cache_size(cache)
        .create(dir.join("bench.redb")))?;
    let redb = Redb(database);
    // The table is there for readers from the beginning.
    redb.write(true, |_| Ok(()))?;
    Ok(Box::new(redb))
}

impl Redb {
    fn write(
        &self,
        durable: bool,
        change: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<()>,
    ) -> Result<()> {
        let mut transaction = own(self.0.begin_write())?;
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        own(transaction.set_durability(durability))?;
        change(&mut own(transaction.open_table(TABLE))?)?;
        own(transaction.commit())
    }
}

impl Target for Redb {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        self.write(durable, |table| own(table.insert(key, value)).map(drop))
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        self.write(false, |table| {
            entries
                .iter()
                .try_for_each(|entry| own(table.insert(&entry.key[..], &entry.value[..])).map(drop))
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(false, |table| own(table.remove(key)).map(drop))
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let table = own(own(self.0.begin_read())?.open_table(TABLE))?;
        let value = own(table.get(key))?;
        if let Some(value) = &value {
            read(value.value());
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
        let table = own(own(self.0.begin_read())?.open_table(TABLE))?;
        let entries = own(match (direction, from) {
            (Direction::Forward, Some(key)) => table.range(key..),
            (Direction::Backward, Some(key)) => table.range(..=key),
            (_, None) => table.range::<&[u8]>(..),
        })?;
        let mut give = |entry: std::result::Result<_, redb::StorageError>| {
            let (key, value): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, &[u8]>) =
                own(entry)?;
            visit(key.value(), value.value());
            Ok(())
        };
        match direction {
            Direction::Forward => entries.take(limit).try_for_each(&mut give),
            Direction::Backward => entries.rev().take(limit).try_for_each(&mut give),
        }
    }

    /// It has no background work. What was committed without durability is made durable, and its old pages free.
    fn settle(&self) -> Result<Duration> {
        self.write(true, |_| Ok(()))?;
        Ok(Duration::ZERO)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.write(true, |_| Ok(()))
    }
}
