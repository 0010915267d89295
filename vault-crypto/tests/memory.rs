//! What is left in the memory of the process when secrets are gone: nothing.
//!
//! All of it is read, as the system shows it (`/proc/self/mem`): heap, stacks, static data. What is looked for is kept
//! masked, so that the search does not find itself, and the search finds what is not wiped, which is tried out first.
//! This file has one test, so that nothing else runs in its process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::thread;

use vault_core::random::{Random, SystemRandom};
use vault_crypto::cipher::{Aead, Provider, providers};
use vault_crypto::secret::{expand, extract, with_clean_stack};
use vault_crypto::source::{Command, KeySource, RawKey, Secret};
use vault_crypto::{Kdf, SecretBytes, SecretKey};

/// A needle of this many bytes is not in memory by chance.
const NEEDLE_BYTES: usize = 16;
const MASK: u8 = 0x5c;
const WINDOW_BYTES: usize = 1 << 20;
/// Texts of so many bytes are sealed: ciphers go different ways for short and for long ones.
const SIZES: [usize; 4] = [10, 140, 1023, 5000];
/// Nothing else allocates as much as this: what is freed of this size stays as it was.
const ODD_BYTES: usize = 987;

/// What must not be found, masked.
struct Needle {
    name: String,
    masked: [u8; NEEDLE_BYTES],
}

impl Needle {
    fn new(name: impl Into<String>, secret: &[u8]) -> Self {
        let mut masked = [0; NEEDLE_BYTES];
        for (masked, byte) in masked.iter_mut().zip(secret) {
            *masked = byte ^ MASK;
        }
        let name = name.into();
        Self { name, masked }
    }

    fn is_at(&self, bytes: &[u8]) -> bool {
        bytes
            .iter()
            .zip(&self.masked)
            .all(|(byte, masked)| byte ^ MASK == *masked)
    }
}

/// How often each needle is in the memory of this process. The window that it is read into is wiped, and not searched.
fn search(needles: &[Needle], window: &mut [u8]) -> Vec<(String, usize)> {
    let mut found: Vec<_> = needles.iter().map(|n| (n.name.clone(), 0)).collect();
    let own = window.as_ptr().addr()..window.as_ptr().addr() + window.len();
    #[expect(clippy::disallowed_methods, reason = "the memory of this process")]
    let (maps, memory) = (
        File::open("/proc/self/maps").unwrap(),
        File::open("/proc/self/mem").unwrap(),
    );
    let maps: Vec<String> = BufReader::new(maps).lines().map(Result::unwrap).collect();
    let mut read_bytes = 0;
    for line in maps.iter().filter(|line| line.contains(" rw")) {
        let (begin, rest) = line.split_once('-').unwrap();
        let end = rest.split(' ').next().unwrap();
        let mut at = usize::from_str_radix(begin, 16).unwrap();
        let end = usize::from_str_radix(end, 16).unwrap();
        while at < end {
            let len = window.len().min(end - at);
            // Mappings that cannot be read hold nothing that we wrote.
            if memory.read_exact_at(&mut window[..len], at as u64).is_err() {
                break;
            }
            read_bytes += len;
            for (offset, bytes) in window[..len].windows(NEEDLE_BYTES).enumerate() {
                if own.contains(&(at + offset)) {
                    continue;
                }
                for (needle, found) in needles.iter().zip(&mut found) {
                    found.1 += usize::from(needle.is_at(bytes));
                }
            }
            at += if len < window.len() {
                len
            } else {
                len - NEEDLE_BYTES + 1
            };
        }
    }
    window.fill(0);
    assert!(read_bytes > 100 << 10, "{read_bytes} bytes of memory read");
    found
}

fn fresh() -> SecretKey {
    SecretKey::random(&SystemRandom).unwrap()
}

/// The parts of a key that may be lying about: both halves, since a schedule need not hold them together.
fn needles_of(name: &str, key: &[u8; 32]) -> Vec<Needle> {
    vec![
        Needle::new(format!("{name}, first half"), &key[..16]),
        Needle::new(format!("{name}, second half"), &key[16..]),
    ]
}

/// A part of a text that is not at its beginning: of what is freed, the allocator overwrites the first bytes itself.
fn middle_of(name: &str, text: &[u8]) -> Needle {
    assert_eq!(text.len(), 3 * NEEDLE_BYTES);
    Needle::new(name, &text[NEEDLE_BYTES..])
}

/// Prepares a key, works with it and lets go of it. The first round keys of AES-256 and the state of ChaCha20 hold the
/// key as it is, so that a schedule that is not wiped is found by it.
fn uses(provider: &dyn Provider, size: usize, needles: &mut Vec<Needle>) {
    let key = fresh();
    needles.extend(needles_of(&format!("{provider:?}"), key.expose()));
    let cipher: Box<dyn Aead> = provider.key(&key);
    drop(key);
    let mut buffer = vec![1; size];
    let tag = cipher.seal(&[2; 12], b"place", &mut buffer).unwrap();
    cipher.open(&[2; 12], b"place", &mut buffer, &tag).unwrap();
}

fn derives(needles: &mut Vec<Needle>) {
    let mut typed = [0; 24];
    SystemRandom.fill(&mut typed).unwrap();
    let mut passphrase = String::with_capacity(ODD_BYTES);
    for byte in typed {
        for digit in [byte >> 4, byte & 15] {
            passphrase.push(char::from_digit(digit.into(), 16).unwrap());
        }
    }
    needles.push(middle_of("a passphrase", passphrase.as_bytes()));
    let secret = Secret::Passphrase(SecretBytes::from_string(passphrase).unwrap());
    typed.fill(0);
    for kdf in [
        Kdf::danger_weak(),
        Kdf::Argon2id {
            memory_kib: 1 << 10,
            passes: 2,
            lanes: 2,
        },
        Kdf::Pbkdf2HmacSha256 { iterations: 10 },
    ] {
        let derived = kdf.derive(&secret, &[3; 32]).unwrap();
        needles.extend(needles_of(&format!("from {kdf:?}"), derived.expose()));
        let root = extract(b"salt", derived.expose());
        needles.extend(needles_of("extracted", root.expose()));
        let file = expand(&root, &[b"label", &[7; 100]]);
        needles.extend(needles_of("expanded", file.expose()));
    }
}

fn comes_from_sources(needles: &mut Vec<Needle>) {
    let key = fresh();
    needles.extend(needles_of("a key at hand", key.expose()));
    let source = RawKey::new(key);
    drop(source.secret().unwrap());
    // What the command prints is made by the command: this process has never had it before.
    let script = "head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo";
    let printed = Command::passphrase("sh", ["-c", script]).secret().unwrap();
    let Secret::Passphrase(printed) = printed else {
        panic!("a passphrase");
    };
    needles.push(middle_of("what a command printed", printed.expose()));
}

/// Writes a secret to a good deal of the stack.
#[inline(never)]
fn writes_to_the_stack(needles: &mut Vec<Needle>) {
    let mut local = [[0; 32]; 256];
    SystemRandom.fill(&mut local[0]).unwrap();
    let first = local[0];
    local.fill(std::hint::black_box(first));
    needles.extend(needles_of(
        "on the stack",
        &std::hint::black_box(local)[255],
    ));
}

/// Everything but ciphers that the crate does with secrets, in frames that are gone when it is searched.
#[inline(never)]
fn everything(needles: &mut Vec<Needle>) {
    derives(needles);
    comes_from_sources(needles);
    with_clean_stack(|| writes_to_the_stack(needles));
}

/// Runs `work` in a thread, and searches for what it names while the thread is still there: nothing else is called that
/// would overwrite its stack.
fn left_by(
    work: impl FnOnce(&mut Vec<Needle>) + Send + 'static,
    window: &mut [u8],
) -> Vec<(String, usize)> {
    let (give, take) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        let mut needles = Vec::new();
        work(&mut needles);
        give.send(needles).unwrap();
        let _ = ended.recv();
    });
    let needles = take.recv().unwrap();
    let found = search(&needles, window);
    drop(end);
    worker.join().unwrap();
    found
}

#[test]
fn nothing_secret_is_left_in_memory() {
    let mut window = vec![0; WINDOW_BYTES];
    // The search finds what is there: once in the place of the key, and once more in a copy.
    let kept = fresh();
    let needle = needles_of("kept", kept.expose());
    let copy = std::hint::black_box(Box::new(*kept.expose()));
    for (name, times) in search(&needle, &mut window) {
        assert!(times >= 2, "{name} found {times} times");
    }
    drop(copy);

    // And it finds what a function leaves on the stack.
    for (name, times) in left_by(writes_to_the_stack, &mut window) {
        assert!(times >= 1, "{name} not found");
    }

    let mut found = left_by(everything, &mut window);
    for provider in providers() {
        // Each by itself: the next one would be put in the place of the one before.
        for size in SIZES {
            found.extend(left_by(
                move |needles| uses(*provider, size, needles),
                &mut window,
            ));
        }
    }
    let expected = 2 * SIZES.len() * providers().len() + 24;
    assert_eq!(found.len(), expected);
    let left: Vec<_> = found.iter().filter(|(_, times)| *times > 0).collect();
    assert!(left.is_empty(), "left in memory: {left:?}");
    println!("{expected} parts of secrets searched for, none left in memory");
}
