//! Losing power, and file operations that fail, at every single file operation of every verb of a keyring.
//!
//! Afterwards the keyring opens as it was before the verb or as it is after it. A verb that has returned without an error
//! is durable, and what it destroyed is in neither of the two files. After an error that does not say otherwise, nothing
//! has changed, and the verb works when it is tried again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use support::*;
use vault_core::transform::{FileHeader, FileKind, Protection};
use vault_core::vfs::{
    CrashPolicy, Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass,
};
use vault_core::{Error, Result};
use vault_crypto::Kdf;

type Verb = (&'static str, fn(&Store) -> Result<()>);

/// Every verb that writes a keyring of a store that there is.
const VERBS: [Verb; 7] = [
    ("add_domain", |store| store.keys().add_domain(100)),
    ("keep_domains", |store| store.keys().keep_domains(&[8])),
    ("begin_epoch", |store| store.keys().begin_epoch().map(drop)),
    ("retire_epochs", |store| {
        store.keys().retire_epochs(2).map(drop)
    }),
    ("change_secret", |store| {
        let new = passphrase("new");
        store.keyring.change_secret(&new, Some(Kdf::danger_weak()))
    }),
    ("mend a lost copy", |store| store.keys().mend()),
    ("mend a damaged main", |store| store.keys().mend()),
];

const POLICIES: [CrashPolicy; 5] = [
    CrashPolicy::DropUnsynced,
    CrashPolicy::KeepUnsynced,
    CrashPolicy::Random { percent: 25 },
    CrashPolicy::Random { percent: 50 },
    CrashPolicy::Random { percent: 75 },
];

/// What can be seen of a keyring: which secret opens it, its version and epoch, how many keys it has, and which of the files
/// that were sealed before it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    secret: &'static str,
    version: u64,
    epoch: u32,
    keys: usize,
    opens: Vec<bool>,
}

/// A store with three domains and two epochs, and a file of each.
struct Scene {
    memory: MemoryFileSystem,
    headers: Vec<FileHeader>,
}

impl Scene {
    fn new(verb: &str) -> Self {
        let place = Place::new(1);
        place.memory.create_dir_all(Path::new("/copy")).unwrap();
        place.memory.sync_dir(Path::new("/")).unwrap();
        let store = place.create("old");
        let mut headers = Vec::new();
        store.keys().add_domain(7).unwrap();
        store.keys().add_domain(8).unwrap();
        for epoch in 1..=2 {
            for domain in [0, 7, 8] {
                let file = store.create_file(FileKind::Table, 10, domain).unwrap();
                headers.push(file.header);
            }
            if epoch == 1 {
                store.keys().begin_epoch().unwrap();
            }
        }
        match verb {
            "mend a lost copy" => place.memory.remove(Path::new(COPY)).unwrap(),
            "mend a damaged main" => place.memory.write_file(MAIN, b"damaged").unwrap(),
            _ => {}
        }
        place.memory.sync_dir(Path::new("/store")).unwrap();
        Self {
            memory: place.memory,
            headers,
        }
    }

    fn store(&self) -> Store {
        Place::on(self.memory.clone(), 2).open("old")
    }

    /// Looks at what a crash or a kill left. Exactly one of the secrets opens it.
    fn see(&self, memory: &MemoryFileSystem) -> Seen {
        let place = Place::on(memory.clone(), 3);
        let opened: Vec<_> = ["old", "new"]
            .into_iter()
            .filter_map(|secret| Some((secret, place.try_open(secret).ok()?)))
            .collect();
        assert_eq!(opened.len(), 1, "exactly one secret opens it");
        self.seen_by(opened[0].0, &opened[0].1)
    }

    fn seen_by(&self, secret: &'static str, store: &Store) -> Seen {
        Seen {
            secret,
            version: store.keys().version(),
            epoch: store.keys().epoch(),
            keys: store.keyring.info().keys,
            opens: self
                .headers
                .iter()
                .map(|h| store.open_file(h).is_ok())
                .collect(),
        }
    }

    /// What the verb makes of the store, and with how many file operations.
    fn outcomes(&self, verb: Verb) -> (Seen, Seen, u64) {
        let before = self.see(&self.memory);
        let scene = Self::new(verb.0);
        let store = scene.store();
        let start = scene.memory.operations();
        verb.1(&store).unwrap();
        let operations = scene.memory.operations() - start;
        (before, scene.see(&scene.memory), operations)
    }
}

/// Holds what is on disk after a verb has succeeded against what it promised: it is durable, and neither file alone has more.
fn check_done(scene: &Scene, memory: &MemoryFileSystem, after: &Seen, story: &str) {
    assert_eq!(scene.see(memory), *after, "{story}");
    if after.secret == "new" || after.opens.contains(&false) {
        let files = memory.read_dir(Path::new("/store")).unwrap();
        let named = |name: &std::ffi::OsStr| name == "KEYRING" || name == "KEYRING.copy";
        assert!(
            files.iter().all(|file| named(&file.name)),
            "{story}: {files:?}"
        );
    }
    for lost in [MAIN, COPY] {
        let other = memory.crash(0, CrashPolicy::KeepUnsynced);
        let gone = other.remove(Path::new(lost));
        if gone.is_err()
            || other
                .list()
                .iter()
                .all(|(path, _)| !path.starts_with("/store"))
        {
            continue;
        }
        let place = Place::on(other.clone(), 3);
        for secret in ["old", "new"] {
            // One that is behind opens too, where nothing in it was to be destroyed.
            if let Ok(store) = place.try_open(secret) {
                let seen = scene.seen_by(secret, &store);
                assert_eq!(seen.secret, after.secret, "{story}, without {lost}");
                let more = seen
                    .opens
                    .iter()
                    .zip(&after.opens)
                    .any(|(has, may)| *has && !may);
                assert!(!more, "{story}, without {lost}: a destroyed key is there");
            }
        }
    }
}

/// After a crash the store works on: what is to be mended is, and keys can be changed.
fn check_works_on(memory: &MemoryFileSystem, seen: &Seen, story: &str) {
    let place = Place::on(memory.clone(), 4);
    let store = place.open(seen.secret);
    store
        .keys()
        .mend()
        .unwrap_or_else(|e| panic!("{story}: {e}"));
    assert_eq!(place.main(), place.copy(), "{story}");
    store
        .keys()
        .add_domain(200)
        .unwrap_or_else(|e| panic!("{story}: {e}"));
    assert_eq!(place.main(), place.copy(), "{story}");
    assert_eq!(
        place.open(seen.secret).keys().version(),
        seen.version + 1,
        "{story}"
    );
}

#[test]
fn power_is_lost_at_every_operation_of_every_verb() {
    let (mut crashes, mut old, mut new) = (0, 0, 0);
    for verb in VERBS {
        let (before, after, operations) = Scene::new(verb.0).outcomes(verb);
        assert!(operations >= 5, "{}: {operations} operations", verb.0);
        for at in 0..=operations {
            let scene = Scene::new(verb.0);
            let store = scene.store();
            let start = scene.memory.operations();
            scene.memory.set_crash_point(Some(start + at));
            let outcome = verb.1(&store);
            for (policy, seed) in POLICIES.iter().flat_map(|p| (0..4).map(move |s| (*p, s))) {
                let story = format!("{} crashes at {at}, {policy:?}, seed {seed}", verb.0);
                let left = scene.memory.crash(seed, policy);
                if outcome.is_ok() {
                    check_done(&scene, &left, &after, &story);
                }
                let seen = scene.see(&left);
                assert!(seen == before || seen == after, "{story}: {seen:?}");
                old += u32::from(seen == before);
                new += u32::from(seen == after);
                check_works_on(&left, &seen, &story);
                crashes += 1;
            }
            assert_eq!(
                outcome.is_ok(),
                at == operations || verb_needs_no_more(verb.0, at, operations),
                "{}: {at}",
                verb.0
            );
        }
    }
    println!("{crashes} crashes: {old} left the keyring as it was, {new} as it was to be");
    assert!(old > 100 && new > 100);
}

/// Where the copy cannot be written, a verb that destroys nothing has succeeded when the main file is durable.
fn verb_needs_no_more(verb: &str, at: u64, operations: u64) -> bool {
    // Creating, writing, syncing and renaming the copy; its directory's sync leaves open what is there.
    matches!(verb, "add_domain" | "begin_epoch") && (operations - 5..operations - 2).contains(&at)
}

#[test]
fn every_operation_of_every_verb_fails_in_every_way() {
    const KINDS: [FaultKind; 4] = [
        FaultKind::Errno(5),
        FaultKind::Error(std::io::ErrorKind::StorageFull),
        FaultKind::ShortWrite,
        FaultKind::ShortRead,
    ];
    let (mut unchanged, mut done, mut unknown) = (0, 0, 0);
    for verb in VERBS {
        let (before, after, operations) = Scene::new(verb.0).outcomes(verb);
        let cases = (0..operations).flat_map(|at| KINDS.map(|kind| (at, kind)));
        for (at, kind, sticky) in cases.flat_map(|(at, kind)| [(at, kind, false), (at, kind, true)])
        {
            let scene = Scene::new(verb.0);
            let store = scene.store();
            let fault = Fault::new(OperationClass::Any, kind).after(at);
            scene
                .memory
                .inject(if sticky { fault.sticky() } else { fault });
            let outcome = verb.1(&store);
            scene.memory.clear_faults();
            let story = format!("{}: {kind:?} at {at}, sticky {sticky}: {outcome:?}", verb.0);
            let killed = scene.memory.kill();
            for left in [
                &killed,
                &scene.memory.crash(1, CrashPolicy::DropUnsynced),
                &scene.memory.crash(2, CrashPolicy::Random { percent: 50 }),
            ] {
                let seen = scene.see(left);
                match &outcome {
                    Ok(()) => check_done(&scene, left, &after, &story),
                    Err(Error::Poisoned { .. }) => {
                        assert!(seen == before || seen == after, "{story}: {seen:?}");
                    }
                    Err(_) => assert_eq!(seen, before, "{story}"),
                }
                check_works_on(left, &seen, &story);
            }
            match &outcome {
                Ok(()) => done += 1,
                Err(Error::Poisoned { .. }) => {
                    unknown += 1;
                    let next = store.keys().add_domain(300).unwrap_err();
                    assert!(matches!(next, Error::Poisoned { .. }), "{story}: {next:?}");
                }
                Err(_) => {
                    unchanged += 1;
                    assert_eq!(store.keys().version(), before.version, "{story}");
                    try_again(verb, &scene, &store, &after, &story);
                }
            }
        }
    }
    println!(
        "{unchanged} faults changed nothing, {done} were worked around, {unknown} left open which of the two it is"
    );
    assert!(unchanged > 50 && done > 20 && unknown > 20);
}

/// What failed works when the reason is gone.
fn try_again(verb: Verb, scene: &Scene, store: &Store, after: &Seen, story: &str) {
    verb.1(store).unwrap_or_else(|e| panic!("{story}, tried again: {e}"));
    check_done(scene, &scene.memory, after, story);
}

#[test]
fn power_is_lost_at_every_operation_of_creating() {
    let whole = Place::new(1);
    drop(whole.create("s"));
    let operations = whole.memory.operations();
    let mut opened = 0;
    for at in 2..=operations {
        let place = Place::new(1);
        place.memory.set_crash_point(Some(at));
        let outcome = protection("s").create(&place.get());
        assert_eq!(outcome.is_ok(), at == operations);
        for (policy, seed) in POLICIES.iter().flat_map(|p| (0..4).map(move |s| (*p, s))) {
            let left = Place::on(place.memory.crash(seed, policy), 2);
            match left.try_open("s") {
                Ok(store) => {
                    opened += 1;
                    assert_eq!(store.keys().version(), 1);
                }
                Err(error) => {
                    assert!(at < operations, "{error}");
                    assert!(matches!(error, Error::NotEncrypted { .. }), "{error:?}");
                }
            }
            let again = left.create("another");
            again.keys().add_domain(1).unwrap();
            assert_eq!(left.open("another").keys().version(), 2);
        }
    }
    println!("{opened} interrupted creations left a keyring that opens");
    assert!(opened > 20);
}

#[test]
fn every_operation_of_opening_fails() {
    let scene = Scene::new("");
    let start = scene.memory.operations();
    drop(scene.store());
    let operations = scene.memory.operations() - start;
    let before = scene.see(&scene.memory);
    let files = scene.memory.list();
    let (mut refused, mut rescued) = (0, 0);
    for at in 0..operations {
        for kind in [
            FaultKind::Errno(5),
            FaultKind::Errno(24),
            FaultKind::ShortRead,
        ] {
            scene
                .memory
                .inject(Fault::new(OperationClass::Any, kind).after(at));
            match Place::on(scene.memory.clone(), 2).try_open("old") {
                Ok(store) => {
                    rescued += 1;
                    assert_eq!(scene.seen_by("old", &store), before);
                }
                Err(error) => {
                    refused += 1;
                    let io = matches!(error, Error::Io { .. } | Error::TooManyOpenFiles { .. });
                    assert!(io, "{error:?}");
                }
            }
            scene.memory.clear_faults();
        }
    }
    assert_eq!(scene.memory.list(), files);
    println!("{refused} openings refused, {rescued} helped by the other file");
    assert!(refused > 2 && rescued > 2);
}
