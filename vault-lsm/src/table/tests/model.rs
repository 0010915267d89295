//! Tables against a sorted list.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;

use vault_core::batch::{KIND_HAS_EXPIRY, OperationKind};
use vault_core::limits::KEY_BYTES_MAX;
use vault_core::vfs::{Fault, FaultKind, OperationClass};
use vault_core::{Error, ErrorKind, KeyRange, Slice};

use super::scramble::Scramble;
use super::*;
use crate::cursor::InternalCursor;
use crate::internal_key::{compare, pack, seek_trailer};

const PUT: u8 = OperationKind::Put as u8;
const DELETE: u8 = OperationKind::Delete as u8;

/// Entries of the given shape: few keys with many versions, shared prefixes, odd lengths.
fn random_entries(random: &SeededRandom, count: usize, keys: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    for _ in 0..count {
        let number = random.below(keys);
        let key = match number % 5 {
            0 => number.to_be_bytes().to_vec(),
            1 => format!("user:{number:04}:name").into_bytes(),
            2 => vec![b'a'; number as usize % 40],
            3 => number.to_be_bytes()[6..].to_vec(),
            _ => format!("user:{number:04}:{}", "x".repeat(number as usize % 60)).into_bytes(),
        };
        let kind = if random.percent(20) { DELETE } else { PUT };
        let value = if kind == DELETE {
            Vec::new()
        } else {
            let byte = random.next_u64() as u8;
            (0..random.below(90))
                .map(|i| if i % 3 == 0 { byte } else { i as u8 })
                .collect()
        };
        entries.push((key, pack(random.below(10_000) + 1, kind), value));
    }
    sort(&mut entries);
    entries
}

fn entry_at(cursor: &TableCursor) -> Option<Entry> {
    cursor.valid().then(|| {
        assert_eq!(cursor.value_slice(), cursor.value());
        (
            cursor.key().to_vec(),
            cursor.trailer(),
            cursor.value().to_vec(),
        )
    })
}

fn check_meta(meta: &TableMeta, entries: &[Entry]) {
    assert_eq!(meta.entries, entries.len() as u64);
    assert_eq!(meta.smallest, entries[0].0);
    assert_eq!(meta.largest, entries[entries.len() - 1].0);
    assert!(!meta.largest_exclusive);
    let sequences = || entries.iter().map(|e| e.1 >> 8);
    assert_eq!(Some(meta.sequence_min), sequences().min());
    assert_eq!(Some(meta.sequence_max), sequences().max());
    let raw: usize = entries.iter().map(|e| e.0.len() + e.2.len()).sum();
    assert_eq!(meta.raw_bytes, raw as u64);
    let deletes = entries.iter().filter(|e| e.1 as u8 == DELETE).count();
    assert_eq!(meta.tombstones, deletes as u64);
    assert_eq!((meta.number, meta.created), (NUMBER, CREATED));
}

/// Every entry, both ways, and every lookup.
fn check_all(table: &Arc<Table>, entries: &[Entry]) {
    for scan in [false, true] {
        let mut cursor = if scan {
            table.scan_cursor()
        } else {
            table.cursor()
        };
        assert!(!cursor.valid());
        cursor.next().unwrap();
        assert!(!cursor.valid());
        cursor.first().unwrap();
        for expected in entries {
            assert_eq!(entry_at(&cursor).as_ref(), Some(expected));
            cursor.next().unwrap();
        }
        assert_eq!(entry_at(&cursor), None);
        cursor.prev().unwrap();
        assert_eq!(entry_at(&cursor), None);
        cursor.last().unwrap();
        for expected in entries.iter().rev() {
            assert_eq!(entry_at(&cursor).as_ref(), Some(expected));
            cursor.prev().unwrap();
        }
        assert_eq!(entry_at(&cursor), None);
    }
    let keys: BTreeSet<_> = entries.iter().map(|e| &e.0).collect();
    for key in keys {
        assert!(table.may_contain(key_hash(key), key).unwrap());
        check_visit(table, entries, key, u64::MAX);
    }
}

fn visit(table: &Table, key: &[u8], from: u64, most: usize) -> Vec<(u64, Slice)> {
    let found = visit_asking(table, key, Some(key_hash(key)), from, most);
    // The filters save work and change nothing.
    assert_eq!(visit_asking(table, key, None, from, most), found);
    found
}

fn visit_asking(
    table: &Table,
    key: &[u8],
    hash: Option<u64>,
    from: u64,
    most: usize,
) -> Vec<(u64, Slice)> {
    let mut found = Vec::new();
    let flow = table.visit(key, hash, from, |trailer, value| {
        found.push((trailer, value));
        if found.len() == most {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!(flow.unwrap().is_break(), found.len() == most);
    found
}

fn check_visit(table: &Table, entries: &[Entry], key: &[u8], from: u64) {
    let expected: Vec<_> = entries
        .iter()
        .filter(|e| e.0 == key && e.1 <= from)
        .map(|e| (e.1, Slice::from(&e.2[..])))
        .collect();
    assert_eq!(visit(table, key, from, usize::MAX), expected);
    if !expected.is_empty() {
        assert_eq!(visit(table, key, from, 1), expected[..1]);
    }
}

/// Seeks and steps at random, with changes of direction, against the list.
fn check_walks(table: &Arc<Table>, entries: &[Entry], random: &SeededRandom, steps: usize) {
    for scan in [false, true] {
        let mut cursor = if scan {
            table.scan_cursor()
        } else {
            table.cursor()
        };
        let mut at: Option<usize> = None;
        for _ in 0..steps {
            let (key, trailer) = random_target(entries, random);
            let position =
                entries.partition_point(|e| compare((&e.0, e.1), (&key, trailer)).is_lt());
            match random.below(12) {
                0 => {
                    cursor.seek(&key, trailer).unwrap();
                    at = (position < entries.len()).then_some(position);
                }
                1 => {
                    cursor.seek_back(&key, trailer).unwrap();
                    let exact = entries
                        .get(position)
                        .is_some_and(|e| e.0 == key && e.1 == trailer);
                    at = if exact {
                        Some(position)
                    } else {
                        position.checked_sub(1)
                    };
                }
                2 => check_visit(table, entries, &key, trailer),
                3 if random.percent(10) => {
                    cursor.first().unwrap();
                    at = Some(0);
                }
                3 if random.percent(10) => {
                    cursor.last().unwrap();
                    at = Some(entries.len() - 1);
                }
                n => {
                    for _ in 0..random.below(40) {
                        if n % 2 == 0 {
                            cursor.next().unwrap();
                            at = at.map(|i| i + 1).filter(|&i| i < entries.len());
                        } else {
                            cursor.prev().unwrap();
                            at = at.and_then(|i| i.checked_sub(1));
                        }
                    }
                }
            }
            assert_eq!(entry_at(&cursor).as_ref(), at.map(|i| &entries[i]));
        }
    }
}

/// An entry, or something near one.
fn random_target(entries: &[Entry], random: &SeededRandom) -> (Vec<u8>, u64) {
    let (key, trailer, _) = &entries[random.below(entries.len() as u64) as usize];
    let mut key = key.clone();
    match random.below(8) {
        0 => key.push(0),
        1 => drop(key.pop()),
        2 => key.push(0xff),
        3 => match key.last_mut() {
            Some(last) => *last = last.wrapping_add(1),
            None => key.push(1),
        },
        _ => {}
    }
    let trailer = match random.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => trailer + 1,
        3 => trailer - 1,
        4 => seek_trailer(random.below(10_000)),
        _ => *trailer,
    };
    (key, trailer)
}

#[test]
fn tables_of_many_shapes_agree_with_a_list() {
    let none = FilterPolicy::None;
    let bloom = |bits_per_key| FilterPolicy::Bloom { bits_per_key };
    let shapes = [
        (64, Compression::Lz4, bloom(10), 3),
        (512, Compression::Lz4, bloom(1), 50),
        (512, Compression::None, none, 2000),
        (4096, Compression::Lz4, bloom(32), 300),
        (16 << 10, Compression::None, bloom(10), 100_000),
    ];
    for (seed, (block_bytes, compression, filter, keys)) in shapes.into_iter().enumerate() {
        let random = SeededRandom::new(seed as u64);
        let entries = random_entries(&random, 3000, keys);
        for (cache, metadata) in [(0, 0), (64 << 10, 1 << 10), (1 << 20, 1 << 20)] {
            let transform: Arc<dyn Transform> = if cache == 0 {
                Arc::new(Scramble)
            } else {
                Arc::new(ChecksumTransform)
            };
            let bench = Bench::new(transform, cache, metadata);
            let meta = bench.write(&options(block_bytes, compression, filter), &entries, &[]);
            check_meta(&meta, &entries);
            let table = bench.open(&meta).unwrap();
            check_all(&table, &entries);
            check_walks(&table, &entries, &random, 400);
            drop(table);
            assert_eq!(bench.env.metadata_budget.used(), 0);
        }
    }
}

/// Each version fills a block of its own, so the versions of one key span blocks and partitions.
#[test]
fn versions_of_one_key_span_partitions() {
    let mut entries = vec![(b"a".to_vec(), pack(1, PUT), vec![1])];
    for sequence in (1..=500).rev() {
        entries.push((
            b"key".to_vec(),
            pack(sequence, PUT),
            vec![sequence as u8; 50],
        ));
    }
    entries.push((b"kez".to_vec(), pack(1, PUT), vec![1]));
    let bench = Bench::plain();
    let meta = bench.write(
        &options(64, Compression::None, FilterPolicy::default()),
        &entries,
        &[],
    );
    let table = bench.open(&meta).unwrap();
    assert!(table.top.partitions.len() > 50);
    check_all(&table, &entries);
    for sequence in 0..=501 {
        check_visit(&table, &entries, b"key", seek_trailer(sequence));
        assert_eq!(
            visit(&table, b"key", seek_trailer(sequence), usize::MAX).len() as u64,
            sequence.min(500)
        );
    }
    check_walks(&table, &entries, &SeededRandom::new(1), 300);
}

#[test]
fn keys_and_values_of_extreme_lengths() {
    let mut entries: Vec<Entry> = vec![
        (vec![], pack(7, PUT), vec![]),
        (vec![], pack(6, PUT), vec![1; 1 << 20]),
        (vec![0], pack(6, DELETE), vec![]),
        (vec![7; KEY_BYTES_MAX], pack(5, PUT), vec![2; 100]),
        (vec![7; KEY_BYTES_MAX], pack(4, PUT), vec![]),
        (vec![7; KEY_BYTES_MAX - 1], pack(4, PUT), vec![3; 5 << 20]),
        (
            vec![9; 10],
            pack(4, PUT),
            (0..1 << 20)
                .map(|i: u32| (i.wrapping_mul(i) >> 7) as u8)
                .collect(),
        ),
    ];
    for i in 0..200_u64 {
        let key = [&vec![8; 60_000][..], &i.to_be_bytes()].concat();
        entries.push((key, pack(9, PUT), vec![4; 10]));
    }
    sort(&mut entries);
    for compression in [Compression::None, Compression::Lz4] {
        for block_bytes in [512, 1 << 20] {
            let bench = Bench::plain();
            let meta = bench.write(
                &options(block_bytes, compression, FilterPolicy::default()),
                &entries,
                &[],
            );
            let table = bench.open(&meta).unwrap();
            check_all(&table, &entries);
            check_walks(&table, &entries, &SeededRandom::new(2), 50);
        }
    }
}

#[test]
fn absent_keys_are_mostly_filtered() {
    let entries: Vec<Entry> = (0..5000_u32)
        .map(|i| ((i * 2).to_be_bytes().to_vec(), pack(1, PUT), vec![1; 20]))
        .collect();
    let bench = Bench::plain();
    let table = bench.open(&bench.write(&tiny(), &entries, &[])).unwrap();
    let mut admitted = 0;
    for i in 0..5000_u32 {
        let key = (i * 2 + 1).to_be_bytes();
        let asked = Some(key_hash(&key));
        assert_eq!(visit_asking(&table, &key, asked, u64::MAX, 1), []);
        admitted += u32::from(table.may_contain(key_hash(&key), &key).unwrap());
    }
    assert!(
        admitted < 100,
        "{admitted} of 5000 absent keys passed the filter"
    );
    // Nothing but a few false positives has read a data block.
    assert!(bench.env.cache.stats().bytes < 100 * 1000);
    assert!(bench.env.metadata_budget.used() > 0);
}

#[test]
fn range_tombstones_round_trip_and_widen_the_bounds() {
    let entries: Vec<Entry> = (0..100_u8)
        .map(|i| (vec![100, i], pack(50, PUT), vec![]))
        .collect();
    let given = [
        tombstone(&[100, 20], &[100, 30], 60),
        tombstone(&[3], &[100, 99], 9),
        tombstone(&[5], &[5], 1), // covers nothing
        tombstone(&[100, 20], &[101], 70),
    ];
    let bench = Bench::plain();
    let meta = bench.write(&tiny(), &entries, &given);
    assert_eq!(
        (meta.range_tombstones, meta.sequence_min, meta.sequence_max),
        (3, 9, 70)
    );
    assert_eq!(
        (&meta.smallest[..], &meta.largest[..]),
        (&[3][..], &[101][..])
    );
    assert!(meta.largest_exclusive && meta.expiry_max.is_none());
    let table = bench.open(&meta).unwrap();
    let sequences: Vec<_> = table
        .range_tombstones()
        .iter()
        .map(|t| t.sequence)
        .collect();
    assert_eq!(sequences, [9, 70, 60]);
    assert_eq!(table.range_tombstones()[1], given[3]);
    check_all(&table, &entries);

    // The end of a range tombstone that an entry reaches is covered.
    let bench = Bench::plain();
    let meta = bench.write(&tiny(), &entries, &[tombstone(&[100, 20], &[100, 99], 60)]);
    assert_eq!(
        (&meta.largest[..], meta.largest_exclusive),
        (&[100, 99][..], false)
    );
}

#[test]
fn a_table_of_range_tombstones_alone() {
    let bench = Bench::plain();
    let meta = bench.write(&tiny(), &[], &[tombstone(b"b", b"d", 5)]);
    assert_eq!(
        (meta.entries, &meta.smallest[..], &meta.largest[..]),
        (0, &b"b"[..], &b"d"[..])
    );
    assert!(meta.largest_exclusive && meta.expiry_max.is_none());
    let table = bench.open(&meta).unwrap();
    assert_eq!(table.range_tombstones().len(), 1);
    assert!(!table.may_contain(key_hash(b"b"), b"b").unwrap());
    assert_eq!(visit(&table, b"b", u64::MAX, 1), []);
    assert_eq!(table.approximate_bytes_in(&KeyRange::all()), 0);
    let mut cursor = table.cursor();
    cursor.first().unwrap();
    cursor.last().unwrap();
    cursor.seek(b"", u64::MAX).unwrap();
    cursor.seek_back(b"z", 0).unwrap();
    assert!(!cursor.valid());
}

#[test]
fn the_expiry_of_a_table_is_known_only_if_all_of_it_expires() {
    let expiring = |key: &[u8], expiry: u64| {
        let value = [&expiry.to_le_bytes()[..], b"value"].concat();
        (key.to_vec(), pack(1, PUT | KIND_HAS_EXPIRY), value)
    };
    let both = [expiring(b"a", 900), expiring(b"b", 800)];
    let mixed = [both[0].clone(), (b"c".to_vec(), pack(1, PUT), vec![])];
    let range = [tombstone(b"a", b"b", 5)];
    let write = |entries: &[Entry], ranges: &[RangeTombstone]| {
        let bench = Bench::plain();
        let meta = bench.write(&tiny(), entries, ranges);
        bench.open(&meta).unwrap();
        (meta.expiry_max, meta.expiring)
    };
    assert_eq!(write(&both, &[]), (Some(Timestamp(900)), 2));
    assert_eq!(write(&mixed, &[]), (None, 1));
    assert_eq!(write(&both, &range), (None, 2));
}

#[test]
fn bytes_of_a_range_are_estimated() {
    let entries: Vec<Entry> = (0..20_000_u32)
        .map(|i| {
            (
                i.to_be_bytes().to_vec(),
                pack(1, PUT),
                (i.wrapping_mul(2_654_435_761)).to_be_bytes().repeat(5),
            )
        })
        .collect();
    let bench = Bench::plain();
    let meta = bench.write(&tiny(), &entries, &[]);
    let table = bench.open(&meta).unwrap();
    let of = |from: u32, to: u32| {
        table.approximate_bytes_in(&KeyRange::from(
            &from.to_be_bytes()[..]..&to.to_be_bytes()[..],
        ))
    };
    for _ in 0..2 {
        let half = of(5000, 15_000) as f64 / meta.bytes as f64;
        assert!((0.45..0.55).contains(&half), "{half}");
        assert!(table.approximate_bytes_in(&KeyRange::all()) > meta.bytes * 9 / 10);
        assert_eq!(of(7, 7), 0);
        assert_eq!(of(8, 7), 0);
        // The second time with all partitions' indexes in memory.
        check_all(&table, &entries);
    }
}

#[test]
fn what_cannot_be_an_entry_is_refused() {
    let bench = Bench::plain();
    let create = || {
        drop(bench.env.fs.remove(&path()));
        TableWriter::create(&bench.env, &path(), NUMBER, KEYSPACE, &tiny(), CREATED).unwrap()
    };
    let mut writer = create();
    writer.add(b"b", pack(5, PUT), b"").unwrap();
    for (key, trailer) in [
        (b"a", pack(5, PUT)),
        (b"b", pack(5, PUT)),
        (b"b", pack(6, PUT)),
    ] {
        let error = writer.add(key, trailer, b"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Restore, "{error}");
    }
    for (kind, value) in [
        (0, &b""[..]),
        (4, b""),
        (9, b""),
        (PUT | KIND_HAS_EXPIRY, b"short"),
    ] {
        assert!(matches!(
            writer.add(b"c", pack(5, kind), value),
            Err(Error::Corruption { .. })
        ));
    }
    writer.abandon();
    assert!(bench.fs.list().is_empty());
}

#[test]
fn writes_that_fail_leave_no_file() {
    let random = SeededRandom::new(3);
    let entries: Vec<Entry> = (0..20_000_u32)
        .map(|i| {
            let mut value = vec![0; 100];
            random.fill(&mut value).unwrap();
            (i.to_be_bytes().to_vec(), pack(1, PUT), value)
        })
        .collect();
    let full = FaultKind::Error(io::ErrorKind::StorageFull);
    let attempt = |fault: Fault| {
        let bench = Bench::plain();
        bench.fs.inject(fault.sticky());
        let mut writer =
            TableWriter::create(&bench.env, &path(), NUMBER, KEYSPACE, &tiny(), CREATED).unwrap();
        let added = entries
            .iter()
            .try_for_each(|(key, trailer, value)| writer.add(key, *trailer, value));
        let result = match added {
            Ok(()) => writer.finish(),
            Err(error) => {
                writer.abandon();
                Err(error)
            }
        };
        if let Err(error) = &result {
            assert_eq!(error.kind(), ErrorKind::Full);
            assert!(bench.fs.list().is_empty());
        }
        result.is_ok()
    };
    // Chunks of 256 KiB and what is left; then one sync.
    let writes = 20_000 * 112 / (256 << 10) + 1;
    for n in 0..writes {
        assert!(
            !attempt(Fault::new(OperationClass::Write, full).after(n)),
            "write {n}"
        );
    }
    assert!(attempt(
        Fault::new(OperationClass::Write, full).after(writes)
    ));
    assert!(!attempt(Fault::new(OperationClass::Sync, full)));
    assert!(attempt(Fault::new(OperationClass::Sync, full).after(1)));
    assert!(attempt(Fault::new(OperationClass::SyncDir, full)));
}

#[test]
fn compaction_leaves_the_cache_alone() {
    let entries = random_entries(&SeededRandom::new(5), 3000, 1000);
    let bench = Bench::plain();
    let table = bench.open(&bench.write(&tiny(), &entries, &[])).unwrap();
    let walk = |mut cursor: TableCursor| {
        cursor.first().unwrap();
        while cursor.valid() {
            cursor.next().unwrap();
        }
    };
    walk(table.scan_cursor());
    assert_eq!(bench.env.cache.stats().bytes, 0);
    walk(table.cursor());
    let filled = bench.env.cache.stats();
    assert!(filled.bytes > 0);
    walk(table.cursor());
    assert_eq!(bench.env.cache.stats().misses, filled.misses);
    bench.env.cache.remove_tables(&[NUMBER].into());
    assert_eq!(bench.env.cache.stats().bytes, 0);
}

#[test]
fn threads_share_a_table() {
    let random = SeededRandom::new(9);
    let entries = random_entries(&random, 2000, 300);
    // Room for some partitions only, so that threads race for pinning and share the cache.
    let bench = Bench::new(Arc::new(ChecksumTransform), 64 << 10, 4 << 10);
    let table = bench.open(&bench.write(&tiny(), &entries, &[])).unwrap();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (table, entries) = (&table, &entries);
            scope.spawn(move || check_walks(table, entries, &SeededRandom::new(seed), 300));
        }
    });
    assert!(bench.env.metadata_budget.used() > 0);
    drop(table);
    assert_eq!(bench.env.metadata_budget.used(), 0);
}
