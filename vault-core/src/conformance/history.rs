//! Random histories: every verb in random order, compared with the [model](super::model) at each step.
//!
//! All that happens follows from the seed. Where the engine and the model differ, or the engine panics,
//! the seed and the last operations are printed, so that
//! `random_history(&harness, seed, steps)` shows the same again.

use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::harness::{Entry, Fixture, Harness, got, owned};
use super::merge::{Largest, Witness};
use super::model::{Model, Moment};
use crate::batch::WriteBatch;
use crate::clock::{Clock, Timestamp};
use crate::engine::{CasOutcome, Cursor, KeyspaceId, Reader, Snapshot};
use crate::error::Error;
use crate::limits::Limits;
use crate::merge::{APPEND, COUNTER, MergeOperator};
use crate::options::WriteOptions;
use crate::random::SeededRandom;
use crate::range::KeyRange;

/// Operations that are printed where a history fails.
const TRAIL_MAX: usize = 40;
/// Snapshots, and cursors, that a history holds at once.
const HELD_MAX: usize = 4;
/// Steps between two comparisons of everything there is.
const FULL_CHECK_STEPS: usize = 100;
/// Names of the keyspaces of a history, with their merge operators.
const KEYSPACES: [(&str, Option<&str>); 5] = [
    ("plain", None),
    ("counter", Some(COUNTER)),
    ("append", Some(APPEND)),
    ("largest", Some(Largest::NAME)),
    ("witness", Some(Witness::NAME)),
];

/// A few short histories, so that every run of the suite takes some.
pub fn random_histories<H: Harness>(harness: &H) {
    for seed in 1..=4 {
        random_history(harness, seed, 1_000);
    }
}

/// Runs `steps` random operations and compares the engine with the model after each.
pub fn random_history<H: Harness>(harness: &H, seed: u64, steps: usize) {
    let operators: Vec<Arc<dyn MergeOperator>> = vec![Arc::new(Largest), Arc::new(Witness)];
    let mut run = Run {
        model: Model::new(&operators),
        f: Fixture::with(harness, operators, Limits::default()),
        random: SeededRandom::new(seed),
        open: Vec::new(),
        snapshots: Vec::new(),
        cursors: Vec::new(),
        clock_high: super::START,
        trail: Trail {
            seed,
            step: 0,
            last: VecDeque::new(),
        },
    };
    for index in 0..KEYSPACES.len() {
        run.create_keyspace(index);
    }
    for step in 0..steps {
        run.trail.step = step;
        run.step();
        if step % FULL_CHECK_STEPS == FULL_CHECK_STEPS - 1 {
            run.check_everything();
        }
    }
    run.check_everything();
}

/// The last operations; printed where the history fails, also where the engine itself panics.
struct Trail {
    seed: u64,
    step: usize,
    last: VecDeque<(usize, String)>,
}

impl Trail {
    fn add(&mut self, what: String) {
        if self.last.len() == TRAIL_MAX {
            self.last.pop_front();
        }
        self.last.push_back((self.step, what));
    }
}

impl Drop for Trail {
    #[expect(clippy::print_stderr, reason = "a failing test says how to repeat it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the random history with seed {} failed; its last steps:",
                self.seed
            );
            for (step, operation) in &self.last {
                eprintln!("{step:>6}  {operation}");
            }
        }
    }
}

struct Run<'h, H: Harness> {
    f: Fixture<'h, H>,
    model: Model,
    random: SeededRandom,
    /// The keyspaces there are: id and place in `KEYSPACES`.
    open: Vec<(KeyspaceId, usize)>,
    snapshots: Vec<(Arc<dyn Snapshot>, Moment)>,
    cursors: Vec<HeldCursor>,
    /// The latest time that the clock ever showed.
    clock_high: Timestamp,
    trail: Trail,
}

/// A cursor that stays open while others write.
struct HeldCursor {
    cursor: Box<dyn Cursor>,
    keyspace: KeyspaceId,
    range: KeyRange,
    moment: Moment,
    at: Option<Vec<u8>>,
}

impl<H: Harness> Run<'_, H> {
    fn step(&mut self) {
        match self.random.below(1_000) {
            0..420 => self.write(1),
            420..560 => self.write(12),
            560..640 => self.compare_and_set(),
            640..700 => self.get(),
            700..730 => self.multi_get(),
            730..790 => self.scan(),
            790..860 => self.move_cursor(),
            860..885 => self.open_cursor(),
            885..910 => self.take_snapshot(),
            910..930 => self.let_go(),
            930..955 => self.move_clock(),
            955..965 => self.refused_write(),
            965..975 => self.replace_keyspace(),
            975..984 => self.flush(),
            984..991 => self.compact(),
            991..997 => self.f.settle(),
            _ => self.reopen(),
        }
        assert_eq!(self.f.latest_sequence(), self.model.latest());
    }

    fn now(&self) -> Timestamp {
        self.f.clock.now()
    }

    fn keyspace(&self) -> (KeyspaceId, usize) {
        self.open[self.random.below(self.open.len() as u64) as usize]
    }

    /// Keys that often meet, are often prefixes of each other, and touch both ends of the key space.
    fn key(&self) -> Vec<u8> {
        if self.random.percent(50) {
            return format!("user:{:03}", self.random.below(150)).into_bytes();
        }
        let letters = [0, b'a', b'b', 0xff];
        let letter = |_| letters[self.random.below(4) as usize];
        (0..self.random.below(5)).map(letter).collect()
    }

    /// A value or an operand: of the right form for the keyspace's operator.
    fn value(&self, keyspace: usize) -> Vec<u8> {
        if KEYSPACES[keyspace].1 == Some(COUNTER) {
            return self.random.next_u64().to_le_bytes().to_vec();
        }
        let len = match self.random.below(20) {
            0 => 0,
            1 => 2_000,
            _ => 1 + self.random.below(60),
        };
        (0..len)
            .map(|_| b'a' + self.random.below(26) as u8)
            .collect()
    }

    fn expiry(&self) -> Timestamp {
        Timestamp(self.now().0 + 1 + self.random.below(400))
    }

    fn bound(&self) -> Bound<Vec<u8>> {
        match self.random.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        }
    }

    fn range(&self) -> KeyRange {
        match self.random.below(5) {
            0 => KeyRange::all(),
            1 => KeyRange::prefix(&self.key()),
            // In order or not.
            _ => KeyRange {
                start: self.bound(),
                end: self.bound(),
            },
        }
    }

    fn add_operation(&self, batch: &mut WriteBatch) {
        let (ks, kind) = self.keyspace();
        let (key, value) = (self.key(), self.value(kind));
        let merges = KEYSPACES[kind].1.is_some();
        match self.random.below(100) {
            0..45 => batch.put(ks, &key, &value),
            45..53 => batch.put_until(ks, &key, &value, self.expiry()),
            53..66 => batch.delete(ks, &key),
            66..69 if self.random.percent(20) => batch.delete_prefix(ks, &key),
            66..73 => {
                let other = self.key();
                let (start, end) = (key.clone().min(other.clone()), key.max(other));
                batch.delete_range(ks, &start, &end)
            }
            73..94 if merges => batch.merge(ks, &key, &value),
            94..100 if merges => batch.merge_until(ks, &key, &value, self.expiry()),
            _ => batch.put(ks, &key, &value),
        };
    }

    fn write(&mut self, operations_max: u64) {
        let mut batch = WriteBatch::new();
        for _ in 0..1 + self.random.below(operations_max) {
            self.add_operation(&mut batch);
        }
        self.trail.add(format!("write {batch:?}"));
        let options = WriteOptions { durability: None };
        let sequence = self.f.write(&batch, &options).unwrap();
        assert_eq!(sequence, self.model.write(&batch));
        for operation in &batch {
            self.check_key(operation.keyspace, operation.key);
        }
    }

    /// A batch that is wrong in its last operation: nothing of it may be written.
    fn refused_write(&mut self) {
        let mut batch = WriteBatch::new();
        self.add_operation(&mut batch);
        let (ks, kind) = self.keyspace();
        match self.random.below(4) {
            0 => batch.put_until(ks, b"k", b"", self.now()),
            1 => batch.delete_range(ks, b"b", b"a"),
            2 => batch.put(KeyspaceId(u32::MAX), b"k", b""),
            _ if KEYSPACES[kind].1.is_none() => batch.merge(ks, b"k", b""),
            _ => batch.put(ks, &vec![0; crate::limits::KEY_BYTES_MAX + 1], b""),
        };
        self.trail.add(format!("write, to be refused {batch:?}"));
        let refused = self.f.write(&batch, &WriteOptions::default());
        assert!(refused.is_err(), "a bad batch was accepted");
        for operation in batch.iter().take(1) {
            self.check_key(operation.keyspace, operation.key);
        }
    }

    fn compare_and_set(&mut self) {
        let (ks, kind) = self.keyspace();
        let key = self.key();
        let present = self.model.get(&self.model.moment(), ks, &key, self.now());
        let expected = match self.random.below(3) {
            0 => self.random.percent(50).then(|| self.value(kind)),
            _ => present.clone(),
        };
        let new = self.random.percent(70).then(|| self.value(kind));
        self.trail.add(format!(
            "compare_and_set in {ks} {key:?} {expected:?} -> {new:?}"
        ));
        let outcome = self
            .f
            .compare_and_set(
                ks,
                &key,
                expected.as_deref(),
                new.as_deref(),
                &WriteOptions::default(),
            )
            .unwrap();
        if expected == present {
            let mut batch = WriteBatch::new();
            match &new {
                Some(value) => batch.put(ks, &key, value),
                None => batch.delete(ks, &key),
            };
            assert_eq!(outcome, CasOutcome::Swapped(self.model.write(&batch)));
        } else {
            assert_eq!(outcome, CasOutcome::Mismatch(present.map(Into::into)));
        }
        self.check_key(ks, &key);
    }

    fn get(&mut self) {
        let (ks, _) = self.keyspace();
        self.check_key(ks, &self.key());
        if !self.snapshots.is_empty() {
            let index = self.random.below(self.snapshots.len() as u64) as usize;
            let (snapshot, moment) = &self.snapshots[index];
            let ks = moment.keyspaces[self.random.below(moment.keyspaces.len() as u64) as usize];
            let key = self.key();
            let expected = self.model.get(moment, ks, &key, self.now());
            self.trail
                .add(format!("get {key:?} in {ks} at {}", moment.sequence));
            assert_eq!(got(&**snapshot, ks, &key), expected, "{key:?} in {ks}");
        }
    }

    fn multi_get(&mut self) {
        let (ks, _) = self.keyspace();
        let keys: Vec<_> = (0..self.random.below(10)).map(|_| self.key()).collect();
        self.trail.add(format!("multi_get in {ks} {keys:?}"));
        let wanted: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let found = self.f.multi_get(ks, &wanted).unwrap();
        let found: Vec<_> = found.iter().map(|value| value.as_deref()).collect();
        let expect = |key: &&[u8]| self.model.get(&self.model.moment(), ks, key, self.now());
        let expected: Vec<_> = wanted.iter().map(expect).collect();
        let expected: Vec<_> = expected.iter().map(|value| value.as_deref()).collect();
        assert_eq!(found, expected);
    }

    fn scan(&mut self) {
        let (ks, _) = self.keyspace();
        let range = self.range();
        self.trail.add(format!("scan {ks} {range:?}"));
        let expected = self
            .model
            .scan(&self.model.moment(), ks, &range, self.now());
        let mut scan = self.f.scan(ks, range).unwrap();
        // From both ends in turns until they meet.
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let bias = self.random.below(101);
        loop {
            let (entry, end) = if self.random.percent(bias) {
                (scan.next(), &mut front)
            } else {
                (scan.next_back(), &mut back)
            };
            match entry {
                Some(entry) => end.extend(owned([entry].into_iter())),
                None => break,
            }
        }
        front.extend(back.into_iter().rev());
        assert_eq!(front, expected);
    }

    fn open_cursor(&mut self) {
        if self.cursors.len() >= HELD_MAX {
            return self.move_cursor();
        }
        let (ks, _) = self.keyspace();
        let range = self.range();
        self.trail.add(format!("open cursor on {ks} {range:?}"));
        self.cursors.push(HeldCursor {
            cursor: self.f.cursor(ks, range.clone()).unwrap(),
            keyspace: ks,
            range,
            moment: self.model.moment(),
            at: None,
        });
    }

    fn move_cursor(&mut self) {
        if self.cursors.is_empty() {
            return;
        }
        let now = self.now();
        let index = self.random.below(self.cursors.len() as u64) as usize;
        let mut held = self.cursors.swap_remove(index);
        self.trail.add(format!(
            "move cursor on {} {:?} at {}",
            held.keyspace, held.range, held.moment.sequence
        ));
        if self.random.percent(10) {
            held.cursor = held.cursor.fork().unwrap();
            held.at = None;
        }
        let entries = self
            .model
            .scan(&held.moment, held.keyspace, &held.range, now);
        for _ in 0..12 {
            held.step(&self.random, &self.key(), &entries);
        }
        self.cursors.push(held);
    }

    fn take_snapshot(&mut self) {
        if self.snapshots.len() >= HELD_MAX {
            return self.let_go();
        }
        self.trail.add("snapshot".to_owned());
        let snapshot = self.f.snapshot().unwrap();
        let moment = self.model.moment();
        assert_eq!(snapshot.sequence(), moment.sequence);
        self.snapshots.push((snapshot, moment));
    }

    fn let_go(&mut self) {
        self.trail
            .add("let go of a snapshot and a cursor".to_owned());
        if !self.snapshots.is_empty() {
            let index = self.random.below(self.snapshots.len() as u64) as usize;
            self.snapshots.swap_remove(index);
        }
        if !self.cursors.is_empty() {
            let index = self.random.below(self.cursors.len() as u64) as usize;
            self.cursors.swap_remove(index);
        }
    }

    /// Mostly forwards. Backwards only so far that nothing that had expired comes alive again, for
    /// an engine may have removed that meanwhile.
    fn move_clock(&mut self) {
        let now = if self.random.percent(80) {
            Timestamp(self.now().0 + self.random.below(150))
        } else {
            let floor = self.model.last_expiry_before(self.clock_high);
            let floor = floor.map_or(super::START.0, |expiry| expiry.0);
            let back = self.random.below(200);
            Timestamp(self.now().0.saturating_sub(back).max(floor))
        };
        self.trail.add(format!("clock at {now}"));
        self.f.clock.set(now);
        self.clock_high = self.clock_high.max(now);
    }

    fn create_keyspace(&mut self, index: usize) {
        let (name, operator) = KEYSPACES[index];
        let policies = self.f.harness.policies();
        let policy = policies[self.random.below(policies.len() as u64) as usize];
        let mut options = self.f.harness.options().policy(policy);
        options.merge_operator = operator.map(str::to_owned);
        let id = self.f.create(name, &options);
        self.trail
            .add(format!("create {name} with {}: {id}", policy.name()));
        self.model.create_keyspace(id, name, operator);
        self.open.push((id, index));
    }

    fn replace_keyspace(&mut self) {
        let index = self.random.below(self.open.len() as u64) as usize;
        let (id, kind) = self.open.swap_remove(index);
        self.trail.add(format!("drop keyspace {id}"));
        self.f.drop_keyspace(id).unwrap();
        self.model.drop_keyspace(id);
        let refused = self.f.get(id, b"");
        assert!(
            matches!(refused, Err(Error::UnknownKeyspace { .. })),
            "{refused:?}"
        );
        self.create_keyspace(kind);
    }

    fn flush(&mut self) {
        let ks = self.random.percent(70).then(|| self.keyspace().0);
        self.trail.add(format!("flush {ks:?}"));
        self.f.flush(ks).unwrap();
    }

    fn compact(&mut self) {
        let (ks, _) = self.keyspace();
        let range = self.range();
        if range.check_order().is_err() {
            return;
        }
        let cancel = self.random.percent(20);
        self.trail.add(format!("compact {ks} {range:?}"));
        let outcome = self.f.compact(ks, range, &mut |_| match cancel {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        assert!(
            matches!(
                (&outcome, cancel),
                (Ok(_), false) | (Err(Error::Cancelled), true)
            ),
            "{outcome:?}"
        );
    }

    fn reopen(&mut self) {
        self.trail.add("reopen".to_owned());
        // What was opened before answers that it is closed from now on.
        let held = (
            std::mem::take(&mut self.snapshots),
            std::mem::take(&mut self.cursors),
        );
        if self.f.reopen() {
            let ks = self.open[0].0;
            for (snapshot, _) in &held.0 {
                assert!(matches!(snapshot.get(ks, b""), Err(Error::Closed)));
            }
            drop(held);
            self.check_everything();
        } else {
            (self.snapshots, self.cursors) = held;
        }
    }

    fn check_key(&self, ks: KeyspaceId, key: &[u8]) {
        let expected = self.model.get(&self.model.moment(), ks, key, self.now());
        assert_eq!(got(&*self.f, ks, key), expected, "{key:?} in keyspace {ks}");
    }

    fn check_everything(&self) {
        let listed = self.f.keyspaces().unwrap();
        let listed: Vec<_> = listed
            .iter()
            .map(|info| (info.id, &info.name[..]))
            .collect();
        assert_eq!(listed, self.model.keyspaces());
        self.check_moment(&*self.f, &self.model.moment());
        for (snapshot, moment) in &self.snapshots {
            self.check_moment(&**snapshot, moment);
        }
    }

    fn check_moment<R: Reader + ?Sized>(&self, reader: &R, moment: &Moment) {
        for &ks in &moment.keyspaces {
            let expected = self.model.scan(moment, ks, &KeyRange::all(), self.now());
            let found = super::harness::forward(reader, ks, KeyRange::all());
            assert_eq!(found, expected, "keyspace {ks} at {}", moment.sequence);
            let mut found = super::harness::backward(reader, ks, KeyRange::all());
            found.reverse();
            assert_eq!(
                found, expected,
                "keyspace {ks} at {} backwards",
                moment.sequence
            );
        }
    }
}

impl HeldCursor {
    /// One random move, compared with the entries that the model gives.
    fn step(&mut self, random: &SeededRandom, target: &[u8], entries: &[Entry]) {
        let below = |key: &[u8]| entries.iter().rev().find(|e| e.0[..] < *key);
        let above = |key: &[u8]| entries.iter().find(|e| e.0[..] > *key);
        let expected = match random.below(10) {
            0 => {
                self.cursor.first().unwrap();
                entries.first()
            }
            1 => {
                self.cursor.last().unwrap();
                entries.last()
            }
            2 => {
                self.cursor.seek(target).unwrap();
                entries.iter().find(|e| e.0[..] >= *target)
            }
            3 => {
                self.cursor.seek_back(target).unwrap();
                entries.iter().rev().find(|e| e.0[..] <= *target)
            }
            4..7 => {
                self.cursor.next().unwrap();
                self.at.as_deref().and_then(above)
            }
            _ => {
                self.cursor.prev().unwrap();
                self.at.as_deref().and_then(below)
            }
        };
        let expected = expected.map(|(key, value)| (&key[..], &value[..]));
        assert_eq!(self.cursor.entry(), expected);
        self.at = expected.map(|(key, _)| key.to_vec());
    }
}
