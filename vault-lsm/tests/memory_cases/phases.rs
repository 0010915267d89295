//! The long run: write, kill, recover, compact, scan, read; each in a process of its own, each within the
//! budget.

use std::path::Path;

use vault_core::{Cursor, Engine, KeyRange, Reader};
use vault_lsm::Lsm;

use super::load::{self, Scale, index_of, is_right, keys_left, keyspaces};

/// Cursors that scan at once.
const CURSORS: u64 = 32;
const THREADS: u64 = 4;

pub(crate) const PHASES: [&str; 5] = ["write", "recover", "compact", "scan", "read"];

/// Runs one phase on the store in `directory`; gives the engine's own peak.
pub(crate) fn run(phase: &str, directory: &Path, scale: &Scale) -> u64 {
    let store = Lsm::open(directory, scale.options()).unwrap();
    match phase {
        "write" => load::write_all(&store, scale),
        "recover" => load::read_some(&store, scale, 0..100),
        "compact" => {
            for keyspace in keyspaces(&store) {
                let range = KeyRange::all();
                let mut on = |_| std::ops::ControlFlow::Continue(());
                store.compact(keyspace, range, &mut on).unwrap();
            }
        }
        "scan" => scan(&store, scale),
        "read" => std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let numbers = thread * 1_000_000..thread * 1_000_000 + 4_000;
                let store = &store;
                scope.spawn(move || load::read_some(store, scale, numbers));
            }
        }),
        other => panic!("there is no phase {other}"),
    }
    let stats = store.stats().unwrap();
    let peak = stats.memory.peak;
    if phase == "write" {
        assert!(
            stats.written.user_bytes >= scale.bytes,
            "{:?}",
            stats.written
        );
        // The process is killed as it is: nothing is closed, and the last writes are in the log only.
        Box::leak(Box::new(store));
    } else {
        store.close().unwrap();
    }
    peak
}

/// Scans all keyspaces, forward and backward, with cursors side by side that each go over a part.
fn scan(store: &Lsm, scale: &Scale) {
    for keyspace in keyspaces(store) {
        let found: u64 = std::thread::scope(|scope| {
            let scan = |thread| scope.spawn(move || scan_part(store, keyspace, thread, scale));
            let threads: Vec<_> = (0..THREADS).map(scan).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(found, 2 * keys_left(scale), "{keyspace:?}");
    }
}

fn scan_part(store: &Lsm, keyspace: vault_core::KeyspaceId, thread: u64, scale: &Scale) -> u64 {
    let own = thread..CURSORS;
    let mut cursors: Vec<_> = own
        .step_by(THREADS as usize)
        .map(|part| {
            let range = part_of(part);
            store.cursor(keyspace, range).unwrap()
        })
        .collect();
    let mut found = 0;
    cursors
        .iter_mut()
        .for_each(|cursor| cursor.first().unwrap());
    while step(&mut cursors, scale, &mut found, |cursor| cursor.next()) {}
    cursors.iter_mut().for_each(|cursor| cursor.last().unwrap());
    while step(&mut cursors, scale, &mut found, |cursor| cursor.prev()) {}
    found
}

/// Keys begin with their hash in hexadecimal: the first two digits cut them into equal parts.
fn part_of(part: u64) -> KeyRange {
    let bound = |part| format!("{:02x}", part * 256 / CURSORS);
    match part + 1 {
        CURSORS => KeyRange::new(bound(part)..),
        next => KeyRange::new(bound(part)..bound(next)),
    }
}

/// Checks what each cursor stands on and moves it. Gives whether any stood on something.
fn step(
    cursors: &mut [Box<dyn Cursor>],
    scale: &Scale,
    found: &mut u64,
    go: impl Fn(&mut dyn Cursor) -> vault_core::Result<()>,
) -> bool {
    let mut any = false;
    for cursor in cursors {
        let Some((key, value)) = cursor.entry() else {
            continue;
        };
        let index = index_of(key);
        assert!(is_right(index, Some(value), scale), "key {index}");
        *found += 1;
        any = true;
        go(&mut **cursor).unwrap();
    }
    any
}
