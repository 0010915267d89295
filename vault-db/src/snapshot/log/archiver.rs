//! The thread that ships.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vault_core::{Engine, Error as CoreError, SequenceNumber, Timestamp};
use vault_lsm::Lsm;
use vault_lsm::shipping::{LogShipper, ShipOptions, ShipPosition, Shipment};
use vault_snapshot::archive::Hex;

use super::super::create::store_of;
use super::super::worker::{Board, Worker};
use super::super::{ArchiveError, SnapshotOptions, Snapshots, Trigger};
use super::LogArchive;
use crate::error::{Error, Result};

/// How often the log is shipped unless the caller says otherwise.
const SHIP_EVERY: Duration = Duration::from_millis(250);
/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often to look whether a snapshot has been made.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long to wait where somebody else makes a snapshot.
const BUSY_AGAIN: Duration = Duration::from_millis(200);
/// How long [`LogArchive::start`] waits for them in all.
const BUSY_MAX: Duration = Duration::from_secs(60);

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
pub struct LogArchiver(Worker<LogArchiverStatus>);

impl LogArchiver {
    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> LogArchiverStatus {
        self.0.look(|status| status.clone())
    }

    /// Ships what is left, and stops. Gives how it has done.
    pub fn stop(mut self) -> LogArchiverStatus {
        self.0.stop();
        self.status()
    }
}

impl fmt::Debug for LogArchiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogArchiver")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// Begins to ship; where that fails, says why, and there is no thread.
pub(super) fn start(archive: &LogArchive, every: Option<Duration>) -> Result<LogArchiver> {
    let database = archive
        .database
        .as_ref()
        .ok_or(Error::UnsupportedSnapshot {
            problem: "this archive was opened without the database; take `Snapshots::log_archive` of one that is open",
        })?;
    let snapshots = Snapshots {
        database: database.clone(),
        stored: archive.snapshots.clone(),
    };
    let board = Arc::new(Board::default());
    let mut work = Work {
        bases: Bases::new(&snapshots),
        snapshots,
        archive: archive.clone(),
        shipper: None,
        unwritten: None,
        is_broken: false,
        board: Arc::clone(&board),
        every: every.unwrap_or(SHIP_EVERY),
    };
    work.begin()?;
    let (told, first) = mpsc::sync_channel(1);
    work.bases.first = Some(told);
    let worker = Worker::start("vault-log-archive", board, move || work.run())?;
    let archiver = LogArchiver(worker);
    // Shipping goes on meanwhile. Where this fails, dropping the archiver ends it.
    let gone = |_| Error::Stream {
        doing: "waiting for the first snapshot of the log archive",
        source: Arc::new(io::Error::other("its thread has ended")),
    };
    first.recv().map_err(gone)??;
    Ok(archiver)
}

/// What the thread works with.
struct Work {
    snapshots: Snapshots,
    archive: LogArchive,
    shipper: Option<LogShipper>,
    /// What was shipped last, where the archive would not take it yet.
    unwritten: Option<Shipment>,
    /// Whether the chain cannot go on.
    is_broken: bool,
    bases: Bases,
    board: Arc<Board<LogArchiverStatus>>,
    every: Duration,
}

impl Work {
    fn run(&mut self) {
        loop {
            let stopping = self.board.is_stopping();
            let shipped = self.ship();
            let mut wait = if shipped.is_err() {
                RETRY_AFTER
            } else {
                self.every
            };
            let based = self.bases.look_after(stopping);
            let error = shipped.err().or_else(|| based.err());
            self.board.with(|status| status.error = error);
            if stopping {
                return;
            }
            if self.bases.making.is_some() || self.bases.first.is_some() {
                wait = wait.min(LOOK_EVERY);
            }
            self.board.wait(wait, |_| false);
        }
    }

    fn lsm(&self) -> Result<&Lsm> {
        let lsm = self.snapshots.database.shared().lsm.as_ref();
        lsm.ok_or(Error::UnsupportedSnapshot {
            problem: "the engine of this database keeps no log of its own",
        })
    }

    /// Goes on where the last archiver ended, or begins a chain. Either way a snapshot is needed to go on from.
    fn begin(&mut self) -> Result<()> {
        let is_broken = std::mem::take(&mut self.is_broken);
        let lsm = self.lsm()?;
        // Nothing is shipped that has no snapshot to go on from.
        let store = Hex(store_of(&self.snapshots.database));
        self.snapshots.repository.check_store(store)?;
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
                // What became of keyspaces while nobody shipped, and what was ingested, is in no log: a snapshot has it.
                Ok(shipper) => {
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
        self.begun(shipper);
        Ok(())
    }

    fn begun(&mut self, shipper: LogShipper) {
        let sequence = shipper.position().sequence;
        self.board.with(|status| status.sequence = sequence);
        self.shipper = Some(shipper);
        self.bases.owed = true;
    }

    /// Where the chains of this instance ended, the furthest first.
    fn ends_of(&self, lsm: &Lsm) -> Result<Vec<ShipPosition>> {
        let mut ends = Vec::new();
        for shipments in self.archive.stored()?.into_values() {
            // One that cannot be read is none to go on from.
            let last = shipments.values().next_back();
            let last = last.and_then(|last| self.archive.read(last).ok());
            let next = last.map(|last| last.next);
            ends.extend(next.filter(|next| Some(next.instance) == lsm.instance()));
        }
        ends.sort_by_key(|end| std::cmp::Reverse(end.sequence));
        Ok(ends)
    }

    /// Ships what has been written since the last time. What the archive does not take is kept, and what was not shipped stays in the
    /// log, as far as that is kept: neither is lost by one that is away for a while.
    fn ship(&mut self) -> Result<()> {
        let latest = self.lsm()?.latest_sequence();
        if self.shipper.is_none() {
            self.begin()?;
        }
        loop {
            let Some(shipment) = self.next()? else {
                return Ok(());
            };
            let written = self.archive.write(&shipment);
            if written.is_err() {
                self.unwritten = Some(shipment);
                return written;
            }
            self.board.with(|status| {
                status.sequence = shipment.next.sequence;
                status.time = Some(shipment.time);
                status.shipments += 1;
            });
            // One that was kept since the archive was away may end long before.
            if !shipment.more && shipment.next.sequence >= latest {
                return Ok(());
            }
        }
    }

    /// What is to be written next; `None` where everything was.
    fn next(&mut self) -> Result<Option<Shipment>> {
        if let Some(unwritten) = self.unwritten.take() {
            return Ok(Some(unwritten));
        }
        let Some(shipper) = &mut self.shipper else {
            return Ok(None);
        };
        if !shipper.is_behind() {
            return Ok(None);
        }
        let shipped = shipper.ship();
        if let Err(CoreError::LogGap { .. } | CoreError::UnfitLog { .. }) = &shipped {
            self.shipper = None;
            self.is_broken = true;
        }
        Ok(Some(shipped?))
    }
}

/// Makes the snapshots that shipments go on from, in a thread of their own: shipping waits for none of them.
struct Bases {
    snapshots: Snapshots,
    /// Whether there must be one that begins from now on.
    owed: bool,
    making: Option<JoinHandle<Result<()>>>,
    /// How often tables had been taken in past the log when the last one was begun.
    ingests: u64,
    /// Why the last one failed, and when it is tried again.
    failed: Option<(Error, Duration)>,
    /// Who waits for the first one, and since when.
    first: Option<SyncSender<Result<()>>>,
    began: Duration,
}

impl Bases {
    fn new(snapshots: &Snapshots) -> Self {
        Self {
            snapshots: snapshots.clone(),
            owed: true,
            making: None,
            ingests: 0,
            failed: None,
            first: None,
            began: snapshots.clock.monotonic(),
        }
    }

    /// Takes up what has ended, and begins what is owed. At the end, waits for it. Gives why there is none.
    fn look_after(&mut self, stopping: bool) -> Result<()> {
        if self
            .making
            .as_ref()
            .is_some_and(|making| stopping || making.is_finished())
        {
            self.join();
        }
        // What is in no log is in a snapshot that this goes on from. Nobody ingests while the log is shipped, but who began before
        // may end later.
        self.owed |= self.ingests_now() != self.ingests;
        let now = self.snapshots.clock.monotonic();
        let is_time = self.failed.as_ref().is_none_or(|(_, again)| *again <= now);
        if self.owed && self.making.is_none() && (is_time || stopping) {
            self.begin();
            if stopping {
                self.join();
            }
        }
        match &self.failed {
            Some((error, _)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn begin(&mut self) {
        self.owed = false;
        self.ingests = self.ingests_now();
        let snapshots = self.snapshots.clone();
        let make = move || {
            let options = SnapshotOptions {
                trigger: Trigger::Event("the log is shipped from here on".to_owned()),
                ..SnapshotOptions::default()
            };
            snapshots.create_with(&options, &()).map(drop)
        };
        let thread = thread::Builder::new().name("vault-log-base".to_owned());
        match thread.spawn(make) {
            Ok(making) => self.making = Some(making),
            Err(error) => self.ended(Err(Error::Stream {
                doing: "starting a thread",
                source: Arc::new(error),
            })),
        }
    }

    fn join(&mut self) {
        if let Some(making) = self.making.take() {
            let panicked = || Error::Stream {
                doing: "making a snapshot for the log archive",
                source: Arc::new(io::Error::other("its thread has panicked")),
            };
            let made = making.join().unwrap_or_else(|_| Err(panicked()));
            self.ended(made);
        }
    }

    fn ended(&mut self, made: Result<()>) {
        let now = self.snapshots.clock.monotonic();
        let is_busy = matches!(&made, Err(Error::Snapshot(error)) if matches!(**error, ArchiveError::Busy { .. }));
        let waits_on = is_busy && now.saturating_sub(self.began) < BUSY_MAX;
        if let Some(first) = self.first.take_if(|_| !waits_on) {
            // Whoever waited may have gone.
            let _ = first.send(made.clone());
        }
        self.owed |= made.is_err();
        let again = if is_busy { BUSY_AGAIN } else { RETRY_AFTER };
        self.failed = made.err().map(|error| (error, now + again));
    }

    /// How often tables were taken in past the log.
    fn ingests_now(&self) -> u64 {
        let shared = self.snapshots.database.shared();
        shared.ingests.load(Ordering::Acquire)
    }
}
