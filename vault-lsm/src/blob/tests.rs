//! Tests of whole blob files: what was put in comes out, and nothing else does, whatever becomes of the bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::random::{Random, SeededRandom};
use vault_core::transform::{ChecksumTransform, HEADER_BYTES};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Compression, Error, KeyspaceId, Result, Slice};

use super::inspect::{BlobSources, Fault, Inspection, Request};
use super::{BlobFile, BlobMeta, BlobWriter, Pointer};
use crate::memory::Memory;
use crate::reclaim::ReclaimQueue;
use crate::table::TableEnv;

const KEYSPACE: KeyspaceId = KeyspaceId(3);
const NUMBER: u64 = 42;

fn path() -> PathBuf {
    PathBuf::from("000042.blob")
}

/// A store of one blob file.
struct Bench {
    env: TableEnv,
    fs: MemoryFileSystem,
}

impl Bench {
    fn new() -> Self {
        let fs = MemoryFileSystem::new();
        let memory = Memory::without_store(1 << 20);
        let env = TableEnv {
            fs: Arc::new(fs.clone()),
            transform: Arc::new(ChecksumTransform),
            random: Arc::new(SeededRandom::new(7)),
            store: [9; 16],
            cache: Arc::clone(memory.cache()),
            metadata_budget: Arc::clone(memory.tables()),
            memory,
        };
        Self { env, fs }
    }

    fn write(&self, values: &[(Vec<u8>, Vec<u8>)], compression: Compression) -> Written {
        let mut writer = BlobWriter::create(&self.env, &path(), NUMBER, KEYSPACE).unwrap();
        let add = |(key, value): &(Vec<u8>, Vec<u8>)| writer.add(key, value, compression).unwrap();
        let pointers = values.iter().map(add).collect();
        let meta = writer.finish().unwrap();
        assert_eq!(meta.bytes, self.bytes().len() as u64);
        Written { meta, pointers }
    }

    fn bytes(&self) -> Vec<u8> {
        self.fs.read_file(path()).unwrap()
    }

    fn set_bytes(&self, bytes: &[u8]) {
        self.fs.write_file(path(), bytes).unwrap();
    }

    fn open(&self, meta: &BlobMeta) -> Result<Arc<BlobFile>> {
        let reclaim = Arc::new(ReclaimQueue::default());
        BlobFile::open(&self.env, &path(), KEYSPACE, meta.clone(), &reclaim)
    }

    fn inspect(&self, meta: Option<&BlobMeta>) -> (BlobSources, Inspection) {
        let mut sources = BlobSources::default();
        let path = path();
        let request = Request {
            path: &path,
            number: NUMBER,
            expected: meta.map(|meta| (KEYSPACE.0, meta)),
        };
        let mut inspection = sources.open(&self.env, &request).unwrap();
        let mut go_on = |_| Ok(());
        sources.walk(&request, &mut inspection, &mut go_on).unwrap();
        (sources, inspection)
    }
}

struct Written {
    meta: BlobMeta,
    pointers: Vec<Pointer>,
}

/// Values of many lengths, half of which compress.
fn values() -> Vec<(Vec<u8>, Vec<u8>)> {
    let random = SeededRandom::new(5);
    let value = |(number, len): (usize, &usize)| {
        let mut bytes = vec![b'x'; *len];
        if number % 2 == 0 {
            random.fill(&mut bytes).unwrap();
        }
        (format!("key-{number}").into_bytes(), bytes)
    };
    let lens = [0, 1, 22, 23, 100, 4096, 5000, 65_536, 300_000, 1_000_000];
    lens.iter().enumerate().map(value).collect()
}

#[test]
fn what_was_put_in_comes_out() {
    for compression in [Compression::None, Compression::Lz4] {
        let bench = Bench::new();
        let values = values();
        let Written { meta, pointers } = bench.write(&values, compression);
        let stored: u64 = pointers.iter().map(|p| u64::from(p.stored)).sum();
        assert_eq!((meta.values, meta.value_bytes), (10, stored));
        let raw: usize = values.iter().map(|(_, value)| value.len()).sum();
        let compressed = meta.bytes < raw as u64 * 3 / 4;
        assert_eq!(compressed, compression == Compression::Lz4);
        let file = bench.open(&meta).unwrap();
        for ((key, value), pointer) in values.iter().zip(&pointers).rev() {
            assert_eq!(file.read(key, pointer).unwrap(), Slice::from(&value[..]));
        }
        let (_, inspection) = bench.inspect(Some(&meta));
        assert!(inspection.problems.is_empty(), "{:?}", inspection.problems);
        assert_eq!(inspection.values, 10);
    }
}

#[test]
fn values_are_copied_as_they_are_stored() {
    let bench = Bench::new();
    let values = values();
    let Written { meta, pointers } = bench.write(&values, Compression::Lz4);
    let old = bench.open(&meta).unwrap();
    let other = Path::new("000043.blob");
    let mut writer = BlobWriter::create(&bench.env, other, 43, KEYSPACE).unwrap();
    let mut copies = Vec::new();
    for ((key, _), pointer) in values.iter().zip(&pointers).skip(3) {
        let copy = old.with_stored(key, pointer, |payload| {
            writer.add_stored(payload, pointer.raw)
        });
        copies.push(copy.unwrap());
    }
    let meta = writer.finish().unwrap();
    let reclaim = Arc::new(ReclaimQueue::default());
    let new = BlobFile::open(&bench.env, other, KEYSPACE, meta, &reclaim).unwrap();
    let written = values.iter().zip(pointers).skip(3);
    for (((key, value), old), copy) in written.zip(&copies) {
        assert_eq!((old.stored, old.raw), (copy.stored, copy.raw));
        assert_eq!(&new.read(key, copy).unwrap()[..], &value[..]);
    }
}

#[test]
fn a_pointer_that_leads_elsewhere_is_damage() {
    let bench = Bench::new();
    let values = values();
    let Written { meta, pointers } = bench.write(&values, Compression::Lz4);
    let file = bench.open(&meta).unwrap();
    let (key, other) = (&values[5].0, &values[6].0);
    let right = pointers[5];
    let wrong = [
        Pointer {
            ordinal: 6,
            ..right
        },
        Pointer {
            raw: right.raw + 1,
            ..right
        },
        Pointer {
            stored: right.stored + 1,
            ..right
        },
        Pointer {
            stored: right.stored - 1,
            ..right
        },
        Pointer {
            offset: right.offset + 1,
            ..right
        },
        Pointer {
            offset: meta.bytes - 1,
            ..right
        },
        Pointer {
            offset: u64::MAX,
            ..right
        },
        Pointer {
            stored: u32::MAX,
            ..right
        },
        pointers[6],
    ];
    for pointer in wrong {
        let read = file.read(key, &pointer);
        assert!(matches!(read, Err(Error::Corruption { .. })), "{read:?}");
    }
    let read = file.read(other, &right);
    let Err(Error::Corruption {
        offset,
        problem,
        path: blamed,
    }) = read
    else {
        panic!("{read:?}");
    };
    assert_eq!((offset, blamed), (right.offset, path()));
    assert!(problem.contains("another key"), "{problem}");
    assert!(file.with_stored(other, &right, |_| Ok(())).is_err());
}

#[test]
fn every_changed_byte_is_noticed() {
    let bench = Bench::new();
    let few = values().into_iter().take(5).collect::<Vec<_>>();
    let Written { meta, pointers } = bench.write(&few, Compression::Lz4);
    let whole = bench.bytes();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        bench.set_bytes(&changed);
        let (_, inspection) = bench.inspect(Some(&meta));
        assert!(!inspection.problems.is_empty(), "byte {at}");
        let Ok(file) = bench.open(&meta) else {
            assert!(at < HEADER_BYTES, "byte {at}");
            continue;
        };
        assert!(at >= HEADER_BYTES, "byte {at}");
        for ((key, value), pointer) in few.iter().zip(&pointers) {
            let within = pointer.offset..pointer.offset + u64::from(pointer.stored);
            match file.read(key, pointer) {
                Ok(read) => assert!(!within.contains(&(at as u64)) && read[..] == value[..]),
                Err(error) => {
                    assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
                    assert!(within.contains(&(at as u64)), "byte {at}");
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_or_is_another_is_refused_and_read_as_far_as_it_goes() {
    let bench = Bench::new();
    let values = values();
    let Written { meta, pointers } = bench.write(&values, Compression::Lz4);
    let whole = bench.bytes();
    let cut = pointers[6].offset as usize + 20;
    bench.set_bytes(&whole[..cut]);
    assert!(matches!(bench.open(&meta), Err(Error::Corruption { .. })));
    let (sources, inspection) = bench.inspect(Some(&meta));
    let faults: Vec<Fault> = inspection.problems.iter().map(|p| p.fault).collect();
    assert_eq!(faults, [Fault::Length, Fault::Record]);
    for (number, ((key, value), pointer)) in values.iter().zip(&pointers).enumerate() {
        match sources.value(key, pointer).unwrap() {
            Ok(read) => assert!(number < 6 && read[..] == value[..]),
            Err(_) => assert!(number >= 6),
        }
    }
    bench.set_bytes(&whole);
    let salted = BlobMeta {
        salt: [1; 24],
        ..meta.clone()
    };
    assert!(matches!(bench.open(&salted), Err(Error::Corruption { .. })));
    let (_, inspection) = bench.inspect(Some(&salted));
    assert_eq!(inspection.problems[0].fault, Fault::Header);
    vault_core::vfs::FileSystem::remove(&bench.fs, &path()).unwrap();
    let (_, inspection) = bench.inspect(None);
    assert_eq!(inspection.problems[0].fault, Fault::Missing);
}

#[test]
fn what_is_abandoned_leaves_no_file() {
    let bench = Bench::new();
    let mut writer = BlobWriter::create(&bench.env, &path(), NUMBER, KEYSPACE).unwrap();
    writer.add(b"k", &[1; 1 << 20], Compression::None).unwrap();
    assert!(writer.bytes() > 1 << 20);
    writer.abandon();
    assert!(bench.fs.read_file(path()).is_err());
    assert_eq!(bench.env.memory.used(crate::memory::Class::Background), 0);
}
