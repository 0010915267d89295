//! Blocks of encrypted files: each opens in its place, under its file's key, and nowhere else.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use support::*;
use vault_core::random::SeededRandom;
use vault_core::transform::{
    Assurance, BlockIdentity, ChecksumTransform, FileHeader, FileIdentity, FileKind,
    PARAMETER_BYTES, Protection, Unopened,
};
use vault_core::{Error, ErrorKind};
use vault_crypto::cipher::{
    Aead, NONCE_BYTES, Provider, TAG_BYTES, TooLong, Unauthentic, provider, providers,
};
use vault_crypto::{Algorithm, SecretKey};

const KINDS: [FileKind; 7] = [
    FileKind::Log,
    FileKind::Table,
    FileKind::Manifest,
    FileKind::Pointer,
    FileKind::Blob,
    FileKind::Archive,
    FileKind::Keyring,
];

fn store_with(algorithm: Algorithm) -> (Place, Store) {
    let place = Place::new(1);
    let protection = protection("s").algorithm(algorithm);
    let store = Store::of(protection, |p| p.create(&place.get())).unwrap();
    store.keys().add_domain(7).unwrap();
    (place, store)
}

#[test]
fn blocks_of_every_kind_and_length_round_trip() {
    for algorithm in Algorithm::ALL {
        let (_, store) = store_with(algorithm);
        for kind in KINDS {
            let file = store.create_file(kind, 5, 7).unwrap();
            let overhead = if kind == FileKind::Table { 16 } else { 20 };
            assert_eq!((file.blocks.overhead(), file.blocks.epoch()), (overhead, 1));
            let reading = store.open_file(&file.header).unwrap();
            for (ordinal, len) in [0, 1, 15, 16, 17, 140, 4096, 70_000]
                .into_iter()
                .enumerate()
            {
                let text = vec![len as u8; len];
                let mut buffer = b"before".to_vec();
                buffer.extend_from_slice(&text);
                file.blocks
                    .seal(&block(ordinal as u64), &mut buffer, 6)
                    .unwrap();
                assert_eq!(&buffer[..6], b"before");
                let sealed = &mut buffer[6..];
                assert_eq!(sealed.len(), len + overhead);
                if overhead == 20 {
                    let (content, checksum) = sealed.split_last_chunk::<4>().unwrap();
                    assert_eq!(crc32fast::hash(content), u32::from_le_bytes(*checksum));
                }
                assert!(len < 15 || !sealed.windows(15).any(|w| w == &text[..15]));
                assert_eq!(reading.open(&block(ordinal as u64), sealed), Ok(&text[..]));
            }
        }
        assert_eq!(store.transform.assurance(), Assurance::Authenticity);
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_refused() {
    let mut refused = 0;
    for kind in [FileKind::Table, FileKind::Log] {
        let (_, store) = store_with(Algorithm::ChaCha20Poly1305);
        let file = store.create_file(kind, 5, 7).unwrap();
        let sealed = file
            .seal(1, b"a text of some length, to be damaged")
            .unwrap();
        let mut check = |bytes: &mut [u8]| {
            assert_eq!(file.blocks.open(&block(1), bytes), Err(Unopened::Damaged));
            refused += 1;
        };
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bytes = sealed.clone();
                bytes[at] ^= 1 << bit;
                check(&mut bytes);
                if kind == FileKind::Log && at < sealed.len() - 4 {
                    // With the checksum put right, which is no authority.
                    let mut bytes = sealed.clone();
                    bytes[at] ^= 1 << bit;
                    let (content, checksum) = bytes.split_last_chunk_mut::<4>().unwrap();
                    *checksum = crc32fast::hash(content).to_le_bytes();
                    check(&mut bytes);
                }
            }
            check(&mut sealed[..at].to_vec());
            check(&mut sealed[at + 1..].to_vec());
        }
        check(&mut [&sealed[..], &[0]].concat());
    }
    println!("{refused} damaged blocks refused, 0 opened");
}

/// Where else a block could be put: each way differs in one thing.
fn elsewhere(header: &FileHeader) -> Vec<(&'static str, FileHeader)> {
    let with = |what, change: &dyn Fn(&mut FileHeader)| {
        let mut header = header.clone();
        change(&mut header);
        (what, header)
    };
    vec![
        with("format version", &|h| h.version = 2),
        with("kind", &|h| h.identity.kind = FileKind::Blob),
        with("number", &|h| h.identity.number += 1),
        with("keyspace", &|h| h.identity.domain = 8),
        with("salt", &|h| h.salt[0] ^= 1),
        with("algorithm", &|h| h.parameters[0] ^= 3),
        with("epoch", &|h| h.parameters[2] = 2),
    ]
}

#[test]
fn a_block_opens_nowhere_but_in_its_place() {
    let (_, store) = store_with(Algorithm::ChaCha20Poly1305);
    store.keys().add_domain(8).unwrap();
    let file = store.create_file(FileKind::Log, 5, 7).unwrap();
    store.keys().begin_epoch().unwrap();
    let sealed = file.seal(3, b"content").unwrap();
    let here = block(3);
    let others = [
        BlockIdentity { ordinal: 4, ..here },
        BlockIdentity {
            ordinal: 3 + (1 << 32),
            ..here
        },
        BlockIdentity {
            block_type: 2,
            ..here
        },
        BlockIdentity { codec: 1, ..here },
    ];
    for other in others {
        assert_eq!(
            file.blocks.open(&other, &mut sealed.clone()),
            Err(Unopened::Damaged)
        );
    }
    for (what, header) in elsewhere(&file.header) {
        let other = store.open_file(&header).unwrap();
        assert_eq!(
            other.open(&here, &mut sealed.clone()),
            Err(Unopened::Damaged),
            "{what}"
        );
    }
    // Another store with the same secret, number, salt and id.
    let twin = Store::of(protection("s"), |p| p.create(&Place::new(2).get())).unwrap();
    twin.keys().add_domain(7).unwrap();
    let other = twin.open_file(&file.header).unwrap();
    assert_eq!(
        other.open(&here, &mut sealed.clone()),
        Err(Unopened::Damaged)
    );
    assert_eq!(
        file.blocks.open(&here, &mut sealed.clone()),
        Ok(&b"content"[..])
    );
}

/// A cipher that writes down what it is asked to seal.
#[derive(Debug)]
struct Recording {
    algorithm: Algorithm,
    sealed: Arc<Mutex<Vec<Sealed>>>,
}

type Sealed = ([u8; 32], [u8; NONCE_BYTES], Vec<u8>);

struct RecordingAead {
    inner: Box<dyn Aead>,
    key: [u8; 32],
    sealed: Arc<Mutex<Vec<Sealed>>>,
}

impl Provider for Recording {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn key(&self, key: &SecretKey) -> Box<dyn Aead> {
        Box::new(RecordingAead {
            inner: provider(self.algorithm).key(key),
            key: *key.expose(),
            sealed: Arc::clone(&self.sealed),
        })
    }
}

impl Aead for RecordingAead {
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], TooLong> {
        self.sealed
            .lock()
            .unwrap()
            .push((self.key, *nonce, aad.to_vec()));
        self.inner.seal(nonce, aad, buffer)
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unauthentic> {
        self.inner.open(nonce, aad, buffer, tag)
    }
}

#[test]
fn what_is_authenticated_is_what_the_format_says() {
    let place = Place::new(1);
    let sealed = Arc::new(Mutex::new(Vec::new()));
    let recording = Recording {
        algorithm: Algorithm::Aes256Gcm,
        sealed: Arc::clone(&sealed),
    };
    let protection = protection("s")
        .algorithm(Algorithm::Aes256Gcm)
        .provider(Arc::new(recording));
    let store = Store::of(protection, |p| p.create(&place.get())).unwrap();
    store.keys().add_domain(0x0403_0201).unwrap();
    store.keys().begin_epoch().unwrap();
    let mut header = FileHeader {
        identity: FileIdentity {
            store: STORE,
            kind: FileKind::Table,
            number: 0x1817_1615_1413_1211,
            domain: 0x0403_0201,
        },
        version: 0x0a09,
        transform: store.transform.id(),
        salt: [0x77; 24],
        parameters: [0; PARAMETER_BYTES],
    };
    let blocks = store.transform.create(&mut header).unwrap();
    assert_eq!(header.parameters[..6], [2, 0, 2, 0, 0, 0]);
    let identity = BlockIdentity {
        ordinal: 0x2423_2221,
        block_type: 0x31,
        codec: 0x41,
    };
    blocks.seal(&identity, &mut vec![5; 0x0605], 0).unwrap();
    let (_, nonce, aad) = sealed.lock().unwrap().pop().unwrap();
    assert_eq!(nonce, [0x21, 0x22, 0x23, 0x24, 0, 0, 0, 0, 0, 0, 0, 0]);
    // The rest of the place is in the header, from which the key is derived.
    let (domain, kind, block_type, codec) = ([1, 2, 3, 4], [2], [0x31], [0x41]);
    let expected = [
        &domain[..],
        &kind,
        &block_type,
        &codec,
        &[0],
        &[5, 6, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(aad, expected.concat());
}

#[test]
fn no_key_and_nonce_seal_twice() {
    let place = Place::new(1);
    let sealed = Arc::new(Mutex::new(Vec::new()));
    let recorded = |secret| {
        let sealed = Arc::clone(&sealed);
        let recording = Recording {
            algorithm: Algorithm::ChaCha20Poly1305,
            sealed,
        };
        protection(secret)
            .algorithm(Algorithm::ChaCha20Poly1305)
            .provider(Arc::new(recording))
    };
    let store = Store::of(recorded("s"), |p| p.create(&place.get())).unwrap();
    let work = |store: &Store| {
        for domain in 0..4 {
            store.keys().add_domain(domain).unwrap();
            for number in 0..3 {
                let identity = FileIdentity {
                    store: STORE,
                    kind: FileKind::Log,
                    number,
                    domain,
                };
                let random = &*place.random;
                let (_, blocks) =
                    FileHeader::create(identity, 1, &*store.transform, random).unwrap();
                for ordinal in 0..3 {
                    let mut text = b"text".to_vec();
                    blocks.seal(&block(ordinal), &mut text, 0).unwrap();
                    assert!(blocks.seal(&block(ordinal), &mut text, 0).is_err());
                }
            }
        }
    };
    work(&store);
    store.keys().begin_epoch().unwrap();
    work(&store);
    store.keys().retire_epochs(2).unwrap();
    store.keyring.lock();
    store.keyring.unlock(&passphrase("s")).unwrap();
    work(&store);
    store
        .keyring
        .change_secret(&passphrase("t"), Some(vault_crypto::Kdf::danger_weak()))
        .unwrap();
    drop(store);
    let store = Store::of(recorded("t"), |p| p.open(&place.get())).unwrap();
    work(&store);
    let sealed = sealed.lock().unwrap();
    let pairs: BTreeSet<_> = sealed.iter().map(|(key, nonce, _)| (key, nonce)).collect();
    println!(
        "{} seals, {} pairs of key and nonce",
        sealed.len(),
        pairs.len()
    );
    assert_eq!(pairs.len(), sealed.len());
    assert!(sealed.len() >= 4 * 36 + 8);
}

#[test]
fn an_ordinal_is_spent_once_and_a_file_that_is_read_is_never_sealed() {
    let (_, store) = store_with(Algorithm::ChaCha20Poly1305);
    let file = store.create_file(FileKind::Table, 5, 7).unwrap();
    for ordinal in [1, 2, 9, u64::from(u32::MAX)] {
        file.seal(ordinal, b"text").unwrap();
    }
    let refuse = |ordinal, says: &str| {
        let mut buffer = b"text".to_vec();
        let error = file
            .blocks
            .seal(&block(ordinal), &mut buffer, 0)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(buffer, b"text", "nothing was sealed");
    };
    refuse(9, "twice");
    refuse(u64::from(u32::MAX), "twice");
    // Writers of a log may overtake one another, by a little.
    for ordinal in [300, 173, 299, 174] {
        file.seal(ordinal, b"text").unwrap();
        refuse(ordinal, "twice");
    }
    refuse(172, "far behind");
    refuse(u64::from(u32::MAX) - 128, "far behind");
    refuse(1 << 32, "4,294,967,296");
    // A table's footer comes last, under the one number that its reader knows beforehand.
    file.seal(0, b"footer").unwrap();
    refuse(0, "twice");
    let reading = store.open_file(&file.header).unwrap();
    let error = reading
        .seal(&block(10), &mut b"text".to_vec(), 0)
        .unwrap_err();
    assert!(error.to_string().contains("opened for reading"), "{error}");
}

#[test]
fn headers_that_ask_for_what_there_is_not_are_refused() {
    let (_, store) = store_with(Algorithm::ChaCha20Poly1305);
    let file = store.create_file(FileKind::Table, 5, 7).unwrap();
    let error = |change: &dyn Fn(&mut FileHeader)| {
        let mut header = file.header.clone();
        change(&mut header);
        store.open_file(&header).unwrap_err()
    };
    for (error, says) in [
        (error(&|h| h.parameters[0] = 9), "table 5: cipher 9"),
        (error(&|h| h.parameters[59] = 1), "no meaning"),
        (error(&|h| h.parameters[2] = 0), "epoch 0"),
        (error(&|h| h.identity.store[0] ^= 1), "another store"),
    ] {
        assert!(matches!(error, Error::Corruption { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    for (error, says) in [
        (error(&|h| h.parameters[2] = 2), "epoch 2 of keyspace 7"),
        (error(&|h| h.identity.domain = 9), "epoch 1 of keyspace 9"),
    ] {
        assert!(
            matches!(error, Error::UnacceptableKeyring { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(says), "{error}");
    }
    let error = store.create_file(FileKind::Table, 6, 9).err().unwrap();
    assert!(error.to_string().contains("keyspace 9"), "{error}");
}

#[test]
fn plain_and_encrypted_files_are_told_apart() {
    let (_, store) = store_with(Algorithm::ChaCha20Poly1305);
    let encrypted = store.create_file(FileKind::Table, 5, 7).unwrap().header;
    let identity = encrypted.identity;
    let random = SeededRandom::new(1);
    let (plain, _) = FileHeader::create(identity, 1, &ChecksumTransform, &random).unwrap();
    let path = std::path::Path::new("/store/000005.tab");
    let error = encrypted.open(path, &ChecksumTransform).unwrap_err();
    assert!(matches!(error, Error::Encrypted { .. }), "{error:?}");
    let error = plain.open(path, &*store.transform).unwrap_err();
    assert!(matches!(error, Error::NotEncrypted { .. }), "{error:?}");
}

#[test]
fn what_one_provider_sealed_any_other_of_its_algorithm_opens() {
    for from in providers() {
        for to in providers()
            .iter()
            .filter(|to| to.algorithm() == from.algorithm())
        {
            let place = Place::new(1);
            let by = |provider: &&'static dyn Provider| {
                let algorithm = provider.algorithm();
                protection("s")
                    .algorithm(algorithm)
                    .provider(Arc::new(*provider))
            };
            let store = Store::of(by(from), |p| p.create(&place.get())).unwrap();
            let file = store.create_file(FileKind::Log, 1, 0).unwrap();
            let mut sealed = file.seal(0, b"across").unwrap();
            drop(store);
            let store = Store::of(by(to), |p| p.open(&place.get())).unwrap();
            let reading = store.open_file(&file.header).unwrap();
            assert_eq!(reading.open(&block(0), &mut sealed), Ok(&b"across"[..]));
        }
    }
}

#[test]
fn threads_seal_and_open_while_others_lock_and_unlock() {
    const ROUNDS: u32 = 300;
    let (_, store) = store_with(Algorithm::ChaCha20Poly1305);
    let done = AtomicBool::new(false);
    let (worked, locked) = (AtomicU32::new(0), AtomicU32::new(0));
    let count = |outcome: Result<(), Error>| match outcome {
        Ok(()) => worked.fetch_add(1, Ordering::Relaxed),
        Err(Error::Locked) => locked.fetch_add(1, Ordering::Relaxed),
        Err(other) => panic!("{other}"),
    };
    // One file that all read, and one that each writes.
    let shared = store.create_file(FileKind::Table, 1, 7).unwrap();
    let sealed = shared.seal(1, b"shared").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (store, done, sealed, shared, count) = (&store, &done, &sealed, &shared, &count);
            scope.spawn(move || {
                let mut file = store.create_file(FileKind::Log, 100 + thread, 7).ok();
                let mut ordinal = 0;
                while !done.load(Ordering::Relaxed) {
                    let opened = shared
                        .blocks
                        .open(&block(1), &mut sealed.clone())
                        .map(<[u8]>::to_vec);
                    count(match opened {
                        Ok(text) => {
                            assert_eq!(text, b"shared");
                            Ok(())
                        }
                        Err(Unopened::Locked) => Err(Error::Locked),
                        Err(Unopened::Damaged) => panic!("a block is damaged"),
                    });
                    let Some(writing) = &file else {
                        file = store.create_file(FileKind::Log, 100 + thread, 7).ok();
                        continue;
                    };
                    let text = writing.seal(ordinal, b"record");
                    let spent = text.is_ok();
                    count(text.map(drop));
                    ordinal += u64::from(spent);
                }
            });
        }
        let lockers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for round in 0..ROUNDS {
                        store.keyring.lock();
                        if round % 7 == 0 {
                            assert!(store.keyring.unlock(&passphrase("wrong")).is_err());
                        }
                        store.keyring.unlock(&passphrase("s")).unwrap();
                        let added = store.keys().add_domain(1000 + round % 16);
                        assert!(matches!(added, Ok(()) | Err(Error::Locked)), "{added:?}");
                    }
                })
            })
            .collect();
        for locker in lockers {
            locker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let (worked, locked) = (worked.into_inner(), locked.into_inner());
    println!("{worked} blocks sealed and opened, {locked} refused because it was locked");
    assert!(worked > 0 && locked > 0);
    store.keyring.lock();
    let mut bytes = sealed.clone();
    assert_eq!(
        shared.blocks.open(&block(1), &mut bytes),
        Err(Unopened::Locked)
    );
    assert_eq!(bytes, sealed, "a block that was refused is as it was");
}
