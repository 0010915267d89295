//! All keys of a store, made from its files and its passphrase as `docs/format/keyring.md` says, with nothing of the code
//! that keeps them.

use std::collections::BTreeSet;
use std::path::Path;

use vault_crypto::cipher::provider;
use vault_crypto::secret::expand;
use vault_crypto::{Algorithm, Kdf, Secret, SecretBytes, SecretKey};

/// A key or a part of one that must not be in memory, with what it is.
pub(crate) type Pattern = (String, [u8; 16]);

const HEADER: usize = 128;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn key_of(bytes: &[u8]) -> SecretKey {
    let mut bytes: [u8; 32] = bytes.try_into().expect("32 bytes");
    SecretKey::from_bytes(&mut bytes)
}

/// Opens what one key seals once: the nonce is zero.
fn opened(algorithm: Algorithm, key: &SecretKey, aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (text, tag) = sealed.split_last_chunk::<16>().expect("text and tag");
    let mut text = text.to_vec();
    let aead = provider(algorithm).key(key);
    let authentic = aead.open(&[0; 12], aad, &mut text, tag);
    authentic.expect("the keyring is as its format says");
    text
}

/// Collects what is to be looked for.
#[derive(Default)]
pub(crate) struct Patterns(BTreeSet<Pattern>);

impl Patterns {
    fn add(&mut self, what: &str, key: &[u8]) {
        for (half, name) in key.chunks_exact(16).zip(["first", "second"]) {
            let half = half.try_into().expect("16 bytes");
            self.0.insert((format!("{what}, {name} half"), half));
        }
    }

    /// A key that a cipher works with: what its schedule holds, too.
    fn add_working(&mut self, what: &str, key: &[u8; 32]) {
        self.add(what, key);
        let round = aes_round_key(key);
        self.0
            .insert((format!("{what}, third round key of AES"), round));
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }

    /// Adds a passphrase of 48 bytes: not its beginning, which an allocator overwrites when it is freed.
    pub(crate) fn add_passphrase(&mut self, passphrase: &[u8]) {
        let middle = passphrase[16..32].try_into().expect("16 bytes");
        self.0.insert(("the passphrase".to_owned(), middle));
    }

    /// Adds all keys of the store in this directory as it is now.
    pub(crate) fn add_store(&mut self, directory: &Path, passphrase: &[u8]) {
        let files = files_of(directory);
        let keyring = |(path, _): &&(String, Vec<u8>)| path == "KEYRING";
        let (_, keyring) = files.iter().find(keyring).expect("it is encrypted");
        let data_keys = self.add_keyring(keyring, passphrase);
        for (name, bytes) in &files {
            let encrypted = bytes.len() > HEADER && bytes.starts_with(b"VAULT\0");
            if !encrypted || name.starts_with("KEYRING") || bytes[10] != 1 {
                continue;
            }
            let (domain, epoch) = (u32_at(bytes, 12), u32_at(bytes, 66));
            let key = data_keys
                .iter()
                .find(|(d, e, _)| (*d, *e) == (domain, epoch));
            // A file that was left behind by a drop has none any more.
            if let Some((_, _, key)) = key {
                let file_key = expand(key, &[b"vault file 1", &bytes[..HEADER - 4]]);
                self.add_working(&format!("the key of {name}"), file_key.expose());
            }
        }
    }

    /// Adds the keys in a keyring. Gives the data keys.
    fn add_keyring(&mut self, bytes: &[u8], passphrase: &[u8]) -> Vec<(u32, u32, SecretKey)> {
        let algorithm = Algorithm::from_id(u16_at(bytes, 64)).expect("a cipher");
        let p = usize::from(u16_at(bytes, 130));
        assert_eq!((bytes[128], p), (1, 14), "under a passphrase");
        assert_eq!(u16_at(bytes, 132), 1, "by Argon2id");
        let kdf = Kdf::Argon2id {
            memory_kib: u32_at(bytes, 134),
            passes: u32_at(bytes, 138),
            lanes: u32_at(bytes, 142),
        };
        let secret = Secret::Passphrase(SecretBytes::new(passphrase).expect("short enough"));
        let salt = bytes[132 + p..164 + p].try_into().expect("32 bytes");
        let kek = kdf.derive(&secret, &salt).expect("parameters that do");
        let commitment = expand(&kek, &[b"vault keyring commitment 1"]);
        assert!(commitment.expose()[..] == bytes[164 + p..196 + p]);
        let wrapping = expand(&kek, &[b"vault keyring root 1", &bytes[196 + p..228 + p]]);
        let aad = [
            &bytes[8..12],
            &bytes[16..32],
            &bytes[64..66],
            &bytes[128..228 + p],
        ]
        .concat();
        let root = opened(algorithm, &wrapping, &aad, &bytes[228 + p..276 + p]);
        let root = key_of(&root);
        let body_key = expand(&root, &[b"vault keyring body 1", &bytes[280 + p..312 + p]]);
        let end = bytes.len() - 4;
        let body = opened(
            algorithm,
            &body_key,
            &bytes[..312 + p],
            &bytes[312 + p..end],
        );
        self.add("the key-encryption key", kek.expose());
        self.add("the root key", root.expose());
        self.add_working("the key that wraps the root key", wrapping.expose());
        self.add_working("the key that seals the data keys", body_key.expose());
        assert_eq!(body.len(), 40 * u32_at(bytes, 276 + p) as usize);
        let entries = body.chunks_exact(40).map(|entry| {
            let (domain, epoch) = (u32_at(entry, 0), u32_at(entry, 4));
            self.add(&format!("data key {domain}, {epoch}"), &entry[8..]);
            (domain, epoch, key_of(&entry[8..]))
        });
        entries.collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "the files as anybody sees them")]
pub(crate) fn files_of(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        // Files come and go while a store is open.
        if let Ok(bytes) = std::fs::read(&path) {
            let name = path.file_name().expect("an entry has a name");
            files.push((name.to_string_lossy().into_owned(), bytes));
        }
    }
    files
}

/// The third round key of AES-256: the first that is not a part of the key.
fn aes_round_key(key: &[u8; 32]) -> [u8; 16] {
    // RotWord, SubWord and the first round constant, then the words in a row.
    let last: [u8; 4] = key[28..].try_into().expect("a word");
    let mut word = [last[1], last[2], last[3], last[0]].map(substituted);
    word[0] ^= 1;
    let mut round = [0; 16];
    for (n, place) in round.chunks_exact_mut(4).enumerate() {
        for (byte, old) in word.iter_mut().zip(&key[4 * n..]) {
            *byte ^= old;
        }
        place.copy_from_slice(&word);
    }
    round
}

/// The S-box of AES: the inverse in its field, and an affine map.
fn substituted(byte: u8) -> u8 {
    let inverse = (1..=255)
        .find(|&other| product(byte, other) == 1)
        .unwrap_or(0);
    let rotated = |by| inverse.rotate_left(by);
    inverse ^ rotated(1) ^ rotated(2) ^ rotated(3) ^ rotated(4) ^ 0x63
}

/// The product in the field of AES.
fn product(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        let carry = a & 0x80 != 0;
        a <<= 1;
        if carry {
            a ^= 0x1b;
        }
        b >>= 1;
    }
    product
}

#[test]
fn the_round_key_is_that_of_the_specification() {
    // FIPS 197, appendix A.3.
    let key: [u8; 32] = [
        0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77,
        0x81, 0x1f, 0x35, 0x2c, 0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14,
        0xdf, 0xf4,
    ];
    let expected = [
        0x9b, 0xa3, 0x54, 0x11, 0x8e, 0x69, 0x25, 0xaf, 0xa5, 0x1a, 0x8b, 0x5f, 0x20, 0x67, 0xfc,
        0xde,
    ];
    assert_eq!(aes_round_key(&key), expected);
}
