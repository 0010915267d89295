//! The same operations under other options give the same history.
//!
//! A plan's reads and writes are carried out on the engine in memory and on stores whose settings and keyspace
//! options are chosen at random: size of blocks, memtables, tables and log, compaction policy, compression,
//! filters, a cipher or none, a cache of almost nothing, background work by hand or by one or eight threads, files in memory
//! or on a disk. None of that may show in any answer: every lookup, scan, cursor move, compare-and-set and
//! sequence number is compared, step by step. Clocks stand still but for the plan's jumps, which here only
//! go forward: what a clock that goes back may show depends on what was merged meanwhile.
//! (The idea is Pebble's.)

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use vault_core::clock::{Clock, ManualClock};
use vault_core::transform::Protection;
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{
    CompactionPolicy, Cursor, Engine, KeyspaceId, KeyspaceOptions, MemoryEngine, Reader, Snapshot,
    Timestamp, WriteBatch, WriteOptions,
};
use vault_crypto::source::RawKey;
use vault_crypto::{Algorithm, EncryptedProtection};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};
use vault_sim::oracle::operators;
use vault_sim::plan::{
    ClockMove, Dice, Expectation, Move, Operation, SLOTS, Slot, Source, Wanted, batch, ingest_pairs,
};
use vault_sim::{Journal, Plan};

const PLANS: u64 = 8;
/// Option sets that each plan is carried out under, beside the engine in memory.
const VARIANTS: u64 = 6;
const OPERATIONS: usize = 520;
const START: Timestamp = Timestamp(1_700_000_000_000);

/// What one operation answered.
#[derive(PartialEq, Eq)]
struct Answer {
    operation: String,
    found: Vec<String>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.operation)?;
        self.found
            .iter()
            .try_for_each(|line| writeln!(f, "    {line}"))
    }
}

/// An engine under one set of options.
struct Subject {
    engine: Arc<dyn Engine>,
    /// Where the engine is one that can ingest, do steps, and be closed and opened.
    store: Option<(Lsm, LsmOptions, String)>,
    /// Where the store is encrypted.
    protection: Option<Arc<EncryptedProtection>>,
    clock: Arc<ManualClock>,
    /// The options of keyspaces as they are created here.
    dice: Dice,
    varied: bool,
    slots: [Option<(u32, KeyspaceOptions)>; SLOTS as usize],
    snapshots: Vec<(Arc<dyn Snapshot>, Vec<u32>)>,
    /// With the keyspaces that they read.
    cursors: Vec<(Box<dyn Cursor>, u32)>,
}

impl Subject {
    fn in_memory() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let engine = MemoryEngine::new()
            .with_clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .with_merge_operators(operators());
        Self::new(Arc::new(engine), None, clock, Dice::new(0), false)
    }

    fn on(
        fs: Arc<dyn FileSystem>,
        directory: String,
        settings: Settings,
        cipher: Option<Algorithm>,
        dice: Dice,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let mut options = LsmOptions::new(settings)
            .file_system(fs)
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .merge_operator(Arc::new(Journal));
        let protection = cipher.map(|algorithm| {
            let protection = EncryptedProtection::with_source(Arc::new(key()));
            Arc::new(protection.algorithm(algorithm))
        });
        if let Some(protection) = &protection {
            options = options.protection(Arc::clone(protection) as Arc<dyn Protection>);
        }
        let store = Lsm::open(&directory, options.clone()).unwrap();
        let engine = Arc::new(store.clone());
        Self {
            protection,
            ..Self::new(engine, Some((store, options, directory)), clock, dice, true)
        }
    }

    fn new(
        engine: Arc<dyn Engine>,
        store: Option<(Lsm, LsmOptions, String)>,
        clock: Arc<ManualClock>,
        dice: Dice,
        varied: bool,
    ) -> Self {
        Self {
            engine,
            store,
            protection: None,
            clock,
            dice,
            varied,
            slots: Default::default(),
            snapshots: Vec::new(),
            cursors: Vec::new(),
        }
    }

    /// What a keyspace is created with: the plan says what it does, chance how.
    fn options(&mut self, of_plan: &KeyspaceOptions) -> KeyspaceOptions {
        if !self.varied {
            return of_plan.clone();
        }
        let mut options = Plan::choose_keyspace(&mut self.dice);
        if let CompactionPolicy::Fifo { bytes_max } = &mut options.policy {
            // One that drops what is old is not the same keyspace.
            *bytes_max = u64::MAX;
        }
        options.merge_operator.clone_from(&of_plan.merge_operator);
        options
    }

    fn create(&mut self, slot: Slot, of_plan: &KeyspaceOptions) -> String {
        if self.slots[slot.index()].is_some() {
            return "is there already".to_owned();
        }
        let options = self.options(of_plan);
        let id = self
            .engine
            .create_keyspace(&slot.keyspace_name(), &options)
            .unwrap();
        self.slots[slot.index()] = Some((id.0, options));
        format!("created {id}")
    }

    fn keyspace(&self, slot: Slot) -> Option<(u32, &KeyspaceOptions)> {
        self.slots[slot.index()]
            .as_ref()
            .map(|(id, options)| (*id, options))
    }

    /// Carries out one operation; gives what it answered.
    fn carry_out(&mut self, operation: &Operation) -> Vec<String> {
        match operation {
            Operation::Write { changes, .. } | Operation::TryWrite { changes } => {
                let now = self.clock.now();
                let batch = batch(changes, now, &|slot| self.keyspace(slot));
                let written = self.engine.write(&batch, &WriteOptions::OS).unwrap();
                vec![format!("at {written}")]
            }
            Operation::CreateKeyspace(slot, options) => vec![self.create(*slot, options)],
            Operation::DropKeyspace(slot) => match self.slots[slot.index()].take() {
                Some((id, _)) => vec![format!("{:?}", self.engine.drop_keyspace(KeyspaceId(id)))],
                None => Vec::new(),
            },
            Operation::TakeSnapshot => {
                let snapshot = self.engine.snapshot().unwrap();
                let sequence = snapshot.sequence();
                let ids = self.slots.iter().flatten().map(|(id, _)| *id).collect();
                self.snapshots.push((snapshot, ids));
                vec![format!("at {sequence}")]
            }
            Operation::DropSnapshot(which) => {
                take(&mut self.snapshots, *which);
                Vec::new()
            }
            Operation::CloseCursor(which) => {
                take(&mut self.cursors, *which);
                Vec::new()
            }
            Operation::MoveCursor(which, moves) => self.move_cursor(*which, moves),
            Operation::Lock { .. } => {
                self.let_go_of_dropped();
                self.work(operation)
            }
            Operation::ReadSnapshot {
                which, key, range, ..
            } => {
                let count = self.snapshots.len().max(1);
                let Some((snapshot, ids)) = self.snapshots.get(usize::from(*which) % count) else {
                    return Vec::new();
                };
                let read = |id: &u32| {
                    let one = show(&snapshot.get(KeyspaceId(*id), &key.bytes()).unwrap());
                    [vec![one], scanned(&**snapshot, *id, &range.keys(), 0b0110)].concat()
                };
                ids.iter().flat_map(read).collect()
            }
            Operation::Clock(ClockMove::Forward(by)) => {
                self.clock.set(Timestamp(self.clock.now().0 + by));
                Vec::new()
            }
            Operation::Reopen(_) => {
                self.reopen();
                self.everything()
            }
            Operation::CheckAll => self.everything(),
            other => self.carry_out_in_keyspace(other),
        }
    }

    fn carry_out_in_keyspace(&mut self, operation: &Operation) -> Vec<String> {
        let (Operation::CompareAndSet { slot, .. }
        | Operation::Ingest { slot, .. }
        | Operation::Get(slot, _)
        | Operation::MultiGet(slot, _)
        | Operation::Scan(slot, ..)
        | Operation::OpenCursor { slot, .. }
        | Operation::Compact { slot, .. }
        | Operation::Flush(Some(slot))) = operation
        else {
            return self.work(operation);
        };
        let Some((id, options)) = self.keyspace(*slot).map(|(id, of)| (id, of.clone())) else {
            return Vec::new();
        };
        let (ks, engine) = (KeyspaceId(id), Arc::clone(&self.engine));
        match operation {
            Operation::CompareAndSet {
                key, expected, new, ..
            } => {
                let key = key.bytes();
                let new = new.map(|value| value.for_keyspace(&options));
                let expected = match expected {
                    Expectation::Absent => None,
                    Expectation::Value(value) => Some(value.for_keyspace(&options)),
                    Expectation::Current => engine.get(ks, &key).unwrap().map(|v| v.to_vec()),
                };
                let (expected, new) = (expected.as_deref(), new.as_deref());
                let outcome = engine.compare_and_set(ks, &key, expected, new, &WriteOptions::OS);
                vec![format!("{:?}", outcome.unwrap())]
            }
            Operation::Ingest {
                first,
                step,
                count,
                value,
                ..
            } => self.ingest(ks, &ingest_pairs(*first, *step, *count, *value, &options)),
            Operation::Get(_, key) => vec![show(&engine.get(ks, &key.bytes()).unwrap())],
            Operation::MultiGet(_, keys) => {
                let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.bytes()).collect();
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                engine
                    .multi_get(ks, &keys)
                    .unwrap()
                    .iter()
                    .map(show)
                    .collect()
            }
            Operation::Scan(_, range, ends) => scanned(&*engine, id, &range.keys(), *ends),
            Operation::OpenCursor { range, .. } => {
                let cursor = engine.cursor(ks, range.keys()).unwrap();
                self.cursors.push((cursor, id));
                Vec::new()
            }
            Operation::Compact { range, .. } => {
                let progress = &mut |_| ControlFlow::Continue(());
                if range.keys().check_order().is_ok() {
                    engine.compact(ks, range.keys(), progress).unwrap();
                }
                Vec::new()
            }
            _ => {
                engine.flush(Some(ks)).unwrap();
                Vec::new()
            }
        }
    }

    /// What has no answer.
    fn work(&mut self, operation: &Operation) -> Vec<String> {
        match operation {
            Operation::Sync => self.engine.sync().unwrap(),
            Operation::Flush(None) => self.engine.flush(None).unwrap(),
            Operation::Background(steps) => {
                if let Some((store, ..)) = &self.store {
                    for _ in 0..*steps {
                        store.background_step().unwrap();
                    }
                }
            }
            Operation::Rotate | Operation::FinishRotation | Operation::Lock { .. } => {
                self.work_on_keys(operation);
            }
            _ => {}
        }
        Vec::new()
    }

    /// Readers of keyspaces that were dropped can read on until the keys are wiped, and no longer.
    fn let_go_of_dropped(&mut self) {
        let present: Vec<u32> = self.slots.iter().flatten().map(|(id, _)| *id).collect();
        for (_, ids) in &mut self.snapshots {
            ids.retain(|id| present.contains(id));
        }
        self.cursors.retain(|(_, id)| present.contains(id));
    }

    fn work_on_keys(&self, operation: &Operation) {
        let (Some((store, ..)), Some(protection)) = (&self.store, &self.protection) else {
            return;
        };
        match operation {
            Operation::Rotate => {
                store.rotate_keys().unwrap();
            }
            Operation::FinishRotation => {
                let finished = store.finish_rotation(|_| ControlFlow::Continue(()));
                finished.unwrap();
            }
            _ => {
                store.lock().unwrap();
                protection.keyring().unwrap().unlock(&key()).unwrap();
                store.resume().unwrap();
            }
        }
    }

    /// The engine in memory takes pairs as a batch. All of them then have numbers of their own; a batch of
    /// deletes of a key that is never there makes up for it, so that the histories stay comparable.
    fn ingest(&self, ks: KeyspaceId, pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<String> {
        let nothing = |batch: &mut WriteBatch| {
            batch.delete(ks, b"never there");
        };
        let mut filler = WriteBatch::new();
        if let Some((store, ..)) = &self.store {
            let outcome = store.ingest(ks, pairs.iter().map(|(k, v)| (k, v))).unwrap();
            (1..pairs.len()).for_each(|_| nothing(&mut filler));
            self.engine.write(&filler, &WriteOptions::OS).unwrap();
            return vec![format!("{} taken in", outcome.entries)];
        }
        pairs.iter().for_each(|(key, value)| {
            filler.put(ks, key, value);
        });
        self.engine.write(&filler, &WriteOptions::OS).unwrap();
        vec![format!("{} taken in", pairs.len())]
    }

    fn move_cursor(&mut self, which: u8, moves: &[Move]) -> Vec<String> {
        let count = self.cursors.len().max(1);
        let Some((cursor, _)) = self.cursors.get_mut(usize::from(which) % count) else {
            return Vec::new();
        };
        let mut answers = Vec::new();
        for one in moves {
            match one {
                Move::First => cursor.first().unwrap(),
                Move::Last => cursor.last().unwrap(),
                Move::Seek(key) => cursor.seek(&key.bytes()).unwrap(),
                Move::SeekBack(key) => cursor.seek_back(&key.bytes()).unwrap(),
                Move::Next => cursor.next().unwrap(),
                Move::Prev => cursor.prev().unwrap(),
                Move::Fork => *cursor = cursor.fork().unwrap(),
            }
            let entry = cursor.entry();
            answers.push(entry.map_or("nowhere".to_owned(), |(k, v)| {
                format!("{} = {}", k.escape_ascii(), v.escape_ascii())
            }));
        }
        answers
    }

    /// Closes and opens what can be, and lets go of readers everywhere.
    fn reopen(&mut self) {
        self.snapshots.clear();
        self.cursors.clear();
        if let Some((store, options, directory)) = &mut self.store {
            store.close().unwrap();
            *store = Lsm::open(&*directory, options.clone()).unwrap();
            self.engine = Arc::new(store.clone());
        }
    }

    fn everything(&self) -> Vec<String> {
        let mut all = vec![format!("at {}", self.engine.latest_sequence())];
        for info in self.engine.keyspaces().unwrap() {
            all.push(format!("{} {}", info.id, info.name));
            let range = vault_core::KeyRange::all();
            all.extend(scanned(&*self.engine, info.id.0, &range, 0));
            all.extend(scanned(&*self.engine, info.id.0, &range, u32::MAX));
        }
        all
    }

    /// Carries out a plan and gives its history.
    fn history(mut self, plan: &Plan) -> Vec<Answer> {
        let slots = (0..SLOTS).map(Slot);
        for (slot, options) in slots.zip(&plan.keyspaces) {
            self.create(slot, options);
        }
        let operations = plan.operations.iter().chain([&Operation::CheckAll]);
        let history = operations.map(|operation| Answer {
            operation: format!("{operation:?}"),
            found: self.carry_out(operation),
        });
        let history = history.collect();
        drop((self.snapshots, self.cursors));
        self.engine.close().unwrap();
        history
    }
}

fn key() -> RawKey {
    RawKey::from_slice(&mut [7; 32]).unwrap()
}

fn take<T>(list: &mut Vec<T>, which: u8) {
    if !list.is_empty() {
        list.remove(usize::from(which) % list.len());
    }
}

fn show(value: &Option<vault_core::Slice>) -> String {
    value.as_ref().map_or("absent".to_owned(), |value| {
        value.escape_ascii().to_string()
    })
}

fn scanned(reader: &dyn Reader, id: u32, range: &vault_core::KeyRange, ends: u32) -> Vec<String> {
    let mut scan = reader.scan(KeyspaceId(id), range.clone()).unwrap();
    let mut bits = ends;
    let step = || {
        bits = bits.rotate_right(1);
        let entry = if bits & 1 == 0 {
            scan.next()
        } else {
            scan.next_back()
        };
        entry.map(|entry| {
            let (key, value) = entry.unwrap();
            format!("{} = {}", key.escape_ascii(), value.escape_ascii())
        })
    };
    std::iter::from_fn(step).collect()
}

/// A plan without ends, faults and clocks that go back.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::choose_wanted(
        &mut Dice::new(seed),
        Wanted::Encrypted,
        OPERATIONS,
        OPERATIONS,
    );
    plan.operations.retain(|operation| {
        !matches!(
            operation,
            Operation::Crash { .. }
                | Operation::Inject(_)
                | Operation::LimitDisk { .. }
                | Operation::Clock(ClockMove::Back(_))
        )
    });
    plan
}

fn variant(seed: u64, variant: u64, directory: &tempfile::TempDir) -> (Subject, String) {
    let mut dice = Dice::new(seed * 1_000 + variant);
    let mut settings = Plan::choose_settings(&mut dice);
    settings.background = match variant % 3 {
        0 => BackgroundWork::Manual,
        1 => BackgroundWork::Threads { compaction: 1 },
        _ => BackgroundWork::Threads { compaction: 8 },
    };
    // Each cipher and none, with each kind of background work in turn.
    let cipher = [
        None,
        Some(Algorithm::ChaCha20Poly1305),
        Some(Algorithm::Aes256Gcm),
    ][((variant + variant / 3 + seed) % 3) as usize];
    let described = format!("{cipher:?}, {settings:?}");
    // One in six on real files.
    let (fs, path): (Arc<dyn FileSystem>, _) = match variant {
        5 => {
            let path = directory.path().join("store");
            (
                Arc::new(vault_core::vfs::DiskFileSystem),
                path.to_string_lossy().into_owned(),
            )
        }
        _ => (Arc::new(MemoryFileSystem::new()), "/store".to_owned()),
    };
    let _ = dice.below(2);
    (Subject::on(fs, path, settings, cipher, dice), described)
}

#[test]
fn options_do_not_show_in_any_answer() {
    let mut answers = 0;
    for seed in 1..=PLANS {
        let plan = plan(seed);
        let expected = Subject::in_memory().history(&plan);
        answers += expected
            .iter()
            .map(|answer| answer.found.len())
            .sum::<usize>();
        for number in 0..VARIANTS {
            let directory = tempfile::tempdir().unwrap();
            let (subject, settings) = variant(seed, number, &directory);
            let history = subject.history(&plan);
            for (index, (found, expected)) in history.iter().zip(&expected).enumerate() {
                assert!(
                    found == expected,
                    "plan {seed}, variant {number} ({settings}), operation {index}:\n\
                     expected {expected:?}found {found:?}"
                );
            }
            assert_eq!(history.len(), expected.len());
        }
    }
    println!(
        "{PLANS} plans of {OPERATIONS} operations under {VARIANTS} variants: {answers} answers each"
    );
    assert!(answers > 10_000, "{answers}");
}
