//! Exchanges: vaults take the place of others, at one moment, under open handles.
//!
//! An import that replaces a vault, and a restore of any number of them, fill keyspaces that nobody sees and then
//! exchange vaults: one batch changes the catalog, and from one moment on every handle stands for the new vault of the
//! same tenant and name. Where there is none, the handle's vault is deleted.
//!
//! # Who sees what
//! - Reads of one key and scans see the old vaults or the new ones, and never wait: a handle follows
//!   [`VaultState::latest`], which changes for all vaults of an exchange by a single store.
//! - Transactions that began before the exchange go on with the old vaults, whose keyspaces their snapshot keeps. Handles
//!   follow [`VaultState::at`], names are looked up in the [`Epoch`] of the beginning. They can commit unless they relied on
//!   or changed a vault that was exchanged: that is a conflict.
//! - Writers wait for the stripes, which the exchange holds, and go on with the new vault ([`VaultState::hold`]).
//! - Transactions begin under the registry's lock, which the exchange holds from before its batch is applied until everybody
//!   sees it: none can have a moment between. Whoever creates, renames or deletes a vault does the same, and begins
//!   another [`Epoch`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use vault_core::{SequenceNumber, Snapshot, WriteBatch, WriteOptions};

use super::fill::Begun;
use super::registry::{Registry, VaultState};
use super::shared::Shared;
use crate::access::{Saved, Saving};
use crate::catalog::{self, Delta, Header, Record, Tally};
use crate::commit::Stripe;
use crate::error::Result;
use crate::tenant::{QuotaRoom, TenantRecord, TenantState};

/// A vault that was filled, and is to appear.
pub(crate) struct Arrival {
    pub(crate) owner: Option<Arc<TenantState>>,
    pub(crate) name: Arc<str>,
    pub(crate) begun: Begun,
    pub(crate) record: Record,
    pub(crate) tally: Tally,
    pub(crate) accesses: Saved,
}

/// A vault that is to go, with all of its stripes held.
pub(crate) struct Departure<'a> {
    pub(crate) vault: &'a Arc<VaultState>,
    pub(crate) stripes: Vec<Stripe<'a>>,
}

/// What is to be exchanged. Of every arrival's tenant and name, the vault that is there departs.
#[derive(Default)]
pub(crate) struct Exchange<'a> {
    /// What the catalog's header becomes, where that changes.
    pub(crate) header: Option<&'a Header>,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) departures: Vec<Departure<'a>>,
    /// Tenants that are new, or get what is recorded of them.
    pub(crate) tenants: Vec<(Arc<TenantState>, TenantRecord)>,
    pub(crate) tenants_dropped: Vec<Arc<TenantState>>,
    /// Whether what tenants get must fit into their quotas.
    pub(crate) within_quotas: bool,
}

/// The moment of an exchange: the number of its batch, or 0 until everybody is to see it.
#[derive(Default)]
struct Moment(AtomicU64);

/// What came after a vault.
pub(super) struct Succession {
    moment: Arc<Moment>,
    /// `None`: nothing has its name any more.
    next: Option<Arc<VaultState>>,
}

/// What names meant between two changes of names: exchanges, and vaults created, renamed or deleted. Kept by the
/// transactions that began in it, and by nobody else.
#[derive(Default)]
pub(crate) struct Epoch(OnceLock<Over>);

/// The vaults that had names before a change of them, each with its tenant.
type Before = BTreeMap<(u32, Arc<str>), Option<Arc<VaultState>>>;

struct Over {
    /// The vaults that had the names which were given away or taken.
    before: Before,
    next: Arc<Epoch>,
}

impl Registry {
    /// Ends an epoch in which these vaults had these names, for the transactions that began in it, and begins another. The
    /// registry has been held for writing since before the batch that changes the names.
    pub(crate) fn begin_epoch(&mut self, before: Before) {
        let next = Arc::new(Epoch::default());
        let over = Over {
            before,
            next: Arc::clone(&next),
        };
        let _ = self.epoch().0.set(over);
        self.set_epoch(next);
    }
}

impl Epoch {
    /// Whether any name has changed since.
    pub(crate) fn is_over(&self) -> bool {
        self.0.get().is_some()
    }

    /// The vault that had a name; `None` where nothing since has touched the name, and the registry knows.
    pub(crate) fn find(&self, tenant: u32, name: &str) -> Option<Option<Arc<VaultState>>> {
        // Most transactions live through no change of names: then there is nothing to make a key for.
        let mut over = self.0.get()?;
        let key = (tenant, Arc::from(name));
        loop {
            if let Some(before) = over.before.get(&key) {
                return Some(before.clone());
            }
            over = over.next.0.get()?;
        }
    }
}

impl Drop for Epoch {
    /// One after the other: a transaction that is old keeps a chain of any length.
    fn drop(&mut self) {
        let mut next = self.0.take().map(|over| over.next);
        while let Some(epoch) = next {
            let last = Arc::into_inner(epoch);
            next = last
                .and_then(|mut epoch| epoch.0.take())
                .map(|over| over.next);
        }
    }
}

impl Drop for VaultState {
    /// One after the other: a handle that is old keeps a chain of any length.
    fn drop(&mut self) {
        let mut next = self.succession.take().and_then(|after| after.next);
        while let Some(state) = next {
            let last = Arc::into_inner(state);
            next = last
                .and_then(|mut state| state.succession.take())
                .and_then(|after| after.next);
        }
    }
}

impl VaultState {
    /// What came after the vault by `moment`, if an exchange took it out.
    #[inline]
    fn succession(&self, moment: SequenceNumber) -> Option<&Succession> {
        let succession = self.succession.get()?;
        let of = succession.moment.0.load(Ordering::Acquire);
        (of != 0 && of <= moment).then_some(succession)
    }

    /// The vault that handles of this one stand for at a moment.
    #[inline]
    pub(crate) fn at(self: &Arc<Self>, moment: SequenceNumber) -> &Arc<Self> {
        let mut state = self;
        while let Some(next) = state
            .succession(moment)
            .and_then(|after| after.next.as_ref())
        {
            state = next;
        }
        state
    }

    /// The vault that handles of this one stand for now.
    #[inline]
    pub(crate) fn latest(self: &Arc<Self>) -> &Arc<Self> {
        self.at(SequenceNumber::MAX)
    }

    /// Whether an exchange took the vault out.
    #[inline]
    pub(crate) fn is_exchanged(&self) -> bool {
        self.succession(SequenceNumber::MAX).is_some()
    }

    /// Whether another vault has taken this one's place.
    pub(crate) fn is_succeeded(&self) -> bool {
        let after = self.succession(SequenceNumber::MAX);
        after.is_some_and(|after| after.next.is_some())
    }

    /// Locks the stripe of a key in the vault that handles of this one stand for.
    pub(crate) fn hold<'a>(self: &'a Arc<Self>, key: &[u8]) -> Result<(&'a Arc<Self>, Stripe<'a>)> {
        let mut vault = self.latest();
        loop {
            let stripe = vault.stripes.lock(key);
            if !vault.is_succeeded() {
                vault.check()?;
                return Ok((vault, stripe));
            }
            vault = vault.latest();
        }
    }

    /// Locks every stripe of the vault that handles of this one stand for.
    pub(crate) fn hold_all<'a>(self: &'a Arc<Self>) -> Result<Departure<'a>> {
        let mut vault = self.latest();
        loop {
            let stripes = vault.stripes.lock_all();
            if !vault.is_succeeded() {
                vault.check()?;
                return Ok(Departure { vault, stripes });
            }
            vault = vault.latest();
        }
    }
}

impl Shared {
    /// Takes a moment of the engine, with what names mean in it.
    pub(crate) fn moment<S>(&self, take: impl FnOnce(&Arc<Epoch>) -> Result<S>) -> Result<S> {
        let registry = self.registry();
        take(registry.epoch())
    }

    /// A snapshot of the engine in which a handle stands for the vault that is given with it.
    pub(crate) fn snapshot_of<'a>(
        &self,
        vault: &'a Arc<VaultState>,
    ) -> Result<(Arc<dyn Snapshot>, &'a Arc<VaultState>)> {
        let snapshot = self.moment(|_| Ok(self.engine.snapshot()?))?;
        let vault = vault.at(snapshot.sequence());
        Ok((snapshot, vault))
    }

    /// Exchanges vaults. To be called with the structure held. What is told as an error has not happened; what has
    /// happened is on stable storage only after [`Shared::settle`], which must follow.
    pub(crate) fn exchange(&self, exchange: Exchange<'_>) -> Result<()> {
        let batch = self.plan_exchange(&exchange)?;
        let rooms = match exchange.within_quotas {
            true => take_quotas(&exchange)?,
            false => Vec::new(),
        };
        // What is noted of accesses to the vaults that go is not saved behind the batch.
        let departing: Vec<_> = exchange
            .departures
            .iter()
            .map(|departure| Arc::clone(departure.vault))
            .collect();
        let mut saving: Vec<_> = departing
            .iter()
            .map(|vault| vault.access.hold_saving())
            .collect();
        let mut registry = self.registry_mut();
        let moment_number = self.engine.write(&batch, &WriteOptions::OS)?;
        // Nothing fails from here on.
        for saving in &mut saving {
            **saving = Saving::Never;
        }
        let moment = Arc::new(Moment::default());
        let arrivals = exchange.arrivals.into_iter().map(|arrival| {
            let name = Arc::clone(&arrival.name);
            (name, Arc::new(VaultState::arrived(arrival, moment_number)))
        });
        let arrivals = arrivals.map(|(name, state)| ((state.tenant, name), state));
        let arrivals: BTreeMap<(u32, Arc<str>), Arc<VaultState>> = arrivals.collect();
        let mut before = BTreeMap::new();
        for (name, state) in &arrivals {
            before.insert(name.clone(), None);
            if let Some(owner) = &state.owner {
                owner.usage.add(&Delta::of(&state.counts.tally()));
            }
        }
        for Departure { vault, .. } in &exchange.departures {
            let name = (vault.tenant, vault.name());
            let next = arrivals.get(&name).map(Arc::clone);
            let moment = Arc::clone(&moment);
            // A vault departs once: whoever would have it depart again finds another under its name.
            let _ = vault.succession.set(Succession { moment, next });
            if let Some(owner) = &vault.owner {
                let nothing = Tally::empty(self.now());
                owner
                    .usage
                    .add(&Delta::between(&vault.counts.tally(), &nothing));
            }
            registry.remove(vault.tenant, &name.1);
            self.keep_accesses_of(&vault.access);
            before.insert(name, Some(Arc::clone(vault)));
        }
        for (tenant, record) in &exchange.tenants {
            tenant.set_quota(record.quota);
            registry.insert_tenant(Arc::clone(tenant));
        }
        for tenant in &exchange.tenants_dropped {
            tenant.dropped.store(true, Ordering::Release);
            registry.remove_tenant(&tenant.name);
        }
        for ((_, name), state) in arrivals {
            registry.insert(&name, state);
        }
        registry.begin_epoch(before);
        // From here on everybody sees it.
        moment.0.store(moment_number, Ordering::Release);
        drop((registry, rooms));
        Ok(())
    }

    /// Puts an exchange on stable storage, and removes what the vaults that went had. After an error it is not known whether
    /// it survives a loss of power.
    pub(crate) fn settle(&self, departed: &[Arc<VaultState>]) -> Result<()> {
        self.engine.sync()?;
        let departed = departed.iter().map(|vault| (vault.id, vault.keyspace));
        // Should this fail, the old entries are out of reach all the same, and the next opening removes them.
        let _ = self.discard(&departed.collect::<Vec<_>>());
        Ok(())
    }

    fn plan_exchange(&self, exchange: &Exchange<'_>) -> Result<WriteBatch> {
        let keyspaces = self.keyspaces()?;
        let mut batch = WriteBatch::new();
        if let Some(header) = exchange.header {
            let key = catalog::header_key();
            batch.put(keyspaces.catalog, &key, &catalog::encode(header)?);
        }
        for tenant in &exchange.tenants_dropped {
            batch.delete(keyspaces.catalog, &catalog::tenant_key(&tenant.name));
        }
        for (tenant, record) in &exchange.tenants {
            let key = catalog::tenant_key(&tenant.name);
            batch.put(keyspaces.catalog, &key, &catalog::encode(record)?);
        }
        for Departure { vault, .. } in &exchange.departures {
            self.plan_removal(keyspaces, &mut batch, vault);
            let key = catalog::record_key(vault.tenant, &vault.name());
            batch.delete(keyspaces.catalog, &key);
        }
        for arrival in &exchange.arrivals {
            let tenant = arrival.tenant();
            let key = catalog::record_key(tenant, &arrival.name);
            batch.put(keyspaces.catalog, &key, &catalog::encode(&arrival.record)?);
            let (tally, accesses) = (
                catalog::tally_key(arrival.begun.id),
                catalog::access_key(arrival.begun.id),
            );
            batch.delete(keyspaces.catalog, &catalog::stray_key(arrival.begun.id));
            batch.put(keyspaces.catalog, &tally, &arrival.tally.encode());
            batch.put(
                keyspaces.catalog,
                &accesses,
                &catalog::encode(&arrival.accesses)?,
            );
        }
        Ok(batch)
    }
}

impl Arrival {
    pub(crate) fn tenant(&self) -> u32 {
        let owner = self.owner.as_ref();
        owner.map_or(super::NO_TENANT, |owner| owner.id)
    }
}

/// Room for what each tenant gets beyond what it gives.
fn take_quotas(exchange: &Exchange<'_>) -> Result<Vec<QuotaRoom>> {
    let departures = exchange
        .departures
        .iter()
        .map(|Departure { vault, .. }| ((vault.tenant, vault.name()), vault.counts.tally()));
    let departures: BTreeMap<(u32, Arc<str>), Tally> = departures.collect();
    let rooms = exchange.arrivals.iter().filter_map(|arrival| {
        let owner = arrival.owner.as_ref()?;
        let old = departures.get(&(owner.id, Arc::clone(&arrival.name)));
        let old = old.copied().unwrap_or_default();
        Some(QuotaRoom::take(
            owner,
            &Delta::between(&old, &arrival.tally),
        ))
    });
    rooms.collect()
}
