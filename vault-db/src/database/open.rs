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

use super::erase::{compact_away, unmark};
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
    let by_name = keyspaces_by_name(engine)?;
    let keyspaces = if writable {
        check_catalog(engine, &by_name)?;
        Some(Keyspaces::create(engine)?)
    } else {
        Keyspaces::find(engine)?
    };
    let (header, registry) = match keyspaces {
        None => (Header::default(), Registry::default()),
        Some(keyspaces) => {
            let header = read_header(engine, keyspaces, &by_name, writable)?;
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

/// Refuses a store that has vaults and no header, which the first opening writes before there are any: a new one would have new vaults
/// take the place of those.
fn check_catalog(engine: &dyn Engine, by_name: &BTreeMap<String, KeyspaceId>) -> Result<()> {
    if newest_vault(by_name).is_none() {
        return Ok(());
    }
    let header = match Keyspaces::find(engine)? {
        Some(keyspaces) => engine.get(keyspaces.catalog, &catalog::header_key())?,
        None => None,
    };
    header.map(|_| ()).ok_or_else(|| Error::Malformed {
        what: "the catalog".to_owned(),
        problem: "it has no header, and there are vaults; nothing was changed".to_owned(),
    })
}

/// The vault of the highest number that has a keyspace.
fn newest_vault(by_name: &BTreeMap<String, KeyspaceId>) -> Option<u32> {
    let vaults = by_name.keys();
    vaults
        .filter_map(|name| catalog::vault_of_keyspace(name))
        .max()
}

fn read_header(
    engine: &dyn Engine,
    keyspaces: Keyspaces,
    by_name: &BTreeMap<String, KeyspaceId>,
    writable: bool,
) -> Result<Header> {
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
    let mut header: Header = catalog::decode("the header", &stored)?;
    if header.format > FORMAT {
        return Err(Error::NewerFormat {
            found: header.format,
            supported: FORMAT,
        });
    }
    // Damage may have brought back an older one. No vault is to take the place of another all the same.
    if let Some(newest) = newest_vault(by_name) {
        header.next_vault = header.next_vault.max(newest.saturating_add(1));
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
        *structure = read_header(&*self.engine, keyspaces, &by_name, false)?;
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

/// Removes what there is of vaults that are marked as on their way in or out: of copies that were not finished, and of vaults that
/// were deleted just before the end. And what is kept beside vaults that have neither a record nor a keyspace. A keyspace that merely has
/// no record is left alone with all that belongs to it: its record may have been lost.
fn remove_strays(
    engine: &dyn Engine,
    keyspaces: Keyspaces,
    registry: &Registry,
    by_name: &BTreeMap<String, KeyspaceId>,
    is_encrypted: bool,
) -> Result<()> {
    let mut marked = BTreeSet::new();
    for entry in engine.scan_prefix(keyspaces.catalog, &catalog::strays_prefix())? {
        let (key, _) = entry?;
        marked.extend(catalog::marked_vault(&key));
    }
    let known: BTreeSet<u32> = registry.all().map(|vault| vault.id).collect();
    let keyspace_of = |vault: &u32| by_name.get(&catalog::keyspace_name(*vault)).copied();
    let is_gone = |vault: &u32| {
        !known.contains(vault) && (marked.contains(vault) || keyspace_of(vault).is_none())
    };
    let mut gone: BTreeSet<u32> = marked.iter().copied().filter(is_gone).collect();
    let mut batch = WriteBatch::new();
    for vault in expiring_vaults(engine, keyspaces)?
        .into_iter()
        .filter(is_gone)
    {
        batch.delete_prefix(keyspaces.expiry, &catalog::expiry_prefix(vault));
        gone.insert(vault);
    }
    for entry in engine.scan_prefix(keyspaces.catalog, &catalog::accesses_prefix())? {
        let (key, _) = entry?;
        if let Some(vault) = catalog::accessed_vault(&key).filter(is_gone) {
            batch.delete(keyspaces.catalog, &key);
            gone.insert(vault);
        }
    }
    if !batch.is_empty() {
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
    for keyspace in gone.iter().filter_map(keyspace_of) {
        engine.drop_keyspace(keyspace)?;
    }
    Ok(unmark(engine, keyspaces, marked)?)
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
