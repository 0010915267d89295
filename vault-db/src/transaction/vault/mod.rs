//! A vault inside a transaction.

mod expiry;
mod read;
mod write;

use std::fmt;
use std::sync::Arc;

use super::Transaction;
use crate::commit::NewValue;
use crate::database::VaultState;
use crate::error::Result;
use crate::key::EncodeKey;
use crate::vault::codec;

/// A vault inside a [`Transaction`]: it shows the transaction's moment and the transaction's own changes over it.
///
/// Its verbs are those of [`Vault`](crate::Vault).
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// db.write(|tx| {
///     let (from, to) = (tx.vault("inbox")?, tx.vault("archive")?);
///     from.put("letter", "Dear …")?;
///     let letter: Option<String> = from.pop("letter")?;
///     to.put("letter", &letter)
/// })?;
/// assert_eq!((db.vault("inbox")?.len()?, db.vault("archive")?.len()?), (0, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TransactionVault<'a> {
    transaction: &'a Transaction,
    state: Arc<VaultState>,
}

impl<'a> TransactionVault<'a> {
    pub(super) const fn new(transaction: &'a Transaction, state: Arc<VaultState>) -> Self {
        Self { transaction, state }
    }

    fn set(&self, key: &impl EncodeKey, new: NewValue) -> Result<()> {
        let key = codec::encode_key(key)?;
        self.transaction.set(&self.state, key, new)
    }
}

impl fmt::Debug for TransactionVault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionVault")
            .field("name", &self.state.name())
            .finish_non_exhaustive()
    }
}
