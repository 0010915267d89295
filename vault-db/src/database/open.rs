//! Opening: the catalog is read, and what was on its way in or out is removed.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use vault_core::random::{Random, SeededRandom, SystemRandom};
use vault_core::stats::Histogram;
use vault_core::{
    Clock, Durability, Engine, KeyspaceId, KeyspaceOptions, WriteBatch, WriteOptions,
};
use vault_lsm::Lsm;

use super::registry::{self, Registry};
use super::shared::{Shared, lock};
use super::temp::TemporaryDirectory;
use crate::access::AccessLog;
use crate::bounds::Bounds;
use crate::catalog::{self, FORMAT, Header, Keyspaces};
use crate::error::{Error, Result};
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
                remove_strays(engine, &registry, &by_name)?;
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
        accesses: AccessLog::default(),
        restoring: AtomicBool::new(false),
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
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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

/// Removes the keyspaces of vaults that the catalog does not know: copies that were not finished, and vaults that were
/// deleted just before the end.
fn remove_strays(
    engine: &dyn Engine,
    registry: &Registry,
    keyspaces: &BTreeMap<String, KeyspaceId>,
) -> Result<()> {
    let known: std::collections::BTreeSet<u32> = registry.all().map(|vault| vault.id).collect();
    for (name, id) in keyspaces {
        let stray = catalog::vault_of_keyspace(name).is_some_and(|vault| !known.contains(&vault));
        if stray {
            engine.drop_keyspace(*id)?;
        }
    }
    Ok(())
}
