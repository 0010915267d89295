//! The wall clock jumps, by milliseconds and by centuries, forwards and backwards, between any two operations,
//! while the store is open and while it is closed. What holds under every policy (ADR 0012):
//!
//! - an entry is never visible at or after its expiry, and never is an older value visible in its place;
//! - an entry is never gone early: as long as no clock it lived under had reached its expiry, it is there;
//! - what does not expire is not touched by any clock, and FIFO drops by the order of writing alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use support::{DIRECTORY, TWO_THREADS, contents, manual, small_keyspace, threaded, value};
use vault_core::clock::ManualClock;
use vault_core::merge::COUNTER;
use vault_core::random::{Random as _, SeededRandom};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{
    Clock, CompactionPolicy, Engine, Error, KeyRange, KeyspaceId, Reader, Snapshot, Timestamp,
    WriteBatch, WriteOptions,
};
use vault_lsm::{BackgroundWork, Lsm};

const SEEDS: u64 = 24;
const STEPS: usize = 400;
const KEYS: u64 = 60;
const DAY_MS: u64 = 86_400_000;
/// In 2023.
const BEGINNING: Timestamp = Timestamp(1_700_000_000_000);

#[test]
fn random_jumps_under_every_policy() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        for background in [BackgroundWork::Manual, TWO_THREADS] {
            let mut world = World::new(seed, background);
            for step in 0..STEPS {
                world.step(
                    &mut seen,
                    &format!("seed {seed}, {background:?}, step {step}"),
                );
            }
        }
    }
    println!("{seen:?}");
    // All that is promised was seen to be put to the test.
    assert!(seen.expired > 0 && seen.back_again > 0 && seen.gone_early > 0 && seen.there > 0);
}

/// How often a reader met what.
#[derive(Debug, Default)]
struct Seen {
    there: usize,
    expired: usize,
    /// An entry whose expiry a clock had reached, seen again because the clock went back.
    back_again: usize,
    /// The same, and a compaction had removed it meanwhile.
    gone_early: usize,
}

/// The last thing written under a key.
#[derive(Debug, Clone)]
struct Written {
    value: Vec<u8>,
    expiry: Option<Timestamp>,
    /// Whether any clock since it was written had reached its expiry.
    was_reached: bool,
}

impl Written {
    fn is_expired(&self, now: Timestamp) -> bool {
        self.expiry.is_some_and(|expiry| now >= expiry)
    }
}

type Model = BTreeMap<Vec<u8>, Written>;

struct World {
    dice: SeededRandom,
    fs: MemoryFileSystem,
    background: BackgroundWork,
    clock: Arc<ManualClock>,
    store: Lsm,
    keyspaces: Vec<KeyspaceId>,
    models: Vec<Model>,
    snapshot: Option<(Arc<dyn Snapshot>, Vec<Model>)>,
    version: u64,
}

impl World {
    fn new(seed: u64, background: BackgroundWork) -> Self {
        let fs = MemoryFileSystem::new();
        let clock = Arc::new(ManualClock::new(BEGINNING));
        let store = open(&fs, background, &clock);
        let policies = [
            CompactionPolicy::LEVELED,
            CompactionPolicy::TIERED,
            // Room for all that is written: nothing may be dropped but what has expired.
            CompactionPolicy::Fifo { bytes_max: 1 << 30 },
        ];
        let create = |(number, policy)| {
            let options = small_keyspace().policy(policy);
            store
                .create_keyspace(&format!("k{number}"), &options)
                .unwrap()
        };
        let keyspaces: Vec<_> = policies.into_iter().enumerate().map(create).collect();
        Self {
            dice: SeededRandom::new(seed),
            models: vec![Model::new(); keyspaces.len()],
            snapshot: None,
            version: 0,
            fs,
            background,
            clock,
            store,
            keyspaces,
        }
    }

    fn random(&self, below: u64) -> u64 {
        let mut bytes = [0; 8];
        self.dice.fill(&mut bytes).unwrap();
        u64::from_be_bytes(bytes) % below
    }

    fn step(&mut self, seen: &mut Seen, context: &str) {
        match self.random(20) {
            0..=9 => self.write(),
            10..=12 => self.jump(),
            13 => self.store.flush(None).unwrap(),
            14 => {
                let ks = self.keyspaces[self.random(3) as usize];
                let go_on = &mut |_| ControlFlow::Continue(());
                self.store.compact(ks, KeyRange::all(), go_on).unwrap();
            }
            15 => self.store.settle().unwrap(),
            16 => {
                let models = self.models.clone();
                self.snapshot = Some((self.store.snapshot().unwrap(), models));
            }
            17 => self.snapshot = None,
            18 => self.reopen(),
            _ => {}
        }
        for (index, &ks) in self.keyspaces.iter().enumerate() {
            self.check(&self.store, ks, &self.models[index], seen, context);
            if let Some((snapshot, models)) = &self.snapshot {
                self.check(&**snapshot, ks, &models[index], seen, context);
            }
        }
    }

    fn write(&mut self) {
        let now = self.clock.now();
        for _ in 0..1 + self.random(30) {
            self.version += 1;
            let index = self.random(3) as usize;
            let ks = self.keyspaces[index];
            let number = self.random(KEYS);
            let (key, value) = (support::key(number), value(number, self.version));
            let expiry = match self.random(4) {
                0 => None,
                1 => Some(1 + self.random(1_000)),
                2 => Some(1 + self.random(30 * DAY_MS)),
                _ => Some(1 + self.random(40_000 * DAY_MS)),
            };
            let expiry = expiry.map(|ms| Timestamp((now.0 + ms).min(Timestamp::MAX.0)));
            let expiry = expiry.filter(|&expiry| expiry > now);
            let mut batch = WriteBatch::new();
            match expiry {
                Some(expiry) => batch.put_until(ks, &key, &value, expiry),
                None if self.random(4) == 0 => {
                    batch.delete(ks, &key);
                    self.store.write(&batch, &WriteOptions::default()).unwrap();
                    self.models[index].remove(&key);
                    continue;
                }
                None => batch.put(ks, &key, &value),
            };
            self.store.write(&batch, &WriteOptions::default()).unwrap();
            let written = Written {
                value,
                expiry,
                was_reached: false,
            };
            self.models[index].insert(key, written);
        }
    }

    /// Sets the clock, and notes which entries have reached their expiry by it.
    fn jump(&mut self) {
        let now = self.clock.now().0;
        let far = self.random(300 * 365 * DAY_MS);
        let near = self.random(5_000);
        let to = match self.random(7) {
            0 => now + near,
            1 => now.saturating_sub(near),
            2 => now + far,
            3 => now.saturating_sub(far),
            4 => 0,
            5 => Timestamp::MAX.0 - near,
            _ => BEGINNING.0 + self.random(60 * DAY_MS),
        };
        let to = Timestamp(to.min(Timestamp::MAX.0));
        let models = self.models.iter_mut();
        let of_snapshot = self.snapshot.iter_mut().flat_map(|(_, models)| models);
        for written in models.chain(of_snapshot).flat_map(Model::values_mut) {
            written.was_reached |= written.is_expired(to);
        }
        self.clock.set(to);
    }

    fn reopen(&mut self) {
        self.snapshot = None;
        if self.random(2) == 0 {
            self.store.close().unwrap();
        } else {
            // As the end of the process leaves it; what the handle still does is of no account.
            self.fs = self.fs.kill();
        }
        self.jump();
        self.store = open(&self.fs, self.background, &self.clock);
    }

    fn check(
        &self,
        reader: &dyn Reader,
        ks: KeyspaceId,
        model: &Model,
        seen: &mut Seen,
        context: &str,
    ) {
        let now = self.clock.now();
        let found = contents(reader, ks);
        for (key, value) in &found {
            let written = model.get(key);
            let fits = written.is_some_and(|w| w.value == *value && !w.is_expired(now));
            let key = key.escape_ascii();
            assert!(
                fits,
                "{context}: {key} at {now}, of which {written:?} was last"
            );
        }
        for (key, written) in model {
            let is_there = found.contains_key(key);
            match (is_there, written.is_expired(now), written.was_reached) {
                (true, _, false) => seen.there += 1,
                (true, _, true) => seen.back_again += 1,
                (false, true, _) => seen.expired += 1,
                (false, false, true) => seen.gone_early += 1,
                (false, false, false) => {
                    panic!(
                        "{context}: {} is gone early, at {now}: {written:?}",
                        key.escape_ascii()
                    )
                }
            }
            if self.version.is_multiple_of(5) {
                let got = reader.get(ks, key).unwrap();
                // A compaction that began under a clock past the expiry may end between the two.
                let gone_between = written.was_reached
                    && self.background != BackgroundWork::Manual
                    && is_there
                    && got.is_none();
                assert!(
                    got.is_some() == is_there || gone_between,
                    "{context}: get and scan disagree on {written:?} at {now}"
                );
            }
        }
    }
}

fn open(fs: &MemoryFileSystem, background: BackgroundWork, clock: &Arc<ManualClock>) -> Lsm {
    let options = if background == BackgroundWork::Manual {
        manual(fs)
    } else {
        threaded(fs)
    };
    Lsm::open(
        DIRECTORY,
        options.clock(Arc::clone(clock) as Arc<dyn Clock>),
    )
    .unwrap()
}

/// FIFO drops the oldest by the order of writing, though each flush seems to be older than the one before.
#[test]
fn fifo_goes_by_the_order_of_writing() {
    for backwards in [true, false] {
        let fs = MemoryFileSystem::new();
        let clock = Arc::new(ManualClock::new(Timestamp(4_000_000_000_000)));
        let store = open(&fs, BackgroundWork::Manual, &clock);
        let fifo = small_keyspace().policy(CompactionPolicy::Fifo {
            bytes_max: 200 << 10,
        });
        let ks = store.create_keyspace("fifo", &fifo).unwrap();
        for number in 0..6_000 {
            if number % 100 == 0 {
                let year = 365 * DAY_MS * (number / 100) / 2;
                clock.set(Timestamp(if backwards {
                    4_000_000_000_000 - year.min(3_999_999_999_999)
                } else {
                    4_000_000_000_000 + year
                }));
            }
            let put = store.put(
                ks,
                &support::key(number),
                &value(number, 1),
                &WriteOptions::default(),
            );
            put.unwrap();
        }
        store.settle().unwrap();
        let found = contents(&store, ks);
        assert!(found.len() > 500 && found.len() < 5_000, "{}", found.len());
        let newest = support::expected(6_000 - found.len() as u64..6_000, 1);
        assert!(found == newest, "what is left is not the newest");
    }
}

/// An expiry is judged by the clock of the moment in which it is written, wherever that is; a counter whose
/// operands expire counts those that have not.
#[test]
fn expiries_are_judged_by_the_clock_as_it_is() {
    let fs = MemoryFileSystem::new();
    let clock = Arc::new(ManualClock::new(BEGINNING));
    let store = open(&fs, BackgroundWork::Manual, &clock);
    let ks = store
        .create_keyspace("k", &small_keyspace().merge(COUNTER))
        .unwrap();
    let in_a_year = Timestamp(BEGINNING.0 + 365 * DAY_MS);
    let put = |expiry| {
        let mut batch = WriteBatch::new();
        batch.put_until(ks, b"key", b"value", expiry);
        store.write(&batch, &WriteOptions::default())
    };
    put(in_a_year).unwrap();
    clock.set(Timestamp(in_a_year.0 + 1));
    assert!(matches!(put(in_a_year), Err(Error::InvalidExpiry { .. })));
    assert_eq!(store.get(ks, b"key").unwrap(), None);
    clock.set(Timestamp(1));
    put(Timestamp(2)).unwrap();
    assert_eq!(
        store.get(ks, b"key").unwrap().as_deref(),
        Some(&b"value"[..])
    );
    clock.set(BEGINNING);
    assert_eq!(
        store.get(ks, b"key").unwrap(),
        None,
        "and not the value before it"
    );
    let count = |expiry| {
        let mut batch = WriteBatch::new();
        batch.merge_until(ks, b"count", &1_i64.to_le_bytes(), expiry);
        store.write(&batch, &WriteOptions::default()).unwrap();
    };
    let sum = || {
        let found = store.get(ks, b"count").unwrap();
        found.map_or(0, |bytes| i64::from_le_bytes(bytes[..].try_into().unwrap()))
    };
    for days in 1..=10 {
        count(Timestamp(BEGINNING.0 + days * DAY_MS));
    }
    store.flush(None).unwrap();
    for days in [3, 9, 0, 5, 12, 1] {
        clock.set(Timestamp(BEGINNING.0 + days * DAY_MS));
        // No compaction has come by, so the clock alone decides.
        assert_eq!(sum(), 10_i64.saturating_sub_unsigned(days).max(0));
    }
    // Waiting goes by the other clock, which no jump touches.
    let before = clock.monotonic();
    clock.set(Timestamp(0));
    assert_eq!(clock.monotonic().saturating_sub(before), Duration::ZERO);
    store.settle().unwrap();
}
