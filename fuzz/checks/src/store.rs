//! Whole stores: every file at once, through the door that applications use.
//!
//! A store whose files were changed is refused with an error, or opens; what opens can be read, written,
//! flushed, compacted, closed and opened again, each with success or an error. Nothing of it panics. Of a store
//! whose checksums are right, what was read before is read after it was closed and opened again.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arbitrary::Arbitrary;
use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Engine, KeyRange, Reader, Result, Timestamp, WriteOptions};
use vault_lsm::check::scrub;
use vault_lsm::fuzzing::{Chained, Fixed, Seals, mend_header};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, OpenMode, Settings};

/// The files of a store.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Each is as long as the four bytes before it say, or as there are bytes left. Kind and number are what
    /// its header says.
    pub files: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lens = files(self.files).map(|(name, bytes)| (name, bytes.len()));
        f.debug_map().entries(lens).finish()?;
        for seals in [Seals::Kept, Seals::Mended] {
            let opened = Lsm::open(DIRECTORY, options(&file_system(self.files, seals), seals));
            let contents = opened.and_then(|lsm| contents(&lsm));
            write!(f, "\n{seals:?}: {contents:#?}")?;
        }
        Ok(())
    }
}

const DIRECTORY: &str = "/store";
/// More would only be slower.
const FILES_MAX: usize = 12;
/// Entries that are read of a keyspace: forged files can hold the same block many times.
const ENTRIES_MAX: usize = 10_000;

/// Opens and uses it as it is, and with its checksums mended.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    scrub_it(input.files);
    for seals in [Seals::Kept, Seals::Mended] {
        let fs = file_system(input.files, seals);
        let Ok(lsm) = Lsm::open(DIRECTORY, options(&fs, seals)) else {
            continue;
        };
        let before = contents(&lsm);
        let written = use_it(&lsm);
        let after = contents(&lsm);
        let closed = lsm.close();
        drop(lsm);
        let again = Lsm::open(DIRECTORY, options(&fs, seals)).and_then(|lsm| contents(&lsm));
        if seals == Seals::Kept && before.is_ok() {
            written.unwrap_or_else(|error| panic!("a sound store cannot be used: {error}"));
            closed.unwrap_or_else(|error| panic!("a sound store cannot be closed: {error}"));
            let after = after.unwrap_or_else(|error| panic!("it was readable before: {error}"));
            assert_eq!(
                Some(after),
                again.ok(),
                "another store after opening it again"
            );
        }
    }
}

/// Scrubs the files as they are, and as those of an encrypted store, whose checksums are another kind: it ends, with a
/// report or with an error that says why not, and writes nothing.
fn scrub_it(bytes: &[u8]) {
    for encrypted in [false, true] {
        let fs = file_system(bytes, Seals::Kept);
        if encrypted {
            for (path, _) in fs.list() {
                let mut file = fs.read_file(&path).expect("it was just listed");
                if let Some(transform) = file.get_mut(10..12) {
                    transform.copy_from_slice(&1_u16.to_le_bytes());
                }
                mend_header(&mut file);
                fs.write_file(&path, &file).expect("it is there");
            }
        }
        let before = fs.list();
        let mut go_on = |_: &_| ControlFlow::Continue(());
        let scrubbed = scrub(DIRECTORY, &options(&fs, Seals::Kept), &mut go_on);
        if let Ok(report) = scrubbed {
            // Without a keyring no encrypted store is sound.
            assert!(!(report.encrypted && report.is_clean()), "{report:#?}");
        }
        assert_eq!(before, fs.list(), "a scrub wrote something");
    }
}

/// Writes, flushes and compacts in every keyspace.
fn use_it(lsm: &Lsm) -> Result<()> {
    for keyspace in lsm.keyspaces()? {
        lsm.put(
            keyspace.id,
            b"fuzzed",
            b"8 bytes.",
            &WriteOptions::default(),
        )?;
    }
    lsm.flush(None)?;
    for keyspace in lsm.keyspaces()? {
        lsm.compact(keyspace.id, KeyRange::all(), &mut |_| {
            ControlFlow::Continue(())
        })?;
    }
    for _ in 0..32 {
        if !lsm.background_step()? {
            break;
        }
    }
    lsm.stats().map(drop)
}

type Contents = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// What every keyspace holds, asked for in both directions and one by one.
fn contents(lsm: &Lsm) -> Result<Contents> {
    let mut contents = Contents::new();
    for keyspace in lsm.keyspaces()? {
        let mut cursor = lsm.cursor(keyspace.id, KeyRange::all())?;
        let mut entries = Vec::new();
        cursor.first()?;
        while let Some((key, value)) = cursor.entry() {
            entries.push((key.to_vec(), value.to_vec()));
            if entries.len() == ENTRIES_MAX {
                break;
            }
            cursor.next()?;
        }
        let mut backwards = 0;
        cursor.last()?;
        while cursor.entry().is_some() && backwards < ENTRIES_MAX {
            backwards += 1;
            cursor.prev()?;
        }
        for (key, _) in entries.iter().take(64) {
            lsm.get(keyspace.id, key)?;
        }
        contents.insert(keyspace.name, entries);
    }
    Ok(contents)
}

fn options(fs: &MemoryFileSystem, seals: Seals) -> LsmOptions {
    let settings = Settings {
        mode: OpenMode::MustExist,
        background: BackgroundWork::Manual,
        cache_bytes: Some(64 << 10),
        table_metadata_bytes: Some(64 << 10),
        log_segment_bytes: Some(64 << 10),
        log_bytes_max: Some(256 << 10),
        ..Settings::default()
    };
    LsmOptions::new(settings)
        .file_system(Arc::new(fs.clone()))
        .clock(Arc::new(ManualClock::new(Timestamp(1_700_000_005_000))))
        .random(Arc::new(SeededRandom::new(3)))
        .protection(Arc::new(Fixed(seals.transform())))
}

/// The files by the names that their headers ask for.
fn files(mut bytes: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    let mut left = FILES_MAX;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (file, behind) = rest.split_at((u32::from_le_bytes(*len) as usize).min(rest.len()));
        bytes = behind;
        let number = file.get(32..40).and_then(|number| number.try_into().ok());
        let number = u64::from_le_bytes(number.unwrap_or_default());
        let name = match file.get(6) {
            Some(1) => format!("{number:06}.log"),
            Some(2) => format!("{number:06}.tab"),
            Some(3) => format!("{number:06}.man"),
            Some(5) => format!("{number:06}.blob"),
            _ => "CURRENT".to_owned(),
        };
        Some((name, file))
    })
}

fn file_system(bytes: &[u8], seals: Seals) -> MemoryFileSystem {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new(DIRECTORY))
        .expect("an empty file system in memory takes a directory");
    for (name, file) in files(bytes) {
        let records = match name.rsplit_once('.') {
            Some((_, "log")) => Some(Chained::No),
            Some((_, "man")) => Some(Chained::Yes),
            _ => None,
        };
        fs.write_file(
            Path::new(DIRECTORY).join(&name),
            &seals.prepare(file, records),
        )
        .expect("the directory is there");
    }
    fs
}
