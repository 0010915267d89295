//! Opening: the catalog is read, and what was on its way in or out is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use vault_core::random::{Random, SeededRandom, SystemRandom};
use vault_core::stats::Histogram;
use vault_core::{
    Clock, Durability, Engine, KeyRange, KeyspaceId, KeyspaceOptions, WriteBatch, WriteOptions,
};
use vault_lsm::Lsm;

use super::erase::compact_away;
use super::registry::{self, Registry};
use super::shared::{Shared, lock};
use super::temp::TemporaryDirectory;
use crate::access::{AccessLog, RECORDS_MAX};
use crate::bounds::Bounds;
use crate::catalog::{self, FORMAT, Header, Keyspaces};
use crate::error::{Error, Result};
use crate::hex::hex;
use crate::migrate;
use crate::transaction::Active;

/// What a database is opened with.
pub(super) struct Opening {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) lsm: Option<Lsm>,
    pub(super) directory: Option<TemporaryDirectory>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bounds: Bounds,
    pub(super) vaults: KeyspaceOptions,
    pub(super) durability: Durability,
}

pub(super) fn open(opening: Opening) -> Result<Shared> {
    let engine = &*opening.engine;
    let writable = match opening.lsm.as_ref().map(Lsm::check_writable) {
        Some(Err(vault_core::Error::ReadOnly)) => false,
        Some(other) => other.map(|()| true)?,
        None => true,
    };
    let keyspaces = if writable {
        Some(Keyspaces::create(engine)?)
    } else {
        Keyspaces::find(engine)?
    };
    let (header, registry) = match keyspaces {
        None => (Header::default(), Registry::default()),
        Some(keyspaces) => {
            let header = read_header(engine, keyspaces, writable)?;
            let by_name = keyspaces_by_name(engine)?;
            let registry = registry::load(engine, keyspaces, |name| by_name.get(name).copied())?;
            if writable && !migrate::is_under_way(engine, &by_name)? {
                let is_encrypted = opening.lsm.as_ref().is_some_and(Lsm::is_encrypted);
                remove_strays(engine, keyspaces, &registry, &by_name, is_encrypted)?;
            }
            (header, registry)
        }
    };
    let mut seed = [0; 8];
    SystemRandom.fill(&mut seed)?;
    Ok(Shared {
        engine: opening.engine,
        lsm: opening.lsm,
        keyspaces,
        bounds: opening.bounds,
        vaults: opening.vaults,
        durability: opening.durability,
        clock: opening.clock,
        jitter: SeededRandom::new(u64::from_le_bytes(seed)),
        registry: RwLock::new(registry),
        structure: Mutex::new(header),
        transactions: Active::default(),
        writable,
        latencies: std::array::from_fn(|_| Histogram::new()),
        accesses: AccessLog::new(RECORDS_MAX),
        restoring: AtomicBool::new(false),
        ingests: AtomicU64::new(0),
        gone_accesses: std::array::from_fn(|_| AtomicU64::new(0)),
        control: Mutex::new(None),
        _directory: opening.directory,
    })
}

fn read_header(engine: &dyn Engine, keyspaces: Keyspaces, writable: bool) -> Result<Header> {
    let key = catalog::header_key();
    let Some(stored) = engine.get(keyspaces.catalog, &key)? else {
        let header = Header {
            database: random_name()?,
            ..Header::default()
        };
        if writable {
            let mut batch = WriteBatch::new();
            batch.put(keyspaces.catalog, &key, &catalog::encode(&header)?);
            engine.write(&batch, &WriteOptions::SYNC)?;
        }
        return Ok(header);
    };
    let header: Header = catalog::decode("the header", &stored)?;
    if header.format > FORMAT {
        return Err(Error::NewerFormat {
            found: header.format,
            supported: FORMAT,
        });
    }
    Ok(header)
}

/// A name that nobody else has.
fn random_name() -> Result<String> {
    let mut bytes = [0; 16];
    SystemRandom.fill(&mut bytes)?;
    Ok(hex(&bytes))
}

impl Shared {
    /// Takes the catalog for what it has become past this handle.
    pub(crate) fn reload(&self) -> Result<()> {
        let keyspaces = self.keyspaces()?;
        let mut structure = self.structure();
        let by_name = keyspaces_by_name(&*self.engine)?;
        *structure = read_header(&*self.engine, keyspaces, false)?;
        let registry = registry::load(&*self.engine, keyspaces, |name| by_name.get(name).copied())?;
        *self.registry_mut() = registry;
        *lock(&self.control) = None;
        Ok(())
    }
}

pub(crate) fn keyspaces_by_name(engine: &dyn Engine) -> Result<BTreeMap<String, KeyspaceId>> {
    let keyspaces = engine.keyspaces()?.into_iter();
    Ok(keyspaces.map(|info| (info.name, info.id)).collect())
}

/// Removes what there is of vaults that the catalog does not know: of copies that were not finished, and of vaults that were
/// deleted just before the end.
fn remove_strays(
    engine: &dyn Engine,
    keyspaces: Keyspaces,
    registry: &Registry,
    by_name: &BTreeMap<String, KeyspaceId>,
    is_encrypted: bool,
) -> Result<()> {
    let known: BTreeSet<u32> = registry.all().map(|vault| vault.id).collect();
    let is_gone = |vault: &u32| !known.contains(vault);
    let of_vaults = by_name
        .iter()
        .filter_map(|(name, &id)| Some((catalog::vault_of_keyspace(name)?, id)));
    let strays: BTreeMap<u32, KeyspaceId> = of_vaults.filter(|(vault, _)| is_gone(vault)).collect();
    let mut gone: BTreeSet<u32> = strays.keys().copied().collect();
    let mut batch = WriteBatch::new();
    for vault in expiring_vaults(engine, keyspaces)?.difference(&known) {
        batch.delete_prefix(keyspaces.expiry, &catalog::expiry_prefix(*vault));
        gone.insert(*vault);
    }
    for entry in engine.scan_prefix(keyspaces.catalog, &catalog::accesses_prefix())? {
        let (key, _) = entry?;
        if let Some(vault) = catalog::accessed_vault(&key).filter(is_gone) {
            batch.delete(keyspaces.catalog, &key);
            gone.insert(vault);
        }
    }
    if batch.iter().next().is_some() {
        engine.write(&batch, &WriteOptions::OS)?;
    }
    if is_encrypted {
        match compact_away(engine, keyspaces, &gone) {
            // The strays stay, and have the next opening try again: this is no reason to refuse what is there.
            Err(vault_core::Error::DiskFull { .. } | vault_core::Error::Corruption { .. }) => {
                return Ok(());
            }
            other => other?,
        }
    }
    for keyspace in strays.into_values() {
        engine.drop_keyspace(keyspace)?;
    }
    Ok(())
}

/// The vaults of which anything expires, by one seek for each.
fn expiring_vaults(engine: &dyn Engine, keyspaces: Keyspaces) -> Result<BTreeSet<u32>> {
    let mut vaults = BTreeSet::new();
    let mut next = Some(0_u32);
    while let Some(from) = next {
        let mut rest = engine.scan(
            keyspaces.expiry,
            KeyRange::new(catalog::expiry_prefix(from)..),
        )?;
        next = match rest.next().transpose()? {
            None => None,
            Some((key, _)) => {
                let vault = key.first_chunk().map(|id| u32::from_be_bytes(*id));
                let vault = vault.ok_or_else(|| catalog::malformed("when an entry expires"))?;
                vaults.insert(vault);
                vault.checked_add(1)
            }
        };
    }
    Ok(vaults)
}
