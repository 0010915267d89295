//! Transactions over any number of vaults.
//!
//! A transaction reads one moment of the database, and gathers what it changes. Committing it checks, with the vaults
//! held, that nothing it relied on was written since, and applies everything as one batch: it takes effect at one point in
//! the order of all commits, or not at all. Nothing is locked before, so readers never wait, and no two transactions
//! wait for each other; the price is that one of two that collide is run again ([`Database::write`](crate::Database::write)
//! does that).
//!
//! # Isolation
//! - [`Isolation::Serializable`], the default: everything that was read is relied on, keys that were not there and ranges
//!   that were scanned included. The outcome is that of some order one after the other: that of the commits.
//! - [`Isolation::Snapshot`]: only what was written is relied on; of two transactions that change the same key, the first to
//!   commit wins. Write skew is possible, as everywhere under snapshot isolation (Berenson et al.: "A critique of ANSI SQL
//!   isolation levels", 1995).
//!
//! # Names
//! What a name means belongs to the moment, too: vaults that were renamed, deleted or exchanged since are found under the
//! names that they had, with what was in them. A transaction that changes something and found a vault under a name which
//! that vault has no more collides, if it read the vault (under [`Isolation::Serializable`]) or would write to it.
//!
//! # Time
//! One that has been open for longer than it may be can never commit. What it holds up is free from then on, whether anybody uses
//! it again or not ([`Active`]).

mod active;
mod options;
mod retry;
mod scan;
#[cfg(test)]
mod tests;
mod vault;
mod writes;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use vault_core::{KeyRange, SequenceNumber, Slice};

pub(crate) use active::{Active, Deadline};
use active::{Moment, Registered};
pub use options::{Isolation, TransactionOptions};
pub(crate) use retry::{check_not_nested, read, write};
pub use scan::TransactionScan;
pub use vault::TransactionVault;
pub use writes::Savepoint;
use writes::Writes;

use crate::access::AccessVerb;
use crate::commit::{Footprint, Names, NewValue, Outcome, Relied};
use crate::database::{NO_TENANT, Shared, VaultState};
use crate::error::{Error, Result};
use crate::vault::Vault;

/// A transaction: a moment of the database, and changes that take effect together.
///
/// [`Database::write`](crate::Database::write) and [`Database::read`](crate::Database::read) hand one to a closure;
/// [`Database::begin`](crate::Database::begin) gives one to keep, which is rolled back when it is dropped.
///
/// ```
/// use vault_db::{Database, Result};
/// # fn main() -> Result<()> {
/// let db = Database::temp()?;
/// db.vault("accounts")?.update([("alice", 100), ("bob", 20)])?;
/// db.write(|tx| {
///     let accounts = tx.vault("accounts")?;
///     let from: i64 = accounts.get("alice")?.unwrap_or(0);
///     if from < 70 {
///         return Err(tx.abort("alice has too little"));
///     }
///     accounts.increment("alice", -70)?;
///     accounts.increment("bob", 70)?;
///     Ok(())
/// })?;
/// assert_eq!(db.vault("accounts")?.get::<i64>("bob")?, Some(90));
/// # Ok(())
/// # }
/// ```
pub struct Transaction {
    shared: Arc<Shared>,
    /// Whose vaults it is about.
    tenant: u32,
    /// What it reads, until it is let go of.
    moment: Weak<Moment>,
    /// The last write that it sees.
    sequence: SequenceNumber,
    options: TransactionOptions,
    mode: Mode,
    began: Duration,
    deadline: Deadline,
    state: RefCell<State>,
}

/// Whether a transaction may change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
}

struct State {
    /// Its place in the list of those that may commit, which keeps the moment.
    registered: Option<Registered>,
    /// The moment of one that only reads.
    kept: Option<Arc<Moment>>,
    writes: Writes,
    /// The vaults that were found by their names.
    names: BTreeMap<String, Arc<VaultState>>,
    relied: BTreeMap<u32, Relied>,
    /// Keys and ranges that `relied` holds.
    parts_relied: usize,
    /// How it ended.
    ended: Option<&'static str>,
    /// Whether it is known that it collided.
    doomed: bool,
}

impl Transaction {
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        tenant: u32,
        options: TransactionOptions,
        mode: Mode,
    ) -> Result<Self> {
        let began = shared.clock.monotonic();
        let deadline = Deadline::new(began, options.duration_max);
        if shared.transactions.is_any() {
            // Takes out those that are over their time.
            shared.transactions.oldest(&*shared.clock);
        }
        let (registered, moment) = shared.moment(|epoch| match mode {
            Mode::Read => {
                let moment = Moment {
                    snapshot: shared.engine.snapshot()?,
                    epoch: Arc::clone(epoch),
                };
                Ok((None, Arc::new(moment)))
            }
            Mode::Write => {
                let (registered, moment) = Active::register(shared, epoch, deadline)?;
                Ok((Some(registered), moment))
            }
        })?;
        Ok(Self {
            shared: Arc::clone(shared),
            tenant,
            moment: Arc::downgrade(&moment),
            sequence: moment.snapshot.sequence(),
            options,
            mode,
            began,
            deadline,
            state: RefCell::new(State {
                registered,
                kept: (mode == Mode::Read).then_some(moment),
                writes: Writes::default(),
                names: BTreeMap::new(),
                relied: BTreeMap::new(),
                parts_relied: 0,
                ended: None,
                doomed: false,
            }),
        })
    }

    /// The vault that had this name at the transaction's moment, as this transaction sees it. Where there was none, it is
    /// created if the transaction may change something; that is not part of the transaction, and stays.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.write(|tx| tx.vault("users")?.put("alice", "admin"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidVaultName`], [`Error::NoSuchVault`] in a transaction that only reads, [`Error::TooManyVaults`],
    /// [`Error::Conflict`] where another vault has taken the name since.
    pub fn vault(&self, name: &str) -> Result<TransactionVault<'_>> {
        self.check()?;
        if let Some(state) = self.state.borrow().names.get(name) {
            return Ok(TransactionVault::new(self, Arc::clone(state)));
        }
        let state = self.find(name)?;
        let names = &mut self.state.borrow_mut().names;
        names.insert(name.to_owned(), Arc::clone(&state));
        Ok(TransactionVault::new(self, state))
    }

    /// The vault that had this name at the transaction's moment, or one that was created empty since.
    fn find(&self, name: &str) -> Result<Arc<VaultState>> {
        let moment = self.moment()?;
        if let Some(Some(before)) = moment.epoch.find(self.tenant, name) {
            return Ok(before);
        }
        let now = match self.mode {
            Mode::Read => self.shared.existing_vault(self.tenant, name),
            Mode::Write => self.shared.vault(self.tenant, name),
        };
        // Again: the name may have changed between the two looks.
        match moment.epoch.find(self.tenant, name) {
            None => now,
            Some(Some(before)) => Ok(before),
            Some(None) if self.mode == Mode::Read => {
                let name = name.to_owned();
                Err(Error::NoSuchVault { name })
            }
            Some(None) => {
                let now = now?;
                // By this transaction or another: nothing was in it at the moment, and what has come is remembered.
                if now.came_empty_after(self.sequence) {
                    return Ok(now);
                }
                // It came with its entries, or from another name: nothing that relies on it could be committed.
                Err(self.conflict())
            }
        }
    }

    /// A vault that the caller has a handle of, as this transaction sees it. A transaction of a tenant takes only that tenant's;
    /// one of the database takes any.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let users = db.vault("users")?;
    /// db.write(|tx| tx.of(&users)?.put("alice", "admin"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ForeignVault`], [`Error::VaultDeleted`].
    pub fn of(&self, vault: &Vault) -> Result<TransactionVault<'_>> {
        self.check()?;
        let same_database = Arc::ptr_eq(vault.shared(), &self.shared);
        let in_reach = self.tenant == NO_TENANT || vault.state().tenant == self.tenant;
        if !same_database || !in_reach {
            return Err(Error::ForeignVault { name: vault.name() });
        }
        let state = Arc::clone(vault.state_at(self.sequence));
        if state.is_deleted_at(self.sequence) {
            return Err(state.gone());
        }
        if !state.came_filled_after(self.sequence) {
            return Ok(TransactionVault::new(self, state));
        }
        // The handle is younger than the transaction: it stands for what had the name then.
        let before = self.moment()?.epoch.find(state.tenant, &state.name());
        match (before.flatten(), self.mode) {
            (Some(before), _) => Ok(TransactionVault::new(self, before)),
            (None, Mode::Write) => Err(self.conflict()),
            (None, Mode::Read) => Err(Error::NoSuchVault { name: vault.name() }),
        }
    }

    /// Marks a place to which the changes can be [rolled back](Transaction::roll_back_to).
    ///
    /// ```
    /// # use vault_db::{Database, Result};
    /// # fn main() -> Result<()> {
    /// # let db = Database::temp()?;
    /// db.write(|tx| {
    ///     let plan = tx.vault("plan")?;
    ///     plan.put("monday", "rain")?;
    ///     let before = tx.savepoint()?;
    ///     plan.put("tuesday", "snow")?;
    ///     tx.roll_back_to(&before)?;
    ///     assert_eq!(plan.get::<String>("tuesday")?, None);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::TransactionEnded`], [`Error::TransactionTooLong`].
    pub fn savepoint(&self) -> Result<Savepoint> {
        self.check()?;
        Ok(self.state.borrow_mut().writes.savepoint())
    }

    /// Undoes the changes made since a savepoint, which stays for another time. What was read since is still relied on.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.write(|tx| {
    ///     let start = tx.savepoint()?;
    ///     tx.vault("v")?.put("a", &1)?;
    ///     tx.roll_back_to(&start)
    /// })?;
    /// assert!(db.vault("v")?.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchSavepoint`], [`Error::TransactionEnded`], [`Error::TransactionTooLong`].
    pub fn roll_back_to(&self, savepoint: &Savepoint) -> Result<()> {
        self.check()?;
        self.state.borrow_mut().writes.roll_back_to(savepoint)
    }

    /// An error for a closure to end its transaction with: nothing is written, and nothing is tried again.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// let result: vault_db::Result<()> = db.write(|tx| Err(tx.abort("not today")));
    /// assert!(result.is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn abort(&self, reason: impl Into<String>) -> Error {
        Error::Aborted {
            reason: reason.into(),
        }
    }

    /// Makes the changes take effect, all at once, if nothing that the transaction relied on was written since. A
    /// transaction that changed nothing always succeeds.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use vault_db::TransactionOptions;
    /// let tx = db.begin(TransactionOptions::default())?;
    /// tx.vault("v")?.put("a", &1)?;
    /// tx.commit()?;
    /// assert_eq!(db.vault("v")?.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Conflict`]: nothing was written; begin again. [`Error::TransactionEnded`],
    /// [`Error::TransactionTooLong`], [`Error::TransactionTooLarge`], [`Error::VaultDeleted`], [`Error::VaultFull`],
    /// [`Error::Engine`].
    pub fn commit(&self) -> Result<()> {
        match self.try_commit()? {
            Outcome::Committed => Ok(()),
            Outcome::Conflict => Err(self.conflict()),
        }
    }

    /// The error of a transaction that cannot commit any more.
    fn conflict(&self) -> Error {
        self.state.borrow_mut().doomed = true;
        Error::Conflict {
            attempts: 1,
            elapsed: self.shared.clock.monotonic().saturating_sub(self.began),
        }
    }

    fn try_commit(&self) -> Result<Outcome> {
        self.check()?;
        let moment = self.moment()?;
        let (changes, footprint) = {
            let mut state = self.state.borrow_mut();
            state.ended = Some(COMMITTED);
            let changes = std::mem::take(&mut state.writes).into_changes();
            let mut footprint = Footprint {
                moment: self.sequence,
                vaults: std::mem::take(&mut state.relied),
                names: Some(Names {
                    tenant: self.tenant,
                    epoch: Arc::clone(&moment.epoch),
                    vaults: std::mem::take(&mut state.names),
                }),
                deadline: Some(self.deadline),
            };
            if self.options.isolation == Isolation::Snapshot {
                for (id, of_vault) in &changes {
                    let mut relied = Relied::nothing(&of_vault.vault);
                    relied.keys = of_vault.changes.keys().cloned().collect();
                    footprint.vaults.insert(*id, relied);
                }
            }
            (changes, footprint)
        };
        // One that changes nothing read one moment: that is its place in the order.
        let outcome = match changes.is_empty() {
            true => Ok(Outcome::Committed),
            false => self.shared.change_many(&changes, &footprint),
        };
        drop(moment);
        self.let_go();
        self.shared
            .transactions
            .ended(outcome.as_ref().ok().copied());
        if outcome.is_err() {
            self.state.borrow_mut().ended = Some(FAILED);
        }
        outcome
    }

    /// Whether an error that its closure gave comes of a collision.
    fn is_doomed(&self) -> bool {
        self.state.borrow().doomed
    }

    /// Gives the changes up, and lets go of the moment. Dropping the transaction does the same.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use vault_db::TransactionOptions;
    /// let tx = db.begin(TransactionOptions::default())?;
    /// tx.vault("v")?.put("a", &1)?;
    /// tx.roll_back();
    /// assert!(db.vault("v")?.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn roll_back(&self) {
        let mut state = self.state.borrow_mut();
        state.ended.get_or_insert("by a rollback");
        state.writes = Writes::default();
        state.names.clear();
        state.relied.clear();
        drop(state);
        self.let_go();
    }

    /// Lets go of the moment, once it has ended. Scans that are open keep what they read.
    fn let_go(&self) {
        let mut state = self.state.borrow_mut();
        let kept = (state.registered.take(), state.kept.take());
        drop(state);
        drop(kept);
    }

    /// What it reads, unless it was let go of meanwhile because its time is over.
    fn moment(&self) -> Result<Arc<Moment>> {
        self.moment.upgrade().ok_or_else(|| self.too_long())
    }

    /// Ends it because its time is over.
    fn too_long(&self) -> Error {
        self.roll_back();
        self.state.borrow_mut().ended = Some("it was open for too long");
        Error::TransactionTooLong {
            max: self.options.duration_max,
        }
    }

    /// Refuses where the transaction has ended, or has been open for too long.
    fn check(&self) -> Result<()> {
        if let Some(how) = self.state.borrow().ended {
            return Err(Error::TransactionEnded { how });
        }
        let in_time = self.deadline.check(&*self.shared.clock);
        in_time.map_err(|_| self.too_long())
    }

    /// The stored value of a key, as this transaction sees it.
    fn get(&self, vault: &Arc<VaultState>, key: &[u8]) -> Result<Option<Slice>> {
        self.check()?;
        vault
            .access
            .begin(&self.shared, AccessVerb::Read, key)
            .end();
        if let Some(own) = self.state.borrow().writes.get(vault.id, key) {
            return Ok(self.still_visible(own));
        }
        let moment = self.moment()?;
        self.rely_on_key(vault, key);
        let found = moment.snapshot.get(vault.keyspace, key);
        found.or_else(|error| self.without_keyspace(vault, error).map(|()| None))
    }

    /// What an error of a read comes to. A vault that was created after the moment of the transaction has nothing in it, also
    /// with an engine whose snapshots know no keyspace that is younger than they are.
    fn without_keyspace(&self, vault: &VaultState, error: vault_core::Error) -> Result<()> {
        match error {
            vault_core::Error::UnknownKeyspace { id } if id == vault.keyspace.0 => vault.check(),
            error => Err(Error::Engine(error)),
        }
    }

    /// A change of its own, unless it has expired meanwhile.
    fn still_visible(&self, own: &NewValue) -> Option<Slice> {
        let (stored, expiry) = own.as_ref()?;
        let expired = expiry.is_some_and(|expiry| expiry <= self.shared.now());
        (!expired).then(|| Slice::from(stored.as_slice()))
    }

    fn set(&self, vault: &Arc<VaultState>, key: Vec<u8>, new: NewValue) -> Result<()> {
        self.check()?;
        if self.mode == Mode::Read {
            return Err(Error::ReadOnlyTransaction);
        }
        self.shared.bounds.check_key(&key)?;
        if let Some((stored, _)) = &new {
            self.shared.bounds.check_value(stored)?;
        }
        let verb = match new {
            Some(_) => AccessVerb::Write,
            None => AccessVerb::Delete,
        };
        vault.access.begin(&self.shared, verb, &key).end();
        let mut state = self.state.borrow_mut();
        state.writes.set(vault, key, new, self.options.bytes_max)
    }

    fn relies(&self) -> bool {
        self.mode == Mode::Write && self.options.isolation == Isolation::Serializable
    }

    fn rely_on_key(&self, vault: &Arc<VaultState>, key: &[u8]) {
        if !self.relies() {
            return;
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let relied = state
            .relied
            .entry(vault.id)
            .or_insert_with(|| Relied::nothing(vault));
        if relied.everything || relied.keys.contains(key) {
            return;
        }
        relied.keys.insert(key.to_vec());
        state.parts_relied += 1;
        if state.parts_relied > self.options.reads_max {
            state.parts_relied -= relied.rely_on_everything();
        }
    }

    /// Relies on a range that is still to be given. Gives its number among those of the vault.
    fn rely_on_range(&self, vault: &Arc<VaultState>) -> usize {
        if !self.relies() {
            return 0;
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let relied = state
            .relied
            .entry(vault.id)
            .or_insert_with(|| Relied::nothing(vault));
        if !relied.everything {
            relied.ranges.push(KeyRange::from(&b""[..]..&b""[..]));
            state.parts_relied += 1;
            if state.parts_relied > self.options.reads_max {
                state.parts_relied -= relied.rely_on_everything();
            }
        }
        // Where everything is relied on there are none, and none to change.
        relied.ranges.len().wrapping_sub(1)
    }

    fn change_relied_range(&self, vault: u32, number: usize, change: impl FnOnce(&mut KeyRange)) {
        if !self.relies() {
            return;
        }
        let mut state = self.state.borrow_mut();
        let relied = state.relied.get_mut(&vault);
        if let Some(range) = relied.and_then(|relied| relied.ranges.get_mut(number)) {
            change(range);
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let counted = [Some(COMMITTED), Some(FAILED)].contains(&self.state.borrow().ended);
        if self.mode == Mode::Write && !counted {
            self.shared.transactions.ended(None);
        }
    }
}

/// How a transaction ends that was committed, or collided.
const COMMITTED: &str = "by a commit";
/// How one ends whose commit was refused.
const FAILED: &str = "by a commit that failed";

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("moment", &self.sequence)
            .field("options", &self.options)
            .field("ended", &self.state.borrow().ended)
            .finish_non_exhaustive()
    }
}
