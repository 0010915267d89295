//! Several changes in one commit, checked against what they were decided upon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vault_core::{KeyRange, SequenceNumber, Timestamp, WriteBatch};

use super::stripes::{STRIPES, Wanted, number_of};
use super::{New, Recent, Stripe};
use crate::catalog::Delta;
use crate::database::{Epoch, Shared, VaultState};
use crate::error::{Error, Result};
use crate::transaction::Deadline;

/// A stored value and its expiry, or `None` for a key that goes.
pub(crate) type NewValue = Option<(Vec<u8>, Option<Timestamp>)>;

/// What a commit does to one vault.
pub(crate) struct VaultChanges {
    pub(crate) vault: Arc<VaultState>,
    pub(crate) changes: BTreeMap<Vec<u8>, NewValue>,
}

/// What a transaction relied on: nothing of this may have been written after its moment.
pub(crate) struct Footprint {
    pub(crate) moment: SequenceNumber,
    pub(crate) vaults: BTreeMap<u32, Relied>,
    pub(crate) names: Option<Names>,
    /// Until when what was written after the moment is remembered.
    pub(crate) deadline: Option<Deadline>,
}

/// What a transaction took names to mean.
pub(crate) struct Names {
    pub(crate) tenant: u32,
    /// The epoch of its moment.
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) vaults: BTreeMap<String, Arc<VaultState>>,
}

impl Footprint {
    /// Nothing was relied on, at no moment.
    pub(crate) const NOTHING: Self = Self {
        moment: SequenceNumber::MAX,
        vaults: BTreeMap::new(),
        names: None,
        deadline: None,
    };

    /// Whether a vault was exchanged after the moment.
    fn is_exchanged(&self, vault: &VaultState) -> bool {
        vault.came_filled_after(self.moment) || vault.is_exchanged()
    }
}

/// What a transaction relied on in one vault.
pub(crate) struct Relied {
    pub(crate) vault: Arc<VaultState>,
    pub(crate) keys: BTreeSet<Vec<u8>>,
    pub(crate) ranges: Vec<KeyRange>,
    /// Whether all of the vault is relied on; keys and ranges are empty then.
    pub(crate) everything: bool,
}

impl Relied {
    pub(crate) fn nothing(vault: &Arc<VaultState>) -> Self {
        Self {
            vault: Arc::clone(vault),
            keys: BTreeSet::new(),
            ranges: Vec::new(),
            everything: false,
        }
    }

    /// Relies on the whole of the vault from here on. Gives how many parts need not be remembered any more.
    pub(crate) fn rely_on_everything(&mut self) -> usize {
        let parts = self.keys.len() + self.ranges.len();
        self.everything = true;
        self.keys = BTreeSet::new();
        self.ranges = Vec::new();
        parts
    }

    /// The stripes that must be held while it is checked.
    fn wanted(&self) -> Wanted {
        if self.ranges.is_empty() && !self.everything {
            Wanted::of(self.keys.iter().map(Vec::as_slice))
        } else {
            Wanted::ALL
        }
    }

    /// Whether nothing of it was written after `moment`.
    fn holds(&self, held: &Held<'_>, moment: SequenceNumber) -> bool {
        let id = self.vault.id;
        let keys_hold = self.keys.iter().all(|key| {
            let recent = held.stripe(id, key);
            recent.is_none_or(|recent| !recent.is_changed(key, moment))
        });
        let all = self.everything.then(KeyRange::all);
        keys_hold
            && self.ranges.iter().chain(&all).all(|range| {
                let mut stripes = held.of_vault(id);
                !stripes.any(|recent| recent.is_range_changed(range, moment))
            })
    }
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    /// Somebody wrote what the transaction relied on.
    Conflict,
}

/// The stripes of all vaults that take part, by vault and number.
struct Held<'a>(BTreeMap<(u32, usize), Stripe<'a>>);

impl<'a> Held<'a> {
    /// Locks what is to change, and what was relied on.
    fn hold(changes: &'a BTreeMap<u32, VaultChanges>, footprint: &'a Footprint) -> Self {
        let written = changes.values().map(|of_vault| {
            let keys = of_vault.changes.keys().map(Vec::as_slice);
            (&of_vault.vault, Wanted::of(keys))
        });
        let read = footprint.vaults.values();
        let read = read.map(|relied| (&relied.vault, relied.wanted()));
        let mut vaults: BTreeMap<u32, (&Arc<VaultState>, Wanted)> = BTreeMap::new();
        for (vault, wanted) in written.chain(read) {
            let (_, all) = vaults.entry(vault.id).or_insert((vault, Wanted::default()));
            *all = all.and(wanted);
        }
        let mut held = BTreeMap::new();
        for (id, (vault, wanted)) in vaults {
            let stripes = vault.stripes.lock_these(wanted);
            held.extend(stripes.map(|(number, stripe)| ((id, number), stripe)));
        }
        Self(held)
    }

    fn stripe(&self, vault: u32, key: &[u8]) -> Option<&Recent> {
        self.0.get(&(vault, number_of(key))).map(|stripe| &**stripe)
    }

    fn stripe_mut(&mut self, vault: u32, key: &[u8]) -> Option<&mut Recent> {
        let stripe = self.0.get_mut(&(vault, number_of(key)));
        stripe.map(|stripe| &mut **stripe)
    }

    fn of_vault(&self, vault: u32) -> impl Iterator<Item = &Recent> {
        let stripes = self.0.range((vault, 0)..(vault, STRIPES));
        stripes.map(|(_, stripe)| &**stripe)
    }
}

impl Shared {
    /// Changes several keys of one vault in one commit, whatever is there.
    pub(crate) fn change_keys(
        &self,
        vault: &Arc<VaultState>,
        changes: BTreeMap<Vec<u8>, NewValue>,
    ) -> Result<()> {
        if changes.is_empty() {
            return vault.latest().check();
        }
        let mut of_vault = VaultChanges {
            vault: Arc::clone(vault.latest()),
            changes,
        };
        loop {
            of_vault.vault.check()?;
            let changes = BTreeMap::from([(of_vault.vault.id, of_vault)]);
            match self.change_many(&changes, &Footprint::NOTHING)? {
                Outcome::Committed => return Ok(()),
                // Another vault has taken the place of this one.
                Outcome::Conflict => {}
            }
            let Some((_, again)) = changes.into_iter().next() else {
                return Ok(());
            };
            of_vault = VaultChanges {
                vault: Arc::clone(again.vault.latest()),
                ..again
            };
        }
    }

    /// Commits changes to any number of vaults, all or none, if what they rely on still holds.
    pub(crate) fn change_many(
        &self,
        changes: &BTreeMap<u32, VaultChanges>,
        footprint: &Footprint,
    ) -> Result<Outcome> {
        for of_vault in changes.values() {
            for (key, new) in &of_vault.changes {
                self.check_entry(key, as_new(new))?;
            }
        }
        let vaults = changes.values().map(|of_vault| &of_vault.vault);
        let outcome = self.with_room(&vaults, || self.try_many(changes, footprint))?;
        if outcome == Outcome::Committed {
            self.make_durable()?;
        }
        Ok(outcome)
    }

    fn try_many(
        &self,
        changes: &BTreeMap<u32, VaultChanges>,
        footprint: &Footprint,
    ) -> Result<Outcome> {
        let mut held = Held::hold(changes, footprint);
        let written = changes.values().map(|of_vault| &of_vault.vault);
        let read = footprint.vaults.values().map(|relied| &relied.vault);
        if written
            .chain(read)
            .any(|vault| footprint.is_exchanged(vault))
        {
            return Ok(Outcome::Conflict);
        }
        if let Some(deadline) = &footprint.deadline {
            // Only now that everything is held: what is remembered of it stays so from here on.
            deadline.check(&*self.clock)?;
        }
        if self.has_other_names(changes, footprint) {
            return Ok(Outcome::Conflict);
        }
        for of_vault in changes.values() {
            of_vault.vault.check()?;
        }
        let moment = footprint.moment;
        let mut relied = footprint.vaults.values();
        if !relied.all(|relied| relied.holds(&held, moment)) {
            return Ok(Outcome::Conflict);
        }
        self.commit_many(&mut held, changes)?;
        Ok(Outcome::Committed)
    }

    /// Whether a vault that takes part has not the name any more under which the transaction found it. Nobody takes a name
    /// away without holding all stripes of the vault.
    fn has_other_names(
        &self,
        changes: &BTreeMap<u32, VaultChanges>,
        footprint: &Footprint,
    ) -> bool {
        let Some(names) = &footprint.names else {
            return false;
        };
        if !names.epoch.is_over() {
            return false;
        }
        let takes_part = |id: &u32| changes.contains_key(id) || footprint.vaults.contains_key(id);
        let registry = self.registry();
        names.vaults.iter().any(|(name, vault)| {
            let now = registry.find(names.tenant, name);
            takes_part(&vault.id) && now.is_none_or(|now| !Arc::ptr_eq(now, vault))
        })
    }

    /// Commits changes to keys that are held.
    fn commit_many(
        &self,
        held: &mut Held<'_>,
        changes: &BTreeMap<u32, VaultChanges>,
    ) -> Result<()> {
        let keyspaces = self.keyspaces()?;
        let now = self.now();
        let mut batch = WriteBatch::new();
        let mut deltas = Vec::with_capacity(changes.len());
        for VaultChanges { vault, changes } in changes.values() {
            let mut delta = Delta {
                updated: now,
                ..Delta::default()
            };
            let before = batch.len();
            for (key, new) in changes {
                let old = self.engine.entry_info(vault.keyspace, key);
                let old = old.map_err(|error| vault.told(error))?;
                self.plan(
                    keyspaces,
                    &mut batch,
                    &mut delta,
                    vault,
                    key,
                    old,
                    as_new(new),
                )?;
            }
            if batch.len() > before {
                deltas.push((&**vault, delta));
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let sequence = self
            .commit_counted(keyspaces, &mut batch, &deltas)
            .map_err(too_large)?;
        for of_vault in changes.values() {
            for key in of_vault.changes.keys() {
                if let Some(recent) = held.stripe_mut(of_vault.vault.id, key) {
                    self.remember(recent, |recent| recent.note(key, sequence));
                }
            }
        }
        Ok(())
    }
}

fn as_new(new: &NewValue) -> New<'_> {
    match new {
        Some((stored, expiry)) => New::Value {
            stored,
            expiry: *expiry,
        },
        None => New::Absent,
    }
}

fn too_large(error: Error) -> Error {
    match error {
        Error::Engine(vault_core::Error::BatchTooLarge { len, max }) => {
            Error::TransactionTooLarge { bytes: len, max }
        }
        other => other,
    }
}
