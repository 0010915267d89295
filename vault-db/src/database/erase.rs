//! Discarding vaults that the catalog does not name any more: their keyspaces, and what is kept of their keys beside them.
//!
//! The entries of a vault are sealed under a key of their own, which goes with its keyspace. But `vault.expiry` holds the keys of
//! entries that expire, and `vault.catalog` those that are used most, both under keys that live on. A removal leaves tombstones
//! there, and below them tables that hold what was removed. So where the store is encrypted, the order is:
//!
//! 1. the removal is written, with what takes the vault out of the catalog (by the caller);
//! 2. both keyspaces are compacted, so that no table has what was removed;
//! 3. the vault's keyspace is dropped. With that the engine lets go of the log so far, and of the manifest, which named the
//!    least and the greatest key of each table (`docs/adr/0025-erasing-dropped-keyspaces.md`).
//!
//! Until then the vault is marked in the catalog. The next opening finds it should this end in between, and goes on with step 2.
//!
//! No lock of the database is needed for any of it, and none should be held: it takes as long as a flush of everything.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use vault_core::{CompactionProgress, Engine, KeyRange, KeyspaceId, WriteBatch, WriteOptions};
use vault_lsm::Lsm;

use super::shared::Shared;
use crate::catalog::{self, Keyspaces};
use crate::error::Result;

impl Shared {
    /// Discards vaults, each with its keyspace, whose removal from the catalog is written.
    ///
    /// Where the tables cannot be compacted, the keyspaces go all the same: their keys and their space matter more. Then the
    /// compaction is tried once more, for there may be room now; the keys of entries that it left are told of by the error only.
    pub(crate) fn discard(&self, vaults: &[(u32, KeyspaceId)]) -> Result<()> {
        let is_encrypted = self.lsm.as_ref().is_some_and(Lsm::is_encrypted);
        let compacted = || match self.keyspaces.filter(|_| is_encrypted) {
            Some(keyspaces) => {
                let ids = vaults.iter().map(|&(vault, _)| vault).collect();
                compact_away(&*self.engine, keyspaces, &ids)
            }
            None => Ok(()),
        };
        let erased = compacted();
        // Each of them, whatever becomes of the others; the first error is told.
        let mut dropped = Ok(());
        let mut gone = Vec::with_capacity(vaults.len());
        for &(vault, keyspace) in vaults {
            let outcome = self.engine.drop_keyspace(keyspace);
            gone.extend(outcome.is_ok().then_some(vault));
            dropped = dropped.and(outcome);
        }
        if let Some(keyspaces) = self.keyspaces {
            // Should this fail, the next opening finds marks of what is gone already.
            let _ = unmark(&*self.engine, keyspaces, gone);
        }
        let erased = erased.or_else(|_| compacted());
        Ok(dropped.and(erased)?)
    }
}

/// Takes back the marks of vaults that nothing is left of.
pub(super) fn unmark(
    engine: &dyn Engine,
    keyspaces: Keyspaces,
    vaults: impl IntoIterator<Item = u32>,
) -> vault_core::Result<()> {
    let mut batch = WriteBatch::new();
    for vault in vaults {
        batch.delete(keyspaces.catalog, &catalog::stray_key(vault));
    }
    if !batch.is_empty() {
        engine.write(&batch, &WriteOptions::OS)?;
    }
    Ok(())
}

/// Rewrites the tables that hold, below its removal, what was kept of the keys of vaults.
///
/// Of `vault.expiry` all that lies between the first and the last of the vaults is rewritten, at once: one by one, neighbours
/// would have the same tables rewritten again and again. The catalog is small, as every opening reads it.
pub(super) fn compact_away(
    engine: &dyn Engine,
    keyspaces: Keyspaces,
    vaults: &BTreeSet<u32>,
) -> vault_core::Result<()> {
    let (Some(&first), Some(&last)) = (vaults.first(), vaults.last()) else {
        return Ok(());
    };
    let behind = last.checked_add(1).map(catalog::expiry_prefix);
    let range = KeyRange {
        start: Bound::Included(catalog::expiry_prefix(first).to_vec()),
        end: behind.map_or(Bound::Unbounded, |end| Bound::Excluded(end.to_vec())),
    };
    let mut go_on = |_: CompactionProgress| ControlFlow::Continue(());
    engine.compact(keyspaces.expiry, range, &mut go_on)?;
    engine.compact(keyspaces.catalog, KeyRange::all(), &mut go_on)?;
    Ok(())
}
