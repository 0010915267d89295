//! How much a tenant may have, and how much it has.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use vault_core::Timestamp;

use crate::access::{AccessLog, TENANT_RECORDS_MAX};
use crate::catalog::{Counts, Delta, Tally};
use crate::database::lock;
use crate::error::{Error, Result};

/// How much a tenant may have. Held exactly, whatever runs at the same time: the commit that would go beyond is refused
/// with [`Error::OverQuota`].
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// use vault_db::{Error, Quota};
/// let tenant = db.create_tenant("acme", Quota { keys_max: 1, ..Quota::NONE })?;
/// let vault = tenant.vault("notes")?;
/// vault.put("a", &1)?;
/// assert!(matches!(vault.put("b", &2), Err(Error::OverQuota { what: "keys", max: 1, .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quota {
    /// Most vaults. Without one, tenants share [`Bounds::vaults_max`](crate::Bounds::vaults_max) with one another, and whoever takes
    /// the last place is noticed by the next.
    pub vaults_max: u64,
    /// Most keys, over all its vaults.
    pub keys_max: u64,
    /// Most bytes of keys and values, as encoded, over all its vaults.
    pub bytes_max: u64,
}

impl Quota {
    /// No quota.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// assert_eq!(vault_db::Quota::NONE, vault_db::Quota::default());
    /// # Ok(())
    /// # }
    /// ```
    pub const NONE: Self = Self {
        vaults_max: u64::MAX,
        keys_max: u64::MAX,
        bytes_max: u64::MAX,
    };
}

impl Default for Quota {
    fn default() -> Self {
        Self::NONE
    }
}

/// What is known of a tenant.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let tenant = db.create_tenant("acme", vault_db::Quota::NONE)?;
/// tenant.vault("notes")?.put("a", &1)?;
/// let info = tenant.info()?;
/// assert_eq!((info.vaults, info.keys), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantInfo {
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// How much it may have.
    pub quota: Quota,
    /// How many vaults it has.
    pub vaults: u64,
    /// How many keys, those that have expired and were not cleaned up included.
    pub keys: u64,
    /// Bytes of keys and values, as encoded.
    pub bytes: u64,
}

/// What the catalog knows of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TenantRecord {
    pub(crate) id: u32,
    /// In milliseconds since 1970.
    pub(crate) created: u64,
    pub(crate) quota: Quota,
}

/// One tenant, behind all of its handles.
pub(crate) struct TenantState {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) usage: Counts,
    pub(crate) dropped: AtomicBool,
    /// The latest accesses to its vaults.
    pub(crate) accesses: Arc<AccessLog>,
    quota: Mutex<Quota>,
    /// What commits under way are about to add.
    taken_keys: AtomicU64,
    taken_bytes: AtomicU64,
}

impl TenantState {
    pub(crate) fn new(name: &str, record: &TenantRecord) -> Self {
        Self {
            id: record.id,
            name: name.to_owned(),
            created: Timestamp(record.created),
            usage: Counts::new(&Tally::default()),
            dropped: AtomicBool::new(false),
            accesses: Arc::new(AccessLog::new(TENANT_RECORDS_MAX)),
            quota: Mutex::new(record.quota),
            taken_keys: AtomicU64::new(0),
            taken_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn quota(&self) -> Quota {
        *lock(&self.quota)
    }

    pub(crate) fn set_quota(&self, quota: Quota) {
        *lock(&self.quota) = quota;
    }

    /// Refuses where the tenant was dropped.
    pub(crate) fn check(&self) -> Result<()> {
        if self.dropped.load(Ordering::Acquire) {
            return Err(Error::NoSuchTenant {
                name: self.name.clone(),
            });
        }
        Ok(())
    }

    fn over(&self, what: &'static str, max: u64) -> Error {
        Error::OverQuota {
            tenant: self.name.clone(),
            what,
            max,
        }
    }

    /// Refuses another vault where there are as many as may be.
    pub(crate) fn check_vaults(&self, vaults: u64) -> Result<()> {
        let max = self.quota().vaults_max;
        if vaults >= max {
            return Err(self.over("vaults", max));
        }
        Ok(())
    }

    /// Refuses what would not fit, without taking the room for it: nobody else has to wait for it.
    pub(crate) fn check_room(&self, keys: u64, bytes: u64) -> Result<()> {
        let (quota, used) = (self.quota(), self.usage.tally());
        let fits = |used: u64, more: u64, max: u64| more == 0 || used.saturating_add(more) <= max;
        if !fits(used.entries, keys, quota.keys_max) {
            return Err(self.over("keys", quota.keys_max));
        }
        if !fits(used.bytes(), bytes, quota.bytes_max) {
            return Err(self.over("bytes", quota.bytes_max));
        }
        Ok(())
    }
}

/// Room in a tenant's quota that a commit is about to use. Given back when it is dropped, which is after what was added has
/// been counted.
pub(crate) struct QuotaRoom {
    tenant: Arc<TenantState>,
    keys: u64,
    bytes: u64,
}

impl QuotaRoom {
    /// Takes room for what a change adds.
    pub(crate) fn take(tenant: &Arc<TenantState>, delta: &Delta) -> Result<Self> {
        let quota = tenant.quota();
        let room = Self {
            tenant: Arc::clone(tenant),
            keys: u64::try_from(delta.entries).unwrap_or(0),
            bytes: u64::try_from(delta.bytes()).unwrap_or(0),
        };
        let taken_keys = tenant.taken_keys.fetch_add(room.keys, Ordering::SeqCst);
        let taken_bytes = tenant.taken_bytes.fetch_add(room.bytes, Ordering::SeqCst);
        let used = tenant.usage.tally();
        // What others have taken counts until it is in the usage; for a moment it may count twice.
        let fits = |used: u64, taken: u64, more: u64, max: u64| {
            more == 0 || used.saturating_add(taken).saturating_add(more) <= max
        };
        if !fits(used.entries, taken_keys, room.keys, quota.keys_max) {
            return Err(tenant.over("keys", quota.keys_max));
        }
        if !fits(used.bytes(), taken_bytes, room.bytes, quota.bytes_max) {
            return Err(tenant.over("bytes", quota.bytes_max));
        }
        Ok(room)
    }
}

impl Drop for QuotaRoom {
    fn drop(&mut self) {
        self.tenant
            .taken_keys
            .fetch_sub(self.keys, Ordering::SeqCst);
        self.tenant
            .taken_bytes
            .fetch_sub(self.bytes, Ordering::SeqCst);
    }
}
