//! Ends, and openings after them.

use std::sync::Arc;

use vault_core::clock::Clock;
use vault_core::random::Random;
use vault_core::vfs::FileSystem;
use vault_core::{Engine, Error, Reader, Result as CoreResult};
use vault_lsm::{Lsm, LsmOptions, Settings};

use super::{Simulation, Step, latest_of};
use crate::journal::Journal;
use crate::oracle::{Found, FoundKeyspace, Promise};
use crate::plan::{Ending, Interruption};

/// Openings of one store that may fail in a row while something is wrong, before that is taken back.
const OPENINGS_MAX: usize = 3;

impl Simulation {
    /// Options for a store without secrets.
    pub(super) fn plain_options(&self) -> LsmOptions {
        LsmOptions::new(self.settings.clone())
            .file_system(Arc::new(self.fs.clone()) as Arc<dyn FileSystem>)
            .clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
            .random(Arc::clone(&self.random) as Arc<dyn Random>)
            .merge_operator(Arc::new(Journal))
            .listener(Arc::clone(&self.listener) as Arc<dyn vault_core::EventListener>)
    }

    /// Opens the store and judges what is in it. Where something is wrong around it, it may fail to open.
    pub(super) fn open_anew(&mut self) -> Step {
        for _ in 0..OPENINGS_MAX {
            match self.open_store() {
                Ok(store) => return self.judge(store),
                Err(error) => self.excuse_opening(&error)?,
            }
            if self.crash_is_due() {
                return Ok(());
            }
        }
        self.clear_faults();
        self.fs.set_capacity(None);
        self.space_until = None;
        match self.open_store() {
            Ok(store) => self.judge(store),
            Err(_) if self.crash_is_due() => Ok(()),
            Err(error) => Err(format!("the store does not open: {error}")),
        }
    }

    fn excuse_opening(&mut self, error: &Error) -> Step {
        // No handle is left that could be poisoned.
        let refused = self.excuse("open", error);
        self.poisoned = None;
        match error {
            Error::Poisoned { .. } if self.is_troubled() || self.crash_is_due() => Ok(()),
            _ => refused,
        }
    }

    /// Compares what was opened with what has to be there, and goes on with it.
    fn judge(&mut self, store: Lsm) -> Step {
        self.poisoned = None;
        self.keyspaces_in_doubt = false;
        self.faults_since_opening = self.faults_until.is_some();
        // An opening that could not read a file leaves it where it is, for the next one to remove.
        let opened_in_trouble = self.is_troubled();
        let found = match everything(&store) {
            Err(error) => {
                self.excuse("read after opening", &error)?;
                if self.crash_is_due() {
                    return Ok(());
                }
                // What was opened is looked at before anything else is done with it.
                self.clear_faults();
                match everything(&store) {
                    Ok(found) => found,
                    Err(_) if self.crash_is_due() => return Ok(()),
                    Err(error) => return Err(format!("nothing is wrong, and yet: {error}")),
                }
            }
            Ok(found) => found,
        };
        let times = self.times();
        self.digest.add_debug(&found);
        self.note_lost(found.latest);
        self.oracle.recovered(&found, self.promise, times)?;
        self.report.recoveries += 1;
        self.note(&format!(
            "opened at {} with {} commits",
            found.latest,
            self.oracle.commits()
        ));
        self.promise = Promise::Acknowledged;
        self.store = Some(store);
        if !opened_in_trouble && self.armed.is_none() {
            self.check_files()?;
            self.check_erased()?;
        }
        self.check_everything()
    }

    /// Closes and opens, with other settings if given.
    pub(super) fn reopen(&mut self, settings: Option<&Settings>) -> Step {
        if let Some(settings) = settings {
            self.settings = settings.clone();
        }
        self.close_store()?;
        if self.crash_is_due() {
            return Ok(());
        }
        self.open_anew()
    }

    /// Closes the store, if it is open.
    pub(super) fn close_store(&mut self) -> Step {
        let Some(store) = self.store.take() else {
            return Ok(());
        };
        let healthy = self.poisoned.is_none();
        let outcome = store.close();
        let closed = self.accept("close", outcome)?;
        // Closing a poisoned handle only lets go of it.
        if closed.is_some() && healthy {
            self.oracle.all_durable();
        }
        self.check_closed(&store)?;
        self.note_generation(&store)?;
        self.let_go_of_readers();
        self.secrecy.ended();
        Ok(())
    }

    /// Whatever is held answers that the store is closed.
    fn check_closed(&mut self, store: &Lsm) -> Step {
        let id = self.oracle.present().next().map(|(id, ..)| id);
        let Some(id) = id.map(vault_core::KeyspaceId) else {
            return Ok(());
        };
        let of_snapshots = self.snapshots.iter().map(|held| held.snapshot.get(id, b""));
        let mut answers = of_snapshots.chain([store.get(id, b"")]);
        match answers.find(|answer| !matches!(answer, Err(Error::Closed))) {
            Some(answer) => Err(format!("a store that was closed answers {answer:?}")),
            None => Ok(()),
        }
    }

    fn let_go_of_readers(&mut self) {
        self.cursors.clear();
        self.snapshots.clear();
    }

    /// Arms a crash, or crashes at once.
    pub(super) fn arm(&mut self, after: u16, how: Ending, recovery: &[Interruption]) -> Step {
        if after == 0 {
            self.armed = None;
            return self.end_process(how, recovery);
        }
        let at = self.fs.operations() + u64::from(after);
        self.fs.set_crash_point(Some(at));
        let recovery = recovery.to_vec();
        self.armed = Some(super::Armed { at, how, recovery });
        Ok(())
    }

    pub(super) fn crash_as_armed(&mut self) -> Step {
        match self.armed.take() {
            Some(armed) => self.end_process(armed.how, &armed.recovery),
            None => Ok(()),
        }
    }

    /// Ends process or machine, and opens what is left, with interruptions.
    pub(super) fn end_process(&mut self, how: Ending, recovery: &[Interruption]) -> Step {
        self.leave(how)?;
        for interruption in recovery {
            let at = self.fs.operations() + u64::from(interruption.after);
            self.fs.set_crash_point(Some(at));
            match self.open_store() {
                Ok(store) => drop(store),
                Err(Error::DiskFull { .. }) => {}
                Err(_) if self.fs.operations() > at => {}
                Err(error) => return Err(format!("the store does not open: {error}")),
            }
            if self.fs.operations() > at {
                self.report
                    .crashes
                    .add(format!("while opening: {}", name_of(interruption.how)));
                self.leave(interruption.how)?;
            } else {
                self.fs.set_crash_point(None);
            }
        }
        self.open_anew()
    }

    /// Adds up what the present file system has counted.
    pub(super) fn take_stock(&mut self) {
        self.report.file_operations += self.fs.operations();
        self.report.faults_hit += self.fs.faults_hit();
    }

    /// The file system as this end leaves it, and nothing else.
    fn leave(&mut self, how: Ending) -> Step {
        self.take_stock();
        self.report.crashes.add(name_of(how));
        let after = match (how, how.policy()) {
            (Ending::PowerLoss { seed, .. }, Some(policy)) => {
                self.promise = Promise::Durable;
                self.fs.crash(u64::from(seed), policy)
            }
            _ => self.fs.kill(),
        };
        self.let_go_of_readers();
        self.store = None;
        self.secrecy.ended();
        self.fs = after;
        self.hits_before = 0;
        self.armed = None;
        self.faults_until = None;
        self.poisoned = None;
        self.search_files()
    }
}

const fn name_of(how: Ending) -> &'static str {
    match how {
        Ending::Kill => "process killed",
        Ending::PowerLoss { keep_percent, .. } => match keep_percent {
            0 => "power lost, nothing unsynced kept",
            1..100 => "power lost, some of the unsynced kept",
            _ => "power lost, all of the unsynced kept",
        },
    }
}

/// Everything that a store holds, read forwards.
pub(super) fn everything(store: &Lsm) -> CoreResult<Found> {
    let mut found = Found {
        latest: latest_of(store),
        keyspaces: Vec::new(),
    };
    for info in store.keyspaces()? {
        let scan = store.scan(info.id, vault_core::KeyRange::all())?;
        let entries: CoreResult<Vec<_>> = scan
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect();
        found.keyspaces.push(FoundKeyspace {
            id: info.id.0,
            name: info.name,
            options: info.options,
            entries: entries?,
        });
    }
    Ok(found)
}
