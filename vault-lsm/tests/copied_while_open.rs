//! A store whose files are copied one by one while it is written, as `cp -r` does. What is copied comes from
//! as many moments as there are files. Promised is: opening the copy either gives a state that the store was
//! in (of each thread a prefix, batches whole, causes before effects), or an error that says that it is
//! damaged. It never gives wrong or mixed data. Whoever wants a copy that always opens makes a checkpoint.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "copying behind the engine's back is what this is about"
)]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use support::batches::{self, Batches, THREADS, Writers};
use support::{TWO_THREADS, protected, small_settings};
use vault_core::random::{Random as _, SeededRandom};
use vault_core::{Engine, Error, ErrorKind as Kind};
use vault_lsm::{Lsm, LsmOptions};

/// Copies that are made. Each is opened read-only and for writing.
const COPIES: u64 = 60;

fn options() -> LsmOptions {
    protected(LsmOptions::new(small_settings(TWO_THREADS)))
}

#[test]
fn copies_of_a_live_store() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let store = Lsm::open(&directory, options()).unwrap();
    let writers = Writers::new(&store);
    let mut tally = BTreeMap::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (writers, store, stop) = (&writers, &store, &stop);
        // However this ends, the writers are told.
        let _end = Stop(stop);
        for thread in 0..THREADS {
            scope.spawn(move || writers.write(store, thread, stop, |_| {}));
        }
        for number in 0..COPIES {
            let copy = parent.path().join(format!("copy-{number}"));
            copy_slowly(&directory, &copy, number);
            let reading = Lsm::open_read_only(&copy, &options());
            *tally
                .entry(judge(reading, &format!("copy {number}, read-only")))
                .or_insert(0) += 1;
            let writing = Lsm::open(&copy, options());
            *tally
                .entry(judge(writing, &format!("copy {number}, for writing")))
                .or_insert(0) += 1;
            std::fs::remove_dir_all(copy).unwrap();
        }
    });
    println!("{tally:?}");
    store.close().unwrap();
    let acknowledged = writers
        .acknowledged
        .map(|last| last.load(Ordering::Acquire));
    let store = Lsm::open(&directory, options()).unwrap();
    assert_eq!(
        batches::check(&store, &acknowledged, "the store itself"),
        acknowledged
    );
}

/// A copy opens and is consistent, or is refused as damaged, or as no store where its pointer was not copied.
fn judge(opened: vault_core::Result<Lsm>, context: &str) -> &'static str {
    match opened {
        Ok(store) => {
            batches::check(&store, &Batches::default(), context);
            store.close().unwrap();
            "opens, and is a prefix"
        }
        Err(error @ Error::Corruption { .. }) => {
            assert_eq!(error.kind(), Kind::Restore);
            "refused as damaged"
        }
        Err(Error::NoSuchStore { .. }) => "no store",
        Err(error) => panic!("{context}: {error:?}"),
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Copies file after file, in an order of its own each time, and each in pieces.
fn copy_slowly(from: &Path, to: &Path, seed: u64) {
    std::fs::create_dir(to).unwrap();
    let mut names: Vec<PathBuf> = std::fs::read_dir(from)
        .unwrap()
        .map(|entry| PathBuf::from(entry.unwrap().file_name()))
        .collect();
    let random = SeededRandom::new(seed);
    if seed.is_multiple_of(3) {
        names.sort();
    } else {
        names.sort_by_cached_key(|_| {
            let mut bytes = [0; 8];
            random.fill(&mut bytes).unwrap();
            u64::from_be_bytes(bytes)
        });
    }
    for name in names {
        let mut source = match File::open(from.join(&name)) {
            Ok(source) => source,
            // Removed since the directory was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{error}"),
        };
        let mut target = File::create_new(to.join(&name)).unwrap();
        let mut piece = vec![0; 4096 << (seed % 3)];
        loop {
            let read = source.read(&mut piece).unwrap();
            if read == 0 {
                break;
            }
            target.write_all(&piece[..read]).unwrap();
            if seed.is_multiple_of(2) {
                std::thread::yield_now();
            }
        }
    }
}
