//! Keeping what is noted of accesses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::{WriteBatch, WriteOptions};

use super::registry::NO_TENANT;
use super::shared::Shared;
use crate::access::{Access, AccessRecord};
use crate::catalog;
use crate::key::{DecodeKey, Key};

impl Shared {
    /// Writes what is noted of a vault's accesses to the catalog. Where that fails it is left for another time: nothing
    /// depends on it.
    pub(crate) fn save_access(&self, access: &Access) {
        let Some(keyspaces) = self.keyspaces.filter(|_| self.writable) else {
            return;
        };
        access.save(|saved| {
            let mut batch = WriteBatch::new();
            let key = catalog::access_key(access.vault());
            batch.put(keyspaces.catalog, &key, &catalog::encode(saved)?);
            self.engine.write(&batch, &WriteOptions::OS)?;
            Ok(())
        });
    }

    /// Writes what is noted of every vault's accesses.
    pub(crate) fn save_accesses(&self) {
        let vaults: Vec<_> = self.registry().all().cloned().collect();
        for vault in vaults {
            self.save_access(&vault.access);
        }
    }

    /// Keeps the counts of a vault that goes, so that sums over all vaults never shrink. Called while the registry is held for
    /// writing.
    pub(crate) fn keep_accesses_of(&self, gone: &Access) {
        for (sum, count) in self.gone_accesses.iter().zip(gone.counts_of_process()) {
            sum.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How many accesses there were in this process, by their verb, to any vault.
    pub(crate) fn accesses_of_process(&self) -> [u64; 4] {
        let registry = self.registry();
        let mut sums =
            [0, 1, 2, 3].map(|verb: usize| self.gone_accesses[verb].load(Ordering::Relaxed));
        for vault in registry.all() {
            for (sum, count) in sums.iter_mut().zip(vault.access.counts_of_process()) {
                *sum += count;
            }
        }
        sums
    }

    /// Forgets every key that was noted, after having saved it.
    pub(crate) fn forget_accessed_keys(&self) {
        self.accesses.clear();
        let registry = self.registry();
        for tenant in registry.tenants() {
            tenant.accesses.clear();
        }
        for vault in registry.all() {
            vault.access.forget_keys();
        }
    }

    /// Takes up the most used keys again where they were forgotten, as they were saved before. What cannot be read is begun anew.
    pub(crate) fn recall_accessed_keys(&self) {
        let Some(keyspaces) = self.keyspaces else {
            return;
        };
        let vaults: Vec<_> = self.registry().all().cloned().collect();
        for vault in vaults {
            let key = catalog::access_key(vault.access.vault());
            let saved = self.engine.get(keyspaces.catalog, &key).ok().flatten();
            let saved = saved.and_then(|saved| catalog::decode("accesses", &saved).ok());
            if let Some(saved) = saved {
                vault.access.recall_keys(saved);
            }
        }
    }

    /// The latest accesses that were sampled, of a tenant's vaults. A tenant that was dropped has none.
    pub(crate) fn recent_accesses(&self, tenant: u32) -> Vec<AccessRecord> {
        let owner = self.registry().tenant_of(tenant).map(Arc::clone);
        let log = match &owner {
            Some(owner) => &owner.accesses,
            None if tenant == NO_TENANT => &self.accesses,
            None => return Vec::new(),
        };
        let names: std::collections::BTreeMap<u32, String> = {
            let registry = self.registry();
            let vaults = registry.of_tenant(tenant);
            vaults
                .map(|(name, state)| (state.id, name.to_owned()))
                .collect()
        };
        let latest = log.latest().into_iter();
        let told = latest.filter_map(|kept| {
            Some(AccessRecord {
                vault: names.get(&kept.vault)?.clone(),
                verb: kept.verb,
                key: Key::decode_key(&kept.key).ok(),
                at: kept.at,
                took: kept.took,
            })
        });
        told.collect()
    }
}
