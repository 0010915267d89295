//! Damaged files: a typed error or the right answer, never a wrong one, never a panic.

use std::io;
use std::ops::ControlFlow;

use vault_core::vfs::{Fault, FaultKind, OperationClass};
use vault_core::{Error, ErrorKind};

use super::scramble::{Keyed, Scramble, Trusting};
use super::*;
use crate::cursor::InternalCursor;
use crate::internal_key::pack;
use crate::table::inspect::{Fault as Wrong, Request, Visitor, inspect};

fn small_entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = (0..60_u64)
        .map(|i| {
            (
                format!("key{:02}", i / 2).into_bytes(),
                pack(i + 1, 1),
                vec![7; i as usize % 30],
            )
        })
        .collect();
    sort(&mut entries);
    entries
}

/// Reads everything by cursor and by lookup.
fn read_all(table: &Arc<Table>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut cursor = table.scan_cursor();
    cursor.first()?;
    while cursor.valid() {
        entries.push((
            cursor.key().to_vec(),
            cursor.trailer(),
            cursor.value().to_vec(),
        ));
        cursor.next()?;
    }
    let mut found = Vec::new();
    for (key, ..) in &entries {
        let flow = table.visit(key, Some(key_hash(key)), u64::MAX, |trailer, value| {
            found.push((key.clone(), trailer, value.to_vec()));
            ControlFlow::Continue(())
        })?;
        assert!(flow.is_continue());
    }
    sort(&mut found);
    assert_eq!(entries, found);
    Ok(entries)
}

fn ranges() -> [RangeTombstone; 2] {
    [tombstone(b"a", b"b", 9), tombstone(b"key03", b"key07", 100)]
}

#[test]
fn every_flipped_byte_is_noticed() {
    for transform in [
        Arc::new(ChecksumTransform) as Arc<dyn Transform>,
        Arc::new(Scramble),
    ] {
        let bench = Bench::new(transform, 0, 0);
        let options = options(256, Compression::Lz4, FilterPolicy::default());
        let meta = bench.write(&options, &small_entries(), &ranges());
        let bytes = bench.bytes();
        assert_eq!(
            read_all(&bench.open(&meta).unwrap()).unwrap(),
            small_entries()
        );
        let sealed_end = trailer::sealed_end(bench.env.transform.id(), bytes.len() as u64);
        let sealed_end =
            sealed_end.expect("a writer ends tables so that this can be told") as usize;
        for at in 0..sealed_end {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                bench.set_bytes(&damaged);
                let result = bench.open(&meta).and_then(|table| read_all(&table));
                let error = result.expect_err(&format!("byte {at} ^ {flip:#x} went unnoticed"));
                // A changed transform id or version is stopped by the header's checksum before.
                assert_eq!(error.kind(), ErrorKind::Restore, "byte {at}: {error}");
                assert!(matches!(&error, Error::Corruption { path: p, .. } if *p == path()));
            }
        }
        // What is no authority does not keep anybody from reading either.
        for at in sealed_end..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            bench.set_bytes(&damaged);
            let read = bench.open(&meta).and_then(|table| read_all(&table));
            assert_eq!(read.unwrap(), small_entries(), "byte {at}");
            assert_eq!(inspected(&bench, &meta), [Wrong::Trailer], "byte {at}");
        }
    }
}

/// What a check that reads the trailer finds wrong.
fn inspected(bench: &Bench, meta: &TableMeta) -> Vec<Wrong> {
    struct Everything;
    impl Visitor for Everything {
        fn wants_trailer(&mut self) -> bool {
            true
        }
    }
    let path = path();
    let request = Request {
        path: &path,
        number: NUMBER,
        expected: Some((KEYSPACE, meta)),
    };
    let inspection = inspect(&bench.env, &request, &mut Everything).unwrap();
    inspection.problems.iter().map(|p| p.fault).collect()
}

/// What is told of a table of an encrypted store names no key; of a plain one it does.
#[test]
fn findings_name_keys_only_of_plain_stores() {
    for encrypted in [false, true] {
        let transform: Arc<dyn Transform> = if encrypted {
            Arc::new(Keyed)
        } else {
            Arc::new(ChecksumTransform)
        };
        let bench = Bench::new(transform, 0, 0);
        let meta = bench.write(&tiny(), &small_entries(), &ranges());
        let wrong = TableMeta {
            largest: b"key99".to_vec(),
            ..meta
        };
        let path = path();
        let request = Request {
            path: &path,
            number: NUMBER,
            expected: Some((KEYSPACE, &wrong)),
        };
        struct Everything;
        impl Visitor for Everything {}
        let inspection = inspect(&bench.env, &request, &mut Everything).unwrap();
        let [problem] = &inspection.problems[..] else {
            panic!("{:?}", inspection.problems);
        };
        assert_eq!(problem.fault, Wrong::Properties);
        let told = format!("{} {}", problem.expected, problem.found);
        assert_eq!(
            told.contains("key99") && told.contains("key29"),
            !encrypted,
            "{told}"
        );
        assert_eq!(told.contains("5 bytes, withheld"), encrypted, "{told}");
    }
}

/// Bytes that are changed behind the seal are told by the checksum and by the block; the checksums alone by
/// the trailer alone. A table of plain checksums ends in its footer.
#[test]
fn a_trailer_is_there_only_where_keys_seal_and_is_found_sound() {
    for (transform, has) in [
        (Arc::new(ChecksumTransform) as Arc<dyn Transform>, false),
        (Arc::new(Scramble), true),
    ] {
        let bench = Bench::new(transform, 0, 0);
        let entries: Vec<Entry> = (0..3000_u64)
            .map(|i| (i.to_be_bytes().to_vec(), pack(i + 1, 1), vec![i as u8; 100]))
            .collect();
        let options = options(4096, Compression::None, FilterPolicy::default());
        let meta = bench.write(&options, &entries, &ranges());
        let bytes = bench.bytes();
        assert!(bytes.len() as u64 > 4 * trailer::CHUNK_BYTES);
        assert_eq!(bytes.ends_with(b"vltcrc32"), has);
        assert_eq!(inspected(&bench, &meta), []);
        assert_eq!(read_all(&bench.open(&meta).unwrap()).unwrap().len(), 3000);
        let mut damaged = bytes.clone();
        damaged[100_000] ^= 1;
        bench.set_bytes(&damaged);
        let found = inspected(&bench, &meta);
        let expected: &[Wrong] = if has {
            &[Wrong::Trailer, Wrong::Block]
        } else {
            &[Wrong::Block]
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn every_truncation_is_noticed() {
    let bench = Bench::plain();
    let meta = bench.write(&tiny(), &small_entries(), &ranges());
    let bytes = bench.bytes();
    for len in 0..bytes.len() {
        bench.set_bytes(&bytes[..len]);
        let error = bench.open(&meta).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Restore, "{len} bytes: {error}");
        // Even if the manifest agreed with the length.
        let shorter = TableMeta {
            bytes: len as u64,
            ..meta.clone()
        };
        assert_eq!(bench.open(&shorter).unwrap_err().kind(), ErrorKind::Restore);
    }
    let longer = [&bytes[..], &[0]].concat();
    bench.set_bytes(&longer);
    assert!(bench.open(&meta).is_err());
}

#[test]
fn a_file_shortened_while_open_is_noticed() {
    let bench = Bench::new(Arc::new(ChecksumTransform), 0, 0);
    let meta = bench.write(&tiny(), &small_entries(), &[]);
    let table = bench.open(&meta).unwrap();
    let file = bench.env.fs.open_for_write(&path()).unwrap();
    file.set_len(200).unwrap();
    assert_eq!(read_all(&table).unwrap_err().kind(), ErrorKind::Restore);
}

#[test]
fn swapped_blocks_and_files_are_noticed() {
    // Uncompressed blocks of equal length: only their place tells them apart.
    let entries: Vec<Entry> = (0..40_u8)
        .map(|i| (vec![i, 0, 0, 0], pack(1, 1), vec![i; 40]))
        .collect();
    let bench = Bench::new(Arc::new(ChecksumTransform), 0, 0);
    let options = options(128, Compression::None, FilterPolicy::None);
    let meta = bench.write(&options, &entries, &[]);
    let bytes = bench.bytes();
    let table = bench.open(&meta).unwrap();
    let index = table.index(0).unwrap().into_arc();
    let (a, b) = (
        table.data_handle(0, &index, 0),
        table.data_handle(0, &index, 1),
    );
    assert_eq!(a.stored_len, b.stored_len);
    let len = table.source.sealed_len(&a);
    let (a, b) = (a.offset as usize, b.offset as usize);
    let mut swapped = bytes.clone();
    swapped[a..a + len].copy_from_slice(&bytes[b..b + len]);
    swapped[b..b + len].copy_from_slice(&bytes[a..a + len]);
    bench.set_bytes(&swapped);
    assert_eq!(
        read_all(&bench.open(&meta).unwrap()).unwrap_err().kind(),
        ErrorKind::Restore
    );
}

/// The same bytes as another table, of another keyspace, of another store, or not as described.
#[test]
fn a_table_that_is_not_the_one_expected_is_refused() {
    let bench = Bench::plain();
    let meta = bench.write(&tiny(), &small_entries(), &[]);
    let bytes = bench.bytes();
    bench.fs.write_file(other_path(), &bytes).unwrap();
    let open = |env: &TableEnv, keyspace, meta: TableMeta| {
        Table::open(env, other_path(), keyspace, meta).map(drop)
    };
    assert!(open(&bench.env, KEYSPACE, meta.clone()).is_ok());
    let renumbered = TableMeta {
        number: 43,
        ..meta.clone()
    };
    assert!(open(&bench.env, KEYSPACE, renumbered).is_err());
    assert!(open(&bench.env, KeyspaceId(4), meta.clone()).is_err());
    let foreign = TableEnv {
        store: [8; 16],
        ..bench.env.clone()
    };
    assert!(open(&foreign, KEYSPACE, meta.clone()).is_err());
    let other = TableEnv {
        transform: Arc::new(Scramble),
        ..bench.env.clone()
    };
    assert!(matches!(
        open(&other, KEYSPACE, meta.clone()),
        Err(Error::NotEncrypted { .. })
    ));

    // Another idea of the same table.
    for wrong in [
        TableMeta {
            entries: meta.entries + 1,
            ..meta.clone()
        },
        TableMeta {
            raw_bytes: 1,
            ..meta.clone()
        },
        TableMeta {
            sequence_max: 900,
            ..meta.clone()
        },
        TableMeta {
            largest: b"zz".to_vec(),
            ..meta.clone()
        },
        TableMeta {
            range_tombstones: 1,
            ..meta.clone()
        },
        TableMeta {
            bytes: meta.bytes + 1,
            ..meta.clone()
        },
    ] {
        assert_eq!(
            open(&bench.env, KEYSPACE, wrong).unwrap_err().kind(),
            ErrorKind::Restore
        );
    }
}

#[test]
fn a_missing_file_is_an_io_error() {
    let bench = Bench::plain();
    let meta = bench.write(&tiny(), &small_entries(), &[]);
    bench.env.fs.remove(&path()).unwrap();
    assert!(matches!(
        bench.open(&meta),
        Err(Error::Io {
            operation: "open",
            ..
        })
    ));
}

/// A read that fails once leaves nothing behind: the next try gives the right answer.
#[test]
fn a_failed_read_is_an_error_and_no_more() {
    let bench = Bench::new(Arc::new(ChecksumTransform), 1 << 20, 1 << 10);
    let options = options(128, Compression::Lz4, FilterPolicy::default());
    let meta = bench.write(&options, &small_entries(), &ranges());
    let broken = FaultKind::Error(io::ErrorKind::Other);
    for n in 0.. {
        bench.env.cache.remove_tables(&[NUMBER].into());
        bench
            .fs
            .inject(Fault::new(OperationClass::Read, broken).after(n));
        let mut table = bench.open(&meta);
        if let Err(error) = &table {
            assert!(
                matches!(
                    error,
                    Error::Io {
                        operation: "read",
                        ..
                    }
                ),
                "{error}"
            );
            table = bench.open(&meta);
        }
        let table = table.unwrap();
        let mut cursor = table.cursor();
        let mut failed = n < 2;
        for expected in [None, Some(small_entries())] {
            let walk = cursor.first().and_then(|()| {
                let mut entries = Vec::new();
                while cursor.valid() {
                    entries.push((
                        cursor.key().to_vec(),
                        cursor.trailer(),
                        cursor.value().to_vec(),
                    ));
                    cursor.next()?;
                }
                Ok(entries)
            });
            match (walk, expected) {
                (Err(error), None) => {
                    assert!(!failed && !cursor.valid(), "{error}");
                    failed = true;
                }
                (walk, _) => assert_eq!(walk.unwrap(), small_entries()),
            }
        }
        if !failed {
            bench.fs.clear_faults();
            assert!(n > 5, "{n} reads were enough for everything");
            return;
        }
    }
}

/// With a transform that lets everything pass, whatever the bytes say must end in an error or in some
/// answer: no panic, no endless loop, no allocation that the file does not justify.
#[test]
fn parsers_survive_whatever_passes_the_seal() {
    let bench = Bench::new(Arc::new(Trusting), 0, 0);
    let options = options(128, Compression::Lz4, FilterPolicy::default());
    let meta = bench.write(&options, &small_entries(), &ranges());
    let bytes = bench.bytes();
    let use_all = |bytes: &[u8]| {
        bench.set_bytes(bytes);
        let Ok(table) = bench.open(&meta) else {
            return;
        };
        for mut cursor in [table.cursor(), table.scan_cursor()] {
            let mut walked = cursor.first();
            let mut steps = 0;
            while walked.is_ok() && cursor.valid() {
                walked = cursor.next();
                steps += 1;
                assert!(
                    steps <= bytes.len() * 16,
                    "a block has no more entries than bytes"
                );
            }
            let mut walked = cursor.last();
            while walked.is_ok() && cursor.valid() {
                walked = cursor.prev();
            }
            for (key, trailer, _) in small_entries().iter().step_by(7) {
                drop(cursor.seek(key, *trailer));
                drop(cursor.seek_back(key, *trailer));
                drop(table.visit(key, Some(key_hash(key)), *trailer, |_, _| {
                    ControlFlow::Continue(())
                }));
            }
        }
    };
    use_all(&bytes);
    for at in vault_core::transform::HEADER_BYTES..bytes.len() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            bytes[at] ^ 1,
            bytes[at].wrapping_add(16),
        ] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            use_all(&damaged);
        }
    }
    let random = SeededRandom::new(11);
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        for _ in 0..random.below(8) + 1 {
            let at = random.below(bytes.len() as u64 - 128) as usize + 128;
            damaged[at] = random.next_u64() as u8;
        }
        use_all(&damaged);
    }
}
