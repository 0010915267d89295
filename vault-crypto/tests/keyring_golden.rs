//! The bytes of a keyring and of encrypted blocks, frozen: what version 1 wrote opens for good, and is written the same.
//!
//! `what_the_format_says_is_how_it_is` takes a keyring apart by `docs/format/keyring.md` alone, with none of the code that
//! writes and reads it but the ciphers and the derivations, which have vectors of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fmt::Write;

use support::*;
use vault_core::random::SeededRandom;
use vault_core::transform::{FileHeader, FileIdentity, FileKind, Keys, Protection};
use vault_crypto::cipher::provider;
use vault_crypto::secret::{expand, extract};
use vault_crypto::{Algorithm, Kdf, KdfBounds, KeySource, SecretKey};

const PASSPHRASE: &str = "correct horse battery staple";
const GOLDEN: [(Algorithm, &str); 2] = [
    (
        Algorithm::ChaCha20Poly1305,
        include_str!("golden/keyring-v1-chacha20poly1305.txt"),
    ),
    (
        Algorithm::Aes256Gcm,
        include_str!("golden/keyring-v1-aes256gcm.txt"),
    ),
];
/// A file with a checksum behind each block, and one without.
const FILES: [(FileKind, &str); 2] = [(FileKind::Log, "log"), (FileKind::Table, "table")];
const TEXT: &[u8] = b"what a block holds";

/// What a golden file holds: names and bytes.
fn parse(golden: &str) -> impl Fn(&str) -> Vec<u8> {
    move |name| {
        let mut lines = golden
            .lines()
            .skip_while(|line| *line != format!("[{name}]"));
        lines.next().expect("the golden file has it");
        let digits: String = lines.take_while(|line| !line.starts_with('[')).collect();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }
}

fn put(out: &mut String, name: &str, bytes: &[u8]) {
    writeln!(out, "[{name}]").unwrap();
    for line in bytes.chunks(32) {
        line.iter()
            .for_each(|byte| write!(out, "{byte:02x}").unwrap());
        out.push('\n');
    }
}

fn identity(kind: FileKind) -> FileIdentity {
    FileIdentity {
        store: STORE,
        kind,
        number: 42,
        domain: 7,
    }
}

/// What this build writes, with randomness that is the same each time.
fn written(algorithm: Algorithm) -> String {
    let place = Place::new(2026);
    let protection = protection(PASSPHRASE).algorithm(algorithm);
    let store = Store::of(protection, |p| p.create(&place.get())).unwrap();
    store.keys().add_domain(7).unwrap();
    store.keys().begin_epoch().unwrap();
    let mut out = String::new();
    put(&mut out, "keyring", &place.main());
    for (kind, name) in FILES {
        let random = SeededRandom::new(7);
        let (header, blocks) =
            FileHeader::create(identity(kind), 1, &*store.transform, &random).unwrap();
        let mut sealed = TEXT.to_vec();
        blocks.seal(&block(5), &mut sealed, 0).unwrap();
        put(&mut out, &format!("{name} header"), &header.encode());
        put(&mut out, &format!("{name} block 5"), &sealed);
    }
    out
}

#[test]
fn what_is_written_is_what_version_1_wrote() {
    for (algorithm, golden) in GOLDEN {
        let written = written(algorithm);
        assert!(written == golden, "{}:\n{written}", algorithm.name());
    }
}

#[test]
fn what_version_1_wrote_opens() {
    for (_, golden) in GOLDEN {
        let golden = parse(golden);
        let place = Place::new(1);
        for path in [MAIN, COPY] {
            place.memory.write_file(path, &golden("keyring")).unwrap();
        }
        let store = place.open(PASSPHRASE);
        assert_eq!((store.keyring.version(), store.keyring.epoch()), (3, 2));
        for (kind, name) in FILES {
            let path = std::path::Path::new("/store/000042");
            let header = golden(&format!("{name} header"));
            let header = FileHeader::decode(path, &header, kind, 1).unwrap();
            let blocks = store.open_file(&header).unwrap();
            let mut sealed = golden(&format!("{name} block 5"));
            assert_eq!(blocks.open(&block(5), &mut sealed), Ok(TEXT));
        }
    }
}

/// Opens a sealed text with its tag behind it.
fn open(
    algorithm: Algorithm,
    key: &SecretKey,
    nonce: [u8; 12],
    aad: &[u8],
    sealed: &[u8],
) -> Vec<u8> {
    let (text, tag) = sealed.split_last_chunk::<16>().unwrap();
    let mut text = text.to_vec();
    let aead = provider(algorithm).key(key);
    aead.open(&nonce, aad, &mut text, tag).unwrap();
    text
}

#[test]
fn what_the_format_says_is_how_it_is() {
    for (algorithm, golden) in GOLDEN {
        let golden = parse(golden);
        let file = golden("keyring");
        let array = |at: usize| -> [u8; 32] { file[at..at + 32].try_into().unwrap() };
        assert_eq!(file.len(), 328 + 14 + 4 * 40 + 4);
        assert_eq!(file[128..132], [1, 0, 14, 0]);
        let bounds = KdfBounds::danger_weak();
        let kdf = Kdf::decode(file[132..146].try_into().unwrap(), &bounds).unwrap();
        assert_eq!(kdf, Kdf::danger_weak());
        let secret = passphrase(PASSPHRASE).secret().unwrap();
        let kek = kdf.derive(&secret, &array(146)).unwrap();
        assert_eq!(
            *expand(&kek, &[b"vault keyring commitment 1"]).expose(),
            array(178)
        );

        let wrapping_key = expand(&kek, &[b"vault keyring root 1", &array(210)]);
        let aad = [&file[8..12], &STORE, &file[64..66], &file[128..242]].concat();
        let root = open(algorithm, &wrapping_key, [0; 12], &aad, &file[242..290]);
        let root = SecretKey::from_bytes(&mut root.try_into().unwrap());
        assert_eq!(file[290..294], [4, 0, 0, 0]);
        let body_key = expand(&root, &[b"vault keyring body 1", &array(294)]);
        let sealed = &file[326..file.len() - 4];
        let body = open(algorithm, &body_key, [0; 12], &file[..326], sealed);
        let whose: Vec<_> = body.chunks(40).map(|key| (key[0], key[4])).collect();
        assert_eq!(whose, [(0, 1), (0, 2), (7, 1), (7, 2)]);

        let data_key = SecretKey::from_bytes(&mut body[3 * 40 + 8..].try_into().unwrap());
        for (kind, name) in FILES {
            let header = golden(&format!("{name} header"));
            let file_key = expand(&data_key, &[b"vault file 1", &header[..124]]);
            let mut sealed = golden(&format!("{name} block 5"));
            if kind != FileKind::Table {
                let checksum = sealed.split_off(sealed.len() - 4);
                assert_eq!(crc32fast::hash(&sealed).to_le_bytes(), checksum[..]);
            }
            let mut nonce = [0; 12];
            nonce[0] = 5;
            let mut aad = vec![7, 0, 0, 0, kind as u8, 1, 0, 0];
            aad.extend_from_slice(&(TEXT.len() as u64).to_le_bytes());
            if algorithm == Algorithm::ChaCha20Poly1305 {
                aad.extend_from_slice(&[0; 48]);
            }
            assert_eq!(open(algorithm, &file_key, nonce, &aad, &sealed), TEXT);
        }
    }
}

#[test]
fn a_key_goes_through_extract() {
    let place = Place::new(1);
    let key = || SecretKey::from_bytes(&mut [9; 32]);
    let source = vault_crypto::source::RawKey::new(key());
    Store::of(with_source(std::sync::Arc::new(source)), |p| {
        p.create(&place.get())
    })
    .unwrap();
    let file = place.main();
    assert_eq!(
        file[128..146],
        [&[1, 0, 14, 0][..], &[3, 0], &[0; 12]].concat()
    );
    let kek = extract(&file[146..178], key().expose());
    assert_eq!(
        *expand(&kek, &[b"vault keyring commitment 1"]).expose(),
        file[178..210]
    );
}
