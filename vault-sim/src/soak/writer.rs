//! Keys of its own and a model of them: every kind of write, each compared with what is read.

use std::collections::BTreeMap;
use std::time::Duration;

use vault_core::random::{Random as _, SeededRandom};
use vault_core::{
    CasOutcome, Clock as _, Engine, KeyRange, KeyspaceId, Reader, Timestamp, WriteBatch,
    WriteOptions,
};

use super::stage::{Opened, Stage, told};

/// Keys a writer has in each keyspace.
const KEYS: u64 = 1_500;
/// Counters a writer has.
const COUNTERS: u64 = 40;
/// The longest value in bytes.
const VALUE_BYTES_MAX: u64 = 1_500;
/// Steps after which everything is compared.
const FULL_CHECK_EVERY: u64 = 3_000;

/// The key of a number.
pub(super) fn key(thread: usize, number: u64) -> Vec<u8> {
    format!("w{thread:03}/{number:08}").into_bytes()
}

/// What the keys of a thread begin with.
pub(super) fn prefix(thread: usize) -> Vec<u8> {
    format!("w{thread:03}/").into_bytes()
}

/// The number in a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key)
        .ok()?
        .rsplit_once('/')?
        .1
        .parse()
        .ok()
}

fn beat_key(thread: usize) -> Vec<u8> {
    format!("w{thread:03}-beat").into_bytes()
}

fn fed_key(thread: usize) -> Vec<u8> {
    format!("w{thread:03}-fed").into_bytes()
}

/// How many batches a writer has written.
pub(super) fn beat(reader: &dyn Reader, counts: KeyspaceId, thread: usize) -> Result<u64, String> {
    count(reader, counts, &beat_key(thread)).map(i64::cast_unsigned)
}

/// How many entries a writer has put into the feed.
pub(super) fn last_fed(
    reader: &dyn Reader,
    counts: KeyspaceId,
    thread: usize,
) -> Result<u64, String> {
    count(reader, counts, &fed_key(thread)).map(i64::cast_unsigned)
}

fn count(reader: &dyn Reader, counts: KeyspaceId, key: &[u8]) -> Result<i64, String> {
    let found = reader.get(counts, key).map_err(told("read a counter"))?;
    match found {
        None => Ok(0),
        Some(bytes) => <[u8; 8]>::try_from(&bytes[..])
            .map(i64::from_le_bytes)
            .map_err(|_| format!("a counter of {} bytes", bytes.len())),
    }
}

#[derive(Debug, Clone)]
struct Entry {
    value: Vec<u8>,
    expiry: Option<Timestamp>,
}

type Model = BTreeMap<u64, Entry>;

pub(super) fn work(stage: &Stage, thread: usize) -> Result<(), String> {
    let mut writer = Writer {
        stage,
        thread,
        dice: stage.dice(thread),
        models: [Model::new(), Model::new()],
        counters: BTreeMap::new(),
        fed: 0,
        beats: 0,
        epoch: 1,
    };
    let mut steps = 0;
    while !stage.is_over() {
        steps += 1;
        let check = steps % FULL_CHECK_EVERY == 0;
        stage.with_store(thread, "write", |opened| writer.step(opened))?;
        if check {
            stage.with_store(thread, "compare everything", |opened| writer.check(opened))?;
        }
        // Eight threads on two processors are enough for each other; the disk is to have its turn.
        super::pause(stage, Duration::from_micros(writer.dice.below(200)));
    }
    stage
        .store
        .read()
        .map_err(|_| "a thread panicked")?
        .as_ref()
        .map_or(Ok(()), |opened| writer.check(opened))
}

struct Writer<'a> {
    stage: &'a Stage,
    thread: usize,
    dice: SeededRandom,
    /// Of the leveled and the tiered keyspace.
    models: [Model; 2],
    counters: BTreeMap<u64, i64>,
    fed: u64,
    beats: u64,
    epoch: u64,
}

impl Writer<'_> {
    fn step(&mut self, opened: &Opened) -> Result<(), String> {
        if opened.epoch != self.epoch {
            self.epoch = opened.epoch;
            self.check(opened)?;
        }
        match self.dice.below(100) {
            0..=4 => self.swap(opened),
            5..=29 => self.look_up(opened),
            30..=31 => self.scan_some(opened),
            _ => self.write(opened),
        }
    }

    /// Writes a batch of a few operations of any kind.
    fn write(&mut self, opened: &Opened) -> Result<(), String> {
        let mut batch = WriteBatch::new();
        let mut models = Vec::new();
        for _ in 0..1 + self.dice.below(6) {
            let index = self.dice.below(2) as usize;
            let keyspace = [opened.ids.data, opened.ids.wide][index];
            let number = self.dice.below(KEYS);
            let key = key(self.thread, number);
            match self.dice.below(40) {
                0 => {
                    let end = number + 1 + self.dice.below(60);
                    batch.delete_range(keyspace, &key, &self::key(self.thread, end));
                    models.push((index, number..end, None));
                }
                1..=7 => {
                    batch.delete(keyspace, &key);
                    models.push((index, number..number + 1, None));
                }
                8..=14 => {
                    let value = self.value();
                    let ms = 1 + self.dice.below(8_000);
                    let expiry = Timestamp(self.stage.clock.now().0 + 500 + ms);
                    batch.put_until(keyspace, &key, &value, expiry);
                    let expiry = Some(expiry);
                    models.push((index, number..number + 1, Some(Entry { value, expiry })));
                }
                _ => {
                    let value = self.value();
                    batch.put(keyspace, &key, &value);
                    let expiry = None;
                    models.push((index, number..number + 1, Some(Entry { value, expiry })));
                }
            }
        }
        let counted = self.count_in(&mut batch, opened);
        self.commit(opened, &batch)?;
        for (index, numbers, entry) in models {
            for number in numbers {
                match &entry {
                    Some(entry) => self.models[index].insert(number, entry.clone()),
                    None => self.models[index].remove(&number),
                };
            }
        }
        if let Some((number, operand)) = counted {
            *self.counters.entry(number).or_insert(0) += operand;
        }
        self.beats += 1;
        Ok(())
    }

    /// Adds what is counted to a batch: the beat, something fed now and then, and some counter.
    fn count_in(&mut self, batch: &mut WriteBatch, opened: &Opened) -> Option<(u64, i64)> {
        let counts = opened.ids.counts;
        let one = 1_i64.to_le_bytes();
        batch.merge(counts, &beat_key(self.thread), &one);
        if self.dice.percent(30) {
            self.fed += 1;
            batch.put(opened.ids.feed, &key(self.thread, self.fed), &self.value());
            batch.merge(counts, &fed_key(self.thread), &one);
        }
        if !self.dice.percent(20) {
            return None;
        }
        let number = self.dice.below(COUNTERS);
        let operand = self.dice.below(100).cast_signed() - 50;
        batch.merge(counts, &key(self.thread, number), &operand.to_le_bytes());
        Some((number, operand))
    }

    fn commit(&self, opened: &Opened, batch: &WriteBatch) -> Result<(), String> {
        let options = if self.dice.percent(4) {
            WriteOptions::SYNC
        } else {
            WriteOptions::OS
        };
        if self.dice.percent(10) {
            match opened.lsm.try_write(batch, &options) {
                Err(vault_core::Error::Busy { .. }) => {}
                outcome => return outcome.map(drop).map_err(told("try to write")),
            }
        }
        opened
            .lsm
            .write(batch, &options)
            .map(drop)
            .map_err(told("write"))
    }

    /// Replaces a value by comparing: once with what is there, once with what is not.
    fn swap(&mut self, opened: &Opened) -> Result<(), String> {
        let number = self.dice.below(KEYS);
        let entry = self.models[0].get(&number).cloned();
        if entry.as_ref().is_some_and(|entry| entry.expiry.is_some()) {
            return Ok(());
        }
        let key = key(self.thread, number);
        let there = entry.as_ref().map(|entry| entry.value.as_slice());
        let value = self.value();
        let swap = |expected: Option<&[u8]>| {
            let new = Some(value.as_slice());
            let options = WriteOptions::OS;
            let outcome =
                opened
                    .lsm
                    .compare_and_set(opened.ids.data, &key, expected, new, &options);
            outcome.map_err(told("compare and set"))
        };
        if !matches!(swap(Some(b"never a value"))?, CasOutcome::Mismatch(found) if found.as_deref() == there)
        {
            return Err(format!(
                "{}: set by a value that is not there",
                key.escape_ascii()
            ));
        }
        if !matches!(swap(there)?, CasOutcome::Swapped(_)) {
            return Err(format!(
                "{}: not set by the value that is there",
                key.escape_ascii()
            ));
        }
        self.models[0].insert(
            number,
            Entry {
                value,
                expiry: None,
            },
        );
        Ok(())
    }

    fn look_up(&self, opened: &Opened) -> Result<(), String> {
        let index = self.dice.below(2) as usize;
        let keyspace = [opened.ids.data, opened.ids.wide][index];
        let number = self.dice.below(KEYS);
        let before = self.stage.clock.now();
        let found = opened
            .lsm
            .get(keyspace, &key(self.thread, number))
            .map_err(told("get"))?;
        let after = self.stage.clock.now();
        self.compare(
            number,
            found.as_deref(),
            self.models[index].get(&number),
            before,
            after,
        )
    }

    fn scan_some(&self, opened: &Opened) -> Result<(), String> {
        let start = self.dice.below(KEYS);
        let end = start + 1 + self.dice.below(100);
        let index = self.dice.below(2) as usize;
        self.compare_range(
            &opened.lsm,
            opened,
            index,
            start..end,
            self.dice.percent(50),
        )
    }

    /// Compares everything that this writer has.
    fn check(&self, opened: &Opened) -> Result<(), String> {
        let snapshot = opened.lsm.snapshot().map_err(told("take a snapshot"))?;
        for index in 0..2 {
            for backwards in [false, true] {
                self.compare_range(&*snapshot, opened, index, 0..u64::from(u32::MAX), backwards)?;
            }
        }
        for (&number, &expected) in &self.counters {
            let found = count(&*snapshot, opened.ids.counts, &key(self.thread, number))?;
            if found != expected {
                return Err(format!("counter {number} is {found} instead of {expected}"));
            }
        }
        let beats = beat(&*snapshot, opened.ids.counts, self.thread)?;
        let fed = last_fed(&*snapshot, opened.ids.counts, self.thread)?;
        if (beats, fed) != (self.beats, self.fed) {
            return Err(format!(
                "{beats} batches and {fed} entries were counted, and {} and {} acknowledged",
                self.beats, self.fed
            ));
        }
        Ok(())
    }

    fn compare_range(
        &self,
        reader: &dyn Reader,
        opened: &Opened,
        index: usize,
        numbers: std::ops::Range<u64>,
        backwards: bool,
    ) -> Result<(), String> {
        let keyspace = [opened.ids.data, opened.ids.wide][index];
        let range = KeyRange::new(key(self.thread, numbers.start)..key(self.thread, numbers.end));
        let before = self.stage.clock.now();
        let scan = reader.scan(keyspace, range).map_err(told("scan"))?;
        let entries: Result<Vec<_>, _> = if backwards {
            scan.rev().collect()
        } else {
            scan.collect()
        };
        let entries = entries.map_err(told("scan"))?;
        let after = self.stage.clock.now();
        let ordered = entries
            .iter()
            .map(|(key, _)| key)
            .is_sorted_by(|a, b| (a < b) != backwards);
        if !ordered {
            return Err("a scan is out of order".to_owned());
        }
        let mut found = BTreeMap::new();
        for (key, value) in &entries {
            let number = number_of(key).ok_or("a key that nobody wrote")?;
            found.insert(number, &value[..]);
        }
        let expected = self.models[index].range(numbers);
        let mut all: BTreeMap<u64, Option<&Entry>> = expected.map(|(&n, e)| (n, Some(e))).collect();
        for &number in found.keys() {
            all.entry(number).or_insert(None);
        }
        all.into_iter().try_for_each(|(number, entry)| {
            self.compare(number, found.get(&number).copied(), entry, before, after)
        })
    }

    /// Compares what was found between two moments with what should be there.
    fn compare(
        &self,
        number: u64,
        found: Option<&[u8]>,
        entry: Option<&Entry>,
        before: Timestamp,
        after: Timestamp,
    ) -> Result<(), String> {
        let expiry = entry.and_then(|entry| entry.expiry);
        let right = match (found, entry) {
            (None, None) => true,
            // A clock that was set back meanwhile makes both possible.
            (None, Some(_)) => expiry.is_some_and(|expiry| expiry <= after || after < before),
            (Some(found), Some(entry)) => {
                found == entry.value
                    && expiry.is_none_or(|expiry| before < expiry || after < before)
            }
            (Some(_), None) => false,
        };
        if right {
            return Ok(());
        }
        let text = |value: Option<&[u8]>| {
            value.map_or("nothing".to_owned(), |value| {
                format!(
                    "{} bytes, {}…",
                    value.len(),
                    value[..value.len().min(12)].escape_ascii()
                )
            })
        };
        Err(format!(
            "key {number} has {} instead of {} (expiry {expiry:?}, between {before} and {after})",
            text(found),
            text(entry.map(|entry| entry.value.as_slice()))
        ))
    }

    /// Of any length; half of it compresses.
    fn value(&self) -> Vec<u8> {
        let len = self.dice.below(VALUE_BYTES_MAX) as usize;
        let mut value = vec![0; len];
        let half = len / 2;
        // A seeded source does not fail.
        let _ = self.dice.fill(&mut value[half..]);
        value
    }
}
