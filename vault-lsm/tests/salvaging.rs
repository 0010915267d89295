//! Salvage: of a store that has lost its pointer, its manifest or both, a new one is made that holds the same; what
//! else is damaged costs only itself; and the report says what was lost and what cannot be known.

mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::random::SeededRandom;
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{
    CompactionPolicy, Engine, Error, KeyRange, KeyspaceOptions, Timestamp, WriteBatch, WriteOptions,
};
use vault_lsm::Lsm;
use vault_lsm::check::{
    KnownKeyspace, SalvageOptions, SalvageReport, VerifyOptions, salvage, verify,
};

use sweep::run::run;
use sweep::{DIRECTORY, Model, contents, noise, open, options, workload};

const NEW: &str = "/salvaged";
const ROUNDS: u64 = 44;

fn image(fs: &MemoryFileSystem) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |(path, _)| {
        let bytes = fs.read_file(&path).expect("it was just listed");
        (path, bytes)
    };
    let mut image: BTreeMap<PathBuf, Vec<u8>> = fs.list().into_iter().map(read).collect();
    image.retain(|path, _| path.starts_with(DIRECTORY));
    image
}

fn rescue(fs: &MemoryFileSystem, known: &SalvageOptions) -> (SalvageReport, Model) {
    let before = image(fs);
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let other_seed = options(fs).random(Arc::new(SeededRandom::new(8)));
    let report =
        salvage(DIRECTORY, NEW, &other_seed, known, &mut go_on).expect("there is something");
    assert!(image(fs) == before, "the old store was changed");
    let all = VerifyOptions::default();
    let verified = verify(NEW, &options(fs), &all, &mut go_on).expect("nothing fails here");
    assert!(verified.findings.is_empty(), "{:#?}", verified.findings);
    let store = Lsm::open(NEW, options(fs)).expect("a new store");
    let model = contents(&store).expect("a sound store");
    store.close().expect("nothing fails here");
    (report, model)
}

fn remove(fs: &MemoryFileSystem, ending: &str) {
    for (path, _) in fs.list() {
        if path.starts_with(DIRECTORY) && path.to_string_lossy().ends_with(ending) {
            fs.remove(&path).expect("nothing fails here");
        }
    }
}

fn everything(closed: bool) -> (MemoryFileSystem, Model) {
    let fs = MemoryFileSystem::new();
    let (mut account, error) = run(&fs, &workload(ROUNDS));
    assert!(error.is_none(), "{error:?}");
    let store = account.store.take().expect("it ran to the end");
    if closed {
        store.close().expect("nothing fails here");
    }
    (fs.kill(), account.state().clone())
}

#[test]
fn without_its_pointer_a_store_is_salvaged_whole() {
    for closed in [true, false] {
        let (fs, model) = everything(closed);
        remove(&fs, "CURRENT");
        let (report, found) = rescue(&fs, &SalvageOptions::default());
        assert!(found == model);
        assert!(report.complete && report.unknown.is_empty(), "{report:#?}");
        assert!(report.keyspaces.iter().all(|keyspace| keyspace.name_known));
    }
}

/// Salvage of a sound store is a copy of it, with another identity.
#[test]
fn a_sound_store_is_copied() {
    let (fs, model) = everything(true);
    let (report, found) = rescue(&fs, &SalvageOptions::default());
    assert!(found == model && report.complete);
    let id = |directory: &str| {
        fs.read_file(Path::new(directory).join("CURRENT")).unwrap()[16..32].to_vec()
    };
    assert_ne!(id(DIRECTORY), id(NEW));
}

fn known(names: &[(u32, &str, &str)]) -> SalvageOptions {
    let keyspaces = names.iter().map(|(id, name, operator)| {
        let known = KnownKeyspace {
            name: Some((*name).to_owned()),
            merge_operator: Some((*operator).to_owned()),
        };
        (*id, known)
    });
    SalvageOptions {
        keyspaces: keyspaces.collect(),
    }
}

/// Everything that a keyspace can hold, in tables of all ages and in the log.
fn without_ambiguity(fs: &MemoryFileSystem) -> Model {
    let store = open(fs).expect("nothing fails here");
    let tiered = KeyspaceOptions {
        write_buffer_bytes: 4 << 10,
        block_bytes: 512,
        ..KeyspaceOptions::default()
    };
    let counted = tiered
        .clone()
        .policy(CompactionPolicy::TIERED)
        .merge("vault.counter");
    let a = store
        .create_keyspace("a", &tiered)
        .expect("nothing fails here");
    let b = store
        .create_keyspace("b", &counted)
        .expect("nothing fails here");
    let one = 1_i64.to_le_bytes();
    for round in 0..6_u64 {
        let mut batch = WriteBatch::new();
        for n in 0..40_u64 {
            let key = format!("k{:03}", (n * 7 + round * 11) % 90);
            batch.put(a, key.as_bytes(), &noise(n + round * 100, 120));
            batch.merge(b, format!("c{}", n % 5).as_bytes(), &one);
        }
        batch.put_until(a, b"passing", b"for a while", Timestamp(1_000_000_000));
        batch.delete(a, format!("k{:03}", round * 5).as_bytes());
        batch.delete_range(
            a,
            format!("k{:03}", round * 9).as_bytes(),
            format!("k{:03}", round * 9 + 4).as_bytes(),
        );
        store
            .write(&batch, &WriteOptions::SYNC)
            .expect("nothing fails here");
        if round < 4 {
            store.flush(None).expect("nothing fails here");
        }
    }
    let model = contents(&store).expect("nothing fails here");
    drop(store);
    model
}

#[test]
fn without_any_manifest_the_content_is_the_same_under_new_names() {
    for also in ["", "CURRENT"] {
        let fs = MemoryFileSystem::new();
        let model = without_ambiguity(&fs);
        remove(&fs, ".man");
        if !also.is_empty() {
            remove(&fs, also);
        }
        let given = SalvageOptions {
            keyspaces: known(&[(2, "b", "vault.counter")]).keyspaces,
        };
        let (report, found) = rescue(&fs, &given);
        assert!(!report.complete);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["b", "recovered-1"]);
        assert!(
            found["b"] == model["b"],
            "{:?} {:?}",
            found["b"],
            model["b"]
        );
        assert!(found["recovered-1"] == model["a"]);
        let a = &report.keyspaces[0];
        assert!(
            !a.name_known && a.entries > 100 && a.range_deletes >= 6,
            "{a:?}"
        );
        assert_eq!((a.undecided, report.keyspaces[1].uncertain_merges), (0, 0));
        assert!(
            report
                .unknown
                .iter()
                .any(|unknown| unknown.contains("name"))
        );
    }
}

/// The same with compacted and ingested tables, merges and dropped keyspaces: what differs is what the report
/// says cannot be known.
#[test]
fn what_differs_without_a_manifest_is_what_cannot_be_known() {
    for closed in [true, false] {
        let (fs, model) = everything(closed);
        remove(&fs, ".man");
        let given = known(&[
            (1, "a", "vault.append"),
            (2, "b", "vault.counter"),
            // The third was dropped and created anew.
            (4, "c", "vault.counter"),
        ]);
        let (report, found) = rescue(&fs, &given);
        for name in ["a", "b"] {
            let keyspace = report.keyspaces.iter().find(|k| k.name == name).unwrap();
            let keys: BTreeSet<_> = model[name].keys().chain(found[name].keys()).collect();
            let differs = |key: &&Vec<u8>| model[name].get(*key) != found[name].get(*key);
            let differing: Vec<_> = keys.into_iter().filter(differs).collect();
            let uncertain = keyspace.undecided + keyspace.uncertain_merges;
            assert!(
                differing.len() as u64 <= uncertain,
                "{name}: {differing:?} {keyspace:?}"
            );
        }
    }
}

/// A manifest with a hole still tells names, operators and most of the structure.
#[test]
fn a_damaged_manifest_is_used_as_far_as_it_goes() {
    let (fs, model) = everything(true);
    let mut paths = fs.list().into_iter().map(|(path, _)| path);
    let ends =
        |path: &PathBuf| path.starts_with(DIRECTORY) && path.to_string_lossy().ends_with(".man");
    let path = paths.find(ends).expect("there is one");
    let whole = fs.read_file(&path).expect("it is there");
    let mut named = 0;
    for at in (0..whole.len()).step_by(23) {
        let fs = fs.kill();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs.write_file(&path, &bytes).expect("nothing fails here");
        let given = known(&[
            (1, "a", "vault.append"),
            (2, "b", "vault.counter"),
            // The third was dropped and created anew.
            (4, "c", "vault.counter"),
        ]);
        let (report, found) = rescue(&fs, &given);
        assert!(!report.complete);
        named += usize::from(report.keyspaces.iter().all(|keyspace| keyspace.name_known));
        for name in ["a", "b"] {
            let keyspace = report.keyspaces.iter().find(|k| k.name == name);
            let keyspace = keyspace.expect("it holds entries");
            let keys: BTreeSet<_> = model[name].keys().chain(found[name].keys()).collect();
            let differs = |key: &&Vec<u8>| model[name].get(*key) != found[name].get(*key);
            let differing: Vec<_> = keys.into_iter().filter(differs).collect();
            let uncertain = keyspace.undecided + keyspace.uncertain_merges;
            assert!(
                differing.len() as u64 <= uncertain,
                "byte {at}, {name}: {differing:?} {keyspace:?}"
            );
        }
    }
    assert!(named > 0, "what stands before the damage is used");
}

/// One damaged block costs its own entries, and the log gives back those that it still holds.
#[test]
fn what_is_damaged_costs_only_itself() {
    let (fs, model) = everything(true);
    remove(&fs, "CURRENT");
    let tables = fs.list().into_iter().map(|(path, _)| path);
    let ends =
        |path: &PathBuf| path.starts_with(DIRECTORY) && path.to_string_lossy().ends_with(".tab");
    for path in tables.filter(ends) {
        for at in [20, 140] {
            let fs = fs.kill();
            let mut bytes = fs.read_file(&path).unwrap();
            bytes[at] ^= 1;
            fs.write_file(&path, &bytes).unwrap();
            let (report, found) = rescue(&fs, &SalvageOptions::default());
            assert!(!report.complete);
            let file = path.file_name().unwrap().to_string_lossy();
            let told = report.files.iter().find(|told| told.file == file).unwrap();
            assert!(told.bytes_lost > 0 && told.problems.len() == 1, "{told:?}");
            let others = report.files.iter().filter(|told| told.file != file);
            assert!(
                others
                    .clone()
                    .all(|told| told.bytes_lost == 0 && told.problems.is_empty())
            );
            assert_eq!(
                found.keys().collect::<Vec<_>>(),
                model.keys().collect::<Vec<_>>()
            );
            let same = |name: &String| {
                let entries = model[name].iter();
                entries
                    .filter(|(key, value)| found[name].get(*key) == Some(value))
                    .count()
            };
            let (kept, all): (usize, usize) = (
                model.keys().map(same).sum(),
                model.values().map(BTreeMap::len).sum(),
            );
            let most = if at == 20 { 0 } else { all / 2 };
            assert!(kept > most, "{file}: {kept} of {all}");
        }
    }
}

/// A damaged table brings back operands of the log that an older table holds already, folded into a put without a number. With
/// a whole manifest they counted twice, and nothing said so.
#[test]
fn operands_that_tables_may_hold_are_told() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    let counted = KeyspaceOptions::default().merge("vault.counter");
    let a = store.create_keyspace("a", &counted).unwrap();
    let b = store
        .create_keyspace("b", &KeyspaceOptions::default())
        .unwrap();
    // Never flushed: the log stays whole.
    store.put(b, b"pin", b"", &WriteOptions::SYNC).unwrap();
    let one = 1_i64.to_le_bytes();
    let add = |key: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.merge(a, key, &one);
        store.write(&batch, &WriteOptions::SYNC).unwrap();
    };
    for _ in 0..2 {
        add(b"k");
        store.flush(Some(a)).unwrap();
        let compacted = store.compact(a, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
        compacted.unwrap();
    }
    let tables = |fs: &MemoryFileSystem| -> BTreeSet<PathBuf> {
        let paths = fs.list().into_iter().map(|(path, _)| path);
        paths
            .filter(|path| path.to_string_lossy().ends_with(".tab"))
            .collect()
    };
    let before = tables(&fs);
    for neighbour in [b"j", b"l"] {
        add(neighbour);
    }
    store.flush(Some(a)).unwrap();
    let newer = tables(&fs).difference(&before).next().cloned().unwrap();
    drop(store);
    let fs = fs.kill();
    let mut bytes = fs.read_file(&newer).unwrap();
    bytes[140] ^= 1;
    fs.write_file(&newer, &bytes).unwrap();
    let (report, found) = rescue(&fs, &SalvageOptions::default());
    assert!(!report.complete);
    let told = report.keyspaces.iter().find(|k| k.name == "a").unwrap();
    // What the damaged table alone held is back, and certain.
    assert_eq!(found["a"][&b"j"[..]], one);
    assert_eq!(found["a"][&b"l"[..]], one);
    let right = found["a"][&b"k"[..]] == 2_i64.to_le_bytes();
    assert!(
        right || told.uncertain_merges > 0,
        "{:?} {told:?}",
        found["a"]
    );
}

/// A segment whose middle is gone: what stands behind it is read all the same.
#[test]
fn records_behind_damage_of_the_log_are_read() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    let a = store
        .create_keyspace("a", &KeyspaceOptions::default())
        .unwrap();
    for n in 0..20_u8 {
        store
            .put(a, &[n], &noise(u64::from(n), 200), &WriteOptions::SYNC)
            .unwrap();
    }
    store.close().unwrap();
    let fs = fs.kill();
    let mut logs = fs.list().into_iter().map(|(path, _)| path);
    let log = logs
        .rfind(|path| path.to_string_lossy().ends_with(".log"))
        .unwrap();
    let mut bytes = fs.read_file(&log).unwrap();
    bytes[2000] ^= 1;
    fs.write_file(&log, &bytes).unwrap();
    assert!(matches!(open(&fs).map(drop), Err(Error::Corruption { .. })));
    let (report, found) = rescue(&fs, &SalvageOptions::default());
    assert_eq!(found["a"].len(), 19, "one record is gone");
    assert!(!report.complete && report.files.iter().any(|file| file.bytes_lost > 200));
}

#[test]
fn bad_requests_are_refused_and_nothing_is_written() {
    let (fs, _) = everything(true);
    let before = fs.list();
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let nothing = SalvageOptions::default();
    let mut refused = |from: &str, into: &str, known: &SalvageOptions| {
        salvage(from, into, &options(&fs), known, &mut go_on).unwrap_err()
    };
    assert!(matches!(
        refused(DIRECTORY, DIRECTORY, &nothing),
        Error::TargetExists { .. }
    ));
    assert!(matches!(
        refused("/nowhere", NEW, &nothing),
        Error::NoSuchStore { .. }
    ));
    let bad = known(&[(1, "not a name", "")]);
    assert!(matches!(
        refused(DIRECTORY, NEW, &bad),
        Error::InvalidKeyspaceName { .. }
    ));
    assert!(fs.list() == before);
    let mut stop = |_: &_| ControlFlow::Break(());
    let stopped = salvage(DIRECTORY, NEW, &options(&fs), &nothing, &mut stop);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert!(
        Lsm::open_read_only(NEW, &options(&fs)).is_err(),
        "it is no store"
    );
}
