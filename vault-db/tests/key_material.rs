//! What is in the memory of a process when its store was locked or closed: no key, and not the passphrase.
//!
//! A process of its own opens an encrypted store with a passphrase and uses it in every way. Meanwhile this one makes all keys
//! of it out of the files and the passphrase, as the format says, and passes them on, masked, so that the search does not find
//! itself. Then the other process reads its own memory, whole: the data keys are there, which shows that the search finds what
//! is there; after `lock`, and after it was unlocked, closed and dropped, none is: not the key-encryption key, the root
//! key, a data key, the key of any file, a round key made of one, nor the passphrase.
//!
//! Each cipher, each of its providers: `cargo test -p vault-db --features ring --test key_material` has them all.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod keys_support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use keys_support::Patterns;
use vault_crypto::cipher::{Provider, providers};
use vault_db::encryption::{Command, EncryptedProtection, Kdf, KdfBounds, SecretKey};
use vault_db::engine::{
    EncryptedStore, Engine, KeyRange, KeyspaceOptions, LsmOptions, Reader, WriteBatch, WriteOptions,
};

const DIRECTORY_VARIABLE: &str = "VAULT_TEST_KEY_MATERIAL";
const PROVIDER_VARIABLE: &str = "VAULT_TEST_PROVIDER";
const MASK: u8 = 0xa7;
const PATTERN_BYTES: usize = 16;
const WINDOW_BYTES: usize = 1 << 20;
/// What the process says between what the harness says.
const PREFIX: &str = "vault-test:";

#[test]
fn no_key_is_in_memory_when_a_store_is_locked_or_closed() {
    for (number, provider) in providers().iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let passphrase = passphrase();
        write_file(&directory.path().join("passphrase"), passphrase.as_bytes());
        let mut other = Other::start(directory.path(), number);
        let mut patterns = Patterns::default();
        patterns.add_passphrase(passphrase.as_bytes());
        // After each thing it did, all keys of the moment.
        while other.hears() != "done" {
            patterns.add_store(&directory.path().join("store"), passphrase.as_bytes());
            other.says("go on");
        }
        let all: Vec<_> = patterns.all().collect();
        for (_, pattern) in &all {
            let masked = pattern.map(|byte| format!("{:02x}", byte ^ MASK));
            other.says(&masked.concat());
        }
        other.says("search");
        let mut found = BTreeMap::new();
        for moment in ["open", "locked", "unlocked", "closed"] {
            let counts: Vec<u64> = all.iter().map(|_| other.hears().parse().unwrap()).collect();
            let there = all.iter().zip(&counts).filter(|(_, count)| **count > 0);
            let there: Vec<&str> = there.map(|((name, _), _)| name.as_str()).collect();
            found.insert(moment, there);
        }
        other.ends();
        let name = format!("{} by {}", provider.algorithm().name(), provider.name());
        println!(
            "{name}: {} patterns searched for, {} found while it was open",
            all.len(),
            found["open"].len()
        );
        for moment in ["open", "unlocked"] {
            for part in ["data key 0, ", "data key 1, ", "the key of "] {
                let is = |there: &&&str| there.starts_with(part);
                assert!(
                    found[moment].iter().any(|there| is(&there)),
                    "{name}: {part}"
                );
            }
        }
        for moment in ["locked", "closed"] {
            assert!(
                found[moment].is_empty(),
                "{name}, {moment}: {:?}",
                found[moment]
            );
        }
    }
}

fn passphrase() -> String {
    let key = SecretKey::random(&vault_core::random::SystemRandom).unwrap();
    let digits = key
        .expose()
        .iter()
        .take(24)
        .map(|byte| format!("{byte:02x}"));
    digits.collect()
}

#[expect(clippy::disallowed_methods, reason = "the test's own file")]
fn write_file(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

/// The other process, and the talk with it.
struct Other {
    child: Child,
    hears: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    fn start(directory: &Path, provider: usize) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "as_the_process_with_keys", "--nocapture"])
            .env(DIRECTORY_VARIABLE, directory)
            .env(PROVIDER_VARIABLE, provider.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let hears = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, hears }
    }

    fn says(&mut self, line: &str) {
        let mut pipe = self.child.stdin.as_ref().unwrap();
        writeln!(pipe, "{line}").unwrap();
    }

    fn hears(&mut self) -> String {
        for line in self.hears.by_ref() {
            // The harness does not end its line before the test does.
            if let Some((_, said)) = line.unwrap().split_once(PREFIX) {
                return said.to_owned();
            }
        }
        panic!("the process has ended");
    }

    fn ends(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tell(what: impl std::fmt::Display) {
    let mut out = std::io::stdout();
    writeln!(out, "{PREFIX}{what}").unwrap();
    out.flush().unwrap();
}

/// Reads one line, byte by byte: nobody but us is to keep what was read.
fn heard() -> String {
    let mut line = String::new();
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(char::from(byte[0]));
    }
    line
}

/// Lets the other side look at the files.
fn stop() {
    tell("look");
    heard();
}

/// The process: works, is told what to look for, looks. Without a directory in the environment this is no test of its own.
#[test]
fn as_the_process_with_keys() {
    let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from) else {
        return;
    };
    let number: usize = std::env::var(PROVIDER_VARIABLE).unwrap().parse().unwrap();
    let provider = providers()[number];
    let mut window = vec![0; WINDOW_BYTES];
    let source = || Command::passphrase("cat", [directory.join("passphrase")]);
    let protection = EncryptedProtection::with_source(Arc::new(source()))
        .kdf(Kdf::danger_weak())
        .kdf_bounds(KdfBounds::danger_weak())
        .algorithm(provider.algorithm())
        .provider(Arc::new(provider));
    let path = directory.join("store");
    let store = EncryptedStore::open_with(&path, LsmOptions::default(), protection).unwrap();
    work(&store, &directory);
    tell("done");
    let mut masked: Vec<[u8; PATTERN_BYTES]> = Vec::new();
    loop {
        let line = heard();
        if line == "search" {
            break;
        }
        let byte = |n: usize| u8::from_str_radix(&line[2 * n..2 * n + 2], 16).unwrap();
        masked.push(std::array::from_fn(byte));
    }
    let mut search = || {
        for count in search(&masked, &mut window) {
            tell(count);
        }
    };
    search();
    store.lock().unwrap();
    search();
    store.unlock(&source()).unwrap();
    read_all(&store);
    search();
    store.close().unwrap();
    drop(store);
    search();
}

/// Everything that is done with a store.
fn work(store: &EncryptedStore, directory: &Path) {
    let go_on = |_| ControlFlow::Continue(());
    let kept = store
        .create_keyspace("kept", &KeyspaceOptions::default())
        .unwrap();
    let gone = store
        .create_keyspace("gone", &KeyspaceOptions::default())
        .unwrap();
    for round in 0..3_u8 {
        let mut batch = WriteBatch::new();
        for n in 0..200_u8 {
            batch
                .put(kept, &[round, n], &[n; 300])
                .put(gone, &[n], &[round; 30]);
        }
        store.write(&batch, &WriteOptions::SYNC).unwrap();
        stop();
        store.flush(None).unwrap();
        stop();
    }
    read_all(store);
    store
        .compact(kept, KeyRange::all(), &mut { go_on })
        .unwrap();
    stop();
    let pairs = (0..50_u8).map(|n| ([9, n], [n; 100]));
    store.ingest(kept, pairs).unwrap();
    store.checkpoint(directory.join("copy")).unwrap();
    stop();
    store.rotate_keys().unwrap();
    store
        .put(kept, b"between", b"epochs", &WriteOptions::SYNC)
        .unwrap();
    stop();
    store.finish_rotation(go_on).unwrap();
    store.drop_keyspace(gone).unwrap();
    store
        .put(kept, b"last", b"one", &WriteOptions::SYNC)
        .unwrap();
    read_all(store);
    stop();
}

fn read_all(store: &EncryptedStore) {
    for info in store.keyspaces().unwrap() {
        let scan = store.scan(info.id, KeyRange::all()).unwrap();
        assert!(scan.map(Result::unwrap).count() > 100);
    }
}

/// How often each pattern is in the memory of this process, wherever it can be read, but for the window itself.
#[expect(clippy::disallowed_methods, reason = "the memory of this process")]
fn search(masked: &[[u8; PATTERN_BYTES]], window: &mut [u8]) -> Vec<u64> {
    let mut counts = vec![0; masked.len()];
    // By their first two bytes: few places of memory are worth a closer look.
    let mut by_beginning: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    let mut begins = vec![false; 1 << 16];
    let beginning = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    for (n, pattern) in masked.iter().enumerate() {
        begins[usize::from(beginning(pattern))] = true;
        by_beginning.entry(beginning(pattern)).or_default().push(n);
    }
    let own = window.as_ptr().addr()..window.as_ptr().addr() + window.len();
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut read_bytes = 0;
    for line in maps.lines().filter(|line| line.contains(" r")) {
        let (begin, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        let mut at = usize::from_str_radix(begin, 16).unwrap();
        let end = usize::from_str_radix(end, 16).unwrap();
        while at + PATTERN_BYTES <= end {
            let len = window.len().min(end - at);
            // What the kernel shows to programs and not to readers of memory.
            if memory.read_exact_at(&mut window[..len], at as u64).is_err() {
                break;
            }
            read_bytes += len;
            for (offset, bytes) in window[..len].windows(PATTERN_BYTES).enumerate() {
                let first = beginning(bytes) ^ u16::from_le_bytes([MASK; 2]);
                if !begins[usize::from(first)] || own.contains(&(at + offset)) {
                    continue;
                }
                for &n in &by_beginning[&first] {
                    let same = bytes.iter().zip(&masked[n]).all(|(a, b)| a ^ MASK == *b);
                    counts[n] += u64::from(same);
                }
            }
            at += if len < window.len() {
                len
            } else {
                len - PATTERN_BYTES + 1
            };
        }
    }
    window.fill(0);
    assert!(read_bytes > 1 << 20, "{read_bytes} bytes of memory read");
    counts
}
