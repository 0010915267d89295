//! Scanning a vault.

use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use vault_core::{KeyRange, Reader, Slice};

use super::codec::{self, RawValue};
use crate::database::{Shared, VaultState};
use crate::error::{Error, Result};
use crate::key::DecodeKey;

/// The entries of a range in the order of their keys, from either end, each once however the two are mixed. It shows one
/// moment, whatever is written meanwhile.
///
/// An entry that does not read as the types asked for is an error, and the scan goes on behind it. An error of the engine
/// ends it.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let vault = db.vault("squares")?;
/// vault.update((1..=5).map(|n| (n, n * n)))?;
/// let large: Vec<(i64, i64)> = vault.range(4..)?.rev().collect::<vault_db::Result<_>>()?;
/// assert_eq!(large, [(5, 25), (4, 16)]);
/// # Ok(())
/// # }
/// ```
pub struct Scan<K, V> {
    entries: Entries,
    types: PhantomData<fn() -> (K, V)>,
}

/// The keys of a range: a [`Scan`] that does not decode values.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let vault = db.vault("squares")?;
/// vault.update((1..=3).map(|n| (n, n * n)))?;
/// let keys: Vec<i64> = vault.keys()?.collect::<vault_db::Result<_>>()?;
/// assert_eq!(keys, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
pub struct Keys<K> {
    entries: Entries,
    types: PhantomData<fn() -> K>,
}

/// The entries of a range with their raw bytes: a [`Scan`] for vaults of [`put_raw`](crate::Vault::put_raw).
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let vault = db.vault("blocks")?;
/// vault.put_raw(7, b"raw")?;
/// let (key, bytes) = vault.range_raw::<u64>(..)?.next().transpose()?.expect("one entry");
/// assert_eq!((key, &bytes[..]), (7, &b"raw"[..]));
/// # Ok(())
/// # }
/// ```
pub struct RawScan<K> {
    entries: Entries,
    types: PhantomData<fn() -> K>,
}

/// Entries as they are stored.
pub(crate) struct Entries {
    vault: Arc<VaultState>,
    scan: vault_core::Scan,
    left: u64,
    max: u64,
    done: bool,
}

impl Entries {
    pub(crate) fn open(shared: &Shared, vault: &Arc<VaultState>, range: KeyRange) -> Result<Self> {
        Self::of(
            &*shared.engine,
            shared.bounds.scan_results_max,
            vault,
            range,
        )
    }

    /// Opens them in a reader of the caller's, up to so many.
    pub(crate) fn of<R: Reader + ?Sized>(
        reader: &R,
        max: u64,
        vault: &Arc<VaultState>,
        range: KeyRange,
    ) -> Result<Self> {
        let cursor = reader.cursor(vault.keyspace, range);
        let cursor = cursor.map_err(|error| vault.told(error))?;
        Ok(Self {
            vault: Arc::clone(vault),
            scan: vault_core::Scan::new(cursor),
            left: max,
            max,
            done: false,
        })
    }

    fn count(
        &mut self,
        entry: Option<vault_core::Result<(Slice, Slice)>>,
    ) -> Option<Result<(Slice, Slice)>> {
        match entry {
            None => {
                self.done = true;
                None
            }
            Some(Err(error)) => {
                self.done = true;
                Some(Err(self.vault.told(error)))
            }
            Some(Ok(_)) if self.left == 0 => {
                self.done = true;
                Some(Err(Error::ScanTooLong { max: self.max }))
            }
            Some(Ok(entry)) => {
                self.left -= 1;
                Some(Ok(entry))
            }
        }
    }
}

impl Iterator for Entries {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let entry = self.scan.next();
        self.count(entry)
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let entry = self.scan.next_back();
        self.count(entry)
    }
}

impl<K, V> Scan<K, V> {
    pub(crate) const fn new(entries: Entries) -> Self {
        Self {
            entries,
            types: PhantomData,
        }
    }
}

impl<K: DecodeKey, V: DeserializeOwned> Scan<K, V> {
    fn decoded(&self, entry: Result<(Slice, Slice)>) -> Result<(K, V)> {
        let (key, stored) = entry?;
        let vault = &self.entries.vault;
        let value = codec::decode_value(vault, &key, &stored)?;
        Ok((codec::decode_key(vault, &key)?, value))
    }
}

impl<K: DecodeKey, V: DeserializeOwned> Iterator for Scan<K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(self.decoded(entry))
    }
}

impl<K: DecodeKey, V: DeserializeOwned> DoubleEndedIterator for Scan<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next_back()?;
        Some(self.decoded(entry))
    }
}

impl<K: DecodeKey, V: DeserializeOwned> FusedIterator for Scan<K, V> {}

impl<K> RawScan<K> {
    pub(crate) const fn new(entries: Entries) -> Self {
        Self {
            entries,
            types: PhantomData,
        }
    }
}

impl<K: DecodeKey> RawScan<K> {
    fn decoded(&self, entry: Result<(Slice, Slice)>) -> Result<(K, RawValue)> {
        let (key, stored) = entry?;
        let vault = &self.entries.vault;
        let value = RawValue::new(vault, &key, stored)?;
        Ok((codec::decode_key(vault, &key)?, value))
    }
}

impl<K: DecodeKey> Iterator for RawScan<K> {
    type Item = Result<(K, RawValue)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(self.decoded(entry))
    }
}

impl<K: DecodeKey> DoubleEndedIterator for RawScan<K> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next_back()?;
        Some(self.decoded(entry))
    }
}

impl<K: DecodeKey> FusedIterator for RawScan<K> {}

impl<K> Keys<K> {
    pub(crate) const fn new(entries: Entries) -> Self {
        Self {
            entries,
            types: PhantomData,
        }
    }
}

impl<K: DecodeKey> Keys<K> {
    fn decoded(&self, entry: Result<(Slice, Slice)>) -> Result<K> {
        codec::decode_key(&self.entries.vault, &entry?.0)
    }
}

impl<K: DecodeKey> Iterator for Keys<K> {
    type Item = Result<K>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(self.decoded(entry))
    }
}

impl<K: DecodeKey> DoubleEndedIterator for Keys<K> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next_back()?;
        Some(self.decoded(entry))
    }
}

impl<K: DecodeKey> FusedIterator for Keys<K> {}
