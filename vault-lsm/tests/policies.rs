//! Each compaction policy, driven through many flushes on the disk and in memory: the levels take the
//! shape that the policy promises, and every entry is as it should be, then and after reopening.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use support::{
    DIRECTORY, TWO_THREADS, assert_contents, contents, expected, key, keyspace_stats, protected,
    put_all, small_keyspace, small_settings, threaded, value,
};
use vault_core::stats::LevelStats;
use vault_core::vfs::MemoryFileSystem;
use vault_core::{CompactionPolicy, Engine, KeyRange, KeyspaceId, KeyspaceOptions, WriteOptions};
use vault_lsm::{Lsm, LsmOptions};

const KEYS: u64 = 6_000;

/// Runs a story on a real directory and in memory.
fn on_disk_and_in_memory(story: impl Fn(&Path, &LsmOptions)) {
    let directory = tempfile::tempdir().unwrap();
    let on_disk = protected(LsmOptions::new(small_settings(TWO_THREADS)));
    story(&directory.path().join("store"), &on_disk);
    story(Path::new(DIRECTORY), &threaded(&MemoryFileSystem::new()));
}

/// Writes every key, overwrites every third, deletes every fifth; settles between.
fn churn(store: &Lsm, ks: KeyspaceId) {
    // Not in order, so that flushes overlap: 7919 is a prime that doesn't divide the count.
    put_all(store, ks, (0..KEYS).map(|i| i * 7919 % KEYS), 1);
    store.settle().unwrap();
    put_all(store, ks, (0..KEYS).step_by(3), 2);
    for number in (0..KEYS).step_by(5) {
        let deleted = store.delete(ks, &key(number), &WriteOptions::default());
        deleted.unwrap();
    }
    store.settle().unwrap();
}

/// What [`churn`] leaves.
fn after_churn() -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
    let mut left = expected(0..KEYS, 1);
    left.extend(expected((0..KEYS).step_by(3), 2));
    (0..KEYS).step_by(5).for_each(|number| {
        left.remove(&key(number));
    });
    left
}

fn check_churned(
    directory: &Path,
    options: &LsmOptions,
    keyspace: &KeyspaceOptions,
    check_shape: impl Fn(&[LevelStats]),
) {
    let store = Lsm::open(directory, options.clone()).unwrap();
    let ks = store.create_keyspace("k", keyspace).unwrap();
    churn(&store, ks);
    let stats = store.stats().unwrap();
    assert!(stats.background.flushes >= 30, "{:?}", stats.background);
    assert!(stats.background.compactions >= 5, "{:?}", stats.background);
    assert_eq!(stats.background.failures, 0);
    let counts = keyspace_stats(&store, ks);
    assert_eq!((counts.memtable_bytes, counts.memtables_waiting), (0, 0));
    check_shape(&counts.levels);
    let left = after_churn();
    assert_contents(&store, ks, &left);
    store.close().unwrap();

    let store = Lsm::open(directory, options.clone()).unwrap();
    store.settle().unwrap();
    check_shape(&keyspace_stats(&store, ks).levels);
    assert_contents(&store, ks, &left);
    // In its most compact form it holds what is live and nothing else.
    let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    assert!(compacted.unwrap().entries_dropped > 0);
    let levels = keyspace_stats(&store, ks).levels;
    let entries: u64 = levels.iter().map(|level| level.entries).sum();
    assert_eq!(entries, left.len() as u64, "{levels:?}");
    assert!(store.stats().unwrap().background.obsolete_removed > 0);
    assert_contents(&store, ks, &left);
}

#[test]
fn leveled_keeps_one_run_a_level_and_most_in_the_last() {
    let options = small_keyspace().policy(CompactionPolicy::Leveled {
        level0_runs: 4,
        base_bytes: 64 << 10,
        fanout: 4,
    });
    on_disk_and_in_memory(|directory, opening| {
        check_churned(directory, opening, &options, |levels| {
            assert!(levels[0].runs < 4, "{levels:?}");
            assert!(
                levels[1..].iter().all(|level| level.runs <= 1),
                "{levels:?}"
            );
            let filled = levels[1..].iter().filter(|level| level.tables > 0).count();
            assert!(filled >= 2, "one level cannot hold it all: {levels:?}");
            let total: u64 = levels.iter().map(|level| level.bytes).sum();
            let last = levels.iter().rfind(|level| level.tables > 0).unwrap();
            assert!(last.bytes * 2 > total, "{levels:?}");
            let entries: u64 = levels.iter().map(|level| level.entries).sum();
            let live = after_churn().len() as u64;
            assert!((live..live * 2).contains(&entries), "{levels:?}");
        });
    });
}

#[test]
fn tiered_keeps_few_runs_all_at_the_top() {
    let options = small_keyspace().policy(CompactionPolicy::Tiered {
        runs_min: 3,
        runs_max: 8,
        size_ratio_percent: 100,
    });
    on_disk_and_in_memory(|directory, opening| {
        check_churned(directory, opening, &options, |levels| {
            assert!((1..=8).contains(&levels[0].runs), "{levels:?}");
            let below = levels[1..].iter().map(|level| level.tables).sum::<usize>();
            assert_eq!(below, 0, "{levels:?}");
            let live = after_churn().len() as u64;
            assert!((live..live * 3).contains(&levels[0].entries), "{levels:?}");
        });
    });
}

#[test]
fn fifo_stays_within_its_size_and_keeps_the_newest() {
    const BYTES_MAX: u64 = 200 << 10;
    let options = small_keyspace().policy(CompactionPolicy::Fifo {
        bytes_max: BYTES_MAX,
    });
    on_disk_and_in_memory(|directory, opening| {
        let store = Lsm::open(directory, opening.clone()).unwrap();
        let ks = store.create_keyspace("k", &options).unwrap();
        for part in 0..6 {
            put_all(&store, ks, part * 1_000..(part + 1) * 1_000, 1);
            store.settle().unwrap();
            let levels = keyspace_stats(&store, ks).levels;
            let bytes: u64 = levels.iter().map(|level| level.bytes).sum();
            assert!(bytes <= BYTES_MAX, "{levels:?}");
        }
        let stats = store.stats().unwrap();
        assert!(
            stats.background.tables_dropped > 10,
            "{:?}",
            stats.background
        );
        let check = |store: &Lsm| {
            let left = contents(store, ks);
            let first = 6_000 - left.len() as u64;
            assert!(
                (1_000..5_000).contains(&first),
                "some went, not all: {first}"
            );
            // What is left is what was written last, without a gap.
            assert_contents(store, ks, &expected(first..6_000, 1));
        };
        check(&store);
        store.close().unwrap();
        check(&Lsm::open(directory, opening.clone()).unwrap());
    });
}

/// Three keyspaces of three policies side by side, written by threads; one is altered on the way.
#[test]
fn policies_side_by_side() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let policies = [
        CompactionPolicy::Leveled {
            level0_runs: 2,
            base_bytes: 32 << 10,
            fanout: 3,
        },
        CompactionPolicy::Tiered {
            runs_min: 2,
            runs_max: 6,
            size_ratio_percent: 150,
        },
        CompactionPolicy::Fifo { bytes_max: 1 << 30 },
    ];
    let create = |(i, &policy): (usize, &CompactionPolicy)| {
        let options = small_keyspace().policy(policy);
        store.create_keyspace(&format!("k{i}"), &options).unwrap()
    };
    let keyspaces: Vec<KeyspaceId> = policies.iter().enumerate().map(create).collect();
    std::thread::scope(|scope| {
        for &ks in &keyspaces {
            let store = &store;
            scope.spawn(move || put_all(store, ks, 0..3_000, u64::from(ks.0)));
        }
    });
    let gentler = small_keyspace().policy(CompactionPolicy::Leveled {
        level0_runs: 8,
        base_bytes: 256 << 10,
        fanout: 8,
    });
    assert_eq!(store.create_keyspace("k0", &gentler).unwrap(), keyspaces[0]);
    put_all(&store, keyspaces[0], 0..500, u64::from(keyspaces[0].0));
    store.settle().unwrap();
    for &ks in &keyspaces {
        assert_contents(&store, ks, &expected(0..3_000, u64::from(ks.0)));
    }
    assert_eq!(
        contents(&store, keyspaces[0])[&key(7)],
        value(7, u64::from(keyspaces[0].0))
    );
}
