//! Keyrings that are not what was written: damaged by accident, cut, edited by somebody who can compute checksums, put together of
//! parts of others, another store's. None is ever taken for what it is not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use support::*;
use vault_core::transform::Protection;
use vault_core::{Error, Result};
use vault_crypto::source::RawKey;
use vault_crypto::{EncryptedProtection, KdfBounds, SecretKey};

/// Where the parts of a keyring stand that is opened with a passphrase or key: `docs/format/keyring.md`.
const METHOD: usize = 128;
const KDF: usize = 132;
const SALT: usize = 146;
const BODY_COUNT: usize = 290;
const PARTS: [(&str, std::ops::Range<usize>); 9] = [
    ("version", 32..40),
    ("header salt", 40..64),
    ("epoch", 66..70),
    ("salt", SALT..178),
    ("commitment", 178..210),
    ("wrap salt", 210..242),
    ("root key", 242..290),
    ("body salt", 294..326),
    ("body", 326..326 + 3 * 40 + 16),
];

/// What became of attempts to open, by the kind of error.
#[derive(Default)]
struct Counts {
    refused: BTreeMap<&'static str, u32>,
    rescued: u32,
}

impl Counts {
    /// Counts an attempt. A keyring that is not what was written is never taken: the one way to open is by the copy.
    fn count(&mut self, opened: Result<Store>, story: &str) {
        match opened {
            Ok(store) => {
                assert!(
                    store.keyring.recovered_from_copy().is_some(),
                    "{story}: taken"
                );
                assert_eq!(store.keyring.info().keys, 3, "{story}");
                self.rescued += 1;
            }
            Err(error) => {
                let name = name_of(&error);
                assert_ne!(name, "another", "{story}: {error:?}");
                *self.refused.entry(name).or_default() += 1;
            }
        }
    }

    fn only(&self, name: &str) -> bool {
        self.rescued == 0 && self.refused.keys().all(|refused| *refused == name)
    }
}

fn key() -> EncryptedProtection {
    with_source(Arc::new(RawKey::new(SecretKey::from_bytes(&mut [9; 32]))))
}

/// A store that a key opens, so that opening it often takes no time, with three domains.
fn place() -> Place {
    let place = Place::new(1);
    let store = Store::of(key(), |p| p.create(&place.get())).unwrap();
    store.keys().add_domain(7).unwrap();
    store.keys().add_domain(8).unwrap();
    assert_eq!(place.main().len(), PARTS[8].1.end + 4);
    place
}

fn open(place: &Place) -> Result<Store> {
    Store::of(key(), |p| p.open(&place.get()))
}

#[test]
fn every_byte_is_flipped_and_every_length_is_cut() {
    let place = place();
    let whole = place.main();
    let mut damaged: Vec<(String, Vec<u8>)> = (0..whole.len())
        .map(|len| (format!("cut to {len}"), whole[..len].to_vec()))
        .collect();
    for at in 0..whole.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            damaged.push((format!("byte {at} ^ {mask:#x}"), bytes));
        }
    }
    damaged.push(("a byte more".to_owned(), [&whole[..], &[0]].concat()));
    damaged.push(("zeros behind".to_owned(), [&whole[..], &[0; 4096]].concat()));
    damaged.push(("zeros".to_owned(), vec![0; whole.len()]));
    damaged.push(("far too long".to_owned(), vec![0; 12 << 20]));
    let (mut alone, mut with_copy, mut both) =
        (Counts::default(), Counts::default(), Counts::default());
    for (story, bytes) in &damaged {
        place.memory.write_file(MAIN, bytes).unwrap();
        place.memory.write_file(COPY, &whole).unwrap();
        with_copy.count(open(&place), story);
        place.memory.write_file(COPY, bytes).unwrap();
        both.count(open(&place), story);
        place.fs.remove(Path::new(COPY)).unwrap();
        alone.count(open(&place), story);
        // The other way round: a copy that is damaged does no harm.
        place.memory.write_file(MAIN, &whole).unwrap();
        place.memory.write_file(COPY, bytes).unwrap();
        let store = open(&place).unwrap_or_else(|e| panic!("{story}: {e}"));
        assert!(store.keyring.recovered_from_copy().is_none());
        assert!(store.keyring.info().copy_flaw.is_some(), "{story}");
    }
    let all = damaged.len() as u32;
    println!(
        "{all} damaged keyrings: {} refused without a copy, {} with the same copy, {} rescued by a whole copy, 0 taken",
        alone.refused["Corruption"], both.refused["Corruption"], with_copy.rescued
    );
    assert!(alone.only("Corruption") && both.only("Corruption"));
    assert_eq!((with_copy.rescued, alone.refused["Corruption"]), (all, all));
}

#[test]
fn every_byte_is_edited_by_somebody_who_mends_the_checksums() {
    let place = place();
    let whole = place.main();
    let (mut alone, mut with_copy) = (Counts::default(), Counts::default());
    for at in 0..whole.len() - 4 {
        for mask in [0x01, 0x02, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            mend_checksums(&mut bytes);
            if bytes == whole {
                // The header's checksum itself.
                assert!((124..128).contains(&at));
                continue;
            }
            let story = format!("byte {at} ^ {mask:#x}");
            place.memory.write_file(MAIN, &bytes).unwrap();
            place.memory.write_file(COPY, &whole).unwrap();
            with_copy.count(open(&place), &story);
            place.fs.remove(Path::new(COPY)).unwrap();
            alone.count(open(&place), &story);
        }
    }
    println!("edited keyrings, alone: {:?}, 0 taken", alone.refused);
    println!(
        "edited keyrings, with a whole copy: {} rescued, {:?} refused, 0 taken",
        with_copy.rescued, with_copy.refused
    );
    assert_eq!(alone.rescued, 0);
    for kind in [
        "Corruption",
        "WrongKey",
        "UnacceptableKeyring",
        "NewerFormat",
    ] {
        assert!(alone.refused[kind] > 0, "{kind}");
    }
    // What is authenticated and no parameter is told apart from a wrong secret, and the copy helps.
    assert!(with_copy.rescued > 1000);
}

#[test]
fn parts_of_other_keyrings_are_not_taken() {
    let older = place();
    let newer = Place::on(older.memory.kill(), 2);
    let store = open(&newer).unwrap();
    store.keys().begin_epoch().unwrap();
    store.keys().retire_epochs(2).unwrap();
    drop(store);
    let others = Place::new(3);
    let store = Store::of(key(), |p| p.create(&others.get())).unwrap();
    store.keys().add_domain(7).unwrap();
    store.keys().add_domain(8).unwrap();
    drop(store);
    let mut spliced = 0;
    let mut counts = Counts::default();
    for (from, what) in [
        (&older, "an older version"),
        (&others, "another store with the same id"),
    ] {
        let (ours, theirs) = (newer.main(), from.main());
        assert_eq!(ours.len(), theirs.len());
        // Every set of parts but none and all.
        for set in 1..(1_u32 << PARTS.len()) - 1 {
            let mut bytes = ours.clone();
            for (index, (_, part)) in PARTS.iter().enumerate() {
                if set & 1 << index != 0 {
                    bytes[part.clone()].copy_from_slice(&theirs[part.clone()]);
                }
            }
            mend_checksums(&mut bytes);
            if bytes == ours || bytes == theirs {
                continue;
            }
            let target = Place::on(newer.memory.kill(), 4);
            target.memory.write_file(MAIN, &bytes).unwrap();
            target.memory.write_file(COPY, &bytes).unwrap();
            counts.count(open(&target), &format!("set {set:#b} of {what}"));
            spliced += 1;
        }
    }
    println!(
        "{spliced} spliced keyrings: {:?} refused, 0 taken",
        counts.refused
    );
    assert_eq!(counts.rescued, 0);
    assert!(spliced > 700);
}

/// Opens a keyring with a passphrase after an edit with its checksums mended, within bounds that spare the machine.
fn edited(at: usize, bytes: &[u8], bounds: KdfBounds) -> Error {
    let place = Place::new(1);
    drop(place.create("s"));
    let mut file = place.main();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    mend_checksums(&mut file);
    place.memory.write_file(MAIN, &file).unwrap();
    let copy = place.copy();
    let error = Store::of(protection("s").kdf_bounds(bounds), |p| p.open(&place.get()));
    // What is refused rather than damaged is not rescued, so that nobody writes over what a newer Vault made.
    assert_eq!((place.main(), place.copy()), (file, copy));
    error
        .err()
        .unwrap_or_else(|| panic!("it opens with {bytes:?} at {at}"))
}

#[test]
fn key_derivation_is_held_to_its_bounds_before_it_is_begun() {
    let weak = KdfBounds::danger_weak().memory_kib_max(64 << 10);
    let argon2id = |memory_kib: u32, passes: u32, lanes: u32| {
        let mut bytes = 1_u16.to_le_bytes().to_vec();
        for parameter in [memory_kib, passes, lanes] {
            bytes.extend_from_slice(&parameter.to_le_bytes());
        }
        bytes
    };
    let unacceptable = |bytes: &[u8], bounds, says: &str| {
        let error = edited(KDF, bytes, bounds);
        assert!(
            matches!(error, Error::UnacceptableKeyring { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(says), "{error}");
    };
    // What was weak when it was made is refused by everybody who did not ask for it.
    unacceptable(&argon2id(8, 1, 1), KdfBounds::STANDARD, "8 KiB");
    // One TiB, and all that 32 bits can ask for.
    unacceptable(&argon2id(1 << 30, 1, 1), weak, "1073741824 KiB");
    unacceptable(&argon2id(u32::MAX, u32::MAX, u32::MAX), weak, "4294967295");
    unacceptable(&argon2id(8, u32::MAX, 1), weak, "4294967295");
    unacceptable(&argon2id(0, 0, 0), weak, "0");
    let mut pbkdf2 = [0; 14];
    pbkdf2[0] = 2;
    unacceptable(&pbkdf2, KdfBounds::STANDARD, "0");
    pbkdf2[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    unacceptable(&pbkdf2, weak, "4294967295");
    unacceptable(&[9], weak, "9");
    // Plausible parameters that are not those of this keyring make another key.
    for other in [argon2id(16, 1, 1), argon2id(8, 2, 1)] {
        let error = edited(KDF, &other, weak);
        assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    }
    // So does another salt.
    let error = edited(SALT, &[0; 32], weak);
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
}

#[test]
fn what_a_newer_vault_may_have_written_is_named_and_left_alone() {
    let weak = KdfBounds::danger_weak();
    let newer = edited(8, &[2], weak);
    assert!(
        matches!(
            newer,
            Error::NewerFormat {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{newer:?}"
    );
    for (at, bytes, says) in [
        (64, &[9][..], "cipher 9"),
        (80, &[1], "no meaning"),
        (METHOD, &[3], "method 3"),
        (METHOD + 1, &[1], "method 1"),
        (METHOD + 2, &[15], "15 bytes"),
        (METHOD, &[2, 0, 0, 0], "0 bytes"),
    ] {
        let error = edited(at, bytes, weak);
        assert!(
            matches!(error, Error::UnacceptableKeyring { .. }),
            "{at}: {error:?}"
        );
        assert!(error.to_string().contains(says), "{at}: {error}");
    }
    // More from a key service than there may be.
    let place = Place::new(1);
    drop(place.create("s"));
    let mut file = place.main();
    let len = 20_000_u16.to_le_bytes();
    let blob = [&[2, 0, len[0], len[1]][..], &[7; 20_000]].concat();
    file.splice(METHOD..SALT, blob);
    mend_checksums(&mut file);
    place.memory.write_file(MAIN, &file).unwrap();
    let error = place.try_open("s").err().unwrap();
    assert!(error.to_string().contains("20000 bytes"), "{error}");
    for bytes in [[0xff; 4], [2, 0, 0, 0], [0, 0, 0, 0]] {
        // A count that does not fit is damage: the copy would help, and there the same was done.
        let place = Place::new(1);
        drop(place.create("s"));
        let mut file = place.main();
        file[BODY_COUNT..BODY_COUNT + 4].copy_from_slice(&bytes);
        mend_checksums(&mut file);
        for path in [MAIN, COPY] {
            place.memory.write_file(path, &file).unwrap();
        }
        let error = place.try_open("s").err().unwrap();
        assert!(error.to_string().contains("keys are announced"), "{error}");
    }
}

#[test]
fn another_store_with_the_same_passphrase_is_another_store() {
    let ours = Place::new(1);
    drop(ours.create("s"));
    let mut theirs = Place::new(2);
    theirs.store = *b"another store...";
    drop(theirs.create("s"));
    let mut file = theirs.main();
    let copy = ours.copy();
    ours.memory.write_file(MAIN, &file).unwrap();
    let error = ours.try_open("s").err().unwrap();
    assert!(
        matches!(error, Error::UnacceptableKeyring { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("another store"), "{error}");
    assert_eq!(
        (ours.main(), ours.copy()),
        (file.clone(), copy.clone()),
        "neither is written over"
    );
    // With our id written into it, the passphrase is right and nothing opens.
    file[16..32].copy_from_slice(&STORE);
    mend_checksums(&mut file);
    ours.memory.write_file(MAIN, &file).unwrap();
    let store = ours.open("s");
    let problem = store.keyring.recovered_from_copy().unwrap().to_string();
    assert!(problem.contains("it was altered"), "{problem}");
    ours.memory.write_file(COPY, &file).unwrap();
    let error = ours.try_open("s").err().unwrap();
    assert!(error.to_string().contains("it was altered"), "{error}");
    let error = ours.try_open("t").err().unwrap();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    // As the copy it counts as damage.
    ours.memory.write_file(MAIN, &copy).unwrap();
    ours.memory.write_file(COPY, &theirs.main()).unwrap();
    assert!(ours.open("s").keyring.info().copy_flaw.is_some());
}

#[test]
fn the_wrong_secret_is_told_apart_from_damage() {
    let place = Place::new(1);
    drop(place.create("s"));
    let whole = place.main();
    let mut damaged = whole.clone();
    damaged[200] ^= 1;
    let opens = |secret| place.try_open(secret).err();
    place.memory.write_file(MAIN, &damaged).unwrap();
    place.fs.remove(Path::new(COPY)).unwrap();
    for secret in ["s", "t"] {
        assert!(
            matches!(opens(secret), Some(Error::Corruption { .. })),
            "{secret}"
        );
    }
    place.memory.write_file(COPY, &whole).unwrap();
    assert!(matches!(opens("t"), Some(Error::WrongKey { path }) if path == Path::new(COPY)));
    assert!(opens("s").is_none());
    // What is no keyring at all says that.
    place.memory.write_file(MAIN, &[b'x'; 700]).unwrap();
    place.memory.write_file(COPY, &[b'x'; 700]).unwrap();
    let error = opens("s").unwrap();
    assert!(
        error.to_string().contains("not a keyring of Vault"),
        "{error}"
    );
    // And a directory with its name is an error of the file system.
    place.fs.remove(Path::new(MAIN)).unwrap();
    place.fs.create_dir_all(Path::new(MAIN)).unwrap();
    assert!(matches!(opens("s"), Some(Error::Io { .. })));
}
