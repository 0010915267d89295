//! What concerns the store as a whole, and the world around it.

use std::ops::ControlFlow;

use vault_core::clock::Clock;
use vault_core::vfs::Fault;
use vault_core::{
    Engine, Error, KeyRange, KeyspaceId, Result as CoreResult, Timestamp, WriteOptions,
};
use vault_lsm::Lsm;

use super::{Copy, DIRECTORY, HELD_MAX, Simulation, Step, opening};
use crate::oracle::Promise;
use crate::plan::{ClockMove, Operation, Range, Slot, Trouble};

/// How far the clock goes: expiries are computed from it, and must not pass the year 9999.
const CLOCK_MAX: u64 = 100_000_000_000_000;

impl Simulation {
    pub(super) fn event(&mut self, operation: &Operation) -> Step {
        match operation {
            Operation::Sync => {
                if self.durable_call("sync", Engine::sync)? {
                    self.oracle.all_durable();
                }
                Ok(())
            }
            Operation::Flush(slot) => self.flush(*slot),
            Operation::Compact {
                slot,
                range,
                cancel_after,
            } => self.compact(*slot, *range, *cancel_after),
            Operation::Background(steps) => self.background(*steps),
            Operation::Checkpoint => self.checkpoint(),
            Operation::OpenCheckpoint {
                which,
                for_writing,
                changes,
            } => {
                let which = usize::from(*which) % self.copies.len().max(1);
                self.check_copy(which, for_writing.then_some(changes))
            }
            Operation::Rotate
            | Operation::FinishRotation
            | Operation::ChangeSecret { .. }
            | Operation::Lock { .. } => self.key_event(operation),
            Operation::BackUp => self.back_up(),
            Operation::PutBack { go_on } => self.put_back(*go_on),
            Operation::OpenReadOnly => self.open_read_only(),
            Operation::Reopen(settings) => self.reopen(settings.as_ref()),
            Operation::Crash {
                after,
                how,
                recovery,
            } => self.arm(*after, *how, recovery),
            Operation::Inject(trouble) => {
                self.inject(trouble);
                Ok(())
            }
            Operation::ClearFaults => {
                self.clear_faults();
                Ok(())
            }
            Operation::LimitDisk { free_bytes, lasts } => {
                let limit = self.fs.bytes_used() + u64::from(*free_bytes);
                self.fs.set_capacity(Some(limit));
                self.space_until = Some(self.index + usize::from(*lasts).max(1));
                self.report.faults.add("disk limited");
                Ok(())
            }
            Operation::Clock(moved) => {
                self.move_clock(*moved);
                Ok(())
            }
            _ => unreachable!("the rest are reads and changes"),
        }
    }

    /// A call that a poisoned handle has to refuse; whether it succeeded.
    fn durable_call(
        &mut self,
        what: &str,
        call: impl FnOnce(&Lsm) -> CoreResult<()>,
    ) -> Step<bool> {
        let was_poisoned = self.poisoned.is_some();
        let outcome = call(self.store());
        if outcome.is_ok() && was_poisoned {
            return Err(format!("{what} succeeded on a poisoned handle"));
        }
        Ok(self.accept(what, outcome)?.is_some())
    }

    fn flush(&mut self, slot: Option<Slot>) -> Step {
        let Some(slot) = slot else {
            if self.durable_call("flush", |store| store.flush(None))? {
                self.oracle.all_durable();
            }
            return Ok(());
        };
        let Some((id, _)) = self.keyspace(slot) else {
            return Ok(());
        };
        if self.durable_call("flush", |store| store.flush(Some(KeyspaceId(id))))? {
            self.oracle.flushed(id);
        }
        Ok(())
    }

    fn compact(&mut self, slot: Slot, range: Range, cancel_after: Option<u8>) -> Step {
        let Some((id, _)) = self.keyspace(slot) else {
            return Ok(());
        };
        let range: KeyRange = range.keys();
        if range.check_order().is_err() {
            return Ok(());
        }
        let mut left = cancel_after;
        let mut cancelled = false;
        let outcome = self
            .store()
            .compact(KeyspaceId(id), range, &mut |_| match &mut left {
                Some(0) => {
                    cancelled = true;
                    ControlFlow::Break(())
                }
                Some(more) => {
                    *more -= 1;
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Continue(()),
            });
        match outcome {
            Err(Error::Cancelled) if cancelled => self.note("cancelled"),
            Ok(_) if cancelled => return Err("a compaction did not stop when told to".to_owned()),
            outcome => {
                if let Some(done) = self.accept("compact", outcome)? {
                    self.note(&format!("{done:?}"));
                    // It began with a flush.
                    self.oracle.flushed(id);
                }
            }
        }
        Ok(())
    }

    fn background(&mut self, steps: u8) -> Step {
        for _ in 0..steps {
            let outcome = self.store().background_step();
            match self.accept("background step", outcome)? {
                Some(true) => {}
                Some(false) | None => break,
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Step {
        if self.copies.len() >= HELD_MAX {
            self.copies.remove(0);
        }
        self.copies_made += 1;
        let path = format!("/copy{}", self.copies_made);
        let moment = self.oracle.moment();
        let outcome = self.store().checkpoint(&path);
        if let Ok(made) = &outcome
            && made.sequence != moment.sequence
        {
            let (made, due) = (made.sequence, moment.sequence);
            return Err(format!("a checkpoint is of {made}, and was made at {due}"));
        }
        let complete = self.accept("checkpoint", outcome)?.is_some();
        if complete {
            self.oracle.all_durable();
        }
        self.copies.push(Copy {
            number: self.copies_made,
            path,
            moment,
            account: self.oracle.clone(),
            secret: self.secrecy.secret,
            complete,
        });
        Ok(())
    }

    /// A second handle, beside the writer: it shows what the writer shows.
    fn open_read_only(&mut self) -> Step {
        let opened = Lsm::open_read_only(DIRECTORY, &self.options_with(self.secrecy.secret));
        let Some(other) = self.accept("open read-only", opened)? else {
            return Ok(());
        };
        let Some((id, _)) = self
            .oracle
            .present()
            .next()
            .map(|(id, name, _)| (id, name.len()))
        else {
            return Ok(());
        };
        let refused = other.put(KeyspaceId(id), b"k", b"v", &WriteOptions::OS);
        if !matches!(refused, Err(Error::ReadOnly)) {
            return Err(format!(
                "a write through a read-only handle gave {refused:?}"
            ));
        }
        let read = opening::everything(&other);
        let Some(found) = self.accept("read read-only", read)? else {
            return Ok(());
        };
        // The account goes on as it is: this only looks.
        let times = self.times();
        let mut account = self.oracle.clone();
        account
            .recovered(&found, Promise::Acknowledged, times)
            .map_err(|problem| format!("read-only beside the writer: {problem}"))
    }

    fn inject(&mut self, trouble: &Trouble) {
        let mut fault = Fault::new(trouble.class, trouble.mishap.kind())
            .after(u64::from(trouble.after))
            .on_path(trouble.files);
        if trouble.persists {
            fault = fault.sticky();
        }
        self.fs.inject(fault);
        let until = self.index + usize::from(trouble.lasts).max(1);
        self.faults_until = Some(self.faults_until.map_or(until, |set| set.max(until)));
        self.faults_since_opening = true;
        let (mishap, class) = (trouble.mishap, trouble.class);
        self.report.faults.add(format!("{mishap:?} in {class:?}"));
    }

    pub(super) fn clear_faults(&mut self) {
        self.fs.clear_faults();
        self.faults_until = None;
    }

    /// There is space again: service resumes, with nothing left behind.
    pub(super) fn space_is_back(&mut self) -> Step {
        self.fs.set_capacity(None);
        if self.space_until.take().is_none() || !self.is_calm() {
            return Ok(());
        }
        let outcome = self.store().flush(None);
        if self.accept("flush with space again", outcome)?.is_some() {
            self.oracle.all_durable();
        }
        Ok(())
    }

    fn move_clock(&mut self, moved: ClockMove) {
        // What merges before the jump goes by the time before it.
        self.times();
        let now = self.clock.now().0;
        let next = match moved {
            ClockMove::Forward(by) => now.saturating_add(by).min(CLOCK_MAX),
            ClockMove::Back(by) => now.saturating_sub(by).max(1),
        };
        self.clock.set(Timestamp(next));
        let times = self.times();
        self.note(&format!("{times:?}"));
    }
}
