//! Any point in time: the log, kept beside the snapshots, brings one of them forward.
//!
//! [`LogArchiver`] is a thread that ships what is written, several times a second by default, into a directory. A restore then takes the
//! newest snapshot before the wanted point and replays on it what was shipped behind it. What was not shipped when a
//! machine is lost is lost: at most the interval, and the time that a shipment takes.
//!
//! # At the destination
//! `<chain>/<number>.shipment`, the chain in hexadecimal and the number in 20 digits, each a shipment as
//! `docs/format/shipping.md` lays it out. A shipment is written under another name, synced and renamed: what has its name is whole.
//!
//! # Chains
//! Shipments follow one another without a gap, which each proves of itself. Where one cannot go on (it fell behind by more than is
//! kept, or the database was copied), a new chain begins, and a snapshot is made that it builds on.

mod archiver;
mod files;
mod shipment;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vault_core::{Error as CoreError, SequenceNumber, Timestamp};
use vault_lsm::LsmOptions;
use vault_lsm::shipping::{Replayed, ShipPosition, Until, replay_shipped};

pub use archiver::{LogArchiver, LogArchiverStatus};
#[cfg(feature = "fuzzing")]
pub(crate) use shipment::{decode, encode, sealed};

use super::create::store_of;
use super::open::prepared;
use super::{Form, Manifest, SnapshotName, Snapshots, StoredSnapshots, Survey, Watcher};
use crate::database::{Callbacks, Database};
use crate::error::{Error, Result};

/// The log of a database, kept in a directory beside its snapshots.
///
/// ```
/// use vault_db::Database;
/// use vault_db::snapshot::Until;
/// # fn main() -> vault_db::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let (place, log, target) =
/// #     (directory.path().join("snapshots"), directory.path().join("log"), directory.path().join("then"));
/// let db = Database::temp()?;
/// let archive = db.snapshots(&place)?.log_archive(&log);
/// let archiver = archive.start(None)?;
///
/// let accounts = db.vault("accounts")?;
/// accounts.put("alice", &100)?;
/// let good = db.engine().latest_sequence();
/// accounts.clear()?; // a mistake
/// archiver.stop();
///
/// archive.restore_to(Until::Sequence(good), &target)?;
/// assert_eq!(Database::open(&target)?.vault("accounts")?.get::<i64>("alice")?, Some(100));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LogArchive {
    snapshots: StoredSnapshots,
    /// Whose log is shipped, where it is there.
    database: Option<Database>,
    directory: PathBuf,
}

/// What a chain of shipments covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChain {
    /// Its name.
    pub chain: String,
    /// Which instance of the database has shipped it.
    pub instance: [u8; 16],
    /// It holds what was written after this.
    pub after: SequenceNumber,
    /// And up to this.
    pub until: SequenceNumber,
    /// When the last shipment was made.
    pub time: Timestamp,
    /// How many shipments there are.
    pub shipments: u64,
}

/// What a restore to a point in time has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointRestored {
    /// The snapshot that it began with.
    pub base: SnapshotName,
    /// The last write that the restored store holds.
    pub sequence: SequenceNumber,
    /// Batches that were replayed on the snapshot.
    pub batches: u64,
}

/// How far a restore to a point in time has come, once the snapshot that it begins with is unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplayProgress {
    /// Shipments that were taken up.
    pub shipments_done: u64,
    /// Shipments that there are. Those behind the point are not needed.
    pub shipments_total: u64,
}

impl Snapshots {
    /// The log of the database in a directory, which is made when it is first shipped to.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (place, log) = (directory.path().join("snapshots"), directory.path().join("log"));
    /// let archive = db.snapshots(&place)?.log_archive(&log);
    /// assert!(archive.chains()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn log_archive(&self, directory: impl Into<PathBuf>) -> LogArchive {
        LogArchive {
            snapshots: self.stored.clone(),
            database: Some(self.database.clone()),
            directory: directory.into(),
        }
    }
}

impl StoredSnapshots {
    /// The log of the database in a directory, to restore from; what is not there can [ship](LogArchive::start) nothing.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (place, log) = (directory.path().join("snapshots"), directory.path().join("log"));
    /// use vault_db::snapshot::StoredSnapshots;
    /// let archive = StoredSnapshots::at(&place)?.log_archive(&log);
    /// assert!(archive.chains()?.is_empty());
    /// assert!(archive.start(None).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn log_archive(&self, directory: impl Into<PathBuf>) -> LogArchive {
        LogArchive {
            snapshots: self.clone(),
            database: None,
            directory: directory.into(),
        }
    }
}

impl LogArchive {
    /// Begins to ship, or goes on where the last archiver ended, and makes a snapshot to go on from: what happened while nobody
    /// shipped may be in no log.
    /// `every`: how often; four times a second without it.
    ///
    /// While an archiver runs, copies, imports and restores of vaults go through the log, too, and take longer.
    ///
    /// # Errors
    /// [`UnsupportedSnapshot`](Error::UnsupportedSnapshot) where the engine is not Vault's own; as [`Snapshots::create`];
    /// [`Engine`](Error::Engine) with `InvalidSetting` where there is an archiver already, and with what the file system says.
    pub fn start(&self, every: Option<Duration>) -> Result<LogArchiver> {
        archiver::start(self, every)
    }

    /// What there is, chain by chain, in no particular order.
    ///
    /// # Errors
    /// [`Engine`](Error::Engine) with what the file system says, [`Malformed`](Error::Malformed).
    pub fn chains(&self) -> Result<Vec<LogChain>> {
        let mut chains = Vec::new();
        for (chain, shipments) in self.stored()? {
            if let (Some(first), Some(last)) =
                (shipments.values().next(), shipments.values().last())
            {
                let (first, last) = (self.read(first)?, self.read(last)?);
                chains.push(LogChain {
                    chain,
                    instance: first.position.instance,
                    after: first.position.sequence,
                    until: last.next.sequence,
                    time: last.time,
                    shipments: shipments.len() as u64,
                });
            }
        }
        Ok(chains)
    }

    /// Makes a store of what there was at a point, in a directory that does not exist or is empty: of the newest snapshot before it,
    /// and of what was shipped behind that. Like [`StoredSnapshots::restore_to`], whole or not at all.
    ///
    /// A time is as exact as shipments are frequent.
    ///
    /// # Errors
    /// [`NoBase`](Error::NoBase) where there is no snapshot before the point that the log goes on from,
    /// [`BeyondLog`](Error::BeyondLog) where the point lies behind what was shipped;
    /// [`UnsupportedSnapshot`](Error::UnsupportedSnapshot) where a key is needed; as [`StoredSnapshots::restore_to`], with what
    /// [`replay_shipped`] says.
    pub fn restore_to(&self, until: Until, target: impl AsRef<Path>) -> Result<PointRestored> {
        self.restore_to_with(until, target, &(), |_| ControlFlow::Continue(()))
    }

    /// As [`LogArchive::restore_to`]. `watcher` is told how far the verifying and unpacking of the snapshot is, then `progress` how far
    /// the replay; either can end the work, and then there is nothing at the target.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # use vault_db::Database;
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (place, log, target) =
    /// #     (directory.path().join("snapshots"), directory.path().join("log"), directory.path().join("then"));
    /// use std::ops::ControlFlow;
    /// use vault_db::snapshot::Until;
    /// # let db = Database::temp()?;
    /// let archive = db.snapshots(&place)?.log_archive(&log);
    /// archive.start(None)?.stop();
    /// archive.restore_to_with(Until::End, &target, &(), |progress| {
    ///     println!("{} of {} shipments", progress.shipments_done, progress.shipments_total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`LogArchive::restore_to`]; [`Snapshot`](Error::Snapshot) with `Cancelled` by `watcher`,
    /// [`Cancelled`](Error::Cancelled) by `progress`.
    pub fn restore_to_with(
        &self,
        until: Until,
        target: impl AsRef<Path>,
        watcher: &dyn Watcher,
        mut progress: impl FnMut(&ReplayProgress) -> ControlFlow<()>,
    ) -> Result<PointRestored> {
        let (base, shipments) = self.base_of(until)?;
        self.check_reach(until, &base, &shipments)?;
        self.snapshots.check_acceptable(&base)?;
        let file_system = Arc::clone(&self.snapshots.file_system);
        let options = self
            .snapshots
            .engine_options(&base, Arc::clone(&file_system));
        let options = options.ok_or(Error::UnsupportedSnapshot {
            problem: "replaying the log of an encrypted database needs its key; give it by `Snapshots::with_key`",
        })?;
        let mut callbacks = Callbacks::default();
        let mut ask = |told: &ReplayProgress| callbacks.ask(|| progress(told));
        let mut replayed = None;
        let extracted = self.snapshots.repository.extract(
            base.name,
            &*file_system,
            target.as_ref(),
            &|_| true,
            |path| {
                let opened = Arc::clone(&file_system);
                drop(self.snapshots.open_read_only(&base, opened, path)?);
                replayed = Some(self.replay(path, &options, &shipments, until, &mut ask)?);
                Ok(())
            },
            watcher,
        );
        callbacks.end();
        extracted.map_err(prepared)?;
        let (sequence, batches) = replayed.map_or((base.sequence, 0), |done: Replayed| {
            (done.sequence, done.batches)
        });
        Ok(PointRestored {
            base: base.name,
            sequence,
            batches,
        })
    }

    /// Replays shipments on what was unpacked of their base.
    fn replay(
        &self,
        unpacked: &Path,
        options: &LsmOptions,
        shipments: &BTreeMap<u64, PathBuf>,
        until: Until,
        progress: &mut dyn FnMut(&ReplayProgress) -> ControlFlow<()>,
    ) -> Result<Replayed> {
        let mut told = ReplayProgress {
            shipments_total: shipments.len() as u64,
            ..ReplayProgress::default()
        };
        let read = shipments.values().map(|path| {
            if progress(&told).is_break() {
                return Err(CoreError::Cancelled);
            }
            told.shipments_done += 1;
            self.read(path).map_err(|error| match error {
                Error::Engine(error) => error,
                other => CoreError::io("read", path, std::io::Error::other(other)),
            })
        });
        match replay_shipped(unpacked, options, read, until) {
            Err(CoreError::Cancelled) => Err(Error::Cancelled),
            replayed => Ok(replayed?),
        }
    }

    /// Removes what no snapshot needs any more: of each chain what was written before the oldest snapshot that it goes on from, and
    /// chains that go on from none. What another store has shipped stays. Gives how many shipments that were.
    ///
    /// # Errors
    /// As [`LogArchive::chains`] and [`StoredSnapshots::list`]; [`Snapshot`](Error::Snapshot) where a manifest cannot be used: it cannot be told
    /// what that snapshot needs, and nothing is removed.
    pub fn prune(&self) -> Result<u64> {
        let Survey {
            snapshots: bases,
            mut unreadable,
            ..
        } = self.snapshots.repository.survey()?;
        if !unreadable.is_empty() {
            return Err(unreadable.swap_remove(0).1.into());
        }
        // Without the database, those that there are snapshots of.
        let ours: BTreeSet<[u8; 16]> = match &self.database {
            Some(database) => BTreeSet::from([store_of(database)]),
            None => bases.iter().map(|base| base.store.0).collect(),
        };
        let mut removed = 0;
        for shipments in self.stored()?.into_values() {
            let Some(last) = shipments.values().last() else {
                continue;
            };
            let last = match self.read(last) {
                Ok(last) => last,
                // Nobody can tell what one is good for that makes no sense.
                Err(Error::Malformed { .. }) => continue,
                Err(error) => return Err(error),
            };
            // Its snapshots lie elsewhere.
            if !ours.contains(&last.store) {
                continue;
            }
            let (instance, until) = (last.position.instance, last.next.sequence);
            let of_chain = bases
                .iter()
                .filter(|base| is_base(base, instance) && base.sequence <= until);
            let oldest = of_chain.map(|base| base.sequence).min();
            let newest = shipments.keys().last().copied();
            for (number, path) in &shipments {
                // The last one says where the chain goes on.
                let needed = Some(*number) == newest && oldest.is_some();
                let before = match oldest.map(|oldest| (oldest, self.read(path))) {
                    None => true,
                    Some((oldest, Ok(shipment))) => shipment.next.sequence < oldest,
                    Some((_, Err(Error::Malformed { .. }))) => false,
                    Some((_, Err(error))) => return Err(error),
                };
                if needed || !before {
                    break;
                }
                let fs = &self.snapshots.file_system;
                fs.remove(path)
                    .map_err(|error| CoreError::io("remove", path, error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The newest snapshot before a point that a chain goes on from, and that chain.
    fn base_of(&self, until: Until) -> Result<(Manifest, BTreeMap<u64, PathBuf>)> {
        let mut bases = self.snapshots.list()?;
        bases.retain(|base| match until {
            Until::End => true,
            Until::Sequence(sequence) => base.sequence <= sequence,
            Until::Time(time) => base.time <= time,
        });
        let (mut chains, mut unreadable) = (Vec::new(), None);
        for shipments in self.stored()?.into_values().flat_map(runs) {
            match self.ends(&shipments) {
                Ok(Some(Ends { from, to, .. })) => chains.push((from, to, shipments)),
                Ok(None) => {}
                // Others may do; where none does, this is why.
                Err(error) => unreadable = Some(error),
            }
        }
        for base in bases.into_iter().rev() {
            let fits = |(from, to, _): &&(ShipPosition, ShipPosition, _)| reaches(from, to, &base);
            // Of those that do, the one that goes furthest.
            let furthest = chains.iter().filter(fits);
            if let Some((_, _, shipments)) = furthest.max_by_key(|(_, to, _)| to.sequence) {
                return Ok((base, shipments.clone()));
            }
        }
        Err(unreadable.unwrap_or_else(|| Error::NoBase {
            wanted: shown(until),
        }))
    }

    /// Refuses a point behind what the chain holds: nobody knows what had been written by then.
    fn check_reach(
        &self,
        until: Until,
        base: &Manifest,
        shipments: &BTreeMap<u64, PathBuf>,
    ) -> Result<()> {
        let Some(Ends { to, time, .. }) = self.ends(shipments)? else {
            return Ok(());
        };
        let beyond = match until {
            Until::End => false,
            Until::Sequence(sequence) => sequence > to.sequence.max(base.sequence),
            // Nothing may have been written since, unless something was that the chain does not have.
            Until::Time(wanted) => {
                let mut later = self.snapshots.list()?.into_iter();
                time < wanted
                    && later.any(|later| {
                        later.time > wanted
                            && later.sequence > to.sequence
                            && is_base(&later, to.instance)
                    })
            }
        };
        if beyond {
            return Err(Error::BeyondLog {
                wanted: shown(until),
                until: to.sequence,
            });
        }
        Ok(())
    }

    /// Where a chain begins and ends; `None` where it is empty.
    fn ends(&self, shipments: &BTreeMap<u64, PathBuf>) -> Result<Option<Ends>> {
        let (Some(first), Some(last)) = (shipments.values().next(), shipments.values().last())
        else {
            return Ok(None);
        };
        let (first, last) = (self.read(first)?, self.read(last)?);
        Ok(Some(Ends {
            from: first.position,
            to: last.next,
            time: last.time,
        }))
    }
}

/// Where a chain begins and ends.
struct Ends {
    from: ShipPosition,
    to: ShipPosition,
    time: Timestamp,
}

/// The pieces of a chain in which no shipment is missing. Where one is, what lies behind it still goes on from a later snapshot; so it is
/// after a loss of power amid [`LogArchive::prune`], which may have brought some of what was removed back.
fn runs(shipments: BTreeMap<u64, PathBuf>) -> Vec<BTreeMap<u64, PathBuf>> {
    let mut runs: Vec<BTreeMap<u64, PathBuf>> = Vec::new();
    let mut next = None;
    for (number, path) in shipments {
        match runs.last_mut() {
            Some(run) if next == Some(number) => drop(run.insert(number, path)),
            _ => runs.push(BTreeMap::from([(number, path)])),
        }
        next = number.checked_add(1);
    }
    runs
}

/// Whether a chain holds what was written behind a snapshot: from before it, or from where the chain begins, up to it at least.
fn reaches(from: &ShipPosition, to: &ShipPosition, base: &Manifest) -> bool {
    let from_before =
        from.sequence < base.sequence || (from.sequence == base.sequence && from.shipment == 0);
    from_before && to.sequence >= base.sequence && is_base(base, from.instance)
}

fn shown(until: Until) -> String {
    match until {
        Until::End => "the end".to_owned(),
        Until::Sequence(sequence) => format!("write {sequence}"),
        Until::Time(time) => format!("{} ms after 1970", time.0),
    }
}

/// Whether a chain of an instance may go on from a snapshot.
fn is_base(base: &Manifest, instance: [u8; 16]) -> bool {
    let of = base.instance.as_ref().map(|of| of.0);
    base.form == Form::Physical && of == Some(instance)
}
