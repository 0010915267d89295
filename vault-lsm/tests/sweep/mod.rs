//! What the crash, fault and damage sweeps share: a deterministic workload, the model it is compared with, and
//! how a store is opened and read.
//!
//! Everything runs on one thread ([`BackgroundWork::Manual`]), on a file system in memory, with a clock
//! that stands still and seeded randomness: the same workload makes the same file operations each time,
//! so that "the nth operation" means something.
#![allow(dead_code, reason = "each test binary uses a part of this")]

#[path = "../support/modes.rs"]
pub(crate) mod modes;
pub(crate) mod run;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{
    CompactionPolicy, Engine, KeyRange, KeyspaceInfo, KeyspaceOptions, Reader, Result, Timestamp,
    WriteBatch,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

pub(crate) const DIRECTORY: &str = "/store";

/// Keyspaces by name, with their entries.
pub(crate) type Model = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A change to one keyspace, part of a batch.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(&'static str, Vec<u8>, Vec<u8>),
    /// A put that expires long after the end of the test.
    PutUntil(&'static str, Vec<u8>, Vec<u8>),
    Delete(&'static str, Vec<u8>),
    DeleteRange(&'static str, Vec<u8>, Vec<u8>),
    Merge(&'static str, Vec<u8>, Vec<u8>),
}

/// A step of a workload.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create(&'static str),
    Drop(&'static str),
    Write {
        changes: Vec<Change>,
        sync: bool,
    },
    Sync,
    Flush(Option<&'static str>),
    Compact(&'static str),
    /// Runs this many steps of background work.
    Background(usize),
    Ingest(&'static str, Vec<(Vec<u8>, Vec<u8>)>),
    Checkpoint(&'static str),
    /// Takes a snapshot and keeps it until the next reopening.
    Hold,
    Reopen,
}

/// Whether a value of `a` (leveled, appends) or of another keyspace (tiered, counts) is merged.
fn merged(keyspace: &str, old: Option<&Vec<u8>>, operand: &[u8]) -> Vec<u8> {
    if keyspace == "a" {
        return [old.map_or(&[][..], Vec::as_slice), operand].concat();
    }
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("a counter"));
    let sum = old.map_or(0, |old| number(old)) + number(operand);
    sum.to_le_bytes().to_vec()
}

impl Change {
    fn keyspace(&self) -> &'static str {
        match self {
            Self::Put(keyspace, ..)
            | Self::PutUntil(keyspace, ..)
            | Self::Delete(keyspace, _)
            | Self::DeleteRange(keyspace, ..)
            | Self::Merge(keyspace, ..) => keyspace,
        }
    }

    fn apply(&self, model: &mut Model) {
        let entries = model.get_mut(self.keyspace()).expect("a keyspace in use");
        match self {
            Self::Put(_, key, value) | Self::PutUntil(_, key, value) => {
                entries.insert(key.clone(), value.clone());
            }
            Self::Delete(_, key) => {
                entries.remove(key);
            }
            Self::DeleteRange(_, start, end) => {
                entries.retain(|key, _| key < start || key >= end);
            }
            Self::Merge(keyspace, key, operand) => {
                let value = merged(keyspace, entries.get(key), operand);
                entries.insert(key.clone(), value);
            }
        }
    }
}

impl Step {
    /// The keyspaces that a commit touches.
    pub(crate) fn touches(&self, name: &str) -> bool {
        match self {
            Self::Write { changes, .. } => changes.iter().any(|change| change.keyspace() == name),
            Self::Ingest(keyspace, _) => *keyspace == name,
            _ => false,
        }
    }

    /// The keyspaces that must be there.
    pub(crate) fn needs(&self) -> Vec<&'static str> {
        match self {
            Self::Write { changes, .. } => changes.iter().map(Change::keyspace).collect(),
            Self::Drop(name)
            | Self::Flush(Some(name))
            | Self::Compact(name)
            | Self::Ingest(name, _) => vec![name],
            _ => Vec::new(),
        }
    }

    /// What the model is after this step; `None` where it changes nothing.
    pub(crate) fn apply(&self, model: &Model) -> Option<Model> {
        let mut next = model.clone();
        match self {
            Self::Create(name) => {
                next.entry((*name).to_owned()).or_default();
            }
            Self::Drop(name) => {
                next.remove(*name);
            }
            Self::Write { changes, .. } => {
                changes.iter().for_each(|change| change.apply(&mut next));
            }
            Self::Ingest(name, pairs) => next
                .get_mut(*name)
                .expect("a keyspace in use")
                .extend(pairs.iter().cloned()),
            _ => return None,
        }
        Some(next)
    }
}

/// How keyspace `name` is created: `a` is leveled and keeps nearly all values apart, `c` is first in, first out, the others
/// are tiered.
pub(crate) fn keyspace_options(name: &str) -> KeyspaceOptions {
    let (policy, operator) = if name == "a" {
        let policy = CompactionPolicy::Leveled {
            level0_runs: 2,
            base_bytes: 16 << 10,
            fanout: 2,
        };
        (policy, "vault.append")
    } else if name == "c" {
        // Large enough to lose nothing: what this policy drops for want of room is not in the model.
        (
            CompactionPolicy::Fifo { bytes_max: 1 << 30 },
            "vault.counter",
        )
    } else {
        let policy = CompactionPolicy::Tiered {
            runs_min: 2,
            runs_max: 4,
            size_ratio_percent: 150,
        };
        (policy, "vault.counter")
    };
    KeyspaceOptions {
        write_buffer_bytes: 4 << 10,
        table_bytes: 64 << 10,
        block_bytes: 512,
        large_value_bytes: (name == "a").then_some(16),
        ..KeyspaceOptions::default()
    }
    .policy(policy)
    .merge(operator)
}

pub(crate) fn options(fs: &MemoryFileSystem) -> LsmOptions {
    options_with_least(fs, 0)
}

fn options_with_least(fs: &MemoryFileSystem, least_generation: u64) -> LsmOptions {
    let settings = Settings {
        least_generation,
        background: BackgroundWork::Manual,
        manifest_bytes_max: 1 << 10,
        cache_bytes: Some(0),
        table_metadata_bytes: Some(0),
        log_segment_bytes: Some(64 << 10),
        log_bytes_max: Some(128 << 10),
        ..Settings::default()
    };
    modes::protected(LsmOptions::new(settings))
        .file_system(Arc::new(fs.clone()) as Arc<dyn FileSystem>)
        .clock(Arc::new(ManualClock::new(Timestamp(1_000_000))))
        .random(Arc::new(SeededRandom::new(next_seed())))
}

/// A seed that no other opening of this test has had: a salt that is drawn twice seals two texts under one key, and lets
/// one file pass for another. The same in each run, for a test has a thread of its own, or each of its places has one.
fn next_seed() -> u64 {
    std::thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(7) };
    }
    NEXT.replace(NEXT.get() + 1)
}

pub(crate) fn open(fs: &MemoryFileSystem) -> Result<Lsm> {
    open_at(fs, DIRECTORY.as_ref())
}

/// How far apart the places are that a sweep visits by default, where plain stores are visited at `stride`: every
/// opening of an encrypted store derives keys for all of its files.
pub(crate) fn thinned(stride: u64) -> u64 {
    if modes::encrypted() {
        3 * stride
    } else {
        stride
    }
}

/// `VAULT_SWEEP=1/4`: a full sweep of every fourth place from the second one on, counted from 0. Gives both numbers; `None`: another
/// sweep.
pub(crate) fn part() -> Option<(u64, u64)> {
    let extent = std::env::var("VAULT_SWEEP").ok()?;
    let (first, step) = extent.split_once('/')?;
    let numbers = (first.parse(), step.parse());
    let (Ok(first), Ok(step)) = numbers else {
        panic!("VAULT_SWEEP={extent}: expected `full`, `exhaustive`, or a part such as `1/4`");
    };
    assert!(
        first < step,
        "VAULT_SWEEP={extent}: parts are counted from 0"
    );
    Some((first, step))
}

/// Opens a store that lies elsewhere.
pub(crate) fn open_at(fs: &MemoryFileSystem, directory: &Path) -> Result<Lsm> {
    Lsm::open(directory, options(fs))
}

/// Opens the store if it is of this generation at least.
pub(crate) fn open_with_least(fs: &MemoryFileSystem, least_generation: u64) -> Result<Lsm> {
    Lsm::open(DIRECTORY, options_with_least(fs, least_generation))
}

/// Everything that the store holds, each keyspace read forwards, backwards and key by key.
pub(crate) fn contents(store: &Lsm) -> Result<Model> {
    let keyspaces = store.keyspaces()?;
    contents_of(store, &keyspaces)
}

/// What a reader shows of these keyspaces.
pub(crate) fn contents_of(store: &dyn Reader, keyspaces: &[KeyspaceInfo]) -> Result<Model> {
    let mut model = Model::new();
    for info in keyspaces {
        let mut entries = BTreeMap::new();
        for entry in store.scan(info.id, KeyRange::new::<&[u8]>(..))? {
            let (key, value) = entry?;
            entries.insert(key.to_vec(), value.to_vec());
        }
        let mut backwards = 0;
        for entry in store.scan(info.id, KeyRange::new::<&[u8]>(..))?.rev() {
            let (key, value) = entry?;
            assert_eq!(entries.get(&key[..]).map(Vec::as_slice), Some(&value[..]));
            backwards += 1;
        }
        assert_eq!(backwards, entries.len(), "backwards is not forwards");
        for (key, value) in &entries {
            let found = store.get(info.id, key)?;
            assert_eq!(found.as_deref(), Some(value.as_slice()), "get is not scan");
        }
        model.insert(info.name.clone(), entries);
    }
    Ok(model)
}

/// Bytes that don't compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let random = SeededRandom::new(seed);
    std::iter::repeat_with(|| random.next_u64().to_le_bytes())
        .flatten()
        .take(len)
        .collect()
}

fn key(n: u64) -> Vec<u8> {
    format!("k{:03}", n % 61).into_bytes()
}

/// The workload: two keyspaces in batches, a third that comes and goes, and every verb that there is.
pub(crate) fn workload(rounds: u64) -> Vec<Step> {
    let mut steps = vec![Step::Create("a"), Step::Create("b")];
    for n in 0..rounds {
        let both = vec![
            Change::Put("a", b"number".to_vec(), n.to_le_bytes().to_vec()),
            Change::Put("b", b"number".to_vec(), n.to_le_bytes().to_vec()),
            Change::Put("a", key(n * 7), noise(n, 300)),
            Change::Merge("b", b"counter".to_vec(), 1_i64.to_le_bytes().to_vec()),
        ];
        let changes = match n % 8 {
            0 | 4 => both,
            1 => vec![
                Change::Put("b", key(n * 5), noise(n, 700)),
                Change::PutUntil("b", key(n * 11), noise(n + 500, 200)),
            ],
            2 => vec![
                Change::Merge("a", b"text".to_vec(), vec![b'a' + (n % 26) as u8]),
                Change::Put("a", key(n * 3), noise(n, 900)),
            ],
            3 => vec![
                Change::DeleteRange("a", key(n), key(n + 5)),
                Change::Delete("b", key(n * 5 - 10)),
                Change::Merge("b", b"counter".to_vec(), 10_i64.to_le_bytes().to_vec()),
            ],
            5 => vec![Change::Put("a", key(n * 13), noise(n, 1500))],
            6 => vec![Change::Put("b", key(n * 17), noise(n, 1500))],
            _ => vec![
                Change::DeleteRange("b", key(n), key(n + 3)),
                Change::Delete("a", b"text".to_vec()),
            ],
        };
        steps.push(Step::Write {
            changes,
            sync: n % 5 == 0,
        });
        steps.extend(interlude(n));
    }
    steps
}

/// What else happens after the nth write.
fn interlude(n: u64) -> Vec<Step> {
    let pairs = |from: u64| -> Vec<_> {
        (from..from + 8)
            .map(|i| (format!("i{i:03}").into_bytes(), noise(i, 200)))
            .collect()
    };
    match n {
        6 => vec![Step::Create("c")],
        8 => {
            // The whole content moves from one keyspace to another, and the first one goes.
            let changes = vec![
                Change::Put("c", b"x".to_vec(), noise(1, 300)),
                Change::Put("a", b"x".to_vec(), noise(2, 30)),
            ];
            vec![Step::Write {
                changes,
                sync: false,
            }]
        }
        // Right behind an unsynced write to another keyspace.
        11 => vec![Step::Drop("c")],
        12 | 33 => vec![Step::Ingest(if n == 12 { "a" } else { "b" }, pairs(n))],
        10 => vec![Step::Flush(Some("c"))],
        14 => vec![Step::Flush(Some("b")), Step::Hold],
        18 => vec![Step::Sync],
        20 => {
            // More than a log segment holds, and a handover in the middle of unsynced writes.
            let changes = vec![
                Change::Put("b", b"large".to_vec(), noise(3, 70_000)),
                Change::Put("a", b"large".to_vec(), b"beside it".to_vec()),
            ];
            vec![Step::Write {
                changes,
                sync: false,
            }]
        }
        23 => vec![Step::Reopen],
        24 => vec![Step::Hold],
        26 => vec![Step::Flush(None), Step::Compact("a")],
        29 => vec![Step::Checkpoint("/copy")],
        31 => vec![Step::Create("c")],
        32 | 34 => {
            let counted = vec![
                Change::Merge("c", b"counter".to_vec(), 1_i64.to_le_bytes().to_vec()),
                Change::Put("c", key(n), noise(n, 100)),
            ];
            let write = Step::Write {
                changes: counted,
                sync: n == 34,
            };
            vec![write, Step::Flush(Some("c"))]
        }
        36 => vec![Step::Compact("b"), Step::Reopen],
        n if n % 3 == 0 => vec![Step::Background(2)],
        _ => Vec::new(),
    }
}

/// A batch of one keyspace's changes, for checks by hand.
pub(crate) fn batch(store: &Lsm, changes: &[Change]) -> Result<WriteBatch> {
    let mut batch = WriteBatch::new();
    for change in changes {
        let id = store
            .keyspace(change.keyspace())?
            .expect("the workload uses keyspaces that exist");
        match change {
            Change::Put(_, key, value) => batch.put(id, key, value),
            Change::PutUntil(_, key, value) => {
                batch.put_until(id, key, value, Timestamp(1_000_000_000))
            }
            Change::Delete(_, key) => batch.delete(id, key),
            Change::DeleteRange(_, start, end) => batch.delete_range(id, start, end),
            Change::Merge(_, key, operand) => batch.merge(id, key, operand),
        };
    }
    Ok(batch)
}
