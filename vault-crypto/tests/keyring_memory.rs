//! After locking, and after closing, no key of a store is in the memory of the process: neither root key nor data keys, neither
//! the key-encryption key nor those of files that are still open.
//!
//! This file has one test, so that nothing else runs in its process. The work is done by threads that are still there
//! when memory is searched, with their stacks as the work left them.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use support::process_memory::{Needle, search};
use support::*;
use vault_core::Result;
use vault_core::random::{Random, SystemRandom};
use vault_core::transform::{FileKind, Protection};
use vault_crypto::cipher::{Aead, Provider, providers};
use vault_crypto::{Algorithm, Kdf, KdfBounds, KeySource, SecretKey};

/// What must not be found, by its name.
type Needles = Arc<Mutex<Vec<Needle>>>;

/// Random bytes, of which those that may be keys are written down, masked. Salts are 32 bytes too, and no secret: they are
/// in the keyring file, which the test takes out.
#[derive(Debug)]
struct RecordingRandom(Needles);

impl Random for RecordingRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        SystemRandom.fill(bytes)?;
        if let Ok(key) = <&[u8; 32]>::try_from(&*bytes) {
            let mut needles = self.0.lock().unwrap();
            needles.extend(Needle::halves("drawn", key));
        }
        Ok(())
    }
}

/// A provider that writes down its keys, masked: those of files, and those that seal the keyring.
#[derive(Debug)]
struct RecordingProvider(&'static dyn Provider, Needles);

impl Provider for RecordingProvider {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }

    fn key(&self, key: &SecretKey) -> Box<dyn Aead> {
        let needles = Needle::halves("given to the cipher", key.expose());
        self.1.lock().unwrap().extend(needles);
        self.0.key(key)
    }
}

/// The key-encryption key of the keyring that is on disk.
fn record_kek(place: &Place, secret: &str, needles: &Needles) {
    let file = place.main();
    let kdf = Kdf::decode(
        file[132..146].try_into().unwrap(),
        &KdfBounds::danger_weak(),
    )
    .unwrap();
    let secret = passphrase(secret).secret().unwrap();
    let kek = kdf
        .derive(&secret, file[146..178].try_into().unwrap())
        .unwrap();
    let halves = Needle::halves("key-encryption key", kek.expose());
    needles.lock().unwrap().extend(halves);
}

/// Takes out the salts that are in the keyring file as it is: its bytes are in memory, and no secret.
fn take_out_salts(place: &Place, needles: &Needles) {
    let file = place.main();
    let body_salt = file.len() - 4 - 16 - 40 * keys_in(&file) - 32;
    let mut needles = needles.lock().unwrap();
    for at in [146, 210, body_salt] {
        let salt = Needle::halves("drawn", file[at..at + 32].try_into().unwrap());
        needles.retain(|needle| !salt.contains(needle));
    }
}

fn keys_in(file: &[u8]) -> usize {
    u32::from_le_bytes(file[290..294].try_into().unwrap()) as usize
}

/// All that is done with keys, over all verbs, leaving files open.
fn work(place: &Place, store: &Store, secret: &'static str, needles: &Needles) -> Vec<SealedFile> {
    take_out_salts(place, needles);
    store.keys().add_domain(7).unwrap();
    take_out_salts(place, needles);
    let mut files = Vec::new();
    for round in 0..2 {
        for number in 0..20 {
            let file = store
                .create_file(FileKind::Log, 100 * round + number, 7)
                .unwrap();
            let mut sealed = file.seal(0, b"a text").unwrap();
            let reading = store.open_file(&file.header).unwrap();
            reading.open(&block(0), &mut sealed).unwrap();
            files.push(file);
        }
        store.keys().begin_epoch().unwrap();
        take_out_salts(place, needles);
    }
    record_kek(place, secret, needles);
    let new = passphrase("another secret");
    store
        .keyring
        .change_secret(&new, Some(Kdf::danger_weak()))
        .unwrap();
    record_kek(place, "another secret", needles);
    store.keyring.check_secret(&new).unwrap();
    files
}

/// A thread that does something and stays, with its stack as that left it.
fn stay<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (T, mpsc::Sender<()>) {
    let (give, take) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        give.send(work()).unwrap();
        let _ = ended.recv();
    });
    (take.recv().unwrap(), end)
}

fn none_is_found(needles: &Needles, when: &str) -> usize {
    let needles = needles.lock().unwrap();
    let found = search(&needles);
    let left: Vec<_> = needles
        .iter()
        .zip(&found)
        .filter(|(_, times)| **times > 0)
        .collect();
    assert!(
        left.is_empty(),
        "{when}: {} left, {:?}",
        left.len(),
        &left[..left.len().min(4)]
    );
    needles.len()
}

#[test]
fn no_key_is_in_memory_when_a_store_is_locked_or_closed() {
    for provider in providers() {
        let needles = Needles::default();
        let mut place = Place::new(1);
        place.random = Arc::new(RecordingRandom(Arc::clone(&needles)));
        let place = Arc::new(place);
        let recording = RecordingProvider(*provider, Arc::clone(&needles));
        let with = protection("a secret")
            .algorithm(provider.algorithm())
            .provider(Arc::new(recording));
        let (there, of) = (Arc::clone(&place), Arc::clone(&needles));
        let ((store, files), _worker) = stay(move || {
            let store = Store::of(with, |p| p.create(&there.get())).unwrap();
            let files = work(&there, &store, "a secret", &of);
            (Arc::new(store), files)
        });
        take_out_salts(&place, &needles);
        let is_drawn = |needle: &&Needle| needle.name.starts_with("drawn");
        let drawn = needles.lock().unwrap().iter().filter(is_drawn).count();
        assert_eq!(drawn, 2 * (2 + 6), "two root keys, six data keys");

        // The search finds what is there: the root key, each data key, the key of a file that is open.
        let open = search(&needles.lock().unwrap());
        let there = open.iter().filter(|times| **times > 0).count();
        assert!(
            there >= 2 * (1 + 6),
            "{there} of {} parts of keys found",
            open.len()
        );

        let locking = Arc::clone(&store);
        let ((), _locker) = stay(move || locking.keyring.lock());
        let searched = none_is_found(&needles, "locked");

        let unlocking = Arc::clone(&store);
        let (files, _unlocker) = stay(move || {
            unlocking
                .keyring
                .unlock(&passphrase("another secret"))
                .unwrap();
            // Keys of files come back when they are needed.
            for file in &files {
                file.seal(1, b"more").unwrap();
            }
            files
        });
        let again = search(&needles.lock().unwrap());
        assert!(again.iter().any(|times| *times > 0), "there are keys again");
        drop((files, store));
        none_is_found(&needles, "closed");
        println!(
            "{} ({}): {searched} parts of keys searched for, {there} found while open, none when locked or closed",
            provider.algorithm().name(),
            provider.name()
        );
    }
}
