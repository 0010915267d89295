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

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vault_core::vfs::{EntryKind, create_directories, parent_of, read_whole};
use vault_core::{Engine, Error as CoreError, SequenceNumber, Timestamp};
use vault_lsm::Lsm;
use vault_lsm::shipping::{
    LogShipper, Replayed, ShipOptions, ShipPosition, Shipment, Until, replay_shipped,
};

use super::shipment::{decode, encode};
use super::{Form, Manifest, SnapshotName, Snapshots, Trigger};
use crate::database::lock;
use crate::error::{Error, Result};
use crate::hex::hex;

/// How often the log is shipped unless the caller says otherwise.
const SHIP_EVERY: Duration = Duration::from_millis(250);
/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);
const ENDING: &str = "shipment";
const UNFINISHED: &str = "shipment.new";

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
    snapshots: Snapshots,
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

/// How an archiver is doing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LogArchiverStatus {
    /// Everything up to this write is in the archive.
    pub sequence: SequenceNumber,
    /// When the last shipment was made.
    pub time: Option<Timestamp>,
    /// Shipments that were written.
    pub shipments: u64,
    /// Why the last attempt failed, if it did. It is tried again.
    pub error: Option<Error>,
}

/// Ships the log until it is stopped or dropped.
pub struct LogArchiver {
    board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    status: LogArchiverStatus,
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
            snapshots: self.clone(),
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
        let board = Arc::new(Board::default());
        let mut work = Work {
            archive: self.clone(),
            shipper: None,
            is_broken: false,
            board: Arc::clone(&board),
            every: every.unwrap_or(SHIP_EVERY),
        };
        work.begin()?;
        let thread = thread::Builder::new()
            .name("vault-log-archive".to_owned())
            .spawn(move || work.run())
            .map_err(|error| Error::Stream {
                doing: "starting the thread that ships the log",
                source: Arc::new(error),
            })?;
        Ok(LogArchiver {
            board,
            thread: Some(thread),
        })
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
    /// and of what was shipped behind that. Like [`Snapshots::restore_to`], whole or not at all.
    ///
    /// A time is as exact as shipments are frequent.
    ///
    /// # Errors
    /// [`NoBase`](Error::NoBase) where there is no snapshot before the point that the log goes on from,
    /// [`BeyondLog`](Error::BeyondLog) where the point lies behind what was shipped;
    /// [`UnsupportedSnapshot`](Error::UnsupportedSnapshot) where a key is needed; as [`Snapshots::restore_to`], with what
    /// [`replay_shipped`] says.
    pub fn restore_to(&self, until: Until, target: impl AsRef<Path>) -> Result<PointRestored> {
        let (base, shipments) = self.base_of(until)?;
        self.check_reach(until, &base, &shipments)?;
        let file_system = Arc::clone(&self.snapshots.file_system);
        let options = self.snapshots.engine_options(&base, file_system);
        let options = options.ok_or(Error::UnsupportedSnapshot {
            problem: "replaying the log of an encrypted database needs its key; give it by `Snapshots::with_key`",
        })?;
        let mut replayed: Option<Replayed> = None;
        self.snapshots.repository.extract(
            base.name,
            &*self.snapshots.file_system,
            target.as_ref(),
            &|_| true,
            |path| {
                let read = |path: &PathBuf| {
                    self.read(path).map_err(|error| match error {
                        Error::Engine(error) => error,
                        other => CoreError::io("read", path, std::io::Error::other(other)),
                    })
                };
                let shipments = shipments.values().map(read);
                replayed = Some(replay_shipped(path, &options, shipments, until)?);
                Ok(())
            },
            &(),
        )?;
        let (sequence, batches) =
            replayed.map_or((base.sequence, 0), |done| (done.sequence, done.batches));
        Ok(PointRestored {
            base: base.name,
            sequence,
            batches,
        })
    }

    /// Removes what no snapshot needs any more: of each chain what was written before the oldest snapshot that it goes on from, and
    /// chains that go on from none. Gives how many shipments that were.
    ///
    /// # Errors
    /// As [`LogArchive::chains`] and [`Snapshots::list`].
    pub fn prune(&self) -> Result<u64> {
        let bases = self.snapshots.list()?;
        let mut removed = 0;
        for shipments in self.stored()?.into_values() {
            let Some(last) = shipments.values().last() else {
                continue;
            };
            // Nobody can tell what one is good for that cannot be read.
            let Ok(last) = self.read(last) else {
                continue;
            };
            let (instance, until) = (last.position.instance, last.next.sequence);
            let of_chain = bases
                .iter()
                .filter(|base| is_base(base, instance) && base.sequence <= until);
            let oldest = of_chain.map(|base| base.sequence).min();
            let newest = shipments.keys().last().copied();
            for (number, path) in &shipments {
                // The last one says where the chain goes on.
                let needed = Some(*number) == newest && oldest.is_some();
                let before = oldest.is_none_or(|oldest| {
                    self.read(path)
                        .is_ok_and(|shipment| shipment.next.sequence < oldest)
                });
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
        for shipments in self.stored()?.into_values() {
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

    /// The files of every chain, by their numbers.
    fn stored(&self) -> Result<BTreeMap<String, BTreeMap<u64, PathBuf>>> {
        let fs = &self.snapshots.file_system;
        let list = |path: &Path| match fs.read_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|error| CoreError::io("list", path, error)),
        };
        let mut chains = BTreeMap::new();
        for entry in list(&self.directory)? {
            let Some(chain) = entry
                .name
                .to_str()
                .filter(|_| entry.kind == EntryKind::Directory)
            else {
                continue;
            };
            let directory = self.directory.join(chain);
            let shipments = list(&directory)?.into_iter().filter_map(|file| {
                let (number, ending) = file.name.to_str()?.split_once('.')?;
                let number = (ending == ENDING).then(|| number.parse().ok())??;
                Some((number, directory.join(&file.name)))
            });
            chains.insert(chain.to_owned(), shipments.collect());
        }
        Ok(chains)
    }

    fn read(&self, path: &Path) -> Result<Shipment> {
        let fs = &self.snapshots.file_system;
        let file = fs
            .open(path)
            .map_err(|error| CoreError::io("open", path, error))?;
        let bytes = read_whole(&*file).map_err(|error| CoreError::io("read", path, error))?;
        decode(&bytes).map_err(|problem| Error::Malformed {
            what: path.display().to_string(),
            problem,
        })
    }

    fn write(&self, shipment: &Shipment) -> Result<()> {
        let fs = &self.snapshots.file_system;
        let directory = self.directory.join(hex(&shipment.position.chain));
        let number = shipment.position.shipment;
        let known = fs.kind(&directory);
        let known = known.map_err(|error| CoreError::io("look at", &directory, error))?;
        if known.is_none() || number == 0 {
            create_directories(&**fs, &directory)?;
        }
        let unfinished = directory.join(format!("{number:020}.{UNFINISHED}"));
        let path = directory.join(format!("{number:020}.{ENDING}"));
        // What a crash left.
        let _ = fs.remove(&unfinished);
        let io = |doing| move |error| CoreError::io(doing, &directory, error);
        let file = fs.create(&unfinished).map_err(io.clone()("create in"))?;
        let bytes = encode(shipment).map_err(|error| Error::NotEncodable {
            type_name: "a shipment",
            problem: error.to_string(),
        })?;
        file.write_at(&bytes, 0).map_err(io.clone()("write in"))?;
        file.sync().map_err(io.clone()("sync in"))?;
        fs.rename(&unfinished, &path)
            .map_err(io.clone()("rename in"))?;
        fs.sync_dir(&parent_of(&path)).map_err(io("sync"))?;
        Ok(())
    }
}

/// Where a chain begins and ends.
struct Ends {
    from: ShipPosition,
    to: ShipPosition,
    time: Timestamp,
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

impl LogArchiver {
    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> LogArchiverStatus {
        lock(&self.board.state).status.clone()
    }

    /// Ships what is left, and stops. Gives how it has done.
    pub fn stop(mut self) -> LogArchiverStatus {
        self.end();
        self.status()
    }

    fn end(&mut self) {
        lock(&self.board.state).stopping = true;
        self.board.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for LogArchiver {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for LogArchiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogArchiver")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// What the thread works with.
struct Work {
    archive: LogArchive,
    shipper: Option<LogShipper>,
    /// Whether the chain cannot go on.
    is_broken: bool,
    board: Arc<Board>,
    every: Duration,
}

impl Work {
    fn run(&mut self) {
        loop {
            let stopping = lock(&self.board.state).stopping;
            let shipped = self.ship();
            let failed = shipped.is_err();
            if let Err(error) = shipped {
                lock(&self.board.state).status.error = Some(error);
            }
            if stopping {
                return;
            }
            let state = lock(&self.board.state);
            if !state.stopping {
                let wait = if failed { RETRY_AFTER } else { self.every };
                let waited = self.board.changed.wait_timeout(state, wait);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn lsm(&self) -> Result<&Lsm> {
        let lsm = self.archive.snapshots.database.shared().lsm.as_ref();
        lsm.ok_or(Error::UnsupportedSnapshot {
            problem: "the engine of this database keeps no log of its own",
        })
    }

    /// Goes on where the last archiver ended, or begins a chain and makes the snapshot that it goes on from.
    fn begin(&mut self) -> Result<()> {
        let is_broken = std::mem::take(&mut self.is_broken);
        let lsm = self.lsm()?;
        let ends = match is_broken {
            true => Vec::new(),
            false => self.ends_of(lsm)?,
        };
        for from in ends {
            let options = ShipOptions {
                from: Some(from),
                ..ShipOptions::default()
            };
            match lsm.ship_log(&options) {
                Ok(shipper) => {
                    // What became of keyspaces while nobody shipped, and what was ingested, is in no log: a snapshot has it.
                    self.make_base()?;
                    self.begun(shipper);
                    return Ok(());
                }
                Err(CoreError::LogGap { .. } | CoreError::UnfitLog { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut shipper = lsm.ship_log(&ShipOptions::default())?;
        // The chain is there before the snapshot that it goes on from.
        self.archive.write(&shipper.ship()?)?;
        self.make_base()?;
        self.begun(shipper);
        Ok(())
    }

    /// Makes the snapshot that shipments go on from.
    fn make_base(&self) -> Result<()> {
        let options = super::SnapshotOptions {
            trigger: Trigger::Event("the log is shipped from here on".to_owned()),
            ..super::SnapshotOptions::default()
        };
        self.archive.snapshots.create_with(&options, &())?;
        Ok(())
    }

    fn begun(&mut self, shipper: LogShipper) {
        lock(&self.board.state).status.sequence = shipper.position().sequence;
        self.shipper = Some(shipper);
    }

    /// Where the chains of this instance ended, the furthest first.
    fn ends_of(&self, lsm: &Lsm) -> Result<Vec<ShipPosition>> {
        let mut ends = Vec::new();
        for shipments in self.archive.stored()?.into_values() {
            // One that cannot be read is none to go on from.
            let next = self.archive.ends(&shipments).ok().flatten();
            let next = next.map(|ends| ends.to);
            ends.extend(next.filter(|next| Some(next.instance) == lsm.instance()));
        }
        ends.sort_by_key(|end| std::cmp::Reverse(end.sequence));
        Ok(ends)
    }

    /// Ships what has been written since the last time.
    fn ship(&mut self) -> Result<()> {
        let latest = self.lsm()?.latest_sequence();
        let Some(shipper) = &mut self.shipper else {
            return self.begin();
        };
        if shipper.position().sequence == latest {
            lock(&self.board.state).status.error = None;
            return Ok(());
        }
        loop {
            let shipped = shipper.ship().map_err(Error::from);
            let written =
                shipped.and_then(|shipment| self.archive.write(&shipment).map(|()| shipment));
            let shipment = match written {
                Ok(shipment) => shipment,
                Err(error) => {
                    // Whatever it was: the archive has a gap behind what it has. This chain goes on from where it ended next
                    // time, or another one begins.
                    self.is_broken = matches!(
                        error,
                        Error::Engine(CoreError::LogGap { .. } | CoreError::UnfitLog { .. })
                    );
                    self.shipper = None;
                    return Err(error);
                }
            };
            let mut state = lock(&self.board.state);
            state.status = LogArchiverStatus {
                sequence: shipment.next.sequence,
                time: Some(shipment.time),
                shipments: state.status.shipments + 1,
                error: None,
            };
            if !shipment.more {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vault_core::vfs::{CrashPolicy, MemoryFileSystem};

    use super::*;
    use crate::database::Database;

    /// Power is lost at every operation of writing shipments: those that are listed are whole, in a row from the first, and all that
    /// were acknowledged are there.
    #[test]
    fn what_is_listed_is_whole_and_without_a_gap() {
        let db = Database::temp().unwrap();
        let mut shipper = db.lsm().unwrap().ship_log(&ShipOptions::default()).unwrap();
        let shipments: Vec<Shipment> = (0..4)
            .map(|n| {
                db.vault("v").unwrap().put(n, &n).unwrap();
                shipper.ship().unwrap()
            })
            .collect();
        let archive_in = |fs: &MemoryFileSystem| LogArchive {
            snapshots: db
                .snapshots("/nowhere")
                .unwrap()
                .on_file_system(Arc::new(fs.clone())),
            directory: PathBuf::from("/backups/of/log"),
        };
        let write_all = |fs: &MemoryFileSystem| {
            let archive = archive_in(fs);
            let mut written = shipments.iter().map(|shipment| archive.write(shipment));
            written.by_ref().take_while(Result::is_ok).count()
        };
        let whole = MemoryFileSystem::new();
        assert_eq!(write_all(&whole), shipments.len());
        let operations = whole.operations();
        assert!(operations > 20);
        let policies = [
            CrashPolicy::DropUnsynced,
            CrashPolicy::KeepUnsynced,
            CrashPolicy::Random { percent: 50 },
        ];
        for n in 0..=operations {
            let fs = MemoryFileSystem::new();
            fs.set_crash_point(Some(n));
            let acknowledged = write_all(&fs);
            for policy in policies {
                let after = fs.crash(n, policy);
                let archive = archive_in(&after);
                let stored = archive.stored().unwrap();
                let found = stored.values().flat_map(BTreeMap::values);
                let found: Vec<Shipment> = found.map(|path| archive.read(path).unwrap()).collect();
                assert!(found.len() >= acknowledged, "{policy:?} at {n}");
                assert_eq!(found, shipments[..found.len()], "{policy:?} at {n}");
                // It goes on, past what the crash left.
                for shipment in &shipments[found.len()..] {
                    archive.write(shipment).unwrap();
                }
                assert_eq!(archive.chains().unwrap()[0].shipments, 4);
            }
        }
    }
}
