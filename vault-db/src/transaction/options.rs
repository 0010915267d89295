//! What can be chosen of a transaction.

use std::time::Duration;

/// What a transaction is protected against.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// use vault_db::{Isolation, TransactionOptions};
/// let options = TransactionOptions { isolation: Isolation::Snapshot, ..Default::default() };
/// db.write_with(options, |tx| tx.vault("notes")?.put("a", &1))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// The outcome is that of running the transactions one after the other.
    #[default]
    Serializable,
    /// Each reads one moment, and of two that change the same key the first to commit wins. Fewer conflicts, and
    /// write skew is possible.
    Snapshot,
}

/// What can be chosen of a transaction.
///
/// ```
/// use vault_db::{Isolation, TransactionOptions};
/// let options = TransactionOptions { isolation: Isolation::Snapshot, ..TransactionOptions::default() };
/// assert_eq!(options.attempts_max, 64);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionOptions {
    /// What it is protected against.
    pub isolation: Isolation,
    /// How often a closure is run before [`Error::Conflict`](crate::Error::Conflict); at least once.
    pub attempts_max: u32,
    /// How long one attempt may be open.
    pub duration_max: Duration,
    /// Bytes of keys and values that it may change.
    pub bytes_max: usize,
    /// Keys read one by one, and scans, that are remembered as such; with more, it relies on the whole of a vault.
    pub reads_max: usize,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::Serializable,
            attempts_max: 64,
            duration_max: Duration::from_secs(60),
            bytes_max: 32 << 20,
            reads_max: 100_000,
        }
    }
}
