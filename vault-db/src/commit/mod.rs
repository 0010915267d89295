//! Commits: every change to a vault goes through here, with what it does to the vault's tally.
//!
//! # One change
//! 1. The stripe of the key is locked: nobody else changes this key from here on.
//! 2. The engine is asked what is there, without reading the value. This may wait for the disk.
//! 3. The batch is applied: the entry, what it adds to the vault's tally, and the list of what expires. Additions to the
//!    tally are operands that the engine folds, so that commits to one vault need not wait for each other.
//! 4. The stripe is let go; then the thread waits for the disk, if the database's writes are to be durable, and shares one
//!    `fdatasync` with others.
//!
//! # Several changes
//! The same, with the stripes of all keys, in the order of vaults and numbers, so that no two wait for each other. A
//! transaction holds the stripes of what it relied on as well (all of a vault's, where that was a range), and is checked
//! before step 3 against what was written there of late ([`Recent`]).
//!
//! # Whole vaults
//! Clearing and deleting a vault holds all of its stripes, and so does an [exchange](crate::database).

mod expire;
mod many;
mod recent;
mod stripes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vault_core::{EntryInfo, SequenceNumber, Timestamp, WriteBatch};

pub(crate) use many::{Footprint, Names, NewValue, Outcome, Relied, VaultChanges};
pub(crate) use recent::Recent;
#[cfg(test)]
pub(crate) use stripes::STRIPES;
pub(crate) use stripes::{Stripe, Stripes};

use crate::catalog::{self, Delta, Keyspaces};
use crate::database::{Shared, VaultState};
use crate::error::{Error, Result};
use crate::tenant::{QuotaRoom, TenantState};

/// How often a commit is tried again after room was made for it.
const COMMIT_TRIES: u32 = 3;

/// What a key is to become.
#[derive(Debug, Clone, Copy)]
pub(crate) enum New<'a> {
    /// A stored value, envelope and all.
    Value {
        stored: &'a [u8],
        expiry: Option<Timestamp>,
    },
    Absent,
}

/// What whoever looks at an entry wants done with it.
pub(crate) enum Verdict {
    Keep,
    Remove,
    Replace {
        stored: Vec<u8>,
        expiry: Option<Timestamp>,
    },
}

impl Shared {
    /// Sets or removes one key. Gives what was there before.
    pub(crate) fn change(
        &self,
        vault: &Arc<VaultState>,
        key: &[u8],
        new: New<'_>,
    ) -> Result<Option<EntryInfo>> {
        self.check_entry(key, new)?;
        let old = self.with_room(&[vault], || {
            let (vault, mut stripe) = vault.hold(key)?;
            let old = self
                .engine
                .entry_info(vault.keyspace, key)
                .map_err(|error| vault.told(error))?;
            self.commit_one(vault, &mut stripe, key, old, new)?;
            Ok(old)
        })?;
        self.make_durable()?;
        Ok(old)
    }

    /// Shows one key's stored value to `decide`, and does what it says, with nobody between. `decide` must not come back
    /// to this database. Where room has to be made first, it is asked again.
    pub(crate) fn decide<R>(
        &self,
        vault: &Arc<VaultState>,
        key: &[u8],
        decide: impl Fn(Option<&[u8]>) -> Result<(Verdict, R)>,
    ) -> Result<R> {
        self.bounds.check_key(key)?;
        let (outcome, changed) = self.with_room(&[vault], || {
            let (vault, mut stripe) = vault.hold(key)?;
            let current = self
                .engine
                .get(vault.keyspace, key)
                .map_err(|error| vault.told(error))?;
            let (verdict, outcome) = decide(current.as_deref())?;
            let new = match &verdict {
                Verdict::Keep => return Ok((outcome, false)),
                Verdict::Remove => New::Absent,
                Verdict::Replace { stored, expiry } => New::Value {
                    stored,
                    expiry: *expiry,
                },
            };
            self.check_entry(key, new)?;
            let old = current.map(|current| EntryInfo {
                value_bytes: current.len() as u64,
                expiry: crate::value::Stored::parse(&current).and_then(|stored| stored.expiry),
            });
            self.commit_one(vault, &mut stripe, key, old, new)?;
            Ok((outcome, true))
        })?;
        if changed {
            self.make_durable()?;
        }
        Ok(outcome)
    }

    /// Runs a commit to these vaults, and again where it was refused for room that what has expired takes up, which is taken
    /// away first; or because something expired while it was on its way. Called without any lock.
    fn with_room<'a, R>(
        &self,
        vaults: &(impl IntoIterator<Item = &'a Arc<VaultState>> + Clone),
        mut commit: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        for _ in 0..COMMIT_TRIES {
            match commit() {
                Err(error) if self.makes_room(&error, vaults.clone())? => {}
                other => return other,
            }
        }
        commit()
    }

    /// Whether a commit that failed may be tried again.
    #[cold]
    fn makes_room<'a>(
        &self,
        error: &Error,
        vaults: impl IntoIterator<Item = &'a Arc<VaultState>>,
    ) -> Result<bool> {
        let mut removed = 0;
        for vault in vaults {
            removed += match error {
                Error::Engine(vault_core::Error::InvalidExpiry { .. }) => 1,
                Error::VaultFull { .. } if vault.counts.expiring() > 0 => {
                    match self.remove_expired(vault.latest()) {
                        // Another vault has taken its place, or it is gone: the next try finds out.
                        Err(Error::VaultDeleted { .. }) => 1,
                        other => other?,
                    }
                }
                Error::OverQuota { .. } if vault.owner.is_some() => {
                    self.cleanup_expired(Some(vault.tenant))?
                }
                _ => 0,
            };
        }
        Ok(removed > 0)
    }

    /// Runs what brings a whole vault to a tenant, and once more where it was refused for room in the quota that what has
    /// expired takes up, which is taken away first. Called without any lock: taking away takes those of every vault.
    pub(crate) fn with_quota<R>(
        &self,
        tenant: u32,
        mut bring: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        match bring() {
            Err(Error::OverQuota { .. }) if self.cleanup_expired(Some(tenant))? > 0 => bring(),
            other => other,
        }
    }

    pub(crate) fn check_entry(&self, key: &[u8], new: New<'_>) -> Result<()> {
        self.bounds.check_key(key)?;
        match new {
            New::Value { stored, .. } => self.bounds.check_value(stored),
            New::Absent => Ok(()),
        }
    }

    /// Commits a change to a key whose stripe is held, and which is `old` now.
    fn commit_one(
        &self,
        vault: &VaultState,
        stripe: &mut Stripe<'_>,
        key: &[u8],
        old: Option<EntryInfo>,
        new: New<'_>,
    ) -> Result<()> {
        if old.is_none() && matches!(new, New::Absent) {
            return Ok(());
        }
        let keyspaces = self.keyspaces()?;
        let mut batch = WriteBatch::with_capacity(key.len() + 96 + new.stored_bytes());
        let mut delta = Delta {
            updated: self.now(),
            ..Delta::default()
        };
        self.plan(keyspaces, &mut batch, &mut delta, vault, key, old, new)?;
        let sequence = self.commit_counted(keyspaces, &mut batch, &[(vault, delta)])?;
        self.remember(stripe, |recent| recent.note(key, sequence));
        Ok(())
    }

    /// Applies a batch with what it adds to the tallies of vaults, whose keys are held.
    pub(crate) fn commit_counted(
        &self,
        keyspaces: Keyspaces,
        batch: &mut WriteBatch,
        deltas: &[(&VaultState, Delta)],
    ) -> Result<SequenceNumber> {
        for (vault, delta) in deltas {
            batch.merge(
                keyspaces.catalog,
                &catalog::tally_key(vault.id),
                &delta.encode(),
            );
        }
        let room = Room::take(self.bounds.keys_per_vault_max, deltas)?;
        let quota = take_quota(deltas)?;
        let sequence = self.apply(batch)?;
        for (vault, delta) in deltas {
            vault.counts.add(delta);
            if let Some(owner) = &vault.owner {
                owner.usage.add(delta);
            }
        }
        drop((room, quota));
        Ok(sequence)
    }

    /// Adds a change to a batch, and what it does to the tally.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one plain part of the change"
    )]
    pub(crate) fn plan(
        &self,
        keyspaces: Keyspaces,
        batch: &mut WriteBatch,
        delta: &mut Delta,
        vault: &VaultState,
        key: &[u8],
        old: Option<EntryInfo>,
        new: New<'_>,
    ) -> Result<()> {
        // What has expired on its way here is as good as removed.
        let expired = new.expiry().is_some_and(|expiry| expiry <= self.now());
        let new = if expired { New::Absent } else { new };
        let new_expiry = new.expiry();
        if let Some(old) = old {
            delta.remove(key, old.value_bytes, old.expiry.is_some());
            if let Some(expiry) = old.expiry
                && new_expiry != Some(expiry)
            {
                batch.delete(
                    keyspaces.expiry,
                    &catalog::expiry_key(vault.id, expiry, key),
                );
            }
        }
        let New::Value { stored, expiry } = new else {
            if old.is_some() {
                batch.delete(vault.keyspace, key);
            }
            return Ok(());
        };
        let value_bytes = stored.len() as u64;
        delta.insert(key, value_bytes, expiry.is_some());
        match expiry {
            None => batch.put(vault.keyspace, key, stored),
            Some(expiry) => {
                let index_key = catalog::expiry_key(vault.id, expiry, key);
                if old.is_none_or(|old| old.expiry != Some(expiry)) {
                    // Only where the clock went back: an entry had expired then, and is still counted.
                    let counted = self.engine.get(keyspaces.expiry, &index_key)?;
                    if let Some(bytes) = counted.as_deref().and_then(parse_bytes) {
                        delta.remove(key, bytes, true);
                    }
                }
                batch.put(keyspaces.expiry, &index_key, &value_bytes.to_le_bytes());
                batch.put_until(vault.keyspace, key, stored, expiry)
            }
        };
        Ok(())
    }

    /// Has a commit that was just applied remembered, if a transaction is open that may have to know of it.
    ///
    /// A transaction counts itself in before it takes its moment. Where this commit lies behind that moment, the count
    /// is seen here: a fence on either side orders them.
    #[inline]
    pub(crate) fn remember(&self, recent: &mut Recent, note: impl FnOnce(&mut Recent)) {
        fence(Ordering::SeqCst);
        if !self.transactions.is_any() {
            if !recent.is_empty() {
                *recent = Recent::default();
            }
            return;
        }
        if recent.is_due() {
            let Some(oldest) = self.transactions.oldest(&*self.clock) else {
                // Those that were open are over their time.
                *recent = Recent::default();
                return;
            };
            recent.forget_before(oldest);
        }
        note(recent);
    }
}

/// Room for entries that a commit is about to add, where vaults may have only so many. Given back when it is dropped.
struct Room<'a>(Vec<(&'a VaultState, u64)>);

impl<'a> Room<'a> {
    fn take(max: u64, deltas: &[(&'a VaultState, Delta)]) -> Result<Self> {
        let mut room = Self(Vec::new());
        if max == u64::MAX {
            return Ok(room);
        }
        for &(vault, delta) in deltas {
            let Ok(entries @ 1..) = u64::try_from(delta.entries) else {
                continue;
            };
            if !vault.counts.take_room(entries, max) {
                let vault = vault.name().to_string();
                return Err(Error::VaultFull { vault, max });
            }
            room.0.push((vault, entries));
        }
        Ok(room)
    }
}

/// Takes room in the quotas of tenants, for what a commit comes to over all of a tenant's vaults: what only moves from one to
/// another needs none.
fn take_quota(deltas: &[(&VaultState, Delta)]) -> Result<Vec<QuotaRoom>> {
    let mut of_tenants: BTreeMap<u32, (&Arc<TenantState>, Delta)> = BTreeMap::new();
    for (vault, delta) in deltas {
        if let Some(owner) = &vault.owner {
            let (_, sum) = of_tenants
                .entry(owner.id)
                .or_insert((owner, Delta::default()));
            sum.add(delta);
        }
    }
    let rooms = of_tenants.values();
    rooms
        .map(|(owner, delta)| QuotaRoom::take(owner, delta))
        .collect()
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        for (vault, entries) in &self.0 {
            vault.counts.give_back(*entries);
        }
    }
}

impl New<'_> {
    const fn expiry(&self) -> Option<Timestamp> {
        match self {
            Self::Value { expiry, .. } => *expiry,
            Self::Absent => None,
        }
    }

    const fn stored_bytes(&self) -> usize {
        match self {
            Self::Value { stored, .. } => stored.len(),
            Self::Absent => 0,
        }
    }
}

/// The bytes of an entry's value, as `vault.expiry` has them.
pub(crate) fn parse_bytes(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}
