//! The log: whoever waited for a sync has its record on the medium, whoever leads it, whichever segment it
//! lies in; nobody waits for ever; a sync that failed is never taken back.
//!
//! The rounds of `log/sync.rs` run over files that know what a sync makes durable. The last models are of
//! whole stores that lose their power after a write was acknowledged.
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic as plain;
use std::sync::atomic::Ordering::SeqCst;

use vault_core::clock::ManualClock;
use vault_core::vfs::{CrashPolicy, File, WriteMap};
use vault_core::{Durability, Engine, Error, Reader, Timestamp, WriteOptions};

use super::commit::{self, Opened, beside};
use super::explore::{fails, holds};
use crate::log::LogSync;
use crate::store::lock;
use crate::sync::{Break, Mutex, break_in, thread};

/// A segment that knows which log positions it holds. Its counts are not modelled: they play the medium.
#[derive(Debug)]
struct Segment {
    first: u64,
    last: plain::AtomicU64,
    durable: plain::AtomicU64,
    fails: bool,
}

impl File for Segment {
    fn sync(&self) -> io::Result<()> {
        let reached = self.last.load(SeqCst);
        // What is appended from here on is not covered.
        thread::yield_now();
        if self.fails {
            return Err(io::Error::other("the medium is gone"));
        }
        self.durable.fetch_max(reached, SeqCst);
        Ok(())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        unreachable!("a log is not read while it is written")
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("the model appends by itself")
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        unreachable!("the model appends by itself")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("the model appends by itself")
    }

    fn len(&self) -> io::Result<u64> {
        unreachable!("the model appends by itself")
    }

    fn map(&self, _: usize) -> io::Result<Box<dyn WriteMap>> {
        unreachable!("the model appends by itself")
    }
}

/// What the commit lock guards, in small.
#[derive(Default)]
struct Appender {
    position: u64,
    segments: Vec<Arc<Segment>>,
}

struct Log {
    sync: LogSync,
    commit: Mutex<Appender>,
    fails: bool,
}

impl Log {
    fn new(fails: bool) -> Arc<Self> {
        let log = Self {
            sync: LogSync::new(0, Arc::new(ManualClock::new(Timestamp(0)))),
            commit: Mutex::default(),
            fails,
        };
        log.begin_segment(&mut lock(&log.commit));
        Arc::new(log)
    }

    /// As `LogWriter` does: the start record is in the file, then the file is known, then the position.
    fn begin_segment(&self, appender: &mut Appender) {
        appender.position += 1;
        let segment = Arc::new(Segment {
            first: appender.position,
            last: plain::AtomicU64::new(appender.position),
            durable: plain::AtomicU64::new(0),
            fails: self.fails,
        });
        appender.segments.push(Arc::clone(&segment));
        self.sync
            .begin_segment(segment.first, segment, PathBuf::new());
        self.sync.appended(appender.position);
    }

    fn append(&self, into_new_segment: bool) -> u64 {
        let mut appender = lock(&self.commit);
        if into_new_segment {
            self.begin_segment(&mut appender);
        }
        appender.position += 1;
        let position = appender.position;
        let segment = appender.segments.last().unwrap();
        segment.last.store(position, SeqCst);
        self.sync.appended(position);
        position
    }

    /// As a flush does: what lies in all segments but the newest is in tables, and they are removed.
    fn flush(&self) {
        let mut appender = lock(&self.commit);
        let complete = appender.segments.len() - 1;
        appender.segments.drain(..complete);
        let floor = appender.segments[0].first;
        drop(appender);
        self.sync.forget_below(floor);
    }

    fn assert_durable(&self, position: u64) {
        for segment in &lock(&self.commit).segments {
            let owed = segment.last.load(SeqCst).min(position);
            let durable = segment.durable.load(SeqCst);
            assert!(
                segment.first > position || durable >= owed,
                "wrong: acknowledged up to {position}, durable is {durable}"
            );
        }
    }

    fn write(&self, into_new_segment: bool) {
        let position = self.append(into_new_segment);
        match self.sync.wait_for(position) {
            Ok(()) => {
                assert!(!self.fails, "wrong: a failed sync was reported as success");
                self.assert_durable(position);
            }
            Err(error) => assert!(
                self.fails && matches!(error, Error::Poisoned { .. }),
                "wrong: {error}"
            ),
        }
    }
}

/// Each writer appends and waits once; those that are told so begin a segment.
#[derive(Clone, Copy)]
struct Case {
    new_segment: &'static [bool],
    rounds: usize,
    fails: bool,
}

fn writers(case: Case) {
    let log = Log::new(case.fails);
    let threads: Vec<_> = case.new_segment[1..]
        .iter()
        .map(|&new_segment| {
            let log = Arc::clone(&log);
            thread::spawn(move || (0..case.rounds).for_each(|_| log.write(new_segment)))
        })
        .collect();
    (0..case.rounds).for_each(|_| log.write(case.new_segment[0]));
    for thread in threads {
        thread.join().unwrap();
    }
}

const fn case(new_segment: &'static [bool], rounds: usize) -> Case {
    Case {
        new_segment,
        rounds,
        fails: false,
    }
}

const TWO: Case = case(&[false, false], 1);
const THREE: Case = case(&[false, false, false], 1);

#[test]
fn sync_rounds() {
    holds("log: two writers wait for a sync", [TWO], writers);
    holds(
        "log: two writers, two rounds",
        [case(&[false, false], 2)],
        writers,
    );
    holds("log: three writers wait for a sync", [THREE], writers);
    let new_segment = [case(&[false, true], 1), case(&[true, true], 1)];
    holds("log: writers that begin segments", new_segment, writers);
}

/// Segments go while a sync is on its way to them, and others begin: nobody's record is left out of the next sync.
#[test]
fn segments_that_are_flushed() {
    let name = "log: segments are flushed while they are synced";
    holds(name, [()], |()| {
        let log = Log::new(false);
        log.append(true);
        let other = Arc::clone(&log);
        let flushing = thread::spawn(move || other.flush());
        log.write(false);
        log.write(false);
        flushing.join().unwrap();
    });
    holds(name, [()], |()| {
        let log = Log::new(false);
        log.append(true);
        let threads = [Log::flush as fn(&Log), |log: &Log| log.write(true)].map(|work| {
            let log = Arc::clone(&log);
            thread::spawn(move || work(&log))
        });
        log.write(false);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        log.write(false);
    });
}

#[test]
fn syncs_that_fail() {
    let cases = [TWO, case(&[false, true], 1), case(&[false, false], 2)];
    let cases = cases.map(|case| Case {
        fails: true,
        ..case
    });
    holds("log: a failed sync is final for all", cases, writers);
}

#[test]
fn whoever_waited_is_not_woken() {
    break_in("log/sync.rs", Break::LoseAll);
    fails(
        "log: broken, the end of a round wakes nobody",
        "deadlock",
        [TWO],
        writers,
    );
}

#[test]
fn the_next_leader_is_not_woken() {
    break_in("log/sync.rs", Break::LoseOne);
    fails(
        "log: broken, nobody leads the next round",
        "deadlock",
        [TWO, THREE],
        writers,
    );
}

#[test]
fn power_is_lost_after_the_acknowledgement() {
    let name = "log: a store loses power after a Sync write";
    holds(name, [()], |()| {
        let write = |shared: &commit::Shared| write_and_lose_power(shared, Durability::Sync);
        beside(|_| (), &[write], write);
    });
}

#[test]
fn power_is_lost_without_a_sync() {
    let name = "log: broken, nobody waits for the sync";
    fails(name, "wrong: ", [()], |()| {
        let write = |shared: &commit::Shared| write_and_lose_power(shared, Durability::Os);
        beside(|_| (), &[write], write);
    });
}

/// Writes, and looks for it in what a loss of power right after leaves.
fn write_and_lose_power(shared: &commit::Shared, durability: Durability) {
    let options = WriteOptions {
        durability: Some(durability),
    };
    let mut batch = vault_core::WriteBatch::new();
    batch.put(shared.left, b"key", b"value");
    shared.lsm.write(&batch, &options).unwrap();
    let left_over = shared.fs.crash(1, CrashPolicy::DropUnsynced);
    let again = Opened::at(&left_over);
    let found = again.get(shared.left, b"key").unwrap();
    assert!(found.is_some(), "wrong: an acknowledged write is not found");
}

/// A process that is killed leaves what it has written to the map, also of records that others have places before.
#[test]
fn the_process_is_killed_after_the_acknowledgement() {
    let name = "log: a process is killed after a write beside another";
    holds(name, [()], |()| {
        beside(
            |_| (),
            &[|shared| write_and_be_killed(shared, b"first")],
            |shared| write_and_be_killed(shared, b"other"),
        );
    });
}

/// Writes, and looks for it in what a process that ends right after leaves.
fn write_and_be_killed(shared: &commit::Shared, key: &[u8]) {
    let options = WriteOptions::default();
    shared
        .lsm
        .put(shared.left, key, b"value", &options)
        .unwrap();
    let again = Opened::at(&shared.fs.kill());
    let found = again.get(shared.left, key).unwrap();
    assert!(found.is_some(), "wrong: an acknowledged write is not found");
}
