//! Rotations, other secrets, locking.

use std::ops::ControlFlow;

use vault_core::{
    Durability, Engine, Error, KeyRange, KeyspaceId, KeyspaceOptions, Reader, Result as CoreResult,
    WriteBatch, WriteOptions,
};

use super::{Secret, canary, is_of_another_secret};
use crate::plan::{Key, Operation, Slot};
use crate::run::{Simulation, Step};

impl Simulation {
    pub(in crate::run) fn key_event(&mut self, operation: &Operation) -> Step {
        if !self.secrecy.is_encrypted() {
            return self.refuse_keys();
        }
        match operation {
            Operation::Rotate => self.rotate(),
            Operation::FinishRotation => self.finish_rotation(),
            Operation::ChangeSecret { passphrase } => self.change_secret(*passphrase),
            Operation::Lock { lasts } => self.lock(*lasts),
            _ => unreachable!("the rest needs no keys"),
        }
    }

    /// A plain store says that it has no keys.
    fn refuse_keys(&self) -> Step {
        match self.store().lock() {
            Err(Error::Unsupported { .. }) => Ok(()),
            other => Err(format!("locking a plain store gave {other:?}")),
        }
    }

    fn rotate(&mut self) -> Step {
        let before = self.store().key_rotation();
        let before = before.map_err(|error| format!("key_rotation: {error}"))?;
        let begun = self.store().rotate_keys();
        if let Some(epoch) = self.accept("rotate_keys", begun)?
            && epoch <= before.epoch
        {
            let before = before.epoch;
            return Err(format!("epoch {epoch} was begun after {before}"));
        }
        Ok(())
    }

    /// Carries a rotation to its end: then nothing is left of older keys that no reader holds.
    fn finish_rotation(&mut self) -> Step {
        let finished = self.store().finish_rotation(|_| ControlFlow::Continue(()));
        let Some(status) = self.accept("finish_rotation", finished)? else {
            return Ok(());
        };
        self.note(&format!("{status:?}"));
        let is_read = !self.snapshots.is_empty() || !self.cursors.is_empty();
        if !self.is_calm() || is_read {
            return Ok(());
        }
        let keyring = self.secrecy.keyring().map(|keyring| keyring.info());
        let epochs = keyring.as_ref().and_then(|info| info.epochs);
        if status.tables_left != 0 || status.held_by_snapshots != 0 || epochs != Some(1) {
            return Err(format!(
                "a rotation was finished, and {epochs:?} epochs have keys: {status:?}"
            ));
        }
        Ok(())
    }

    fn change_secret(&mut self, passphrase: bool) -> Step {
        let Some(keyring) = self.secrecy.keyring() else {
            return Err("an open store has no keyring".to_owned());
        };
        let new = Secret {
            number: self.secrecy.secrets,
            passphrase,
        };
        self.secrecy.secrets += 1;
        let changed = keyring.change_secret(&*new.source(), new.kdf());
        if self.note_doubt(&changed) {
            self.secrecy.other = Some(new);
        }
        if self
            .accept_of_keyring("change the secret", changed)?
            .is_none()
        {
            return Ok(());
        }
        let old = std::mem::replace(&mut self.secrecy.secret, new);
        let noted = self.store().keys_changed();
        self.accept("keys changed", noted)?;
        if !self.is_calm() {
            return Ok(());
        }
        match keyring.check_secret(&*old.source()) {
            Err(error) if is_of_another_secret(&error) => {}
            other => return Err(format!("the old secret is answered with {other:?}")),
        }
        let checked = keyring.check_secret(&*new.source());
        checked.map_err(|error| format!("the new secret does not open the keyring: {error}"))
    }

    /// Whether a change of the keyring ended with the outcome unknown.
    fn note_doubt<T>(&mut self, outcome: &CoreResult<T>) -> bool {
        let unknown = matches!(outcome, Err(Error::Poisoned { .. }));
        self.secrecy.keys_in_doubt |= unknown;
        unknown
    }

    /// As [`Simulation::accept`], for a call past the engine: it is the keyring then that takes no more changes, and the engine
    /// that goes on.
    fn accept_of_keyring<T>(&mut self, what: &str, outcome: CoreResult<T>) -> Step<Option<T>> {
        let poisoned = self.poisoned;
        let accepted = self.accept(what, outcome);
        self.poisoned = poisoned;
        accepted
    }

    fn lock(&mut self, lasts: u8) -> Step {
        let locked = self.store().lock();
        if !self.crash_is_due() {
            locked.map_err(|error| format!("locking failed: {error}"))?;
            let wiped = self.secrecy.keyring().is_none_or(|ring| ring.is_locked());
            if !self.store().is_locked() || !wiped {
                return Err("a store that was locked is not".to_owned());
            }
        }
        self.secrecy.locked_until = Some(self.index + usize::from(lasts));
        self.note("locked");
        self.check_refused()
    }

    /// Unlocks the store when it is time to.
    pub(in crate::run) fn unlock_in_time(&mut self) -> Step {
        match self.secrecy.locked_until {
            Some(until) if self.index >= until && self.store.is_some() => self.unlock(),
            _ => Ok(()),
        }
    }

    /// Takes the keys up again, after a try with a secret that is not the one.
    pub(in crate::run) fn unlock(&mut self) -> Step {
        let Some(keyring) = self.secrecy.keyring() else {
            return Err("a locked store has no keyring".to_owned());
        };
        let wrong = Secret {
            number: u32::MAX,
            passphrase: false,
        };
        match keyring.unlock(&*wrong.source()) {
            Err(error) if is_of_another_secret(&error) => {}
            Err(error) => self.excuse("unlock with the wrong secret", &error)?,
            Ok(()) => return Err("a wrong secret unlocks the store".to_owned()),
        }
        match self.store().resume() {
            Err(Error::Locked) => {}
            other => return Err(format!("resuming without keys gave {other:?}")),
        }
        let unlocked = keyring.unlock(&*self.secrecy.secret.source());
        if self.accept_of_keyring("unlock", unlocked)?.is_none() {
            return Ok(());
        }
        let resumed = self.store().resume();
        self.secrecy.locked_until = None;
        if self.store().is_locked() {
            return Err(format!("resuming with keys gave {resumed:?}"));
        }
        // It goes on with a drop that the lock has interrupted, which may fail as drops do.
        self.accept("resume", resumed)?;
        self.forget_erased();
        self.note("unlocked");
        if self.is_calm() {
            self.check_everything()?;
        }
        Ok(())
    }

    /// Readers from before a drop can read on only until the keys are wiped: there are none of that keyspace any more.
    fn forget_erased(&mut self) {
        let present = self.oracle.moment().keyspaces;
        for held in &mut self.snapshots {
            held.moment.keyspaces.retain(|id| present.contains(id));
        }
        self.cursors.retain(|held| present.contains(&held.keyspace));
    }

    /// Everything that can be asked of a locked store is refused, and what it goes on telling names nothing.
    pub(in crate::run) fn check_refused(&mut self) -> Step {
        if self.store.is_none() || self.crash_is_due() {
            return Ok(());
        }
        for (what, answer) in self.answers_while_locked() {
            match answer {
                Err(Error::Locked) => {}
                Err(Error::Poisoned { .. }) if self.poisoned.is_some() => {}
                Err(error) => return Err(format!("{what} of a locked store: {error}")),
                Ok(()) => return Err(format!("{what} of a locked store succeeded")),
            }
        }
        for held in &mut self.cursors {
            let moved = held.cursor.next();
            if !matches!(moved, Err(Error::Locked)) || held.cursor.entry().is_some() {
                return Err(format!("a cursor of a locked store moved: {moved:?}"));
            }
            held.at = None;
        }
        let stats = self.store().stats();
        match stats.map(|stats| canary::find_in_text(&stats)) {
            Ok(None) => Ok(()),
            Ok(Some(told)) => Err(format!(
                "statistics of a locked store name something: {told}"
            )),
            Err(error) => Err(format!("statistics of a locked store: {error}")),
        }
    }

    fn answers_while_locked(&self) -> Vec<(&'static str, CoreResult<()>)> {
        let store = self.store();
        let id = self.oracle.present().next().map_or(u32::MAX, |(id, ..)| id);
        let (ks, key) = (KeyspaceId(id), Key(9).bytes());
        let mut batch = WriteBatch::new();
        batch.put(ks, &key, b"12345678");
        let name = Slot(0).keyspace_name();
        let write = |durability| WriteOptions {
            durability: Some(durability),
        };
        let (os, sync) = (write(Durability::Os), write(Durability::Sync));
        let all = KeyRange::all;
        let mut answers = vec![
            ("get", store.get(ks, &key).map(drop)),
            ("multi_get", store.multi_get(ks, &[&key]).map(drop)),
            ("scan", store.scan(ks, all()).map(drop)),
            ("cursor", store.cursor(ks, all()).map(drop)),
            ("snapshot", store.snapshot().map(drop)),
            ("keyspaces", store.keyspaces().map(drop)),
            ("write", store.write(&batch, &os).map(drop)),
            ("write with sync", store.write(&batch, &sync).map(drop)),
            ("try_write", store.try_write(&batch, &os).map(drop)),
            (
                "compare_and_set",
                store.compare_and_set(ks, &key, None, None, &os).map(drop),
            ),
            ("ingest", store.ingest(ks, [(&key, b"12345678")]).map(drop)),
            ("sync", store.sync()),
            ("flush", store.flush(None)),
            (
                "compact",
                store
                    .compact(ks, all(), &mut |_| ControlFlow::Continue(()))
                    .map(drop),
            ),
            ("checkpoint", store.checkpoint("/never").map(drop)),
            ("explain_space", store.explain_space().map(drop)),
            (
                "create_keyspace",
                store
                    .create_keyspace(&name, &KeyspaceOptions::default())
                    .map(drop),
            ),
            ("drop_keyspace", store.drop_keyspace(ks)),
            ("keys_changed", store.keys_changed()),
        ];
        let held = self.snapshots.iter();
        answers.extend(held.map(|held| {
            let id = held.moment.keyspaces.first().copied();
            let ks = KeyspaceId(id.unwrap_or(u32::MAX));
            ("get of a snapshot", held.snapshot.get(ks, &key).map(drop))
        }));
        answers
    }
}
