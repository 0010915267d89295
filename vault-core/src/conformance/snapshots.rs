//! Snapshots: frozen, whole, owned.

use std::sync::atomic::{AtomicBool, Ordering};

use super::harness::{Fixture, Harness, assert_refused, backward, forward, got, keys};
use crate::batch::WriteBatch;
use crate::engine::{Engine, KeyspaceId};
use crate::error::Error;
use crate::options::WriteOptions;
use crate::range::KeyRange;

/// A snapshot sees what was there when it was taken, through every kind of later write.
pub fn snapshots_stay_frozen<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", crate::merge::APPEND);
    let empty = f.snapshot().unwrap();
    for key in b"abcdef" {
        f.set(ks, &[*key], b"1");
    }
    f.settle();
    let full = f.snapshot().unwrap();
    assert_eq!(full.sequence(), f.latest_sequence());
    let frozen = forward(&*full, ks, KeyRange::all());
    assert_eq!(frozen.len(), 6);
    f.batch(|b| {
        b.put(ks, b"a", b"2").delete(ks, b"b").merge(ks, b"c", b"2");
        b.delete_range(ks, b"d", b"f").put(ks, b"g", b"new");
    });
    for _ in 0..2 {
        assert_eq!(forward(&*full, ks, KeyRange::all()), frozen);
        assert_eq!(backward(&*full, ks, KeyRange::all()).len(), 6);
        assert_eq!(got(&*full, ks, b"b").unwrap(), b"1");
        assert_eq!(got(&*full, ks, b"c").unwrap(), b"1");
        assert_eq!(got(&*full, ks, b"g"), None);
        assert!(keys(&*empty, ks).is_empty());
        let now = forward(&*f, ks, KeyRange::all());
        let now: Vec<_> = now.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let expected: [(&[u8], &[u8]); 4] =
            [(b"a", b"2"), (b"c", b"12"), (b"f", b"1"), (b"g", b"new")];
        assert_eq!(now, expected);
        f.settle();
        f.compact_all(ks);
    }
}

/// Many snapshots at once, let go in another order than taken, each with its own moment.
pub fn snapshots_in_any_number_and_order<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let mut open = Vec::new();
    for round in 0..30_u8 {
        f.set(ks, b"same", &[round]);
        f.set(ks, &[round], b"");
        open.push((round, f.snapshot().unwrap()));
        if round % 10 == 9 {
            f.settle();
        }
    }
    let random = crate::random::SeededRandom::new(3);
    while !open.is_empty() {
        for (round, snapshot) in &open {
            assert_eq!(got(&**snapshot, ks, b"same").unwrap(), [*round]);
            assert_eq!(keys(&**snapshot, ks).len(), usize::from(*round) + 2);
        }
        open.swap_remove(random.below(open.len() as u64) as usize);
        f.set(ks, b"same", b"latest");
        if open.len() % 10 == 0 {
            f.compact_all(ks);
        }
    }
    assert_eq!(got(&*f, ks, b"same").unwrap(), b"latest");
}

/// Writers keep two keys in two keyspaces equal and a sum constant: no reader ever sees them otherwise,
/// and a snapshot sees one state however long it is held.
pub fn no_torn_batch_is_ever_seen<H: Harness>(harness: &H) {
    const ACCOUNTS: u8 = 10;
    const TOTAL: u64 = 1_000;
    const READS: usize = 150;
    let f = Fixture::new(harness);
    let (left, right) = (f.plain("left"), f.plain("right"));
    f.batch(|b| {
        b.put(left, b"twin", &[0; 8]).put(right, b"twin", &[0; 8]);
        for account in 0..ACCOUNTS {
            let each = TOTAL / u64::from(ACCOUNTS);
            b.put(left, &[account], &each.to_be_bytes());
        }
    });
    let done = AtomicBool::new(false);
    let engine: &dyn Engine = &*f;
    std::thread::scope(|scope| {
        // One writer moves amounts between accounts, others set the twins.
        scope.spawn(|| move_amounts(engine, left, ACCOUNTS, &done));
        for writer in 0..2_u64 {
            let done = &done;
            scope.spawn(move || {
                let mut round = writer;
                while !done.load(Ordering::Relaxed) {
                    let mut batch = WriteBatch::new();
                    batch.put(left, b"twin", &round.to_be_bytes());
                    batch.put(right, b"twin", &round.to_be_bytes());
                    engine.write(&batch, &WriteOptions::default()).unwrap();
                    round += 2;
                }
            });
        }
        // Readers stop the writers, also where they fail.
        let _stop = StopWhenDropped(&done);
        for _ in 0..READS {
            let snapshot = engine.snapshot().unwrap();
            let twins = || {
                (
                    got(&*snapshot, left, b"twin"),
                    got(&*snapshot, right, b"twin"),
                )
            };
            let sum = || {
                let accounts = forward(&*snapshot, left, KeyRange::from(..&[ACCOUNTS][..]));
                assert_eq!(accounts.len(), usize::from(ACCOUNTS));
                accounts.iter().map(|(_, value)| amount(value)).sum::<u64>()
            };
            let first = twins();
            assert_eq!(first.0, first.1, "half a batch was seen");
            assert_eq!(sum(), TOTAL, "half a batch was seen");
            std::thread::yield_now();
            assert_eq!(twins(), first, "a snapshot has changed");
            assert_eq!(sum(), TOTAL);
            // A scan through the engine sees one moment too, and so does a multi-get.
            let accounts = forward(engine, left, KeyRange::from(..&[ACCOUNTS][..]));
            let sum: u64 = accounts.iter().map(|(_, value)| amount(value)).sum();
            assert_eq!(sum, TOTAL, "a scan saw half a batch");
            let names: Vec<[u8; 1]> = (0..ACCOUNTS).map(|account| [account]).collect();
            let names: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
            let values = engine.multi_get(left, &names).unwrap();
            let sum: u64 = values.iter().map(|v| amount(v.as_ref().unwrap())).sum();
            assert_eq!(sum, TOTAL, "a multi-get saw half a batch");
        }
    });
}

struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn amount(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

fn move_amounts(engine: &dyn Engine, ks: KeyspaceId, accounts: u8, done: &AtomicBool) {
    let random = crate::random::SeededRandom::new(5);
    while !done.load(Ordering::Relaxed) {
        let from = [random.below(u64::from(accounts)) as u8];
        let to = [random.below(u64::from(accounts)) as u8];
        if from == to {
            continue;
        }
        let balance = |key| amount(&got(engine, ks, key).unwrap());
        let moved = random.below(balance(&from) + 1);
        let mut batch = WriteBatch::new();
        batch.put(ks, &from, &(balance(&from) - moved).to_be_bytes());
        batch.put(ks, &to, &(balance(&to) + moved).to_be_bytes());
        engine.write(&batch, &WriteOptions::default()).unwrap();
    }
}

/// Snapshots, cursors and scans own what they read: they outlive the handle they came from, and move
/// to other threads.
pub fn snapshots_outlive_their_handle<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for i in 0..100_u8 {
        f.set(ks, &[i], &[i; 50]);
    }
    let (snapshot, mut cursor, scan) = {
        let handle = f.harness.engine(&f.store);
        let snapshot = handle.snapshot().unwrap();
        let mut cursor = handle.cursor(ks, KeyRange::all()).unwrap();
        cursor.seek(&[50]).unwrap();
        let mut scan = snapshot.scan(ks, KeyRange::all()).unwrap();
        scan.next().unwrap().unwrap();
        (snapshot, cursor, scan)
    };
    f.batch(|b| {
        b.delete_prefix(ks, b"");
    });
    f.settle();
    let thread = std::thread::spawn(move || {
        assert_eq!(cursor.entry().unwrap().0, [50]);
        cursor.next().unwrap();
        assert_eq!(cursor.entry().unwrap(), (&[51][..], &[51; 50][..]));
        assert_eq!(scan.count(), 99);
        assert_eq!(keys(&*snapshot, ks).len(), 100);
        snapshot
    });
    let snapshot = thread.join().unwrap();
    assert_eq!(got(&*snapshot, ks, &[7]).unwrap(), [7; 50]);
    assert!(keys(&*f, ks).is_empty());
}

/// One snapshot serves several threads at once.
pub fn one_snapshot_on_many_threads<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    for i in 0..200_u8 {
        f.set(ks, &[i], &[i]);
    }
    let snapshot = f.snapshot().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(keys(&*snapshot, ks).len(), 200);
                assert_eq!(got(&*snapshot, ks, &[9]).unwrap(), [9]);
            });
        }
        f.batch(|b| {
            b.delete_prefix(ks, b"");
        });
        f.settle();
    });
}

/// A dropped keyspace stays readable through what was opened before, and only there.
pub fn snapshots_keep_dropped_keyspaces<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", crate::merge::APPEND);
    f.set(ks, b"a", b"1");
    f.settle();
    f.batch(|b| {
        b.merge(ks, b"a", b"2").put(ks, b"b", b"");
    });
    let before = f.snapshot().unwrap();
    let mut cursor = f.cursor(ks, KeyRange::all()).unwrap();
    f.drop_keyspace(ks).unwrap();
    let after = f.snapshot().unwrap();
    f.settle();
    let again = f.plain("k");
    f.set(again, b"c", b"");
    f.settle();
    assert_eq!(got(&*before, ks, b"a").unwrap(), b"12");
    assert_eq!(keys(&*before, ks).len(), 2);
    cursor.last().unwrap();
    assert_eq!(cursor.entry().unwrap().0, b"b");
    let mut fork = cursor.fork().unwrap();
    fork.first().unwrap();
    assert_eq!(fork.entry().unwrap(), (&b"a"[..], &b"12"[..]));
    assert_refused!(after.get(ks, b"a"), Error::UnknownKeyspace { .. });
    assert_refused!(f.get(ks, b"a"), Error::UnknownKeyspace { .. });
    assert_eq!(keys(&*f, again), [b"c".to_vec()]);
}
