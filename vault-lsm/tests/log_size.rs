//! The log stays bounded: a keyspace whose few unflushed writes keep old segments is flushed, however
//! small its memtable is.

mod support;

use support::{
    DIRECTORY, assert_contents, expected, files_in_memory, keyspace_stats, manual, put_all,
    roomy_keyspace, small_keyspace, small_settings, threaded,
};
use vault_core::Engine;
use vault_core::vfs::MemoryFileSystem;
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

const LOG_BYTES_MAX: u64 = 512 << 10;
const SEGMENT_BYTES: u64 = 64 << 10;

fn log_bytes(fs: &MemoryFileSystem) -> u64 {
    let logs = files_in_memory(fs, DIRECTORY, ".log");
    logs.iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_quiet_keyspace_beside_a_busy_one() {
    for background in [BackgroundWork::Manual, support::TWO_THREADS] {
        let fs = MemoryFileSystem::new();
        let options = if background == BackgroundWork::Manual {
            manual(&fs)
        } else {
            threaded(&fs)
        };
        let store = Lsm::open(DIRECTORY, options).unwrap();
        let quiet = store.create_keyspace("quiet", &roomy_keyspace()).unwrap();
        let busy = store.create_keyspace("busy", &small_keyspace()).unwrap();
        put_all(&store, quiet, [0], 1);
        let mut most = 0;
        for part in 0..250 {
            put_all(&store, busy, part * 100..(part + 1) * 100, 1);
            // Where threads do the work, they may be a memtable or two behind.
            while background == BackgroundWork::Manual && store.background_step().unwrap() {}
            let bytes = log_bytes(&fs);
            most = most.max(bytes);
            let stats = store.stats().unwrap().log;
            if background == BackgroundWork::Manual {
                assert_eq!(stats.bytes, bytes, "stats tell what is on the disk");
                // The current one, the next one made ready, and what the quiet keyspace keeps.
                assert!(bytes <= LOG_BYTES_MAX + 2 * SEGMENT_BYTES, "{bytes}");
            }
        }
        assert!(
            most > LOG_BYTES_MAX / 2,
            "the bound was put to the test: {most}"
        );
        assert!(most <= LOG_BYTES_MAX + 8 * SEGMENT_BYTES, "{most}");
        store.settle().unwrap();
        let counts = keyspace_stats(&store, quiet);
        assert_eq!(counts.memtable_bytes, 0);
        let tables: usize = counts.levels.iter().map(|level| level.tables).sum();
        assert_eq!(tables, 1, "the quiet one was flushed");
        assert_contents(&store, quiet, &expected([0], 1));
        assert_contents(&store, busy, &expected(0..25_000, 1));
        drop(store);
        let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        assert_contents(&store, quiet, &expected([0], 1));
        assert_contents(&store, busy, &expected(0..25_000, 1));
    }
}

/// As long as the bound is not reached, a quiet keyspace is left in peace.
#[test]
fn small_logs_force_nothing() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let quiet = store.create_keyspace("quiet", &roomy_keyspace()).unwrap();
    let busy = store.create_keyspace("busy", &small_keyspace()).unwrap();
    put_all(&store, quiet, [0], 1);
    put_all(&store, busy, 0..1_500, 1);
    while store.background_step().unwrap() {}
    assert!(keyspace_stats(&store, quiet).memtable_bytes > 0);
    let space = store.explain_space().unwrap();
    assert_eq!(space.log.pinned_by.as_deref(), Some("quiet"));
}

/// Once everything is flushed, hardly any log is left.
#[test]
fn flushing_lets_the_log_go() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &roomy_keyspace()).unwrap();
    put_all(&store, ks, 0..3_000, 1);
    assert!(log_bytes(&fs) > 300 << 10);
    store.settle().unwrap();
    assert!(log_bytes(&fs) <= 2 * SEGMENT_BYTES, "{}", log_bytes(&fs));
    store.close().unwrap();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    assert_contents(&store, ks, &expected(0..3_000, 1));
}

/// Segments that the log has let go of are gone: nothing holds them open, or else their bytes would stay on the disk, and be
/// written to it, until somebody syncs.
#[test]
#[cfg(target_os = "linux")]
#[expect(
    clippy::disallowed_methods,
    reason = "the descriptors of this process are listed where the system shows them"
)]
fn segments_that_are_removed_are_not_held_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = support::protected(LsmOptions::new(small_settings(support::TWO_THREADS)));
    let store = Lsm::open(&path, options).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    put_all(&store, ks, 0..20_000, 1);
    store.settle().unwrap();
    let stats = store.stats().unwrap();
    assert!(stats.written.log_bytes > 20 * SEGMENT_BYTES);
    let held: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fd.unwrap().path().read_link().ok())
        .filter(|file| file.starts_with(directory.path()))
        .filter(|file| file.to_string_lossy().ends_with(".log (deleted)"))
        .collect();
    assert!(held.is_empty(), "{held:?}");
    // Syncing what is left makes all of it durable, as ever.
    store.sync().unwrap();
    store.close().unwrap();
}
