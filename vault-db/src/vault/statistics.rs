//! How a vault is used.

use vault_core::Timestamp;

use super::Vault;
use crate::access::KeyAccesses;
use crate::error::Result;

/// How a vault is used. Counts are exact; what is sampled says so. They are of attempts: what was refused counts, and what
/// transactions read and write when they do, whatever becomes of them.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let vault = db.vault("notes")?;
/// vault.put("a", &1)?;
/// vault.get::<i64>("a")?;
/// let stats = vault.stats()?;
/// assert_eq!((stats.reads, stats.writes, stats.accesses_24h), (1, 1, 2));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VaultStats {
    /// How many keys it has, as [`VaultInfo::keys`](crate::VaultInfo::keys).
    pub keys: u64,
    /// Bytes of its keys and values, as encoded and before compression.
    pub bytes: u64,
    /// Average length of a key, in bytes as encoded; 0 where there are none.
    pub average_key_bytes: f64,
    /// Average length of a value, in bytes as encoded; 0 where there are none.
    pub average_value_bytes: f64,
    /// How many commits have changed it.
    pub commits: u64,
    /// Keys read, ever.
    pub reads: u64,
    /// Writes, ever; of many keys at once counts as one.
    pub writes: u64,
    /// Removals, ever.
    pub deletes: u64,
    /// Scans begun, ever.
    pub scans: u64,
    /// All of these in the last 24 hours: since the beginning of the first hour within them that was sampled.
    pub accesses_24h: u64,
    /// When the last access was that was sampled or changed something. Of the first accesses all are sampled, later one in
    /// 32.
    pub last_access: Option<Timestamp>,
    /// The keys that are accessed most, by sampled accesses, the first most of all; at most 32.
    pub top_keys: Vec<KeyAccesses>,
}

impl Vault {
    /// How the vault is used: since it was created, as far as the database was closed in order, or a minute before it was
    /// not.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let prices = db.vault("prices")?;
    /// prices.put("lamp", &20)?;
    /// for _ in 0..5 {
    ///     prices.get::<u32>("lamp")?;
    /// }
    /// let stats = prices.stats()?;
    /// assert_eq!((stats.reads, stats.writes), (5, 1));
    /// assert_eq!(stats.accesses_24h, 6);
    /// assert_eq!(stats.top_keys[0].key, "lamp".into());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`VaultDeleted`](crate::Error::VaultDeleted).
    pub fn stats(&self) -> Result<VaultStats> {
        let state = self.state();
        state.check()?;
        let tally = state.counts.tally();
        let noted = state.access.snapshot();
        let [reads, writes, deletes, scans] = noted.counts;
        let total = noted.counts.iter().sum();
        let average = |bytes: u64| match tally.entries {
            0 => 0.0,
            entries => bytes as f64 / entries as f64,
        };
        // Creating it is no access.
        let changed = if tally.commits > 0 {
            tally.updated.0
        } else {
            0
        };
        let last = noted.last.max(changed);
        Ok(VaultStats {
            keys: tally.entries,
            bytes: tally.bytes(),
            average_key_bytes: average(tally.key_bytes),
            average_value_bytes: average(tally.value_bytes),
            commits: tally.commits,
            reads,
            writes,
            deletes,
            scans,
            accesses_24h: noted.hours.recent(self.shared.now(), total),
            last_access: (last > 0).then_some(Timestamp(last)),
            top_keys: noted.keys.top(),
        })
    }
}
