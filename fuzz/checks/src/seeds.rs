//! Seeds: small inputs of real stores, so that fuzzing begins where the formats make sense.
//!
//! One small store is made in memory of everything that leaves bytes of its own (every kind of operation, both
//! codecs, filters and none, every policy, range tombstones, ingested tables, keyspaces that come, change and
//! go, a clean end and a sudden one). Its files are seeds, and so are the parts that they are taken apart into.
//! The same code makes the same seeds: neither time nor chance has a part in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use vault_core::clock::ManualClock;
use vault_core::codec::{Decoder, put_bytes, put_varint};
use vault_core::random::SeededRandom;
use vault_core::transform::HEADER_BYTES;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{
    CompactionPolicy, Compression, Engine, FilterPolicy, KeyspaceId, KeyspaceOptions, Result,
    Timestamp, WriteBatch, WriteOptions,
};
use vault_lsm::fuzzing::{SEAL_BYTES, TableParts};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

use crate::log::joined;

/// The time at which the store is made, in milliseconds since 1970.
const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DIRECTORY: &str = "/store";
/// Bytes of a frame, in front of a record.
const FRAME_BYTES: usize = 12;
/// Seeds of one target that are taken from parts of files, which are many and alike.
const ALIKE_MAX: usize = 12;

/// Seeds by target, each under a name that says where it comes from.
pub type Seeds = BTreeMap<&'static str, Vec<(String, Vec<u8>)>>;

/// Makes the seeds of every target that has made ones; the rest keep what their corpus holds.
///
/// # Errors
/// What the engine says.
pub fn all() -> Result<Seeds> {
    let mut seeds = Gathered::default();
    for (moment, files) in [("open", store(false)?), ("closed", store(true)?)] {
        let mut segments = Vec::new();
        for (path, bytes) in &files {
            let name = format!("{moment}-{}", path.replace('.', "-"));
            match path
                .rsplit_once('.')
                .map_or(path.as_str(), |(_, kind)| kind)
            {
                "CURRENT" => seeds.add("pointer", &name, bytes.clone()),
                "man" => manifest(&mut seeds, &name, bytes),
                "log" => {
                    records(&mut seeds, &name, bytes);
                    segments.push(bytes.clone());
                }
                "tab" => table(&mut seeds, &name, bytes),
                "blob" => blob(&mut seeds, &name, bytes),
                _ => continue,
            }
            seeds.add("header", &name, bytes[..HEADER_BYTES].to_vec());
        }
        logs(&mut seeds, moment, &segments);
        let files: Vec<Vec<u8>> = files
            .into_values()
            .filter(|bytes| !bytes.is_empty())
            .collect();
        seeds.add("store", moment, joined(&files));
    }
    seeds.add(
        "range",
        "edges",
        b"\x01\x01a\xffb\x00\x02abc\xff\xff\x01\x01\xff\xff\x00".to_vec(),
    );
    data_layer(&mut seeds);
    for number in 0..8 {
        let bytes = crate::sequences::seed(number, 300 + 100 * number as usize);
        seeds.add("sequences", &number.to_string(), bytes);
    }
    for policy in [
        CompactionPolicy::LEVELED,
        CompactionPolicy::TIERED,
        CompactionPolicy::Fifo { bytes_max: 1 << 30 },
    ] {
        let options = plain().policy(policy).merge(vault_core::merge::APPEND);
        let bytes = vault_lsm::fuzzing::encode_options(&options);
        seeds.add("options", policy.name(), bytes);
    }
    for (name, base) in [("counter", &8_i64.to_le_bytes()[..]), ("append", b"text")] {
        let mut merge = vec![1];
        merge.extend_from_slice(base);
        merge.extend_from_slice(&[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8]);
        seeds.add("merge", name, merge);
    }
    Ok(seeds.0)
}

#[derive(Default)]
struct Gathered(Seeds);

impl Gathered {
    fn add(&mut self, target: &'static str, name: &str, bytes: Vec<u8>) {
        self.0
            .entry(target)
            .or_default()
            .push((format!("seed-{name}"), bytes));
    }

    fn add_few(&mut self, target: &'static str, name: &str, bytes: Vec<u8>) {
        let seeds = self.0.entry(target).or_default();
        if seeds.len() < ALIKE_MAX && !seeds.iter().any(|(_, known)| *known == bytes) {
            seeds.push((format!("seed-{name}"), bytes));
        }
    }
}

/// A blob file behind its first key and a pointer to its value.
/// Keys, values and texts of the data layer; snapshots and shipments.
fn data_layer(seeds: &mut Gathered) {
    for (name, input) in crate::snapshot::seeds() {
        seeds.add("snapshot", name, input);
    }
    for (name, input) in crate::keyring::seeds() {
        seeds.add("keyring", name, input);
    }
    for (name, input) in crate::shipment::seeds() {
        seeds.add("shipment", &name, input);
    }
    // Two keys and a value, in the order in which `Arbitrary` takes them; lengths stand at the end.
    let keys: [&[u8]; 3] = [
        b"\x02text",
        b"\x05\x02a\x00\x15\x07\x05\x01b\x00\xff\x00\x00",
        b"\x13\xfe",
    ];
    let values: [&[u8]; 3] = [
        b"\x01\x82\xa1a\x01\xa1b\x93\xc0\xc3\xcb\x3f\xf0\0\0\0\0\0\0",
        b"\x81\0\0\0\0\0\0\0\x01\xc4\x01\x07",
        b"\0raw",
    ];
    for (n, (key, value)) in keys.iter().zip(values).enumerate() {
        seeds.add("stored", &n.to_string(), [key, keys[0], value].concat());
    }
    let texts = [
        r#"{"format": "vault-json-v1", "vault": "v", "entries": [{"key": "a", "value": {"b": [1, -2, 3.5, null, true]}, "expires_at": 9}]}"#,
        "{\"format\":\"vault-jsonl-v1\"}\n{\"key\":{\"$tuple\":[\"a\",{\"$integer\":5}]},\"value\":{\"$map\":[[1,{\"$bytes\":\"AAE=\"}]]}}\n{\"entries\":1}\n",
        r#"{"format": "vaults-base64-v1", "data": {"AmE=": "AAEC"}}"#,
        r#"{"format": "vault-json-v1", "entries": [{"key": {"$bytes": "AA=="}, "value": {"$raw": "AAE="}}, {"key": {"$bool": true}, "value": 1}]}"#,
    ];
    for (n, text) in texts.iter().enumerate() {
        seeds.add("import", &n.to_string(), text.as_bytes().to_vec());
    }
}

fn blob(seeds: &mut Gathered, name: &str, bytes: &[u8]) {
    let mut record = Decoder::new(bytes.get(HEADER_BYTES..).unwrap_or_default());
    let found = (|| {
        let sealed = record.u32()?;
        record.take(FRAME_BYTES - 4 + 1)?;
        let (raw, key) = (record.varint()?, record.bytes()?);
        Some((sealed, raw, key))
    })();
    let Some((sealed, raw, key)) = found else {
        return;
    };
    let mut pointer = vec![1, 0];
    for field in [
        HEADER_BYTES as u64,
        u64::from(sealed) + FRAME_BYTES as u64,
        raw,
    ] {
        put_varint(&mut pointer, field);
    }
    let mut input = Vec::new();
    put_bytes(&mut input, key);
    put_bytes(&mut input, &pointer);
    input.extend_from_slice(bytes);
    seeds.add_few("blob", name, input);
}

fn manifest(seeds: &mut Gathered, name: &str, bytes: &[u8]) {
    seeds.add(
        "manifest",
        name,
        [&[0], &(bytes.len() as u32).to_le_bytes()[..], bytes].concat(),
    );
    seeds.add(
        "manifest",
        &format!("{name}-live"),
        [&[1, 0, 0, 0, 0], bytes].concat(),
    );
    seeds.add("frame", name, [&[1], bytes].concat());
    for (number, payload) in payloads(bytes).into_iter().enumerate() {
        // What stands in front of the edits is the checksum of the record before.
        let edits = payload.get(4..).unwrap_or_default();
        seeds.add("edit", &format!("{name}-{number}"), edits.to_vec());
    }
}

fn records(seeds: &mut Gathered, name: &str, bytes: &[u8]) {
    seeds.add("frame", name, [&[0], bytes].concat());
    for (number, payload) in payloads(bytes).into_iter().enumerate() {
        let name = format!("{name}-{number}");
        let record = vault_lsm::fuzzing::log_record(payload);
        if let Some((_, _, operations)) = record.as_ref().and_then(|record| record.operations()) {
            seeds.add_few("batch", &name, operations.to_vec());
        }
        seeds.add_few("record", &name, payload.to_vec());
    }
}

fn logs(seeds: &mut Gathered, moment: &str, segments: &[Vec<u8>]) {
    let mut add = |name: &str, live: bool, end: Option<(u64, u64)>| {
        let (number, at) = end.unwrap_or_default();
        let mut input = vec![u8::from(live), u8::from(end.is_some())];
        input.extend_from_slice(&number.to_le_bytes());
        input.extend_from_slice(&at.to_le_bytes());
        input.extend_from_slice(&joined(segments));
        seeds.add("log", &format!("{moment}-{name}"), input);
    };
    add("recovered", false, None);
    add("live", true, None);
    if let Some(last) = segments.last() {
        let number = last.get(32..40).and_then(|number| number.try_into().ok());
        let number = u64::from_le_bytes(number.unwrap_or_default());
        let end = HEADER_BYTES
            + payloads(last)
                .iter()
                .map(|p| p.len() + FRAME_BYTES + SEAL_BYTES)
                .sum::<usize>();
        add("ended", false, Some((number, end as u64)));
    }
}

fn table(seeds: &mut Gathered, name: &str, bytes: &[u8]) {
    let query = (5_u64 << 8).to_le_bytes();
    for (how, ingested) in [("", 0_u64), ("-ingested", 9 << 8)] {
        let input = [&ingested.to_le_bytes()[..], &query, bytes].concat();
        seeds.add("table", &format!("{name}{how}"), input);
    }
    let Some(parts) = TableParts::of(bytes) else {
        return;
    };
    seeds.add("footer", name, parts.footer);
    seeds.add_few("properties", name, parts.properties);
    if !parts.tombstones.is_empty() {
        seeds.add_few("tombstones", name, parts.tombstones);
    }
    let (top, end) = parts.top_index;
    seeds.add_few(
        "top_index",
        name,
        [&query[..], &end.to_le_bytes(), &top].concat(),
    );
    for (number, (index, blocks, bytes)) in parts.indexes.iter().enumerate() {
        let input = [
            &query[..],
            &(*blocks as u32).to_le_bytes(),
            &bytes.to_le_bytes(),
            index,
        ]
        .concat();
        seeds.add_few("index", &format!("{name}-{number}"), input);
    }
    for (number, filter) in parts.filters.iter().enumerate() {
        let input = [&[7; 8], &[10][..], filter].concat();
        seeds.add_few("filter", &format!("{name}-{number}"), input);
    }
    for (number, (stored, plain_len)) in parts.blocks.iter().enumerate() {
        let name = format!("{name}-{number}");
        let plain = match plain_len {
            Some(len) => {
                seeds.add_few("lz4", &name, [&len.to_le_bytes()[..], stored].concat());
                lz4_flex::block::decompress(stored, *len as usize).unwrap_or_default()
            }
            None => stored.clone(),
        };
        seeds.add_few("block", &name, [&query[..], &plain].concat());
    }
}

/// The payloads of a file's records.
fn payloads(bytes: &[u8]) -> Vec<&[u8]> {
    let mut payloads = Vec::new();
    let mut rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
    while let Some((frame, behind)) = rest.split_at_checked(FRAME_BYTES) {
        let len = frame
            .first_chunk()
            .map_or(0, |len| u32::from_le_bytes(*len)) as usize;
        let Some((sealed, behind)) = behind.split_at_checked(len).filter(|_| len >= SEAL_BYTES)
        else {
            break;
        };
        payloads.push(&sealed[..len - SEAL_BYTES]);
        rest = behind;
    }
    payloads
}

/// The files of a small store of everything, by name; zeros at the end of a log are left out.
fn store(closed: bool) -> Result<BTreeMap<String, Vec<u8>>> {
    let fs = MemoryFileSystem::new();
    let lsm = Lsm::open(DIRECTORY, options(&fs, 1))?;
    fill(&lsm)?;
    lsm.close()?;
    // Opened again, so that the manifest begins with what everything adds up to.
    let lsm = Lsm::open(DIRECTORY, options(&fs, 2))?;
    let keyspace = lsm.create_keyspace("plain", &plain())?;
    let mut batch = WriteBatch::new();
    batch
        .put(keyspace, b"late", b"1")
        .delete(keyspace, b"user-03");
    batch.delete_range(keyspace, b"user-10", b"user-12");
    lsm.write(&batch, &WriteOptions::default())?;
    lsm.put(keyspace, b"later", b"2", &WriteOptions::default())?;
    lsm.sync()?;
    lsm.put(keyspace, b"last", b"3", &WriteOptions::default())?;
    let before_close = fs.kill();
    lsm.close()?;
    let fs = if closed { fs } else { before_close };
    let mut files = BTreeMap::new();
    for (path, _) in fs.list() {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let mut bytes = fs.read_file(&path).unwrap_or_default();
        if name.ends_with("log") {
            let used = bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            bytes.truncate(used + 16);
        }
        files.insert(name.to_owned(), bytes);
    }
    Ok(files)
}

fn options(fs: &MemoryFileSystem, seed: u64) -> LsmOptions {
    let settings = Settings {
        background: BackgroundWork::Manual,
        cache_bytes: Some(0),
        table_metadata_bytes: Some(0),
        log_segment_bytes: Some(64 << 10),
        log_bytes_max: Some(256 << 10),
        ..Settings::default()
    };
    LsmOptions::new(settings)
        .file_system(Arc::new(fs.clone()))
        .clock(Arc::new(ManualClock::new(NOW)))
        .random(Arc::new(SeededRandom::new(seed)))
}

fn plain() -> KeyspaceOptions {
    KeyspaceOptions {
        compression: Compression::None,
        filter: FilterPolicy::None,
        block_bytes: 512,
        ..KeyspaceOptions::default()
    }
}

/// Writes some of everything.
fn fill(lsm: &Lsm) -> Result<()> {
    let write = WriteOptions::default();
    let plain = lsm.create_keyspace("plain", &plain())?;
    for i in 0..24_u32 {
        lsm.put(
            plain,
            format!("user-{i:02}").as_bytes(),
            &[i as u8; 40],
            &write,
        )?;
    }
    // Somebody still reads the first versions, and the tombstones have something below them.
    let _snapshot = lsm.snapshot()?;
    lsm.flush(Some(plain))?;
    // A second version of some keys, and values of uneven length.
    for i in (0..24_u32).step_by(3) {
        lsm.put(
            plain,
            format!("user-{i:02}").as_bytes(),
            &vec![7; i as usize],
            &write,
        )?;
    }
    let mut batch = WriteBatch::new();
    batch
        .delete(plain, b"user-01")
        .delete_range(plain, b"user-05", b"user-08");
    batch.delete_prefix(plain, b"user-2");
    lsm.write(&batch, &write)?;
    lsm.flush(Some(plain))?;

    let small = small_options().merge(vault_core::merge::COUNTER);
    let counters = lsm.create_keyspace("counters", &small)?;
    expiring(lsm, counters)?;
    lsm.flush(Some(counters))?;

    let options = KeyspaceOptions::default().policy(CompactionPolicy::Fifo { bytes_max: 1 << 20 });
    let queue = lsm.create_keyspace("queue", &options)?;
    lsm.ingest(
        queue,
        (0..40_u32).map(|i| (format!("{i:04}"), "ingested ".repeat(5))),
    )?;
    let large = small_options().large_values_from(Some(16));
    let apart = lsm.create_keyspace("apart", &large)?;
    for i in 0..12_u32 {
        let value = [i as u8; 50].repeat(1 + i as usize % 3);
        lsm.put(apart, format!("large-{i:02}").as_bytes(), &value, &write)?;
    }
    lsm.flush(Some(apart))?;
    let gone = lsm.create_keyspace("gone", &KeyspaceOptions::default())?;
    lsm.put(gone, b"k", b"v", &write)?;
    lsm.drop_keyspace(gone)?;
    lsm.create_keyspace(
        "queue",
        &KeyspaceOptions {
            block_bytes: 8192,
            ..options
        },
    )?;
    for _ in 0..64 {
        if !lsm.background_step()? {
            break;
        }
    }
    Ok(())
}

fn small_options() -> KeyspaceOptions {
    KeyspaceOptions {
        policy: CompactionPolicy::TIERED,
        filter: FilterPolicy::Bloom { bits_per_key: 10 },
        block_bytes: 512,
        ..KeyspaceOptions::default()
    }
}

fn expiring(lsm: &Lsm, counters: KeyspaceId) -> Result<()> {
    for i in 0..20_i64 {
        let mut batch = WriteBatch::new();
        let key = format!("counter-{}", i % 5);
        batch.merge(counters, key.as_bytes(), &i.to_le_bytes());
        let until = Timestamp(NOW.0 + 1000 * i as u64 + 1);
        batch.merge_until(counters, key.as_bytes(), &i.to_le_bytes(), until);
        batch.put_until(
            counters,
            format!("session-{i}").as_bytes(),
            &i.to_le_bytes(),
            until,
        );
        lsm.write(&batch, &WriteOptions::default())?;
    }
    Ok(())
}

/// Where the corpora are, below the repository's root.
pub const CORPUS: &str = "fuzz/corpus";

/// The directory of a target's corpus.
#[must_use]
pub fn corpus_of(root: &Path, target: &str) -> std::path::PathBuf {
    root.join(CORPUS).join(target)
}
