//! Keyspaces: creating, opening, listing, dropping, and what is refused.

use super::harness::{Fixture, Harness, assert_refused, got, keys};
use crate::engine::{Engine, KeyspaceId, Reader};
use crate::error::Error;
use crate::merge::{APPEND, COUNTER};
use crate::options::{CompactionPolicy, Compression, FilterPolicy, KeyspaceOptions, WriteOptions};
use crate::range::KeyRange;

/// Keyspaces are created once, found by name, and listed in the order of their ids.
pub fn keyspaces_are_created_and_found<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    assert!(f.keyspaces().unwrap().is_empty());
    assert_eq!(f.keyspace("one").unwrap(), None);
    let one = f.plain("one");
    let two = f.merging("two", COUNTER);
    assert_ne!(one, two);
    assert_ne!(one.0, 0, "0 is the store's own");
    assert_eq!(f.plain("one"), one, "creating it again opens it");
    assert_eq!(f.keyspace("two").unwrap(), Some(two));
    let listed = f.keyspaces().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].id, &listed[0].name[..]), (one, "one"));
    assert_eq!((listed[1].id, &listed[1].name[..]), (two, "two"));
    assert_eq!(listed[1].options, harness.options().merge(COUNTER));
    // The same keys in each, apart from each other.
    f.set(one, b"k", b"1");
    assert_eq!(got(&*f, two, b"k"), None);
    f.settle();
    assert!(keys(&*f, two).is_empty());
    assert_eq!(got(&*f, one, b"k").unwrap(), b"1");
}

/// Names: 1 to 128 of a few characters, not starting with a dot.
pub fn odd_names_are_refused<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let long = "x".repeat(129);
    for name in [
        "", ".", "..", ".hidden", "a/b", "a\\b", "a b", "ä", "a\0", "a\n", &long,
    ] {
        let refused = f.create_keyspace(name, &harness.options());
        assert_refused!(refused, Error::InvalidKeyspaceName { .. });
        assert_eq!(f.keyspace(name).unwrap(), None, "{name:?}");
    }
    assert!(f.keyspaces().unwrap().is_empty());
    let longest = "x".repeat(128);
    for name in ["a", "A-1_b.c", "con", "-", &longest] {
        let ks = f.plain(name);
        f.set(ks, b"k", name.as_bytes());
        assert_eq!(f.keyspace(name).unwrap(), Some(ks));
    }
    assert_ne!(
        f.plain("A"),
        f.plain("a"),
        "names tell upper and lower case apart"
    );
}

/// A dropped keyspace is unknown to every verb; its name is free, its id is not.
pub fn dropped_keyspaces_are_gone<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let kept = f.plain("kept");
    let ks = f.plain("k");
    for i in 0..200_u8 {
        f.set(ks, &[i], &[i; 100]);
    }
    f.settle();
    f.set(kept, b"k", b"v");
    f.drop_keyspace(ks).unwrap();
    assert_eq!(f.keyspace("k").unwrap(), None);
    assert_eq!(f.keyspaces().unwrap().len(), 1);
    every_verb_knows_nothing_of(&f, ks);
    every_verb_knows_nothing_of(&f, KeyspaceId(0));
    every_verb_knows_nothing_of(&f, KeyspaceId(u32::MAX));
    let mut used = vec![kept, ks];
    for _ in 0..10 {
        let again = f.plain("k");
        assert!(!used.contains(&again), "ids are never reused");
        used.push(again);
        assert!(keys(&*f, again).is_empty(), "a new keyspace is empty");
        f.set(again, b"new", b"");
        f.settle();
        assert_eq!(keys(&*f, again).len(), 1);
        f.drop_keyspace(again).unwrap();
    }
    assert_eq!(got(&*f, kept, b"k").unwrap(), b"v");
}

fn every_verb_knows_nothing_of<H: Harness>(f: &Fixture<'_, H>, ks: KeyspaceId) {
    let options = WriteOptions::default();
    let before = f.latest_sequence();
    let snapshot = f.snapshot().unwrap();
    for reader in [&**f as &dyn Reader, &*snapshot as &dyn Reader] {
        assert_refused!(reader.get(ks, b"k"), Error::UnknownKeyspace { .. });
        assert_refused!(reader.multi_get(ks, &[b"k"]), Error::UnknownKeyspace { .. });
        let cursor = reader.cursor(ks, KeyRange::all());
        assert_refused!(cursor, Error::UnknownKeyspace { .. });
        assert_refused!(reader.scan_prefix(ks, b""), Error::UnknownKeyspace { .. });
    }
    assert_refused!(
        f.put(ks, b"k", b"", &options),
        Error::UnknownKeyspace { .. }
    );
    assert_refused!(f.delete(ks, b"k", &options), Error::UnknownKeyspace { .. });
    for fill in [0, 1] {
        let refused = f.try_batch(|b| {
            match fill {
                0 => b.merge(ks, b"k", b""),
                _ => b.delete_range(ks, b"", b"z"),
            };
        });
        assert_refused!(refused, Error::UnknownKeyspace { .. });
    }
    let cas = f.compare_and_set(ks, b"k", None, None, &options);
    assert_refused!(cas, Error::UnknownKeyspace { .. });
    assert_refused!(f.flush(Some(ks)), Error::UnknownKeyspace { .. });
    let compacted = f.compact(ks, KeyRange::all(), &mut |_| {
        std::ops::ControlFlow::Continue(())
    });
    assert_refused!(compacted, Error::UnknownKeyspace { .. });
    assert_refused!(f.drop_keyspace(ks), Error::UnknownKeyspace { .. });
    assert_eq!(f.latest_sequence(), before);
}

/// The policy's kind and the merge operator cannot change; everything else is taken over.
pub fn options_that_conflict_are_refused<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let stored = harness
        .options()
        .policy(CompactionPolicy::LEVELED)
        .merge(APPEND);
    let ks = f.create("k", &stored);
    f.set(ks, b"k", b"v");
    let tiered = stored.clone().policy(CompactionPolicy::TIERED);
    let without = KeyspaceOptions {
        merge_operator: None,
        ..stored.clone()
    };
    for conflicting in [tiered, stored.clone().merge(COUNTER), without] {
        let refused = f.create_keyspace("k", &conflicting);
        assert_refused!(refused, Error::OptionsConflict { .. });
        assert_eq!(
            f.keyspaces().unwrap()[0].options,
            stored,
            "nothing is taken over"
        );
    }
    let changed = KeyspaceOptions {
        policy: CompactionPolicy::Leveled {
            level0_runs: 7,
            base_bytes: 1 << 20,
            fanout: 5,
        },
        compression: Compression::None,
        filter: FilterPolicy::None,
        block_bytes: 8 << 10,
        write_buffer_bytes: 1 << 20,
        table_bytes: 1 << 20,
        ..stored
    };
    assert_eq!(f.create("k", &changed), ks);
    assert_eq!(f.keyspaces().unwrap()[0].options, changed);
    f.settle();
    assert_eq!(got(&*f, ks, b"k").unwrap(), b"v");
}

/// Options out of bounds and unknown merge operators create nothing.
pub fn bad_options_create_nothing<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let bad = KeyspaceOptions {
        block_bytes: 1,
        ..harness.options()
    };
    let refused = f.create_keyspace("k", &bad);
    assert_refused!(
        refused,
        Error::InvalidSetting {
            setting: "block_bytes",
            ..
        }
    );
    let refused = f.create_keyspace("k", &harness.options().merge("nobody.knows"));
    assert_refused!(refused, Error::MissingMergeOperator { .. });
    assert!(f.keyspaces().unwrap().is_empty());
    f.plain("k");
}

/// Threads create, fill and drop keyspaces beside each other.
pub fn keyspaces_from_many_threads<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let shared = f.plain("shared");
    let options = harness.options();
    let engine: &dyn Engine = &*f;
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let options = &options;
            scope.spawn(move || {
                let name = format!("thread-{thread}");
                for round in 0..8_u8 {
                    let ks = engine.create_keyspace(&name, options).unwrap();
                    for i in 0..40 {
                        engine
                            .put(ks, &[i], &[round; 50], &WriteOptions::default())
                            .unwrap();
                        engine
                            .put(shared, &[thread, i], &[round], &WriteOptions::default())
                            .unwrap();
                    }
                    assert_eq!(keys(engine, ks).len(), 40);
                    engine.drop_keyspace(ks).unwrap();
                    assert_refused!(engine.get(ks, b""), Error::UnknownKeyspace { .. });
                }
            });
        }
    });
    assert_eq!(f.keyspaces().unwrap().len(), 1);
    assert_eq!(keys(&*f, shared).len(), 120);
}
