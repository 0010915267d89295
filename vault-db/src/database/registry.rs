//! The vaults of a database, by name: one state for each, however many handles there are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use vault_core::{KeyspaceId, Reader, SequenceNumber};

use super::exchange::{Arrival, Epoch, Succession};
use super::shared::lock;
use crate::access::{Access, Saved};
use crate::catalog::{self, Counts, Delta, Keyspaces, Record, Tally};
use crate::commit::Stripes;
use crate::error::{Error, Result};
use crate::tenant::{TenantRecord, TenantState};

/// The tenant of vaults that belong to none.
pub(crate) const NO_TENANT: u32 = 0;

/// Every vault, by tenant and name.
#[derive(Default)]
pub(crate) struct Registry {
    vaults: BTreeMap<u32, BTreeMap<String, Arc<VaultState>>>,
    count: u64,
    tenants: BTreeMap<String, Arc<TenantState>>,
    epoch: Arc<Epoch>,
}

impl Registry {
    pub(crate) fn find(&self, tenant: u32, name: &str) -> Option<&Arc<VaultState>> {
        self.vaults.get(&tenant)?.get(name)
    }

    pub(crate) fn insert(&mut self, name: &str, state: Arc<VaultState>) {
        let vaults = self.vaults.entry(state.tenant).or_default();
        if vaults.insert(name.to_owned(), state).is_none() {
            self.count += 1;
        }
    }

    pub(crate) fn remove(&mut self, tenant: u32, name: &str) {
        if let Some(vaults) = self.vaults.get_mut(&tenant)
            && vaults.remove(name).is_some()
        {
            self.count -= 1;
        }
    }

    /// The vaults of a tenant in the order of their names.
    pub(crate) fn of_tenant(&self, tenant: u32) -> impl Iterator<Item = (&str, &Arc<VaultState>)> {
        let vaults = self.vaults.get(&tenant).into_iter().flatten();
        vaults.map(|(name, state)| (name.as_str(), state))
    }

    /// Every vault, in no particular order of names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<VaultState>> {
        self.vaults.values().flat_map(BTreeMap::values)
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn find_tenant(&self, name: &str) -> Option<&Arc<TenantState>> {
        self.tenants.get(name)
    }

    /// The tenants in the order of their names.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Arc<TenantState>> {
        self.tenants.values()
    }

    pub(crate) fn tenant_of(&self, id: u32) -> Option<&Arc<TenantState>> {
        self.tenants.values().find(|tenant| tenant.id == id)
    }

    pub(crate) fn insert_tenant(&mut self, tenant: Arc<TenantState>) {
        self.tenants.insert(tenant.name.clone(), tenant);
    }

    pub(crate) fn remove_tenant(&mut self, name: &str) {
        self.tenants.remove(name);
    }

    /// What names mean since they last changed.
    pub(crate) const fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    pub(super) fn set_epoch(&mut self, epoch: Arc<Epoch>) {
        self.epoch = epoch;
    }
}

/// One vault, behind all of its handles.
pub(crate) struct VaultState {
    pub(crate) id: u32,
    /// The number of the tenant it belongs to, or [`NO_TENANT`].
    pub(crate) tenant: u32,
    pub(crate) owner: Option<Arc<TenantState>>,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) stripes: Stripes,
    pub(crate) counts: Counts,
    /// The batch by which it came, or 0 if it was there at the opening.
    pub(crate) since: SequenceNumber,
    /// Whether it came empty and under a name that was free: all that is in it was committed since.
    pub(super) came_empty: bool,
    /// The batch that deleted it, or 0. Set while all stripes are held.
    deleted_at: AtomicU64,
    /// Set while all stripes are held, and in effect from the moment that it names.
    pub(super) succession: OnceLock<Succession>,
    pub(crate) access: Access,
    live: Mutex<Live>,
}

/// What is known of a vault, beside how much is in it.
pub(crate) struct Live {
    pub(crate) name: Arc<str>,
    pub(crate) record: Record,
}

impl VaultState {
    pub(crate) fn new(
        owner: Option<Arc<TenantState>>,
        name: &str,
        keyspace: KeyspaceId,
        record: Record,
        tally: &Tally,
        accesses: Saved,
    ) -> Self {
        let log = owner.as_ref().map(|owner| Arc::clone(&owner.accesses));
        Self {
            id: record.id,
            tenant: owner.as_ref().map_or(NO_TENANT, |owner| owner.id),
            owner,
            keyspace,
            stripes: Stripes::default(),
            counts: Counts::new(tally),
            since: 0,
            came_empty: false,
            deleted_at: AtomicU64::new(0),
            succession: OnceLock::new(),
            access: Access::new(record.id, log, accesses),
            live: Mutex::new(Live {
                name: Arc::from(name),
                record,
            }),
        }
    }

    /// A vault that came by an exchange.
    pub(super) fn arrived(arrival: Arrival, since: SequenceNumber) -> Self {
        let Arrival {
            owner,
            name,
            begun,
            record,
            tally,
            accesses,
        } = arrival;
        let mut state = Self::new(owner, &name, begun.keyspace, record, &tally, accesses);
        state.since = since;
        state
    }

    /// A vault that was created under a name that was free.
    pub(super) fn created(
        owner: Option<Arc<TenantState>>,
        name: &str,
        keyspace: KeyspaceId,
        record: Record,
        tally: &Tally,
        since: SequenceNumber,
    ) -> Self {
        let mut state = Self::new(owner, name, keyspace, record, tally, Saved::default());
        state.since = since;
        state.came_empty = tally.entries == 0;
        state
    }

    /// Whether it came after a moment with entries in it, which no stripe has noted and a snapshot may have in part.
    pub(crate) fn came_filled_after(&self, moment: SequenceNumber) -> bool {
        self.since > moment && !self.came_empty
    }

    /// Whether it came after a moment with nothing in it: so a transaction of that moment sees it.
    pub(crate) fn came_empty_after(&self, moment: SequenceNumber) -> bool {
        self.since > moment && self.came_empty
    }

    /// What is known of the vault.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    /// Refuses where the vault is no more. One whose place another has taken is: who goes on with it does so as if before.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_deleted_at(SequenceNumber::MAX) || self.is_exchanged() && !self.is_succeeded() {
            return Err(self.gone());
        }
        Ok(())
    }

    /// Whether it was deleted by this moment.
    #[inline]
    pub(crate) fn is_deleted_at(&self, moment: SequenceNumber) -> bool {
        let deleted_at = self.deleted_at.load(Ordering::Acquire);
        deleted_at != 0 && deleted_at <= moment
    }

    /// Takes note that a batch has deleted it, while all stripes are held and the registry for writing.
    pub(crate) fn set_deleted(&self, sequence: SequenceNumber) {
        self.deleted_at.store(sequence, Ordering::Release);
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.live().name)
    }

    /// The error of whoever uses a vault that is no more.
    pub(crate) fn gone(&self) -> Error {
        Error::VaultDeleted {
            name: self.name().to_string(),
        }
    }

    /// An error of the engine in the vault's own words.
    pub(crate) fn told(&self, error: vault_core::Error) -> Error {
        match error {
            vault_core::Error::UnknownKeyspace { id } if id == self.keyspace.0 => self.gone(),
            error => Error::Engine(error),
        }
    }
}

/// Reads every vault out of the catalog. `keyspace_of` finds a keyspace by name.
pub(crate) fn load(
    reader: &dyn Reader,
    keyspaces: Keyspaces,
    keyspace_of: impl Fn(&str) -> Option<KeyspaceId>,
) -> Result<Registry> {
    let mut registry = Registry::default();
    for entry in reader.scan_prefix(keyspaces.catalog, &catalog::tenants_prefix())? {
        let (key, value) = entry?;
        let what = "the record of a tenant";
        let name = std::str::from_utf8(&key[1..]).map_err(|_| catalog::malformed(what))?;
        let record: TenantRecord = catalog::decode(what, &value)?;
        registry.insert_tenant(Arc::new(TenantState::new(name, &record)));
    }
    for entry in reader.scan_prefix(keyspaces.catalog, &catalog::all_records_prefix())? {
        let (key, value) = entry?;
        let what = "the record of a vault";
        let (tenant, name) =
            catalog::parse_record_key(&key).ok_or_else(|| catalog::malformed(what))?;
        let record: Record = catalog::decode(what, &value)?;
        let keyspace =
            keyspace_of(&catalog::keyspace_name(record.id)).ok_or_else(|| Error::Malformed {
                what: format!("vault {name:?}"),
                problem: format!(
                    "the catalog names it, and its keyspace {} is missing",
                    catalog::keyspace_name(record.id)
                ),
            })?;
        let what = "the tally of a vault";
        let tally = reader
            .get(keyspaces.catalog, &catalog::tally_key(record.id))?
            .and_then(|tally| Tally::decode(&tally))
            .ok_or_else(|| catalog::malformed(what))?;
        let accesses = match reader.get(keyspaces.catalog, &catalog::access_key(record.id))? {
            // Nothing depends on it: what cannot be read is begun anew.
            Some(saved) => catalog::decode("what is noted of accesses", &saved).unwrap_or_default(),
            None => Saved::default(),
        };
        let owner = match tenant {
            NO_TENANT => None,
            id => {
                let owner = registry.tenant_of(id).map(Arc::clone);
                Some(owner.ok_or_else(|| catalog::malformed("the tenant of a vault"))?)
            }
        };
        if let Some(owner) = &owner {
            owner.usage.add(&Delta::of(&tally));
        }
        let state = VaultState::new(owner, name, keyspace, record, &tally, accesses);
        registry.insert(name, Arc::new(state));
    }
    Ok(registry)
}
