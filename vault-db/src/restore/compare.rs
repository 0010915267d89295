//! Comparing: what a restore would change, and what differs between two snapshots.
//!
//! Both sides are walked in the order of their keys, at one moment each, so the memory is that of two entries.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use vault_core::{KeyRange, Scan, Slice, Snapshot};

use super::choose::Chosen;
use super::{Extent, Scope};
use crate::database::{Database, Shared, VaultState};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::vault::codec;

/// How an entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Only the newer side has it.
    Added,
    /// Both have it, with another value or another expiry.
    Changed,
    /// Only the older side has it.
    Removed,
}

/// An entry that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference<'a> {
    /// The tenant to whom the vault belongs.
    pub tenant: Option<&'a str>,
    /// The vault.
    pub vault: &'a str,
    /// The key.
    pub key: Key,
    /// How it differs.
    pub kind: DifferenceKind,
}

/// How much of a vault differs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VaultDifference {
    /// The tenant to whom the vault belongs.
    pub tenant: Option<String>,
    /// The vault.
    pub vault: String,
    /// Whether only the newer side has the vault.
    pub is_new: bool,
    /// Whether only the older side has the vault.
    pub is_gone: bool,
    /// Keys that only the newer side has.
    pub added: u64,
    /// Keys whose value or expiry differs.
    pub changed: u64,
    /// Keys that only the older side has.
    pub removed: u64,
    /// Keys that are the same on both sides.
    pub same: u64,
}

impl VaultDifference {
    /// Whether nothing differs.
    ///
    /// ```
    /// assert!(vault_db::VaultDifference::default().is_empty());
    /// ```
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        !self.is_new && !self.is_gone && self.added + self.changed + self.removed == 0
    }

    const fn count(&mut self, kind: DifferenceKind) {
        match kind {
            DifferenceKind::Added => self.added += 1,
            DifferenceKind::Changed => self.changed += 1,
            DifferenceKind::Removed => self.removed += 1,
        }
    }
}

/// The tenant and the name of a vault.
type Named = (Option<String>, String);
/// The vault that has a name on the older side, and on the newer.
type Sides = [Option<Arc<VaultState>>; 2];

impl Database {
    /// What differs between this database, the older side, and another, the newer one: what [`Database::restore_from`] would
    /// change, without changing anything. Gives every vault of either, those that are the same included.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Database, Scope};
    /// let (db, other) = (Database::temp()?, Database::temp()?);
    /// db.vault("v")?.update([("a", 1), ("b", 2)])?;
    /// other.vault("v")?.update([("b", 3), ("c", 4)])?;
    /// let differences = db.compare_with(&other, &Scope::Everything)?;
    /// let v = &differences[0];
    /// assert_eq!((v.added, v.changed, v.removed), (1, 1, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NoSuchVault`](Error::NoSuchVault) and [`NoSuchTenant`](Error::NoSuchTenant) where the other database lacks what was
    /// chosen; what the restore would refuse ([`VaultExists`](Error::VaultExists), [`OverQuota`](Error::OverQuota),
    /// [`TooManyVaults`](Error::TooManyVaults), a tenant that is missing here); [`Engine`](Error::Engine).
    pub fn compare_with(&self, newer: &Self, scope: &Scope) -> Result<Vec<VaultDifference>> {
        self.compare_extent(newer, scope, Extent::Whole)
    }

    /// As [`Database::compare_with`], with a database that has all there was, or does not tell.
    pub(crate) fn compare_extent(
        &self,
        newer: &Self,
        scope: &Scope,
        extent: Extent,
    ) -> Result<Vec<VaultDifference>> {
        self.shared().check_restore(newer.shared(), scope, extent)?;
        self.differences(newer, scope, |_| ControlFlow::Continue(()))
    }

    /// As [`Database::compare_with`], with each entry that differs handed to `visit`, vault by vault in the order of keys, which
    /// can stop the work. It compares alone: whether a restore would be accepted is not looked at.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use std::ops::ControlFlow;
    /// use vault_db::{Database, DifferenceKind, Scope};
    /// let (db, other) = (Database::temp()?, Database::temp()?);
    /// other.vault("v")?.put("a", &1)?;
    /// let mut added = Vec::new();
    /// db.differences(&other, &Scope::Everything, |difference| {
    ///     assert_eq!(difference.kind, DifferenceKind::Added);
    ///     added.push(difference.key.clone());
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(added, ["a".into()]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NoSuchVault`](Error::NoSuchVault) and [`NoSuchTenant`](Error::NoSuchTenant) where the other database lacks what was
    /// chosen; [`Cancelled`](Error::Cancelled); [`Engine`](Error::Engine).
    pub fn differences(
        &self,
        newer: &Self,
        scope: &Scope,
        mut visit: impl FnMut(&Difference<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<VaultDifference>> {
        let (newer_snapshot, coming) = newer.shared().choose(scope)?;
        let (older_snapshot, there) = self.shared().choose_there(scope, &coming)?;
        let mut pairs: BTreeMap<Named, Sides> = BTreeMap::new();
        for (side, chosen) in [there, coming].into_iter().enumerate() {
            for chosen in chosen {
                let pair = pairs.entry((chosen.tenant, chosen.name)).or_default();
                pair[side] = Some(chosen.vault);
            }
        }
        let mut differences = Vec::with_capacity(pairs.len());
        for ((tenant, vault), [older, newer]) in pairs {
            let mut found = VaultDifference {
                is_new: older.is_none(),
                is_gone: newer.is_none(),
                tenant,
                vault,
                ..VaultDifference::default()
            };
            let mut walk = Walk {
                older: Side::open(&*older_snapshot, older.as_ref())?,
                newer: Side::open(&*newer_snapshot, newer.as_ref())?,
            };
            walk.compare(&mut found, &mut visit)?;
            differences.push(found);
        }
        Ok(differences)
    }
}

impl Shared {
    /// The vaults of this database to which those of a scope that come correspond.
    fn choose_there(
        &self,
        scope: &Scope,
        coming: &[Chosen],
    ) -> Result<(Arc<dyn Snapshot>, Vec<Chosen>)> {
        let (snapshot, mut there) = self.choose(&Scope::Everything)?;
        match scope {
            Scope::Everything => {}
            Scope::Tenant(name) => there.retain(|vault| vault.tenant.as_ref() == Some(name)),
            Scope::Vaults(_) => there.retain(|vault| {
                let mut coming = coming.iter();
                coming.any(|coming| (&coming.tenant, &coming.name) == (&vault.tenant, &vault.name))
            }),
        }
        Ok((snapshot, there))
    }
}

/// One side's entries.
struct Side {
    vault: Option<Arc<VaultState>>,
    scan: Option<Scan>,
    next: Option<(Slice, Slice)>,
}

impl Side {
    fn open(snapshot: &dyn Snapshot, vault: Option<&Arc<VaultState>>) -> Result<Self> {
        let scan = vault.map(|vault| {
            let scan = snapshot.scan(vault.keyspace, KeyRange::all());
            scan.map_err(|error| vault.told(error))
        });
        let mut side = Self {
            vault: vault.map(Arc::clone),
            scan: scan.transpose()?,
            next: None,
        };
        side.advance()?;
        Ok(side)
    }

    fn advance(&mut self) -> Result<()> {
        self.next = match &mut self.scan {
            Some(scan) => scan.next().transpose().map_err(Error::Engine)?,
            None => None,
        };
        Ok(())
    }

    fn key(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(key, _)| &**key)
    }

    fn decoded(&self) -> Result<Option<Key>> {
        match (&self.vault, self.key()) {
            (Some(vault), Some(key)) => codec::decode_key(vault, key).map(Some),
            _ => Ok(None),
        }
    }
}

struct Walk {
    older: Side,
    newer: Side,
}

impl Walk {
    fn compare(
        &mut self,
        found: &mut VaultDifference,
        visit: &mut impl FnMut(&Difference<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        loop {
            let order = match (self.older.key(), self.newer.key()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(older), Some(newer)) => older.cmp(newer),
            };
            let kind = match order {
                Ordering::Less => Some(DifferenceKind::Removed),
                Ordering::Greater => Some(DifferenceKind::Added),
                Ordering::Equal => {
                    let same = self.older.next == self.newer.next;
                    (!same).then_some(DifferenceKind::Changed)
                }
            };
            let key = match (kind, order) {
                (None, _) => None,
                (Some(_), Ordering::Less) => self.older.decoded()?,
                (Some(_), _) => self.newer.decoded()?,
            };
            if let (Some(kind), Some(key)) = (kind, key) {
                found.count(kind);
                let difference = Difference {
                    tenant: found.tenant.as_deref(),
                    vault: &found.vault,
                    key,
                    kind,
                };
                if visit(&difference).is_break() {
                    return Err(Error::Cancelled);
                }
            } else {
                found.same += 1;
            }
            if order.is_le() {
                self.older.advance()?;
            }
            if order.is_ge() {
                self.newer.advance()?;
            }
        }
    }
}
