//! A small bank on the whole engine, background threads included: amounts move between accounts in two
//! keyspaces while everything else goes on.
//!
//! The sum over all accounts is the same in every snapshot, what was acknowledged is found, and the store
//! ends: it settles, closes, and opens again with all of it.
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::vfs::FileSystem;
use vault_core::{
    CompactionPolicy, Durability, Engine, KeyRange, KeyspaceId, KeyspaceOptions, Reader, Timestamp,
    WriteBatch, WriteOptions,
};

use crate::sync::thread;
use crate::{BackgroundWork, Lsm, LsmOptions, Settings};

pub(super) const ACCOUNTS: u64 = 4;
pub(super) const EACH: u64 = 100;
/// So long that three or four moves fill a memtable.
const VALUE_BYTES: usize = 700;

/// Where a store lies, and how it is opened.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) fs: Arc<dyn FileSystem>,
    /// Holds the store and the checkpoint.
    pub(super) directory: PathBuf,
    pub(super) cache_bytes: u64,
    /// Moves that each writer makes, at most [`EACH`].
    pub(super) moves: u64,
}

impl Place {
    pub(super) fn options(&self) -> LsmOptions {
        let settings = Settings {
            background: BackgroundWork::Threads { compaction: 1 },
            cache_bytes: Some(self.cache_bytes),
            table_metadata_bytes: Some(64 << 10),
            log_segment_bytes: Some(64 << 10),
            ..Settings::default()
        };
        LsmOptions::new(settings)
            .file_system(Arc::clone(&self.fs))
            .clock(Arc::new(ManualClock::new(Timestamp(1_000))))
            .random(Arc::new(SeededRandom::new(1)))
    }

    pub(super) fn open(&self) -> Lsm {
        Lsm::open(self.directory.join("store"), self.options()).unwrap()
    }
}

pub(super) struct Bank {
    place: Place,
    pub(super) lsm: Lsm,
    pub(super) left: KeyspaceId,
    pub(super) right: KeyspaceId,
}

fn small_keyspace() -> KeyspaceOptions {
    let options = KeyspaceOptions {
        write_buffer_bytes: 4 << 10,
        table_bytes: 4 << 10,
        block_bytes: 1 << 10,
        ..KeyspaceOptions::default()
    };
    options.policy(CompactionPolicy::Leveled {
        level0_runs: 2,
        base_bytes: 8 << 10,
        fanout: 2,
    })
}

pub(super) fn key(account: u64) -> [u8; 8] {
    account.to_be_bytes()
}

pub(super) fn amount(of: u64) -> Vec<u8> {
    let mut value = of.to_le_bytes().to_vec();
    value.resize(VALUE_BYTES, of as u8);
    value
}

fn read_amount(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

pub(super) fn sum(reader: &dyn Reader, keyspaces: &[KeyspaceId], backwards: bool) -> u64 {
    let mut sum = 0;
    for &keyspace in keyspaces {
        let scan = reader.scan(keyspace, KeyRange::all()).unwrap();
        let amounts: Vec<u64> = if backwards {
            scan.rev().map(|e| read_amount(&e.unwrap().1)).collect()
        } else {
            scan.map(|e| read_amount(&e.unwrap().1)).collect()
        };
        assert_eq!(amounts.len() as u64, ACCOUNTS);
        sum += amounts.iter().sum::<u64>();
    }
    sum
}

impl Bank {
    pub(super) fn open(place: &Place) -> Self {
        Self::begin(place, place.open())
    }

    /// Fills a store that has just been opened.
    pub(super) fn begin(place: &Place, lsm: Lsm) -> Self {
        let [left, right] =
            ["left", "right"].map(|name| lsm.create_keyspace(name, &small_keyspace()).unwrap());
        let mut batch = WriteBatch::new();
        for account in 0..ACCOUNTS {
            batch.put(left, &key(account), &amount(EACH));
            batch.put(right, &key(account), &amount(EACH));
        }
        lsm.write(&batch, &WriteOptions::default()).unwrap();
        let place = place.clone();
        Self {
            place,
            lsm,
            left,
            right,
        }
    }

    /// Moves one from left to right, over and over. Each writer has an account of its own.
    pub(super) fn move_on(&self, account: u64, durability: Durability) {
        let options = WriteOptions {
            durability: Some(durability),
        };
        for moved in 1..=self.place.moves {
            let mut batch = WriteBatch::new();
            batch.put(self.left, &key(account), &amount(EACH - moved));
            batch.put(self.right, &key(account), &amount(EACH + moved));
            self.lsm.write(&batch, &options).unwrap();
            let found = self.lsm.get(self.left, &key(account)).unwrap().unwrap();
            assert_eq!(read_amount(&found), EACH - moved, "an acknowledged write");
        }
    }

    pub(super) fn check_snapshots(&self) {
        for round in 0..6 {
            let snapshot = self.lsm.snapshot().unwrap();
            for backwards in [false, true] {
                let sum = sum(&*snapshot, &[self.left, self.right], backwards);
                assert_eq!(
                    sum,
                    2 * ACCOUNTS * EACH,
                    "round {round}, backwards: {backwards}"
                );
            }
        }
    }

    pub(super) fn compact(&self) {
        let all = KeyRange::all();
        self.lsm.flush(None).unwrap();
        self.lsm
            .compact(self.left, all, &mut |_| ControlFlow::Continue(()))
            .unwrap();
    }

    /// A checkpoint is a store of its own, of one moment.
    pub(super) fn check_checkpoint(&self) {
        let path = self.place.directory.join("checkpoint");
        self.lsm.checkpoint(&path).unwrap();
        let copy = Lsm::open_read_only(&path, &self.place.options()).unwrap();
        assert_eq!(
            sum(&copy, &[self.left, self.right], false),
            2 * ACCOUNTS * EACH
        );
        copy.close().unwrap();
    }

    /// A keyspace of its own, filled past the log. A snapshot still reads it after it was dropped.
    pub(super) fn create_ingest_and_drop(&self) {
        let keyspace = self
            .lsm
            .create_keyspace("other", &small_keyspace())
            .unwrap();
        let pairs = (0..ACCOUNTS).map(|account| (key(account), amount(EACH)));
        self.lsm.ingest(keyspace, pairs).unwrap();
        let options = WriteOptions::default();
        self.lsm
            .put(keyspace, &key(0), &amount(EACH), &options)
            .unwrap();
        let snapshot = self.lsm.snapshot().unwrap();
        self.lsm.drop_keyspace(keyspace).unwrap();
        for _ in 0..2 {
            assert_eq!(sum(&*snapshot, &[keyspace], false), ACCOUNTS * EACH);
        }
    }

    fn check_after_all(&self, writers: u64) {
        for account in 0..writers {
            let found = self.lsm.get(self.right, &key(account)).unwrap().unwrap();
            assert_eq!(
                read_amount(&found),
                EACH + self.place.moves,
                "an acknowledged write"
            );
        }
        let both = [self.left, self.right];
        assert_eq!(sum(&self.lsm, &both, false), 2 * ACCOUNTS * EACH);
    }
}

/// Runs each of `works` in a thread of its own, then checks that the store ends well.
pub(super) fn run(place: &Place, works: &[fn(&Bank)], writers: u64) {
    let bank = Arc::new(Bank::open(place));
    let threads: Vec<_> = works
        .iter()
        .map(|&work| {
            let bank = Arc::clone(&bank);
            thread::spawn(move || work(&bank))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    bank.check_after_all(writers);
    bank.lsm.settle().unwrap();
    bank.check_after_all(writers);
    assert!(
        bank.lsm.stats().unwrap().background.flushes > 0,
        "memtables are too large"
    );
    bank.lsm.close().unwrap();
    let again = Bank {
        place: place.clone(),
        lsm: place.open(),
        left: bank.left,
        right: bank.right,
    };
    again.check_after_all(writers);
    again.lsm.close().unwrap();
}
