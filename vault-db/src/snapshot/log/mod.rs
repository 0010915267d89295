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
mod points;
mod prune;
mod shipment;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vault_core::{Error as CoreError, SequenceNumber, Timestamp};
use vault_lsm::LsmOptions;
use vault_lsm::shipping::{Replayed, Until, replay_shipped};

pub use archiver::{LogArchiver, LogArchiverStatus};
#[cfg(feature = "fuzzing")]
pub(crate) use shipment::{decode, encode, sealed};

use super::open::prepared;
use super::{ArchiveError, Form, Manifest, SnapshotName, Snapshots, StoredSnapshots, Watcher};
use crate::database::{Callbacks, Database};
use crate::error::{Error, Result};
use points::Choice;

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
    /// `every`: how often; four times a second without it. Returns when that snapshot is made; what is written meanwhile is shipped already.
    /// Where somebody else is at a snapshot, it waits for a minute at most.
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
        let Choice {
            base, shipments, ..
        } = self.choose(until)?;
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
                check_sequence(&base, &self.snapshots.open_read_only(&base, opened, path)?)?;
                if !shipments.is_empty() {
                    replayed = self.replay(path, &options, &shipments, until, &mut ask)?;
                }
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

    /// Replays shipments on what was unpacked of their base; `None` where nothing had to be.
    fn replay(
        &self,
        unpacked: &Path,
        options: &LsmOptions,
        shipments: &BTreeMap<u64, PathBuf>,
        until: Until,
        progress: &mut dyn FnMut(&ReplayProgress) -> ControlFlow<()>,
    ) -> Result<Option<Replayed>> {
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
            // The base is from before that time, and what it holds was shipped only behind it: it is what there was then.
            Err(CoreError::InvalidSetting {
                setting: "until", ..
            }) if matches!(until, Until::Time(_)) => Ok(None),
            replayed => Ok(Some(replayed?)),
        }
    }
}

/// Holds how far a snapshot goes by its manifest, of which everything was chosen and which nobody has authenticated, against its files.
fn check_sequence(base: &Manifest, unpacked: &Database) -> Result<()> {
    let found = unpacked.shared().engine.latest_sequence();
    if found == base.sequence {
        return Ok(());
    }
    Err(Error::from(ArchiveError::Damaged {
        location: format!("snapshot {}", base.name),
        problem: format!(
            "its files go up to write {found}, and its manifest says {}: remove it, or go back to a point before it",
            base.sequence
        ),
    }))
}

/// Whether a chain of an instance may go on from a snapshot.
fn is_base(base: &Manifest, instance: [u8; 16]) -> bool {
    let of = base.instance.as_ref().map(|of| of.0);
    base.form == Form::Physical && of == Some(instance)
}
