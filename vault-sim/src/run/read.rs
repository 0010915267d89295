//! Lookups, scans, snapshots and cursors.

use std::sync::Arc;

use vault_core::{Engine, KeyRange, KeyspaceId, Reader, Result as CoreResult};

use super::{HELD_MAX, HeldCursor, HeldSnapshot, Simulation, Step};
use crate::oracle::{Answers, Entry, Id, check_answer, compare_entries, describe};
use crate::plan::{Key, Move, Operation, Range, Slot};

impl Simulation {
    pub(super) fn read(&mut self, operation: &Operation) -> Step {
        match operation {
            Operation::Get(slot, key) => match self.keyspace(*slot) {
                Some((id, _)) => self.check_key(id, &key.bytes()),
                None => Ok(()),
            },
            Operation::MultiGet(slot, keys) => self.multi_get(*slot, keys),
            Operation::Scan(slot, range, ends) => self.scan(*slot, *range, *ends),
            Operation::TakeSnapshot => self.take_snapshot(),
            Operation::ReadSnapshot {
                which,
                slot,
                key,
                range,
            } => self.read_snapshot(*which, *slot, *key, *range),
            Operation::DropSnapshot(which) => {
                if !self.snapshots.is_empty() {
                    let which = usize::from(*which) % self.snapshots.len();
                    self.snapshots.remove(which);
                }
                Ok(())
            }
            Operation::OpenCursor {
                slot,
                range,
                of_snapshot,
            } => self.open_cursor(*slot, *range, *of_snapshot),
            Operation::MoveCursor(which, moves) => self.move_cursor(*which, moves),
            Operation::CloseCursor(which) => {
                if !self.cursors.is_empty() {
                    let which = usize::from(*which) % self.cursors.len();
                    self.cursors.remove(which);
                }
                Ok(())
            }
            _ => self.check_everything(),
        }
    }

    fn multi_get(&mut self, slot: Slot, keys: &[Key]) -> Step {
        let Some((id, _)) = self.keyspace(slot) else {
            return Ok(());
        };
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.bytes()).collect();
        let wanted: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let got = self.store().multi_get(KeyspaceId(id), &wanted);
        let Some(found) = self.accept("multi_get", got)? else {
            return Ok(());
        };
        if found.len() != keys.len() {
            return Err(format!(
                "multi_get of {} keys gave {}",
                keys.len(),
                found.len()
            ));
        }
        let (sequence, times) = (self.oracle.latest(), self.times());
        for (key, found) in keys.iter().zip(found) {
            self.digest.add(found.as_deref().unwrap_or(b"absent"));
            let history = self.oracle.history(id);
            history
                .check_answer(key, sequence, times, found.as_deref())
                .map_err(|problem| format!("multi_get in keyspace {id}: {problem}"))?;
        }
        Ok(())
    }

    /// Reads from both ends until they meet.
    fn scan(&mut self, slot: Slot, range: Range, ends: u32) -> Step {
        let Some((id, _)) = self.keyspace(slot) else {
            return Ok(());
        };
        let range = range.keys();
        let read = from_both_ends(self.store(), id, &range, ends);
        let Some(found) = self.accept("scan", read)? else {
            return Ok(());
        };
        self.digest.add_debug(&found);
        let (sequence, times) = (self.oracle.latest(), self.times());
        compare_entries(self.oracle.history(id), &range, sequence, times, &found)
            .map_err(|problem| format!("scan of keyspace {id} over {range:?}: {problem}"))
    }

    fn take_snapshot(&mut self) -> Step {
        if self.snapshots.len() >= HELD_MAX {
            self.snapshots.remove(0);
        }
        let snapshot = self
            .store()
            .snapshot()
            .map_err(|error| format!("snapshot: {error}"))?;
        let moment = self.oracle.moment();
        if snapshot.sequence() != moment.sequence {
            return Err(format!(
                "a snapshot is at {}, and was taken at {}",
                snapshot.sequence(),
                moment.sequence
            ));
        }
        self.note(&format!("snapshot at {}", moment.sequence));
        self.snapshots.push(HeldSnapshot { snapshot, moment });
        Ok(())
    }

    fn read_snapshot(&mut self, which: u8, slot: Slot, key: Key, range: Range) -> Step {
        if self.snapshots.is_empty() {
            return Ok(());
        }
        let held = &self.snapshots[usize::from(which) % self.snapshots.len()];
        let (snapshot, moment) = (Arc::clone(&held.snapshot), held.moment.clone());
        // Dropped or not: the snapshot has those that there were.
        if moment.keyspaces.is_empty() {
            return Ok(());
        }
        let id = moment.keyspaces[slot.index() % moment.keyspaces.len()];
        let (key, range) = (key.bytes(), range.keys());
        let got = snapshot.get(KeyspaceId(id), &key);
        let Some(found) = self.accept("get of a snapshot", got)? else {
            return Ok(());
        };
        self.digest.add(found.as_deref().unwrap_or(b"absent"));
        let times = self.times();
        let history = self.oracle.history(id);
        let wrong = |problem| {
            format!(
                "a snapshot at {} of keyspace {id}: {problem}",
                moment.sequence
            )
        };
        history
            .check_answer(&key, moment.sequence, times, found.as_deref())
            .map_err(wrong)?;
        let read = from_both_ends(&*snapshot, id, &range, 0x5555_5555);
        let Some(found) = self.accept("scan of a snapshot", read)? else {
            return Ok(());
        };
        self.digest.add_debug(&found);
        let times = self.times();
        compare_entries(
            self.oracle.history(id),
            &range,
            moment.sequence,
            times,
            &found,
        )
        .map_err(wrong)
    }

    fn open_cursor(&mut self, slot: Slot, range: Range, of_snapshot: bool) -> Step {
        if self.cursors.len() >= HELD_MAX {
            self.cursors.remove(0);
        }
        let range = range.keys();
        let (keyspace, moment, opened) = match self.snapshots.last() {
            Some(held) if of_snapshot && !held.moment.keyspaces.is_empty() => {
                let moment = held.moment.clone();
                let id = moment.keyspaces[slot.index() % moment.keyspaces.len()];
                (
                    id,
                    moment,
                    held.snapshot.cursor(KeyspaceId(id), range.clone()),
                )
            }
            _ => {
                let Some((id, _)) = self.keyspace(slot) else {
                    return Ok(());
                };
                let opened = self.store().cursor(KeyspaceId(id), range.clone());
                (id, self.oracle.moment(), opened)
            }
        };
        if let Some(cursor) = self.accept("open cursor", opened)? {
            self.cursors.push(HeldCursor {
                cursor,
                keyspace,
                range,
                moment,
                at: None,
            });
        }
        Ok(())
    }

    fn move_cursor(&mut self, which: u8, moves: &[Move]) -> Step {
        if self.cursors.is_empty() {
            return Ok(());
        }
        let which = usize::from(which) % self.cursors.len();
        let mut held = self.cursors.swap_remove(which);
        for one in moves {
            let moved = held.carry_out(*one);
            if self.accept("move cursor", moved)?.is_none() {
                // It is unpositioned after an error.
                if held.cursor.entry().is_some() {
                    return Err("a cursor stands somewhere after an error".to_owned());
                }
                held.at = None;
                continue;
            }
            let times = self.times();
            let history = self.oracle.history(held.keyspace);
            let entries = history.entries(&held.range, held.moment.sequence, times);
            held.check(*one, &entries).map_err(|problem| {
                format!(
                    "a cursor on keyspace {} over {:?} at {}, moved {one:?} from {:?}: {problem}",
                    held.keyspace, held.range, held.moment.sequence, held.at
                )
            })?;
            held.at = held.cursor.entry().map(|(key, _)| key.to_vec());
            self.digest.add(held.at.as_deref().unwrap_or(b"nowhere"));
        }
        self.cursors.push(held);
        Ok(())
    }
}

impl HeldCursor {
    fn carry_out(&mut self, one: Move) -> CoreResult<()> {
        match one {
            Move::First => self.cursor.first(),
            Move::Last => self.cursor.last(),
            Move::Seek(key) => self.cursor.seek(&key.bytes()),
            Move::SeekBack(key) => self.cursor.seek_back(&key.bytes()),
            Move::Next => self.cursor.next(),
            Move::Prev => self.cursor.prev(),
            Move::Fork => {
                self.cursor = self.cursor.fork()?;
                self.at = None;
                Ok(())
            }
        }
    }

    /// Whether the cursor stands where this move leads. Of entries that may be absent, any number may
    /// have been passed over, but none that is surely there.
    fn check(&self, one: Move, entries: &[(&[u8], Answers)]) -> Result<(), String> {
        let at = self.at.as_deref();
        let from = |key: &[u8]| entries.partition_point(|entry| entry.0 < key);
        let behind = |key: &[u8]| entries.partition_point(|entry| entry.0 <= key);
        let key_of = |key: Key| key.bytes();
        // The entries in the order in which the move comes by them.
        let path: Vec<&(&[u8], Answers)> = match one {
            Move::First => entries.iter().collect(),
            Move::Last => entries.iter().rev().collect(),
            Move::Seek(key) => entries[from(&key_of(key))..].iter().collect(),
            Move::SeekBack(key) => entries[..behind(&key_of(key))].iter().rev().collect(),
            Move::Next => at.map_or_else(Vec::new, |at| entries[behind(at)..].iter().collect()),
            Move::Prev => at.map_or_else(Vec::new, |at| entries[..from(at)].iter().rev().collect()),
            Move::Fork => Vec::new(),
        };
        let found = self.cursor.entry();
        for (key, answers) in path {
            match found {
                Some((found, value)) if found == *key => {
                    return check_answer(key, answers, Some(value));
                }
                _ if answers.contains(&None) => {}
                _ => {
                    return Err(format!(
                        "it stands at {}, and should at {}",
                        describe(found.map(|(key, _)| key)),
                        describe(Some(key))
                    ));
                }
            }
        }
        match found {
            None => Ok(()),
            Some((key, _)) => Err(format!(
                "it stands at {}, where nothing is",
                describe(Some(key))
            )),
        }
    }
}

/// Reads a range from both ends in turns, as the bits say, until they meet.
fn from_both_ends(
    reader: &dyn Reader,
    id: Id,
    range: &KeyRange,
    ends: u32,
) -> CoreResult<Vec<Entry>> {
    let mut scan = reader.scan(KeyspaceId(id), range.clone())?;
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let mut bits = ends;
    loop {
        let (next, end) = match bits & 1 {
            0 => (scan.next(), &mut front),
            _ => (scan.next_back(), &mut back),
        };
        bits = bits.rotate_right(1);
        match next {
            Some(entry) => {
                let (key, value) = entry?;
                end.push((key.to_vec(), value.to_vec()));
            }
            None => break,
        }
    }
    front.extend(back.into_iter().rev());
    Ok(front)
}
