//! What the conformance suite cannot ask of every engine.

use super::*;

fn options() -> WriteOptions {
    WriteOptions::default()
}

fn kept(engine: &MemoryEngine, keyspace: KeyspaceId) -> u64 {
    let state = read(&engine.shared.state);
    let keyspace = state.keyspace(keyspace).unwrap();
    read(&keyspace.history).version_count()
}

#[test]
fn versions_go_once_nobody_can_see_them() {
    let engine = MemoryEngine::new();
    let keyspace = engine
        .create_keyspace("k", &KeyspaceOptions::default())
        .unwrap();
    for round in 0..10 {
        for key in 0..100_u8 {
            engine.put(keyspace, &[key], &[round], &options()).unwrap();
        }
    }
    assert_eq!(kept(&engine, keyspace), 100);
    let snapshot = engine.snapshot().unwrap();
    let cursor = snapshot.cursor(keyspace, KeyRange::all()).unwrap();
    for key in 0..100_u8 {
        engine.delete(keyspace, &[key], &options()).unwrap();
    }
    assert_eq!(kept(&engine, keyspace), 200);
    assert_eq!(engine.stats().unwrap().snapshots_open, 1);
    drop(snapshot);
    engine.put(keyspace, b"other", b"", &options()).unwrap();
    assert_eq!(kept(&engine, keyspace), 201, "the cursor still needs them");
    drop(cursor);
    engine.put(keyspace, b"other", b"", &options()).unwrap();
    assert_eq!(kept(&engine, keyspace), 1);
    let stats = engine.stats().unwrap();
    assert_eq!(
        (stats.snapshots_open, stats.keyspaces[0].memtable_bytes),
        (0, 5)
    );
}

#[test]
fn there_can_be_only_so_many_keyspaces() {
    let engine = MemoryEngine::new();
    {
        // Names are looked up one by one, so creating this many through the trait takes its time.
        let mut state = write(&engine.shared.state);
        for id in 1..=KEYSPACES_MAX as u32 {
            let keyspace = Keyspace {
                name: format!("k{id}"),
                options: RwLock::default(),
                operator: None,
                history: RwLock::default(),
            };
            state.keyspaces.insert(KeyspaceId(id), Arc::new(keyspace));
        }
        state.last_keyspace = KEYSPACES_MAX as u32;
    }
    let more = engine.create_keyspace("more", &KeyspaceOptions::default());
    let Err(Error::InvalidSetting { setting, .. }) = more else {
        panic!("{more:?}");
    };
    assert_eq!(setting, "keyspaces");
    engine.drop_keyspace(KeyspaceId(7)).unwrap();
    let id = engine
        .create_keyspace("more", &KeyspaceOptions::default())
        .unwrap();
    assert_eq!(id.0 as usize, KEYSPACES_MAX + 1, "ids are never reused");
}

#[test]
fn operations_are_counted() {
    let engine = MemoryEngine::new();
    let keyspace = engine
        .create_keyspace("k", &KeyspaceOptions::default())
        .unwrap();
    engine.put(keyspace, b"key", b"value", &options()).unwrap();
    engine.get(keyspace, b"key").unwrap();
    engine.get(keyspace, b"none").unwrap();
    assert_eq!(engine.scan(keyspace, KeyRange::all()).unwrap().count(), 1);
    let stats = engine.stats().unwrap();
    let count = |name| {
        let found = stats.operations.iter().find(|o| o.name == name).unwrap();
        assert_eq!(found.count, found.latency.count);
        found.count
    };
    assert_eq!((count("write"), count("get"), count("seek")), (1, 2, 1));
    assert_eq!(stats.written.user_bytes, 8);
}

#[test]
fn a_panicking_operator_leaves_the_engine_usable() {
    #[derive(Debug)]
    struct Panicking;
    impl MergeOperator for Panicking {
        fn name(&self) -> &str {
            "panicking"
        }
        fn merge(&self, _: &[u8], _: Option<&[u8]>, _: &[&[u8]]) -> Result<Vec<u8>, String> {
            panic!("on purpose")
        }
    }
    let engine = MemoryEngine::new().with_merge_operators(vec![Arc::new(Panicking)]);
    let keyspace = engine
        .create_keyspace("k", &KeyspaceOptions::default().merge("panicking"))
        .unwrap();
    let mut batch = WriteBatch::new();
    batch.merge(keyspace, b"k", b"");
    engine.write(&batch, &options()).unwrap();
    let cas = || engine.compare_and_set(keyspace, b"k", None, None, &options());
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(cas)).unwrap_err();
    engine.put(keyspace, b"k", b"fine", &options()).unwrap();
    assert_eq!(engine.get(keyspace, b"k").unwrap().unwrap(), b"fine");
}

#[test]
fn limits_are_lowered_to_what_is_supported() {
    let engine = MemoryEngine::new().with_limits(Limits {
        key_bytes_max: usize::MAX,
        value_bytes_max: usize::MAX,
        batch_bytes_max: usize::MAX,
    });
    assert!(engine.shared.limits.check().is_ok());
}
