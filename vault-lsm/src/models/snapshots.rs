//! The registry of snapshots: a merge keeps what any reader may ask for, also one that comes meanwhile.
//!
//! An ingest publishes its table first and its sequence number then; a merge takes the table in; a reader
//! takes a snapshot and looks for the version it is owed. (The same through a whole store, with real tables,
//! is in `commit`; here the registry stands alone, so that more schedules are reached.)
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use vault_core::{SequenceNumber, Timestamp};
use vault_snapshot::visibility::{Decision, Fate, Rules, Version, VersionKind};

use super::explore::{fails, holds};
use crate::snapshot::SnapshotRegistry;
use crate::store::lock;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, thread};

const OLD: SequenceNumber = 4;
const NEW: SequenceNumber = 5;

struct Shared {
    registry: SnapshotRegistry,
    visible: AtomicU64,
    /// The versions of one key that are in tables, newest first.
    versions: Mutex<Vec<SequenceNumber>>,
}

fn put(sequence: SequenceNumber) -> Version {
    Version {
        sequence,
        kind: VersionKind::Put,
        expiry: None,
    }
}

impl Shared {
    fn ingest(&self) {
        lock(&self.versions).insert(0, NEW);
        self.visible.store(NEW, Ordering::Release);
    }

    fn merge(&self, readers: impl FnOnce(&Self) -> Vec<SequenceNumber>) {
        let inputs = lock(&self.versions).clone();
        let rules = Rules {
            snapshots: readers(self),
            bottommost: true,
            now: Timestamp(1),
        };
        let versions: Vec<Version> = inputs.iter().copied().map(put).collect();
        let mut decision = Decision::default();
        rules.decide(&versions, &[], &mut decision);
        let fates = inputs.iter().zip(&decision.fates);
        let dropped: Vec<SequenceNumber> = fates
            .filter(|(_, fate)| matches!(fate, Fate::Drop(_)))
            .map(|(&sequence, _)| sequence)
            .collect();
        lock(&self.versions).retain(|sequence| !dropped.contains(sequence));
    }

    fn read(&self) {
        let (id, sequence) = self.registry.register(&self.visible, Duration::ZERO);
        for _ in 0..2 {
            let versions = lock(&self.versions).clone();
            let found = versions.into_iter().find(|&version| version <= sequence);
            assert_eq!(found, Some(sequence), "wrong: a snapshot lost its version");
        }
        self.registry.release(id);
    }
}

/// Which moments a merge takes into account.
type Readers = fn(&Shared) -> Vec<SequenceNumber>;

fn run(readers: Readers) {
    let shared = Arc::new(Shared {
        registry: SnapshotRegistry::default(),
        visible: AtomicU64::new(OLD),
        versions: Mutex::new(vec![OLD]),
    });
    let beside = |work: fn(&Shared, Readers)| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || work(&shared, readers))
    };
    let threads = [
        beside(|shared, _| shared.ingest()),
        beside(|shared, readers| shared.merge(readers)),
    ];
    shared.read();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(shared.registry.sequences().is_empty());
}

#[test]
fn a_merge_beside_an_ingest_and_a_snapshot() {
    holds(
        "snapshots: a merge beside an ingest and a snapshot",
        [()],
        |()| {
            run(|shared| shared.registry.readers(&shared.visible));
        },
    );
}

#[test]
fn a_merge_that_asks_only_for_open_snapshots() {
    let name = "snapshots: broken, a merge asks only for open ones";
    fails(name, "wrong: ", [()], |()| {
        run(|shared| shared.registry.sequences());
    });
}

#[test]
fn a_merge_that_looks_at_now_last() {
    let name = "snapshots: broken, a merge looks at what is visible last";
    fails(name, "wrong: ", [()], |()| {
        run(|shared| {
            let mut sequences = shared.registry.sequences();
            sequences.push(shared.visible.load(Ordering::Acquire));
            sequences.sort_unstable();
            sequences.dedup();
            sequences
        });
    });
}
