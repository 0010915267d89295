//! Damaged files: a typed error or the right answer, never a wrong one, never a panic.

use vault_core::{Error, ErrorKind};

use super::scramble::Scramble;
use super::*;
use crate::cursor::InternalCursor;
use crate::internal_key::pack;

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
        table.visit(key, key_hash(key), u64::MAX, |trailer, value| {
            found.push((key.clone(), trailer, value.to_vec()));
            std::ops::ControlFlow::Continue(())
        })?;
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
        let bytes = bench.fs.bytes(&path());
        assert_eq!(
            read_all(&bench.open(&meta).unwrap()).unwrap(),
            small_entries()
        );
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                bench.fs.set_bytes(&path(), damaged);
                let result = bench.open(&meta).and_then(|table| read_all(&table));
                let error = result.expect_err(&format!("byte {at} ^ {flip:#x} went unnoticed"));
                // A changed transform id or version is stopped by the header's checksum before.
                assert_eq!(error.kind(), ErrorKind::Restore, "byte {at}: {error}");
                assert!(matches!(&error, Error::Corruption { path: p, .. } if *p == path()));
            }
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let bench = Bench::plain();
    let meta = bench.write(&tiny(), &small_entries(), &ranges());
    let bytes = bench.fs.bytes(&path());
    for len in 0..bytes.len() {
        bench.fs.set_bytes(&path(), bytes[..len].to_vec());
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
    bench.fs.set_bytes(&path(), longer);
    assert!(bench.open(&meta).is_err());
}

#[test]
fn a_file_shortened_while_open_is_noticed() {
    let bench = Bench::new(Arc::new(ChecksumTransform), 0, 0);
    let meta = bench.write(&tiny(), &small_entries(), &[]);
    let table = bench.open(&meta).unwrap();
    bench.env.fs.open(&path()).unwrap().set_len(200).unwrap();
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
    let bytes = bench.fs.bytes(&path());
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
    bench.fs.set_bytes(&path(), swapped);
    assert_eq!(
        read_all(&bench.open(&meta).unwrap()).unwrap_err().kind(),
        ErrorKind::Restore
    );

    // The same bytes as another table, of another keyspace, of another store.
    bench.fs.set_bytes(other_path(), bytes);
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
        Err(Error::OptionsConflict { .. })
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
