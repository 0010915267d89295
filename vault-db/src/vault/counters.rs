//! Counters: whole numbers that any number of threads add to.

use super::Vault;
use super::codec;
use crate::access::AccessVerb;
use crate::commit::Verdict;
use crate::error::Result;
use crate::key::EncodeKey;

impl Vault {
    /// Adds to a counter, which begins at 0, and gives what it is now. No addition is lost, however many threads add. An
    /// expiry stays as it is.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let counters = db.vault("counters")?;
    /// assert_eq!(counters.increment("visits", 1)?, 1);
    /// assert_eq!(counters.increment("visits", 10)?, 11);
    /// assert_eq!(counters.increment("visits", -1)?, 10);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CounterOverflow`](crate::Error::CounterOverflow), [`TypeMismatch`](crate::Error::TypeMismatch) where the value is
    /// no whole number of 64 bits, and as [`Vault::put`].
    pub fn increment(&self, key: impl EncodeKey, by: i64) -> Result<i64> {
        let key = codec::scratch_key(&key)?;
        let access = self
            .state()
            .access
            .begin(&self.shared, AccessVerb::Write, &key);
        let sum = self.shared.decide(self.state(), &key, |current| {
            let (stored, expiry, sum) = codec::increment(self.state(), &key, current, by)?;
            Ok((Verdict::Replace { stored, expiry }, sum))
        })?;
        access.end();
        Ok(sum)
    }
}
