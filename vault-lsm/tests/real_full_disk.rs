//! Small real file systems that run full: while writing, flushing, compacting, ingesting, making checkpoints,
//! creating and dropping keyspaces, opening and closing. Every refusal is a typed error that says what to do,
//! nothing that was acknowledged is gone, reads go on, and when there is room again the same handle works on,
//! as does the next one.
//!
//! A log segment is mapped into memory: where the disk is full to the last byte, writing into one works or is
//! an error, and never a signal that ends the process. The file systems are a tmpfs, an ext4, and an ext2,
//! which cannot reserve space, so that Vault does it by writing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "the ballast that fills the disk is the test's own file"
)]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use support::alone::{Mounted, alone_with_mounts, skip};
use support::modes::encrypted;
use support::{
    TWO_THREADS, assert_contents, expected, key, keyspace_stats, protected, put_all,
    small_keyspace, small_settings, value, wait_until,
};
use vault_core::{
    CompactionPolicy, Engine, Error, ErrorKind as Kind, KeyRange, KeyspaceId, Result, WriteOptions,
};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

#[test]
fn on_a_tmpfs() {
    alone_with_mounts("on_a_tmpfs", || {
        all_stories(&Mounted::tmpfs("size=8m"));
    });
}

#[test]
fn on_an_ext4() {
    alone_with_mounts("on_an_ext4", || match Mounted::image("ext4", 8 << 20) {
        Ok(disk) => all_stories(&disk),
        Err(missing) => skip("on_an_ext4", &missing),
    });
}

#[test]
fn on_an_ext2_that_cannot_reserve_space() {
    alone_with_mounts(
        "on_an_ext2_that_cannot_reserve_space",
        || match Mounted::image("ext2", 8 << 20) {
            Ok(disk) => all_stories(&disk),
            Err(missing) => skip("on_an_ext2_that_cannot_reserve_space", &missing),
        },
    );
}

/// There is room for bytes, but no name is left for another file.
#[test]
fn on_a_tmpfs_without_inodes() {
    alone_with_mounts("on_a_tmpfs_without_inodes", || {
        let disk = Mounted::tmpfs("size=8m,nr_inodes=60");
        let directory = disk.root().join("store");
        let (store, ks, mut acknowledged) = begun(&directory, BackgroundWork::Manual);
        let mut names = take_all_names(disk.root());
        write_until_refused(&store, ks, &mut acknowledged);
        // A segment of the log that was removed gives its name back when the log is synced.
        store.sync().unwrap();
        names.extend(take_all_names(disk.root()));
        for _ in 0..2 {
            assert_full(store.flush(None), "flush");
            assert_full(store.checkpoint(disk.root().join("copy")), "checkpoint");
            assert_full(store.ingest(ks, [(b"k", b"v")]), "ingest");
        }
        assert_contents(&store, ks, &acknowledged);
        for name in names {
            std::fs::remove_file(name).unwrap();
        }
        // Few, because the tables of many would need more names than there are.
        works_on(&store, ks, &mut acknowledged, 100);
        close_and_reopen(store, ks, &acknowledged);
    });
}

fn take_all_names(root: &Path) -> Vec<PathBuf> {
    let free = (0..)
        .map(|n| root.join(format!("name-{n}")))
        .filter(|name| !name.exists());
    free.map_while(|name| match File::create_new(&name) {
        Ok(_) => Some(name),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            None
        }
    })
    .collect()
}

fn all_stories(disk: &Mounted) {
    for background in [BackgroundWork::Manual, TWO_THREADS] {
        for slack in [0, 150 << 10, 400 << 10] {
            let directory = disk.root().join("store");
            the_same_handle_works_on(disk.root(), &directory, background, slack);
            std::fs::remove_dir_all(&directory).unwrap();
            closed_while_full(disk.root(), &directory, background, slack);
            std::fs::remove_dir_all(&directory).unwrap();
        }
    }
}

fn the_same_handle_works_on(root: &Path, directory: &Path, background: BackgroundWork, slack: u64) {
    let (store, ks, mut acknowledged) = begun(directory, background);
    let ballast = Ballast::fill(root, slack);
    for _ in 0..3 {
        write_until_refused(&store, ks, &mut acknowledged);
        assert_contents(&store, ks, &acknowledged);
    }
    // What little is left goes too, and then everything else is tried.
    let rest = Ballast::fill(root, 0);
    write_until_refused(&store, ks, &mut acknowledged);
    everything_else_is_refused(&store, ks, root);
    assert_contents(&store, ks, &acknowledged);
    // If the process ended now, this is what the next one would find.
    let elsewhere = tempfile::tempdir().unwrap();
    copy_files(directory, elsewhere.path());
    let other = Lsm::open(elsewhere.path(), options(background)).unwrap();
    assert_contents(&other, ks, &acknowledged);
    drop((other, rest, ballast));
    works_on(&store, ks, &mut acknowledged, 1_000);
    close_and_reopen(store, ks, &acknowledged);
}

fn closed_while_full(root: &Path, directory: &Path, background: BackgroundWork, slack: u64) {
    let (store, ks, mut acknowledged) = begun(directory, background);
    let ballast = Ballast::fill(root, slack);
    write_until_refused(&store, ks, &mut acknowledged);
    let rest = Ballast::fill(root, 0);
    // Closing may find room in what it gives back; if it does not, it says so.
    let closed = store.close();
    if closed.is_err() {
        assert_full(closed, "close");
    }
    drop(store);
    let reading = Lsm::open_read_only(directory, &options(background)).unwrap();
    assert_contents(&reading, ks, &acknowledged);
    drop(reading);
    // The close gave space back: only on a disk that is full again must opening be refused.
    let again = Ballast::fill(root, 0);
    for _ in 0..2 {
        let before = image(directory);
        assert_full(Lsm::open(directory, options(background)), "open");
        assert_eq!(
            image(directory),
            before,
            "a store that is refused is left as it was"
        );
    }
    let reading = Lsm::open_read_only(directory, &options(background)).unwrap();
    assert_contents(&reading, ks, &acknowledged);
    drop((reading, again, rest, ballast));
    let store = Lsm::open(directory, options(background)).unwrap();
    assert_contents(&store, ks, &acknowledged);
    works_on(&store, ks, &mut acknowledged, 300);
    close_and_reopen(store, ks, &acknowledged);
}

fn options(background: BackgroundWork) -> LsmOptions {
    protected(LsmOptions::new(small_settings(background)))
}

/// A store with tables, a second keyspace, and a log.
fn begun(directory: &Path, background: BackgroundWork) -> (Lsm, KeyspaceId, Contents) {
    let store = Lsm::open(directory, options(background)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let tiered = small_keyspace().policy(CompactionPolicy::TIERED);
    let other = store.create_keyspace("other", &tiered).unwrap();
    put_all(&store, ks, 0..800, 1);
    put_all(&store, other, 0..200, 1);
    store.settle().unwrap();
    put_all(&store, ks, 800..900, 1);
    (store, ks, expected(0..900, 1))
}

/// Writes until a write is refused, by a full disk; adds what was acknowledged.
fn write_until_refused(store: &Lsm, ks: KeyspaceId, acknowledged: &mut Contents) {
    let first = acknowledged.len() as u64;
    for number in first..first + 100_000 {
        let (key, value) = (key(number), value(number, 1));
        // Both ways of writing, because they wait for different things.
        let durability = if number % 64 == 0 {
            WriteOptions::SYNC
        } else {
            WriteOptions::default()
        };
        match store.put(ks, &key, &value, &durability) {
            Ok(_) => acknowledged.insert(key, value),
            Err(error) => return assert_full(Err::<(), _>(error), "put"),
        };
    }
    panic!("the disk never ran full");
}

/// With not a byte left, each of these is refused, and refused again.
fn everything_else_is_refused(store: &Lsm, ks: KeyspaceId, root: &Path) {
    let before = store.keyspaces().unwrap().len();
    for _ in 0..2 {
        let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
        assert_full(compacted, "compact");
        assert_full(store.flush(None), "flush");
        let pairs = (0..20_000).map(|number| (key(number), value(number, 9)));
        assert_full(store.ingest(ks, pairs), "ingest");
        let target = root.join("copy");
        assert_full(store.checkpoint(&target), "checkpoint");
        assert!(!target.exists(), "what was begun is removed");
    }
    // The manifest's last page may have room for a few more records.
    let mut created = Vec::new();
    let refused = (0..10_000).find_map(|number| {
        let name = format!("keyspace-{number}");
        match store.create_keyspace(&name, &small_keyspace()) {
            Ok(id) => {
                created.push(id);
                None
            }
            Err(error) => Some(error),
        }
    });
    assert_full(Err::<(), _>(refused.unwrap()), "create a keyspace");
    let dropped = store.drop_keyspace(store.keyspace("other").unwrap().unwrap());
    // One of an encrypted store may be gone, and only not be erased yet, or make room for that by its tables.
    let gone = store.keyspace("other").unwrap().is_none();
    assert!(!gone || encrypted());
    if !gone || dropped.is_err() {
        assert_full(dropped, "drop a keyspace");
    }
    let left = before + created.len() - usize::from(gone);
    assert_eq!(store.keyspaces().unwrap().len(), left);
}

#[track_caller]
fn assert_full<T>(outcome: Result<T>, what: &str) {
    let error = outcome.map(drop).expect_err(what);
    assert!(matches!(error, Error::DiskFull { .. }), "{what}: {error:?}");
    assert_eq!(error.kind(), Kind::Full);
}

/// Writes, flushes and compactions work again, without opening anew.
fn works_on(store: &Lsm, ks: KeyspaceId, acknowledged: &mut Contents, count: u64) {
    let next = acknowledged.len() as u64;
    for number in next..next + count {
        // A thread that has just failed tries again by itself. Until it has, a writer that would have to
        // wait for it may still be given its error.
        wait_until("writes go on", || {
            let put = store.put(
                ks,
                &key(number),
                &value(number, 1),
                &WriteOptions::default(),
            );
            let expected = matches!(put, Ok(_) | Err(Error::DiskFull { .. }));
            assert!(expected, "{put:?}");
            put.is_ok()
        });
    }
    acknowledged.extend(expected(next..next + count, 1));
    store.settle().unwrap();
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    compacted.unwrap();
    let new = store
        .create_keyspace("afterwards", &small_keyspace())
        .unwrap();
    put_all(store, new, 0..10, 1);
    store.drop_keyspace(new).unwrap();
    assert_eq!(keyspace_stats(store, ks).memtables_waiting, 0);
    assert_contents(store, ks, acknowledged);
}

fn close_and_reopen(store: Lsm, ks: KeyspaceId, acknowledged: &Contents) {
    let directory = PathBuf::from(directory_of(&store));
    store.close().unwrap();
    drop(store);
    let store = Lsm::open(&directory, options(TWO_THREADS)).unwrap();
    assert_contents(&store, ks, acknowledged);
    store.close().unwrap();
    // Nothing that was begun in vain is left.
    let tables: u64 = Lsm::open_read_only(&directory, &options(TWO_THREADS))
        .unwrap()
        .stats()
        .unwrap()
        .keyspaces
        .iter()
        .flat_map(|keyspace| &keyspace.levels)
        .map(|level| level.tables as u64)
        .sum();
    let on_disk = image(&directory);
    let on_disk = on_disk
        .keys()
        .filter(|name| name.extension().is_some_and(|e| e == "tab"));
    assert_eq!(on_disk.count() as u64, tables);
}

/// The directory, out of what the handle says of itself.
fn directory_of(store: &Lsm) -> String {
    let text = format!("{store:?}");
    let (_, rest) = text.split_once('"').unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

/// Fills a file system; gives the space back when it is dropped.
struct Ballast(PathBuf);

impl Ballast {
    /// Leaves about `slack` bytes.
    fn fill(root: &Path, slack: u64) -> Self {
        let path = (0..)
            .map(|n| root.join(format!("ballast-{n}")))
            .find(|path| !path.exists());
        let path = path.unwrap();
        let mut file = File::create_new(&path).unwrap();
        let mut written = 0;
        // First much at once, then the last bytes.
        for piece in [64 << 10, 4 << 10, 512, 1] {
            loop {
                match file.write(&vec![7; piece]) {
                    Ok(count) => written += count as u64,
                    Err(error) => break assert_eq!(error.kind(), ErrorKind::StorageFull),
                }
            }
        }
        // Some file systems promise more than they have; the truth comes out here.
        let _ = file.sync_all();
        if slack > 0 {
            file.set_len(written.saturating_sub(slack)).unwrap();
        }
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// The files of a directory with their bytes, but for the lock's text, which is no data, and for what a flush that found
/// no room takes away meanwhile.
fn image(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let data = entries.filter(|path| !path.ends_with("LOCK"));
    data.filter_map(|path| match std::fs::read(&path) {
        Ok(bytes) => Some((path, bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    })
    .collect()
}

fn copy_files(from: &Path, to: &Path) {
    for (path, bytes) in image(from) {
        std::fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
}
