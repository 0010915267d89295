//! One key with more versions than are gathered in memory at once: flushes and compactions read values a second
//! time, combine operands as they come, and lose nothing; readers combine them too, in both directions.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use vault_core::merge::MergeOperator;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, KeyRange, KeyspaceId, KeyspaceOptions, Reader, WriteBatch, WriteOptions};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

/// Joins operands, and cannot do so without what is below them.
#[derive(Debug)]
struct Concatenate;

impl MergeOperator for Concatenate {
    fn name(&self) -> &str {
        "test.concatenate"
    }

    fn merge(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>, String> {
        Ok([&[base.unwrap_or_default()], operands].concat().concat())
    }
}

/// A store under the smallest budget: about 256 KiB of one key's values are gathered.
fn open(fs: &MemoryFileSystem) -> Lsm {
    let settings = Settings {
        memory_bytes: 16 << 20,
        background: BackgroundWork::Manual,
        ..Settings::default()
    };
    let options = LsmOptions::new(settings)
        .file_system(Arc::new(fs.clone()))
        .merge_operator(Arc::new(Concatenate));
    Lsm::open(support::DIRECTORY, options).unwrap()
}

fn keyspace(store: &Lsm, operator: Option<&str>) -> KeyspaceId {
    let options = KeyspaceOptions {
        merge_operator: operator.map(str::to_owned),
        ..KeyspaceOptions::default()
    };
    store.create_keyspace("k", &options).unwrap()
}

fn compact(store: &Lsm, ks: KeyspaceId) {
    let mut on = |_| std::ops::ControlFlow::Continue(());
    store.compact(ks, KeyRange::all(), &mut on).unwrap();
}

/// Each version is some snapshot's, so all stay, and together they are more than is gathered.
#[test]
fn versions_that_snapshots_need_are_read_again_where_they_don_t_fit() {
    const VERSIONS: u64 = 60;
    let fs = MemoryFileSystem::new();
    let store = open(&fs);
    let ks = keyspace(&store, None);
    let value = |version: u64| {
        let mut value = support::value(7, version);
        value.resize(30_000, version as u8);
        value
    };
    let put = |key: &[u8], value: &[u8]| store.put(ks, key, value, &WriteOptions::OS).unwrap();
    put(b"a", b"before");
    put(b"z", b"behind");
    let mut snapshots = Vec::new();
    for version in 0..VERSIONS {
        put(b"hot", &value(version));
        snapshots.push(store.snapshot().unwrap());
        // Versions that nobody can see are not gathered at all.
        put(b"hot", b"hidden at once");
    }
    put(b"hot", &value(VERSIONS));
    let check = |context: &str| {
        for (version, snapshot) in snapshots.iter().enumerate() {
            let found = snapshot.get(ks, b"hot").unwrap();
            assert!(
                found.as_deref() == Some(&value(version as u64)[..]),
                "{context}: version {version}"
            );
        }
        let now: Vec<_> = store.scan(ks, KeyRange::all()).unwrap().collect();
        let now: Vec<_> = now.into_iter().map(Result::unwrap).collect();
        assert_eq!(now.len(), 3, "{context}");
        assert!(&now[0].0[..] == b"a" && &now[2].1[..] == b"behind");
        assert!(now[1].1[..] == value(VERSIONS)[..], "{context}");
    };
    check("in memory");
    store.flush(None).unwrap();
    check("flushed");
    compact(&store, ks);
    check("compacted");
    let obsolete = store.stats().unwrap().background.obsolete_removed;
    assert!(obsolete >= VERSIONS, "{obsolete} removed");
    drop(snapshots);
    compact(&store, ks);
    let entries = support::keyspace_stats(&store, ks).levels;
    assert_eq!(entries.iter().map(|level| level.entries).sum::<u64>(), 3);
}

/// Operands that only their base makes sense of, more than are gathered, stay as they are, and in order.
#[test]
fn operands_that_cannot_be_combined_stay_whole_and_in_order() {
    const OPERANDS: u64 = 3000;
    let fs = MemoryFileSystem::new();
    let store = open(&fs);
    let ks = keyspace(&store, Some("test.concatenate"));
    let mut expected = b"base".to_vec();
    store.put(ks, b"list", b"base", &WriteOptions::OS).unwrap();
    for operand in 0..OPERANDS {
        let operand = support::value(operand, 1);
        expected.extend_from_slice(&operand);
        let mut batch = WriteBatch::new();
        batch.merge(ks, b"list", &operand);
        store.write(&batch, &WriteOptions::OS).unwrap();
    }
    let check = |context: &str| {
        let found = store.get(ks, b"list").unwrap();
        assert!(found.as_deref() == Some(&expected[..]), "{context}");
        let mut cursor = store.cursor(ks, KeyRange::all()).unwrap();
        cursor.last().unwrap();
        let (key, value) = cursor.entry().unwrap();
        assert!(key == b"list" && value == expected, "{context}, backward");
    };
    check("in memory");
    store.flush(None).unwrap();
    check("flushed");
    compact(&store, ks);
    check("compacted");
}

/// Counted up more often than operands are gathered: one operand is left in a table, whatever is below it,
/// and a cursor that goes backward over so many in memory finds its way.
#[test]
fn a_counter_is_combined_as_it_is_gathered() {
    const COUNTS: i64 = 5000;
    let fs = MemoryFileSystem::new();
    let store = open(&fs);
    let ks = keyspace(&store, Some(vault_core::merge::COUNTER));
    let count = |key: &[u8], by: i64| {
        let mut batch = WriteBatch::new();
        batch.merge(ks, key, &by.to_le_bytes());
        store.write(&batch, &WriteOptions::OS).unwrap();
    };
    for key in [b"a", b"m", b"z"] {
        for n in 0..if key == b"m" { COUNTS } else { 1 } {
            count(key, n + 1);
        }
    }
    let sum = COUNTS * (COUNTS + 1) / 2;
    let early = store.snapshot().unwrap();
    count(b"m", 1_000_000);
    let check = |context: &str| {
        let mut cursor = early.cursor(ks, KeyRange::all()).unwrap();
        let mut found = Vec::new();
        cursor.last().unwrap();
        while let Some((key, value)) = cursor.entry() {
            let value = i64::from_le_bytes(value.try_into().unwrap());
            found.push((key.to_vec(), value));
            cursor.prev().unwrap();
        }
        let expected = [(b"z".to_vec(), 1), (b"m".to_vec(), sum), (b"a".to_vec(), 1)];
        assert_eq!(found, expected, "{context}");
        let now = store.get(ks, b"m").unwrap().unwrap();
        assert_eq!(now[..], (sum + 1_000_000).to_le_bytes(), "{context}");
    };
    check("in memory");
    store.flush(None).unwrap();
    check("flushed");
    let entries = support::keyspace_stats(&store, ks).levels[0].entries;
    assert_eq!(entries, 4, "one for each stripe of each key");
    compact(&store, ks);
    check("compacted");
}
