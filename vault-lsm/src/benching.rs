//! The parts of the engine that are measured one by one. Behind the feature `benching`, for this repository alone.
//!
//! There is one list, [`parts`], for two ways of measuring: micro-benchmarks take the time, on real files, and counts of
//! instructions tell in continuous integration what changed. A part is set up in a directory of its own, and then
//! runs as many operations as it is asked to. Nothing else is measured: what has to be made ready in between, as the next
//! segment of the log, is made by [`Bench::prepare`].
//!
//! All keys and values follow from fixed seeds, nothing starts a thread or reads a clock, and whatever a part comes to is
//! handed to `black_box`, so that no operation can be left out. That they do what they say is tested below.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::batch::OperationKind;
use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::transform::{ChecksumTransform, FileKind};
use vault_core::vfs::DiskFileSystem;
use vault_core::{KeyspaceId, Result, SequenceNumber, Timestamp, WriteBatch};

use crate::cursor::InternalCursor;
use crate::internal_key::{pack, seek_trailer};
use crate::layout::Env;
use crate::log::{LogSync, LogWriter, Segment, SegmentSource};
use crate::memory::MemtableAccount;
use crate::memtable::Memtable;
use crate::read::level::{Purpose, RunCursor};
use crate::read::merge::{MergeCursor, Source};
use crate::reclaim::ReclaimQueue;
use crate::table::benching as table;
use crate::version::{Run, TableFile};

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;
/// Entries that are in a memtable before anything is measured.
const MEMTABLE_ENTRIES: usize = 100_000;
/// Entries that are inserted before the memtable is replaced by one with [`MEMTABLE_ENTRIES`] again.
const INSERTS: usize = 25_000;
/// What lookups go round over: enough that no branch is learned by heart, and few enough to be set up at once.
pub(crate) const PROBES: usize = 4096;
/// Room for 64 Ki records, and then some.
const SEGMENT_BYTES: u64 = 16 << 20;
/// The keyspace that everything is in.
pub(crate) const KEYSPACE: KeyspaceId = KeyspaceId(1);
/// What identifies the store that there isn't.
pub(crate) const STORE: [u8; 16] = [7; 16];

/// What one operation gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// So many bytes.
    Bytes(u64),
    /// So many entries, lookups or keys.
    Entries(u64),
}

/// A part that has been set up.
pub trait Bench {
    /// What one operation gets through.
    fn work(&self) -> Work;
    /// Makes ready for so many operations, at most [`Part::operations`]. Not measured.
    fn prepare(&mut self, _operations: u64) {}
    /// Runs so many operations, for which it was made ready.
    fn run(&mut self, operations: u64);
}

/// Sets a part up in an empty directory.
type Begin = dyn Fn(&Path) -> Box<dyn Bench>;

/// A part that can be measured.
pub struct Part {
    /// Its name: the component, a slash, and what it does.
    pub name: String,
    /// How many operations are run at once at most, and counted.
    pub operations: u64,
    begin: Box<Begin>,
}

impl Part {
    /// A part that is set up by `begin` in an empty directory.
    pub fn new(
        name: impl Into<String>,
        operations: u64,
        begin: impl Fn(&Path) -> Box<dyn Bench> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            operations,
            begin: Box::new(begin),
        }
    }

    /// Sets it up in an empty directory, which is to stay for as long as it is used.
    ///
    /// # Panics
    /// If that fails, as where the disk is full.
    #[must_use]
    pub fn begin(&self, directory: &Path) -> Box<dyn Bench> {
        (self.begin)(directory)
    }
}

/// The parts of the engine.
#[must_use]
pub fn parts() -> Vec<Part> {
    let mut parts = vec![
        Part::new("batch/encode", 50_000, batch_encode),
        Part::new("log/append", 50_000, LogAppend::begin),
        Part::new("memtable/insert", INSERTS as u64, MemtableInsert::begin),
        Part::new("memtable/get-hit", 20_000, |_| memtable_get(true)),
        Part::new("memtable/get-miss", 20_000, |_| memtable_get(false)),
    ];
    parts.extend(table::parts());
    for sources in [2, 8] {
        parts.push(Part::new(
            format!("merge/{sources}-sources"),
            20_000,
            move |directory| merge(directory, sources),
        ));
    }
    parts
}

/// Goes round over things, one an operation. Needs nothing made ready.
pub struct Round<T, F> {
    work: Work,
    things: Vec<T>,
    at: usize,
    operation: F,
}

impl<T: 'static, F: FnMut(&T) + 'static> Round<T, F> {
    /// A bench whose operation is called with one thing after the other.
    ///
    /// # Panics
    /// If there is no thing.
    pub fn over(things: Vec<T>, work: Work, operation: F) -> Box<dyn Bench> {
        assert!(!things.is_empty(), "there is nothing to go round over");
        Box::new(Self {
            work,
            things,
            at: 0,
            operation,
        })
    }
}

impl<T, F: FnMut(&T)> Bench for Round<T, F> {
    fn work(&self) -> Work {
        self.work
    }

    fn run(&mut self, operations: u64) {
        for _ in 0..operations {
            (self.operation)(black_box(&self.things[self.at]));
            self.at += 1;
            if self.at == self.things.len() {
                self.at = 0;
            }
        }
    }
}

/// Walks over the entries of a cursor, and begins anew at its end.
pub(crate) struct Walk<C>(C);

impl<C: InternalCursor + 'static> Walk<C> {
    /// Has walked over everything once, so that what can be cached is.
    pub(crate) fn over(mut cursor: C) -> Box<dyn Bench> {
        expected(cursor.first());
        while cursor.valid() {
            expected(cursor.next());
        }
        expected(cursor.first());
        assert!(cursor.valid(), "there is nothing to walk over");
        Box::new(Self(cursor))
    }
}

impl<C: InternalCursor> Bench for Walk<C> {
    fn work(&self) -> Work {
        Work::Entries(1)
    }

    fn run(&mut self, operations: u64) {
        for _ in 0..operations {
            black_box((self.0.key(), self.0.trailer(), self.0.value()));
            expected(self.0.next());
            if !self.0.valid() {
                expected(self.0.first());
            }
        }
    }
}

/// A batch of one put after the other, in the same memory, as somebody who writes many does it.
fn batch_encode(_: &Path) -> Box<dyn Bench> {
    let value = value_of(1);
    let mut batch = WriteBatch::new();
    let keys = (0..PROBES as u64).map(scattered_key).collect();
    Round::over(keys, Work::Entries(1), move |key: &Key| {
        batch.clear();
        batch.put(KEYSPACE, key, black_box(&value));
        black_box(batch.encoded());
    })
}

/// Records of one put each, about 140 bytes long, into mapped segments of a real file system: what a commit does to the
/// log, the publication of its end included. A segment is made before it is needed, as the background does it.
struct LogAppend {
    segments: Segments,
    writer: LogWriter,
    sync: Arc<LogSync>,
    batch: WriteBatch,
    record_bytes: u64,
    sequence: SequenceNumber,
    room: u64,
}

impl LogAppend {
    fn begin(directory: &Path) -> Box<dyn Bench> {
        let segments = Segments(Env {
            directory: directory.to_path_buf(),
            store: STORE,
            fs: Arc::new(DiskFileSystem::new()),
            clock: Arc::new(ManualClock::new(Timestamp(1))),
            random: Arc::new(SeededRandom::new(1)),
            transform: Arc::new(ChecksumTransform),
            listener: None,
            listener_panics: Arc::default(),
        });
        let mut batch = WriteBatch::new();
        batch.put(KEYSPACE, &scattered_key(1), &value_of(1));
        let (writer, sync) = new_log(0);
        let mut append = Self {
            segments,
            writer,
            sync,
            batch,
            record_bytes: 0,
            // As late as in a store of some size: the number takes four bytes.
            sequence: 5_000_000,
            room: 0,
        };
        append.next_segment();
        append.record_bytes = append.append();
        Box::new(append)
    }

    /// Goes on in a new segment. The log is begun anew with it: a writer would keep what it has not synced.
    fn next_segment(&mut self) {
        let (last, _) = self.writer.end();
        (self.writer, self.sync) = new_log(last);
        let number = expected(self.writer.switch(&self.segments));
        if last > 0 {
            let path = self.segments.0.path(FileKind::Log, last);
            self.segments
                .0
                .fs
                .remove(&path)
                .expect("the segment before is there");
        }
        assert!(number > last);
        // Nobody measures the touching of the file's pages by the header alone.
        self.room = SEGMENT_BYTES - (64 << 10);
    }

    #[inline]
    fn append(&mut self) -> u64 {
        let operations = black_box(self.batch.encoded());
        let sequence = self.sequence;
        self.sequence += 1;
        let reserved = (self.writer).reserve(&self.segments, sequence, 1, operations, true);
        let reserved = expected(reserved);
        let appended = reserved.appended;
        expected(reserved.write(operations));
        self.sync.appended(appended.end);
        appended.bytes
    }
}

impl Bench for LogAppend {
    fn work(&self) -> Work {
        Work::Bytes(self.record_bytes)
    }

    fn prepare(&mut self, operations: u64) {
        let bytes = operations * (self.record_bytes + 8);
        if self.room < bytes {
            self.next_segment();
        }
        self.room -= bytes;
    }

    fn run(&mut self, operations: u64) {
        for _ in 0..operations {
            black_box(self.append());
        }
    }
}

fn new_log(last: u64) -> (LogWriter, Arc<LogSync>) {
    let sync = Arc::new(LogSync::new(0, Arc::new(ManualClock::new(Timestamp(0)))));
    let writer = LogWriter::new(last, 0, 0, SEGMENT_BYTES, Arc::clone(&sync));
    (writer, sync)
}

/// Makes segments of one length, without a manifest.
struct Segments(Env);

impl SegmentSource for Segments {
    fn new_segment(&self, bytes: u64, after: u64) -> Result<Segment> {
        Segment::create(&self.0, after + 1, bytes.max(SEGMENT_BYTES))
    }
}

/// Random keys into a memtable that has a hundred thousand of them.
struct MemtableInsert {
    keys: Vec<Key>,
    value: Vec<u8>,
    memtable: Memtable,
    held: usize,
}

impl MemtableInsert {
    fn begin(_: &Path) -> Box<dyn Bench> {
        let keys = (0..(MEMTABLE_ENTRIES + INSERTS) as u64).map(scattered_key);
        let mut insert = Self {
            keys: keys.collect(),
            value: value_of(1),
            memtable: Memtable::new(MemtableAccount::uncounted()),
            held: 0,
        };
        insert.fill();
        Box::new(insert)
    }

    fn fill(&mut self) {
        self.memtable = Memtable::new(MemtableAccount::uncounted());
        self.held = 0;
        self.insert(MEMTABLE_ENTRIES);
    }

    #[inline]
    fn insert(&mut self, count: usize) {
        for key in &self.keys[self.held..self.held + count] {
            self.held += 1;
            let trailer = pack(self.held as u64, OperationKind::Put as u8);
            let value = black_box(&self.value[..]);
            self.memtable.insert(black_box(key), trailer, [&[], value]);
        }
    }
}

impl Bench for MemtableInsert {
    fn work(&self) -> Work {
        Work::Entries(1)
    }

    fn prepare(&mut self, operations: u64) {
        if self.held + operations as usize > self.keys.len() {
            self.fill();
        }
    }

    fn run(&mut self, operations: u64) {
        self.insert(operations as usize);
    }
}

/// Lookups of random keys in a memtable of a hundred thousand, which are all there or all absent.
fn memtable_get(there: bool) -> Box<dyn Bench> {
    let memtable = Memtable::new(MemtableAccount::uncounted());
    let value = value_of(1);
    let entries = MEMTABLE_ENTRIES as u64;
    for number in 0..entries {
        let trailer = pack(number + 1, OperationKind::Put as u8);
        memtable.insert(&scattered_key(number), trailer, [&[], &value]);
    }
    let first = if there { 0 } else { entries };
    let step = entries / PROBES as u64;
    let keys = (0..PROBES as u64).map(|i| scattered_key(first + i * step));
    Round::over(keys.collect(), Work::Entries(1), move |key: &Key| {
        let found = memtable.visit(key, seek_trailer(entries), |trailer, value| {
            black_box((trailer, value));
            ControlFlow::Break(())
        });
        assert_eq!(found.is_break(), there);
    })
}

/// A merge of the runs of so many tables, whose keys lie among one another, out of the cache.
fn merge(directory: &Path, sources: u64) -> Box<dyn Bench> {
    let ground = table::Ground::new(directory);
    let reclaim = Arc::new(ReclaimQueue::default());
    let source = |number| {
        let mut numbers: Vec<u64> = (0..PROBES as u64)
            .map(|i| scattered(i * sources + number))
            .collect();
        numbers.sort_unstable();
        let opened = ground.table(number + 1, &numbers);
        let file = TableFile::new(opened, ground.path(number + 1), Arc::clone(&reclaim));
        Source::Run(RunCursor::over_all(
            Run::of(vec![Arc::new(file)]),
            Purpose::Read,
        ))
    };
    Walk::over(MergeCursor::new((0..sources).map(source).collect()))
}

/// A key.
pub(crate) type Key = [u8; KEY_BYTES];

/// The key with a number: its hexadecimal digits, so that keys stand in the order of their numbers.
pub(crate) fn key_of(number: u64) -> Key {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| DIGITS[(number >> (60 - 4 * i)) as usize & 15])
}

/// One of the keys that lie in no order.
pub(crate) fn scattered_key(number: u64) -> Key {
    key_of(scattered(number))
}

/// Scatters numbers, no two onto one: the finalizer of `SplitMix64` (Steele, Lea, Flood, 2014).
pub(crate) const fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A value of which half is random and half repeats it, so that it compresses to about half.
pub(crate) fn value_of(seed: u64) -> Vec<u8> {
    let words = (0..).flat_map(|i| scattered(scattered(seed) ^ i).to_le_bytes());
    let random: Vec<u8> = words.take(VALUE_BYTES / 2).collect();
    random.repeat(2)
}

/// What was set up by us does not fail, or there is nothing to be measured.
pub(crate) fn expected<T>(outcome: Result<T>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("what is measured failed: {error}"),
    }
}

/// A path beside others in a directory.
pub(crate) fn numbered_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}.tab"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_part_runs_for_as_long_as_it_is_asked_to() {
        let parts = parts();
        let names: BTreeSet<_> = parts.iter().map(|part| &part.name).collect();
        assert_eq!(names.len(), parts.len(), "two parts have one name");
        for part in &parts {
            let directory = tempfile::tempdir().unwrap();
            let mut bench = part.begin(directory.path());
            let (Work::Bytes(work) | Work::Entries(work)) = bench.work();
            assert!(work > 0, "{} does nothing", part.name);
            // Beyond what is made ready at once.
            for operations in [1, part.operations, part.operations] {
                bench.prepare(operations);
                bench.run(operations);
            }
        }
    }

    #[test]
    fn a_record_of_the_log_is_as_long_as_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let append = LogAppend::begin(directory.path());
        let Work::Bytes(bytes) = append.work() else {
            panic!("the log is measured in bytes");
        };
        assert!((135..=150).contains(&bytes), "{bytes}");
    }

    #[test]
    fn keys_stand_in_order_and_scattered_ones_do_not() {
        let ordered: Vec<_> = (0..1000).map(key_of).collect();
        assert!(ordered.is_sorted());
        let scattered: Vec<_> = (0..1000).map(scattered_key).collect();
        let distinct: BTreeSet<_> = scattered.iter().collect();
        assert!(!scattered.is_sorted() && distinct.len() == 1000);
        assert_ne!(value_of(1), value_of(2));
        assert_eq!(value_of(1).len(), VALUE_BYTES);
    }
}
