//! Restoring in place: vaults of another database take the place of this one's, under open handles.
//!
//! # The steps
//! 1. *Choose* ([`Scope`]): which vaults of the source come, and which of the target go.
//! 2. *Fill*: each vault that comes is read into a keyspace that nobody sees. Everybody reads and writes on meanwhile.
//! 3. *Exchange* ([`crate::database::Exchange`]): one batch puts all of them into the catalog, and all handles follow at one
//!    moment. Writers wait for it; readers don't.
//! 4. *Settle*: the exchange is put on stable storage, and what the old vaults had is removed.
//!
//! Until 3, a crash or an error leaves the database as it was, and the next opening removes what was filled. From 3
//! on it is as restored. There is nothing between.
//!
//! Access control and the audit log stay what they are: a restore brings back data, and must not bring back a token
//! that was revoked since.

mod accept;
mod choose;
mod compare;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vault_core::{KeyRange, Snapshot};

pub(crate) use choose::Chosen;
use choose::Target;
pub use compare::{Difference, DifferenceKind, VaultDifference};

use crate::access::Saved;
use crate::catalog::{self, Header};
use crate::database::{
    Arrival, Begun, Callbacks, CopyProgress, Database, Departure, Exchange, Shared, VaultState,
};
use crate::error::{Error, Result};

/// Which vaults to restore.
///
/// ```
/// use vault_db::{Scope, VaultChoice};
/// let one = Scope::Vaults(vec![VaultChoice::named("memory")]);
/// let beside = Scope::Vaults(vec![VaultChoice::named("memory").under("memory before")]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Scope {
    /// Every vault of every tenant. Vaults and tenants that the source does not have go.
    #[default]
    Everything,
    /// Every vault of a tenant. Those that the source does not have go.
    Tenant(String),
    /// These vaults, and no others.
    Vaults(Vec<VaultChoice>),
}

/// A vault to restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultChoice {
    pub(crate) tenant: Option<String>,
    pub(crate) name: String,
    pub(crate) under: Option<String>,
}

impl VaultChoice {
    /// The vault of this name, which takes the place of the one that has it now.
    ///
    /// ```
    /// let choice = vault_db::VaultChoice::named("memory");
    /// ```
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            tenant: None,
            name: name.into(),
            under: None,
        }
    }

    /// A vault of a tenant, which must exist.
    ///
    /// ```
    /// let choice = vault_db::VaultChoice::named("users").of("acme");
    /// ```
    #[must_use]
    pub fn of(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Has it appear under another name, which must be free.
    ///
    /// ```
    /// let choice = vault_db::VaultChoice::named("memory").under("memory before");
    /// ```
    #[must_use]
    pub fn under(mut self, name: impl Into<String>) -> Self {
        self.under = Some(name.into());
        self
    }
}

/// How far a restore in place has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreProgress {
    /// The vault that is being read.
    pub vault: String,
    /// Vaults read.
    pub vaults_done: u64,
    /// Vaults in all.
    pub vaults_total: u64,
    /// Entries of this vault that were read.
    pub entries_done: u64,
    /// Entries of this vault, those that have expired since included.
    pub entries_total: u64,
}

/// What a restore in place has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreOutcome {
    /// Vaults that came.
    pub vaults: u64,
    /// Vaults that went, or whose place was taken.
    pub vaults_before: u64,
    /// Entries that came. Those whose expiry has passed since do not come.
    pub entries: u64,
    /// How long writers waited. Readers did not.
    pub writers_waited: Duration,
}

impl Database {
    /// Has vaults of another database take the place of this one's, at one moment and whole, or after an error not at all. For
    /// snapshots, and wherever the state of another database is to be taken over under open handles.
    ///
    /// Handles go on: what they read and write from then on are the vaults that came. Transactions and scans that began
    /// before end on what they began with; a transaction that changes something and relied on a vault that was replaced
    /// collides, and is run again by [`Database::write`]. Access control and the audit log stay as they are.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// use vault_db::{Database, Scope};
    /// let (db, other) = (Database::temp()?, Database::temp()?);
    /// other.vault("memory")?.put("mood", "good")?;
    /// let memory = db.vault("memory")?;
    /// memory.put("mood", "bad")?;
    ///
    /// db.restore_from(&other, &Scope::Everything)?;
    /// assert_eq!(memory.get::<String>("mood")?.as_deref(), Some("good"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RestoreUnderWay`](Error::RestoreUnderWay); [`NoSuchVault`](Error::NoSuchVault) and
    /// [`NoSuchTenant`](Error::NoSuchTenant) where what was chosen is missing, [`VaultExists`](Error::VaultExists) where another
    /// name is taken, [`OverQuota`](Error::OverQuota) where chosen vaults do not fit into a tenant's quota;
    /// [`TooManyVaults`](Error::TooManyVaults), [`Engine`](Error::Engine). After an error of the engine while what was
    /// restored is put on stable storage, it may be in place all the same.
    pub fn restore_from(&self, source: &Self, scope: &Scope) -> Result<RestoreOutcome> {
        self.restore_with(source, scope, |_| ControlFlow::Continue(()))
    }

    /// As [`Database::restore_from`], with `progress` called from time to time, which can stop the work.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::{Database, Scope};
    /// use std::ops::ControlFlow;
    /// let (db, other) = (Database::temp()?, Database::temp()?);
    /// other.vault("memory")?.put("mood", "good")?;
    /// db.restore_with(&other, &Scope::Everything, |progress| {
    ///     println!("{}: {} entries", progress.vault, progress.entries_done);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::restore_from`]; [`Cancelled`](Error::Cancelled).
    pub fn restore_with(
        &self,
        source: &Self,
        scope: &Scope,
        progress: impl FnMut(&RestoreProgress) -> ControlFlow<()>,
    ) -> Result<RestoreOutcome> {
        self.restore_extent(source, scope, Extent::Whole, progress)
    }

    /// As [`Database::restore_with`], from a source that has all there was, or does not tell.
    pub(crate) fn restore_extent(
        &self,
        source: &Self,
        scope: &Scope,
        extent: Extent,
        mut progress: impl FnMut(&RestoreProgress) -> ControlFlow<()>,
    ) -> Result<RestoreOutcome> {
        let target = self.shared();
        target.keyspaces()?;
        let _turn = Turn::take(&target.restoring)?;
        let mut callbacks = Callbacks::default();
        let ask = |told: &RestoreProgress| callbacks.ask(|| progress(told));
        let restored = target.restore(source.shared(), scope, extent, ask);
        callbacks.end();
        restored
    }
}

/// What a source says of what it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// It was not there: it goes.
    Whole,
    /// Nothing: it stays, and so do quotas.
    Parts,
}

/// Keeps other restores away.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(restoring: &'a AtomicBool) -> Result<Self> {
        if restoring.swap(true, Ordering::AcqRel) {
            return Err(Error::RestoreUnderWay);
        }
        Ok(Self(restoring))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A vault that was read, and is not in place yet.
struct Filled {
    chosen: Chosen,
    begun: Begun,
    tally: catalog::Tally,
    accesses: Saved,
}

impl Shared {
    fn restore(
        &self,
        source: &Arc<Self>,
        scope: &Scope,
        extent: Extent,
        mut progress: impl FnMut(&RestoreProgress) -> ControlFlow<()>,
    ) -> Result<RestoreOutcome> {
        let (snapshot, chosen) = source.choose(scope)?;
        self.check_targets(scope, &chosen)?;
        let mut told = RestoreProgress {
            vaults_total: chosen.len() as u64,
            ..RestoreProgress::default()
        };
        let mut filled = Vec::new();
        let placed = chosen
            .into_iter()
            .try_for_each(|chosen| {
                filled.push(self.fill_from(
                    source,
                    &*snapshot,
                    chosen,
                    &mut told,
                    &mut progress,
                )?);
                Ok(())
            })
            .and_then(|()| self.put_in_place(source, scope, extent, &filled));
        let (outcome, departed) = match placed {
            Ok(placed) => placed,
            Err(error) => {
                for filled in &filled {
                    self.abandon(&filled.begun);
                }
                return Err(error);
            }
        };
        self.settle(&departed)?;
        Ok(outcome)
    }

    /// Reads a vault of the source into a keyspace that nobody sees.
    fn fill_from(
        &self,
        source: &Self,
        snapshot: &dyn Snapshot,
        chosen: Chosen,
        told: &mut RestoreProgress,
        progress: &mut dyn FnMut(&RestoreProgress) -> ControlFlow<()>,
    ) -> Result<Filled> {
        let then = source.tally_at(snapshot, chosen.vault.id)?;
        let accesses = source.saved_accesses(snapshot, chosen.vault.id)?;
        told.vault.clone_from(&chosen.name);
        told.entries_done = 0;
        told.entries_total = then.entries;
        let begun = self.begin_vault(&mut self.structure())?;
        let mut pass_on = |copied: CopyProgress| {
            told.entries_done = copied.entries_done;
            progress(told)
        };
        let filled = snapshot
            .scan(chosen.vault.keyspace, KeyRange::all())
            .map_err(|error| chosen.vault.told(error))
            .and_then(|entries| self.fill(&begun, entries, then.entries, &mut pass_on));
        let mut tally = filled.inspect_err(|_| self.abandon(&begun))?;
        tally.commits = then.commits;
        tally.updated = then.updated;
        told.vaults_done += 1;
        Ok(Filled {
            chosen,
            begun,
            tally,
            accesses,
        })
    }

    fn saved_accesses(&self, snapshot: &dyn Snapshot, vault: u32) -> Result<Saved> {
        let saved = snapshot.get(self.keyspaces()?.catalog, &catalog::access_key(vault))?;
        saved.map_or_else(
            || Ok(Saved::default()),
            |saved| catalog::decode("what is noted of accesses", &saved),
        )
    }

    /// Exchanges what is there for what was read. Gives what departed.
    fn put_in_place(
        &self,
        source: &Self,
        scope: &Scope,
        extent: Extent,
        filled: &[Filled],
    ) -> Result<(RestoreOutcome, Vec<Arc<VaultState>>)> {
        let mut header = self.structure();
        self.check_targets(scope, filled.iter().map(|filled| &filled.chosen))?;
        let chosen = || filled.iter().map(|filled| &filled.chosen);
        let target = self.target_of(source, scope, extent, chosen(), &header)?;
        target.check_owners(chosen())?;
        let Target {
            departing,
            tenants,
            tenants_dropped,
            next_tenant,
            owners,
        } = target;
        let next = Header {
            next_tenant,
            ..header.clone()
        };
        let arrivals = filled.iter().map(|filled| {
            let mut record = filled.chosen.record.clone();
            record.id = filled.begun.id;
            let tenant = filled.chosen.tenant.as_ref();
            Arrival {
                owner: tenant.and_then(|tenant| owners.get(tenant).map(Arc::clone)),
                name: Arc::from(filled.chosen.name.as_str()),
                begun: filled.begun,
                record,
                tally: filled.tally,
                accesses: filled.accesses.clone(),
            }
        });
        let arrivals: Vec<Arrival> = arrivals.collect();
        let waiting_since = self.clock.monotonic();
        let departures: Result<Vec<Departure<'_>>> =
            departing.iter().map(VaultState::hold_all).collect();
        let outcome = RestoreOutcome {
            vaults: arrivals.len() as u64,
            vaults_before: departing.len() as u64,
            entries: arrivals.iter().map(|arrival| arrival.tally.entries).sum(),
            writers_waited: Duration::ZERO,
        };
        self.exchange(Exchange {
            header: Some(&next),
            arrivals,
            departures: departures?,
            tenants,
            tenants_dropped,
            within_quotas: matches!(scope, Scope::Vaults(_)),
        })?;
        let writers_waited = self.clock.monotonic().saturating_sub(waiting_since);
        *header = next;
        let outcome = RestoreOutcome {
            writers_waited,
            ..outcome
        };
        Ok((outcome, departing))
    }
}
