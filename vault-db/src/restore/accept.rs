//! Asking beforehand: whether a restore in place would be accepted.
//!
//! What a comparison calls possible, the restore does, as long as nobody changes anything between them: names that are taken, tenants
//! that are missing and quotas are looked at as the restore itself looks at them, and nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use vault_core::{KeyRange, Snapshot};

use super::choose::{Chosen, Target};
use super::{Extent, Scope};
use crate::catalog::Delta;
use crate::database::Shared;
use crate::error::{Error, Result};
use crate::tenant::TenantState;
use crate::value::Stored;

impl Shared {
    /// Refuses what [`restore`](super) would refuse.
    pub(super) fn check_restore(
        &self,
        source: &Arc<Self>,
        scope: &Scope,
        extent: Extent,
    ) -> Result<()> {
        let (snapshot, chosen) = source.choose(scope)?;
        self.check_targets(scope, &chosen)?;
        {
            let header = self.structure();
            let target = self.target_of(source, scope, extent, chosen.iter(), &header)?;
            target.check_owners(&chosen)?;
        }
        match scope {
            Scope::Vaults(_) => self.check_quotas(source, &*snapshot, &chosen),
            // Their tenants take over the quotas under which they came to be.
            _ => Ok(()),
        }
    }

    /// Holds what chosen vaults bring against the quotas of those to whom they come.
    fn check_quotas(
        &self,
        source: &Self,
        snapshot: &dyn Snapshot,
        chosen: &[Chosen],
    ) -> Result<()> {
        let mut more: BTreeMap<u32, (Arc<TenantState>, u64, u64)> = BTreeMap::new();
        for chosen in chosen {
            let Some(name) = &chosen.tenant else {
                continue;
            };
            let coming = source.coming(snapshot, chosen)?;
            let registry = self.registry();
            let Some(owner) = registry.find_tenant(name) else {
                return Err(Error::NoSuchTenant { name: name.clone() });
            };
            let there = registry.find(owner.id, &chosen.name);
            let there = there.map_or_else(Delta::default, |vault| Delta::of(&vault.counts.tally()));
            let (_, keys, bytes) = more
                .entry(owner.id)
                .or_insert_with(|| (Arc::clone(owner), 0, 0));
            *keys += u64::try_from(coming.entries - there.entries).unwrap_or(0);
            *bytes += u64::try_from(coming.bytes() - there.bytes()).unwrap_or(0);
        }
        let mut more = more.into_values();
        more.try_for_each(|(owner, keys, bytes)| owner.check_room(keys, bytes))
    }

    /// What a vault brings: all that has not expired.
    fn coming(&self, snapshot: &dyn Snapshot, chosen: &Chosen) -> Result<Delta> {
        let then = self.tally_at(snapshot, chosen.vault.id)?;
        if then.expiring == 0 {
            return Ok(Delta::of(&then));
        }
        let now = self.now();
        let mut coming = Delta::default();
        let entries = snapshot.scan(chosen.vault.keyspace, KeyRange::all());
        for entry in entries.map_err(|error| chosen.vault.told(error))? {
            let (key, stored) = entry?;
            let expiry = Stored::parse(&stored).and_then(|stored| stored.expiry);
            if expiry.is_none_or(|expiry| expiry > now) {
                coming.insert(&key, stored.len() as u64, expiry.is_some());
            }
        }
        Ok(coming)
    }
}

impl Target {
    /// Refuses vaults of a tenant that is gone meanwhile: they would be left to nobody.
    pub(super) fn check_owners<'a>(
        &self,
        chosen: impl IntoIterator<Item = &'a Chosen>,
    ) -> Result<()> {
        let mut tenants = chosen
            .into_iter()
            .filter_map(|chosen| chosen.tenant.as_ref());
        match tenants.find(|tenant| !self.owners.contains_key(*tenant)) {
            Some(name) => Err(Error::NoSuchTenant { name: name.clone() }),
            None => Ok(()),
        }
    }
}
