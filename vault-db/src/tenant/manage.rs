//! Tenants coming, going, and getting another quota.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::WriteBatch;

use super::handle::Tenant;
use super::quota::{Quota, TenantInfo, TenantRecord, TenantState};
use crate::access::Saving;
use crate::catalog::{self, Header};
use crate::database::{Database, Shared};
use crate::error::{Error, Result};
use crate::name::check_vault_name;

impl Database {
    /// Creates a tenant, which must not exist. Its name follows the rules of vaults' names.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use vault_db::Quota;
    /// let acme = db.create_tenant("acme", Quota { bytes_max: 1 << 30, ..Quota::NONE })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::TenantExists`], [`Error::InvalidVaultName`], [`Error::Engine`].
    pub fn create_tenant(&self, name: &str, quota: Quota) -> Result<Tenant> {
        let state = self.shared().create_tenant(name, quota)?;
        Ok(Tenant::new(Arc::clone(self.shared()), state))
    }

    /// The tenant of this name, which must exist.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// assert_eq!(db.tenant("acme")?.name(), "acme");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchTenant`].
    pub fn tenant(&self, name: &str) -> Result<Tenant> {
        let state = self.shared().find_tenant(name)?;
        Ok(Tenant::new(Arc::clone(self.shared()), state))
    }

    /// What is known of every tenant, in the order of their names.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # use vault_db::Quota;
    /// db.create_tenant("acme", Quota::NONE)?.vault("users")?.put("alice", "admin")?;
    /// let tenants = db.tenants();
    /// assert_eq!((tenants[0].name.as_str(), tenants[0].vaults, tenants[0].keys), ("acme", 1, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantInfo> {
        let shared = self.shared();
        let states: Vec<_> = shared.registry().tenants().cloned().collect();
        states
            .iter()
            .map(|state| shared.tenant_info(state))
            .collect()
    }

    /// Gives a tenant another quota. Where it has more than that already, it keeps what it has, and can add nothing.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
    /// use vault_db::Quota;
    /// db.set_quota("acme", Quota { keys_max: 1_000, ..Quota::NONE })?;
    /// assert_eq!(tenant.info()?.quota.keys_max, 1_000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchTenant`], [`Error::Engine`].
    pub fn set_quota(&self, name: &str, quota: Quota) -> Result<()> {
        self.shared().set_quota(name, quota)
    }

    /// Drops a tenant with everything that it has, at once. Gives how many keys it had. In an encrypted database the keys of all
    /// its vaults are destroyed, and what is kept of their entries beside them is erased: what is left on the disk opens for
    /// nobody. What that does not reach, and how long it takes, is said at [`Vault::delete`](crate::Vault::delete).
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # use vault_db::{Error, Quota};
    /// let acme = db.create_tenant("acme", Quota::NONE)?;
    /// acme.vault("users")?.put("alice", "admin")?;
    /// assert_eq!(db.drop_tenant("acme")?, 1);
    /// assert!(matches!(acme.vault("users"), Err(Error::NoSuchTenant { .. })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchTenant`], [`Error::Engine`]. After an error of the engine the tenant may be gone all the same, and only
    /// its space not be given back, or what is said at [`Vault::delete`](crate::Vault::delete).
    pub fn drop_tenant(&self, name: &str) -> Result<u64> {
        self.shared().drop_tenant(name)
    }
}

impl Shared {
    fn find_tenant(&self, name: &str) -> Result<Arc<TenantState>> {
        let registry = self.registry();
        let found = registry.find_tenant(name).map(Arc::clone);
        found.ok_or_else(|| Error::NoSuchTenant {
            name: name.to_owned(),
        })
    }

    pub(crate) fn tenant_info(&self, state: &TenantState) -> TenantInfo {
        let usage = state.usage.tally();
        TenantInfo {
            name: state.name.clone(),
            created: state.created,
            quota: state.quota(),
            vaults: self.registry().of_tenant(state.id).count() as u64,
            keys: usage.entries,
            bytes: usage.bytes(),
        }
    }

    fn create_tenant(&self, name: &str, quota: Quota) -> Result<Arc<TenantState>> {
        check_vault_name(name)?;
        let mut header = self.structure();
        self.check_no_migration()?;
        if self.registry().find_tenant(name).is_some() {
            return Err(Error::TenantExists {
                name: name.to_owned(),
            });
        }
        let catalog = self.keyspaces()?.catalog;
        let record = TenantRecord {
            id: header.next_tenant,
            created: self.now().0,
            quota,
        };
        let next = Header {
            next_tenant: record.id.saturating_add(1),
            ..header.clone()
        };
        let mut batch = WriteBatch::new();
        batch.put(catalog, &catalog::header_key(), &catalog::encode(&next)?);
        batch.put(
            catalog,
            &catalog::tenant_key(name),
            &catalog::encode(&record)?,
        );
        self.engine.write(&batch, &self.structural())?;
        *header = next;
        let state = Arc::new(TenantState::new(name, &record));
        self.registry_mut().insert_tenant(Arc::clone(&state));
        Ok(state)
    }

    fn set_quota(&self, name: &str, quota: Quota) -> Result<()> {
        let _structure = self.structure();
        let state = self.find_tenant(name)?;
        let catalog = self.keyspaces()?.catalog;
        let record = TenantRecord {
            id: state.id,
            created: state.created.0,
            quota,
        };
        let mut batch = WriteBatch::new();
        batch.put(
            catalog,
            &catalog::tenant_key(name),
            &catalog::encode(&record)?,
        );
        self.engine.write(&batch, &self.structural())?;
        state.set_quota(quota);
        Ok(())
    }

    fn drop_tenant(&self, name: &str) -> Result<u64> {
        let keyspaces = self.keyspaces()?;
        let structure = self.structure();
        let state = self.find_tenant(name)?;
        let mut vaults: Vec<_> = {
            let registry = self.registry();
            let vaults = registry.of_tenant(state.id);
            vaults.map(|(_, vault)| Arc::clone(vault)).collect()
        };
        vaults.sort_by_key(|vault| vault.id);
        // Nobody commits to any of them from here on.
        let mut stripes: Vec<_> = vaults
            .iter()
            .map(|vault| vault.stripes.lock_all())
            .collect();
        let mut batch = WriteBatch::new();
        batch.delete(keyspaces.catalog, &catalog::tenant_key(name));
        let mut keys = 0;
        for vault in &vaults {
            keys += self.len_held(vault)?;
            batch.delete(
                keyspaces.catalog,
                &catalog::record_key(vault.tenant, &vault.name()),
            );
            self.plan_removal(keyspaces, &mut batch, vault);
        }
        let saving: Vec<_> = vaults.iter().map(|it| it.access.hold_saving()).collect();
        let mut registry = self.registry_mut();
        let sequence = self.apply(&batch)?;
        for mut saving in saving {
            *saving = Saving::Never;
        }
        state.dropped.store(true, Ordering::Release);
        let mut before = BTreeMap::new();
        for vault in &vaults {
            vault.set_deleted(sequence);
            registry.remove(vault.tenant, &vault.name());
            self.keep_accesses_of(&vault.access);
            before.insert((vault.tenant, vault.name()), Some(Arc::clone(vault)));
        }
        registry.remove_tenant(name);
        registry.begin_epoch(before);
        drop(registry);
        for of_vault in &mut stripes {
            self.remember_all(of_vault, sequence);
        }
        drop(stripes);
        drop(structure);
        // On stable storage whatever the database's writes are: what follows cannot be undone.
        self.engine.sync()?;
        let gone: Vec<_> = vaults
            .iter()
            .map(|vault| (vault.id, vault.keyspace))
            .collect();
        self.discard(&gone)?;
        Ok(keys)
    }
}
