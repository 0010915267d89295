//! The thread that ships.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vault_core::{Engine, Error as CoreError, SequenceNumber, Timestamp};
use vault_lsm::Lsm;
use vault_lsm::shipping::{LogShipper, ShipOptions, ShipPosition};
use vault_snapshot::archive::Hex;

use super::super::create::store_of;
use super::super::worker::{Board, Worker};
use super::super::{SnapshotOptions, Snapshots, Trigger};
use super::LogArchive;
use crate::error::{Error, Result};

/// How often the log is shipped unless the caller says otherwise.
const SHIP_EVERY: Duration = Duration::from_millis(250);
/// How long to wait after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);

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
    let board = Arc::new(Board::default());
    let mut work = Work {
        snapshots: Snapshots {
            database: database.clone(),
            stored: archive.snapshots.clone(),
        },
        archive: archive.clone(),
        shipper: None,
        is_broken: false,
        ingests: 0,
        board: Arc::clone(&board),
        every: every.unwrap_or(SHIP_EVERY),
    };
    work.begin()?;
    let worker = Worker::start("vault-log-archive", board, move || work.run())?;
    Ok(LogArchiver(worker))
}

/// What the thread works with.
struct Work {
    snapshots: Snapshots,
    archive: LogArchive,
    shipper: Option<LogShipper>,
    /// Whether the chain cannot go on.
    is_broken: bool,
    /// How often tables had been taken in past the log when the last snapshot was begun.
    ingests: u64,
    board: Arc<Board<LogArchiverStatus>>,
    every: Duration,
}

impl Work {
    fn run(&mut self) {
        loop {
            let stopping = self.board.is_stopping();
            let shipped = self.ship();
            let failed = shipped.is_err();
            if let Err(error) = shipped {
                self.board.with(|status| status.error = Some(error));
            }
            if stopping {
                return;
            }
            let wait = if failed { RETRY_AFTER } else { self.every };
            self.board.wait(wait, |_| false);
        }
    }

    fn lsm(&self) -> Result<&Lsm> {
        let lsm = self.snapshots.database.shared().lsm.as_ref();
        lsm.ok_or(Error::UnsupportedSnapshot {
            problem: "the engine of this database keeps no log of its own",
        })
    }

    /// Goes on where the last archiver ended, or begins a chain and makes the snapshot that it goes on from.
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
    fn make_base(&mut self) -> Result<()> {
        let options = SnapshotOptions {
            trigger: Trigger::Event("the log is shipped from here on".to_owned()),
            ..SnapshotOptions::default()
        };
        let ingests = self.ingests_now();
        self.snapshots.create_with(&options, &())?;
        self.ingests = ingests;
        Ok(())
    }

    /// How often tables were taken in past the log. Nobody does while the log is shipped, but one that began before may end later.
    fn ingests_now(&self) -> u64 {
        let shared = self.snapshots.database.shared();
        shared.ingests.load(Ordering::Acquire)
    }

    fn begun(&mut self, shipper: LogShipper) {
        let sequence = shipper.position().sequence;
        self.board.with(|status| status.sequence = sequence);
        self.shipper = Some(shipper);
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

    /// Ships what has been written since the last time.
    fn ship(&mut self) -> Result<()> {
        let latest = self.lsm()?.latest_sequence();
        if self.shipper.is_none() {
            return self.begin();
        }
        self.ship_up_to(latest)?;
        if self.ingests_now() != self.ingests {
            // What is in no log is in a snapshot that this goes on from.
            self.make_base()?;
        }
        self.board.with(|status| status.error = None);
        Ok(())
    }

    fn ship_up_to(&mut self, latest: SequenceNumber) -> Result<()> {
        let Some(shipper) = &mut self.shipper else {
            return Ok(());
        };
        if shipper.position().sequence == latest {
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
            self.board.with(|status| {
                *status = LogArchiverStatus {
                    sequence: shipment.next.sequence,
                    time: Some(shipment.time),
                    shipments: status.shipments + 1,
                    error: None,
                };
            });
            if !shipment.more {
                return Ok(());
            }
        }
    }
}
