//! Choosing: which vaults come, which go, and to whom they belong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vault_core::{Snapshot, Timestamp};

use super::{Extent, Scope};
use crate::catalog::{Header, Record};
use crate::database::{NO_TENANT, Shared, VaultState};
use crate::error::{Error, Result};
use crate::name::check_vault_name;
use crate::tenant::{TenantRecord, TenantState};

/// A vault of the source that comes.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) tenant: Option<String>,
    /// The name that it gets.
    pub(crate) name: String,
    /// Whether that is another than it had when it was chosen, and must be free. (By now the source may have renamed it.)
    elsewhere: bool,
    pub(crate) vault: Arc<VaultState>,
    pub(crate) record: Record,
}

/// What becomes of the target.
pub(super) struct Target {
    /// The vaults that go, by their numbers.
    pub(super) departing: Vec<Arc<VaultState>>,
    pub(super) tenants: Vec<(Arc<TenantState>, TenantRecord)>,
    pub(super) tenants_dropped: Vec<Arc<TenantState>>,
    pub(super) next_tenant: u32,
    /// The tenants to whom vaults come, by their names.
    pub(super) owners: BTreeMap<String, Arc<TenantState>>,
}

impl Shared {
    /// The vaults of a scope, and the moment in which they are read.
    pub(crate) fn choose(&self, scope: &Scope) -> Result<(Arc<dyn Snapshot>, Vec<Chosen>)> {
        let _structure = self.structure();
        let snapshot: Arc<dyn Snapshot> = self.engine.snapshot()?;
        let chosen = match scope {
            Scope::Everything => self.vaults_where(|_| true),
            Scope::Tenant(name) => {
                let tenant = self.tenant_named(name)?.id;
                self.vaults_where(|vault| vault.tenant == tenant)
            }
            Scope::Vaults(choices) => {
                let mut chosen = Vec::with_capacity(choices.len());
                for choice in choices {
                    let tenant = match &choice.tenant {
                        Some(name) => self.tenant_named(name)?.id,
                        None => NO_TENANT,
                    };
                    let vault = self.existing_vault(tenant, &choice.name)?;
                    let name = choice.under.as_ref().unwrap_or(&choice.name);
                    check_vault_name(name)?;
                    chosen.push(Chosen {
                        name: name.clone(),
                        elsewhere: *name != choice.name,
                        ..Chosen::of(vault)
                    });
                }
                chosen
            }
        };
        Ok((snapshot, chosen))
    }

    fn vaults_where(&self, wanted: impl Fn(&VaultState) -> bool) -> Vec<Chosen> {
        let registry = self.registry();
        let vaults = registry.all().filter(|vault| wanted(vault));
        vaults.map(|vault| Chosen::of(Arc::clone(vault))).collect()
    }

    fn tenant_named(&self, name: &str) -> Result<Arc<TenantState>> {
        let found = self.registry().find_tenant(name).map(Arc::clone);
        found.ok_or_else(|| Error::NoSuchTenant {
            name: name.to_owned(),
        })
    }

    /// Refuses what cannot be put in place.
    pub(super) fn check_targets<'a>(
        &self,
        scope: &Scope,
        chosen: impl IntoIterator<Item = &'a Chosen>,
    ) -> Result<()> {
        let registry = self.registry();
        let mut names = BTreeSet::new();
        let mut more = 0;
        let mut more_of: BTreeMap<u32, u64> = BTreeMap::new();
        for chosen in chosen {
            let name = chosen.name.clone();
            let tenant = match (&chosen.tenant, scope) {
                (None, _) => Some(NO_TENANT),
                (Some(name), scope) => match (registry.find_tenant(name), scope) {
                    (Some(tenant), _) => Some(tenant.id),
                    (None, Scope::Vaults(_)) => {
                        let name = name.clone();
                        return Err(Error::NoSuchTenant { name });
                    }
                    // It comes, too.
                    (None, _) => None,
                },
            };
            let there = tenant.and_then(|tenant| registry.find(tenant, &name));
            if there.is_some() && chosen.elsewhere {
                return Err(Error::VaultExists { name });
            }
            more += u64::from(there.is_none());
            if let (Some(tenant), None, Scope::Vaults(_)) = (tenant, there, scope) {
                *more_of.entry(tenant).or_default() += 1;
            }
            if !names.insert((chosen.tenant.clone(), name.clone())) {
                return Err(Error::VaultExists { name });
            }
        }
        for (tenant, more) in more_of {
            if let Some(owner) = registry.tenant_of(tenant) {
                owner.check_vaults(registry.of_tenant(tenant).count() as u64 + more - 1)?;
            }
        }
        let before = match scope {
            Scope::Everything => 0,
            Scope::Tenant(_) | Scope::Vaults(_) => registry.count(),
        };
        let after = match scope {
            Scope::Everything => names.len() as u64,
            Scope::Tenant(_) | Scope::Vaults(_) => before + more,
        };
        let max = self.bounds.vaults_max;
        if after > max && after > before {
            return Err(Error::TooManyVaults { max });
        }
        Ok(())
    }

    /// What becomes of this database when what was chosen in another comes.
    pub(super) fn target_of<'a>(
        &self,
        source: &Self,
        scope: &Scope,
        extent: Extent,
        chosen: impl Iterator<Item = &'a Chosen>,
        header: &Header,
    ) -> Result<Target> {
        let mut target = Target {
            departing: Vec::new(),
            tenants: Vec::new(),
            tenants_dropped: Vec::new(),
            next_tenant: header.next_tenant,
            owners: BTreeMap::new(),
        };
        // One registry at a time: both may be the same.
        let coming: Vec<Arc<TenantState>> = match scope {
            Scope::Everything => source.registry().tenants().cloned().collect(),
            Scope::Tenant(name) => vec![source.tenant_named(name)?],
            Scope::Vaults(_) => Vec::new(),
        };
        let registry = self.registry();
        for tenant in &coming {
            target.take_tenant(tenant, registry.find_tenant(&tenant.name), extent)?;
        }
        let departing: Vec<&Arc<VaultState>> = match scope {
            Scope::Everything if extent == Extent::Whole => {
                let names: BTreeSet<&str> = coming.iter().map(|t| t.name.as_str()).collect();
                let dropped = registry
                    .tenants()
                    .filter(|tenant| !names.contains(tenant.name.as_str()));
                target.tenants_dropped.extend(dropped.cloned());
                registry.all().collect()
            }
            Scope::Tenant(name) if extent == Extent::Whole => {
                let tenant = registry.find_tenant(name).map(|tenant| tenant.id);
                let all = registry.all();
                all.filter(|vault| Some(vault.tenant) == tenant).collect()
            }
            _ => {
                let mut departing = Vec::new();
                for chosen in chosen {
                    let mut tenant = NO_TENANT;
                    if let Some(owner) = &chosen.tenant
                        && let Some(there) = registry.find_tenant(owner)
                    {
                        tenant = there.id;
                        target.owners.insert(owner.clone(), Arc::clone(there));
                    } else if chosen.tenant.is_some() {
                        // It comes along, and had nothing here.
                        continue;
                    }
                    departing.extend(registry.find(tenant, &chosen.name));
                }
                departing
            }
        };
        target.departing.extend(departing.into_iter().cloned());
        // The order in which everybody locks vaults.
        target.departing.sort_by_key(|vault| vault.id);
        Ok(target)
    }
}

impl Chosen {
    pub(crate) fn of(vault: Arc<VaultState>) -> Self {
        let (name, record) = {
            let live = vault.live();
            (live.name.to_string(), live.record.clone())
        };
        Self {
            tenant: vault.owner.as_ref().map(|owner| owner.name.clone()),
            name,
            elsewhere: false,
            vault,
            record,
        }
    }
}

impl Target {
    /// Takes a tenant of the source over: the one of that name stays who it is, so that its handles go on.
    fn take_tenant(
        &mut self,
        coming: &Arc<TenantState>,
        there: Option<&Arc<TenantState>>,
        extent: Extent,
    ) -> Result<()> {
        let Timestamp(created) = coming.created;
        let record = TenantRecord {
            id: there.map_or(self.next_tenant, |there| there.id),
            created: there.map_or(created, |there| there.created.0),
            quota: match (there, extent) {
                (Some(there), Extent::Parts) => there.quota(),
                _ => coming.quota(),
            },
        };
        let state = match there {
            Some(there) => Arc::clone(there),
            None => {
                let next = self.next_tenant.checked_add(1);
                let full = || Error::TooManyVaults {
                    max: u64::from(u32::MAX),
                };
                self.next_tenant = next.ok_or_else(full)?;
                Arc::new(TenantState::new(&coming.name, &record))
            }
        };
        self.owners.insert(coming.name.clone(), Arc::clone(&state));
        self.tenants.push((state, record));
        Ok(())
    }
}
