//! A real log that is filled without syncs, then synced with every write, and then filled again: it changes the way in which
//! its pages are written, and a reader beside it finds every write after each phase, as whoever opened it would that
//! came after the process was killed.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "how often the process has written is not part of the trait"
)]

use vault_core::{Engine, KeyspaceOptions, Reader, WriteOptions};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

const VALUE: [u8; 1000] = [7; 1000];

/// How often this process has called `write` and its like.
fn write_calls() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("syscw: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn pages_are_written_by_how_often_the_log_is_synced() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let settings = || Settings {
        background: BackgroundWork::Manual,
        ..Settings::default()
    };
    let store = Lsm::open(&directory, LsmOptions::new(settings())).unwrap();
    let keyspace = store
        .create_keyspace("k", &KeyspaceOptions::default())
        .unwrap();
    let mut written = 0_u64;
    let mut write = |writes: u64, options: &WriteOptions| {
        let calls = write_calls();
        for _ in 0..writes {
            written += 1;
            let key = written.to_be_bytes();
            store.put(keyspace, &key, &VALUE, options).unwrap();
        }
        let reader = Lsm::open_read_only(&directory, &LsmOptions::new(settings())).unwrap();
        for number in 1..=written {
            let found = reader.get(keyspace, &number.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&VALUE[..]), "write {number}");
        }
        write_calls() - calls
    };
    // Over the end of two segments.
    let calls = write(4_000, &WriteOptions::OS);
    assert!(calls < 400, "copied, not written: {calls} calls");
    let calls = write(1_000, &WriteOptions::SYNC);
    assert!(calls > 800, "written, not copied: {calls} calls");
    let calls = write(4_000, &WriteOptions::OS);
    assert!(calls < 400, "copied again: {calls} calls");
    store.close().unwrap();
}
