//! Commits and reads of a whole store: sequence numbers, views that are swapped, snapshots, dropped
//! keyspaces.
//!
//! Each execution opens a real store in a file system in memory. Then two or three threads write, read,
//! seal, flush and drop at the same time, through the same functions as everybody.
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::ops::{ControlFlow, Deref};
use std::sync::Arc;

use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{
    CasOutcome, Engine, Error, KeyRange, KeyspaceId, KeyspaceOptions, Reader, Timestamp,
    WriteBatch, WriteOptions,
};

use super::explore::{fails, holds, holds_within};
use crate::read::get;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Break, break_in, thread};
use crate::{BackgroundWork, Lsm, LsmOptions, Settings};

/// A small store in memory with two keyspaces.
pub(super) struct Shared {
    pub(super) fs: MemoryFileSystem,
    pub(super) lsm: Opened,
    pub(super) left: KeyspaceId,
    pub(super) right: KeyspaceId,
    /// The last number whose write was acknowledged.
    acknowledged: AtomicU64,
}

/// How each execution opens its store.
pub(super) fn options(fs: &MemoryFileSystem) -> LsmOptions {
    let settings = Settings {
        background: BackgroundWork::Manual,
        cache_bytes: Some(1 << 20),
        table_metadata_bytes: Some(1 << 20),
        log_segment_bytes: Some(64 << 10),
        latency_sample_every: 1 << 20,
        ..Settings::default()
    };
    LsmOptions::new(settings)
        .file_system(Arc::new(fs.clone()))
        .clock(Arc::new(ManualClock::new(Timestamp(1_000))))
        .random(Arc::new(SeededRandom::new(1)))
}

pub(super) const DIRECTORY: &str = "/store";

/// A store that is closed when it is dropped, but for when a model has failed: then threads stand still in
/// the middle of what they were doing, and closing would wait for them.
pub(super) struct Opened(Option<Lsm>);

impl Opened {
    pub(super) fn at(fs: &MemoryFileSystem) -> Self {
        Self(Some(Lsm::open(DIRECTORY, options(fs)).unwrap()))
    }
}

impl Deref for Opened {
    type Target = Lsm;

    fn deref(&self) -> &Lsm {
        self.0.as_ref().expect("taken only when it is dropped")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if std::thread::panicking() {
            Box::leak(Box::new(self.0.take()));
        }
    }
}

/// A store of which nobody else knows yet.
pub(super) fn open() -> Arc<Shared> {
    let fs = MemoryFileSystem::new();
    let lsm = Opened::at(&fs);
    let create = |name| {
        lsm.create_keyspace(name, &KeyspaceOptions::default())
            .unwrap()
    };
    let (left, right) = (create("left"), create("right"));
    Arc::new(Shared {
        fs,
        lsm,
        left,
        right,
        acknowledged: AtomicU64::new(0),
    })
}

impl Shared {
    /// Writes `number` under one key of both keyspaces, as one batch, and tells that it is acknowledged.
    pub(super) fn write(&self, number: u64) {
        let mut batch = WriteBatch::new();
        batch.put(self.left, b"key", &number.to_le_bytes());
        batch.put(self.right, b"key", &number.to_le_bytes());
        self.lsm.write(&batch, &WriteOptions::default()).unwrap();
        self.acknowledged.store(number, Ordering::Release);
    }

    /// Three versions of the key, in tables of their own and in memory.
    pub(super) fn write_and_flush(&self) {
        for number in 1..=2 {
            self.write(number);
            self.lsm.flush(None).unwrap();
        }
        self.write(3);
    }

    pub(super) fn compact(&self) {
        self.lsm
            .compact(self.left, KeyRange::all(), &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
    }

    /// The number under the key; 0 where there is none.
    fn read(reader: &dyn Reader, keyspace: KeyspaceId) -> u64 {
        reader
            .get(keyspace, b"key")
            .unwrap()
            .map_or(0, |value| number(&value))
    }

    /// What was acknowledged is there; later reads never see less, whichever keyspace they look at.
    fn check_progress(&self) {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let left = Self::read(&*self.lsm, self.left);
        assert!(
            left >= acknowledged,
            "wrong: an acknowledged write is not found"
        );
        let right = Self::read(&*self.lsm, self.right);
        assert!(right >= left, "wrong: half of a batch is not found");
    }

    /// A snapshot sees whole batches, and always the same.
    fn check_snapshot(&self) {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let snapshot = self.lsm.snapshot().unwrap();
        let left = Self::read(&*snapshot, self.left);
        assert!(
            left >= acknowledged,
            "wrong: an acknowledged write is not found"
        );
        let right = Self::read(&*snapshot, self.right);
        assert_eq!(left, right, "wrong: half of a batch is not found");
        let again = Self::read(&*snapshot, self.left);
        assert_eq!(left, again, "wrong: a snapshot changed");
    }

    /// As [`Shared::check_progress`], by a scan.
    fn check_scan(&self) {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let found: Vec<_> = self
            .lsm
            .scan(self.left, KeyRange::all())
            .unwrap()
            .map(|entry| number(&entry.unwrap().1))
            .collect();
        let enough = found.len() <= 1 && found.first().copied().unwrap_or(0) >= acknowledged;
        assert!(enough, "wrong: an acknowledged write is not found");
    }
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

/// Prepares a store, runs `here` in this thread and the `others` beside it, and closes the store.
pub(super) fn beside(
    prepare: fn(&Shared),
    others: &[fn(&Shared)],
    here: fn(&Shared),
) -> Arc<Shared> {
    let shared = open();
    prepare(&shared);
    let others: Vec<_> = others
        .iter()
        .map(|&other| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || other(&shared))
        })
        .collect();
    here(&shared);
    for other in others {
        other.join().unwrap();
    }
    shared
}

fn nothing(_: &Shared) {}

fn two_writes(shared: &Shared) {
    shared.write(1);
    shared.write(2);
}

#[test]
fn reads_beside_writes() {
    holds("commit: reads beside writes", [()], |()| {
        beside(nothing, &[Shared::check_progress], two_writes);
    });
}

#[test]
fn snapshots_beside_writes() {
    holds("commit: snapshots beside writes", [()], |()| {
        beside(nothing, &[Shared::check_snapshot], two_writes);
    });
}

#[test]
fn batches_beside_one_another() {
    holds("commit: batches beside one another", [()], |()| {
        let write = |shared: &Shared| {
            shared.write(1);
            shared.check_snapshot();
        };
        let shared = beside(nothing, &[write], write);
        assert_eq!(shared.lsm.latest_sequence(), 4);
        shared.check_snapshot();
    });
}

#[test]
fn writers_beside_one_another() {
    holds("commit: writers beside one another", [()], |()| {
        let add = |shared: &Shared| {
            // As a counter would be without a merge operator: read, add, write if nobody else did.
            loop {
                let before = shared.lsm.get(shared.left, b"key").unwrap();
                let next = before.as_deref().map_or(0, number) + 1;
                let outcome = shared
                    .lsm
                    .compare_and_set(
                        shared.left,
                        b"key",
                        before.as_deref(),
                        Some(&next.to_le_bytes()),
                        &WriteOptions::default(),
                    )
                    .unwrap();
                if matches!(outcome, CasOutcome::Swapped(_)) {
                    return;
                }
            }
        };
        let before = |shared: &Shared| assert_eq!(shared.lsm.latest_sequence(), 0);
        let shared = beside(before, &[add], add);
        assert_eq!(Shared::read(&*shared.lsm, shared.left), 2);
        assert_eq!(shared.lsm.latest_sequence(), 2);
    });
}

#[test]
fn reads_while_memtables_are_sealed() {
    let seal = |shared: &Shared| {
        shared.write(1);
        shared.lsm.store().seal_all().unwrap();
        shared.write(2);
    };
    for (how, read) in [
        ("look-ups", Shared::check_progress as fn(&Shared)),
        ("snapshots", Shared::check_snapshot),
        ("scans", Shared::check_scan),
    ] {
        let name = format!("commit: {how} while memtables are sealed");
        holds(&name, [(read, seal as fn(&Shared))], |(read, seal)| {
            beside(nothing, &[read], seal);
        });
    }
}

#[test]
fn reads_while_memtables_are_flushed() {
    let sealed = |shared: &Shared| {
        shared.write(1);
        shared.lsm.store().seal_all().unwrap();
    };
    let flush = |shared: &Shared| {
        while shared.lsm.background_step().unwrap() {}
    };
    for (how, read) in [
        ("look-ups", Shared::check_progress as fn(&Shared)),
        ("snapshots", Shared::check_snapshot),
    ] {
        let case = (sealed as fn(&Shared), read, flush as fn(&Shared));
        let name = format!("commit: {how} while memtables are flushed");
        holds(&name, [case], |(sealed, read, flush)| {
            beside(sealed, &[read], flush);
        });
    }
    let case = (sealed as fn(&Shared), flush as fn(&Shared));
    let name = "commit: a write while memtables are flushed";
    holds(name, [case], |(sealed, flush)| {
        let shared = beside(sealed, &[flush], |shared| shared.write(2));
        shared.check_progress();
        shared.check_snapshot();
    });
}

#[test]
fn snapshots_while_tables_are_merged() {
    holds("commit: snapshots while tables are merged", [()], |()| {
        let merge = |shared: &Shared| {
            shared.compact();
            while shared.lsm.background_step().unwrap() {}
        };
        beside(Shared::write_and_flush, &[Shared::check_snapshot], merge);
    });
}

/// A merge that asked which snapshots there are, while an ingest had published its tables and not yet its
/// sequence number, dropped what a snapshot that was taken in between needed.
#[test]
fn snapshots_while_tables_are_ingested_and_merged() {
    let name = "commit: snapshots while tables are ingested and merged";
    holds_within(1, name, [()], |()| {
        let ingest = |shared: &Shared| {
            let pairs = [(b"key", 9_u64.to_le_bytes())];
            shared.lsm.ingest(shared.left, pairs).unwrap();
        };
        let snapshot = |shared: &Shared| {
            let snapshot = shared.lsm.snapshot().unwrap();
            let first = Shared::read(&*snapshot, shared.left);
            assert!(
                [1, 9].contains(&first),
                "wrong: an acknowledged write is not found"
            );
            let again = Shared::read(&*snapshot, shared.left);
            assert_eq!(first, again, "wrong: a snapshot changed");
        };
        let one_table = |shared: &Shared| {
            shared.write(1);
            shared.lsm.flush(None).unwrap();
        };
        beside(one_table, &[ingest, snapshot], Shared::compact);
    });
}

#[test]
fn snapshots_while_a_keyspace_is_dropped() {
    holds(
        "commit: snapshots while a keyspace is dropped",
        [()],
        |()| {
            let read_twice = |shared: &Shared| {
                let snapshot = shared.lsm.snapshot().unwrap();
                match snapshot.get(shared.right, b"key") {
                    Err(Error::UnknownKeyspace { .. }) => {}
                    Ok(Some(value)) => {
                        assert_eq!(number(&value), 1);
                        let again = Shared::read(&*snapshot, shared.right);
                        assert_eq!(again, 1, "wrong: a snapshot changed");
                    }
                    other => panic!("wrong: {other:?}"),
                }
            };
            let drop_it = |shared: &Shared| shared.lsm.drop_keyspace(shared.right).unwrap();
            beside(|shared| shared.write(1), &[read_twice], drop_it);
        },
    );
}

#[test]
fn closing_beside_writes() {
    holds("commit: closing beside writes", [()], |()| {
        let close = |shared: &Shared| shared.lsm.close().unwrap();
        let write = |shared: &Shared| {
            let options = WriteOptions::default();
            let value = 7_u64.to_le_bytes();
            let written = shared.lsm.put(shared.left, b"key", &value, &options);
            match written {
                Ok(_) => shared.acknowledged.store(7, Ordering::Release),
                Err(error) => assert!(matches!(error, Error::Closed), "wrong: {error}"),
            }
        };
        let shared = beside(nothing, &[close], write);
        let acknowledged = shared.acknowledged.load(Ordering::Acquire);
        let again = Opened::at(&shared.fs);
        let found = Shared::read(&*again, shared.left);
        assert!(
            found >= acknowledged,
            "wrong: an acknowledged write is not found"
        );
    });
}

#[test]
fn visible_without_release() {
    break_in("write/commit.rs", Break::RelaxStores);
    let name = "commit: broken, commit.rs releases nothing";
    fails(name, "wrong: ", [()], |()| {
        beside(nothing, &[Shared::check_snapshot], |shared| shared.write(1));
    });
}

#[test]
fn a_view_and_a_number_that_do_not_belong_together() {
    let name = "commit: broken, readers do not look at the generation";
    fails(name, "wrong: ", [()], |()| {
        let read = |shared: &Shared| {
            let acknowledged = shared.acknowledged.load(Ordering::Acquire);
            let store = shared.lsm.store();
            let view = store.views.pin();
            let sequence = store.visible.load(Ordering::Acquire);
            let view = view.keyspace(shared.left).unwrap();
            let found = get::get(view, b"key", sequence, &*store.env.clock).unwrap();
            let found = found.as_deref().map_or(0, number);
            // What a snapshot of this number owes is the write of this number.
            assert_eq!(
                found,
                sequence / 2,
                "wrong: a write up to the number is not found"
            );
            assert!(found >= acknowledged);
        };
        beside(nothing, &[read], |shared| {
            shared.write(1);
            shared.lsm.store().seal_all().unwrap();
            shared.write(2);
        });
    });
}
