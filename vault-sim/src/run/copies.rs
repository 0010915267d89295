//! Checkpoints: each is a store of its own, with an account of its own.

use vault_core::{Engine, Result as CoreResult, WriteOptions};
use vault_lsm::{Lsm, OpenMode};

use super::change::recorded;
use super::{Copy, Simulation, Step, opening};
use crate::oracle::{Outcome, Promise};
use crate::plan::{Change, batch};

impl Simulation {
    /// Opens every checkpoint and compares it.
    pub(super) fn check_copies(&mut self) -> Step {
        for which in (0..self.copies.len()).rev() {
            self.check_copy(which, None)?;
        }
        Ok(())
    }

    /// Opens a checkpoint and compares it; writes to it, if there are changes for it. One that was interrupted may be refused,
    /// but never differ. One to which a write failed is left alone from then on.
    pub(super) fn check_copy(&mut self, which: usize, changes: Option<&Vec<Change>>) -> Step {
        if which >= self.copies.len() {
            return Ok(());
        }
        let mut copy = self.copies.remove(which);
        // What goes wrong with the copy says nothing of the store.
        let poisoned = self.poisoned;
        let intact = self.visit_copy(&mut copy, changes);
        self.poisoned = poisoned;
        if intact.map_err(|problem| format!("{}: {problem}", copy.path))? {
            self.copies.insert(which, copy);
        }
        Ok(())
    }

    /// Whether it is known what is in the copy.
    fn visit_copy(&mut self, copy: &mut Copy, changes: Option<&Vec<Change>>) -> Step<bool> {
        let options = self.options_with(copy.secret);
        let changes = changes.filter(|_| copy.complete);
        let opened = match changes {
            Some(_) => Lsm::open(&copy.path, options.mode(OpenMode::MustExist)),
            None => Lsm::open_read_only(&copy.path, &options),
        };
        let store = match opened {
            Ok(store) => store,
            Err(error) if !copy.complete => {
                self.note(&format!("an interrupted checkpoint is refused: {error}"));
                self.secrecy.overhear_error("open checkpoint", &error);
                return Ok(true);
            }
            Err(error) => return self.excuse("open checkpoint", &error).map(|()| true),
        };
        let (latest, due) = (super::latest_of(&store), copy.moment.sequence);
        if latest != due {
            return Err(format!("it is at {latest}, and should be at {due}"));
        }
        let moment = copy.moment.clone();
        self.with_account(copy, |simulation| {
            simulation.check_reader("the copy", &store, &moment)
        })?;
        match changes {
            Some(changes) => self.write_to_copy(copy, &store, changes),
            None => Ok(true),
        }
    }

    /// Does something by the copy's account instead of the store's.
    fn with_account(&mut self, copy: &mut Copy, act: impl FnOnce(&mut Self) -> Step) -> Step {
        std::mem::swap(&mut self.oracle, &mut copy.account);
        let outcome = act(self);
        std::mem::swap(&mut self.oracle, &mut copy.account);
        outcome
    }

    fn write_to_copy(&mut self, copy: &mut Copy, store: &Lsm, changes: &[Change]) -> Step<bool> {
        let now = self.clock_now();
        let batch = batch(changes, now, &|slot| {
            copy.account.find(&slot.keyspace_name())
        });
        let written = store.write(&batch, &WriteOptions::SYNC);
        if self.accept("write to a copy", written)?.is_none() {
            return Ok(false);
        }
        let operations = recorded(&batch);
        copy.account.commit(&operations, false, Outcome::Durable);
        copy.moment = copy.account.moment();
        let read = || -> CoreResult<_> {
            store.flush(None)?;
            let found = opening::everything(store)?;
            store.close().map(|()| found)
        };
        let Some(found) = self.accept("read a copy", read())? else {
            return Ok(false);
        };
        let times = self.times();
        let mut account = copy.account.clone();
        account.recovered(&found, Promise::Acknowledged, times)?;
        Ok(true)
    }
}
