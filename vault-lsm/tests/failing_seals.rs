//! A record that cannot be sealed after its batch has a place in the log and stands in the memtables: the store is read-only
//! from there on, shows nothing of it, and whatever comes next, what was acknowledged is there at the next opening.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use support::{DIRECTORY, contents, expected, key, manual, put_all, small_keyspace};
use vault_core::transform::{
    BlockIdentity, BlockTransform, ChecksumTransform, FileHeader, FileKind, Protection, StorePlace,
    Transform, Unopened,
};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, Error, KeyspaceId, Result, WriteBatch, WriteOptions};
use vault_lsm::Lsm;

const SOUND: u8 = 0;
const FAILS: u8 = 1;
const PANICS: u8 = 2;

/// Checksums for everybody, but records of the log are sealed as the test wants.
#[derive(Debug, Clone, Default)]
struct Moody(Arc<AtomicU8>);

impl Moody {
    fn be(&self, mood: u8) {
        self.0.store(mood, Ordering::SeqCst);
    }
}

impl Protection for Moody {
    fn create(&self, _: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        Ok(Arc::new(self.clone()))
    }

    fn open(&self, _: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        Ok(Arc::new(self.clone()))
    }
}

impl Transform for Moody {
    fn id(&self) -> u16 {
        ChecksumTransform::ID
    }

    fn create(&self, header: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        let is_log = header.identity.kind == FileKind::Log;
        let blocks = ChecksumTransform.create(header)?;
        Ok(if is_log {
            Arc::new(MoodyBlocks(blocks, Arc::clone(&self.0)))
        } else {
            blocks
        })
    }

    fn open(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        ChecksumTransform.open(header)
    }
}

#[derive(Debug)]
struct MoodyBlocks(Arc<dyn BlockTransform>, Arc<AtomicU8>);

impl BlockTransform for MoodyBlocks {
    fn overhead(&self) -> usize {
        self.0.overhead()
    }

    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        match self.1.load(Ordering::SeqCst) {
            SOUND => self.0.seal(block, buffer, start),
            FAILS => Err(Error::ReadOnly),
            _ => panic!("as the test wants"),
        }
    }

    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        self.0.open(block, sealed)
    }
}

fn is_poisoned<T: std::fmt::Debug>(outcome: &Result<T>, what: &str) {
    assert!(
        matches!(outcome, Err(Error::Poisoned { .. })),
        "{what}: {outcome:?}"
    );
}

/// A store with ten entries in memory, and a write that was begun in vain.
fn store_with_a_hole(fs: &MemoryFileSystem, mood: u8) -> (Lsm, KeyspaceId) {
    let moody = Moody::default();
    let protected = manual(fs).protection(Arc::new(moody.clone()));
    let store = Lsm::open(DIRECTORY, protected).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..10, 1);
    moody.be(mood);
    let in_vain = || store.put(ks, &key(10), b"in vain", &WriteOptions::default());
    let outcome = catch_unwind(AssertUnwindSafe(in_vain));
    match outcome {
        Ok(outcome) => is_poisoned(&outcome, "the write"),
        Err(_) => assert_eq!(mood, PANICS),
    }
    moody.be(SOUND);
    (store, ks)
}

#[test]
fn nothing_of_it_is_seen_and_nothing_acknowledged_is_lost() {
    type Next = fn(&Lsm, KeyspaceId) -> Result<()>;
    let nexts: [(&str, Next); 9] = [
        ("nothing", |_, _| {
            Err(Error::Poisoned {
                cause: Arc::new(Error::ReadOnly),
            })
        }),
        ("put", |store, ks| {
            store
                .put(ks, &key(11), b"behind it", &WriteOptions::default())
                .map(drop)
        }),
        ("an empty batch", |store, _| {
            store
                .write(&WriteBatch::new(), &WriteOptions::default())
                .map(drop)
        }),
        ("compare and set", |store, ks| {
            store
                .compare_and_set(ks, &key(11), None, Some(b"x"), &WriteOptions::default())
                .map(drop)
        }),
        ("ingest", |store, ks| {
            store.ingest(ks, [(key(20), b"x")]).map(drop)
        }),
        ("flush", |store, _| store.flush(None)),
        ("checkpoint", |store, _| {
            store.checkpoint("/elsewhere").map(drop)
        }),
        ("create", |store, _| {
            store.create_keyspace("more", &small_keyspace()).map(drop)
        }),
        ("drop", |store, ks| store.drop_keyspace(ks)),
    ];
    for mood in [FAILS, PANICS] {
        for (name, next) in nexts {
            for closing in [true, false] {
                let fs = MemoryFileSystem::new();
                let (store, ks) = store_with_a_hole(&fs, mood);
                assert_eq!(contents(&store, ks), expected(0..10, 1), "{name}");
                let outcome = next(&store, ks);
                // Where the thread is gone, the next that has to do with the log finds out.
                if !(mood == PANICS && name == "create" && outcome.is_ok()) {
                    is_poisoned(&outcome, name);
                }
                assert_eq!(contents(&store, ks), expected(0..10, 1), "{name}");
                let left = if closing {
                    store.close().unwrap();
                    fs.clone()
                } else {
                    fs.kill()
                };
                let again = Lsm::open(DIRECTORY, manual(&left)).unwrap();
                let ks = again.keyspace("k").unwrap().unwrap();
                assert_eq!(contents(&again, ks), expected(0..10, 1), "{name}");
                put_all(&again, ks, 10..20, 2);
                again.close().unwrap();
            }
        }
    }
}
