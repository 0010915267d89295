//! What a transaction wants to change, and how to undo a part of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vault_core::KeyRange;

use crate::commit::{NewValue, VaultChanges};
use crate::database::VaultState;
use crate::error::{Error, Result};

/// Bytes that a change takes beside its key and value.
const OVERHEAD_BYTES: usize = 64;

/// What a transaction wants to change.
pub(super) struct Writes {
    /// Tells its savepoints from those of other transactions.
    id: u64,
    changes: BTreeMap<u32, VaultChanges>,
    bytes: usize,
    /// What each change since the first savepoint replaced.
    undo: Vec<Undo>,
    savepoints: u64,
    /// The numbers of the savepoints that stand, with where each stands in `undo`.
    standing: Vec<(u64, usize)>,
}

struct Undo {
    vault: u32,
    key: Vec<u8>,
    before: Option<NewValue>,
}

/// A place in a transaction, taken by [`Transaction::savepoint`](crate::Transaction::savepoint).
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// db.write(|tx| {
///     let notes = tx.vault("notes")?;
///     notes.put("kept", &1)?;
///     let savepoint = tx.savepoint()?;
///     notes.put("undone", &2)?;
///     tx.roll_back_to(&savepoint)
/// })?;
/// assert_eq!(db.vault("notes")?.len()?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Savepoint {
    writes: u64,
    number: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Default for Writes {
    fn default() -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            changes: BTreeMap::new(),
            bytes: 0,
            undo: Vec::new(),
            savepoints: 0,
            standing: Vec::new(),
        }
    }
}

fn bytes_of(key: &[u8], new: &NewValue) -> usize {
    key.len() + new.as_ref().map_or(0, |(stored, _)| stored.len()) + OVERHEAD_BYTES
}

impl Writes {
    pub(super) fn get(&self, vault: u32, key: &[u8]) -> Option<&NewValue> {
        self.changes.get(&vault)?.changes.get(key)
    }

    /// The changes to a range of a vault, in order.
    pub(super) fn in_range(&self, vault: u32, range: &KeyRange) -> Vec<(Vec<u8>, NewValue)> {
        let Some(of_vault) = self.changes.get(&vault) else {
            return Vec::new();
        };
        if range.is_empty() {
            return Vec::new();
        }
        let bounds = (
            range.start.as_ref().map(Vec::as_slice),
            range.end.as_ref().map(Vec::as_slice),
        );
        let changes = of_vault.changes.range::<[u8], _>(bounds);
        changes
            .map(|(key, new)| (key.clone(), new.clone()))
            .collect()
    }

    pub(super) fn set(
        &mut self,
        vault: &Arc<VaultState>,
        key: Vec<u8>,
        new: NewValue,
        bytes_max: usize,
    ) -> Result<()> {
        let replaced = self
            .changes
            .get(&vault.id)
            .and_then(|it| it.changes.get(&key));
        // What is replaced behind a savepoint is kept, and goes on counting.
        let freed = match replaced {
            Some(before) if self.standing.is_empty() => bytes_of(&key, before),
            _ => 0,
        };
        let bytes = self.bytes - freed + bytes_of(&key, &new);
        if bytes > bytes_max {
            return Err(Error::TransactionTooLarge {
                bytes,
                max: bytes_max,
            });
        }
        self.bytes = bytes;
        let of_vault = self
            .changes
            .entry(vault.id)
            .or_insert_with(|| VaultChanges {
                vault: Arc::clone(vault),
                changes: BTreeMap::new(),
            });
        if self.standing.is_empty() {
            of_vault.changes.insert(key, new);
            return Ok(());
        }
        let before = of_vault.changes.insert(key.clone(), new);
        self.undo.push(Undo {
            vault: vault.id,
            key,
            before,
        });
        Ok(())
    }

    pub(super) fn savepoint(&mut self) -> Savepoint {
        let number = self.savepoints;
        self.savepoints += 1;
        self.standing.push((number, self.undo.len()));
        Savepoint {
            writes: self.id,
            number,
        }
    }

    pub(super) fn roll_back_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        let standing = self
            .standing
            .iter()
            .rposition(|&(number, _)| number == savepoint.number);
        let Some(position) = standing.filter(|_| savepoint.writes == self.id) else {
            return Err(Error::NoSuchSavepoint);
        };
        let undone = self.undo.split_off(self.standing[position].1);
        for Undo { vault, key, before } in undone.into_iter().rev() {
            let Some(of_vault) = self.changes.get_mut(&vault) else {
                continue;
            };
            let undone = match before {
                Some(before) => of_vault.changes.insert(key.clone(), before),
                None => of_vault.changes.remove(&key),
            };
            self.bytes -= undone.map_or(0, |undone| bytes_of(&key, &undone));
        }
        self.changes
            .retain(|_, of_vault| !of_vault.changes.is_empty());
        self.standing.truncate(position + 1);
        Ok(())
    }

    pub(super) fn into_changes(self) -> BTreeMap<u32, VaultChanges> {
        self.changes
    }
}
