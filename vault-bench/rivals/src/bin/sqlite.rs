//! SQLite through rusqlite (bundled), with its best reasonable settings at equal memory.
//!
//! One table without row ids, so that the key is the tree. A connection for each thread that is at work, because one serves
//! one thread at a time; they share the cache's bytes. `journal_mode = WAL` with `synchronous = NORMAL` hands each commit to the
//! operating system, as Vault's `Os` does; a durable write goes through a connection with `synchronous = FULL`. The log
//! is taken over every 64 MiB, as much as the others keep in memory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Statement, TransactionBehavior};
use vault_bench::data::Entry;
use vault_bench::settings::Settings;
use vault_bench::target::{Direction, EngineKind, Target};
use vault_bench::{Error, Result};
use vault_bench_rivals::{locked_version, worker};

const NAME: &str = "sqlite";
/// How long a writer waits for the one before it.
const BUSY: Duration = Duration::from_secs(600);
const PAGE_BYTES: u64 = 4096;

const PUT: &str =
    "INSERT INTO bench (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";
const DELETE: &str = "DELETE FROM bench WHERE k = ?1";
const GET: &str = "SELECT v FROM bench WHERE k = ?1";

fn main() -> ExitCode {
    let binding = format!("rusqlite {}", locked_version("rusqlite"));
    worker(EngineKind {
        name: NAME,
        version: format!("{}, {binding}", rusqlite::version()),
        persists: true,
        setup: "WAL, synchronous NORMAL (FULL for durable writes), WITHOUT ROWID, a connection a thread, cache as set in all",
        open,
    })
}

struct Sqlite {
    path: PathBuf,
    cache_kib: u64,
    log_pages: u64,
    /// Connections that nobody uses at the moment: those for durable writes, and the others.
    durable: Mutex<Vec<Connection>>,
    idle: Mutex<Vec<Connection>>,
}

fn own<T>(result: rusqlite::Result<T>) -> Result<T> {
    result.map_err(|e| Error::engine(NAME, &e))
}

fn open(dir: &Path, settings: &Settings) -> Result<Box<dyn Target>> {
    let connections = settings.threads.max(1) as u64;
    let sqlite = Sqlite {
        path: dir.join("bench.sqlite"),
        cache_kib: settings.cache_bytes() / 1024 / connections,
        log_pages: settings.write_buffer_bytes() / PAGE_BYTES,
        durable: Mutex::default(),
        idle: Mutex::default(),
    };
    sqlite.with(false, |connection| {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS bench (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID",
        )
    })?;
    Ok(Box::new(sqlite))
}

impl Sqlite {
    fn connect(&self, durable: bool) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY)?;
        let synchronous = if durable { "FULL" } else { "NORMAL" };
        connection.execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             PRAGMA cache_size = -{}; PRAGMA wal_autocheckpoint = {}; PRAGMA temp_store = MEMORY;",
            self.cache_kib, self.log_pages
        ))?;
        Ok(connection)
    }

    /// Lends a connection.
    fn with<T>(
        &self,
        durable: bool,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let pool = if durable { &self.durable } else { &self.idle };
        let idle = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => own(self.connect(durable))?,
        };
        let outcome = own(work(&mut connection));
        pool.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        outcome
    }
}

/// Runs a query for pairs and gives each.
fn visit_all(
    statement: &mut Statement<'_>,
    parameters: impl rusqlite::Params,
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> rusqlite::Result<()> {
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        visit(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
    }
    Ok(())
}

impl Target for Sqlite {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        self.with(durable, |connection| {
            connection
                .prepare_cached(PUT)?
                .execute((key, value))
                .map(drop)
        })
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        self.with(false, |connection| {
            // At once for writing: one that began reading would be refused where another wrote meanwhile.
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut put = transaction.prepare_cached(PUT)?;
                for entry in entries {
                    put.execute((&entry.key[..], &entry.value[..]))?;
                }
            }
            transaction.commit()
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.with(false, |connection| {
            connection.prepare_cached(DELETE)?.execute((key,)).map(drop)
        })
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.with(false, |connection| {
            let mut get = connection.prepare_cached(GET)?;
            let found = get.query_row((key,), |row| {
                read(row.get_ref(0)?.as_blob()?);
                Ok(())
            });
            Ok(found.optional()?.is_some())
        })
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (comparison, order) = match direction {
            Direction::Forward => (">=", "ASC"),
            Direction::Backward => ("<=", "DESC"),
        };
        self.with(false, |connection| match from {
            Some(key) => {
                let query = format!(
                    "SELECT k, v FROM bench WHERE k {comparison} ?1 ORDER BY k {order} LIMIT ?2"
                );
                visit_all(
                    &mut *connection.prepare_cached(&query)?,
                    (key, limit),
                    visit,
                )
            }
            None => {
                let query = format!("SELECT k, v FROM bench ORDER BY k {order} LIMIT ?1");
                visit_all(&mut *connection.prepare_cached(&query)?, (limit,), visit)
            }
        })
    }

    /// Takes the whole log over into the tree.
    fn settle(&self) -> Result<Duration> {
        self.with(false, |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })?;
        Ok(Duration::ZERO)
    }

    fn close(self: Box<Self>) -> Result<()> {
        let pools = [self.durable, self.idle];
        let mut connections = pools
            .into_iter()
            .flat_map(|pool| pool.into_inner().unwrap_or_else(PoisonError::into_inner));
        connections
            .map(Connection::close)
            .try_for_each(|closed| own(closed.map_err(|(_, error)| error)))
    }
}
