//! Carrying out a plan on an engine, and holding every answer against the oracle.
//!
//! Everything happens on one thread, on a file system in memory, with a clock that moves when the plan says
//! so: a plan gives the same run each time, which the [digest](crate::digest) shows. The parts:
//! [`change`] writes, [`read`] reads, [`event`] does what concerns the store as a whole, [`opening`] ends it
//! and opens it again, [`secrecy`] looks after keys and what they protect.
//!
//! # Which errors are in order
//! With nothing wrong around it the engine has to succeed. A call in which an injected fault has hit may fail
//! with an error that fits; reads never give a wrong value. Of a write that failed, [`Error::Poisoned`] alone
//! leaves it unknown whether it was written. Once a handle has answered with that, it refuses all writes for
//! good, whatever becomes of the fault, and goes on reading. A disk that is full and nothing else never
//! gets that far: when there is space again, writes succeed.

mod change;
mod check;
mod copies;
mod event;
mod listener;
mod opening;
mod read;
mod secrecy;

use std::sync::Arc;

use vault_core::clock::{Clock, ManualClock};
use vault_core::random::SeededRandom;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Cursor, Engine, Error, KeyRange, Result as CoreResult, Snapshot, Timestamp};
use vault_lsm::{Lsm, Settings};

use crate::digest::Digest;
use crate::oracle::{Id, Moment, Oracle, Promise, Times};
use crate::plan::{Ending, Interruption, Operation, Plan};
use crate::report::{Failure, Report};
use listener::Listener;
use secrecy::{Secrecy, Secret};

/// Where the store lies.
const DIRECTORY: &str = "/store";
/// When the clock starts: somewhere in 2023, so that it can go back by years.
const START: Timestamp = Timestamp(1_700_000_000_000);
/// Snapshots, cursors and checkpoints that are held at once.
const HELD_MAX: usize = 4;
/// Operations between two comparisons of everything.
const CHECK_EVERY: usize = 64;
/// Operations that a poisoned handle is kept for, to see that it stays so.
const POISONED_OPERATIONS: usize = 6;

/// What went wrong, without the place.
type Step<T = ()> = Result<T, String>;

/// Carries out a plan.
///
/// # Errors
/// What the engine did wrong first.
pub fn run_plan(plan: &Plan) -> Result<Report, Failure> {
    run_plan_traced(plan, &mut |_| {})
}

/// As [`run_plan`], and tells of each operation with what came of it.
///
/// # Errors
/// As [`run_plan`].
pub fn run_plan_traced(plan: &Plan, trace: &mut dyn FnMut(&str)) -> Result<Report, Failure> {
    let mut simulation = Simulation::new(plan);
    simulation.digest.add_debug(plan);
    let failed = |operation: usize| move |message| Failure { operation, message };
    simulation.begin(plan).map_err(failed(0))?;
    for (index, operation) in plan.operations.iter().enumerate() {
        let outcome = simulation.step(index, operation);
        let note = std::mem::take(&mut simulation.note);
        trace(&format!("{index:>5}  {operation:?}\n       {note}"));
        outcome.map_err(failed(index))?;
        simulation.digest.add(note.as_bytes());
        simulation.digest.add_number(simulation.fs.operations());
    }
    simulation.finish().map_err(failed(plan.operations.len()))?;
    simulation.take_stock();
    simulation.take_stock_of_seals();
    let mut report = simulation.report;
    report.seeds = 1;
    report.events = simulation.listener.counts();
    simulation.digest.add_debug(&report.events);
    report.digest = simulation.digest;
    Ok(report)
}

/// A crash that comes after some more file operations.
#[derive(Debug, Clone)]
struct Armed {
    at: u64,
    how: Ending,
    recovery: Vec<Interruption>,
}

struct HeldSnapshot {
    snapshot: Arc<dyn Snapshot>,
    moment: Moment,
}

struct HeldCursor {
    cursor: Box<dyn Cursor>,
    keyspace: Id,
    range: KeyRange,
    moment: Moment,
    /// The key that it stands on.
    at: Option<Vec<u8>>,
}

/// A checkpoint, or what was begun of one.
struct Copy {
    number: usize,
    path: String,
    moment: Moment,
    /// The account of the store when the copy was made, and of what was written to the copy since.
    account: Oracle,
    /// What opens it.
    secret: Secret,
    /// Whether the call succeeded.
    complete: bool,
}

struct Simulation {
    fs: MemoryFileSystem,
    clock: Arc<ManualClock>,
    random: Arc<SeededRandom>,
    settings: Settings,
    oracle: Oracle,
    /// `None` while it could not be opened.
    store: Option<Lsm>,
    /// What the next opening has to find.
    promise: Promise,
    snapshots: Vec<HeldSnapshot>,
    cursors: Vec<HeldCursor>,
    copies: Vec<Copy>,
    copies_made: usize,
    armed: Option<Armed>,
    clock_latest: Timestamp,
    /// The operation at which what was injected is over.
    faults_until: Option<usize>,
    space_until: Option<usize>,
    /// Since the store was opened, something was injected.
    faults_since_opening: bool,
    /// What was injected had hit so often when this operation began.
    hits_before: u64,
    /// The handle has answered that it is poisoned; so many operations ago.
    poisoned: Option<usize>,
    /// The creation or the dropping of a keyspace is in doubt: only opening anew can tell.
    keyspaces_in_doubt: bool,
    secrecy: Secrecy,
    listener: Arc<Listener>,
    index: usize,
    note: String,
    digest: Digest,
    report: Report,
}

impl Simulation {
    fn new(plan: &Plan) -> Self {
        Self {
            fs: MemoryFileSystem::new(),
            clock: Arc::new(ManualClock::new(START)),
            random: Arc::new(SeededRandom::new(plan.engine_seed)),
            settings: plan.settings.clone(),
            oracle: Oracle::default(),
            store: None,
            promise: Promise::Acknowledged,
            snapshots: Vec::new(),
            cursors: Vec::new(),
            copies: Vec::new(),
            copies_made: 0,
            armed: None,
            clock_latest: START,
            faults_until: None,
            space_until: None,
            faults_since_opening: false,
            hits_before: 0,
            poisoned: None,
            keyspaces_in_doubt: false,
            secrecy: Secrecy::new(plan.cipher),
            listener: Arc::new(Listener::new(plan.cipher.is_some())),
            index: 0,
            note: String::new(),
            digest: Digest::default(),
            report: Report::default(),
        }
    }

    fn begin(&mut self, plan: &Plan) -> Step {
        self.open_anew()?;
        for (slot, options) in (0..crate::plan::SLOTS).zip(&plan.keyspaces) {
            self.create_keyspace(crate::plan::Slot(slot), options)?;
        }
        Ok(())
    }

    /// Carries out one operation, with what has to come before and after it.
    fn step(&mut self, index: usize, operation: &Operation) -> Step {
        self.index = index;
        self.hits_before = self.fs.faults_hit();
        self.pass_time()?;
        if self.store.is_none() {
            self.open_anew()?;
        }
        self.unlock_in_time()?;
        if self.store.is_some() {
            self.perform(operation)?;
        }
        if self.crash_is_due() {
            self.crash_as_armed()?;
        }
        let weary = self
            .poisoned
            .is_some_and(|since| index >= since + POISONED_OPERATIONS);
        if weary || self.keyspaces_in_doubt || self.secrecy.keys_in_doubt {
            self.reopen(None)?;
        }
        if self.crash_is_due() {
            self.crash_as_armed()?;
        }
        if index % CHECK_EVERY == CHECK_EVERY - 1 && self.is_calm() {
            self.check_everything()?;
        }
        self.check_secrecy()
    }

    /// What was injected for a number of operations is over by itself.
    fn pass_time(&mut self) -> Step {
        if self.faults_until.is_some_and(|until| self.index >= until) {
            self.clear_faults();
        }
        if self.space_until.is_some_and(|until| self.index >= until) {
            self.space_is_back()?;
        }
        Ok(())
    }

    fn perform(&mut self, operation: &Operation) -> Step {
        self.report.operations.add(operation.name());
        if self.secrecy.is_locked() && operation.needs_keys() {
            return self.check_refused();
        }
        match operation {
            Operation::Write { .. }
            | Operation::TryWrite { .. }
            | Operation::CompareAndSet { .. }
            | Operation::Ingest { .. }
            | Operation::Misuse(_)
            | Operation::CreateKeyspace(..)
            | Operation::DropKeyspace(_) => self.change(operation),
            Operation::Get(..)
            | Operation::MultiGet(..)
            | Operation::Scan(..)
            | Operation::TakeSnapshot
            | Operation::ReadSnapshot { .. }
            | Operation::DropSnapshot(_)
            | Operation::OpenCursor { .. }
            | Operation::MoveCursor(..)
            | Operation::CloseCursor(_)
            | Operation::CheckAll => self.read(operation),
            _ => self.event(operation),
        }
    }

    /// The end: nothing is wrong any more, and all must be there, now and after closing and opening.
    fn finish(&mut self) -> Step {
        self.armed = None;
        self.fs.set_crash_point(None);
        self.clear_faults();
        self.space_is_back()?;
        if self.store.is_none() || self.poisoned.is_some() || self.secrecy.is_locked() {
            self.reopen(None)?;
        }
        self.check_everything()?;
        self.check_copies()?;
        self.reopen(None)?;
        self.end_process(
            Ending::PowerLoss {
                keep_percent: 0,
                seed: 0,
            },
            &[],
        )?;
        self.search_files()?;
        self.check_erased()?;
        self.check_secrecy()?;
        self.listener.check()
    }

    fn times(&mut self) -> Times {
        let now = self.clock.now();
        self.clock_latest = self.clock_latest.max(now);
        Times {
            now,
            latest: self.clock_latest,
        }
    }

    fn store(&self) -> &Lsm {
        self.store
            .as_ref()
            .expect("operations are carried out on an open store")
    }

    /// Nothing is wrong around the store, and nothing in it.
    fn is_calm(&self) -> bool {
        self.store.is_some()
            && !self.is_troubled()
            && self.armed.is_none()
            && self.poisoned.is_none()
            && !self.keyspaces_in_doubt
            && !self.secrecy.keys_in_doubt
            && !self.secrecy.is_locked()
    }

    /// Something is wrong around the store right now.
    const fn is_troubled(&self) -> bool {
        self.faults_until.is_some() || self.space_until.is_some()
    }

    /// Whether an injected fault has hit the file system in this operation of the plan.
    fn fault_hit(&self) -> bool {
        self.fs.faults_hit() > self.hits_before
    }

    fn crash_is_due(&self) -> bool {
        self.armed
            .as_ref()
            .is_some_and(|armed| self.fs.operations() > armed.at)
    }

    /// Takes what a call gave where it succeeded; judges the error where it didn't.
    fn accept<T>(&mut self, what: &str, outcome: CoreResult<T>) -> Step<Option<T>> {
        match outcome {
            Ok(value) => {
                self.note(what);
                Ok(Some(value))
            }
            Err(error) => self.excuse(what, &error).map(|()| None),
        }
    }

    /// Judges an error: whether anything explains it.
    fn excuse(&mut self, what: &str, error: &Error) -> Step {
        self.note(&format!("{what}: {error}"));
        self.secrecy.overhear_error(what, error);
        self.report.errors.add(error_name(error));
        let explained = match error {
            _ if self.crash_is_due() => true,
            Error::Poisoned { .. } => {
                let known = self.poisoned.is_some();
                self.poisoned.get_or_insert(self.index);
                known || self.faults_since_opening
            }
            Error::DiskFull { .. } => self.space_until.is_some() || self.fault_hit(),
            Error::Io { .. } | Error::TooManyOpenFiles { .. } | Error::Corruption { .. } => {
                self.fault_hit()
            }
            _ => false,
        };
        if explained {
            return Ok(());
        }
        Err(format!(
            "{what} failed, and nothing is wrong that explains it: {error}"
        ))
    }

    fn note(&mut self, note: &str) {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note);
    }
}

/// The name of an error, for counting.
fn error_name(error: &Error) -> &'static str {
    match error {
        Error::Io { .. } => "Io",
        Error::DiskFull { .. } => "DiskFull",
        Error::TooManyOpenFiles { .. } => "TooManyOpenFiles",
        Error::Poisoned { .. } => "Poisoned",
        Error::Corruption { .. } => "Corruption",
        Error::Busy { .. } => "Busy",
        Error::Cancelled => "Cancelled",
        Error::Locked => "Locked",
        Error::WrongKey { .. } => "WrongKey",
        Error::RolledBack { .. } => "RolledBack",
        Error::UnacceptableKeyring { .. } => "UnacceptableKeyring",
        _ => "other",
    }
}

/// The latest sequence number of a store.
fn latest_of(store: &Lsm) -> u64 {
    store.latest_sequence()
}
