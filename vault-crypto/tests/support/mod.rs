//! What the tests of keyrings and encrypted files share: a store's place, secrets, files.
#![allow(dead_code, reason = "each test binary uses a part of this")]

#[cfg(target_os = "linux")]
pub(crate) mod process_memory;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::random::{Random, SeededRandom};
use vault_core::transform::{
    BlockIdentity, BlockTransform, FileHeader, FileIdentity, FileKind, Keys, Protection,
    StorePlace, Transform,
};
use vault_core::vfs::{FileSystem, MemoryFileSystem};
use vault_core::{Error, Result};
use vault_crypto::source::Passphrase;
use vault_crypto::{EncryptedProtection, Kdf, KdfBounds, KeySource, Keyring, SecretBytes};

pub(crate) const STORE: [u8; 16] = *b"a store's id....";
pub(crate) const MAIN: &str = "/store/KEYRING";
pub(crate) const COPY: &str = "/store/KEYRING.copy";

/// A store's place in memory.
pub(crate) struct Place {
    pub(crate) memory: MemoryFileSystem,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) directory: PathBuf,
    pub(crate) store: [u8; 16],
    pub(crate) writable: bool,
}

impl Place {
    pub(crate) fn new(seed: u64) -> Self {
        let memory = MemoryFileSystem::new();
        memory.create_dir_all(Path::new("/store")).unwrap();
        memory.sync_dir(Path::new("/")).unwrap();
        Self::on(memory, seed)
    }

    pub(crate) fn on(memory: MemoryFileSystem, seed: u64) -> Self {
        Self {
            fs: Arc::new(memory.clone()),
            memory,
            random: Arc::new(SeededRandom::new(seed)),
            directory: PathBuf::from("/store"),
            store: STORE,
            writable: true,
        }
    }

    pub(crate) fn get(&self) -> StorePlace<'_> {
        StorePlace {
            fs: &self.fs,
            random: &self.random,
            directory: &self.directory,
            store: self.store,
            writable: self.writable,
        }
    }

    pub(crate) fn create(&self, secret: &str) -> Store {
        Store::of(protection(secret), |p| p.create(&self.get())).unwrap()
    }

    pub(crate) fn try_open(&self, secret: &str) -> Result<Store> {
        Store::of(protection(secret), |p| p.open(&self.get()))
    }

    pub(crate) fn open(&self, secret: &str) -> Store {
        self.try_open(secret).unwrap()
    }

    pub(crate) fn main(&self) -> Vec<u8> {
        self.memory.read_file(MAIN).unwrap()
    }

    pub(crate) fn copy(&self) -> Vec<u8> {
        self.memory.read_file(COPY).unwrap()
    }
}

/// An open store, as far as keys go.
pub(crate) struct Store {
    pub(crate) transform: Arc<dyn Transform>,
    pub(crate) keyring: Arc<Keyring>,
}

impl Store {
    pub(crate) fn of(
        protection: EncryptedProtection,
        take: impl FnOnce(&EncryptedProtection) -> Result<Arc<dyn Transform>>,
    ) -> Result<Self> {
        let transform = take(&protection)?;
        let keyring = protection.keyring().expect("the store is open");
        // And with it the secret, as whoever opens a store should.
        drop(protection);
        Ok(Self { transform, keyring })
    }

    pub(crate) fn keys(&self) -> &dyn Keys {
        self.transform.keys().expect("it is encrypted")
    }

    /// Starts a file.
    pub(crate) fn create_file(
        &self,
        kind: FileKind,
        number: u64,
        domain: u32,
    ) -> Result<SealedFile> {
        let identity = FileIdentity {
            store: *b"a store's id....",
            kind,
            number,
            domain,
        };
        let random = SeededRandom::new(number);
        let (header, blocks) = FileHeader::create(identity, 1, &*self.transform, &random)?;
        Ok(SealedFile { header, blocks })
    }

    /// Opens a file, as one that was read from disk.
    pub(crate) fn open_file(&self, header: &FileHeader) -> Result<Arc<dyn BlockTransform>> {
        header.open(Path::new("/store/a file"), &*self.transform)
    }
}

pub(crate) struct SealedFile {
    pub(crate) header: FileHeader,
    pub(crate) blocks: Arc<dyn BlockTransform>,
}

impl SealedFile {
    /// Seals a block.
    pub(crate) fn seal(&self, ordinal: u64, text: &[u8]) -> Result<Vec<u8>> {
        let mut buffer = text.to_vec();
        self.blocks.seal(&block(ordinal), &mut buffer, 0)?;
        Ok(buffer)
    }
}

pub(crate) const fn block(ordinal: u64) -> BlockIdentity {
    BlockIdentity {
        ordinal,
        block_type: 1,
        codec: 0,
    }
}

pub(crate) fn passphrase(secret: &str) -> Passphrase {
    Passphrase::new(SecretBytes::new(secret.as_bytes()).unwrap()).unwrap()
}

/// Protection whose key derivation takes no time.
pub(crate) fn protection(secret: &str) -> EncryptedProtection {
    with_source(Arc::new(passphrase(secret))).kdf(Kdf::danger_weak())
}

pub(crate) fn with_source(source: Arc<dyn KeySource>) -> EncryptedProtection {
    EncryptedProtection::with_source(source).kdf_bounds(KdfBounds::danger_weak())
}

/// Puts right the checksum at the end of a keyring, and in its header.
pub(crate) fn mend_checksums(bytes: &mut [u8]) {
    let header = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&header.to_le_bytes());
    let end = bytes.len() - 4;
    let whole = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&whole.to_le_bytes());
}

/// Which error it is, for counting.
pub(crate) fn name_of(error: &Error) -> &'static str {
    match error {
        Error::Corruption { .. } => "Corruption",
        Error::WrongKey { .. } => "WrongKey",
        Error::UnacceptableKeyring { .. } => "UnacceptableKeyring",
        Error::NewerFormat { .. } => "NewerFormat",
        Error::NotEncrypted { .. } => "NotEncrypted",
        _ => "another",
    }
}
