//! Vaults coming, going, and changing their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use vault_core::{Durability, Reader, SequenceNumber, WriteBatch, WriteOptions};

use super::exchange::Departure;
use super::fill::Begun;
use super::registry::{NO_TENANT, VaultState};
use super::shared::Shared;
use crate::access::Saving;
use crate::catalog::{self, Delta, Header, Keyspaces, Record, Tally};
use crate::commit::Stripe;
use crate::error::{Error, Result};
use crate::name::check_vault_name;
use crate::tenant::{QuotaRoom, TenantState};
use crate::vault::VaultInfo;

impl Shared {
    /// The vault of this name, created if there is none.
    pub(crate) fn vault(&self, tenant: u32, name: &str) -> Result<Arc<VaultState>> {
        if let Some(state) = self.registry().find(tenant, name) {
            return Ok(Arc::clone(state));
        }
        match self.create_vault(tenant, name) {
            // Somebody else was faster.
            Err(Error::VaultExists { .. }) => self.existing_vault(tenant, name),
            other => other,
        }
    }

    /// The vault of this name, which must exist.
    pub(crate) fn existing_vault(&self, tenant: u32, name: &str) -> Result<Arc<VaultState>> {
        if let Some(state) = self.registry().find(tenant, name) {
            return Ok(Arc::clone(state));
        }
        check_vault_name(name)?;
        Err(Error::NoSuchVault {
            name: name.to_owned(),
        })
    }

    /// Creates a vault, which must not exist.
    pub(crate) fn create_vault(&self, tenant: u32, name: &str) -> Result<Arc<VaultState>> {
        check_vault_name(name)?;
        let mut structure = self.structure();
        self.check_free(tenant, name)?;
        self.check_vault_room(tenant)?;
        let begun = self.begin_vault(&mut structure)?;
        let now = self.now();
        let record = Record {
            id: begun.id,
            created: now.0,
            description: None,
            owner: None,
            tags: Vec::new(),
        };
        let state = self.publish_vault(tenant, name, &begun, record, &Tally::empty(now))?;
        drop(structure);
        self.make_durable()?;
        Ok(state)
    }

    /// Makes room for a vault: a number, and a keyspace. It is marked before that is there, so that an opening that finds it before
    /// it is published removes it.
    pub(crate) fn begin_vault(&self, header: &mut Header) -> Result<Begun> {
        let keyspaces = self.keyspaces()?;
        self.check_no_migration()?;
        let id = header.next_vault;
        let next = Header {
            next_vault: id.checked_add(1).ok_or(Error::TooManyVaults {
                max: u64::from(u32::MAX),
            })?,
            ..header.clone()
        };
        let mut batch = WriteBatch::new();
        batch.put(
            keyspaces.catalog,
            &catalog::header_key(),
            &catalog::encode(&next)?,
        );
        batch.put(keyspaces.catalog, &catalog::stray_key(id), b"");
        self.engine.write(&batch, &WriteOptions::SYNC)?;
        *header = next;
        let keyspace = self
            .engine
            .create_keyspace(&catalog::keyspace_name(id), &self.vaults)?;
        Ok(Begun { id, keyspace })
    }

    /// Refuses where there are as many vaults as may be.
    pub(crate) fn check_vault_room(&self, tenant: u32) -> Result<()> {
        let owner = self.owner(tenant)?;
        let registry = self.registry();
        if let Some(owner) = owner {
            owner.check_vaults(registry.of_tenant(tenant).count() as u64)?;
        }
        if registry.count() >= self.bounds.vaults_max {
            return Err(Error::TooManyVaults {
                max: self.bounds.vaults_max,
            });
        }
        Ok(())
    }

    /// The tenant of this number, which must exist; `None` for [`NO_TENANT`].
    fn owner(&self, tenant: u32) -> Result<Option<Arc<TenantState>>> {
        if tenant == NO_TENANT {
            return Ok(None);
        }
        let registry = self.registry();
        let owner = registry.tenant_of(tenant).map(Arc::clone);
        let gone = || Error::NoSuchTenant {
            name: format!("number {tenant}"),
        };
        owner.map(Some).ok_or_else(gone)
    }

    pub(crate) fn check_free(&self, tenant: u32, name: &str) -> Result<()> {
        if self.registry().find(tenant, name).is_some() {
            return Err(Error::VaultExists {
                name: name.to_owned(),
            });
        }
        Ok(())
    }

    /// Has a vault that was begun appear under a name that is free, with the structure held. To be made durable by the caller,
    /// once nothing is held.
    pub(crate) fn publish_vault(
        &self,
        tenant: u32,
        name: &str,
        begun: &Begun,
        record: Record,
        tally: &Tally,
    ) -> Result<Arc<VaultState>> {
        let owner = self.owner(tenant)?;
        let delta = Delta::of(tally);
        let room = owner.as_ref().map(|owner| QuotaRoom::take(owner, &delta));
        let room = room.transpose()?;
        let mut batch = WriteBatch::new();
        let catalog = self.keyspaces()?.catalog;
        batch.put(
            catalog,
            &catalog::record_key(tenant, name),
            &catalog::encode(&record)?,
        );
        batch.put(catalog, &catalog::tally_key(begun.id), &tally.encode());
        batch.delete(catalog, &catalog::stray_key(begun.id));
        let mut registry = self.registry_mut();
        let since = self.apply(&batch)?;
        if let Some(owner) = &owner {
            owner.usage.add(&delta);
        }
        let state = VaultState::created(owner, name, begun.keyspace, record, tally, since);
        let state = Arc::new(state);
        registry.insert(name, Arc::clone(&state));
        registry.begin_epoch(BTreeMap::from([((tenant, Arc::from(name)), None)]));
        drop((registry, room));
        Ok(state)
    }

    /// Has transactions know that a commit may have changed any key of a vault, whose stripes are all held.
    pub(crate) fn remember_all(&self, stripes: &mut [Stripe<'_>], sequence: SequenceNumber) {
        for stripe in stripes {
            self.remember(stripe, |recent| recent.note_everything(sequence));
        }
    }

    /// Adds to a batch what takes a vault out of the catalog, all but its record, and marks what is left of it.
    pub(crate) fn plan_removal(
        &self,
        keyspaces: Keyspaces,
        batch: &mut WriteBatch,
        vault: &VaultState,
    ) {
        batch.delete(keyspaces.catalog, &catalog::tally_key(vault.id));
        batch.delete(keyspaces.catalog, &catalog::access_key(vault.id));
        batch.put(keyspaces.catalog, &catalog::stray_key(vault.id), b"");
        batch.delete_prefix(keyspaces.expiry, &catalog::expiry_prefix(vault.id));
    }

    /// How writes of the catalog that are not commits of entries are made.
    pub(crate) const fn structural(&self) -> WriteOptions {
        match self.durability {
            Durability::Os => WriteOptions::OS,
            Durability::Sync => WriteOptions::SYNC,
        }
    }

    /// What is known of a tenant's vaults, in the order of their names.
    pub(crate) fn vaults_of(&self, tenant: u32) -> Vec<VaultInfo> {
        let registry = self.registry();
        let vaults = registry.of_tenant(tenant);
        vaults
            .map(|(name, state)| {
                let live = state.live();
                VaultInfo::new(name, &live.record, &state.counts.tally())
            })
            .collect()
    }

    /// How much was in a vault at the moment of a reader.
    pub(crate) fn tally_at<R: Reader + ?Sized>(&self, reader: &R, vault: u32) -> Result<Tally> {
        let stored = reader.get(self.keyspaces()?.catalog, &catalog::tally_key(vault))?;
        // A vault that was created after the moment had nothing in it.
        stored.map_or(Ok(Tally::default()), |stored| {
            Tally::decode(&stored).ok_or_else(|| catalog::malformed("the tally of a vault"))
        })
    }

    /// How many entries a vault has, while its stripes are held.
    pub(crate) fn len_held(&self, vault: &VaultState) -> Result<u64> {
        let entries = vault.counts.entries();
        if vault.counts.expiring() == 0 {
            return Ok(entries);
        }
        let expired = self.count_expired(&*self.engine, vault.id)?;
        Ok(entries.saturating_sub(expired))
    }

    /// Changes what is known of a vault.
    pub(crate) fn change_record(
        &self,
        vault: &Arc<VaultState>,
        change: impl FnOnce(&mut Record),
    ) -> Result<()> {
        let _structure = self.structure();
        let vault = vault.latest();
        vault.check()?;
        let catalog = self.keyspaces()?.catalog;
        let (name, mut record) = {
            let live = vault.live();
            (Arc::clone(&live.name), live.record.clone())
        };
        change(&mut record);
        record.check()?;
        let mut batch = WriteBatch::new();
        let key = catalog::record_key(vault.tenant, &name);
        batch.put(catalog, &key, &catalog::encode(&record)?);
        self.engine.write(&batch, &self.structural())?;
        vault.live().record = record;
        Ok(())
    }

    /// Gives a vault another name.
    pub(crate) fn rename(&self, vault: &Arc<VaultState>, name: &str) -> Result<u64> {
        check_vault_name(name)?;
        let structure = self.structure();
        // So that no transaction commits while its vault changes its name.
        let Departure { vault, stripes } = vault.hold_all()?;
        let catalog = self.keyspaces()?.catalog;
        let (old, record) = {
            let live = vault.live();
            (Arc::clone(&live.name), live.record.clone())
        };
        let entries = self.len_held(vault)?;
        if *old == *name {
            return Ok(entries);
        }
        self.check_free(vault.tenant, name)?;
        let mut batch = WriteBatch::new();
        batch.delete(catalog, &catalog::record_key(vault.tenant, &old));
        let key = catalog::record_key(vault.tenant, name);
        batch.put(catalog, &key, &catalog::encode(&record)?);
        let mut registry = self.registry_mut();
        self.apply(&batch)?;
        registry.remove(vault.tenant, &old);
        registry.insert(name, Arc::clone(vault));
        vault.live().name = Arc::from(name);
        registry.begin_epoch(BTreeMap::from([
            ((vault.tenant, old), Some(Arc::clone(vault))),
            ((vault.tenant, Arc::from(name)), None),
        ]));
        drop((registry, stripes, structure));
        self.make_durable()?;
        Ok(entries)
    }

    /// Removes every entry of a vault.
    pub(crate) fn clear(&self, vault: &Arc<VaultState>) -> Result<u64> {
        let keyspaces = self.keyspaces()?;
        let Departure { vault, mut stripes } = vault.hold_all()?;
        let removed = self.len_held(vault)?;
        let tally = Tally {
            commits: vault.counts.tally().commits + 1,
            ..Tally::empty(self.now())
        };
        let mut batch = WriteBatch::new();
        catalog::delete_everything(&mut batch, vault.keyspace);
        batch.delete_prefix(keyspaces.expiry, &catalog::expiry_prefix(vault.id));
        batch.put(
            keyspaces.catalog,
            &catalog::tally_key(vault.id),
            &tally.encode(),
        );
        let sequence = self.apply(&batch)?;
        if let Some(owner) = &vault.owner {
            owner
                .usage
                .add(&Delta::between(&vault.counts.tally(), &tally));
        }
        vault.counts.set(&tally);
        self.remember_all(&mut stripes, sequence);
        drop(stripes);
        self.make_durable()?;
        Ok(removed)
    }

    /// Deletes a vault with everything in it.
    pub(crate) fn delete(&self, vault: &Arc<VaultState>) -> Result<u64> {
        let keyspaces = self.keyspaces()?;
        let structure = self.structure();
        let Departure { vault, mut stripes } = vault.hold_all()?;
        let removed = self.len_held(vault)?;
        let name = vault.name();
        let mut batch = WriteBatch::new();
        batch.delete(keyspaces.catalog, &catalog::record_key(vault.tenant, &name));
        self.plan_removal(keyspaces, &mut batch, vault);
        let mut saving = vault.access.hold_saving();
        let mut registry = self.registry_mut();
        let sequence = self.apply(&batch)?;
        *saving = Saving::Never;
        vault.set_deleted(sequence);
        if let Some(owner) = &vault.owner {
            let nothing = Tally::empty(self.now());
            owner
                .usage
                .add(&Delta::between(&vault.counts.tally(), &nothing));
        }
        registry.remove(vault.tenant, &name);
        self.keep_accesses_of(&vault.access);
        let before = ((vault.tenant, name), Some(Arc::clone(vault)));
        registry.begin_epoch(BTreeMap::from([before]));
        drop((registry, saving));
        self.remember_all(&mut stripes, sequence);
        drop(stripes);
        drop(structure);
        // On stable storage whatever the database's writes are: what follows cannot be undone.
        self.engine.sync()?;
        // Should this fail, the vault is gone all the same, and the next opening removes what is left.
        self.discard(&[(vault.id, vault.keyspace)])?;
        Ok(removed)
    }
}
