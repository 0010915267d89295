//! Golden stores: what they are made of, and how their bytes come to be the same each time.
//!
//! A golden store is a directory that some version of Vault wrote, kept for good under
//! `tests/golden/vN/NAME/`, with what it holds in `tests/golden/vN/NAME.txt`. Each is made on a file system in
//! memory, with a clock that stands still and seeded randomness. The zeros behind the last record of a log segment
//! are not kept; the transcript says how long the file is with them.
#![allow(dead_code, reason = "the test and the maker each use a part of this")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::transform::{KEYRING_COPY_NAME, KEYRING_NAME};
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{
    CompactionPolicy, Compression, Engine, FilterPolicy, KeyRange, KeyspaceId, KeyspaceOptions,
    Reader, Result, Timestamp, WriteBatch, WriteOptions,
};
use vault_crypto::source::RawKey;
use vault_crypto::{Algorithm, EncryptedProtection, SecretKey};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

/// The format that this build writes: the directory of the golden stores that it makes. Raised with the
/// version of any kind of file.
pub(crate) const FORMAT: &str = "v1";

pub(crate) const DIRECTORY: &str = "/store";
/// Where the clock stands.
pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Writes a store; gives it where its writer's process is to end without closing it.
type Build = fn(&MemoryFileSystem) -> Result<Option<Lsm>>;

/// Every golden store there is, by name.
pub(crate) const ALL: [(&str, Build); 14] = [
    ("leveled", leveled),
    ("tiered", tiered),
    ("fifo", fifo),
    ("merge", merge),
    ("expiry", expiry),
    ("range-deletes", range_deletes),
    ("ingest", ingest),
    ("checkpoint", checkpoint),
    ("unclean-end", unclean_end),
    ("compression-none", compression_none),
    ("compression-lz4", compression_lz4),
    ("dropped-keyspaces", dropped_keyspaces),
    ("encrypted-aes", |fs| encrypted(fs, Algorithm::Aes256Gcm)),
    ("encrypted-chacha", |fs| {
        encrypted(fs, Algorithm::ChaCha20Poly1305)
    }),
];

/// A golden store: its files, without the zeros at the end of log segments, and its transcript.
pub(crate) struct Golden {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) transcript: String,
}

/// Makes a golden store.
pub(crate) fn make(build: Build) -> Golden {
    let fs = MemoryFileSystem::new();
    let running = build(&fs).expect("nothing fails in memory");
    let left = fs.kill();
    drop(running);
    let mut files = BTreeMap::new();
    let mut transcript = String::new();
    for (path, len) in left.list() {
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        if path.parent() != Some(DIRECTORY.as_ref()) || name == "LOCK" {
            continue;
        }
        let mut bytes = left.read_file(&path).expect("it was just listed");
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if name.ends_with(".log") {
            let used = bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |at| at + 1);
            bytes.truncate(used);
        }
        let _ = writeln!(transcript, "file {name} of {len} bytes, version {version}");
        files.insert(name, bytes);
    }
    let store = Lsm::open(DIRECTORY, options(&left)).expect("it was just written");
    transcript += &describe(&store).expect("it was just written");
    Golden { files, transcript }
}

/// What a store holds, one line an entry.
pub(crate) fn describe(store: &Lsm) -> Result<String> {
    let mut out = String::new();
    for info in store.keyspaces()? {
        let _ = writeln!(
            out,
            "keyspace {} {:?} {}",
            info.id.0,
            info.name,
            info.options.policy.name()
        );
        for entry in store.scan(info.id, KeyRange::new::<&[u8]>(..))? {
            let (key, value) = entry?;
            let _ = writeln!(out, "{} = {}", key.escape_ascii(), value.escape_ascii());
        }
    }
    Ok(out)
}

/// How golden stores are written and read.
pub(crate) fn options(fs: &MemoryFileSystem) -> LsmOptions {
    let settings = Settings {
        background: BackgroundWork::Manual,
        cache_bytes: Some(0),
        table_metadata_bytes: Some(0),
        log_segment_bytes: Some(64 << 10),
        log_bytes_max: Some(128 << 10),
        ..Settings::default()
    };
    let options = LsmOptions::new(settings)
        .file_system(Arc::new(fs.clone()) as Arc<dyn FileSystem>)
        .clock(Arc::new(ManualClock::new(NOW)))
        .random(Arc::new(SeededRandom::new(2026)));
    let keyring = [KEYRING_NAME, KEYRING_COPY_NAME].map(|name| Path::new(DIRECTORY).join(name));
    let is_there = |path: &PathBuf| fs.kind(path).expect("nothing fails in memory").is_some();
    if keyring.iter().any(is_there) {
        options.protection(Arc::new(protection()))
    } else {
        options
    }
}

/// The key of golden stores that are encrypted.
fn protection() -> EncryptedProtection {
    let key = SecretKey::from_bytes(&mut [0x42; 32]);
    EncryptedProtection::with_source(Arc::new(RawKey::new(key)))
}

fn open(fs: &MemoryFileSystem) -> Result<Lsm> {
    Lsm::open(DIRECTORY, options(fs))
}

fn small(policy: CompactionPolicy) -> KeyspaceOptions {
    KeyspaceOptions {
        block_bytes: 512,
        write_buffer_bytes: 4 << 10,
        table_bytes: 4 << 10,
        // What is leveled keeps nearly all values apart.
        large_value_bytes: matches!(policy, CompactionPolicy::Leveled { .. }).then_some(16),
        ..KeyspaceOptions::default()
    }
    .policy(policy)
}

const LEVELED: CompactionPolicy = CompactionPolicy::Leveled {
    level0_runs: 2,
    base_bytes: 4 << 10,
    fanout: 2,
};
const TIERED: CompactionPolicy = CompactionPolicy::Tiered {
    runs_min: 2,
    runs_max: 4,
    size_ratio_percent: 150,
};

/// Puts `count` entries, some of them over older ones.
fn fill(store: &Lsm, keyspace: KeyspaceId, round: u64, count: u64) -> Result<()> {
    let mut batch = WriteBatch::new();
    for n in 0..count {
        let key = format!("key/{:03}", (n * 7 + round * 5) % 40);
        let value = format!(
            "value {n} of round {round}, {}",
            "long ".repeat((n % 5) as usize)
        );
        batch.put(keyspace, key.as_bytes(), value.as_bytes());
    }
    store.write(&batch, &WriteOptions::SYNC).map(drop)
}

/// Runs all background work that there is.
fn settle(store: &Lsm) -> Result<()> {
    while store.background_step()? {}
    Ok(())
}

fn filled(fs: &MemoryFileSystem, options: &KeyspaceOptions) -> Result<Option<Lsm>> {
    let store = open(fs)?;
    let keyspace = store.create_keyspace("main", options)?;
    for round in 0..5 {
        fill(&store, keyspace, round, 12)?;
        store.delete(
            keyspace,
            format!("key/{:03}", round * 6).as_bytes(),
            &WriteOptions::SYNC,
        )?;
        if round < 4 {
            store.flush(None)?;
        }
        if round == 2 {
            settle(&store)?;
        }
    }
    store.close()?;
    Ok(None)
}

fn leveled(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    filled(fs, &small(LEVELED))
}

fn tiered(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    filled(fs, &small(TIERED))
}

fn fifo(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    filled(fs, &small(CompactionPolicy::Fifo { bytes_max: 4 << 10 }))
}

fn compression_none(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let options = KeyspaceOptions {
        compression: Compression::None,
        filter: FilterPolicy::None,
        ..small(LEVELED)
    };
    filled(fs, &options)
}

/// Blocks that are worth compressing, and some that are not.
fn compression_lz4(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let store = open(fs)?;
    let keyspace = store.create_keyspace("main", &small(LEVELED))?;
    let random = SeededRandom::new(4);
    for n in 0..12_u64 {
        let repeated = "again and again ".repeat(30);
        store.put(
            keyspace,
            format!("even/{n}").as_bytes(),
            repeated.as_bytes(),
            &WriteOptions::OS,
        )?;
        let noise: Vec<u8> = (0..12)
            .flat_map(|_| random.next_u64().to_le_bytes())
            .collect();
        store.put(
            keyspace,
            format!("odd/{n}").as_bytes(),
            &noise,
            &WriteOptions::OS,
        )?;
    }
    store.flush(None)?;
    store.close()?;
    Ok(None)
}

/// Counters and texts, merged in tables, across tables, and in the log.
fn merge(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let store = open(fs)?;
    let counts = store.create_keyspace("counts", &small(TIERED).merge("vault.counter"))?;
    let texts = store.create_keyspace("texts", &small(LEVELED).merge("vault.append"))?;
    for round in 0..5_i64 {
        let mut batch = WriteBatch::new();
        for n in 0..6_i64 {
            batch.merge(
                counts,
                format!("count/{n}").as_bytes(),
                &(n + round).to_le_bytes(),
            );
            batch.merge(
                texts,
                format!("text/{n}").as_bytes(),
                format!("{round},").as_bytes(),
            );
        }
        if round == 2 {
            batch.put(texts, b"text/0", b"begun anew: ");
            batch.delete(counts, b"count/1");
        }
        store.write(&batch, &WriteOptions::SYNC)?;
        if round < 4 {
            store.flush(None)?;
        }
        if round == 1 {
            settle(&store)?;
        }
    }
    store.close()?;
    Ok(None)
}

/// Entries that have expired when the store is read, and ones that have not.
fn expiry(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let clock = ManualClock::new(Timestamp(NOW.0 - 10_000));
    let store = Lsm::open(DIRECTORY, options(fs).clock(Arc::new(clock)))?;
    let keyspace = store.create_keyspace("main", &small(LEVELED))?;
    let all_expire = store.create_keyspace("passing", &small(TIERED))?;
    for round in 0..3_u64 {
        let mut batch = WriteBatch::new();
        for n in 0..8_u64 {
            let key = format!("key/{n}");
            let expiry = Timestamp(NOW.0 - 5_000 + n * 1_000 + round * 2_000);
            batch.put(keyspace, format!("for ever/{n}").as_bytes(), b"stays");
            batch.put_until(
                keyspace,
                key.as_bytes(),
                format!("round {round}").as_bytes(),
                expiry,
            );
            batch.put_until(all_expire, key.as_bytes(), b"passes", expiry);
        }
        store.write(&batch, &WriteOptions::SYNC)?;
        if round < 2 {
            store.flush(None)?;
        }
    }
    store.close()?;
    Ok(None)
}

fn range_deletes(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let store = open(fs)?;
    let keyspace = store.create_keyspace("main", &small(LEVELED))?;
    for round in 0..4_u64 {
        fill(&store, keyspace, round, 15)?;
        let mut batch = WriteBatch::new();
        let (from, to) = (
            format!("key/{:03}", round * 8),
            format!("key/{:03}", round * 8 + 6),
        );
        batch.delete_range(keyspace, from.as_bytes(), to.as_bytes());
        if round == 3 {
            batch.delete_prefix(keyspace, b"key/02");
        }
        store.write(&batch, &WriteOptions::SYNC)?;
        if round < 3 {
            store.flush(None)?;
        }
    }
    store.close()?;
    Ok(None)
}

/// Ingested tables above, below and between what was written.
fn ingest(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let store = open(fs)?;
    let keyspace = store.create_keyspace("main", &small(LEVELED))?;
    fill(&store, keyspace, 0, 12)?;
    let pairs = |word: &'static str| (0..20_u64).map(move |n| (format!("key/{:03}", n * 2), word));
    store.ingest(keyspace, pairs("taken in first"))?;
    fill(&store, keyspace, 1, 5)?;
    store.ingest(keyspace, pairs("taken in second").take(7))?;
    fill(&store, keyspace, 2, 3)?;
    store.close()?;
    Ok(None)
}

/// The copy that a checkpoint made, which has no log.
fn checkpoint(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let store = Lsm::open("/original", options(fs))?;
    let keyspace = store.create_keyspace("main", &small(TIERED))?;
    fill(&store, keyspace, 0, 12)?;
    store.flush(None)?;
    fill(&store, keyspace, 1, 6)?;
    store.checkpoint(DIRECTORY)?;
    store.close()?;
    Ok(None)
}

/// A writer that did not close: a log tail, the last batches never synced, and a segment made ready.
fn unclean_end(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let store = open(fs)?;
    let keyspace = store.create_keyspace("main", &small(LEVELED))?;
    let other = store.create_keyspace("other", &small(TIERED))?;
    fill(&store, keyspace, 0, 10)?;
    store.flush(Some(keyspace))?;
    for n in 0..6_u64 {
        let mut batch = WriteBatch::new();
        batch.put(keyspace, b"both", format!("batch {n}").as_bytes());
        batch.put(other, b"both", format!("batch {n}").as_bytes());
        store.write(
            &batch,
            if n < 4 {
                &WriteOptions::SYNC
            } else {
                &WriteOptions::OS
            },
        )?;
    }
    Ok(Some(store))
}

fn dropped_keyspaces(fs: &MemoryFileSystem) -> Result<Option<Lsm>> {
    let store = open(fs)?;
    let kept = store.create_keyspace("kept", &small(LEVELED))?;
    let dropped = store.create_keyspace("dropped", &small(LEVELED))?;
    fill(&store, dropped, 0, 8)?;
    fill(&store, kept, 0, 8)?;
    store.flush(Some(dropped))?;
    fill(&store, dropped, 1, 8)?;
    store.drop_keyspace(dropped)?;
    // The name comes back, and nothing else.
    let again = store.create_keyspace("dropped", &small(TIERED))?;
    store.put(again, b"new", b"of the second one", &WriteOptions::SYNC)?;
    fill(&store, kept, 1, 4)?;
    store.close()?;
    Ok(None)
}

/// Two epochs of keys in use, a keyspace whose keys are gone, and a log with records.
fn encrypted(fs: &MemoryFileSystem, algorithm: Algorithm) -> Result<Option<Lsm>> {
    let protection = protection().algorithm(algorithm);
    let store = Lsm::open(DIRECTORY, options(fs).protection(Arc::new(protection)))?;
    let kept = store.create_keyspace("kept", &small(LEVELED))?;
    let dropped = store.create_keyspace("dropped", &small(LEVELED))?;
    fill(&store, kept, 0, 8)?;
    fill(&store, dropped, 0, 8)?;
    store.flush(None)?;
    store.drop_keyspace(dropped)?;
    store.rotate_keys()?;
    fill(&store, kept, 1, 4)?;
    store.close()?;
    Ok(None)
}
