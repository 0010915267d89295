//! Writes, and what changes keyspaces.

use vault_core::batch::OperationKind;
use vault_core::limits::KEY_BYTES_MAX;
use vault_core::{
    CasOutcome, Durability, Engine, Error, KeyspaceId, KeyspaceOptions, Reader,
    Result as CoreResult, SequenceNumber, WriteBatch, WriteOptions,
};

use super::{Simulation, Step, latest_of};
use crate::oracle::{Effect, Id, Outcome, Recorded, describe};
use crate::plan::{
    CANARY, Change, Expectation, Key, Misuse, Operation, Slot, Value, batch, ingest_pairs,
};

/// Keys of a batch that are looked up after it.
const LOOKED_UP_MAX: usize = 4;

impl Simulation {
    pub(super) fn change(&mut self, operation: &Operation) -> Step {
        match operation {
            Operation::Write {
                changes,
                durability,
            } => self.write(changes, *durability, false),
            Operation::TryWrite { changes } => self.write(changes, None, true),
            Operation::CompareAndSet {
                slot,
                key,
                expected,
                new,
                sync,
            } => self.compare_and_set(*slot, *key, *expected, *new, *sync),
            Operation::Ingest {
                slot,
                first,
                step,
                count,
                value,
            } => {
                let Some((id, options)) = self.keyspace(*slot) else {
                    return Ok(());
                };
                let pairs = ingest_pairs(*first, *step, *count, *value, options);
                self.ingest(id, &pairs)
            }
            Operation::Misuse(misuse) => self.misuse(*misuse),
            Operation::CreateKeyspace(slot, options) => self.create_keyspace(*slot, options),
            Operation::DropKeyspace(slot) => self.drop_keyspace(*slot),
            _ => unreachable!("other operations are no changes"),
        }
    }

    /// The keyspace in a slot.
    pub(super) fn keyspace(&self, slot: Slot) -> Option<(Id, &KeyspaceOptions)> {
        self.oracle.find(&slot.keyspace_name())
    }

    fn write(&mut self, changes: &[Change], durability: Option<Durability>, trying: bool) -> Step {
        let batch = batch(changes, self.clock_now(), &|slot| self.keyspace(slot));
        let options = WriteOptions { durability };
        let recorded = recorded(&batch);
        let sync = durability.unwrap_or(self.settings.durability) == Durability::Sync;
        let what = if trying { "try_write" } else { "write" };
        self.commit(what, &recorded, sync, |store| match trying {
            true => store.try_write(&batch, &options),
            false => store.write(&batch, &options),
        })?;
        self.look_up(&recorded)
    }

    /// Makes a commit by this call, and takes note of what became of it.
    fn commit(
        &mut self,
        what: &str,
        operations: &[Recorded],
        sync: bool,
        call: impl FnOnce(&vault_lsm::Lsm) -> CoreResult<SequenceNumber>,
    ) -> Step<Option<SequenceNumber>> {
        let was_poisoned = self.poisoned.is_some();
        let before = latest_of(self.store());
        let called = call(self.store());
        let after = latest_of(self.store());
        let ingest = what == "ingest";
        let advance = if ingest {
            operations.len().min(1)
        } else {
            operations.len()
        } as u64;
        let written = after != before;
        if written && after != before + advance {
            return Err(format!(
                "{what} of {advance} operations moved the sequence number from {before} to {after}"
            ));
        }
        match called {
            Ok(sequence) => {
                // An empty batch asks nothing of a store, and a poisoned one may answer it.
                if was_poisoned && !self.crash_is_due() {
                    return Err(format!("{what} succeeded on a poisoned handle"));
                }
                if sequence != after || after != before + advance {
                    return Err(format!(
                        "{what} gave {sequence}, the latest is {after}, expected {}",
                        before + advance
                    ));
                }
                let outcome = if sync {
                    Outcome::Durable
                } else {
                    Outcome::Acknowledged
                };
                self.oracle.commit(operations, ingest, outcome);
                self.note(&format!("{what}: {sequence}"));
                Ok(Some(sequence))
            }
            Err(error) => {
                let unknown = matches!(error, Error::Poisoned { .. }) && !was_poisoned;
                self.excuse_write(what, &error)?;
                match (unknown, written) {
                    (true, true) => self.oracle.commit(operations, ingest, Outcome::Visible),
                    (true, false) => self.oracle.commit(operations, ingest, Outcome::Doubtful),
                    (false, false) => {}
                    (false, true) => {
                        return Err(format!(
                            "{what} failed with `{error}`, and was written nonetheless"
                        ));
                    }
                }
                Ok(None)
            }
        }
    }

    fn excuse_write(&mut self, what: &str, error: &Error) -> Step {
        if what == "try_write" && matches!(error, Error::Busy { .. }) {
            self.note("busy");
            self.secrecy.overhear_error(what, error);
            self.report.errors.add("Busy");
            return Ok(());
        }
        self.excuse(what, error)
    }

    /// Looks up a few of the keys that were just written.
    fn look_up(&mut self, operations: &[Recorded]) -> Step {
        for operation in operations.iter().take(LOOKED_UP_MAX) {
            let (Recorded::One { keyspace, key, .. }
            | Recorded::RangeDelete {
                keyspace,
                start: key,
                ..
            }) = operation;
            if key.len() <= KEY_BYTES_MAX {
                self.check_key(*keyspace, key)?;
            }
        }
        Ok(())
    }

    fn compare_and_set(
        &mut self,
        slot: Slot,
        key: Key,
        expected: Expectation,
        new: Option<Value>,
        sync: bool,
    ) -> Step {
        let Some((id, options)) = self.keyspace(slot) else {
            return Ok(());
        };
        let (ks, key) = (KeyspaceId(id), key.bytes());
        let new = new.map(|value| value.for_keyspace(options));
        let expected = match expected {
            Expectation::Absent => Some(None),
            Expectation::Value(value) => Some(Some(value.for_keyspace(options))),
            Expectation::Current => None,
        };
        let got = self.store().get(ks, &key);
        let Some(current) = self.accept("get", got)? else {
            return Ok(());
        };
        let current = current.map(|value| value.to_vec());
        let expected = expected.unwrap_or_else(|| current.clone());
        let options = if sync {
            WriteOptions::SYNC
        } else {
            WriteOptions::OS
        };
        let matches = expected == current;
        let operation = Recorded::One {
            keyspace: id,
            key: key.clone(),
            effect: new.clone().map_or(Effect::Delete, Effect::Put),
            expiry: None,
        };
        let operations = if matches { vec![operation] } else { Vec::new() };
        let mut mismatch = None;
        self.commit("compare_and_set", &operations, sync && matches, |store| {
            let (expected, new) = (expected.as_deref(), new.as_deref());
            Ok(
                match store.compare_and_set(ks, &key, expected, new, &options)? {
                    CasOutcome::Swapped(sequence) => sequence,
                    CasOutcome::Mismatch(found) => {
                        mismatch = Some(found);
                        latest_of(store)
                    }
                },
            )
        })?;
        if let Some(found) = mismatch
            && (matches || found.as_deref() != current.as_deref())
        {
            return Err(format!(
                "compare_and_set expected {}, and says that it found {}, where a lookup gave {}",
                describe(expected.as_deref()),
                describe(found.as_deref()),
                describe(current.as_deref())
            ));
        }
        self.check_key(id, &key)
    }

    fn ingest(&mut self, id: Id, pairs: &[(Vec<u8>, Vec<u8>)]) -> Step {
        let operations: Vec<Recorded> = pairs
            .iter()
            .map(|(key, value)| Recorded::One {
                keyspace: id,
                key: key.clone(),
                effect: Effect::Put(value.clone()),
                expiry: None,
            })
            .collect();
        let durable = !operations.is_empty();
        self.commit("ingest", &operations, durable, |store| {
            let pairs = pairs.iter().map(|(key, value)| (key, value));
            store
                .ingest(KeyspaceId(id), pairs)
                .map(|outcome| outcome.sequence)
        })?;
        self.look_up(&operations)
    }

    /// What is refused changes nothing.
    fn misuse(&mut self, misuse: Misuse) -> Step {
        let Some((id, _)) = self
            .oracle
            .present()
            .next()
            .map(|(id, name, _)| (id, name.len()))
        else {
            return Ok(());
        };
        let ks = KeyspaceId(id);
        let before = latest_of(self.store());
        let mut batch = WriteBatch::new();
        // What is refused is recognised where it must not be: in the files, in the error of an encrypted store.
        let [a, b] = [b"m-a", b"m-b"].map(|key| [CANARY, &key[..]].concat());
        let long = [&a[..], &vec![b'k'; KEY_BYTES_MAX]].concat();
        // A good operation in front: nothing of it may be written either.
        batch.put(ks, &[CANARY, &b"misuse"[..]].concat(), b"12345678");
        match misuse {
            Misuse::InvertedRange => batch.delete_range(ks, &b, &a),
            Misuse::LongKey => batch.put(ks, &long, b"12345678"),
            Misuse::PastExpiry => batch.put_until(ks, &a, b"12345678", self.clock_now()),
            Misuse::UnknownKeyspace => batch.put(KeyspaceId(u32::MAX), &a, b"12345678"),
            Misuse::UnsortedIngest => &mut batch,
        };
        let outcome = match misuse {
            Misuse::UnsortedIngest => {
                let pairs = [(&b, b"12345678"), (&a, b"12345678")];
                self.store()
                    .ingest(ks, pairs)
                    .map(|outcome| outcome.sequence)
            }
            _ => self.store().write(&batch, &WriteOptions::OS),
        };
        let Err(error) = outcome else {
            return Err(format!("{misuse:?} was accepted"));
        };
        self.secrecy.overhear_error("misuse", &error);
        if error.kind() != vault_core::ErrorKind::Input {
            self.excuse("misuse", &error)?;
        }
        self.note(&format!("refused: {error}"));
        if latest_of(self.store()) != before {
            return Err(format!(
                "{misuse:?} was refused, and moved the sequence number"
            ));
        }
        Ok(())
    }

    pub(super) fn create_keyspace(&mut self, slot: Slot, options: &KeyspaceOptions) -> Step {
        let name = slot.keyspace_name();
        let existing = self
            .oracle
            .find(&name)
            .map(|(id, options)| (id, options.clone()));
        let mut options = options.clone();
        if let Some((_, stored)) = &existing {
            options.merge_operator.clone_from(&stored.merge_operator);
            if options.policy.name() != stored.policy.name() {
                options.policy = stored.policy;
            }
        }
        let was_poisoned = self.poisoned.is_some();
        let outcome = self.store().create_keyspace(&name, &options);
        let unknown = matches!(outcome, Err(Error::Poisoned { .. })) && !was_poisoned;
        let unchanged = existing
            .as_ref()
            .is_some_and(|(_, stored)| *stored == options);
        let outcome = match outcome {
            Ok(_) if was_poisoned && !unchanged && !self.crash_is_due() => {
                return Err("create_keyspace succeeded on a poisoned handle".to_owned());
            }
            outcome => self.accept("create_keyspace", outcome)?,
        };
        match (outcome, existing) {
            (Some(id), Some((known, _))) if id.0 == known => {
                self.oracle.altered(known, &options, false);
            }
            (Some(id), Some((known, _))) => {
                return Err(format!(
                    "keyspace {name} has id {known}, and was opened as {id}"
                ));
            }
            (Some(id), None) => self.oracle.created(id.0, &name, &options)?,
            (None, Some((known, _))) if unknown => {
                self.oracle.altered(known, &options, true);
                self.keyspaces_in_doubt = true;
            }
            (None, None) if unknown => {
                self.oracle.creation_in_doubt(&name, &options);
                self.keyspaces_in_doubt = true;
            }
            (None, _) => {}
        }
        Ok(())
    }

    fn drop_keyspace(&mut self, slot: Slot) -> Step {
        let Some((id, _)) = self.keyspace(slot) else {
            return Ok(());
        };
        let was_poisoned = self.poisoned.is_some();
        let outcome = self.store().drop_keyspace(KeyspaceId(id));
        let unknown = matches!(outcome, Err(Error::Poisoned { .. })) && !was_poisoned;
        match outcome {
            Ok(()) if was_poisoned => {
                return Err("drop_keyspace succeeded on a poisoned handle".to_owned());
            }
            outcome => {
                if self.accept("drop_keyspace", outcome)?.is_some() {
                    self.oracle.dropped(id);
                    self.secrecy.unerased = false;
                    self.check_unknown(id)?;
                    return if self.is_calm() {
                        self.check_erased()
                    } else {
                        Ok(())
                    };
                }
            }
        }
        if unknown {
            self.oracle.dropping_in_doubt(id);
            self.keyspaces_in_doubt = true;
        } else if self.secrecy.is_encrypted() && !self.is_listed(id)? {
            // It is gone for readers, and was not erased: the next opening does that.
            self.oracle.dropped(id);
            self.secrecy.unerased = true;
            self.note("dropped, not erased");
        }
        Ok(())
    }

    fn is_listed(&self, id: Id) -> Step<bool> {
        let listed = self.store().keyspaces();
        let listed = listed.map_err(|error| format!("keyspaces: {error}"))?;
        Ok(listed.iter().any(|info| info.id.0 == id))
    }
}

/// The operations of a batch as the oracle takes them.
pub(super) fn recorded(batch: &WriteBatch) -> Vec<Recorded> {
    let one = |operation: vault_core::Operation<'_>| {
        let keyspace = operation.keyspace.0;
        let (key, value) = (operation.key.to_vec(), operation.value.to_vec());
        let effect = match operation.kind {
            OperationKind::Put => Effect::Put(value),
            OperationKind::Delete => Effect::Delete,
            OperationKind::Merge => Effect::Merge(value),
            OperationKind::RangeDelete => {
                return Recorded::RangeDelete {
                    keyspace,
                    start: key,
                    end: value,
                };
            }
        };
        Recorded::One {
            keyspace,
            key,
            effect,
            expiry: operation.expiry,
        }
    };
    batch.iter().map(one).collect()
}
