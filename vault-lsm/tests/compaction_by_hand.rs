//! Compacting on request, with progress and cancelling; settling; and estimates of what a range takes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::Duration;

use support::{
    DIRECTORY, assert_contents, assert_error, expected, files_in_memory, key, keyspace_stats,
    manual, put_all, small_keyspace, threaded,
};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{
    CompactionPolicy, CompactionProgress, Engine, Error, KeyRange, KeyspaceOptions, Reader,
    WriteBatch, WriteOptions,
};
use vault_lsm::Lsm;
use vault_lsm::check::{VerifyOptions, verify};

fn overwritten_store(fs: &MemoryFileSystem) -> (Lsm, vault_core::KeyspaceId) {
    let store = Lsm::open(DIRECTORY, manual(fs)).unwrap();
    // Several merges leave tables in two levels, so that there is more than one thing to do by hand.
    let policy = CompactionPolicy::Leveled {
        level0_runs: 4,
        base_bytes: 256 << 20,
        fanout: 10,
    };
    let options = KeyspaceOptions {
        policy,
        ..small_keyspace()
    };
    let ks = store.create_keyspace("k", &options).unwrap();
    for version in 1..=3 {
        put_all(&store, ks, 0..2_000, version);
        store.flush(None).unwrap();
    }
    (store, ks)
}

#[test]
fn progress_rises_to_the_end() {
    let fs = MemoryFileSystem::new();
    let (store, ks) = overwritten_store(&fs);
    let before: u64 = files_in_memory(&fs, DIRECTORY, ".tab")
        .iter()
        .map(|f| f.1)
        .sum();
    let mut seen: Vec<CompactionProgress> = Vec::new();
    let outcome = store
        .compact(ks, KeyRange::all(), &mut |progress| {
            seen.push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(seen.len() > 5);
    assert!(
        seen.iter()
            .all(|p| p.bytes_done <= p.bytes_total.max(p.bytes_done))
    );
    assert!(
        seen.iter()
            .any(|p| p.bytes_total > 0 && p.bytes_done > p.bytes_total / 2)
    );
    assert!(outcome.bytes_read > 0 && outcome.bytes_written > 0);
    assert!(outcome.entries_dropped >= 2_000, "{outcome:?}");
    assert_contents(&store, ks, &expected(0..2_000, 3));
    let after: u64 = files_in_memory(&fs, DIRECTORY, ".tab")
        .iter()
        .map(|f| f.1)
        .sum();
    assert!(after * 2 < before, "{before} {after}");
    let entries: u64 = keyspace_stats(&store, ks)
        .levels
        .iter()
        .map(|l| l.entries)
        .sum();
    assert_eq!(entries, 2_000);
    // Once more rewrites it, and drops nothing.
    let again = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
    assert_eq!(again.unwrap().entries_dropped, 0);
}

/// Cancelled at every point in turn: nothing is lost, no file is left over, and it can be done again.
#[test]
fn cancelling_leaves_what_was_done() {
    for after in 0..=5 {
        let fs = MemoryFileSystem::new();
        let (store, ks) = overwritten_store(&fs);
        let mut calls = 0;
        let outcome = store.compact(ks, KeyRange::all(), &mut |_| {
            calls += 1;
            if calls > after {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(outcome.is_err(), "{calls} calls");
        assert_error!(outcome, Error::Cancelled, Cancelled);
        assert_eq!(calls, after + 1, "it stops at once");
        assert_contents(&store, ks, &expected(0..2_000, 3));
        while store.background_step().unwrap() {}
        let tables: usize = keyspace_stats(&store, ks)
            .levels
            .iter()
            .map(|l| l.tables)
            .sum();
        assert_eq!(files_in_memory(&fs, DIRECTORY, ".tab").len(), tables);
        put_all(&store, ks, 0..10, 4);
        let outcome = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
        outcome.unwrap();
        let mut all = expected(0..2_000, 3);
        all.extend(expected(0..10, 4));
        assert_contents(&store, ks, &all);
    }
}

/// A range is compacted where it lies; tables outside stay as they are.
#[test]
fn a_range_alone() {
    for policy in [CompactionPolicy::LEVELED, CompactionPolicy::TIERED] {
        let fs = MemoryFileSystem::new();
        let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
        let ks = store
            .create_keyspace("k", &small_keyspace().policy(policy))
            .unwrap();
        put_all(&store, ks, 0..4_000, 1);
        let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
        compacted.unwrap();
        let mut batch = WriteBatch::new();
        batch.delete_range(ks, &key(100), &key(300));
        store.write(&batch, &WriteOptions::default()).unwrap();
        let range = KeyRange::new(key(100)..key(300));
        let outcome = store
            .compact(ks, range.clone(), &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert!(outcome.entries_dropped >= 200, "{policy:?} {outcome:?}");
        if policy == CompactionPolicy::LEVELED {
            assert!(outcome.bytes_read < 200_000, "{outcome:?}");
        }
        let mut all = expected(0..100, 1);
        all.extend(expected(300..4_000, 1));
        assert_contents(&store, ks, &all);
        let left = store.approximate_bytes(ks, &range).unwrap();
        assert!(left < 8_000, "{left}");
        let inverted = KeyRange::new(key(300)..key(100));
        let refused = store.compact(ks, inverted, &mut |_| ControlFlow::Continue(()));
        assert_error!(refused, Error::InvertedRange { .. }, Input);
    }
}

#[test]
fn estimates_of_a_range() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    let in_tables = |range: KeyRange| store.approximate_bytes(ks, &range).unwrap();
    assert_eq!(in_tables(KeyRange::all()), 0);
    put_all(&store, ks, 0..4_000, 1);
    store.settle().unwrap();
    let files: u64 = files_in_memory(&fs, DIRECTORY, ".tab")
        .iter()
        .map(|f| f.1)
        .sum();
    let all = in_tables(KeyRange::all());
    assert!(all <= files && all * 10 > files * 8, "{all} of {files}");
    let quarter = in_tables(KeyRange::new(key(1_000)..key(2_000)));
    assert!((all / 5..all / 3).contains(&quarter), "{quarter} of {all}");
    let half = in_tables(KeyRange::new(key(0)..key(2_000)));
    assert!(
        (all * 2 / 5..all * 3 / 5).contains(&half),
        "{half} of {all}"
    );
    assert_eq!(in_tables(KeyRange::new(key(5_000)..key(6_000))), 0);
    let unknown = store.approximate_bytes(vault_core::KeyspaceId(77), &KeyRange::all());
    assert_error!(unknown, Error::UnknownKeyspace { .. }, Input);
}

/// After settling there is nothing left to do, and it stays so; compacting and writing may go on beside.
#[test]
fn settling_under_load() {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, threaded(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| put_all(&store, ks, 0..4_000, 1));
        scope.spawn(|| put_all(&store, ks, 4_000..8_000, 1));
        scope.spawn(|| {
            for _ in 0..5 {
                let range = KeyRange::new(key(1_000)..key(6_000));
                let done = store.compact(ks, range, &mut |_| ControlFlow::Continue(()));
                done.unwrap();
            }
        });
        for _ in 0..5 {
            store.settle().unwrap();
        }
    });
    store.settle().unwrap();
    let settled = store.stats().unwrap().background;
    assert!(!store.background_step().unwrap(), "nothing is left");
    assert_eq!(store.stats().unwrap().background, settled);
    assert_eq!(settled.failures, 0);
    assert_contents(&store, ks, &expected(0..8_000, 1));
    let tables: usize = keyspace_stats(&store, ks)
        .levels
        .iter()
        .map(|l| l.tables)
        .sum();
    assert_eq!(
        files_in_memory(&fs, DIRECTORY, ".tab").len(),
        tables,
        "obsolete files are gone"
    );
}

/// Two callers at once. The first rewrites two neighbours of the last level into one table; what the second brings lies
/// between them. It was moved into the gap, and then the run overlapped: keys read as absent.
#[test]
fn a_second_caller_waits_for_the_first() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, manual(&fs)).unwrap();
    let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
    // The first flush has nothing below it. The others keep their sequence numbers, and are due for a rewrite.
    for numbers in [1_000..1_060, 0..60, 200..260] {
        put_all(&store, ks, numbers, 1);
        store.flush(None).unwrap();
    }
    let (rewriting, begin) = mpsc::channel();
    let (done, ended) = mpsc::channel();
    let (mut waited, mut second_was_first) = (false, false);
    std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            begin.recv().unwrap();
            put_all(store, ks, 100..160, 1);
            let range = KeyRange::new(key(100)..key(160));
            let outcome = store.compact(ks, range, &mut |_| ControlFlow::Continue(()));
            done.send(()).ok();
            outcome.unwrap();
        });
        let compacted = store.compact(ks, KeyRange::all(), &mut |progress| {
            if progress.bytes_total > 0 && !waited {
                waited = true;
                rewriting.send(()).unwrap();
                second_was_first = ended.recv_timeout(PATIENCE).is_ok();
            }
            ControlFlow::Continue(())
        });
        compacted.unwrap();
    });
    assert!(waited, "nothing was rewritten");
    assert!(!second_was_first);
    let all = [0..60, 100..160, 200..260, 1_000..1_060];
    let all = expected(all.into_iter().flatten(), 1);
    let found: Vec<Vec<u8>> = store
        .scan(ks, KeyRange::all())
        .unwrap()
        .map(|entry| entry.unwrap().0.to_vec())
        .collect();
    assert!(found.is_sorted());
    assert_contents(&store, ks, &all);
    for (key, value) in &all {
        assert_eq!(store.get(ks, key).unwrap().as_deref(), Some(&value[..]));
    }
    store.close().unwrap();
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let verified = verify(
        DIRECTORY,
        &manual(&fs),
        &VerifyOptions::default(),
        &mut go_on,
    )
    .unwrap();
    assert!(verified.findings.is_empty(), "{:#?}", verified.findings);
}

/// A caller that waits for another one can be stopped, and does not outlast the keyspace. One that would wait for itself is refused.
#[test]
fn waiting_for_another_caller_ends() {
    let fs = MemoryFileSystem::new();
    let (store, ks) = overwritten_store(&fs);
    let others = || {
        let cancelled = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Break(()));
        assert_error!(cancelled, Error::Cancelled, Cancelled);
        let mut calls = 0;
        let gone = store.compact(ks, KeyRange::all(), &mut |_| {
            calls += 1;
            if calls == 1 {
                store.drop_keyspace(ks).unwrap();
            }
            ControlFlow::Continue(())
        });
        assert_error!(gone, Error::UnknownKeyspace { .. }, Input);
    };
    let mut tried = false;
    let outcome = store.compact(ks, KeyRange::all(), &mut |progress| {
        if progress.bytes_total > 0 && !tried {
            tried = true;
            let own = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
            assert_error!(own, Error::Busy { .. }, Retry);
            std::thread::scope(|scope| scope.spawn(others).join()).unwrap();
        }
        ControlFlow::Continue(())
    });
    assert!(tried);
    assert_error!(outcome, Error::UnknownKeyspace { .. }, Input);
}
