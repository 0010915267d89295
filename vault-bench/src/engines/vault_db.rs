//! The data layer on top of Vault's engine, so that what it costs can be measured: entries of one vault, with exact counts and
//! statistics of use, as raw bytes and as values.

use std::path::Path;
use std::time::Duration;

use vault_core::{Durability, KeyspaceOptions};
use vault_db::{Database, Isolation, TransactionOptions, Vault};

use crate::data::Entry;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::target::{Direction, EngineKind, Target, Verb};

/// The data layer, with raw bytes and with values.
pub(super) fn kinds() -> Vec<EngineKind> {
    let kind = |name, setup, open| EngineKind {
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        persists: true,
        setup,
        open,
    };
    vec![
        kind(
            "vault-db",
            "a vault of the data layer, raw bytes, counted exactly; else as vault",
            |directory, settings| open("vault-db", directory, settings, false),
        ),
        kind(
            "vault-db-typed",
            "a vault of the data layer, byte strings by serde, counted exactly; else as vault",
            |directory, settings| open("vault-db-typed", directory, settings, true),
        ),
    ]
}

struct DataLayer {
    name: &'static str,
    database: Database,
    vault: Vault,
    typed: bool,
}

fn open(
    name: &'static str,
    directory: &Path,
    settings: &Settings,
    typed: bool,
) -> Result<Box<dyn Target>> {
    let own = |e: vault_db::Error| Error::engine(name, &e);
    let engine_options = super::vault::options(settings).durability(Durability::Os);
    let vaults = KeyspaceOptions {
        write_buffer_bytes: settings.write_buffer_bytes(),
        ..KeyspaceOptions::default()
    };
    let database = Database::builder()
        .settings(engine_options.settings)
        .vault_options(vaults)
        .open(directory)
        .map_err(own)?;
    let vault = database.vault("bench").map_err(own)?;
    Ok(Box::new(DataLayer {
        name,
        database,
        vault,
        typed,
    }))
}

impl DataLayer {
    fn own<T>(&self, result: vault_db::Result<T>) -> Result<T> {
        result.map_err(|e| Error::engine(self.name, &e))
    }
}

impl Target for DataLayer {
    #[inline]
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        self.own(if self.typed {
            self.vault.put(key, value)
        } else {
            self.vault.put_raw(key, value)
        })?;
        if durable {
            self.own(self.database.sync())?;
        }
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let blind = TransactionOptions {
            isolation: Isolation::Serializable,
            ..TransactionOptions::default()
        };
        let written: vault_db::Result<()> = self.database.write_with(blind, |tx| {
            let vault = tx.of(&self.vault)?;
            entries.iter().try_for_each(|entry| match self.typed {
                true => vault.put(&entry.key[..], &entry.value[..]),
                false => vault.put_raw(&entry.key[..], &entry.value),
            })
        });
        self.own(written)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.own(self.vault.remove(key)).map(drop)
    }

    #[inline]
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool> {
        if self.typed {
            let value: Option<Vec<u8>> = self.own(self.vault.get(key))?;
            return Ok(value.map(|value| read(&value)).is_some());
        }
        let value = self.own(self.vault.get_raw(key))?;
        Ok(value.map(|value| read(&value)).is_some())
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let scan = self.own(match (direction, from) {
            (_, None) => self.vault.range_raw::<Vec<u8>>(..),
            (Direction::Forward, Some(key)) => self.vault.range_raw(key..),
            (Direction::Backward, Some(key)) => self.vault.range_raw(..=key),
        })?;
        let mut give = |item: vault_db::Result<(Vec<u8>, vault_db::RawValue)>| {
            let (key, value) = self.own(item)?;
            visit(&key, &value);
            Ok(())
        };
        match direction {
            Direction::Forward => scan.take(limit).try_for_each(&mut give),
            Direction::Backward => scan.rev().take(limit).try_for_each(&mut give),
        }
    }

    fn offers(&self, verb: Verb) -> bool {
        verb == Verb::Transactions
    }

    fn transact(&self, entries: &[Entry]) -> Result<()> {
        let written: vault_db::Result<()> = self.database.write(|tx| {
            let vault = tx.of(&self.vault)?;
            for entry in entries {
                if vault.get_raw(&entry.key[..])?.is_none() {
                    return Err(tx.abort("a key that was loaded is missing"));
                }
            }
            entries
                .iter()
                .try_for_each(|entry| vault.put_raw(&entry.key[..], &entry.value))
        });
        self.own(written)
    }

    fn settle(&self) -> Result<Duration> {
        if let Some(lsm) = self.database.lsm() {
            lsm.settle().map_err(|e| Error::engine(self.name, &e))?;
        }
        Ok(Duration::ZERO)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.own(self.database.close())
    }
}
