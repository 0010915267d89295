//! Taking away what has expired.
//!
//! The engine hides an entry from its expiry on, and drops it in time. Until it is taken away here, the tally still counts
//! it, which is why `len` subtracts what `vault.expiry` names up to now.

use vault_core::{KeyRange, Reader, Timestamp, WriteBatch};

use super::parse_bytes;
use super::stripes::Wanted;
use crate::catalog::{self, Delta};
use crate::database::{Shared, VaultState};
use crate::error::{Error, Result};

/// Entries that one commit takes away.
const EXPIRED_AT_ONCE: usize = 512;

/// What `vault.expiry` says of an entry that has expired.
struct Expired {
    index_key: Vec<u8>,
    key: Vec<u8>,
}

/// The entries of `vault.expiry` that name what has expired in a vault by `now`.
fn expired_range(vault: u32, now: Timestamp) -> KeyRange {
    let start = catalog::expiry_prefix(vault).to_vec();
    let end = catalog::expiry_key(vault, Timestamp(now.0.saturating_add(1)), b"");
    KeyRange::from(&start[..]..&end[..])
}

impl Shared {
    /// How many entries of a vault have expired and are still counted, as a reader sees it.
    pub(crate) fn count_expired(&self, reader: &dyn Reader, vault: u32) -> Result<u64> {
        let range = expired_range(vault, self.now());
        let mut cursor = reader.cursor(self.keyspaces()?.expiry, range)?;
        let mut count = 0;
        cursor.first()?;
        while cursor.entry().is_some() {
            count += 1;
            cursor.next()?;
        }
        Ok(count)
    }

    /// Whether so much has expired in a vault that it had better be taken away than be counted again and again, and can be.
    pub(crate) fn has_backlog(&self, vault: &VaultState) -> Result<bool> {
        if !self.writable {
            return Ok(false);
        }
        let range = expired_range(vault.id, self.now());
        let mut cursor = self.engine.cursor(self.keyspaces()?.expiry, range)?;
        cursor.first()?;
        for _ in 0..EXPIRED_AT_ONCE {
            if cursor.entry().is_none() {
                return Ok(false);
            }
            cursor.next()?;
        }
        Ok(cursor.entry().is_some())
    }

    /// Takes away what has expired in a vault. Gives how many entries that were.
    pub(crate) fn remove_expired(&self, vault: &VaultState) -> Result<u64> {
        let mut removed = 0;
        loop {
            let found = self.find_expired(vault)?;
            if found.is_empty() {
                break;
            }
            let now_removed = self.remove_these(vault, &found)?;
            removed += now_removed;
            if found.len() < EXPIRED_AT_ONCE || now_removed == 0 {
                break;
            }
        }
        if removed > 0 {
            self.make_durable()?;
        }
        Ok(removed)
    }

    /// Takes away what has expired in any vault, or in any of one tenant's.
    pub(crate) fn cleanup_expired(&self, tenant: Option<u32>) -> Result<u64> {
        let vaults: Vec<_> = {
            let registry = self.registry();
            let all = registry.all();
            let wanted = all.filter(|vault| tenant.is_none_or(|tenant| vault.tenant == tenant));
            wanted.cloned().collect()
        };
        let mut removed = 0;
        for vault in vaults {
            if vault.counts.expiring() == 0 {
                continue;
            }
            removed += match self.remove_expired(&vault) {
                Err(Error::VaultDeleted { .. }) => 0,
                other => other?,
            };
        }
        Ok(removed)
    }

    fn find_expired(&self, vault: &VaultState) -> Result<Vec<Expired>> {
        let range = expired_range(vault.id, self.now());
        let mut found = Vec::new();
        for entry in self
            .engine
            .scan(self.keyspaces()?.expiry, range)?
            .take(EXPIRED_AT_ONCE)
        {
            let (index_key, _) = entry?;
            let (_, key) = catalog::parse_expiry_key(&index_key)
                .ok_or_else(|| catalog::malformed("an expiry"))?;
            found.push(Expired {
                key: key.to_vec(),
                index_key: index_key.to_vec(),
            });
        }
        Ok(found)
    }

    /// Takes these away, as far as they are still there and still expired.
    fn remove_these(&self, vault: &VaultState, found: &[Expired]) -> Result<u64> {
        let keyspaces = self.keyspaces()?;
        let wanted = Wanted::of(found.iter().map(|expired| expired.key.as_slice()));
        let _stripes: Vec<_> = vault.stripes.lock_these(wanted).collect();
        if vault.is_exchanged() {
            return Err(vault.gone());
        }
        vault.check()?;
        let mut batch = WriteBatch::new();
        let mut delta = Delta::default();
        let mut removed = 0;
        for expired in found {
            // Somebody else may have been here between the look and the locks.
            let counted = self.engine.get(keyspaces.expiry, &expired.index_key)?;
            let Some(bytes) = counted.as_deref().and_then(parse_bytes) else {
                continue;
            };
            let current = self.engine.entry_info(vault.keyspace, &expired.key)?;
            let (expiry, _) = catalog::parse_expiry_key(&expired.index_key)
                .ok_or_else(|| catalog::malformed("an expiry"))?;
            match current {
                // The clock went back since: it has not expired after all.
                Some(current) if current.expiry == Some(expiry) => continue,
                Some(_) => {}
                // Should the clock go back later, it shall not come back.
                None => {
                    batch.delete(vault.keyspace, &expired.key);
                }
            }
            batch.delete(keyspaces.expiry, &expired.index_key);
            delta.remove(&expired.key, bytes, true);
            removed += 1;
        }
        if removed == 0 {
            return Ok(0);
        }
        // No transaction has to know: what it read as absent still is.
        self.commit_counted(keyspaces, &mut batch, &[(vault, delta)])?;
        Ok(removed)
    }
}
