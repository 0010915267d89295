//! The latest accesses that were sampled, over all vaults of a tenant, or of none: what one does takes none of another's away.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use vault_core::Timestamp;

use crate::database::lock;
use crate::key::Key;

/// Accesses that are kept of all vaults that belong to no tenant.
pub(crate) const RECORDS_MAX: usize = 1024;
/// Accesses that are kept of all vaults of a tenant.
pub(crate) const TENANT_RECORDS_MAX: usize = 128;
/// Bytes of a key that are kept; of a longer one, none are.
const KEY_BYTES_MAX: usize = 128;

/// What was done to a vault.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// use vault_db::AccessVerb;
/// db.vault("notes")?.put("a", &1)?;
/// assert_eq!(db.recent_accesses()[0].verb, AccessVerb::Write);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessVerb {
    /// A key was read.
    Read,
    /// A key, or several, were written.
    Write,
    /// A key, or all, were removed.
    Delete,
    /// A scan was begun.
    Scan,
}

impl AccessVerb {
    /// All of them.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// let names = vault_db::AccessVerb::ALL.map(|verb| verb.name());
    /// assert_eq!(names, ["read", "write", "delete", "scan"]);
    /// # Ok(())
    /// # }
    /// ```
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Delete, Self::Scan];

    /// Its name, in small letters.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// assert_eq!(vault_db::AccessVerb::Read.name(), "read");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Scan => "scan",
        }
    }
}

/// One access that was sampled.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// db.vault("notes")?.put("a", &1)?;
/// let latest = &db.recent_accesses()[0];
/// assert_eq!((latest.vault.as_str(), latest.key.clone()), ("notes", Some("a".into())));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRecord {
    /// The vault's name at present. Accesses to vaults that are gone are not told.
    pub vault: String,
    /// What was done.
    pub verb: AccessVerb,
    /// To which key; `None` where it was none, several, or a very long one.
    pub key: Option<Key>,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
}

/// As a record is kept.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) vault: u32,
    pub(crate) verb: AccessVerb,
    pub(crate) key: Vec<u8>,
    pub(crate) at: Timestamp,
    pub(crate) took: Duration,
}

/// The latest accesses that were sampled: a ring.
pub(crate) struct AccessLog {
    kept: Mutex<VecDeque<Kept>>,
    records_max: usize,
}

impl AccessLog {
    pub(crate) const fn new(records_max: usize) -> Self {
        Self {
            kept: Mutex::new(VecDeque::new()),
            records_max,
        }
    }

    pub(crate) fn note(&self, mut record: Kept) {
        if record.key.len() > KEY_BYTES_MAX {
            record.key = Vec::new();
        }
        let mut kept = lock(&self.kept);
        if kept.len() >= self.records_max {
            kept.pop_front();
        }
        kept.push_back(record);
    }

    /// The records, the latest first.
    pub(crate) fn latest(&self) -> Vec<Kept> {
        lock(&self.kept).iter().rev().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        lock(&self.kept).clear();
    }
}
