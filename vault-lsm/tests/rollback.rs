//! What somebody who writes to the disk can do to an encrypted store without a key, and that it is no more than this.
//!
//! - Everything together put back to an earlier moment is the store as it was then. The generation, kept elsewhere, tells.
//! - Of a store that was *not* closed, the ends of log and manifest can be taken away, as far back as to where it was when its
//!   pointer was last written: at its opening, or when a manifest or the keys were replaced. The log alone can be cut back to
//!   what the manifest says was durable. It looks as if power had failed before, and the generation is the same.
//! - Of a store that was closed, the same together with an older pointer. The generation tells.
//! - A keyring cannot be put back behind the version that the pointer names: a passphrase that was changed and keys that were
//!   destroyed stay so.

mod sweep;
mod tampering_support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, Error, Reader, Result, WriteOptions};
use vault_crypto::source::Passphrase;
use vault_crypto::{EncryptedProtection, Kdf, KdfBounds, SecretBytes};
use vault_lsm::Lsm;

use sweep::run::filled;
use sweep::{
    Change, DIRECTORY, Step, contents, keyspace_options, open, open_with_least, options, workload,
};
use tampering_support::forge::{Kind, file_of_records, mend, records};
use tampering_support::{Attack, Outcome, Subject, files_of};

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn is_rolled_back<T>(outcome: Result<T>) -> bool {
    matches!(outcome.map(drop), Err(Error::RolledBack { .. }))
}

/// At every step of a workload all files are kept, and put back at its end.
#[test]
fn everything_put_back_is_told_by_the_generation_alone() {
    let subject = Subject::new(&workload(44), true);
    let last = open(&subject.fs.kill()).expect("it is sound").generation() - 1;
    assert!(open_with_least(&subject.fs.kill(), last).is_ok());
    assert!(is_rolled_back(open_with_least(
        &subject.fs.kill(),
        last + 1
    )));
    let mut generations = std::collections::BTreeSet::new();
    for (image, generation) in &subject.images {
        generations.insert(*generation);
        let found = contents(&open(&image.kill()).expect("as it was")).expect("as it was");
        let was = subject
            .account
            .states
            .iter()
            .any(|state| filled(state) == filled(&found));
        assert!(was, "a store that is put back is one that was");
        assert!(*generation < last);
        assert!(is_rolled_back(open_with_least(&image.kill(), last)));
        // A host that has kept the generation of that moment accepts it: a generation is a span of time.
        assert!(open_with_least(&image.kill(), *generation).is_ok());
    }
    println!(
        "{} moments put back, of {} generations: all opened, none where {last} was the least",
        subject.images.len(),
        generations.len()
    );
    assert!(generations.len() >= 4);
}

fn put(keyspace: &'static str, n: u8) -> Step {
    Step::Write {
        changes: vec![Change::Put(keyspace, vec![n], vec![n; 50])],
        sync: true,
    }
}

/// A session that writes in all ways behind the pointer of its opening. Gives the steps up to the opening, and all.
fn session() -> (usize, Vec<Step>) {
    let before = vec![
        Step::Create("a"),
        Step::Create("b"),
        put("a", 1),
        put("b", 2),
        Step::Reopen,
    ];
    let after = vec![
        put("a", 3),
        put("b", 4),
        Step::Flush(Some("a")),
        put("a", 5),
        Step::Ingest("b", vec![(b"i1".to_vec(), b"x".to_vec())]),
        put("b", 6),
        put("a", 7),
    ];
    (before.len(), [before, after].concat())
}

/// Every way to cut records off the ends of log and manifest, with segments and tables there or gone.
fn cuts(subject: &Subject) -> Vec<(String, Attack)> {
    let versions = |kind: Kind| -> Vec<Vec<(PathBuf, Option<Vec<u8>>)>> {
        let files = subject.of_kind(kind);
        files
            .map(|(path, bytes)| {
                let sealed: Vec<&[u8]> = records(bytes)
                    .into_iter()
                    .map(|(_, sealed)| &bytes[sealed])
                    .collect();
                let cut = |count| {
                    let mut cut = file_of_records(bytes, &sealed[..count], 0);
                    if kind == Kind::Log {
                        cut.resize(bytes.len(), 0);
                    }
                    mend(kind, &records(&cut), &mut cut);
                    (path.clone(), Some(cut))
                };
                let mut ways: Vec<_> = (0..=sealed.len()).map(cut).collect();
                if kind == Kind::Log {
                    ways.push((path.clone(), None));
                }
                ways
            })
            .collect()
    };
    let mut ways: Vec<Attack> = vec![Vec::new()];
    for of_file in [versions(Kind::Log), versions(Kind::Manifest)].concat() {
        let longer = |way: &Attack| {
            let one_more = |version: &(PathBuf, Option<Vec<u8>>)| {
                let mut way = way.clone();
                way.push(version.clone());
                way
            };
            of_file.iter().map(one_more).collect::<Vec<_>>()
        };
        ways = ways.iter().flat_map(longer).collect();
    }
    let told = |way: Attack| {
        let lengths = way.iter().map(|(path, bytes)| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let records = bytes.as_ref().map(|bytes| records(bytes).len());
            format!("{name}: {records:?} records")
        });
        (lengths.collect::<Vec<_>>().join(", "), way)
    };
    ways.into_iter().map(told).collect()
}

/// The earliest state that any cut leads to, by its number of commits; how many cuts led to an earlier one, and how many
/// were refused.
fn earliest(subject: &Subject, more: &Attack) -> (usize, usize, usize) {
    let last = subject.account.acknowledged;
    let (mut least, mut shorter, mut refused) = (last, 0, 0);
    for (told, mut attack) in cuts(subject) {
        attack.extend(more.iter().cloned());
        match subject.after(&attack) {
            Outcome::Same => {}
            Outcome::Refused(_) => refused += 1,
            Outcome::Shorter(back) => {
                shorter += 1;
                least = least.min(last - back);
            }
            Outcome::Wrong => panic!("{told}: a state that never was"),
        }
    }
    (least, shorter, refused)
}

#[test]
fn what_can_be_cut_from_a_store_that_was_not_closed() {
    let (opened_after, steps) = session();
    let subject = Subject::new(&steps, false);
    let at_opening = Subject::new(&steps[..opened_after], false)
        .account
        .acknowledged;
    let (least, shorter, refused) = earliest(&subject, &Vec::new());
    println!("{shorter} cuts of log and manifest lead to an earlier state, {refused} are refused");
    assert!(shorter > 0 && refused > 50);
    assert_eq!(
        least, at_opening,
        "as far back as the pointer, and no further"
    );
    // The generation does not tell: it is that of the opening.
    let kept = open(&subject.fs.kill()).expect("it is sound").generation() - 1;
    assert_eq!(subject.images.last().expect("there were steps").1, kept);

    // The log alone: what the manifest says was durable stays, here all before the ingest.
    let (log, bytes) = subject
        .of_kind(Kind::Log)
        .last()
        .expect("there is a segment that takes writes");
    let sealed: Vec<&[u8]> = records(bytes)
        .into_iter()
        .map(|(_, sealed)| &bytes[sealed])
        .collect();
    let mut outcomes = Vec::new();
    for count in 0..sealed.len() {
        let mut cut = file_of_records(bytes, &sealed[..count], bytes.len());
        mend(Kind::Log, &records(&cut), &mut cut);
        outcomes.push(subject.after(&vec![(log.clone(), Some(cut))]));
    }
    assert_eq!(
        outcomes[outcomes.len() - 2..],
        [Outcome::Shorter(2), Outcome::Shorter(1)]
    );
    let before = &outcomes[..outcomes.len() - 2];
    let all_refused = before
        .iter()
        .all(|outcome| matches!(outcome, Outcome::Refused(_)));
    assert!(all_refused && !before.is_empty(), "{outcomes:?}");
}

#[test]
fn a_clean_close_can_be_undone_only_with_the_pointer() {
    let (_, steps) = session();
    let subject = Subject::new(&steps, true);
    let (least, shorter, refused) = earliest(&subject, &Vec::new());
    assert_eq!((least, shorter), (subject.account.acknowledged, 0));
    let older = subject.past[&path("CURRENT")].iter().rev().nth(1);
    let older = older.expect("there was one before the close").clone();
    let with_pointer = vec![(path("CURRENT"), Some(older))];
    // By itself it does no harm: the manifest and the log are as long as they are.
    assert_eq!(subject.after(&with_pointer), Outcome::Same);
    let (_, undone, _) = earliest(&subject, &with_pointer);
    println!("{refused} cuts refused, {undone} accepted with the pointer of before the close");
    assert!(undone > 0, "what the documentation warns of");
    let kept = open(&subject.fs.kill()).expect("it is sound").generation() - 1;
    for (told, mut attack) in cuts(&subject) {
        attack.extend(with_pointer.iter().cloned());
        let outcome = open_with_least(&subject.attacked(&attack), kept);
        assert!(is_rolled_back(outcome), "{told}");
    }
}

/// What the host keeps must be asked for after the close: that of before accepts the pointer of before.
#[test]
fn a_close_is_a_generation_of_its_own() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    store.create_keyspace("a", &keyspace_options("a")).unwrap();
    let before = store.generation();
    let image = fs.kill();
    store.close().unwrap();
    assert_eq!(store.generation(), before + 1);
    assert!(open_with_least(&fs.kill(), before + 1).is_ok());
    assert!(is_rolled_back(open_with_least(&image.kill(), before + 1)));
    assert!(open_with_least(&image.kill(), before).is_ok());
}

/// An older pointer beside everything else as it is: refused, or it makes no difference, at every moment of a workload.
#[test]
fn an_older_pointer_makes_no_difference_or_is_refused() {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for rounds in (6..44).step_by(4) {
        for closed in [true, false] {
            let subject = Subject::new(&workload(rounds), closed);
            for older in &subject.past[&path("CURRENT")] {
                let outcome = subject.after(&vec![(path("CURRENT"), Some(older.clone()))]);
                let harmless = matches!(outcome, Outcome::Same | Outcome::Refused("Corruption"));
                assert!(
                    harmless,
                    "after {rounds} rounds, closed: {closed}: {outcome:?}"
                );
                *counts.entry(format!("{outcome:?}")).or_default() += 1;
            }
        }
    }
    println!("older pointers put back: {counts:?}");
    assert_eq!(counts.len(), 2, "both happen");
}

fn protection(passphrase: &str) -> Arc<EncryptedProtection> {
    let protection = EncryptedProtection::with_source(Arc::new(source(passphrase)))
        .kdf_bounds(KdfBounds::danger_weak())
        .kdf(Kdf::danger_weak());
    Arc::new(protection)
}

fn source(passphrase: &str) -> Passphrase {
    let bytes = SecretBytes::new(passphrase.as_bytes()).expect("short enough");
    Passphrase::new(bytes).expect("not empty")
}

fn open_by(fs: &MemoryFileSystem, passphrase: &str) -> Result<Lsm> {
    Lsm::open(DIRECTORY, options(fs).protection(protection(passphrase)))
}

fn keyrings(fs: &MemoryFileSystem) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files_of(fs, DIRECTORY.as_ref());
    let keyrings: Vec<_> = files
        .into_iter()
        .filter(|(path, _)| Kind::of(path) == Kind::Keyring)
        .collect();
    assert_eq!(keyrings.len(), 2);
    keyrings
}

/// A copy of a file system with these files in it.
fn with(fs: &MemoryFileSystem, files: &[(PathBuf, Vec<u8>)]) -> MemoryFileSystem {
    let changed = fs.kill();
    for (path, bytes) in files {
        changed.write_file(path, bytes).expect("room for it");
    }
    changed
}

#[test]
fn an_old_passphrase_stays_old() {
    for closed in [true, false] {
        let fs = MemoryFileSystem::new();
        let protection = protection("old");
        let store = Lsm::open(DIRECTORY, options(&fs).protection(protection.clone())).unwrap();
        let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
        store.put(a, b"k", b"v", &WriteOptions::SYNC).unwrap();
        let old = keyrings(&fs);
        let keyring = protection.keyring().unwrap();
        let weak = Some(Kdf::danger_weak());
        keyring.change_secret(&source("new"), weak).unwrap();
        store.keys_changed().unwrap();
        if closed {
            store.close().unwrap();
        }
        let fs = fs.kill();
        // Both put back: refused under either passphrase.
        let both = with(&fs, &old);
        let before = files_of(&both, DIRECTORY.as_ref());
        assert!(is_rolled_back(open_by(&both, "old")));
        let refused = open_by(&both, "new").unwrap_err();
        assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
        assert_eq!(files_of(&both, DIRECTORY.as_ref()), before);
        // One of them: the other counts.
        for one in &old {
            let one = with(&fs, std::slice::from_ref(one));
            let refused = open_by(&one, "old").unwrap_err();
            assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
            let store = open_by(&one, "new").unwrap();
            assert_eq!(store.get(a, b"k").unwrap().as_deref(), Some(&b"v"[..]));
        }
    }
}

#[test]
fn the_key_of_a_dropped_keyspace_stays_destroyed() {
    for closed in [true, false] {
        let fs = MemoryFileSystem::new();
        let store = open(&fs).unwrap();
        let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
        let b = store.create_keyspace("b", &keyspace_options("b")).unwrap();
        for keyspace in [a, b] {
            store
                .put(keyspace, b"k", b"v", &WriteOptions::SYNC)
                .unwrap();
        }
        store.flush(None).unwrap();
        let old = keyrings(&fs);
        store.drop_keyspace(b).unwrap();
        if closed {
            store.close().unwrap();
        }
        let fs = fs.kill();
        assert!(is_rolled_back(open(&with(&fs, &old))));
        for one in &old {
            let store = open(&with(&fs, std::slice::from_ref(one))).unwrap();
            assert_eq!(store.keyspaces().unwrap().len(), 1);
            assert_eq!(store.get(a, b"k").unwrap().as_deref(), Some(&b"v"[..]));
        }
    }
}

/// Creating a keyspace does not replace the pointer: a keyring from before was taken for the current one, and the next flush
/// had no key.
#[test]
fn a_keyring_from_before_a_keyspace_is_refused() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    let old = keyrings(&fs);
    let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
    store.put(a, b"k", b"v", &WriteOptions::SYNC).unwrap();
    let fs = fs.kill();
    let both = with(&fs, &old);
    assert!(is_rolled_back(open(&both)));
    let read_only = Lsm::open_read_only(DIRECTORY, &options(&both));
    assert!(is_rolled_back(read_only));
    let one = open(&with(&fs, &old[..1])).unwrap();
    assert_eq!(one.get(a, b"k").unwrap().as_deref(), Some(&b"v"[..]));
}

/// The keyring and its copy in each other's place, also where one of them is behind.
#[test]
fn a_keyring_and_its_copy_exchanged() {
    let fs = MemoryFileSystem::new();
    let store = open(&fs).unwrap();
    let a = store.create_keyspace("a", &keyspace_options("a")).unwrap();
    let old = keyrings(&fs);
    store.create_keyspace("b", &keyspace_options("b")).unwrap();
    store.put(a, b"k", b"v", &WriteOptions::SYNC).unwrap();
    store.flush(None).unwrap();
    store.close().unwrap();
    let new = keyrings(&fs);
    for (main, copy) in [(&new, &new), (&new, &old), (&old, &new)] {
        let files = [
            (new[0].0.clone(), copy[1].1.clone()),
            (new[1].0.clone(), main[0].1.clone()),
        ];
        let exchanged = with(&fs, &files);
        let store = open(&exchanged).unwrap();
        assert_eq!(store.get(a, b"k").unwrap().as_deref(), Some(&b"v"[..]));
        assert_eq!(store.keyspaces().unwrap().len(), 2);
        // The one that was behind is written anew.
        let mended = keyrings(&exchanged);
        assert_eq!(mended[0].1, mended[1].1);
    }
}
