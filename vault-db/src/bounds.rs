//! What the data layer holds its callers to.

use serde::{Deserialize, Serialize};
use vault_core::limits::{KEY_BYTES_MAX, KEYSPACES_MAX, VALUE_BYTES_CEILING};

use crate::error::{Error, Result};

/// Longest name of a vault, in bytes.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let longest = "x".repeat(vault_db::VAULT_NAME_BYTES_MAX);
/// assert!(db.vault(&longest).is_ok());
/// assert!(db.vault(&(longest + "x")).is_err());
/// # Ok(())
/// # }
/// ```
pub const VAULT_NAME_BYTES_MAX: usize = 128;
/// Longest description of a vault, in bytes.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let long = "x".repeat(vault_db::DESCRIPTION_BYTES_MAX + 1);
/// assert!(db.vault("notes")?.describe(Some(&long)).is_err());
/// # Ok(())
/// # }
/// ```
pub const DESCRIPTION_BYTES_MAX: usize = 4096;

/// Longest name of a vault's owner, and longest tag, in bytes.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let long = "x".repeat(vault_db::TAG_BYTES_MAX + 1);
/// assert!(db.vault("notes")?.set_owner(Some(&long)).is_err());
/// assert!(db.vault("notes")?.set_tags([long]).is_err());
/// # Ok(())
/// # }
/// ```
pub const TAG_BYTES_MAX: usize = 128;

/// Most tags of a vault.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let many = (0..=vault_db::TAGS_MAX).map(|n| n.to_string());
/// assert!(db.vault("notes")?.set_tags(many).is_err());
/// # Ok(())
/// # }
/// ```
pub const TAGS_MAX: usize = 64;

/// Keyspaces that are not vaults, or stand in for vaults that are being made or taken away.
const KEYSPACES_RESERVED: usize = 536;
/// Most vaults that any database can be configured to hold.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// use vault_db::{Bounds, Database, VAULTS_CEILING};
/// let bounds = Bounds { vaults_max: VAULTS_CEILING + 1, ..Bounds::default() };
/// assert!(Database::builder().bounds(bounds).temp().is_err());
/// # Ok(())
/// # }
/// ```
pub const VAULTS_CEILING: u64 = (KEYSPACES_MAX - KEYSPACES_RESERVED) as u64;

/// How much of everything there may be. Each has an error of its own, which names the bound.
///
/// ```
/// use vault_db::{Bounds, Database, Error};
/// # fn main() -> vault_db::Result<()> {
/// let bounds = Bounds { keys_per_vault_max: 2, ..Bounds::default() };
/// let db = Database::builder().bounds(bounds).temp()?;
/// let few = db.vault("few")?;
/// few.put("a", &1)?;
/// few.put("b", &2)?;
/// assert!(matches!(few.put("c", &3), Err(Error::VaultFull { max: 2, .. })));
/// few.put("a", &4)?; // nothing new
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Most vaults, of all tenants together; at most 65,000. A tenant that is not to notice the others needs a quota of vaults,
    /// [`Quota::vaults_max`](crate::Quota::vaults_max), and all quotas together need room in this.
    pub vaults_max: u64,
    /// Most keys in a vault.
    pub keys_per_vault_max: u64,
    /// Longest key, in bytes as encoded (one more than the bytes of a string); at most 64 KiB.
    pub key_bytes_max: usize,
    /// Longest value, in bytes as encoded; at most 1 GiB. The engine's own limit holds too.
    pub value_bytes_max: usize,
    /// Most entries that one scan gives; the next one is an error.
    pub scan_results_max: u64,
}

impl Bounds {
    /// Tight bounds for services that want to know early when something grows: 1,000 vaults, 10,000 keys in each,
    /// values of 1 MiB, scans of 1,000 entries.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Bounds, Database};
    /// let db = Database::builder().bounds(Bounds::TIGHT).temp()?;
    /// assert_eq!(Bounds::TIGHT.vaults_max, 1_000);
    /// # Ok(())
    /// # }
    /// ```
    pub const TIGHT: Self = Self {
        vaults_max: 1_000,
        keys_per_vault_max: 10_000,
        key_bytes_max: 1 << 10,
        value_bytes_max: 1 << 20,
        scan_results_max: 1_000,
    };

    /// Checks the bounds against what the store's format can hold.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::Bounds;
    /// assert!(Bounds { vaults_max: 0, ..Bounds::default() }.check().is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidSetting`](vault_core::Error::InvalidSetting).
    pub fn check(&self) -> Result<()> {
        let within = |setting, value: u64, max: u64| {
            if value == 0 || value > max {
                let problem = format!("{value} is not between 1 and {max}");
                return Err(Error::Engine(vault_core::Error::InvalidSetting {
                    setting,
                    problem,
                }));
            }
            Ok(())
        };
        within("bounds.vaults_max", self.vaults_max, VAULTS_CEILING)?;
        within(
            "bounds.keys_per_vault_max",
            self.keys_per_vault_max,
            u64::MAX,
        )?;
        within(
            "bounds.key_bytes_max",
            self.key_bytes_max as u64,
            KEY_BYTES_MAX as u64,
        )?;
        within(
            "bounds.value_bytes_max",
            self.value_bytes_max as u64,
            VALUE_BYTES_CEILING as u64,
        )?;
        within("bounds.scan_results_max", self.scan_results_max, u64::MAX)
    }

    #[inline]
    pub(crate) const fn check_key(&self, key: &[u8]) -> Result<()> {
        if key.len() > self.key_bytes_max {
            return Err(Error::KeyTooLong {
                len: key.len(),
                max: self.key_bytes_max,
            });
        }
        Ok(())
    }

    #[inline]
    pub(crate) const fn check_value(&self, value: &[u8]) -> Result<()> {
        if value.len() > self.value_bytes_max {
            return Err(Error::ValueTooLong {
                len: value.len(),
                max: self.value_bytes_max,
            });
        }
        Ok(())
    }
}

impl Default for Bounds {
    /// Roomy: 10,000 vaults, any number of keys, keys of 16 KiB, values of 32 MiB, scans of any length.
    fn default() -> Self {
        Self {
            vaults_max: 10_000,
            keys_per_vault_max: u64::MAX,
            key_bytes_max: 16 << 10,
            value_bytes_max: 32 << 20,
            scan_results_max: u64::MAX,
        }
    }
}
