//! A store that is locked and resumed over and over, beside writers, readers, flushes, compactions and closing.
//!
//! The keys are an assertion: whatever seals or opens a block while they are wiped is refused, as with real ones. Each call
//! may be refused, nothing that was acknowledged may be missing, and after a lock nothing decoded may be in the cache.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use vault_core::transform::{
    BlockIdentity, BlockTransform, ChecksumTransform, FileHeader, Keys, Protection, StorePlace,
    Transform, Unopened,
};
use vault_core::{Durability, Engine, Error, KeyRange, Reader, Result, WriteBatch, WriteOptions};

use super::bank::{ACCOUNTS, Bank, EACH, amount, key, sum};
use super::engine::{fails, holds, place};
use crate::Lsm;
use crate::sync::thread;

/// Keys that are there, or are not.
#[derive(Debug, Default)]
struct Gate {
    locked: AtomicBool,
    /// Blocks that were asked for while there were no keys.
    refused: AtomicU64,
}

#[derive(Debug, Clone)]
struct Gated(Arc<Gate>);

struct GatedBlocks {
    gate: Arc<Gate>,
    blocks: Arc<dyn BlockTransform>,
}

impl Protection for Gated {
    fn create(&self, _: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        self.0.locked.store(false, SeqCst);
        Ok(Arc::new(self.clone()))
    }

    fn open(&self, place: &StorePlace<'_>) -> Result<Arc<dyn Transform>> {
        Protection::create(self, place)
    }
}

impl Gated {
    fn blocks(&self, blocks: Arc<dyn BlockTransform>) -> Arc<dyn BlockTransform> {
        Arc::new(GatedBlocks {
            gate: Arc::clone(&self.0),
            blocks,
        })
    }
}

impl Transform for Gated {
    fn id(&self) -> u16 {
        ChecksumTransform::ID
    }

    fn create(&self, header: &mut FileHeader) -> Result<Arc<dyn BlockTransform>> {
        if self.0.is_locked() {
            return Err(Error::Locked);
        }
        ChecksumTransform.create(header).map(|b| self.blocks(b))
    }

    fn open(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        ChecksumTransform.open(header).map(|b| self.blocks(b))
    }

    fn keys(&self) -> Option<&dyn Keys> {
        Some(&*self.0)
    }
}

impl fmt::Debug for GatedBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.gate.fmt(f)
    }
}

impl BlockTransform for GatedBlocks {
    fn overhead(&self) -> usize {
        self.blocks.overhead()
    }

    fn seal(&self, block: &BlockIdentity, buffer: &mut Vec<u8>, start: usize) -> Result<()> {
        if self.gate.is_locked() {
            self.gate.refused.fetch_add(1, SeqCst);
            return Err(Error::Locked);
        }
        self.blocks.seal(block, buffer, start)
    }

    fn open<'a>(&self, block: &BlockIdentity, sealed: &'a mut [u8]) -> Result<&'a [u8], Unopened> {
        if self.gate.is_locked() {
            self.gate.refused.fetch_add(1, SeqCst);
            return Err(Unopened::Locked);
        }
        self.blocks.open(block, sealed)
    }
}

impl Keys for Gate {
    fn has_domain(&self, _: u32) -> Result<bool> {
        Ok(true)
    }

    fn version(&self) -> u64 {
        1
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn add_domain(&self, _: u32) -> Result<()> {
        Ok(())
    }

    fn keep_domains(&self, _: &[u32]) -> Result<()> {
        Ok(())
    }

    fn begin_epoch(&self) -> Result<u32> {
        Ok(1)
    }

    fn retire_epochs(&self, _: u32) -> Result<u32> {
        Ok(0)
    }

    fn copied(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn lock(&self) {
        self.locked.store(true, SeqCst);
    }

    fn is_locked(&self) -> bool {
        self.locked.load(SeqCst)
    }
}

/// What the threads of a model share.
struct Locked {
    bank: Bank,
    gate: Arc<Gate>,
    /// The last amount of account 0 that was acknowledged.
    acknowledged: AtomicU64,
}

fn begin() -> (Arc<Locked>, impl Fn() -> Lsm) {
    let place = place();
    let gated = Gated(Arc::default());
    let (gate, directory) = (Arc::clone(&gated.0), place.directory.join("store"));
    let options = place.options();
    let open = move || {
        let options = options.clone().protection(Arc::new(gated.clone()));
        Lsm::open(&directory, options).expect("nothing is wrong with it")
    };
    let locked = Locked {
        bank: Bank::begin(&place, open()),
        gate,
        acknowledged: AtomicU64::new(EACH),
    };
    (Arc::new(locked), open)
}

impl Locked {
    fn write(&self) -> Result<()> {
        let bank = &self.bank;
        for moved in 1..=8 {
            let mut batch = WriteBatch::new();
            batch.put(bank.left, &key(0), &amount(EACH - moved));
            batch.put(bank.right, &key(0), &amount(EACH + moved));
            let options = WriteOptions {
                durability: Some(Durability::Sync),
            };
            if tolerated(bank.lsm.write(&batch, &options))?.is_some() {
                self.acknowledged.store(EACH - moved, SeqCst);
            }
        }
        Ok(())
    }

    fn read(&self) -> Result<()> {
        let bank = &self.bank;
        for _ in 0..4 {
            let Some(snapshot) = tolerated(bank.lsm.snapshot())? else {
                continue;
            };
            let mut total = 0;
            let mut whole = true;
            for keyspace in [bank.left, bank.right] {
                for account in 0..ACCOUNTS {
                    match tolerated(snapshot.get(keyspace, &key(account)))? {
                        Some(found) => {
                            let found = found.expect("accounts are never closed");
                            let amount = found[..8].try_into().expect("an amount");
                            total += u64::from_le_bytes(amount);
                        }
                        None => whole = false,
                    }
                }
            }
            assert!(!whole || total == 2 * ACCOUNTS * EACH, "a sum of {total}");
        }
        Ok(())
    }

    fn work(&self) -> Result<()> {
        let bank = &self.bank;
        tolerated(bank.lsm.flush(None))?;
        let go_on = &mut |_| ControlFlow::Continue(());
        tolerated(bank.lsm.compact(bank.left, KeyRange::all(), go_on))?;
        Ok(())
    }

    fn lock_and_resume(&self) -> Result<()> {
        for _ in 0..3 {
            self.bank.lsm.lock()?;
            assert!(self.gate.is_locked(), "there are keys after the lock");
            assert_eq!(self.bank.lsm.stats()?.cache.bytes, 0, "decoded blocks stay");
            let get = self.bank.lsm.get(self.bank.left, &key(0));
            assert!(matches!(get, Err(Error::Locked | Error::Closed)));
            self.gate.locked.store(false, SeqCst);
            self.bank.lsm.resume()?;
        }
        Ok(())
    }
}

/// What a call gave; `None` where it was refused because of the lock.
fn tolerated<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::Locked) => Ok(None),
        Err(error) => Err(error),
    }
}

type Work = fn(&Locked) -> Result<()>;

/// Runs each of `works` in a thread of its own, and opens the store again. A store that is closed meanwhile refuses all.
fn run(works: &[Work]) {
    let (locked, open) = begin();
    let threads: Vec<_> = works
        .iter()
        .map(|&work| {
            let locked = Arc::clone(&locked);
            thread::spawn(move || match work(&locked) {
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => panic!("locking showed as {error}"),
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("it has not panicked");
    }
    locked.bank.lsm.close().expect("nothing is wrong with it");
    let again = open();
    let both = [locked.bank.left, locked.bank.right];
    assert_eq!(sum(&again, &both, false), 2 * ACCOUNTS * EACH);
    let found = again.get(both[0], &key(0)).expect("it is open");
    let found = found.expect("accounts are never closed");
    let left = u64::from_le_bytes(found[..8].try_into().expect("an amount"));
    let acknowledged = locked.acknowledged.load(SeqCst);
    assert!(left <= acknowledged, "an acknowledged write is missing");
    again.close().expect("nothing is wrong with it");
}

#[test]
fn locking_beside_everything() {
    holds("engine: locking beside everything", || {
        run(&[
            Locked::write,
            Locked::read,
            Locked::work,
            Locked::lock_and_resume,
        ]);
    });
}

#[test]
fn locking_beside_locking_and_closing() {
    holds("engine: locking beside locking and closing", || {
        let lock: Work = |locked| locked.bank.lsm.lock();
        let close: Work = |locked| locked.bank.lsm.close();
        run(&[Locked::write, Locked::work, lock, lock, close]);
    });
}

#[test]
fn keys_that_are_wiped_without_a_lock() {
    // What is read after that is refused by the keys alone; what was decoded stays.
    let name = "engine: broken, keys wiped behind the engine's back";
    fails(name, "decoded blocks stay", || {
        let wipe: Work = |locked| {
            locked.work()?;
            locked.read()?;
            locked.gate.lock();
            let cached = locked.bank.lsm.stats()?.cache.bytes;
            locked.gate.locked.store(false, SeqCst);
            assert_eq!(cached, 0, "decoded blocks stay");
            Ok(())
        };
        run(&[Locked::write, wipe]);
    });
}
