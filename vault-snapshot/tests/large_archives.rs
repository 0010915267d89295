//! An entry of more than four gigabytes, which plain zip cannot say: made, verified, and found by another reader of Zip64.
//!
//! It is zeros, kept in a place that keeps no zeros.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex};

use vault_core::vfs::{File, LockGuard, WriteMap};
use vault_snapshot::archive::{Form, Result, SnapshotName};
use vault_snapshot::destination::{Content, Destination, Found, Upload};
use vault_snapshot::repository::{
    CreateOptions, Repository, RepositoryOptions, Source, SourceFile,
};

use support::*;

const LARGE_BYTES: u64 = (4 << 30) + 12_345;
const PAGE_BYTES: u64 = 4096;
const ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// Bytes of which only pages with something in them are kept.
#[derive(Debug, Default)]
struct Sparse {
    pages: BTreeMap<u64, Vec<u8>>,
    len: u64,
}

impl Sparse {
    fn write(&mut self, mut bytes: &[u8], mut offset: u64) {
        while !bytes.is_empty() {
            let (page, within) = (offset / PAGE_BYTES, (offset % PAGE_BYTES) as usize);
            let (now, rest) = bytes.split_at(bytes.len().min(ZEROS.len() - within));
            if *now != ZEROS[..now.len()] || self.pages.contains_key(&page) {
                let kept = self.pages.entry(page).or_insert_with(|| ZEROS.to_vec());
                kept[within..within + now.len()].copy_from_slice(now);
            }
            (bytes, offset) = (rest, offset + now.len() as u64);
            self.len = self.len.max(offset);
        }
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let there = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..there];
        buffer.fill(0);
        let pages = offset / PAGE_BYTES..=(offset + there as u64) / PAGE_BYTES;
        for (page, kept) in self.pages.range(pages) {
            let begin = page * PAGE_BYTES;
            for (at, byte) in kept.iter().enumerate() {
                let at = (begin + at as u64)
                    .checked_sub(offset)
                    .map(|at| at as usize);
                if let Some(place) = at.and_then(|at| buffer.get_mut(at)) {
                    *place = *byte;
                }
            }
        }
        there
    }
}

type Published = Option<(SnapshotName, Vec<u8>)>;

/// One snapshot, in memory.
#[derive(Debug, Clone, Default)]
struct Place {
    archive: Arc<Mutex<Sparse>>,
    manifest: Arc<Mutex<Published>>,
}

impl Destination for Place {
    fn location(&self, _: Option<SnapshotName>) -> String {
        "memory".into()
    }

    fn lock(&self) -> Result<Option<Box<dyn LockGuard>>> {
        Ok(None)
    }

    fn list(&self) -> Result<Vec<Found>> {
        let manifest = self.manifest.lock().unwrap();
        let found = manifest.iter().map(|(name, _)| Found {
            name: *name,
            manifest: true,
        });
        Ok(found.collect())
    }

    fn begin(&self, _: SnapshotName) -> Result<Box<dyn Upload>> {
        Ok(Box::new(self.clone()))
    }

    fn publish(&self, name: SnapshotName, manifest: &[u8]) -> Result<()> {
        *self.manifest.lock().unwrap() = Some((name, manifest.to_vec()));
        Ok(())
    }

    fn manifest(&self, _: SnapshotName, _: u64) -> Result<Vec<u8>> {
        Ok(self.manifest.lock().unwrap().clone().unwrap().1)
    }

    fn archive(&self, _: SnapshotName) -> Result<Arc<dyn Content>> {
        Ok(Arc::new(self.clone()))
    }

    fn withdraw(&self, _: SnapshotName) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _: SnapshotName) -> Result<()> {
        Ok(())
    }
}

impl Upload for Place {
    fn rewrites(&self) -> bool {
        true
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.archive.lock().unwrap().write(bytes, offset);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn abort(&mut self) {}
}

impl Content for Place {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.archive.lock().unwrap().read(buffer, offset))
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.archive.lock().unwrap().len)
    }
}

/// A file of nothing but zeros.
#[derive(Debug)]
struct Zeros;

impl File for Zeros {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let there = LARGE_BYTES.saturating_sub(offset).min(buffer.len() as u64) as usize;
        buffer[..there].fill(0);
        Ok(there)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(LARGE_BYTES)
    }

    fn map(&self, _: usize) -> io::Result<Box<dyn WriteMap>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The archive as another reader sees it.
struct Cursor(Place, u64);

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read_at(buffer, self.1)?;
        self.1 += read as u64;
        Ok(read)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.1 = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.1.checked_add_signed(by).unwrap(),
            SeekFrom::End(by) => self.0.bytes()?.checked_add_signed(by).unwrap(),
        };
        Ok(self.1)
    }
}

#[test]
fn an_entry_over_four_gigabytes_is_stored_and_verified() {
    let place = Place::default();
    let options = RepositoryOptions::default();
    let repository = Repository::open(Arc::new(place.clone()), options).unwrap();
    let mut source = Source::new(STORE, Form::Physical);
    for (name, bytes) in [("000001.table", LARGE_BYTES), ("000002.table", 100)] {
        source.files.push(SourceFile {
            name: name.into(),
            bytes,
            salt: None,
            immutable: true,
            content: Arc::new(Zeros),
        });
    }
    let made = repository
        .create(source, &CreateOptions::default(), &())
        .unwrap();
    assert!(place.bytes().unwrap() > u64::from(u32::MAX));
    let verified = repository.verify(made.name, &()).unwrap();
    assert_eq!(verified.bytes, LARGE_BYTES + 100);
    let behind = repository.read_entry(made.name, "store/000002.table", 100);
    assert_eq!(behind.unwrap(), [0; 100]);
    let zip = zip::ZipArchive::new(Cursor(place, 0)).unwrap();
    let large = zip.by_index_data(0).unwrap();
    assert_eq!(large.size(), LARGE_BYTES);
}
